"""A request's way through: counted, throttled, delayed, spoilt, answered."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from contextlib import suppress
from typing import Any, Callable, Dict, List, Optional, Tuple

from . import metadata, operations
from .account import Account
from .answers import THROTTLED, Refusal, json_answer, refusal_answer
from .ecs import Model
from .faults import Fault, FaultHook
from .http import DropConnection, Request, Response
from .neighbours import GLOBAL, SERVED
from .operations import Operation

logger = logging.getLogger(__name__)


class Book:
    """What was asked for. Its members are those of `AWS`."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.throttled: Counter[str] = Counter()
        self.requests: List[Tuple[str, Dict[str, Any]]] = []
        self._lock = threading.Lock()

    def count(self, operation: Operation) -> None:
        """A request has come in."""
        with self._lock:
            self.calls[operation.full_name] += 1
            if operation.service == "ecs":
                self.requests.append((operation.full_name, operation.params))

    def count_throttled(self, operation: Operation) -> None:
        """A token bucket has refused it."""
        with self._lock:
            self.throttled[operation.full_name] += 1

    def sent(self, operation: str) -> List[Dict[str, Any]]:
        """The parameters of every request for one operation of ECS."""
        with self._lock:
            wanted = f"ecs.{operation}"
            return [params for name, params in self.requests if name == wanted]


class Dispatcher:
    """Answers requests; called from many threads at once.

    Args:
        account: Whose requests they are.
        book: Where they are counted.
        latency: Seconds to wait before an operation takes effect.
        fault: What goes wrong with a request, if anything.
    """

    def __init__(
        self,
        account: Account,
        book: Book,
        latency: Callable[[str], float],
        fault: FaultHook,
    ) -> None:
        self._account = account
        self._book = book
        self._latency = latency
        self._fault = fault
        self._model = Model()

    def __call__(self, request: Request) -> Response:
        """Answer a request of any kind."""
        if request.path.startswith(metadata.PREFIXES):
            return metadata.answer(
                request.path, self._account.tasks(), self._account.credentials()
            )
        try:
            operation = operations.read(request)
        except Refusal as refusal:
            speaks_json = "x-amz-target" in request.headers
            return refusal_answer("s3", speaks_json, refusal)
        if not self._account.knows_key(operation.access_key):
            return self._refuse(operation, _unknown_key(operation))
        try:
            return self._answer(operation, request)
        except DropConnection:
            raise
        except Refusal as refusal:
            return self._refuse(operation, refusal)
        except Exception as error:
            logger.exception("The sandbox could not answer %s.", operation.full_name)
            return self._refuse(operation, Refusal("InternalFailure", repr(error), 500))

    def _refuse(self, operation: Operation, refusal: Refusal) -> Response:
        if refusal is THROTTLED:
            self._book.count_throttled(operation)
        return refusal_answer(operation.service, operation.speaks_json, refusal)

    def _answer(self, operation: Operation, request: Request) -> Response:
        self._book.count(operation)
        if operation.service == "ecs":
            self._account.region(operation.region).throttle(operation.name)
        time.sleep(self._latency(operation.full_name))
        fault = self._fault(operation.full_name, operation.params)
        if fault is None:
            return self._effect(operation, request)
        time.sleep(fault.delay)
        if not fault.changes_answer:
            return self._effect(operation, request)
        if fault.after_effect:
            with suppress(Refusal):  # this answer does not arrive either
                self._effect(operation, request)
        return _spoilt(fault)

    def _effect(self, operation: Operation, request: Request) -> Response:
        if operation.service not in SERVED:
            message = f"The sandbox does not serve {operation.service}."
            raise Refusal("NotImplemented", message, 501)
        if operation.service not in GLOBAL:
            self._account.region(operation.region)  # it is made when first asked for
        answer = self._ecs(operation) if operation.service == "ecs" else None
        return answer or self._moto(operation, request)

    def _moto(self, operation: Operation, request: Request) -> Response:
        try:
            return self._account.moto.answer(request)
        except NotImplementedError as error:
            # Moto names the operation, or what of it is missing.
            is_whole = "action has not been implemented" in str(error)
            detail = "" if is_whole else f": {error}"
            message = f"The sandbox does not serve {operation.full_name}{detail}"
            raise Refusal("NotImplemented", message, 501) from error

    def _ecs(self, operation: Operation) -> Optional[Response]:
        """ECS's answer, None where it is moto's to give."""
        self._model.check(operation.name, operation.params)
        region = self._account.region(operation.region)
        handler = region.handler(operation.name, operation.params)
        return None if handler is None else json_answer(handler(operation.params))


def _unknown_key(operation: Operation) -> Refusal:
    """In the words of AWS, which each service has its own of."""
    if operation.service == "s3":
        return Refusal(
            "InvalidAccessKeyId",
            "The AWS Access Key Id you provided does not exist in our records.",
            403,
        )
    code = (
        "UnrecognizedClientException"
        if operation.speaks_json
        else "InvalidClientTokenId"
    )
    message = "The security token included in the request is invalid."
    return Refusal(code, message, 403)


def _spoilt(fault: Fault) -> Response:
    """What the client gets in place of the answer."""
    if fault.drop_connection:
        raise DropConnection
    if fault.failures is not None:
        return json_answer({"tasks": [], "failures": list(fault.failures)})
    if fault.body is not None:
        return Response(fault.status or 200, body=fault.body)
    raise fault.refusal()

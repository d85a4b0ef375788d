"""A request is counted, throttled, delayed, spoilt by a fault, responded to."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Tuple

from ..http_server import DropConnection, Request, Response
from . import operations
from .account import Account, Model
from .container import METADATA_PREFIXES, metadata_response
from .operations import Operation
from .other_services import GLOBAL, SERVED, VCPU_QUOTAS
from .responses import (
    THROTTLED,
    Fault,
    Refusal,
    json_response,
    refusal_response,
)

logger = logging.getLogger(__name__)


class CallLog:
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


@dataclass
class Dispatcher:
    """Responds to requests; called from many threads at once.

    Attributes:
        account: Whose requests they are.
        calls: Where they are counted.
    """

    account: Account
    calls: CallLog

    def __post_init__(self) -> None:
        self._model = Model()

    def __call__(self, request: Request) -> Response:
        """Respond to a request of any kind."""
        if request.path.startswith(METADATA_PREFIXES):
            return metadata_response(
                request.path, self.account.tasks(), self.account.credentials()
            )
        try:
            operation = operations.read(request)
        except Refusal as refusal:
            speaks_json = "x-amz-target" in request.headers
            return refusal_response("s3", speaks_json, refusal)
        if not self.account.knows_key(operation.access_key):
            return self._refuse(operation, _unknown_key(operation))
        try:
            return self._counted(operation, request)
        except DropConnection:
            raise
        except Refusal as refusal:
            return self._refuse(operation, refusal)
        except Exception as error:
            logger.exception(
                "The sandbox could not respond to %s.", operation.full_name
            )
            return self._refuse(operation, Refusal("InternalFailure", repr(error), 500))

    def _refuse(self, operation: Operation, refusal: Refusal) -> Response:
        if refusal is THROTTLED:
            self.calls.count_throttled(operation)
        return refusal_response(operation.service, operation.speaks_json, refusal)

    def _counted(self, operation: Operation, request: Request) -> Response:
        self.calls.count(operation)
        if operation.service == "ecs":
            self.account.region(operation.region).throttle(operation.name)
        settings = self.account.settings
        if settings.latency is not None:
            time.sleep(settings.latency(operation.full_name))
        hook = settings.fault
        fault = hook(operation.full_name, operation.params) if hook else None
        if fault is None:
            return self._effect(operation, request)
        time.sleep(fault.delay)
        if not fault.changes_response:
            return self._effect(operation, request)
        if fault.after_effect:
            with suppress(Refusal):  # this response does not arrive either
                self._effect(operation, request)
        return _spoilt(fault)

    def _effect(self, operation: Operation, request: Request) -> Response:
        if operation.service not in SERVED:
            message = f"The sandbox does not serve {operation.service}."
            raise Refusal("NotImplemented", message, 501)
        if operation.service not in GLOBAL:
            self.account.region(operation.region)  # it is made when first asked for
        if operation.service == "servicequotas":
            return _quota(operation)
        response = self._ecs(operation) if operation.service == "ecs" else None
        return response or self._moto(operation, request)

    def _moto(self, operation: Operation, request: Request) -> Response:
        try:
            return self.account.moto.respond(request)
        except NotImplementedError as error:
            # Moto names the operation, or what of it is missing.
            is_whole = "action has not been implemented" in str(error)
            detail = "" if is_whole else f": {error}"
            message = f"The sandbox does not serve {operation.full_name}{detail}"
            raise Refusal("NotImplemented", message, 501) from error

    def _ecs(self, operation: Operation) -> Optional[Response]:
        """ECS's response, None where moto responds."""
        self._model.check(operation.name, operation.params)
        region = self.account.region(operation.region)
        handler = region.handler(operation.name, operation.params)
        return None if handler is None else json_response(handler(operation.params))


def _unknown_key(operation: Operation) -> Refusal:
    """In the words of AWS, which differ between services."""
    if operation.service == "s3":
        return Refusal(
            "InvalidAccessKeyId",
            "The AWS Access Key Id you provided does not exist in our records.",
            403,
        )
    speaks_json = operation.speaks_json
    code = "UnrecognizedClientException" if speaks_json else "InvalidClientTokenId"
    message = "The security token included in the request is invalid."
    return Refusal(code, message, 403)


def _spoilt(fault: Fault) -> Response:
    """What the client gets instead of the response."""
    if fault.drop_connection:
        raise DropConnection
    if fault.failures is not None:
        return json_response({"tasks": [], "failures": list(fault.failures)})
    if fault.body is not None:
        return Response(fault.status or 200, body=fault.body)
    code = fault.error_code or "InternalServerError"
    members = dict(fault.members or {})
    raise Refusal(code, fault.message, fault.status or 400, **members)


def _quota(operation: Operation) -> Response:
    """The answer of Service Quotas; moto has no quotas of Fargate."""
    code = operation.params.get("QuotaCode")
    is_known = operation.params.get("ServiceCode") == "fargate" and code in VCPU_QUOTAS
    if operation.name != "GetServiceQuota" or not is_known:
        raise Refusal("NoSuchResourceException", "There is no such quota.")
    quota = {"QuotaCode": code, "Value": VCPU_QUOTAS[str(code)]}
    return json_response({"Quota": quota})

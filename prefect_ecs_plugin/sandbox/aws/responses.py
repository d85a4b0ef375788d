"""What goes back to clients: refusals in the shape of each service, pages of lists, and
the faults that a test orders."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence
from xml.sax.saxutils import escape

from ..http_server import Response

JSON = {"Content-Type": "application/x-amz-json-1.1"}
XML = {"Content-Type": "text/xml"}
REQUEST_ID = "00000000-0000-0000-0000-000000000000"
MAX_RESULTS = 100


class Refusal(Exception):
    """An error that AWS responds with.

    Args:
        code: The error's name, `ClientException`.
        message: Its sentence.
        status: The HTTP status.
        members: Further members, as `resourceIds` of a ConflictException.
    """

    def __init__(
        self, code: str, message: str, status: int = 400, **members: Any
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status
        self.members = members


#: One call too many. Always this very object, so that it can be counted.
THROTTLED = Refusal("ThrottlingException", "Rate exceeded")


def bad_parameter(message: str) -> Refusal:
    """An InvalidParameterException."""
    return Refusal("InvalidParameterException", message)


def json_response(content: Dict[str, Any]) -> Response:
    """A response of a service that speaks JSON, as ECS does."""
    return Response(200, JSON, json.dumps(content, separators=(",", ":")).encode())


def refusal_response(service: str, speaks_json: bool, refusal: Refusal) -> Response:
    """The refusal as the clients of that service read it.

    JSON 1.1: https://smithy.io/2.0/aws/protocols/aws-json-1_1-protocol.html
    S3, EC2 and the query protocol each nest the same two fields their own way.
    """
    if speaks_json:
        body = {"__type": refusal.code, "message": refusal.message, **refusal.members}
        headers = {**JSON, "x-amzn-ErrorType": refusal.code}
        return Response(refusal.status, headers, json.dumps(body).encode())
    code, message = escape(refusal.code), escape(refusal.message)
    error = f"<Code>{code}</Code><Message>{message}</Message>"
    text = _XML_ERRORS.get(service, _XML_ERRORS["query"]).format(error, REQUEST_ID)
    return Response(refusal.status, XML, text.encode())


_XML_ERRORS = {
    "s3": "<Error>{}<RequestId>{}</RequestId></Error>",
    "ec2": "<Response><Errors><Error>{}</Error></Errors>"
    "<RequestID>{}</RequestID></Response>",
    "query": "<ErrorResponse><Error><Type>Sender</Type>{}</Error>"
    "<RequestId>{}</RequestId></ErrorResponse>",
}


def page(items: List[str], params: Mapping[str, Any], member: str) -> Dict[str, Any]:
    """One page of a List... response.

    Args:
        items: All items, in order.
        params: The request; `maxResults` and `nextToken` count.
        member: What the response calls the list.
    """
    size = params.get("maxResults", MAX_RESULTS)
    if not 1 <= size <= MAX_RESULTS:
        raise bad_parameter(f"maxResults must be between 1 and {MAX_RESULTS}.")
    try:
        start = int(base64.b64decode(params.get("nextToken", "MA=="), validate=True))
    except ValueError:
        raise bad_parameter("Invalid token") from None
    found: Dict[str, Any] = {member: items[start : start + size]}
    if start + size < len(items):
        found["nextToken"] = base64.b64encode(b"%d" % (start + size)).decode()
    return found


def check_region(name: Optional[str], region: str) -> None:
    """Refuse the ARN of another region; short names belong to any.

    ECS's message was seen for task definitions at
    https://github.com/aws/amazon-ecs-cli/issues/821 and for clusters and services at
    https://github.com/aws-samples/ecs-bg-external-controller/issues/9. That tasks are
    refused alike is an assumption.

    Args:
        name: A name or an ARN; None if the request names nothing.
        region: The region that is asked.

    Raises:
        Refusal: InvalidParameterException.
    """
    parts = (name or "").split(":")
    if parts[0] == "arn" and len(parts) > 3 and parts[3] != region:
        raise bad_parameter("Invalid Region in ARN")


@dataclass(frozen=True)
class Fault:
    """What is wrong with one request.

    Attributes:
        error_code: Respond with this error, `ThrottlingException`.
        message: The error's sentence.
        status: Its HTTP status; from 500 on without an error_code, the error is AWS's
            own InternalServerError.
        members: Further members of the error, `{"resourceIds": [...]}`.
        body: Respond with these bytes, with status 200 unless given.
        failures: Respond with 200, no tasks and these `failures[]` (RunTask).
        drop_connection: End the connection without a response.
        after_effect: Do what was asked for first, and only then go wrong: the
            response is lost or wrong, the effect is there.
        delay: Seconds to wait before anything else; alone, the request is merely
            slow.
    """

    error_code: Optional[str] = None
    message: str = "Rate exceeded"
    status: Optional[int] = None
    members: Optional[Mapping[str, Any]] = None
    body: Optional[bytes] = None
    failures: Optional[Sequence[Mapping[str, Any]]] = None
    drop_connection: bool = False
    after_effect: bool = False
    delay: float = 0.0

    @property
    def changes_response(self) -> bool:
        """False for a fault that is nothing but slow."""
        kinds = (self.error_code, self.status, self.body, self.failures)
        return self.drop_connection or any(kind is not None for kind in kinds)


FaultHook = Callable[[str, Dict[str, Any]], Optional[Fault]]

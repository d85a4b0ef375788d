"""Refusals and the shapes in which each service of AWS sends them."""

from __future__ import annotations

import json
from typing import Any, Dict
from xml.sax.saxutils import escape

from .http import Response

JSON = (("Content-Type", "application/x-amz-json-1.1"),)
XML = (("Content-Type", "text/xml"),)
REQUEST_ID = "00000000-0000-0000-0000-000000000000"


class Refusal(Exception):
    """An error that AWS answers.

    Args:
        code: The error's name, `ClientException`.
        message: Its sentence.
        status: The HTTP status, 400 unless told.
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


def json_answer(content: Dict[str, Any]) -> Response:
    """An answer of a service that speaks JSON, as ECS does."""
    return Response(200, JSON, json.dumps(content, separators=(",", ":")).encode())


def refusal_answer(service: str, speaks_json: bool, refusal: Refusal) -> Response:
    """The refusal as the clients of that service read it.

    JSON 1.1: https://smithy.io/2.0/aws/protocols/aws-json-1_1-protocol.html
    S3, EC2 and the query protocol each nest the same two fields their own way.
    """
    if speaks_json:
        body = {"__type": refusal.code, "message": refusal.message, **refusal.members}
        headers = (*JSON, ("x-amzn-ErrorType", refusal.code))
        return Response(refusal.status, headers, json.dumps(body).encode())
    return Response(refusal.status, XML, _xml(service, refusal).encode())


def _xml(service: str, refusal: Refusal) -> str:
    error = (
        f"<Code>{escape(refusal.code)}</Code>"
        f"<Message>{escape(refusal.message)}</Message>"
    )
    if service == "s3":
        return f"<Error>{error}<RequestId>{REQUEST_ID}</RequestId></Error>"
    if service == "ec2":
        return (
            f"<Response><Errors><Error>{error}</Error></Errors>"
            f"<RequestID>{REQUEST_ID}</RequestID></Response>"
        )
    return (
        f"<ErrorResponse><Error><Type>Sender</Type>{error}</Error>"
        f"<RequestId>{REQUEST_ID}</RequestId></ErrorResponse>"
    )

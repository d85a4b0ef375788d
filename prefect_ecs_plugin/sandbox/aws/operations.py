"""Which operation of which service a request asks for.

The service and the region stand in the signature's scope, the operation in the
X-Amz-Target header (JSON), in the form's Action (query and EC2), or follows from
method and path (S3).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, Dict, FrozenSet, Mapping, Match, Tuple
from urllib.parse import parse_qsl, unquote

from ..access import media_type
from ..http_server import Request
from .responses import Refusal

_SCOPE = (
    r"(?P<key>[^/,\s]+)/\d{8}/(?P<region>[^/,\s]+)/(?P<service>[^/,\s]+)/aws4_request"
)
_IN_QUERY = re.compile(_SCOPE)
#: https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html
_IN_HEADER = re.compile(
    rf"AWS4-HMAC-SHA256\s+Credential={_SCOPE},"
    r"\s*SignedHeaders=[^,\s]+,\s*Signature=[^,\s]+"
)

#: What clients of JSON services send; a page can send it only after a preflight.
#: https://smithy.io/2.0/aws/protocols/aws-json-1_1-protocol.html
_JSON_TYPES = frozenset({"application/x-amz-json-1.0", "application/x-amz-json-1.1"})
#: Those of the other services but S3, where the type is the object's.
_OTHER_TYPES = frozenset(
    {"application/x-www-form-urlencoded", "application/json", "application/cbor"}
)

# (method, whether the path names a key) -> S3 operation
_S3: Mapping[Tuple[str, bool], str] = {
    ("GET", True): "GetObject",
    ("HEAD", True): "HeadObject",
    ("PUT", True): "PutObject",
    ("DELETE", True): "DeleteObject",
    ("GET", False): "ListObjects",
    ("HEAD", False): "HeadBucket",
    ("PUT", False): "CreateBucket",
    ("DELETE", False): "DeleteBucket",
}


@dataclass(frozen=True)
class Operation:
    """What a request asks for.

    Attributes:
        access_key: The id of the key it is signed with.
        service: The name it is signed for: `ecs`, `ec2`, `s3`, ...
        region: The region it is signed for.
        name: `RunTask`.
        params: The parameters: JSON as sent, a form's fields, or Bucket and Key.
        speaks_json: Whether an error has to be JSON.
    """

    access_key: str
    service: str
    region: str
    name: str
    params: Dict[str, Any] = field(default_factory=dict)
    speaks_json: bool = False

    @property
    def full_name(self) -> str:
        """`ecs.RunTask`"""
        return f"{self.service}.{self.name}"


def read(request: Request) -> Operation:
    """Find out what is asked for.

    Raises:
        Refusal: The request is not signed, or signed twice, or its body is not what
            clients of that service send.
    """
    scope = _scope(request)
    key, service, region = scope["key"], scope["service"].lower(), scope["region"]
    target = request.headers.get("x-amz-target")
    if target:
        name = target.rpartition(".")[2]
        _check_type(request, _JSON_TYPES)
        return Operation(key, service, region, name, _json_body(request), True)
    if service == "s3":
        return Operation(key, service, region, *_s3(request))
    if request.body:
        _check_type(request, _OTHER_TYPES)
    form = dict(parse_qsl((request.body or b"").decode("utf-8", "replace")))
    # Without an Action it is a service that has paths and speaks JSON.
    name = form.pop("Action", "")
    return Operation(key, service, region, name or request.method, form, not name)


def _scope(request: Request) -> Match[str]:
    """Who signs the request, and for what: in the header, or in the query.

    Raises:
        Refusal: It stands in neither, in both, or more than once.
    """
    header = request.headers.get("authorization")
    query = [
        value
        for name, value in parse_qsl(request.query)
        if name.lower() == "x-amz-credential"
    ]
    if len(query) + (header is not None) > 1:
        raise Refusal(
            "InvalidArgument",
            "Only one auth mechanism allowed: the request has two credentials.",
            403,
        )
    if header is None:
        scope = _IN_QUERY.fullmatch("".join(query))
    else:
        scope = _IN_HEADER.fullmatch(header.strip())
    if scope is None:
        raise Refusal(
            "MissingAuthenticationToken",
            "Request is missing Authentication Token: the sandbox serves signed "
            "requests of AWS's own clients.",
            403,
        )
    return scope


def _check_type(request: Request, known: FrozenSet[str]) -> None:
    """Refuse a body of a type that this service's clients do not send."""
    given = media_type(request.headers.get("content-type", ""))
    if given not in known:
        raise Refusal(
            "UnsupportedMediaType",
            f"The sandbox does not read {given or 'a body without Content-Type'} here, "
            f"only {' or '.join(sorted(known))}.",
            403,
        )


def _json_body(request: Request) -> Dict[str, Any]:
    try:
        params = json.loads(request.body or b"{}")
    except ValueError:
        params = None
    if not isinstance(params, dict):
        raise Refusal("SerializationException", "The body is not a JSON object.")
    return params


def _s3(request: Request) -> Tuple[str, Dict[str, str]]:
    bucket, _, key = unquote(request.path).lstrip("/").partition("/")
    if not bucket:
        return "ListBuckets", {}
    name = _S3.get((request.method, bool(key)), request.method)
    return name, {"Bucket": bucket, "Key": key} if key else {"Bucket": bucket}

"""Which operation of which service a request asks for.

The service and the region stand in the signature's scope, the operation in the
X-Amz-Target header (JSON), in the form's Action (query and EC2), or follows from
method and path (S3).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, Dict, Mapping, Tuple
from urllib.parse import parse_qsl, unquote

from .answers import Refusal
from .http import Request

_SCOPE = re.compile(r"Credential=[^/]*/\d{8}/(?P<region>[^/]+)/(?P<service>[^/]+)/")

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
        service: The name it is signed for: `ecs`, `ec2`, `s3`, ...
        region: The region it is signed for.
        name: `RunTask`.
        params: The parameters: JSON as sent, a form's fields, or Bucket and Key.
        speaks_json: Whether an error has to be JSON.
    """

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
        Refusal: The request is not signed, or its body cannot be read.
    """
    scope = _SCOPE.search(request.headers.get("authorization", ""))
    scope = scope or _SCOPE.search(f"Credential={_presigned(request)}/")
    if scope is None:
        raise Refusal(
            "MissingAuthenticationToken",
            "Request is missing Authentication Token: the sandbox serves signed "
            "requests of AWS's own clients.",
            403,
        )
    service, region = scope["service"].lower(), scope["region"]
    target = request.headers.get("x-amz-target")
    if target:
        name = target.rpartition(".")[2]
        return Operation(service, region, name, _json_body(request), True)
    if service == "s3":
        return Operation(service, region, *_s3(request))
    form = dict(parse_qsl(request.body.decode("utf-8", "replace")))
    # Without an Action it is a service that has paths and speaks JSON.
    name = form.pop("Action", "")
    return Operation(service, region, name or request.method, form, not name)


def _presigned(request: Request) -> str:
    return dict(parse_qsl(request.query)).get("X-Amz-Credential", "")


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

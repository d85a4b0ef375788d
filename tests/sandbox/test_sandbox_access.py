"""The sandbox answers its own user's programs, and no other user's on the machine.

Each request here is a good one with one thing changed, so that nothing else can be why
it is refused; most have even the session's secret.
"""

from __future__ import annotations

import http.client
import json
import socket
from contextlib import suppress
from typing import Any, Dict, Iterator, List, NamedTuple, Tuple

import pytest
from botocore.config import Config
from deadlines import DEADLINE
from sandbox_aws import AWS, ONCE, refusal
from sandbox_prefect import HTTP

from prefect_ecs_plugin.sandbox.access import refusal as why_refused
from prefect_ecs_plugin.sandbox.prefect_api import PrefectAPI

MUTATION = 'mutation{create_tenant(input:{name:"x",slug:"x"}){id}}'


@pytest.fixture(scope="module")
def aws() -> Iterator[AWS]:
    with AWS(runs_tasks=False) as server:
        yield server


@pytest.fixture(scope="module")
def api() -> Iterator[PrefectAPI]:
    with PrefectAPI() as server:
        yield server


class Sent(NamedTuple):
    """A request, and the server that it is for."""

    server: Any
    method: str
    target: str
    headers: List[Tuple[str, str]]
    body: bytes

    @property
    def port(self) -> int:
        return int(self.server.url.split(":")[2].split("/")[0])

    def without(self, name: str) -> Sent:
        return self._replace(headers=[pair for pair in self.headers if pair[0] != name])

    def having(self, name: str, value: str) -> Sent:
        return self._replace(headers=[*self.headers, (name, value)])

    def answer(self) -> Tuple[int, Dict[str, str], str]:
        """Status, headers and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.putrequest(
            self.method, self.target, skip_host=True, skip_accept_encoding=True
        )
        for name, value in self.headers:
            connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(self.body)))
        connection.endheaders(self.body)
        answer = connection.getresponse()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        found = answer.status, headers, answer.read().decode()
        connection.close()
        return found


def to_api(api: PrefectAPI) -> Sent:
    """As Prefect's client sends it."""
    return Sent(
        api,
        "POST",
        f"/{api.token}",
        [("Host", api.address[len("http://") :]), ("Content-Type", "application/json")],
        json.dumps({"query": MUTATION}).encode(),
    )


def authorization(access_key: str) -> str:
    scope = f"{access_key}/20261122/us-east-1/ecs/aws4_request"
    return f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"


def to_aws(aws: AWS) -> Sent:
    """As botocore sends it."""
    return Sent(
        aws,
        "POST",
        "/",
        [
            ("Host", aws.url[len("http://") :]),
            ("Content-Type", "application/x-amz-json-1.1"),
            ("X-Amz-Target", "AmazonEC2ContainerServiceV20141113.CreateCluster"),
            ("Authorization", authorization(aws.access_key)),
        ],
        b'{"clusterName": "x"}',
    )


@pytest.fixture(params=["api", "aws"])
def good(request: pytest.FixtureRequest, api: PrefectAPI, aws: AWS) -> Sent:
    return to_api(api) if request.param == "api" else to_aws(aws)


def assert_refused(sent: Sent) -> Tuple[int, Dict[str, str], str]:
    """Answered 403, to be read by no page, and without any effect."""
    sent.server.calls.clear()
    status, headers, body = sent.answer()
    assert (status, sent.server.calls) == (403, {}), body
    assert not [name for name in headers if name.startswith("access-control-")]
    return status, headers, body


def test_a_good_request_is_answered(good: Sent) -> None:
    good.server.calls.clear()
    assert good.answer()[0] == 200
    assert sum(good.server.calls.values()) == 1


# What browsers send, or make others send


@pytest.mark.parametrize(
    "host", ["evil.test:{port}", "localhost:{port}", "127.0.0.1", "[::1]:{port}", ""]
)
def test_no_other_host_is_answered(good: Sent, host: str) -> None:
    host = host.format(port=good.port)
    _, _, body = assert_refused(good.without("Host").having("Host", host))
    assert body == f"The sandbox answers only to the host 127.0.0.1:{good.port}.\n"


def test_neither_none_nor_two_hosts_are_answered(good: Sent) -> None:
    assert_refused(good.without("Host"))
    assert_refused(good.having("Host", "evil.test"))


@pytest.mark.parametrize("origin", ["http://evil.test", "null", "{own}"])
def test_no_origin_is_answered(good: Sent, origin: str) -> None:
    own = f"http://127.0.0.1:{good.port}"
    assert_refused(good.having("Origin", origin.format(own=own)))


@pytest.mark.parametrize("site", ["cross-site", "same-origin", "none"])
def test_no_request_of_a_browser_is_answered(good: Sent, site: str) -> None:
    """Pictures and scripts are asked for without an Origin."""
    assert_refused(good.having("Sec-Fetch-Site", site))


def test_no_preflight_is_answered(good: Sent) -> None:
    preflight = good._replace(method="OPTIONS", body=b"")
    assert_refused(preflight)
    asked = preflight.having("Access-Control-Request-Method", "POST")
    assert_refused(asked.having("Access-Control-Request-Private-Network", "true"))


def test_a_preflight_that_looks_signed_is_not_answered(aws: AWS) -> None:
    scope = f"{aws.access_key}/20261122/us-east-1/sts/aws4_request"
    target = f"/?Action=GetCallerIdentity&X-Amz-Credential={scope}"
    host = ("Host", aws.url[len("http://") :])
    assert_refused(Sent(aws, "OPTIONS", target, [host], b""))


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "text/plain;charset=UTF-8",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/plain; application/json",
        "",
        None,
    ],
)
def test_no_other_content_type_is_answered(good: Sent, content_type: Any) -> None:
    changed = good.without("Content-Type")
    if content_type is not None:
        changed = changed.having("Content-Type", content_type)
    assert_refused(changed)


def test_a_charset_may_stand_beside_the_content_type(api: PrefectAPI) -> None:
    changed = to_api(api).without("Content-Type")
    changed = changed.having("Content-Type", "Application/JSON; charset=utf-8")
    assert changed.answer()[0] == 200


def test_a_form_is_not_read_from_a_body_of_another_type(aws: AWS) -> None:
    good = to_aws(aws).without("X-Amz-Target").without("Content-Type")
    body = b"Action=GetCallerIdentity&Version=2011-06-15"
    signed = authorization(aws.access_key).replace("/ecs/", "/sts/")
    good = good.without("Authorization").having("Authorization", signed)
    good = good._replace(body=body)
    form = "application/x-www-form-urlencoded; charset=utf-8"
    assert good.having("Content-Type", form).answer()[0] == 200
    assert_refused(good.having("Content-Type", "text/plain"))


@pytest.mark.parametrize("service", ["ecs", "s3", "sts", "ec2"])
def test_no_answer_can_be_read_by_a_page(aws: AWS, service: str) -> None:
    """Moto lets every origin read its answers."""
    asks = {
        "ecs": ("list_clusters", "ListClusters"),
        "s3": ("list_buckets", "ListBuckets"),
        "sts": ("get_caller_identity", "GetCallerIdentity"),
        "ec2": ("describe_vpcs", "DescribeVpcs"),
    }
    client = aws.client(service, config=ONCE)
    answer = getattr(client, asks[service][0])()["ResponseMetadata"]
    assert answer["HTTPStatusCode"] == 200
    assert "access-control" not in str(answer["HTTPHeaders"])


# What other users of the machine do not know


@pytest.mark.parametrize(
    "target",
    ["/", "/graphql", "/x", "/{short}", "/{token}x", "/x/{token}", "*"],
)
def test_a_url_without_the_token_is_refused(api: PrefectAPI, target: str) -> None:
    target = target.format(token=api.token, short=api.token[:-1])
    _, _, body = assert_refused(to_api(api)._replace(target=target))
    assert body == "The path of the URL lacks the token of this sandbox.\n"


@pytest.mark.parametrize("path", ["/", "/graphql?query={hello}", "/health"])
def test_nothing_can_be_got_without_the_token(api: PrefectAPI, path: str) -> None:
    assert HTTP.get(f"{api.url}{path}").status_code == 200
    assert HTTP.get(f"{api.address}{path}").status_code == 403


@pytest.mark.parametrize(
    "service, operation, code",
    [
        ("ecs", "list_clusters", "UnrecognizedClientException"),
        ("sts", "get_caller_identity", "InvalidClientTokenId"),
        ("s3", "list_buckets", "InvalidAccessKeyId"),
    ],
)
def test_another_access_key_is_refused_in_awss_words(
    aws: AWS, service: str, operation: str, code: str
) -> None:
    client = aws.client(service, config=ONCE, aws_access_key_id="AKIAIOSFODNN7EXAMPLE")
    refused = refusal(getattr(client, operation))
    assert (refused["Code"], refused["Status"]) == (code, 403)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer x",
        authorization("AKIAIOSFODNN7EXAMPLE"),
        # The right key, where no client of AWS writes it.
        "x Credential={key}/20261122/us-east-1/ecs/aws4_request",
        "AWS4-HMAC-SHA256 Credential=x/{key}/20261122/us-east-1/ecs/aws4_request, "
        "SignedHeaders=host, Signature=0",
    ],
)
def test_a_request_without_the_key_is_refused(aws: AWS, header: Any) -> None:
    changed = to_aws(aws).without("Authorization")
    if header is not None:
        header = header.format(key=aws.access_key)
        changed = changed.having("Authorization", header)
    assert_refused(changed)


@pytest.mark.parametrize(
    "where", ["query", "query, small", "header", "two in the query"]
)
def test_two_credentials_are_refused(aws: AWS, where: str) -> None:
    """Each of them is good: the sandbox must not read one and moto the other."""
    scope = f"{aws.access_key}/20261122/us-east-1/sts/aws4_request"
    good = to_aws(aws)
    changed = {
        "query": good._replace(target=f"/?X-Amz-Credential={scope}"),
        "query, small": good._replace(target=f"/?x-amz-credential={scope}"),
        "header": good.having("Authorization", authorization(aws.access_key)),
        "two in the query": good.without("Authorization")._replace(
            target=f"/?X-Amz-Credential={scope}&X-Amz-Credential={scope}"
        ),
    }[where]
    assert_refused(changed)


def test_a_url_that_is_signed_beforehand_works(aws: AWS) -> None:
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="signed")
    s3.put_object(Bucket="signed", Key="a", Body=b"text", ContentType="text/plain")
    s3 = aws.client("s3", config=ONCE.merge(Config(signature_version="s3v4")))
    url = s3.generate_presigned_url("get_object", {"Bucket": "signed", "Key": "a"})
    assert HTTP.get(url).text == "text"
    url = url.replace(aws.access_key, "AKIAIOSFODNN7EXAMPLE")
    assert HTTP.get(url).status_code == 403


def test_keys_that_the_sandbox_has_issued_work(aws: AWS) -> None:
    sts, iam = aws.client("sts"), aws.client("iam")
    role = "arn:aws:iam::123456789012:role/any"
    assumed = sts.assume_role(RoleArn=role, RoleSessionName="me")["Credentials"]
    iam.create_user(UserName="me")
    created = iam.create_access_key(UserName="me")["AccessKey"]
    for issued in (assumed, created):
        ecs = aws.client(
            "ecs",
            config=ONCE,
            aws_access_key_id=issued["AccessKeyId"],
            aws_secret_access_key=issued["SecretAccessKey"],
            aws_session_token=issued.get("SessionToken"),
        )
        assert "clusterArns" in ecs.list_clusters()


def test_each_session_has_a_secret_of_its_own(aws: AWS) -> None:
    first, second = PrefectAPI(), PrefectAPI()
    assert first.token != second.token
    other = AWS()
    assert other.access_key != aws.access_key
    assert other.secret_key != aws.secret_key
    for secret in (first.token, other.secret_key):
        assert len(set(secret)) > 8
        assert len(secret) >= 40


def test_a_large_body_does_not_keep_the_refusal_from_its_client(good: Sent) -> None:
    changed = good.having("Origin", "null")._replace(body=b"x" * 900_000)
    assert assert_refused(changed)[1]["connection"] == "close"


def test_a_client_that_sends_no_body_does_not_keep_the_others(good: Sent) -> None:
    with socket.create_connection(("127.0.0.1", good.port), DEADLINE) as waiting:
        waiting.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
        assert waiting.recv(100).startswith(b"HTTP/1.1 403 Forbidden\r\n")
        assert good.answer()[0] == 200
        with suppress(OSError):
            waiting.shutdown(socket.SHUT_RDWR)


def test_reasons_are_one_line() -> None:
    headers = http.client.HTTPMessage()
    for name in ("Origin", "Sec-Fetch-Site"):
        headers[name] = "x\r\n y"
    for method in ("OPTIONS", "GET"):
        why = why_refused(method, headers, "127.0.0.1:1")
        assert why is not None
        assert "\n" not in why

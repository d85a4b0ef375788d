"""The sandbox's environment: nothing of the user's settings gets in.

`hostile` is a shell, a home directory and a set of files in which everything that can
lead a client somewhere leads to a trap: a server on loopback that must stay unasked.
"""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest
from deadlines import DEADLINE
from shell import Shell, without_looks

from prefect_ecs_plugin.sandbox import environment as env


class Recorder:
    """A server on loopback that writes down who asked for what."""

    ANSWER = json.dumps({"data": {"hello": "here"}, "clusterArns": []}).encode()

    def __init__(self) -> None:
        recorder = self
        self.requests: List[str] = []

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                recorder.requests.append(f"{self.command} {self.path}")
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self.send_response(200)
                self.send_header("Content-Length", str(len(recorder.ANSWER)))
                self.end_headers()
                self.wfile.write(recorder.ANSWER)

            do_GET = do_PUT = do_POST = do_HEAD = do_CONNECT = answer

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def trap() -> Iterator[Recorder]:
    recorder = Recorder()
    yield recorder
    recorder.stop()


@pytest.fixture
def hostile(tmp_path: Path, trap: Recorder) -> Dict[str, str]:
    """A user's shell whose every setting leads to the trap or leaves a mark."""
    home = tmp_path / "user"
    mark = tmp_path / "mark"
    files = {
        ".prefect/config.toml": f"""
            [cloud]
            api = "{trap.url}"
            api_key = "hostile-key"
            [server]
            endpoint = "{trap.url}"
            [logging]
            level = "ERROR"
            """,
        ".prefect/backend.toml": 'backend = "cloud"',
        ".prefect/auth.toml": f"""
            ["{trap.url.replace("http://", "")}"]
            api_key = "hostile-key"
            """,
        ".aws/config": f"""
[default]
region = eu-west-3
endpoint_url = {trap.url}
credential_process = sh -c "touch {mark}; echo {{}}"
[profile hostile]
endpoint_url = {trap.url}
services = traps
credential_process = sh -c "touch {mark}; echo {{}}"
[services traps]
ecs =
  endpoint_url = {trap.url}
""",
        ".aws/credentials": "[default]\naws_access_key_id = hostile-id\n"
        "aws_secret_access_key = hostile-secret\n",
        ".netrc": "default login hostile password hostile-password\n",
        ".boto": "[Credentials]\naws_access_key_id = hostile-id\n"
        "aws_secret_access_key = hostile-secret\n",
    }
    for name, text in files.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text)
    proxies = {
        name: trap.url
        for upper in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
        for name in (upper, upper.lower())
    }
    services = ("ECS", "EC2", "S3", "STS", "IAM", "CLOUDWATCH_LOGS")
    endpoints = {f"AWS_ENDPOINT_URL_{name}": trap.url for name in services}
    return {
        **{name: os.environ[name] for name in env.KEPT & set(os.environ)},
        **proxies,
        **endpoints,
        "HOME": str(home),
        "NETRC": str(home / ".netrc"),
        "BOTO_CONFIG": str(home / ".boto"),
        "AWS_ENDPOINT_URL": trap.url,
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
        "AWS_PROFILE": "hostile",
        "AWS_DEFAULT_PROFILE": "hostile",
        "AWS_DEFAULT_REGION": "eu-west-3",
        "AWS_CONFIG_FILE": str(home / ".aws" / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(home / ".aws" / "credentials"),
        "AWS_ACCESS_KEY_ID": "hostile-id",
        "AWS_SECRET_ACCESS_KEY": "hostile-secret",
        "AWS_SESSION_TOKEN": "hostile-token",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": trap.url,
        "AWS_EC2_METADATA_SERVICE_ENDPOINT": trap.url,
        "AWS_CA_BUNDLE": str(home / "nothing"),
        "AWS_RETRY_MODE": "hostile",
        "REQUESTS_CA_BUNDLE": str(home / "nothing"),
        "PREFECT__BACKEND": "cloud",
        "PREFECT__CLOUD__API": trap.url,
        "PREFECT__CLOUD__ENDPOINT": trap.url,
        "PREFECT__SERVER__ENDPOINT": trap.url,
        "PREFECT__CLOUD__API_KEY": "hostile-key",
        "PREFECT__CLOUD__TENANT_ID": "hostile-tenant",
        "PREFECT__CLOUD__AGENT__LABELS": "['hostile']",
        "PREFECT__CLOUD__AGENT__AGENT_ADDRESS": "http://127.0.0.1:1",
        "PREFECT__CONTEXT__FLOW_RUN_ID": "hostile-run",
        "PREFECT__USER_CONFIG_PATH": str(home / ".prefect" / "config.toml"),
        "PREFECT__BACKEND_CONFIG_PATH": str(home / ".prefect" / "backend.toml"),
        "PREFECT__HOME_DIR": str(home / ".prefect"),
    }


#: Asks every service once and says what the clients had to go by.
PROBE = """
import json, os, sys
import boto3, prefect
from prefect import config

for service, call, given in [
    ("ecs", "list_clusters", {}),
    ("s3", "get_object", {"Bucket": "bucket", "Key": "key"}),
    ("sts", "get_caller_identity", {}),
    ("ec2", "describe_vpcs", {}),
]:
    client = boto3.client(service)
    try:
        getattr(client, call)(**given)
    except Exception as error:  # the answers are rubbish for some
        if "Parser" not in type(error).__name__:
            print(service, error, file=sys.stderr)
credentials = boto3.Session().get_credentials()
api = prefect.Client()
api.graphql("query { hello }")
print(json.dumps({
    "keys": [credentials.access_key, credentials.secret_key, credentials.token],
    "region": boto3.Session().region_name,
    "profiles": boto3.Session().available_profiles,
    "backend": config.backend,
    "api": [api.api_server, config.server.endpoint],
    "key": [api.api_key, config.cloud.api_key, config.cloud.tenant_id],
    "agent": [config.cloud.agent.labels, config.cloud.agent.agent_address],
    "context": dict(config.get("context") or {}),
    "home": [os.path.expanduser("~"), config.home_dir],
    "level": config.logging.level,
}))
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    directory = tmp_path / "with space" / "sandbox"
    directory.mkdir(parents=True)
    env.furnish(directory)
    return directory


def test_no_setting_of_the_users_gets_in(
    hostile: Dict[str, str], trap: Recorder, home: Path, tmp_path: Path
) -> None:
    inside = Recorder()
    environment = env.sandbox_environment(
        inside.url, inside.url, ("id", "secret"), home, hostile
    )
    done = subprocess.run(
        # boto3 warns that it will leave an old Python
        [sys.executable, "-W", "ignore", "-c", PROBE],
        env=environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    inside.stop()
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {
        "keys": ["id", "secret", None],
        "region": "us-east-1",
        "profiles": [],
        "backend": "server",
        "api": [inside.url, inside.url],
        "key": [None, "", ""],
        "agent": [[], ""],
        "context": {},
        "home": [str(home), str(home / ".prefect")],
        "level": "INFO",
    }
    assert trap.requests == []
    assert sorted(inside.requests) == ["GET /bucket/key"] + 4 * ["POST /"]
    assert not (tmp_path / "mark").exists()


def test_the_whole_sandbox_in_a_hostile_shell(
    hostile: Dict[str, str], trap: Recorder, tmp_path: Path
) -> None:
    pytest.importorskip("moto", reason="the sandbox needs its extra and Python 3.10")
    shell = Shell(tmp_path, hostile)
    done = shell.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| You would jump highest on Mars" in done.stdout
    assert re.search(
        r"^example/\S+: Success, task STOPPED, exit code 0, [\d.]+ s\n"
        r"ECS calls: DescribeClusters 1, DescribeTaskDefinition 1, "
        r"RegisterTaskDefinition 1, RunTask 1\n",
        without_looks(done.stdout),
        re.MULTILINE,
    ), done.stdout
    assert trap.requests == []
    assert not (tmp_path / "mark").exists()
    assert shell.left_behind() == []


def test_the_trap_catches_a_shell_that_is_not_replaced(
    hostile: Dict[str, str], trap: Recorder, tmp_path: Path
) -> None:
    probe = "import boto3; boto3.client('ecs').list_clusters()"
    del hostile["AWS_RETRY_MODE"], hostile["AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"]
    subprocess.run(
        [sys.executable, "-c", probe], env=hostile, check=True, timeout=DEADLINE
    )
    assert len(trap.requests) == 1


def test_the_whole_environment(home: Path) -> None:
    shell = {
        "PATH": "/usr/bin",
        "LANG": "C.UTF-8",
        "SECRET_TOKEN": "x",
        "PREFECT__CLOUD__API_KEY": "x",
    }
    environment = env.sandbox_environment(
        "http://a", "http://b", ("id", "secret"), home, shell
    )
    environment.pop("PYTHONUSERBASE", None)  # only where this Python has a user site
    binaries = [str(home / "bin"), os.path.dirname(sys.executable), "/usr/bin"]
    assert environment == {
        "LANG": "C.UTF-8",
        "PATH": os.pathsep.join(binaries),
        "PYTHONUNBUFFERED": "1",
        "HOME": str(home),
        "TMPDIR": str(home / "tmp"),
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        "AWS_ENDPOINT_URL": "http://b",
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "false",
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REGION": "us-east-1",
        "AWS_CONFIG_FILE": str(home / ".aws" / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(home / ".aws" / "credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
        "BOTO_CONFIG": str(home / ".aws" / "boto.cfg"),
        "PREFECT__HOME_DIR": str(home / ".prefect"),
        "PREFECT__USER_CONFIG_PATH": str(home / ".prefect" / "config.toml"),
        "PREFECT__BACKEND_CONFIG_PATH": str(home / ".prefect" / "backend.toml"),
        "PREFECT__BACKEND": "server",
        "PREFECT__CLOUD__API": "http://a",
        "PREFECT__SERVER__ENDPOINT": "http://a",
        "PREFECT__CLOUD__API_KEY": "",
        "PREFECT__CLOUD__TENANT_ID": "",
        "PREFECT__FLOWS__DEFAULTS__STORAGE__ADD_DEFAULT_LABELS": "false",
    }


def test_a_container_has_neither_keys_nor_servers(home: Path) -> None:
    names = set(env.container_environment(home, {"AWS_PROFILE": "x", "PATH": "/bin"}))
    assert {name for name in names if name.startswith(("AWS", "PREFECT__"))} == {
        "PREFECT__HOME_DIR",
        "PREFECT__USER_CONFIG_PATH",
        "PREFECT__BACKEND_CONFIG_PATH",
    }


def test_this_process_too_sees_only_what_it_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "hostile")
    before = dict(os.environ)
    with env.only({"A": "b"}):
        seen = dict(os.environ)
    assert (seen, dict(os.environ)) == ({"A": "b"}, before)


def test_relative_entries_of_pythonpath_hold_in_any_directory() -> None:
    settings = env.python_settings({"PYTHONPATH": os.pathsep.join(["src", "/lib"])})
    expected = os.pathsep.join([os.path.abspath("src"), os.path.abspath("/lib")])
    assert settings["PYTHONPATH"] == expected


def test_the_home_holds_nothing_but_the_sandboxs_own(home: Path) -> None:
    found = {
        str(path.relative_to(home)): path.read_text()
        for path in home.rglob("*")
        if path.is_file() and path.name != "prefect"
    }
    assert found == {".aws/config": "", ".aws/credentials": "", ".aws/boto.cfg": ""}
    assert (home / "bin" / "prefect").stat().st_mode & stat.S_IXUSR


def test_prefect_in_a_container_is_this_pythons(home: Path, tmp_path: Path) -> None:
    # A directory that hides Prefect's own modules from `python -m prefect`.
    (tmp_path / "yaml.py").write_text("raise SystemExit('the wrong module')")
    environment = env.container_environment(home)
    commands: List[List[str]] = [
        ["/bin/sh", "-c", "prefect version"],
        [*env.prefect_command(home), "version"],
    ]
    import prefect

    for command in commands:
        done = subprocess.run(
            command,
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )
        assert (done.stdout.strip(), done.returncode) == (prefect.__version__, 0)


def test_the_export_lines_replace_what_another_terminal_has(
    home: Path, hostile: Dict[str, str]
) -> None:
    environment = env.sandbox_environment(
        "http://a", "http://b", ("id", "secret"), home, {}
    )
    script = "\n".join([*env.exports(environment), "env -0"])
    done = subprocess.run(
        ["/bin/sh", "-eu", "-c", script],
        env={**hostile, "AWS_X": "two\nlines"},
        capture_output=True,
        text=True,
        check=True,
        timeout=DEADLINE,
    )
    after = dict(item.split("=", 1) for item in done.stdout.split("\0") if item)
    prefixes = ("AWS", "PREFECT__", "BOTO", "NO_PROXY", "no_proxy")
    assert {
        name: value for name, value in after.items() if name.startswith(prefixes)
    } == {
        name: value for name, value in environment.items() if name.startswith(prefixes)
    }
    assert after["HOME"] == hostile["HOME"]

"""Python programs that start at once: forked from a process that has their packages.

Most of what a test with an agent costs is the start of Python and the import of some
seven hundred modules. A server process imports them once; each program is then forked
from it, a process of its own with its own environment, session, output and exit code.
No module of Prefect or of this package is imported before the fork: what they read from
the environment is the program's own.

`Forked` stands for `subprocess.Popen`, and this file run as a script is the server.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import types
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

#: Whether the system is known to take it well.
POSSIBLE = sys.platform == "linux"

#: Names that the server leaves to the programs.
OWN = ("prefect", "prefect_ecs_plugin")

#: Modules that bring in the packages which programs will want.
WANTED = (
    *("boto3", "botocore.session", "prometheus_client", "prefect.cli"),
    *("prefect_ecs_plugin.agent", "prefect_ecs_plugin.cli.start"),
    "prefect_ecs_plugin.cli.check.command",
)

#: Services of AWS whose models are read beforehand.
SERVICES = ("ec2", "ecr", "ecs", "iam", "logs", "s3", "secretsmanager", "ssm", "sts")

#: Descriptors that come with a request: the request itself, the program's standard
#: output and error, and where its process id and exit code are written.
DESCRIPTORS = 4


# -- In the tests' process -------------------------------------------------------------


class Forked:
    """A program, with that part of Popen's interface that the tests need.

    Args:
        command: Python, and a script or `-c` with code, and arguments.
        environment: All of its environment.
        cwd: Where it runs; by default where this process does.
        merges: Whether its standard error goes to its standard output.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        cwd: Optional[os.PathLike[str]] = None,
        merges: bool = True,
    ) -> None:
        request_out, request_in = os.pipe()
        output_out, output_in = os.pipe()
        error_out, error_in = (output_out, output_in) if merges else os.pipe()
        status_out, status_in = os.pipe()
        _the_server(environment).fork(request_out, output_in, error_in, status_in)
        for descriptor in {request_out, output_in, error_in, status_in}:
            os.close(descriptor)
        with open(request_in, "w", encoding="utf-8") as request:
            json.dump(
                [list(command), dict(environment), str(cwd or os.getcwd())], request
            )
        self.args = command
        self.stdout = _text(output_out)
        self.stderr = None if merges else _text(error_out)
        self.returncode: Optional[int] = None
        self._status = status_out
        self._lock = threading.Lock()
        self.pid = int(_line(status_out))

    def poll(self) -> Optional[int]:
        """Return the exit code, None while it runs."""
        with self._lock:
            if self.returncode is None and select.select([self._status], [], [], 0)[0]:
                self.returncode = int(_line(self._status))
                os.close(self._status)
        return self.returncode

    def wait(self, timeout: Optional[float] = None) -> int:
        """Return the exit code, as soon as there is one.

        Raises:
            subprocess.TimeoutExpired: There is none after so many seconds.
        """
        with contextlib.suppress(OSError, ValueError):  # another thread was told first
            select.select([self._status], [], [], timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return code


def run(
    command: Sequence[str],
    environment: Mapping[str, str],
    timeout: float,
    cwd: Optional[os.PathLike[str]] = None,
    merges: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, as `subprocess.run` does."""
    program = Forked(command, environment, cwd, merges)
    heard: Dict[str, str] = {"stderr": ""}
    readers = [
        threading.Thread(target=lambda n=name, s=stream: heard.update({n: _all(s)}))
        for name, stream in (("stdout", program.stdout), ("stderr", program.stderr))
        if stream is not None
    ]
    for reader in readers:
        reader.start()
    try:
        code = program.wait(timeout)
    except subprocess.TimeoutExpired:
        os.killpg(program.pid, signal.SIGKILL)
        raise
    finally:
        for reader in readers:
            reader.join()
    return subprocess.CompletedProcess(command, code, heard["stdout"], heard["stderr"])


def _all(stream: Any) -> str:
    """All that is left in a stream, which is closed then."""
    with stream:
        return str(stream.read())


def _text(descriptor: int) -> Any:
    return open(descriptor, encoding="utf-8", errors="replace")


def _line(descriptor: int) -> bytes:
    """A line of a pipe, and not a byte more."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(descriptor, 1)
        if not byte:
            raise RuntimeError("the process that forks programs has ended")
        line += byte
    return line


class _Server:
    """The process that forks; it ends when this one does."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._socket, its = socket.socketpair()
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(its.fileno())],
            # Without the mark by which tests find what a program has left behind.
            env={name: environment[name] for name in environment if name != "USER"},
            stdin=subprocess.DEVNULL,
            pass_fds=[its.fileno()],
            start_new_session=True,
        )
        its.close()

    def fork(self, *descriptors: int) -> None:
        with self._lock:
            socket.send_fds(self._socket, [b"x"], descriptors)


_servers: List[_Server] = []
_starting = threading.Lock()


def _the_server(environment: Mapping[str, str]) -> _Server:
    with _starting:
        if not _servers:
            _servers.append(_Server(environment))
    return _servers[0]


# -- In the server's process -----------------------------------------------------------


def serve(control: socket.socket) -> Optional[List[str]]:
    """Fork a program for each request.

    Returns:
        In the program's process, its command line; in the server's None, at the end.
    """
    _import_what_is_wanted()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the keepers need no burial
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1, DESCRIPTORS)
        if not message:
            return None
        command = None if os.fork() else _keep(control, *descriptors)
        if command is not None:
            return command
        for descriptor in descriptors:
            os.close(descriptor)


def _import_what_is_wanted() -> None:
    """Import the packages, and let botocore read its models once."""
    for name in _wanted():
        with contextlib.suppress(ImportError):  # made up at run time by its package
            importlib.import_module(name)
    share_botocores_models()
    import botocore.session

    for service in SERVICES:
        botocore.session.Session().create_client(
            service, "us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
        )
    gc.collect()
    gc.freeze()  # what is here already concerns no program


def share_botocores_models() -> None:
    """Have botocore do once in this process what it does anew for each session.

    It reads the models of services, makes the methods of clients (700 of them for EC2)
    and translates the names of events. Nothing of that depends on the session. The
    names used here are botocore's own; where they change, it only takes longer.
    """
    import botocore.client
    import botocore.hooks
    import botocore.loaders
    import botocore.session
    from botocore.utils import EVENT_ALIASES

    loader = botocore.loaders.create_loader()
    botocore.session.create_loader = lambda search_path_string=None: loader

    creator: Any = botocore.client.ClientCreator
    makes_methods = getattr(creator, "_create_methods", lambda *_: {})
    methods: Dict[Tuple[str, ...], Dict[str, Any]] = {}

    def shared_methods(self: Any, service_model: Any) -> Dict[str, Any]:
        # The agent's own model of EC2 has fewer operations than botocore's.
        key = (service_model.service_name, *service_model.operation_names)
        if key not in methods:
            methods[key] = makes_methods(self, service_model)
        return dict(methods[key])

    creator._create_methods = shared_methods

    aliaser: Any = botocore.hooks.EventAliaser
    makes_aliaser = aliaser.__init__
    names: Dict[str, str] = {}

    def with_shared_names(self: Any, *args: Any, **kwargs: Any) -> None:
        makes_aliaser(self, *args, **kwargs)
        if getattr(self, "_event_aliases", None) == EVENT_ALIASES:
            self._alias_name_cache = names

    aliaser.__init__ = with_shared_names


def _wanted() -> List[str]:
    """The names of modules, as an import in another process finds them."""
    out, into = os.pipe()
    if not os.fork():
        for module in WANTED:
            with contextlib.suppress(ImportError):
                importlib.import_module(module)
        with open(into, "w", encoding="utf-8") as stream:
            stream.write("\n".join(list(sys.modules)))
        os._exit(0)
    os.close(into)
    with open(out, encoding="utf-8") as stream:
        names = stream.read().split()
    os.wait()
    return [name for name in names if name.partition(".")[0] not in OWN]


def _keep(
    control: socket.socket, request: int, output: int, error: int, status: int
) -> List[str]:
    """Fork the program, and in this process wait for its end and tell it.

    Returns:
        In the program's process, its command line; never in this one.
    """
    control.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if not pid:
        os.setsid()
        os.dup2(output, 1)
        os.dup2(error, 2)
        os.close(status)
        os.close(output)
        os.close(error)
        return _prepared(request)
    os.write(status, b"%d\n" % pid)
    for descriptor in (request, output, error, 1, 2):
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _, ended = os.waitpid(pid, 0)
    code = os.WEXITSTATUS(ended) if os.WIFEXITED(ended) else -os.WTERMSIG(ended)
    os.write(status, b"%d\n" % code)
    os._exit(0)


def _prepared(request: int) -> List[str]:
    """Make this process what the request asks for, and return the command line."""
    with open(request, encoding="utf-8") as stream:
        command, environment, cwd = json.load(stream)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    return list(command)


def become(command: List[str]) -> None:
    """Do what Python does with this command line."""
    _, program, *arguments = command
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    if program == "-c":
        code, *arguments = arguments
        sys.path.insert(0, "")
    else:
        with open(program, encoding="utf-8") as script:
            code = script.read()
        main.__file__ = program
        sys.path.insert(0, os.path.dirname(program))
    sys.argv = [program, *arguments]
    try:
        exec(compile(code, program, "exec"), main.__dict__)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            _exit_codes.append(end.code or 0)
        raise
    _exit_codes.append(0)


#: The exit code of a program that ends by itself and without an error.
_exit_codes: List[int] = []


def leave() -> None:
    """End at once: to take apart a thousand modules costs as much as to import them.

    All that a program asks to be called at its end has been called by then.
    """
    if _exit_codes:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_exit_codes[0] & 0xFF)


if __name__ == "__main__":
    atexit.register(leave)  # what is registered first is called last
    sys.path.pop(0)  # this directory; a program has its own
    command_line = serve(socket.socket(fileno=int(sys.argv[1])))
    if command_line is not None:
        become(command_line)

"""Python programs that start at once: forked from a process that has their packages.

Most of what a test with an agent costs is the start of Python and the import of some
nine hundred modules. A server process imports them once, for all of pytest's workers;
each program is then forked from it, a process of its own with its own environment,
session, output and exit code. What Prefect reads from the environment when it is
imported, it reads again in the program (`_configure`); end_to_end/test_forking.py
compares such a program with one that was started.

`Forked` stands for `subprocess.Popen`, and this file run as a script is the server.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import types
from importlib import metadata
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

#: Whether it can be done: what the server imports needs Python 3.10.
POSSIBLE = sys.platform == "linux" and sys.version_info >= (3, 10)

#: What programs import. It starts no thread.
WANTED = (
    *("botocore.session", "prometheus_client"),
    *("prefect.cli", "prefect.engine.cloud", "prefect.executors"),
    *("prefect_ecs_plugin.agent", "prefect_ecs_plugin.cli.start"),
    "prefect_ecs_plugin.cli.check.command",
)

#: Services of AWS whose models are read beforehand.
SERVICES = ("ec2", "ecr", "ecs", "iam", "logs", "s3", "secretsmanager", "ssm", "sts")

#: The variable that says where the server listens, and what a parent of this process
#: wrote there; tests change the environment, and where temporary files go.
_ADDRESS = "TESTS_FORK_SERVER"
_address = os.environ.get(_ADDRESS)
_TEMPORARY = tempfile.gettempdir()


# -- In the tests' process -------------------------------------------------------------


def start_server() -> None:
    """Start the server, for this process and those that it starts.

    It ends when this process does.
    """
    global _address
    directory = tempfile.TemporaryDirectory(prefix="forking-", dir=_TEMPORARY)
    _address = os.environ[_ADDRESS] = os.path.join(directory.name, "socket")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(_address)
    listening.listen(1000)
    # No settings of Prefect or AWS, and not the mark by which tests find what a program
    # has left behind.
    environment = {
        name: value
        for name, value in os.environ.items()
        if name != "USER" and not name.startswith(("PREFECT_", "AWS_"))
    }
    server = subprocess.Popen(
        [sys.executable, __file__, str(listening.fileno())],
        env={**environment, "HOME": os.devnull, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.PIPE,
        pass_fds=[listening.fileno()],
        start_new_session=True,
    )
    listening.close()

    def end() -> None:
        server.communicate()  # the end of its input is its end
        directory.cleanup()

    atexit.register(end)


_starting = threading.Lock()


def _connected() -> socket.socket:
    """A connection to the server, which is started if there is none."""
    with _starting:
        if _address is None:
            start_server()
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(_address)
    return connection


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
        cwd: Optional[os.PathLike[str] | str] = None,
        merges: bool = True,
    ) -> None:
        output_out, output_in = os.pipe()
        error_out, error_in = (output_out, output_in) if merges else os.pipe()
        self._connection = _connected()
        socket.send_fds(self._connection, [b"x"], [output_in, error_in])
        for descriptor in {output_in, error_in}:
            os.close(descriptor)
        request = [list(command), dict(environment), str(cwd or os.getcwd())]
        self._connection.sendall(json.dumps(request).encode() + b"\n")
        self._answers = self._connection.makefile("rb", buffering=0)
        self.args = command
        self.stdout = _text(output_out)
        self.stderr = None if merges else _text(error_out)
        self.returncode: Optional[int] = None
        self._lock = threading.Lock()
        self.pid = self._answer()

    def poll(self) -> Optional[int]:
        """Return the exit code, None while it runs."""
        with self._lock:
            if self.returncode is None and select.select([self._answers], [], [], 0)[0]:
                self.returncode = self._answer()
                self._answers.close()
                self._connection.close()
        return self.returncode

    def wait(self, timeout: Optional[float] = None) -> int:
        """Return the exit code, as soon as there is one.

        Raises:
            subprocess.TimeoutExpired: There is none after so many seconds.
        """
        with contextlib.suppress(OSError, ValueError):  # another thread was told first
            select.select([self._answers], [], [], timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return code

    def _answer(self) -> int:
        answer = self._answers.readline()
        if not answer:
            raise RuntimeError("the process that forks programs has ended")
        return int(answer)


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


# -- In the server's process -----------------------------------------------------------


def serve(listening: socket.socket) -> Optional[List[str]]:
    """Fork a program for each connection, until the standard input ends.

    Returns:
        In the program's process, its command line; in the server's None, at the end.
    """
    _import_what_is_wanted()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the keepers need no burial
    while listening in select.select([listening, sys.stdin], [], [])[0]:
        connection, _ = listening.accept()
        if not os.fork():
            listening.close()
            return _keep(connection)
        connection.close()
    return None


def _import_what_is_wanted() -> None:
    """Import the packages, and read once what programs read on their start."""
    for name in WANTED:
        importlib.import_module(name)
    share_botocores_models()
    from prefect_ecs_plugin.aws.session import AWSClients

    clients = AWSClients(
        aws_access_key_id="x", aws_secret_access_key="x", region_name="us-east-1"
    )
    for service in SERVICES:
        client = clients(service)
        client.can_paginate(next(iter(client.meta.method_to_api_mapping)))
    # A version is looked for in all directories and read from a file with the README.
    metadata.version = functools.lru_cache(maxsize=None)(metadata.version)
    for distribution in ("prefect-ecs-plugin", "boto3", "botocore"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            metadata.version(distribution)
    gc.collect()
    gc.freeze()  # what is here already concerns no program


def share_botocores_models() -> None:
    """Have botocore do once in this process what it does anew for each session.

    It reads the models of services, makes the methods of clients (700 of them for EC2),
    translates the names of events and looks at their handlers. Nothing of that depends
    on the session. The names used here are botocore's own; where they change, it only
    takes longer.
    """
    import botocore.client
    import botocore.hooks
    import botocore.loaders
    import botocore.session
    from botocore.utils import EVENT_ALIASES

    from prefect_ecs_plugin.aws import session

    loader = botocore.loaders.create_loader()
    botocore.session.create_loader = lambda search_path_string=None: loader
    session.models = functools.lru_cache(maxsize=None)(session.models)

    creator: Any = botocore.client.ClientCreator
    loads_model = getattr(creator, "_load_service_model", lambda *_: None)
    makes_methods = getattr(creator, "_create_methods", lambda *_: {})
    models: Dict[Any, Any] = {}
    methods: Dict[Tuple[str, ...], Dict[str, Any]] = {}

    def shared_model(self: Any, name: str, api_version: Optional[str] = None) -> Any:
        # The agent's own loader leaves out what the agent does not read.
        key = getattr(self, "_loader", None), name, api_version
        if key not in models:
            models[key] = loads_model(self, name, api_version)
        return models[key]

    def shared_methods(self: Any, service_model: Any) -> Dict[str, Any]:
        # The agent's own model of EC2 has fewer operations than botocore's.
        key = (service_model.service_name, *service_model.operation_names)
        if key not in methods:
            methods[key] = makes_methods(self, service_model)
        return dict(methods[key])

    creator._load_service_model = shared_model
    creator._create_methods = shared_methods

    hooks: Any = botocore.hooks
    looks = functools.lru_cache(maxsize=1000)(hooks.accepts_kwargs)
    hooks.accepts_kwargs = lambda handler: looks(getattr(handler, "__func__", handler))

    makes_aliaser = hooks.EventAliaser.__init__
    names: Dict[str, str] = {}

    def with_shared_names(self: Any, *args: Any, **kwargs: Any) -> None:
        makes_aliaser(self, *args, **kwargs)
        if getattr(self, "_event_aliases", None) == EVENT_ALIASES:
            self._alias_name_cache = names

    hooks.EventAliaser.__init__ = with_shared_names


def _keep(connection: socket.socket) -> List[str]:
    """Fork the program, and in this process wait for its end and tell it.

    Returns:
        In the program's process, its command line; never in this one.
    """
    _, (output, error), _, _ = socket.recv_fds(connection, 1, 2)
    with connection.makefile("r", encoding="utf-8") as request:
        command, environment, cwd = json.loads(request.readline())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if not pid:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDONLY)
        for place, descriptor in enumerate((nothing, output, error)):
            os.dup2(descriptor, place)
            os.close(descriptor)
        connection.close()
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(cwd)
        _configure()
        return list(command)
    connection.sendall(b"%d\n" % pid)
    for descriptor in (output, error, 0, 1, 2):
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _, ended = os.waitpid(pid, 0)
    code = os.WEXITSTATUS(ended) if os.WIFEXITED(ended) else -os.WTERMSIG(ended)
    connection.sendall(b"%d\n" % code)
    os._exit(0)


def _configure() -> None:
    """Have Prefect read this process's environment, as it does when it is imported."""
    import prefect
    from prefect import configuration
    from prefect.utilities import logging as its_logging

    for name in ("USER_CONFIG", "BACKEND_CONFIG"):
        default = getattr(configuration, name)
        setattr(configuration, name, os.getenv(f"PREFECT__{name}_PATH", default))
    read = configuration.load_default_config()
    configuration.config.clear()
    configuration.config.update(read)
    prefect.context.clear()
    prefect.context.__init__()
    its_logging.prefect_logger.handlers.clear()
    prefect.context.logger = its_logging.configure_logging()
    its_logging.configure_extra_loggers()
    if hasattr(prefect.Client, "logger"):  # of Prefect 1.4
        prefect.Client.logger.handlers.clear()
        its_logging.create_diagnostic_logger(prefect.Client.logger.name)


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

"""`prefect agent ecs sandbox`: its options, and the whole of it in child processes."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Dict, Iterator, List, Optional, Tuple

import click
import forking
import pytest
from click.testing import CliRunner
from codes import code_of
from deadlines import DEADLINE
from shell import Shell, without_looks

from prefect_ecs_plugin.cli.start_options import WithStartOptions, explicit_options
from prefect_ecs_plugin.sandbox import command, flows, watch
from prefect_ecs_plugin.sandbox.display import Lines
from prefect_ecs_plugin.sandbox.interruptions import INTERRUPTIONS, Interruptions
from prefect_ecs_plugin.sandbox.watch import Watch

DOCS = Path(__file__).parents[2] / "docs"

#: Of an account that the sandbox does not see.
SECRET = "arn:aws:secretsmanager:eu-west-1:999999999999:secret:prefect-AbCdEf:key::"

# Options ---------------------------------------------------------------------------


def parsed(*arguments: str) -> Tuple[str, ...]:
    """The options that the agent gets for these of the sandbox."""
    got: List[Tuple[str, ...]] = []

    @click.command(cls=WithStartOptions, refused=command.REFUSED)
    @click.argument("paths", nargs=-1)
    def sandbox(paths: Tuple[str, ...], **values: Any) -> None:
        got.append(explicit_options(click.get_current_context()))

    sandbox(list(arguments), standalone_mode=False)
    return got[0]


@pytest.mark.parametrize(
    "given, expected",
    [
        ([], ()),
        (["flow.py", "other.py"], ()),
        (["--cluster", "c", "flow.py"], ("--cluster=c",)),
        (["-l", "a", "--label", "b"], ("--label=a", "--label=b")),
        (["--env", "A=-1", "-e", "B=x y"], ("--env=A=-1", "--env=B=x y")),
        (["--launch-type", "ec2"], ("--launch-type=EC2",)),
        (["--no-cloud-logs"], ("--no-cloud-logs",)),
        (["--name=-n"], ("--name=-n",)),
        (
            ["--task-definition", "s3://b/k", "--run-task-kwargs", "k.yaml"],
            ("--task-definition=s3://b/k", "--run-task-kwargs=k.yaml"),
        ),
    ],
)
def test_the_agent_gets_the_options_as_given(
    given: List[str], expected: Tuple[str, ...]
) -> None:
    assert parsed(*given) == expected


@pytest.mark.parametrize(
    "given, message",
    [
        (["--api", "http://x"], "--api cannot be used here: the agent talks to"),
        (["-a", "http://x"], "--api cannot be used here: the agent talks to"),
        (["--key", "k"], "--key cannot be used here: the sandbox's API takes no key"),
        (["-k", "k"], "--key cannot be used here: the sandbox's API takes no key"),
        (
            ["--key-from-secret", SECRET],
            "--key-from-secret cannot be used here: the sandbox's API takes no key",
        ),
        (["--tenant-id", "t"], "--tenant-id cannot be used here"),
        (["--agent-config-id", "x"], "--agent-config-id cannot be used here"),
        (["--max-polls", "3"], "--max-polls cannot be used here"),
        (["--agent-address", "http://:80"], "--agent-address cannot be used here"),
        (["--log-format", "json"], "--log-format cannot be used here"),
        (["--timeout", "0"], "--timeout"),
        (["no.py"], "'no.py' does not exist"),
        (["--param", "x"], "[invalid-option-value]"),
        (["--param", "x=[1"], "[invalid-option-value]"),
        (["--fault", "rain"], "--fault"),
        (["--nothing"], "No such option"),
    ],
)
def test_an_option_that_cannot_apply_is_refused_in_a_sentence(
    given: List[str], message: str
) -> None:
    result = CliRunner().invoke(command.sandbox, given)
    assert (result.exit_code, message in result.output) == (2, True), result.output


def test_a_folder_without_files_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(command.sandbox, [str(tmp_path)])
    assert (result.exit_code, code_of(result.output.strip())) == (2, "no-flow-files")


def test_help_shows_an_example_and_says_what_it_is_not() -> None:
    result = CliRunner().invoke(command.sandbox, ["--help-all"])
    assert result.exit_code == 0
    for text in (
        "prefect agent ecs sandbox my_flow.py --task-definition template.yaml",
        "images are not pulled",
        "--cluster",
        "--keep-running",
        "--run-task-kwargs",
    ):
        assert text in result.output
    shown = set(re.findall(r"--[\w-]+", result.output))
    assert not shown & {"--api", "--key", "--key-from-secret"}


@pytest.mark.parametrize("version", [(3, 8), (3, 9)])
def test_an_older_python_is_one_line(version: Tuple[int, int]) -> None:
    message = str(command.missing(version))
    assert code_of(message) == "old-python"
    assert "{}.{}".format(*version) in message


INSTALL = "pip install 'prefect-ecs-plugin[sandbox]'"


@pytest.mark.parametrize(
    "needed, message",
    [
        (
            ("sys", "no_such_module", "nor_this"),
            f"The sandbox needs no_such_module, nor_this: {INSTALL}",
        ),
        (("sys",), None),
    ],
)
def test_a_missing_extra_is_one_line_that_says_what_to_install(
    needed: Tuple[str, ...],
    message: Optional[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(command, "NEEDED", needed)
    found = command.missing((3, 10))
    assert found == (message and f"{message} [sandbox-not-installed]")


def test_the_command_ends_with_that_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "missing", lambda: "Something is missing.")
    result = CliRunner().invoke(command.sandbox, [])
    assert (result.exit_code, result.output) == (1, "Something is missing.\n")


# What `prefect register` says --------------------------------------------------------

ID = "b4e4b6a0-6d8e-4f7e-8f6e-0123456789ab"

REGISTERED = f"""\
Collecting flows...
Processing 'a.py':
  Building `Local` storage...
  Registering 'a'... Done
  └── ID: {ID}
  └── Version: 1
======================== 1 registered ========================
""".splitlines()

NOT_LOADED = """\
Collecting flows...
Error loading 'b.py':
  Traceback (most recent call last):
    File "b.py", line 1, in <module>
      import nothing
  ModuleNotFoundError: No module named 'nothing'

""".splitlines()

NOT_BUILT = """\
Collecting flows...
Processing 'a.py':
  Building `Docker` storage...
    Error building storage:
      Traceback (most recent call last):
        ...
      ValueError: no docker here

  Registering 'a'... Error
================== 0 registered, 1 errored ==================
""".splitlines()

NOT_REGISTERED = """\
Collecting flows...
Processing 'a.py':
  Building `Local` storage...
  Registering 'a'... Error
    Traceback (most recent call last):
      ...
    prefect.exceptions.ClientError: [{'message': 'no'}]

================== 0 registered, 1 errored ==================
""".splitlines()


OTHER = REGISTERED[1:5] + [line.replace("'a'", "'c'") for line in REGISTERED[3:6]]


@pytest.mark.parametrize(
    "exit_code, output, ids, problems",
    [
        (0, REGISTERED, ["a.py"], {}),
        (0, REGISTERED[:1] + OTHER, ["a.py", "a.py"], {}),
        (
            1,
            NOT_LOADED,
            [],
            {
                "b.py": "ModuleNotFoundError: No module named 'nothing'",
                "a.py": "prefect register ended with exit code 1",
            },
        ),
        (1, NOT_BUILT, [], {"a.py": "ValueError: no docker here"}),
        (
            1,
            NOT_BUILT + REGISTERED[1:6],
            ["a.py"],
            {"a.py": "ValueError: no docker here"},
        ),
        (
            1,
            NOT_REGISTERED,
            [],
            {"Flow 'a' of a.py": "prefect.exceptions.ClientError: [{'message': 'no'}]"},
        ),
        (1, ["Collecting flows...", "Not found"], [], {"a.py": "Not found"}),
        (-9, [], [], {"a.py": "prefect register ended with exit code -9"}),
    ],
)
def test_what_prefect_register_did(
    exit_code: int, output: List[str], ids: List[str], problems: Dict[str, str]
) -> None:
    paths = ["a.py", "b.py"] if "b.py" in problems else ["a.py"]
    pairs, errors = flows.registered(paths, exit_code, output)
    assert pairs == [(path, ID) for path in ids]
    assert {code_of(error) for error in errors} <= {"flow-not-registered"}
    assert [error.message for error in errors] == [
        f"{subject} is skipped, since it cannot be registered: {reason}"
        for subject, reason in problems.items()
    ]


# What is shown -----------------------------------------------------------------------


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def watching(
    verbose: bool = False,
) -> Tuple[Watch, List[str], Clock]:
    written: List[str] = []
    clock = Clock()
    return Watch(Lines(written.append), verbose, clock), written, clock


def started(watch: Watch, state: str) -> None:
    """The first states of a flow run as the API tells them."""
    for name in ("Pending", "Scheduled", state):
        watch.run_state("r1", "cat", "f", name, "")


CONSOLE = "https://us-east-1.console.aws.amazon.com"
STAMP = "[2022-01-01 00:00:00,000]"

AGENT = [
    " ____            __           _        _                    _",
    f"{STAMP} INFO - agent | Waiting for flow runs...",
    f"{STAMP} WARNING - agent | Cluster 'x' is INACTIVE",
    "  its second line",
    " ____            __           _        _                    _",
    f"{STAMP} INFO - agent | Deploying flow run r1 ({CONSOLE}/ecs/v2)",
    f"{STAMP} ERROR - agent | Flow run r1 cannot be launched",
    "  for this reason",
    "",
]


@pytest.mark.parametrize(
    "verbose, expected",
    [
        (
            False,
            [
                "   0.0 s  WARNING agent | Cluster 'x' is INACTIVE",
                "   0.0 s  agent |   its second line",
            ],
        ),
        (
            True,
            [
                "   0.0 s  agent | Waiting for flow runs...",
                "   0.0 s  WARNING agent | Cluster 'x' is INACTIVE",
                "   0.0 s  agent |   its second line",
                "   0.0 s  agent | Deploying flow run r1",
                "   0.0 s  ERROR agent | Flow run r1 cannot be launched",
                "   0.0 s  agent |   for this reason",
            ],
        ),
    ],
)
def test_the_agents_warnings_are_shown_and_all_it_says_when_debugging(
    verbose: bool, expected: List[str]
) -> None:
    watch, written, _ = watching(verbose)
    started(watch, "Submitted")
    watch.refresh(0)
    for text in AGENT:
        watch.agent_line(text)
    watch.refresh(0)
    assert written[3:] == expected


TASK_RUNNER, FLOW_RUNNER = "prefect.CloudTaskRunner", "prefect.CloudFlowRunner"


@pytest.mark.parametrize(
    "name, level, message, shown, shown_when_debugging",
    [
        ("prefect.my task", "INFO", "hello", True, True),
        ("prefect.my task", "DEBUG", "hello", False, True),
        ("prefect.my task", "INFO", "Beginning Flow run for 'f'", True, True),
        (TASK_RUNNER, "INFO", "printed by a task", True, True),
        (TASK_RUNNER, "INFO", "Task 't[0]': Starting task run...", False, True),
        (TASK_RUNNER, "INFO", "Task 't': Finished task run for task", False, True),
        (TASK_RUNNER, "ERROR", "Task 't': Starting task run...", True, True),
        (FLOW_RUNNER, "INFO", "Beginning Flow run for 'f'", False, True),
        (FLOW_RUNNER, "INFO", "Flow run FAILED: some tasks failed.", False, True),
        ("agent", "INFO", "Submitted for execution: Task arn", True, True),
    ],
)
def test_the_flows_own_log_lines_are_shown(
    name: str, level: str, message: str, shown: bool, shown_when_debugging: bool
) -> None:
    for verbose, expected in ((False, shown), (True, shown_when_debugging)):
        watch, written, _ = watching(verbose)
        started(watch, "Running")
        watch.log("r1", name, level, message)
        watch.refresh(0)
        assert any(message in line for line in written) is expected


@pytest.mark.parametrize(
    "text, shown",
    [
        (f"Task arn:x ({CONSOLE}/ecs/v2/a?region=r)", "Task arn:x"),
        (
            f"Task arn:x ({CONSOLE}/ecs); logs: {CONSOLE}/b#logsV2:log$252F",
            "Task arn:x",
        ),
        (f"Task arn:x: {CONSOLE}/ecs/v2/a?region=r", "Task arn:x"),
        ("see https://example.com/console", "see https://example.com/console"),
    ],
)
def test_no_link_leads_to_a_console_that_knows_nothing(text: str, shown: str) -> None:
    assert watch.without_console_links(text) == shown


@pytest.mark.parametrize(
    "message",
    [
        "Traceback:\n  x\nModuleNotFoundError: No module named 'mine.x'\n",
        """Failed: ModuleNotFoundError("No module named 'mine.x'")""",
    ],
)
def test_a_module_that_a_task_lacks_is_explained_once(message: str) -> None:
    watch, written, _ = watching()
    started(watch, "Running")
    for _ in range(2):
        watch.log("r1", TASK_RUNNER, "ERROR", message)
    watch.refresh(0)
    assert len([line for line in written if "No module 'mine.x': the" in line]) == 1


def test_a_run_to_which_nothing_happens_is_given_up_once() -> None:
    watch, written, clock = watching()
    watch.agent_looked()
    started(watch, "Submitted")
    watch.refresh(0)
    clock.now = 30.0
    watch.give_up(30.0)
    assert not watch.is_over
    clock.now = 30.5
    for _ in range(2):
        watch.give_up(30.0)
        watch.refresh(0)
    assert watch.is_over
    assert not watch.all_succeeded
    assert written[3:] == [
        "  30.5 s  ERROR f/cat: nothing has happened for 30 s. The run is Submitted, "
        "it has no task. [run-stuck]"
    ]


def test_a_run_is_not_given_up_before_the_agent_has_had_its_time() -> None:
    watch, written, clock = watching()
    started(watch, "Submitted")
    watch.refresh(0)
    clock.now = 1000.0
    watch.give_up(30.0)
    assert not watch.is_over
    for clock.now in (1000.0, 1030.0):
        watch.agent_looked()  # only the first look counts
        watch.give_up(30.0)
        assert not watch.is_over
    clock.now = 1030.5
    watch.give_up(30.0)
    watch.refresh(0)
    assert watch.is_over
    assert "nothing has happened for 30 s" in written[-1]


def test_a_run_whose_task_crashed_is_given_up_soon() -> None:
    watch, written, clock = watching()
    watch.agent_looked()
    started(watch, "Running")
    watch.task("r1", "STOPPED", 137, "OutOfMemory")
    watch.refresh(0)
    clock.now = 61.0
    watch.give_up(300.0)
    watch.refresh(0)
    assert written[-1] == (
        "  61.0 s  ERROR f/cat: nothing has happened for 61 s. The run is Running, "
        "its task is STOPPED with exit code 137 (OutOfMemory). [run-stuck]"
    )


def test_a_run_that_waits_for_a_retry_is_not_given_up_soon() -> None:
    watch, _, clock = watching()
    watch.agent_looked()
    started(watch, "Running")
    watch.task("r1", "STOPPED", 0)
    watch.refresh(0)
    clock.now = 100.0
    watch.give_up(300.0)
    assert not watch.is_over


def test_a_signal_does_not_prolong_a_wait() -> None:
    watch, _, _ = watching()
    over = time.monotonic() + 0.5

    def late(*_: object) -> None:
        signal.signal(signal.SIGALRM, give_up)
        signal.setitimer(signal.ITIMER_REAL, DEADLINE)
        while time.monotonic() < over:
            pass

    def give_up(*_: object) -> None:
        pytest.fail("still waiting")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    try:
        watch.refresh(0.25)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# The whole of it --------------------------------------------------------------------


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    pytest.importorskip("moto", reason="the sandbox needs its extra and Python 3.10")
    return Shell(tmp_path)


GREET = """
import os
from prefect import Flow, task
from prefect_ecs_plugin import ECSRun

@task(log_stdout=True)
def greet():
    print(os.environ["GREETING"], os.environ["WHOM"])

with Flow("greet", run_config=ECSRun(env={"WHOM": "world"}, labels=["mine"])) as flow:
    greet()
"""

FAIL = """
from prefect import Flow, task

@task
def fail():
    raise ValueError("as it should")

with Flow("fail") as flow:
    fail()
"""

CRASH = """
import os
from prefect import Flow, task

@task
def crash():
    print("last words", flush=True)
    os._exit(7)

with Flow("crash") as flow:
    crash()
"""

SIBLING = """
import os
from prefect import Flow, task
from prefect.storage import Local
from helpers import double

@task(log_stdout=True)
def show():
    import later
    print("twice", double(later.NUMBER))

with Flow("script") as script:
    show()
with Flow(f"pickled{os.getpid()}", storage=Local()) as pickled:  # another each time
    show()
"""

NEEDS = """
from prefect import Flow, Parameter

with Flow("needs") as flow:
    Parameter("x") + 1
"""

ON_S3 = "from prefect.storage import S3" + NEEDS.replace(
    '"needs"', '"needs", storage=S3("a-bucket-of-the-user")'
)

BROKEN = "import nothing_like_this"

#: The files of a folder.
FOLDER = {
    "cr[a]sh": CRASH,
    "fail": FAIL,
    "siblings": SIBLING,
    "helpers": "def double(n): return 2 * n",
    "later": "NUMBER = 21",
    "needs": ON_S3,
    "lacking": NEEDS.replace("needs", "lacking").replace('"x"', '"who"'),
    "broken": BROKEN,
}

SLOW = """
import subprocess, time
from prefect import Flow, task

@task
def slow():
    subprocess.Popen(["sleep", "1000"], start_new_session=True)
    time.sleep(1000)

with Flow("slow") as flow:
    slow()
"""


def test_the_time_out_is_the_one_given(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("moto", reason="the sandbox needs its extra and Python 3.10")
    from prefect_ecs_plugin.sandbox import session

    plans: List[session.Plan] = []
    monkeypatch.setattr(session, "run", lambda plan, screen: plans.append(plan) or 0)
    for options in ([], ["--timeout", "7.5"]):
        assert CliRunner().invoke(command.sandbox, options).exit_code == 0
    assert [plan.timeout for plan in plans] == [300.0, 7.5]


def used_here(*paths: str, **plan: Any) -> Tuple[int, str]:
    """Use the sandbox in this process: its exit code, and what it showed."""
    from prefect_ecs_plugin.sandbox import session

    shown: List[str] = []
    code = session.run(session.Plan(paths=paths, **plan), Lines(shown.append))
    return code, "".join(f"{line}\n" for line in shown)


def test_an_agent_that_does_not_look_at_the_queue_is_told(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect_ecs_plugin.sandbox import session

    monkeypatch.setattr(session, "START_DEADLINE", 0.0)
    code, shown = used_here(timeout=1.0)
    assert code == 1
    assert "[agent-silent]" in shown
    assert "ERROR" not in shown  # no run is given up


@pytest.fixture
def in_shell(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """This process has the shell's directories, and its children start at once."""
    from world import ForkedChild

    from prefect_ecs_plugin.sandbox import session

    monkeypatch.chdir(shell.work)
    monkeypatch.setenv("TMPDIR", str(shell.tmp))
    monkeypatch.setenv("USER", shell.mark)
    monkeypatch.setattr(tempfile, "tempdir", None)
    if forking.POSSIBLE:
        monkeypatch.setattr(session, "Child", ForkedChild)
    return shell


def test_ones_own_flows_run_once_each_with_the_agents_options(
    in_shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A task that failed without a word is waited for but a moment.
    monkeypatch.setattr(watch, "LAST_WORDS", 1.0)
    in_shell.write("greet.py", GREET)
    folder = in_shell.work / "my flows"
    folder.mkdir()
    for name, text in FOLDER.items():
        (folder / f"{name}.py").write_text(text)
    role = "arn:aws:iam::123456789012:role/ecs"
    options = ["--label", "l", "--env", "GREETING=hello"]
    options += ["--execution-role-arn", role, "--task-role-arn", role]
    params = ["--param", "x=1", "--param", "needs:x=2", "--param", "lost=3"]
    done = CliRunner().invoke(
        command.sandbox,
        ["greet.py", folder.name, *options, *params, "--api-key-secret-arn", SECRET],
    )
    assert done.exit_code == 1, done.output
    for pattern in (
        r"Its run gets the agent's labels \['l'\], not the flow's \['mine'\]",
        r"greet/\S+ \| hello\n",
        r"greet/\S+ \| world\n",
        r"fail/\S+ \| ERROR Task 'fail': Exception encountered",
        r"crash/\S+ \| task \| last words\n",
        r"ERROR crash/\S+: nothing has happened for \d+ s\. The run is Running, its "
        r"task is STOPPED with exit code 7 \(Essential container in task exited\)\.",
        r"siblings\.py imports helpers from its folder",
        r"script/\S+ \| 42\n",
        r"pickled\d+/\S+ \| 42\n",
        r"No flow that was loaded has the parameter lost\.",
        r"^greet/\S+: Success, task STOPPED, exit code 0, ",
        r"^needs/\S+: Success, ",
        r"^fail/\S+: Failed, .* s: task 'fail': ValueError\('as it should'\)$",
        r"^crash/\S+: (?:Running|Failed), task STOPPED, exit code 7, ",
        r"^ECS calls: RunTask 6, .*\bDescribeClusters 1, ",
        r"^my flows/broken\.py is skipped.*'nothing_like_this' \(line 1\) "
        r"\[flow-not-loaded\]$",
        r"^Flow 'lacking' .* --param who=JSON \[missing-parameter\]$",
    ):
        shown = without_looks(done.output)
        assert re.search(pattern, shown, re.MULTILINE), pattern + done.output
    assert "console" not in done.output
    assert "helpers.py" not in done.output  # it is no file of flows
    assert in_shell.left_behind() == []


def test_the_first_task_of_a_run_is_interrupted_if_one_asks_for_it(
    in_shell: Shell,
) -> None:
    guide = (DOCS / "sandbox.md").read_text(encoding="utf-8")
    (flow,) = re.findall(r"```python\n(# slow\.py\n.*?)```", guide, re.DOTALL)
    in_shell.write("slow.py", flow.replace("time.sleep(10)", "time.sleep(5)"))
    asked = ["slow.py", "--fault", "spot", "--fault-after", "1"]
    done = CliRunner().invoke(command.sandbox, [*asked, "--on-interruption", "fail"])
    assert done.exit_code == 1, done.output
    assert "Your Spot Task was interrupted." in done.output
    assert "[spot-interruption]" in done.output


def test_the_latest_task_of_each_run_is_interrupted_once() -> None:
    struck: List[Any] = []
    aws: Any = SimpleNamespace(
        tasks=lambda: [
            SimpleNamespace(started_by=run, task_arn=arn)
            for run, arn in (("a", "a1"), ("b", "b1"), ("a", "a2"))
        ],
        interrupt=lambda arn: struck.append(("spot", arn)),
        finish=lambda arn, code, reason: struck.append(("memory", arn, code)),
    )
    for kind in INTERRUPTIONS:
        faults = Interruptions(aws, ["other", kind], 0.0)
        for run in ("a", "a", "b", "gone"):
            faults.begin(run)
        for timer in faults._timers:
            timer.join()
    assert sorted(struck) == [
        ("memory", "a2", 137),
        ("memory", "b1", 137),
        ("spot", "a2"),
        ("spot", "b1"),
    ]
    late = Interruptions(aws, ["spot"], 1000.0)
    late.begin("a")
    late.close()
    late._timers[0].join()
    assert len(struck) == 4


@pytest.mark.parametrize(
    "arguments, exit_code, codes",
    [
        (["broken.py", "typo.py"], 1, ["flow-not-loaded", "flow-not-loaded"]),
        (["ends.py", "leaves.py"], 1, ["flow-not-loaded", "flow-not-loaded"]),
        (["empty.py", "folder"], 1, ["no-flow"]),
        (["folder"], 1, ["no-flow"]),
        (["needs.py"], 1, ["missing-parameter"]),
        (["needs.py", "--param", "y=1"], 2, []),
        (["needs.py", "--param", "needs:y=1", "--param", "x=1"], 2, []),
        (["needs.py", "--param", "other:x=1", "--param", "x=1"], 2, []),
    ],
)
def test_files_are_looked_at_before_a_server_starts(
    in_shell: Shell,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: List[str],
    exit_code: int,
    codes: List[str],
) -> None:
    from prefect_ecs_plugin.sandbox import session

    monkeypatch.setattr(session.prefect_api, "PrefectAPI", None)
    (in_shell.work / "folder").mkdir()
    for name, text in (
        *(("broken", BROKEN), ("typo", "with Flow(:"), ("needs", NEEDS)),
        *(("empty", "print('hello')"), ("folder/module", "")),
        ("ends", "import os; os._exit(3)"),
        ("leaves", "import os; os._exit(0)"),
    ):
        in_shell.write(f"{name}.py", text)
    done = CliRunner().invoke(command.sandbox, arguments)
    assert isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code == exit_code, done.output
    errors = [line for line in done.output.splitlines() if " ERROR " in line]
    assert [code_of(line) for line in errors] == codes, done.output
    if exit_code == 2:
        assert code_of(done.output.strip()) == "unknown-parameter"
    assert capfd.readouterr() == ("", "")
    assert in_shell.left_behind() == []


def test_an_agent_that_cannot_start_ends_the_command(in_shell: Shell) -> None:
    in_shell.write("greet.py", GREET)
    done = CliRunner().invoke(command.sandbox, ["--task-definition", "no.yaml"])
    assert done.exit_code == 1
    assert "agent | Error: Cannot read no.yaml" in done.output, done.output
    assert re.search(r"exit code 1 .* \[agent-ended\]$", done.output, re.MULTILINE)
    assert "Traceback" not in done.output
    assert in_shell.left_behind() == []


def lines_until(pattern: str, process: subprocess.Popen[str], heard: List[str]) -> None:
    """Read a process's output up to a line that matches."""
    assert process.stdout is not None
    for line in process.stdout:
        heard.append(line)
        if re.search(pattern, line):
            return
    pytest.fail("".join(heard))


@pytest.fixture
def deadline() -> Iterator[List[subprocess.Popen[str]]]:
    """Stops the processes in this list when they take too long, and in any case."""
    processes: List[subprocess.Popen[str]] = []

    def stop() -> None:
        for process in processes:
            process.terminate()  # it still has to stop what it has started

    timer = threading.Timer(DEADLINE, stop)
    timer.start()
    yield processes
    timer.cancel()
    stop()
    for process in processes:
        process.wait(DEADLINE)


#: What a user does in another terminal.
OTHER_TERMINAL = """
. {script}
prefect() {{ "$PYTHON" -m prefect "$@"; }}
prefect register --project sandbox --path needs.py || exit
prefect run --project sandbox --name needs --param x=1 --watch || exit
"$PYTHON" -c "import boto3; print(boto3.client('ecs').list_clusters()['clusterArns'])"
"""


def assert_nobody_else_is_answered(printed: str, shell: Shell) -> None:
    """The exports have the secrets, no command line has them, and without them nothing
    is answered."""
    exports = dict(re.findall(r"^export (\w+)=(\S+)$", printed, re.M))
    ask = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
    address, token = exports["PREFECT__CLOUD__API"].rsplit("/", 1)
    for url in (address, f"{address}/{token[:-1]}", exports["AWS_ENDPOINT_URL"]):
        with pytest.raises(urllib.error.HTTPError, match="403"):
            ask(url, timeout=DEADLINE)
    with ask(f"{address}/{token}", timeout=DEADLINE) as answer:
        assert answer.status == 200
    running = [line for line in shell.left_behind() if line]
    assert len(running) > 1
    for secret in (token, exports["AWS_SECRET_ACCESS_KEY"]):
        assert not [line for line in running if secret in line]


def test_another_terminal_joins_a_sandbox_that_keeps_running(
    shell: Shell, deadline: List[subprocess.Popen[str]]
) -> None:
    shell.write("needs.py", NEEDS)
    process = shell.start("--keep-running", stdout=subprocess.PIPE)
    deadline.append(process)
    heard: List[str] = []
    lines_until(r"example/.* Success +task STOPPED, exit code 0", process, heard)
    script = re.findall(r"^  \. (\S+)$", "".join(heard), re.M)
    done = subprocess.run(
        ["/bin/sh", "-c", OTHER_TERMINAL.format(script=script[0])],
        env={**shell.environment, "PYTHON": sys.executable, "AWS_PROFILE": "unknown"},
        cwd=shell.work,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "Flow run succeeded!" in done.stdout
    assert "['arn:aws:ecs:us-east-1:123456789012:cluster/default']" in done.stdout
    assert_nobody_else_is_answered("".join(heard), shell)
    lines_until(r"needs/.* Success +task STOPPED, exit code 0", process, heard)
    process.send_signal(signal.SIGINT)
    lines_until("Stopping everything, as asked by SIGINT", process, heard)
    assert process.wait(DEADLINE) == 0
    assert shell.left_behind() == []


def test_a_signal_stops_all_that_was_started_in_a_terminal(
    shell: Shell, deadline: List[subprocess.Popen[str]]
) -> None:
    shell.write("slow.py", SLOW)
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    shell.environment["TERM"] = "xterm-256color"
    process = shell.start("slow.py", stdout=its, stderr=its)
    deadline.append(process)
    os.close(its)
    shown = bytearray()
    read_until(r"│ slow +│ Running +│ RUNNING +│", ours, shown)
    assert len(shell.left_behind()) > 3
    process.send_signal(signal.SIGTERM)
    read_until("Stopping everything, as asked by SIGTERM", ours, shown)
    rest = threading.Thread(target=read_all, args=(ours,), daemon=True)
    rest.start()
    assert process.wait(DEADLINE) == 1
    assert b"seconds" in shown  # the whole heading, in 80 columns
    assert shell.left_behind() == []


def read_until(pattern: str, terminal: int, shown: bytearray) -> None:
    """Read what a terminal is given until it matches.

    A read may end within a character or an escape sequence, so all is looked at anew.
    """
    while not re.search(pattern, without_moves(shown)):
        try:
            shown += os.read(terminal, 65536)
        except OSError:  # so Linux says that the other side is closed
            pytest.fail("the sandbox ended too soon")


def without_moves(shown: bytes) -> str:
    """What a terminal shows, without colours and moves of the cursor."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode("utf-8", "replace"))


def read_all(terminal: int) -> None:
    """Read on, so that the writer does not wait."""
    try:
        while os.read(terminal, 65536):
            pass
    except OSError:
        pass

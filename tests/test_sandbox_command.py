"""`prefect agent ecs sandbox`: its options, and the whole of it in child processes."""

from __future__ import annotations

from typing import Any, List, Optional, Tuple

import click
import pytest
from click.testing import CliRunner

from prefect_ecs_plugin.sandbox import command, flows
from prefect_ecs_plugin.sandbox.display import Lines
from prefect_ecs_plugin.sandbox.watch import Watch


# Options ---------------------------------------------------------------------------


def parsed(*arguments: str) -> Tuple[str, ...]:
    """The options that the agent gets for these of the sandbox."""
    got: List[Tuple[str, ...]] = []

    @click.command(cls=command.SandboxCommand)
    @click.argument("paths", nargs=-1)
    def sandbox(paths: Tuple[str, ...], **values: Any) -> None:
        got.append(command.agent_arguments(command.agent_options(), values))

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
        (["--tenant-id", "t"], "--tenant-id cannot be used here"),
        (["--agent-config-id", "x"], "--agent-config-id cannot be used here"),
        (["--max-polls", "3"], "--max-polls cannot be used here"),
        (["--agent-address", "http://:80"], "--agent-address cannot be used here"),
        (["--timeout", "0"], "--timeout"),
        (["--nothing"], "No such option"),
    ],
)
def test_an_option_that_cannot_apply_is_refused_in_a_sentence(
    given: List[str], message: str
) -> None:
    result = CliRunner().invoke(command.sandbox, given)
    assert (result.exit_code, message in result.output) == (2, True), result.output


def test_help_shows_an_example_and_says_what_it_is_not() -> None:
    result = CliRunner().invoke(command.sandbox, ["--help"])
    assert result.exit_code == 0
    for text in (
        "prefect agent ecs sandbox my_flow.py --task-definition template.yaml",
        "images are not pulled",
        "--cluster",
        "--keep-running",
        "--run-task-kwargs",
    ):
        assert text in result.output
    assert "--api" not in result.output and "--key" not in result.output


@pytest.mark.parametrize(
    "version, message",
    [
        ((3, 8), "The sandbox needs Python 3.10 or later; this is Python 3.8."),
        ((3, 9), "The sandbox needs Python 3.10 or later; this is Python 3.9."),
        ((3, 10), None),
        ((3, 13), None),
    ],
)
def test_an_older_python_is_one_line(
    version: Tuple[int, int], message: Optional[str]
) -> None:
    assert command.missing(version) == message


def test_a_missing_extra_is_one_line_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(command, "NEEDED", ("sys", "no_such_module"))
    result = CliRunner().invoke(command.sandbox, [])
    assert (result.exit_code, result.output) == (
        1,
        "The sandbox needs no_such_module: pip install 'prefect-ecs-plugin[sandbox]'\n",
    )


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


def test_the_ids_of_registered_flows() -> None:
    assert flows.registered(["a.py"], 0, REGISTERED) == [ID]


@pytest.mark.parametrize(
    "paths, exit_code, output, message",
    [
        (
            ["a.py", "b.py"],
            1,
            NOT_LOADED,
            "b.py cannot be registered: ModuleNotFoundError: No module named 'nothing'",
        ),
        (
            ["a.py"],
            1,
            NOT_BUILT,
            "a.py cannot be registered: ValueError: no docker here",
        ),
        (
            ["a.py"],
            1,
            NOT_REGISTERED,
            "a cannot be registered: prefect.exceptions.ClientError: "
            "[{'message': 'no'}]",
        ),
        (
            ["no.py"],
            1,
            ["Collecting flows...", "Path 'no.py' doesn't exist"],
            "no.py cannot be registered: Path 'no.py' doesn't exist",
        ),
        (
            ["a.py", "empty.py"],
            0,
            REGISTERED,
            "empty.py: there is no flow in this file. A flow has to be in a variable "
            "of the module.",
        ),
        (
            ["a.py"],
            -9,
            [],
            "a.py cannot be registered: prefect register ended with exit code -9",
        ),
    ],
)
def test_a_flow_that_cannot_be_registered_is_one_line(
    paths: List[str], exit_code: int, output: List[str], message: str
) -> None:
    with pytest.raises(flows.FlowError) as caught:
        flows.registered(paths, exit_code, output)
    assert str(caught.value) == message


# What is shown -------------------------------------------------------------------------


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


AGENT = [
    " ____            __           _        _                    _",
    "[2022-01-01 00:00:00,000] INFO - agent | Waiting for flow runs...",
    "[2022-01-01 00:00:00,000] WARNING - agent | Cluster 'x' is INACTIVE",
    "  its second line",
    "[2022-01-01 00:00:00,000] INFO - agent | Deploying flow run r1",
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
                f"   0.0 s  agent | {AGENT[0]}",
                "   0.0 s  agent | Waiting for flow runs...",
                "   0.0 s  WARNING agent | Cluster 'x' is INACTIVE",
                "   0.0 s  agent |   its second line",
                "   0.0 s  agent | Deploying flow run r1",
            ],
        ),
    ],
)
def test_the_agents_warnings_are_shown_and_all_it_says_when_debugging(
    verbose: bool, expected: List[str]
) -> None:
    watch, written, _ = watching(verbose)
    for text in AGENT:
        watch.agent_line(text)
    watch.refresh(0)
    assert written == expected


@pytest.mark.parametrize(
    "name, level, verbose, shown",
    [
        ("prefect.my task", "INFO", False, True),
        ("prefect.CloudFlowRunner", "INFO", False, False),
        ("prefect.CloudTaskRunner", "INFO", True, True),
        ("prefect.CloudTaskRunner", "ERROR", False, True),
        ("prefect.my task", "DEBUG", False, False),
        ("prefect.my task", "DEBUG", True, True),
    ],
)
def test_the_flows_own_log_lines_are_shown(
    name: str, level: str, verbose: bool, shown: bool
) -> None:
    watch, written, _ = watching(verbose)
    started(watch, "Running")
    watch.log("r1", name, level, "hello")
    watch.refresh(0)
    assert any("hello" in line for line in written) is shown


def test_a_run_to_which_nothing_happens_is_given_up_once() -> None:
    watch, written, clock = watching()
    started(watch, "Submitted")
    watch.refresh(0)
    clock.now = 30.0
    watch.give_up(30.0)
    assert not watch.is_over
    clock.now = 30.5
    for _ in range(2):
        watch.give_up(30.0)
        watch.refresh(0)
    assert watch.is_over and not watch.all_succeeded
    assert written[3:] == [
        "  30.5 s  ERROR f/cat: nothing has happened for 30 s. The run is Submitted, "
        "it has no task."
    ]


def test_a_run_whose_task_crashed_is_given_up_soon() -> None:
    watch, written, clock = watching()
    started(watch, "Running")
    watch.task("r1", "STOPPED", 137, "OutOfMemory")
    watch.refresh(0)
    clock.now = 16.0
    watch.give_up(300.0)
    watch.refresh(0)
    assert written[-1] == (
        "  16.0 s  ERROR f/cat: nothing has happened for 16 s. The run is Running, "
        "its task is STOPPED with exit code 137 (OutOfMemory)."
    )


def test_a_run_that_waits_for_a_retry_is_not_given_up_soon() -> None:
    watch, _, clock = watching()
    started(watch, "Running")
    watch.task("r1", "STOPPED", 0)
    watch.refresh(0)
    clock.now = 100.0
    watch.give_up(300.0)
    assert not watch.is_over

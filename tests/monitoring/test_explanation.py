"""What people read about a stopped task."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Dict

import pytest
from codes import code_of
from stopped_tasks import ARN, GUIDE, OUT_OF_MEMORY, PULL_TIMEOUT, never_ran, ran

from prefect_ecs_plugin.launch_record import Launch
from prefect_ecs_plugin.monitoring import stop_reasons
from prefect_ecs_plugin.monitoring.decision import Decision, Run, Verdict, decide
from prefect_ecs_plugin.monitoring.explanation import explain

SUBMITTED = Run("Submitted")


DEFINITION = {
    "containerDefinitions": [
        {
            "name": "flow",
            "logConfiguration": {
                "logDriver": "awslogs",
                "options": {
                    "awslogs-group": "prefect",
                    "awslogs-stream-prefix": "p",
                    "awslogs-region": "eu-west-1",
                },
            },
        }
    ]
}


def decided(task: Any, **options: Any) -> Decision:
    return decide(task, options.pop("run", SUBMITTED), confirmed=True, **options)


def links(page: str) -> Dict[str, str]:
    console = "https://eu-west-1.console.aws.amazon.com"
    return {
        "task": f"Task {ARN}: {console}/ecs/v2/clusters/prod/tasks/0123abc"
        "?region=eu-west-1",
        "log": f"Its log: {console}/cloudwatch/home?region=eu-west-1#logsV2:log-groups"
        "/log-group/prefect/log-events/p$252Fflow$252F0123abc",
        "page": f"More about this: {page}",
    }


def test_the_explanation_of_a_task_that_never_ran() -> None:
    task = never_ran(
        "CannotPullContainerError: x:v1: not found", pullStartedAt=1, pullStoppedAt=2
    )
    decision = decided(task)
    explanation = explain(ARN, task, DEFINITION, decision)
    row = decision.stop_reason
    assert row.code == code_of(explanation.message) == "image-not-found"
    assert row.cause in explanation.message
    assert row.remedy in explanation.message
    said = "TaskFailedToStart: CannotPullContainerError: x:v1: not found"
    assert f"(ECS says: {said})" in explanation.message
    opening, what_to_do, *facts = explanation.log.splitlines()
    assert row.cause in opening
    assert code_of(opening) == row.code
    assert row.remedy in what_to_do
    link = links(f"{GUIDE}task_cannot_pull_image.html")
    assert facts == [
        "stopCode: TaskFailedToStart",
        "stoppedReason: CannotPullContainerError: x:v1: not found",
        "Container 'flow': no exit code",
        link["task"],
        link["log"],
        link["page"],
    ]


def test_the_explanation_of_a_killed_flow() -> None:
    task = ran(137, container_reason=OUT_OF_MEMORY)
    task["containers"].append({"name": "proxy", "exitCode": 0})
    failed = replace(decided(task), verdict=Verdict.FAIL)
    explanation = explain(ARN, task, None, failed, ["step 1", "step 2"])
    assert code_of(explanation.message) == "out-of-memory"
    advice = "the task has 2048 MiB: give it more, such as ECSRun(memory='4 GB')"
    assert advice in explanation.message
    opening, what_to_do, *facts = explanation.log.splitlines()
    assert code_of(opening) == "out-of-memory"
    assert advice in what_to_do
    link = links(f"{GUIDE}out-of-memory.html")
    assert facts == [
        "stopCode: EssentialContainerExited",
        "stoppedReason: Essential container in task exited",
        f"Container 'flow': exit code 137, killed (SIGKILL); {OUT_OF_MEMORY}",
        "Container 'proxy': exit code 0, success",
        link["task"],
        link["page"],
        "The last 2 lines of its log:",
        "    step 1",
        "    step 2",
    ]


def test_the_explanation_of_a_run_that_goes_on() -> None:
    task = ran(143, "Your Spot Task was interrupted.", "SpotInterruption")
    words = "the run goes on in another task (interruption 1 of 3)"
    explanation = explain(ARN, task, None, replace(decided(task), resumption=words))
    assert f"; {words} (ECS says: " in explanation.message
    assert code_of(explanation.message) == "spot-interruption"
    assert explanation.log.splitlines()[1] == f"The{words[3:]}"
    assert "What to do" not in explanation.log


def test_the_explanation_of_a_run_that_might_have_gone_on() -> None:
    task = ran(143, "Your Spot Task was interrupted.", "SpotInterruption")
    words = "the run does not go on, because it may not [no-retries-left]"
    failed = replace(decided(task), verdict=Verdict.FAIL, resumption=words)
    explanation = explain(ARN, task, None, failed)
    assert "because it may not; start the run again; " in explanation.message
    assert code_of(explanation.message) == "spot-interruption"
    opening, why, what_to_do, *_ = explanation.log.splitlines()
    assert (code_of(opening), code_of(why)) == ("spot-interruption", "no-retries-left")
    assert what_to_do.startswith("What to do: start the run again")


def test_a_reason_of_several_lines_becomes_one_line() -> None:
    task = ran(3, "It\nended", "", container_reason="so\n it  seems")
    explanation = explain(ARN, task, None, decided(task))
    assert explanation.message.endswith(" (ECS says: It ended) [flow-exited]")
    assert explanation.log.splitlines()[2:4] == [
        "stoppedReason: It ended",
        "Container 'flow': exit code 3; so it seems",
    ]


ON_EC2 = {"launchType": "EC2", "cpu": "128"}
HAS, MORE = "the task has", "MiB: give it more, such as"


def overriding(**flow: Any) -> Dict[str, Any]:
    overrides = [{"name": "proxy", "memory": 64}, {"name": "flow", **flow}]
    return {"overrides": {"containerOverrides": overrides}}


def defining(name: str, **container: Any) -> Dict[str, Any]:
    return {"containerDefinitions": [{"name": name, **container}]}


@pytest.mark.parametrize(
    "task, definition, advice",
    [
        # Twice as much, and the least cpu with which Fargate has that.
        (
            {"memory": "512", "cpu": "256"},
            None,
            f"{HAS} 512 {MORE} ECSRun(memory='1 GB')",
        ),
        (
            {"memory": "2048", "cpu": "256"},
            None,
            f"{HAS} 2048 {MORE} ECSRun(cpu=512, memory='4 GB')",
        ),
        (
            {"memory": "4096", "cpu": "1024"},
            None,
            f"{HAS} 4096 {MORE} ECSRun(memory='8 GB')",
        ),
        (
            {"memory": "8192", "cpu": "1024"},
            None,
            f"{HAS} 8192 {MORE} ECSRun(cpu=2048, memory='16 GB')",
        ),
        (
            {"memory": "16384", "cpu": "2048"},
            None,
            f"{HAS} 16384 {MORE} ECSRun(cpu=8192, memory='32 GB')",
        ),
        (
            {"memory": "122880", "cpu": "16384"},
            None,
            f"{HAS} 122880 {MORE} a larger cpu too",
        ),
        (
            {"memory": "8192", "cpu": None},
            None,
            f"{HAS} 8192 {MORE} ECSRun(memory='16 GB')",
        ),
        # An instance has any size.
        (
            {"memory": "511", **ON_EC2},
            None,
            f"{HAS} 511 {MORE} ECSRun(memory=1022)",
        ),
        (
            {"memory": "1535", **ON_EC2},
            None,
            f"{HAS} 1535 {MORE} ECSRun(memory='2 GB')",
        ),
        (
            {"memory": None},
            None,
            "set `memory` in the run config, such as ECSRun(memory='4 GB')",
        ),
        (
            {"memory": None, **ON_EC2},
            {"memory": "4 GB"},
            f"{HAS} 4096 {MORE} ECSRun(memory='8 GB')",
        ),
        # The container's own limit counts before the task's.
        (
            {},
            defining("flow", memory=512),
            "the container 'flow' has 512 MiB: raise its `memory`",
        ),
        (
            overriding(memory=768),
            defining("flow", memory=512),
            "the container 'flow' has 768 MiB: raise its `memory`",
        ),
        (
            overriding(cpu=1),
            defining("flow", memory=512),
            "the container 'flow' has 512 MiB: raise its `memory`",
        ),
        (
            overriding(),
            defining("flow"),
            f"{HAS} 2048 {MORE} ECSRun(memory='4 GB')",
        ),
        (
            {},
            defining("proxy", memory=64),
            f"{HAS} 2048 {MORE} ECSRun(memory='4 GB')",
        ),
    ],
)
def test_how_to_raise_the_memory(task: Any, definition: Any, advice: str) -> None:
    killed = ran(137, **task)
    message = explain(ARN, killed, definition, decided(killed)).message
    assert f"; {advice}" in message


@pytest.mark.parametrize(
    "launch, limit, said",
    [
        (Launch(1), 3, ", and is launched again (start 2 of 3)"),
        (Launch(2), 3, ", and is launched again (start 3 of 3)"),
        (Launch(3), 3, "; 2 earlier attempts also failed to start"),
        (Launch(2), 2, "; 1 earlier attempt also failed to start"),
        (Launch(1), 1, ""),
    ],
)
def test_each_start_of_a_run_says_which_it_was(
    launch: Launch, limit: int, said: str
) -> None:
    decision = decide(PULL_TIMEOUT, SUBMITTED, launch, limit)
    message = explain(ARN, PULL_TIMEOUT, None, decision).message
    row = decision.stop_reason
    assert f" {row.cause}{said}; {row.remedy} (ECS says: " in message


def test_a_relaunched_run_that_ran_counts_no_starts() -> None:
    decision = decided(ran(1), launch=Launch(2))
    message = explain(ARN, ran(1), None, decision).message
    assert f" {decision.stop_reason.cause}; {decision.stop_reason.remedy} (" in message


def test_a_task_that_vanished() -> None:
    explanation = explain(ARN, None, None, decided(None))
    assert code_of(explanation.message) == "task-vanished"
    assert stop_reasons.VANISHED.remedy in explanation.message
    assert stop_reasons.VANISHED.cause in explanation.log.splitlines()[0]
    assert stop_reasons.VANISHED.remedy in explanation.log.splitlines()[1]


def test_a_long_reason_is_cut_in_the_message_only() -> None:
    reason = f"CannotPullContainerError: {'x' * 2000}"
    task = never_ran(reason)
    explanation = explain(ARN, task, None, decided(task))
    _, _, said = explanation.message.partition(" (ECS says: ")
    assert len(said) == 300 + len("...) [image-pull-failed]")
    assert reason in explanation.log


def test_a_long_line_of_the_containers_log_is_cut() -> None:
    lines = ["x" * 1000, "y" * 1001]
    explanation = explain(ARN, ran(1), None, decided(ran(1)), lines).log.splitlines()
    assert explanation[-2:] == [f"    {lines[0]}", f"    {'y' * 1000}..."]


@pytest.mark.parametrize(
    "environment, said, hidden",
    [
        ({"PREFECT__CLOUD__API_KEY": "pcu_0123456789"}, "key pcu_0123456789!", True),
        ({"DB_PASSWORD": "correct horse"}, "using correct horse", True),
        ({"PREFECT__CLOUD__API": "https://api.example.com"}, "https://api.ex", False),
        ({"USE_TOKEN": "true"}, "it is true", False),
    ],
)
@pytest.mark.parametrize("place", ["override", "definition"])
def test_guarantee_7_no_secret_in_an_explanation(
    environment: Dict[str, str], said: str, hidden: bool, place: str
) -> None:
    entries = [{"name": name, "value": value} for name, value in environment.items()]
    container = {"name": "flow", "environment": entries}
    task, definition = ran(1, stopped_reason=said), {}
    if place == "override":
        task["overrides"] = {"containerOverrides": [container]}
    else:
        definition = {"containerDefinitions": [container]}
    explanation = explain(ARN, task, definition, decided(task), [said])
    text = explanation.message + explanation.log
    assert (said not in text, "***" in text) == (hidden, hidden)


@pytest.mark.parametrize("before", range(265, 305, 3))
def test_guarantee_7_no_part_of_a_secret_where_words_are_cut(before: int) -> None:
    password = "Zq7Wk9Lm2Xc4Vb6Nn8Pp1Rr3Tt5Yy7Uu9"
    container = {"name": "flow", "environment": [{"name": "DBPASS", "value": password}]}
    task = ran(1, stopped_reason="x" * before + password + " " + "y" * 300)
    task["overrides"] = {"containerOverrides": [container]}
    line = "x" * (700 + before) + password + " " + "y" * 300
    explanation = explain(ARN, task, {}, decided(task), [line], ["x-token-of-a-run"])
    for text in (explanation.message, explanation.log):
        slices = (password[i : i + 8] for i in range(len(password) - 7))
        assert [each for each in slices if each in text] == []
    assert "..." in explanation.message
    assert f"    {'x' * (700 + before)}"[:1004] in explanation.log


def test_guarantee_7_known_secrets_of_a_run_are_redacted_in_its_containers_log() -> (
    None
):
    known = ["token-of-the-run"]
    explanation = explain(
        ARN, ran(1), {}, decided(ran(1)), ["it is token-of-the-run"], known
    )
    assert "    it is ***" in explanation.log.splitlines()

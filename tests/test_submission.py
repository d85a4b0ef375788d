"""Definitions found or registered once, tasks launched once: against a strict ECS."""

from __future__ import annotations

import logging
import threading
from typing import Any, Callable, Dict, List, Optional

import pytest
from codes import codes_of, raises_code

from prefect_ecs_plugin.aws.ecs import ECS
from prefect_ecs_plugin.aws.rate_limiter import LIMITS, RateLimiter
from prefect_ecs_plugin.aws.retrying import RetryBudget
from prefect_ecs_plugin.errors import LaunchError
from prefect_ecs_plugin.scheduling.simulated_clock import Simulation
from prefect_ecs_plugin.scheduling.steps import Pause, Steps, run_blocking
from prefect_ecs_plugin.submission import ASK_FOR_TAGS_AGAIN, Submission
from prefect_ecs_plugin.template import with_content_hash_family

RUN_ID = "11111111-2222-3333-4444-555555555555"


def definition(memory: str = "2048") -> Dict[str, Any]:
    return with_content_hash_family(
        {
            "networkMode": "awsvpc",
            "cpu": "1024",
            "memory": memory,
            "requiresCompatibilities": ["FARGATE"],
            "containerDefinitions": [{"name": "flow", "image": "x"}],
        }
    )


class Launcher:
    """A submission whose launches wait on a simulated clock."""

    def __init__(self, ecs: Any) -> None:
        self.simulation = Simulation()
        self.ecs = ecs
        limiter = RateLimiter(
            LIMITS, lambda: self.simulation.now, self.simulation.dispatcher.call_later
        )
        self.submission = Submission(ECS(ecs, limiter), logging.getLogger("agent"))
        self.request: Dict[str, Any] = {
            "launchType": "FARGATE",
            "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet"]}},
            "startedBy": RUN_ID,
            "clientToken": f"{RUN_ID}-1",
            "tags": [{"key": "prefect:flow-run-id", "value": RUN_ID}],
        }

    def budget(self) -> RetryBudget:
        return RetryBudget(0, 1800, lambda: self.simulation.now, lambda: 0.01)

    def steps(self, definition_: Any = None, token: Optional[str] = None) -> Any:
        request = {**self.request, **({"clientToken": token} if token else {})}
        return self.submission.launch(
            definition_ or definition(), request, self.budget()
        )

    def launch(self, definition_: Any = None, token: Optional[str] = None) -> str:
        return str(self.simulation.result_of(self.steps(definition_, token)))

    def tasks(self) -> List[str]:
        found = self.ecs.list_tasks(startedBy=RUN_ID)["taskArns"]
        return sorted(found)


@pytest.fixture
def launcher(client_of: Callable[..., Any]) -> Launcher:
    launcher = Launcher(client_of("ecs"))
    subnets = client_of("ec2").describe_subnets()["Subnets"]
    launcher.request["networkConfiguration"]["awsvpcConfiguration"]["subnets"] = [
        subnet["SubnetId"] for subnet in subnets
    ]
    return launcher


def ecs_calls(aws: Any) -> Dict[str, int]:
    return {
        key.partition(".")[2]: count
        for key, count in aws.calls.items()
        if key.startswith("ecs.") and "ListTasks" not in key
    }


def faults(aws: Any, operation: str, *sequence: Any) -> None:
    """Spoil the first calls of an operation, one fault each."""
    waiting = list(sequence)

    def fault(called: str, _: Any) -> Any:
        return waiting.pop(0) if called == operation and waiting else None

    aws.fault = fault


@pytest.mark.parametrize("is_started", [True, False])
def test_guarantee_5_a_launch_that_is_given_up_looks_for_the_task_of_a_lost_answer(
    aws: Any, launcher: Launcher, is_started: bool
) -> None:
    from prefect_ecs_plugin.sandbox.aws import Fault

    lost = Fault(drop_connection=True, after_effect=is_started)
    denied = Fault(error_code="AccessDeniedException")
    faults(aws, "ecs.RunTask", lost, denied)
    if is_started:
        assert [launcher.launch()] == launcher.tasks()
    else:
        with raises_code("missing-permission", LaunchError):
            launcher.launch()


def test_guarantee_3_one_call_per_run_once_the_definition_exists(
    aws: Any, launcher: Launcher
) -> None:
    launcher.launch(token="a")
    assert ecs_calls(aws) == {
        "DescribeTaskDefinition": 1,
        "RegisterTaskDefinition": 1,
        "RunTask": 1,
    }
    aws.calls.clear()
    for token in "bcd":
        launcher.launch(token=token)
    assert ecs_calls(aws) == {"RunTask": 3}


def test_guarantee_3_another_agent_finds_what_the_first_registered(
    aws: Any, launcher: Launcher
) -> None:
    launcher.launch(token="a")
    aws.calls.clear()
    second = Launcher(launcher.ecs)
    second.request = launcher.request
    second.launch(token="b")
    assert ecs_calls(aws) == {"DescribeTaskDefinition": 1, "RunTask": 1}


def test_guarantee_3_runs_that_need_a_new_definition_at_once_register_it_once(
    aws: Any, launcher: Launcher
) -> None:
    threads = [
        threading.Thread(
            target=run_blocking,
            args=(launcher.steps(token=f"t{number}"), lambda _: None),
        )
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ecs_calls(aws) == {
        "DescribeTaskDefinition": 1,
        "RegisterTaskDefinition": 1,
        "RunTask": 8,
    }


def test_guarantee_1_the_same_launch_twice_is_one_task(launcher: Launcher) -> None:
    assert launcher.launch() == launcher.launch()
    assert len(launcher.tasks()) == 1


def test_guarantee_1_a_lost_answer_starts_no_second_task(
    aws: Any, launcher: Launcher
) -> None:
    from prefect_ecs_plugin.sandbox.aws import Fault

    lost = Fault(drop_connection=True, after_effect=True)
    faults(aws, "ecs.RunTask", lost, lost)
    assert [launcher.launch()] == launcher.tasks()
    assert aws.calls["ecs.RunTask"] == 3


@pytest.mark.parametrize(
    "operation, asked",
    [
        ("ecs.RunTask", 2),
        ("ecs.DescribeTaskDefinition", 2),
        ("ecs.RegisterTaskDefinition", 1),  # found when it is looked for again
    ],
)
def test_guarantee_1_rubbish_for_an_answer_is_asked_again(
    aws: Any, launcher: Launcher, operation: str, asked: int
) -> None:
    from prefect_ecs_plugin.sandbox.aws import Fault

    faults(aws, operation, Fault(body=b"rubbish", after_effect=True))
    assert [launcher.launch()] == launcher.tasks()
    assert aws.calls[operation] == asked


def test_guarantee_1_a_conflict_adopts_the_task_it_names(
    aws: Any, launcher: Launcher
) -> None:
    first = launcher.launch()
    launcher.request["enableExecuteCommand"] = True
    assert launcher.launch() == first


@pytest.mark.parametrize(
    "operation, code, message",
    [
        ("ecs.RunTask", "ThrottlingException", "Rate exceeded"),
        ("ecs.RegisterTaskDefinition", "ThrottlingException", "Rate exceeded"),
        ("ecs.DescribeTaskDefinition", "ThrottlingException", "Rate exceeded"),
        ("ecs.RunTask", "ServerException", "Service Unavailable."),
        (
            "ecs.RegisterTaskDefinition",
            "ClientException",
            "Too many concurrent attempts to create a new revision of the specified "
            "family.",
        ),
        (
            "ecs.RunTask",
            "InvalidParameterException",
            "Error retrieving subnets: Rate exceeded (ErrorCode: Throttling)",
        ),
    ],
)
def test_guarantee_4_trouble_that_passes_is_waited_for(
    aws: Any, launcher: Launcher, operation: str, code: str, message: str
) -> None:
    from prefect_ecs_plugin.sandbox.aws import Fault

    faults(aws, operation, *[Fault(error_code=code, message=message)] * 3)
    assert [launcher.launch()] == launcher.tasks()
    assert aws.calls[operation] == 4


def test_guarantee_4_missing_capacity_is_waited_for(
    aws: Any, launcher: Launcher
) -> None:
    from prefect_ecs_plugin.sandbox.aws import Fault

    full = Fault(failures=[{"arn": "i-1", "reason": "RESOURCE:MEMORY"}])
    faults(aws, "ecs.RunTask", full, full)
    assert [launcher.launch()] == launcher.tasks()


def test_a_lost_register_is_looked_for_before_it_is_repeated(
    aws: Any, launcher: Launcher
) -> None:
    from prefect_ecs_plugin.sandbox.aws import Fault

    lost = Fault(drop_connection=True, after_effect=True)
    faults(aws, "ecs.RegisterTaskDefinition", lost)
    launcher.launch()
    assert aws.calls["ecs.RegisterTaskDefinition"] == 1


def test_a_definition_that_became_inactive_is_registered_again(
    aws: Any, launcher: Launcher
) -> None:
    launcher.launch(token="a")
    family = definition()["family"]
    launcher.ecs.deregister_task_definition(taskDefinition=f"{family}:1")
    launcher.launch(token="b")
    described = launcher.ecs.describe_task_definition(taskDefinition=family)
    assert described["taskDefinition"]["revision"] == 2
    assert described["taskDefinition"]["status"] == "ACTIVE"


def test_failures_that_are_final_are_all_reported(aws: Any, launcher: Launcher) -> None:
    from prefect_ecs_plugin.sandbox.aws import Fault

    reasons = [
        {"arn": "i-1", "reason": "ATTRIBUTE", "detail": "gpu"},
        {"arn": "i-2", "reason": "MISSING"},
    ]
    faults(aws, "ecs.RunTask", Fault(failures=reasons))
    with raises_code("no-suitable-instance", LaunchError) as error:
        launcher.launch()
    assert "ATTRIBUTE, detail gpu, arn i-1; MISSING, arn i-2" in str(error.value)
    assert aws.calls["ecs.RunTask"] == 1


def test_a_cluster_that_is_not_there_is_named_a_final_trouble(
    launcher: Launcher,
) -> None:
    launcher.request["cluster"] = "nowhere"
    with raises_code("no-cluster", LaunchError):
        launcher.launch()


def test_a_definition_that_is_refused_is_asked_for_once_by_all_who_need_it(
    aws: Any, launcher: Launcher
) -> None:
    from prefect_ecs_plugin.sandbox.aws import Fault

    denied = Fault(error_code="AccessDeniedException", message="ecs:Register...")
    faults(aws, "ecs.RegisterTaskDefinition", *[denied] * 9)
    first, second = launcher.steps(), launcher.steps()
    family = definition()["family"]
    promise, ours = launcher.submission._definitions.reserve(family)
    assert ours
    assert next(second) is promise
    launcher.submission._definitions.reject(family, RuntimeError("gone"))
    for steps in (first, second):
        with raises_code("missing-permission", LaunchError):
            launcher.simulation.result_of(steps)


TAGGING = (
    "User: arn:aws:iam::123456789012:user/agent is not authorized to perform: "
    "ecs:TagResource on resource: * because no identity-based policy allows it"
)


def test_guarantee_5_without_the_right_to_tag_tasks_start_untagged(
    aws: Any, launcher: Launcher, caplog: pytest.LogCaptureFixture
) -> None:
    from prefect_ecs_plugin.sandbox.aws import Fault

    def fault(operation: str, params: Dict[str, Any]) -> Optional[Fault]:
        if params.get("tags"):
            return Fault(error_code="AccessDeniedException", message=TAGGING)
        return None

    aws.fault = fault
    launcher.launch(token="a")
    launcher.launch(token="b")
    assert aws.calls["ecs.RunTask"] == 3  # of which the first was refused
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert codes_of(warnings) == ["own-tags-refused"]


def tags_of_tasks(launcher: Launcher) -> List[Dict[str, str]]:
    described = launcher.ecs.describe_tasks(tasks=launcher.tasks(), include=["TAGS"])
    return [
        {tag["key"]: tag["value"] for tag in task["tags"]}
        for task in described["tasks"]
    ]


def refuses_tags(aws: Any, which: Callable[[str], bool]) -> None:
    """Answer AccessDenied to every request with a tag whose key is such."""
    from prefect_ecs_plugin.sandbox.aws import Fault

    def fault(_: str, params: Dict[str, Any]) -> Optional[Fault]:
        if any(which(tag["key"]) for tag in params.get("tags") or ()):
            return Fault(error_code="AccessDeniedException", message=TAGGING)
        return None

    aws.fault = fault


def test_the_agents_own_tags_are_sent_again_after_a_while(
    aws: Any, launcher: Launcher
) -> None:
    refuses_tags(aws, lambda key: True)
    launcher.launch(token="a")
    aws.fault = None
    launcher.launch(token="b")
    assert tags_of_tasks(launcher) == [{}, {}]
    launcher.simulation.now += ASK_FOR_TAGS_AGAIN
    launcher.launch(token="c")
    found = [tags for tags in tags_of_tasks(launcher) if tags]
    assert found == [{"prefect:flow-run-id": RUN_ID}]


def test_the_users_own_tags_are_kept_where_only_the_agents_are_refused(
    aws: Any, launcher: Launcher
) -> None:
    refuses_tags(aws, lambda key: key.startswith("prefect:"))
    launcher.request["tags"].append({"key": "team", "value": "data"})
    for token in "abc":
        launcher.launch(token=token)
    assert tags_of_tasks(launcher) == [{"team": "data"}] * 3


def test_the_users_own_tags_are_never_dropped_in_silence(
    aws: Any, launcher: Launcher
) -> None:
    refuses_tags(aws, lambda key: True)
    ours = launcher.request["tags"]
    launcher.request["tags"] = [*ours, {"key": "team", "value": "data"}]
    for token in "ab":
        with raises_code("missing-tag-resource", LaunchError):
            launcher.launch(token=token)
    assert launcher.tasks() == []
    launcher.request["tags"] = ours
    assert [launcher.launch(token="c")] == launcher.tasks()
    launcher.simulation.now += ASK_FOR_TAGS_AGAIN
    aws.fault = None
    launcher.request["tags"] = [*ours, {"key": "team", "value": "data"}]
    launcher.launch(token="d")
    assert sorted(map(len, tags_of_tasks(launcher))) == [0, 2]


def test_the_users_own_tags_of_a_definition_are_never_dropped_in_silence(
    aws: Any, launcher: Launcher
) -> None:
    refuses_tags(aws, lambda key: True)
    tagged = {**definition(), "tags": [{"key": "team", "value": "data"}]}
    with raises_code("missing-tag-resource", LaunchError) as error:
        launcher.launch(tagged)
    assert "RegisterTaskDefinition" in str(error.value)


def test_one_runs_refused_tags_cost_no_other_run_its_own(
    aws: Any, launcher: Launcher
) -> None:
    refuses_tags(aws, lambda key: key == "secret-project")
    ours = launcher.request["tags"]
    launcher.request["tags"] = [*ours, {"key": "secret-project", "value": "x"}]
    with raises_code("missing-tag-resource", LaunchError):
        launcher.launch(token="a")
    launcher.request["tags"] = ours
    launcher.launch(token="b")
    assert tags_of_tasks(launcher) == [{"prefect:flow-run-id": RUN_ID}]


def test_an_agent_that_may_not_look_registers(
    aws: Any, launcher: Launcher, caplog: pytest.LogCaptureFixture
) -> None:
    from prefect_ecs_plugin.sandbox.aws import Fault

    denied = Fault(error_code="AccessDeniedException", message="not authorized")
    faults(aws, "ecs.DescribeTaskDefinition", *[denied] * 9)
    launcher.launch(token="a")
    launcher.launch(definition("4096"), token="b")
    assert aws.calls["ecs.DescribeTaskDefinition"] == 1
    assert codes_of(r.getMessage() for r in caplog.records) == ["missing-permission"]


# -- Definitions that the user registered ------------------------------------------


def described(launcher: Launcher, name: str) -> Any:
    return launcher.simulation.result_of(
        launcher.submission.described(name, launcher.budget())
    )


def test_a_definition_named_by_revision_is_read_once(
    aws: Any, launcher: Launcher
) -> None:
    launcher.ecs.register_task_definition(**{**definition(), "family": "own"})
    aws.calls.clear()
    for _ in range(3):
        assert described(launcher, "own:1")["family"] == "own"
        assert described(launcher, "own")["revision"] == 1
    assert ecs_calls(aws) == {"DescribeTaskDefinition": 4}


@pytest.mark.parametrize("name", ["absent:1", "absent"])
def test_a_definition_that_is_not_there(launcher: Launcher, name: str) -> None:
    with raises_code("no-task-definition", LaunchError) as error:
        described(launcher, name)
    assert f" {name} " in str(error.value)


def test_a_definition_that_may_not_be_read_is_named(
    aws: Any, launcher: Launcher
) -> None:
    from prefect_ecs_plugin.sandbox.aws import Fault

    denied = Fault(error_code="AccessDeniedException", message="not authorized")
    faults(aws, "ecs.DescribeTaskDefinition", denied)
    with raises_code("missing-permission", LaunchError) as error:
        described(launcher, "own:1")
    assert "own:1" in str(error.value)


def test_a_definition_that_is_gone_by_the_time_of_its_launch_is_named(
    launcher: Launcher,
) -> None:
    launcher.ecs.register_task_definition(**{**definition(), "family": "own"})
    described(launcher, "own:1")
    launcher.ecs.deregister_task_definition(taskDefinition="own:1")
    for _ in range(2):
        steps = launcher.submission.launch_by_arn(
            "own:1", launcher.request, launcher.budget()
        )
        with raises_code("no-task-definition", LaunchError) as error:
            launcher.simulation.result_of(steps)
        assert "own:1" in str(error.value)
    with raises_code("inactive-task-definition", LaunchError):
        described(launcher, "own:1")  # no longer what was remembered


def test_a_definition_that_is_inactive(launcher: Launcher) -> None:
    launcher.ecs.register_task_definition(**{**definition(), "family": "own"})
    launcher.ecs.deregister_task_definition(taskDefinition="own:1")
    with raises_code("inactive-task-definition", LaunchError):
        described(launcher, "own:1")


# -- A run that has waited is confirmed ---------------------------------------------


class Abandoned(Exception):
    """The run does not want its launch any more."""


class Confirm:
    """Counts how often a run was confirmed, and raises what it is told to."""

    def __init__(self, *outcomes: Optional[Exception]) -> None:
        self.outcomes = list(outcomes)
        self.times: List[float] = []

    def steps_of(self, launcher: Launcher) -> Callable[[], Steps[None]]:
        def confirm() -> Steps[None]:
            self.times.append(launcher.simulation.now)
            yield Pause(0)
            outcome = self.outcomes.pop(0) if self.outcomes else None
            if outcome:
                raise outcome

        return confirm


def confirmed_launch(launcher: Launcher, confirm: Confirm, jitter: float) -> str:
    budget = RetryBudget(0, 1800, lambda: launcher.simulation.now, lambda: jitter)
    steps = launcher.submission.launch(
        definition(), launcher.request, budget, confirm=confirm.steps_of(launcher)
    )
    return str(launcher.simulation.result_of(steps))


def test_guarantee_1_a_run_that_has_not_waited_is_not_confirmed(
    launcher: Launcher,
) -> None:
    confirm = Confirm()
    assert [confirmed_launch(launcher, confirm, 1.0)] == launcher.tasks()
    assert confirm.times == []


def test_guarantee_1_a_run_that_has_waited_is_confirmed_each_time(
    aws: Any, launcher: Launcher
) -> None:
    from prefect_ecs_plugin.sandbox.aws import Fault

    full = Fault(failures=[{"arn": "i-1", "reason": "RESOURCE:MEMORY"}])
    busy = Fault(error_code="ThrottlingException")
    faults(aws, "ecs.RunTask", busy, full, full)
    confirm = Confirm()
    assert [confirmed_launch(launcher, confirm, 1.0)] == launcher.tasks()
    # After 1 s, 11 s and 31 s: the first is too soon.
    assert len(confirm.times) == 2


def test_guarantee_1_a_run_that_is_not_confirmed_is_not_started(
    aws: Any, launcher: Launcher
) -> None:
    from prefect_ecs_plugin.sandbox.aws import Fault

    full = Fault(failures=[{"arn": "i-1", "reason": "RESOURCE:MEMORY"}])
    faults(aws, "ecs.RunTask", full)
    with pytest.raises(Abandoned):
        confirmed_launch(launcher, Confirm(Abandoned()), 1.0)
    assert launcher.tasks() == []
    assert aws.calls["ecs.RunTask"] == 1


@pytest.mark.parametrize("is_started", [True, False])
def test_guarantee_5_an_abandoned_launch_looks_for_the_task_of_a_lost_answer(
    aws: Any, launcher: Launcher, is_started: bool
) -> None:
    from prefect_ecs_plugin.sandbox.aws import Fault

    lost = Fault(drop_connection=True, after_effect=is_started)
    full = Fault(failures=[{"arn": "i-1", "reason": "RESOURCE:MEMORY"}])
    faults(aws, "ecs.RunTask", lost, full)
    confirm = Confirm(Abandoned())
    if is_started:
        assert [confirmed_launch(launcher, confirm, 1.0)] == launcher.tasks()
    else:
        with pytest.raises(Abandoned):
            confirmed_launch(launcher, confirm, 1.0)

"""Stopped tasks: verdicts and hints as tables of ECS's own words, explanations."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_ecs_plugin.launch_record import Launch
from prefect_ecs_plugin.monitoring import stop_reasons
from prefect_ecs_plugin.monitoring.task_state import (
    GRACE,
    RELAUNCH_BACKOFF,
    Judgement,
    Run,
    Verdict,
    described,
    explain,
    judge,
    waits,
)

ARN = "arn:aws:ecs:eu-west-1:123456789012:task/prod/0123abc"
GUIDE = "https://docs.aws.amazon.com/AmazonECS/latest/developerguide/"
CENTER = "https://repost.aws/knowledge-center/"

SUBMITTED, RUNNING = Run("Submitted"), Run("Running")
RELAUNCH, FAIL, LEAVE = Verdict.RELAUNCH, Verdict.FAIL, Verdict.LEAVE
LOOK_AGAIN, CANCEL = Verdict.LOOK_AGAIN, Verdict.CANCEL

FAILED_TO_START, EXITED = "TaskFailedToStart", "EssentialContainerExited"


def never_ran(
    stopped_reason: str,
    stop_code: str = FAILED_TO_START,
    container_reason: Optional[str] = None,
    **more: Any,
) -> Dict[str, Any]:
    """A task whose flow container was never created, as DescribeTasks shows it."""
    container: Dict[str, Any] = {"name": "flow", "lastStatus": "STOPPED"}
    if container_reason:
        container["reason"] = container_reason
    return {
        "taskArn": ARN,
        "lastStatus": "STOPPED",
        "desiredStatus": "STOPPED",
        "launchType": "FARGATE",
        "cpu": "1024",
        "memory": "2048",
        "stopCode": stop_code,
        "stoppedReason": stopped_reason,
        "containers": [container],
        **more,
    }


def ran(
    exit_code: Optional[int],
    stopped_reason: str = "Essential container in task exited",
    stop_code: str = EXITED,
    container_reason: Optional[str] = None,
    **more: Any,
) -> Dict[str, Any]:
    """A task that was RUNNING."""
    task = never_ran(stopped_reason, stop_code, container_reason, startedAt=1, **more)
    task["containers"][0]["runtimeId"] = "0123abc-1"
    if exit_code is not None:
        task["containers"][0]["exitCode"] = exit_code
    return task


# -- Tasks that never ran -----------------------------------------------------------

#: What ECS writes, the hint and verdict it must get, and a page about it. The texts
#: are those of AWS's documentation and its ECS agent, and of tasks that people have
#: shown in public; ids are shortened, nothing else is changed.
PULL = GUIDE + "task_cannot_pull_image.html"
INIT = GUIDE + "resource-initialization-error.html"
START = GUIDE + "failed-to-start-error.html"
PLACE = GUIDE + "api_failures_messages.html"
NOT_FOUND = GUIDE + "resource-not-found-error.html"
SECRETS = CENTER + "ecs-unable-to-pull-secrets"
CODES = "https://docs.aws.amazon.com/AmazonECS/latest/userguide/"
CODES += "stopped-task-error-codes.html"
AGENT = "https://github.com/aws/amazon-ecs-agent/blob/master/agent/engine/errors.go"
AUTH = "ResourceInitializationError: unable to pull secrets or registry auth: "
FETCH = "execution resource retrieval failed: "

NEVER_RAN: List[Tuple[str, str, Verdict, str]] = [
    # CannotPullContainerError
    (
        "CannotPullContainerError: API error (404): repository 111122223333.dkr.ecr."
        "us-east-1.amazonaws.com/<repo>/<image> not found",
        "image missing",
        FAIL,
        PULL,
    ),
    (
        "CannotPullContainerError: pull image manifest has been retried 1 time(s): "
        "failed to resolve ref 111122223333.dkr.ecr.us-east-1.amazonaws.com/jobs:v1: "
        "not found",
        "image missing",
        FAIL,
        PULL,
    ),
    (
        "CannotPullContainerError: Error response from daemon: manifest for "
        "prefecthq/prefect:9.9.9 not found: manifest unknown: manifest unknown",
        "image missing",
        FAIL,
        CENTER + "ecs-pull-container-error",
    ),
    (
        "CannotPullContainerError: API error (500): Get https://111122223333.dkr.ecr."
        "us-east-1.amazonaws.com/v2/: net/http: request canceled while waiting for "
        "connection",
        "network",
        RELAUNCH,
        PULL,
    ),
    (
        "CannotPullContainerError: Error response from daemon: Get url: net/http: "
        "request canceled while waiting for connection",
        "network",
        RELAUNCH,
        PULL,
    ),
    (
        "CannotPullContainerError: pull image manifest has been retried 5 time(s): "
        'failed to resolve ref docker.io/library/x:latest: failed to do request: Head "'
        'https://registry-1.docker.io/v2/library/x/manifests/latest": dial tcp '
        "44.205.64.79:443: i/o timeout",
        "network",
        RELAUNCH,
        "https://github.com/ActionIQ/terraform-aws-retool-ecs-fargate/issues/20",
    ),
    (
        "CannotPullContainerError: The task can’t pull the image. Check that the role "
        "has the permissions to pull images from the registry.",
        "image denied",
        FAIL,
        PULL,
    ),
    (
        "CannotPullContainerError: The task cannot pull ‘image-name’ from the Amazon "
        "ECR repository ‘repository URI’. There is a connection issue between the task "
        "and Amazon ECR. Check your task network configuration.",
        "network",
        RELAUNCH,
        PULL,
    ),
    (
        "CannotPullContainerError: The task can’t pull the image. Check your network "
        "configuration",
        "network",
        RELAUNCH,
        PULL,
    ),
    (
        "CannotPullContainerError: pull image manifest has been retried 5 time(s): "
        "failed to resolve ref",
        "image",
        RELAUNCH,
        PULL,
    ),
    (
        "CannotPullContainerError: write /var/lib/docker/tmp/GetImageBlob111111111: no "
        "space left on device",
        "instance disk",
        RELAUNCH,
        PULL,
    ),
    (
        "CannotPullContainerError: ref pull has been retried 1 time(s): failed to "
        "extract layer sha256:c023: write /var/lib/containerd/x: no space left on "
        "device",
        "disk",
        FAIL,
        CENTER + "ecs-fargate-pull-container-error",
    ),
    (
        "CannotPullContainerError: ERROR: toomanyrequests: Too Many Requests.",
        "rate limit",
        RELAUNCH,
        PULL,
    ),
    (
        "CannotPullContainerError: inspect image has been retried 5 time(s): "
        "httpReaderSeeker: failed open: unexpected status code "
        "https://registry-1.docker.io/v2/manifests/sha256:2bb501e6429 Too Many "
        "Requests - Server message: toomanyrequests: You have reached your pull rate "
        "limit. You may increase the limit by authenticating and upgrading: "
        "https://www.docker.com/increase-rate-limit",
        "rate limit",
        RELAUNCH,
        CENTER + "ecs-pull-container-error-rate-limit",
    ),
    (
        "CannotPullContainerError: ref pull has been retried 1 time(s): failed to "
        "copy: httpReaderSeeker: failed open: unexpected status code",
        "image",
        RELAUNCH,
        PULL,
    ),
    (
        "CannotPullContainerError: Error response from daemon: pull access denied for "
        "flow, repository does not exist or may require 'docker login'",
        "image denied",
        FAIL,
        PULL,
    ),
    (
        "CannotPullContainerError: pull image manifest has been retried 1 time(s): "
        'failed to resolve ref "123456789012.dkr.ecr.eu-west-3.amazonaws.com/flow:1": '
        "unexpected status code 403 Forbidden",
        "image denied",
        FAIL,
        CENTER + "ecs-pull-container-error",
    ),
    (
        "CannotPullContainerError: pull command failed: panic: runtime error: invalid "
        "memory address or nil pointer dereference",
        "network",
        RELAUNCH,
        PULL,
    ),
    (
        "CannotPullContainerError: error pulling image configuration",
        "image",
        RELAUNCH,
        PULL,
    ),
    ("CannotPullContainerError: context canceled", "network", RELAUNCH, PULL),
    (
        "CannotPullContainerError: pull image manifest has been retried 7 time(s): "
        "image Manifest does not contain descriptor matching platform 'linux/amd64'",
        "platform",
        FAIL,
        PULL,
    ),
    (
        "CannotPullContainerError: ref pull has been retried 1 time(s): failed to "
        "unpack image on snapshotter overlayfs: failed to extract layer sha256:c023: "
        "failed to get stream processor for application/x",
        "image layers",
        FAIL,
        PULL,
    ),
    (
        'CannotPullContainerError: Error response from daemon: Get "https://1.dkr.ecr.'
        'us-west-2.amazonaws.commmmm/v2/": dial tcp: lookup 1.dkr.ecr.us-west-2.'
        "amazonaws.commmmm on 10.0.0.2:53: no such host",
        "name resolution",
        FAIL,
        CENTER + "ecs-pull-container-error",
    ),
    (
        "CannotPullContainerError: Error response from daemon: invalid reference "
        "format",
        "image name",
        FAIL,
        CENTER + "ecs-pull-container-error",
    ),
    (
        "CannotPullECRContainerError: AccessDeniedException: User: arn:aws:sts::1:"
        "assumed-role/x/y is not authorized to perform: ecr:GetAuthorizationToken on "
        "resource: *",
        "image denied",
        FAIL,
        AGENT,
    ),
    # ResourceInitializationError
    (
        AUTH + FETCH + "unable to retrieve ecr registry auth: service call has been "
        "retried 3 time(s): RequestError: send request failed caused by: Post "
        '"https://api.ecr.us-east-1.amazonaws.com/": dial tcp 3.4.5.6:443: i/o '
        "timeout. Please check your task network configuration.",
        "network",
        RELAUNCH,
        SECRETS,
    ),
    (
        AUTH + "The task cannot pull registry auth from Amazon ECR: There is a "
        "connection issue between the task and Amazon ECR. Check your task network "
        "configuration. RequestError: send request failed caused by: Post "
        '"https://api.ecr.eu-west-2.amazonaws.com/": dial tcp 3.8.169.253:443: i/o '
        "timeout",
        "network",
        RELAUNCH,
        INIT,
    ),
    (AUTH + "pull command failed: : signal: killed", "network", RELAUNCH, SECRETS),
    (
        AUTH + FETCH + "unable to retrieve ecr registry auth: service call has been "
        "retried 1 time(s): AccessDeniedException: User: arn:aws:sts::1:assumed-role/"
        "ecsTaskExecutionRole/y is not authorized to perform: "
        "ecr:GetAuthorizationToken on resource: * because no identity-based policy "
        "allows the ecr:GetAuthorizationToken action",
        "image denied",
        FAIL,
        INIT,
    ),
    (
        AUTH + FETCH + "unable to retrieve secret from asm: service call has been "
        "retried 1 time(s): failed to fetch secret arn:aws:secretsmanager:us-east-1:1:"
        "secret:db-LB1bMG from secrets manager: ResourceNotFoundException: Secrets "
        "Manager can't find the specified secret value for staging label: AWSCURRENT",
        "secret missing",
        FAIL,
        INIT,
    ),
    (
        AUTH + FETCH + "unable to retrieve secret from asm: service call has been "
        "retried 1 time(s): failed to fetch secret arn:aws:secretsmanager:ap-northeast"
        "-2:1:secret:x-UMl6GF from secrets manager: AccessDeniedException: User: arn:"
        "aws:sts::1:assumed-role/x/y is not authorized to perform: "
        "secretsmanager:GetSecretValue on resource: arn:...",
        "secret denied",
        FAIL,
        SECRETS,
    ),
    (
        AUTH + FETCH + "unable to retrieve secret from asm: service call has been "
        "retried 1 time(s): failed to fetch secret arn:aws:secretsmanager:x from "
        "secrets manager: InvalidParameter: 1 validation error(s) found. – minimum "
        "field size of 32, GetSecretValueInput.VersionId.",
        "secret missing",
        FAIL,
        SECRETS,
    ),
    (
        AUTH + FETCH + "unable to retrieve secret from asm: service call has been "
        "retried.",
        "secret unreachable",
        RELAUNCH,
        SECRETS,
    ),
    (
        AUTH + "unable to retrieve secrets from ssm: The task cannot pull secrets from "
        "AWS Systems Manager. There is a connection issue between the task and AWS "
        "Systems Manager Parameter Store. Check your task network configuration. "
        "RequestCanceled: request context canceled caused by: context deadline "
        "exceeded",
        "network",
        RELAUNCH,
        INIT,
    ),
    (
        AUTH + FETCH + "unable to retrieve secrets from ssm: service call has been "
        "retried 1 time(s): invalid parameters: /prod/db",
        "secret missing",
        FAIL,
        SECRETS,
    ),
    (
        "ResourceInitializationError: The task can't retrieve the secret with ARN "
        "'sercretARN' from AWS Secrets Manager. Check whether the secret exists in the "
        "specified Region.",
        "secret missing",
        FAIL,
        NOT_FOUND,
    ),
    (
        "ResourceInitializationError: failed to validate logger args: create stream "
        "has been retried 1 times: failed to create Cloudwatch log stream: "
        "ResourceNotFoundException: The specified log group does not exist.",
        "log group",
        FAIL,
        INIT,
    ),
    (
        "ResourceInitializationError: failed to validate logger args: : "
        "AccessDeniedException: User: arn:aws:sts::1:assumed-role/x/y is not "
        "authorized to perform: logs:CreateLogGroup on resource: arn:aws:logs:x",
        "logs denied",
        FAIL,
        INIT,
    ),
    (
        "ResourceInitializationError: failed to validate logger args: The task cannot "
        "find the Amazon CloudWatch log group defined in the task definition. There is "
        "a connection issue between the task and Amazon CloudWatch. Check your network "
        "configuration. signal: killed",
        "network",
        RELAUNCH,
        INIT,
    ),
    (
        "ResourceInitializationError: failed to validate logger args: unable to get "
        "awslogs driver arguments: awslogs-region is required",
        "log driver",
        FAIL,
        INIT,
    ),
    (
        "ResourceInitializationError: failed to initialize logging driver: <reason>",
        "log driver",
        FAIL,
        CODES,
    ),
    (
        "ResourceInitializationError: failed to invoke EFS utils commands to set up "
        "EFS volumes: stderr: b'mount.nfs4: access denied by server while mounting "
        "127.0.0.1:/'",
        "file system",
        FAIL,
        INIT,
    ),
    (
        "ResourceInitializationError: failed to invoke EFS utils commands to set up "
        "EFS volumes: stderr: Mount attempt 1/3 failed due to timeout after 15 sec, "
        "wait 0 sec before next attempt. b'mount.nfs4: mount system call failed'",
        "file system unreachable",
        RELAUNCH,
        INIT,
    ),
    (
        "ResourceInitializationError: failed to invoke EFS utils commands to set up "
        'EFS volumes: stderr: Failed to resolve "fs-1.efs.us-east-1.amazonaws.com"',
        "name resolution",
        FAIL,
        INIT,
    ),
    (
        "ResourceInitializationError: failed to download env files: file download "
        "command: non empty error stream: service call has been retried 5 time(s)",
        "environment file",
        FAIL,
        GUIDE + "use-environment-file.html",
    ),
    (
        "ResourceInitializationError: failed to configure ENI: failed to setup regular "
        "eni: netplugin failed with no error message",
        "network interface",
        RELAUNCH,
        START,
    ),
    # Network interfaces and other provisioning
    (
        "Timeout waiting for network interface provisioning to complete.",
        "network interface",
        RELAUNCH,
        START,
    ),
    (
        "Network interface provision complete error timeout wait for network interface "
        "provision.",
        "network interface",
        RELAUNCH,
        START,
    ),
    (
        "Rate limit exceeded while preparing network interface to be attached to "
        "instance",
        "throttled",
        RELAUNCH,
        START,
    ),
    (
        "Timeout waiting for EphemeralStorage provisioning to complete.",
        "volume provisioning",
        RELAUNCH,
        START,
    ),
    (
        "Unexpected EC2 error while attempting to Create Network Interface with public "
        "IP assignment enabled in subnet 'subnet-id'",
        "subnet full",
        RELAUNCH,
        START,
    ),
    (
        "Unexpected EC2 error while attempting to Create Network Interface in subnet "
        "'': InsufficientFreeAddressesInSubnet",
        "subnet full",
        RELAUNCH,
        START,
    ),
    (
        "Unexpected EC2 error while attempting to tag the network interface: "
        "TagPolicyViolation",
        "network interface denied",
        FAIL,
        START,
    ),
    (
        "Unable to attach network interface to unused device index",
        "network interface",
        RELAUNCH,
        START,
    ),
    ("InternalError: <reason>", "runtime", RELAUNCH, START),
    # Capacity and placement
    ("RESOURCE:MEMORY", "capacity", RELAUNCH, PLACE),
    ("TaskFailedToStart: RESOURCE:CPU", "capacity", RELAUNCH, PLACE),
    ("TaskFailedToStart: AGENT", "capacity", RELAUNCH, PLACE),
    ("TaskFailedToStart: EMPTY CAPACITY PROVIDER", "capacity", RELAUNCH, PLACE),
    ("TaskFailedToStart: NO ACTIVE INSTANCES", "capacity", RELAUNCH, PLACE),
    (
        "Capacity is unavailable at this time. Please try again later or in a "
        "different availability zone",
        "capacity",
        RELAUNCH,
        GUIDE + "service-event-messages-list.html",
    ),
    (
        "You’ve reached the limit on the number of vCPUs you can run concurrently",
        "capacity",
        RELAUNCH,
        GUIDE + "service-event-messages-list.html",
    ),
    (
        "The requested MEMORY configuration is above your limit.",
        "quota",
        FAIL,
        GUIDE + "service-event-messages-list.html",
    ),
    (
        "TaskFailedToStart: MemberOf placement constraint unsatisfied.",
        "placement",
        FAIL,
        PLACE,
    ),
    ("TaskFailedToStart: ATTRIBUTE", "placement", FAIL, PLACE),
    (
        "The selected task definition is not compatible with the selected compute "
        "strategy",
        "placement",
        FAIL,
        START,
    ),
    (
        "ECS was unable to assume the role 'arn:aws:iam::1:role/ecsTaskExecutionRole' "
        "that was provided for this task. Please verify that the role being passed has "
        "the proper trust relationship and permissions and that your IAM user has "
        "permissions to pass this role.",
        "role",
        FAIL,
        GUIDE + "task_execution_IAM_role.html",
    ),
    # Starting the container
    (
        "CannotStartContainerError: failed to get container status: <reason>",
        "runtime",
        RELAUNCH,
        CODES,
    ),
    (
        "CannotStartContainerError: Error response from daemon: failed to initialize "
        "logging driver: failed to create Cloudwatch log stream: "
        "ResourceNotFoundException: The specified log group does not exist.",
        "log group",
        FAIL,
        GUIDE + "cannot-start-container.html",
    ),
    (
        "CannotStartContainerError: Error response from daemon: failed to create shim "
        "task: OCI runtime create failed: runc create failed: unable to start "
        'container process: exec: "prefect": executable file not found in $PATH: '
        "unknown",
        "command",
        FAIL,
        GUIDE + "cannot-start-container.html",
    ),
    (
        "CannotStartContainerError: Error response from daemon: error gathering device "
        'information while adding custom device "/dev/dri/renderD130": no such file or '
        "directory",
        "device",
        FAIL,
        GUIDE + "ecs-vt1.html",
    ),
    (
        "ContainerRuntimeTimeoutError: Could not transition to running; timed out "
        "after waiting 1m: <reason>",
        "runtime",
        RELAUNCH,
        CODES,
    ),
    (
        "DockerTimeoutError: Could not transition to created; timed out after waiting "
        "4m0s",
        "runtime",
        RELAUNCH,
        AGENT,
    ),
    ("CannotInspectContainerError: <reason>", "runtime", RELAUNCH, CODES),
    ("ContainerRuntimeError: <reason>", "runtime", RELAUNCH, CODES),
    (
        "CannotCreateContainerError: API error (500): devmapper: Thin Pool has 4350 "
        "free data blocks which is less than minimum required 4454 free data blocks.",
        "instance disk",
        RELAUNCH,
        GUIDE + "CannotCreateContainerError.html",
    ),
    ("CannotCreateVolumeError: <reason>", "volume", FAIL, CODES),
    (
        "TaskStoppedBeforePullBeginError: Task stopped before image pull could begin "
        "for task: arn",
        "runtime",
        RELAUNCH,
        AGENT,
    ),
    ("Task failed to start", "unknown", RELAUNCH, CODES),
]


def test_the_table_is_as_long_as_it_must_be() -> None:
    reasons = {reason for reason, *_ in NEVER_RAN}
    assert len(reasons) == len(NEVER_RAN) >= 40


@pytest.mark.parametrize(
    "reason, hint, verdict", [row[:3] for row in NEVER_RAN], ids=lambda value: None
)
def test_a_task_that_never_ran(reason: str, hint: str, verdict: Verdict) -> None:
    judgement = judge(never_ran(reason), SUBMITTED)
    assert (judgement.hint.name, judgement.verdict) == (hint, verdict)
    assert not judgement.started


@pytest.mark.parametrize(
    "reason, hint, verdict", [row[:3] for row in NEVER_RAN], ids=lambda value: None
)
def test_the_reason_may_stand_at_the_container(
    reason: str, hint: str, verdict: Verdict
) -> None:
    task = never_ran("Task failed to start", container_reason=reason)
    judgement = judge(task, SUBMITTED)
    assert (judgement.hint.name, judgement.verdict) == (hint, verdict)


@pytest.mark.parametrize(
    "stop_code, reason, hint, verdict",
    [
        ("SpotInterruption", "Your Spot Task was interrupted.", "spot", RELAUNCH),
        (
            "TerminationNotice",
            "Your Spot Task was interrupted.",
            "spot notice",
            RELAUNCH,
        ),
        (
            "TerminationNotice",
            "Host EC2 (instance i-1234567890abcdef) terminated.",
            "host gone",
            RELAUNCH,
        ),
        (
            "ServiceSchedulerInitiated",
            "ECS is performing maintenance on the underlying infrastructure hosting "
            "the task",
            "maintenance",
            RELAUNCH,
        ),
        (
            "UserInitiated",
            "Container instance deregistration forced by user",
            "host gone",
            RELAUNCH,
        ),
        ("InfrastructureHealth", "", "infrastructure", RELAUNCH),
        ("TerminationNotice", "", "infrastructure", RELAUNCH),
        (
            "ServiceSchedulerInitiated",
            "Scaling activity initiated by (deployment ecs-svc/1)",
            "service scheduler",
            FAIL,
        ),
        ("UserInitiated", "Task stopped by user", "user", FAIL),
        ("UserInitiated", "timeout waiting for a network interface", "user", FAIL),
        (EXITED, "Essential container in task exited", "ended", FAIL),
        ("", "", "unknown", RELAUNCH),
    ],
)
def test_stop_codes_of_tasks_that_never_ran(
    stop_code: str, reason: str, hint: str, verdict: Verdict
) -> None:
    judgement = judge(never_ran(reason, stop_code), SUBMITTED)
    assert (judgement.hint.name, judgement.verdict) == (hint, verdict)


# -- Tasks that ran -------------------------------------------------------------------

OUT_OF_MEMORY = "OutOfMemoryError: Container killed due to memory usage"


@pytest.mark.parametrize(
    "task, hint",
    [
        (ran(0), "silent end"),
        (ran(1), "exited"),
        (ran(2), "exited"),
        (ran(127), "command not found"),
        (ran(126), "command not found"),
        (ran(137), "killed"),
        (ran(137, container_reason=OUT_OF_MEMORY), "memory"),
        (ran(1, "OutOfMemory: container killed due to memory usage"), "memory"),
        (ran(139), "crashed"),
        (ran(143), "terminated"),
        (ran(None), "ended"),
        (ran(137, "Task stopped by user", "UserInitiated"), "user"),
        (ran(143, "Your Spot Task was interrupted.", "SpotInterruption"), "spot"),
        (ran(None, "Host EC2 (instance i-0abc) terminated.", ""), "host gone"),
        (ran(137, "Task failed container health checks", ""), "health check"),
        (ran(143, "", "InfrastructureHealth"), "infrastructure"),
    ],
)
@pytest.mark.parametrize("state", ["Submitted", "Running"])
def test_guarantee_2_a_task_that_ran_is_failed_after_a_second_look(
    task: Dict[str, Any], hint: str, state: str
) -> None:
    """Whatever its exit code, and never launched again."""
    first = judge(task, Run(state))
    second = judge(task, Run(state), confirmed=True)
    assert (first.verdict, second.verdict) == (LOOK_AGAIN, FAIL)
    assert second.hint.name == hint
    assert second.started


def test_what_a_task_says_of_its_end() -> None:
    containers: List[Dict[str, Any]] = [
        {"name": "proxy", "reason": "first", "exitCode": 1},
        {"name": "flow", "reason": None, "exitCode": 0},
        {"name": "other", "reason": "second"},
    ]
    task = {"stoppedReason": "all of it", "containers": containers}
    assert described.reasons(task) == ["all of it", "first", "second"]
    assert described.reasons({"containers": containers}) == ["first", "second"]
    assert described.reasons({"containers": None}) == []
    assert described.exit_code(task) == 0
    assert described.exit_code({"containers": containers[:1]}) is None
    assert described.exit_code({"containers": None}) is None


def test_words_of_two_places_are_not_read_as_one() -> None:
    assert stop_reasons.find("OutOfMemoryError").name == "memory"
    task = ran(1, stopped_reason="OutOf", container_reason="MemoryError")
    assert described.hint(task).name == "exited"


# -- What the API says -----------------------------------------------------------------

PULL_TIMEOUT = never_ran("CannotPullContainerError: i/o timeout")
NO_IMAGE = never_ran("CannotPullContainerError: x: not found")


@pytest.mark.parametrize(
    "state",
    [
        *("Success", "Failed", "Cancelled", "TimedOut", "Skipped", "Cached", "Mapped"),
        *("Scheduled", "Queued", "Paused", "Pending", "Resume", "NeverHeardOf"),
    ],
)
@pytest.mark.parametrize("task", [PULL_TIMEOUT, NO_IMAGE, ran(0), ran(137), None])
def test_a_run_that_needs_no_task_is_left_alone(task: Any, state: str) -> None:
    assert judge(task, Run(state), confirmed=True).verdict is LEAVE


@pytest.mark.parametrize("task", [PULL_TIMEOUT, NO_IMAGE, ran(1), None])
@pytest.mark.parametrize("state", ["Submitted", "Running", "Cancelling"])
def test_a_run_that_was_launched_again_is_left_alone(task: Any, state: str) -> None:
    assert judge(task, Run(state, taken_over=True), confirmed=True).verdict is LEAVE


@pytest.mark.parametrize("state", ["Submitted", "Running", "Cancelling"])
def test_a_run_whose_task_was_stopped_to_cancel_it_ends_cancelled(state: str) -> None:
    """The flow may have made it Running just when it was cancelled."""
    task = {**ran(143), "stoppedReason": "The flow run was cancelled"}
    assert judge(task, Run(state), confirmed=True).verdict is CANCEL


def test_a_run_whose_claimed_task_runs_have_no_task_is_not_left_to_prefect() -> None:
    """Prefect shows the run again for the task run that waits, not for those."""
    waits_too = Run("Running", waits=True, is_claimed=True)
    assert judge(ran(1), waits_too, confirmed=True).verdict is FAIL
    resumed = Launch(resumed=True)
    assert judge(PULL_TIMEOUT, waits_too, resumed).verdict is RELAUNCH


def test_a_run_whose_task_waits_for_its_retry_is_left_alone() -> None:
    assert judge(ran(0), Run("Running", waits=True), confirmed=True).verdict is LEAVE


@pytest.mark.parametrize(
    "states, expected",
    [
        ([], False),
        (["Success", "Running", "Pending", "Submitted", "Failed"], False),
        (["Success", "Retrying"], True),
        (["Scheduled"], True),
        (["Paused"], True),
        (["Resume"], True),
        (["Queued"], True),
    ],
)
def test_who_will_go_on_with_a_run(states: List[str], expected: bool) -> None:
    assert waits(states) is expected


@pytest.mark.parametrize(
    "task, run, launch, confirmed, verdict",
    [
        # Another start, as often as there are attempts.
        (PULL_TIMEOUT, SUBMITTED, Launch(1), False, RELAUNCH),
        (PULL_TIMEOUT, SUBMITTED, Launch(2), False, RELAUNCH),
        (PULL_TIMEOUT, SUBMITTED, Launch(3), False, FAIL),
        (NO_IMAGE, SUBMITTED, Launch(1), False, FAIL),
        # The run is Running although this task never ran: another task runs it.
        (PULL_TIMEOUT, RUNNING, Launch(), False, LEAVE),
        (NO_IMAGE, RUNNING, Launch(), False, LEAVE),
        (NO_IMAGE, Run("Cancelling"), Launch(), False, LEAVE),
        # Unless it was Running before.
        (PULL_TIMEOUT, RUNNING, Launch(resumed=True), False, RELAUNCH),
        (NO_IMAGE, RUNNING, Launch(resumed=True), False, FAIL),
        (NO_IMAGE, Run("Cancelling"), Launch(resumed=True), False, CANCEL),
        # Being cancelled is no failure.
        (ran(143), Run("Cancelling"), Launch(), False, LOOK_AGAIN),
        (ran(143), Run("Cancelling"), Launch(), True, CANCEL),
        # ECS does not know the task any more: it may have run.
        (None, SUBMITTED, Launch(), False, LOOK_AGAIN),
        (None, SUBMITTED, Launch(), True, FAIL),
        (None, RUNNING, Launch(), True, FAIL),
        # The API could not be asked; the task is not quite over.
        (NO_IMAGE, Run(None), Launch(), True, LOOK_AGAIN),
        (
            {**ran(1), "lastStatus": "DEPROVISIONING"},
            RUNNING,
            Launch(),
            True,
            LOOK_AGAIN,
        ),
    ],
)
def test_verdicts(
    task: Any, run: Run, launch: Launch, confirmed: bool, verdict: Verdict
) -> None:
    assert judge(task, run, launch, 3, confirmed).verdict is verdict


WAITING = Run("Running", waits=True)
CANCELLING, TAKEN_OVER = Run("Cancelling"), Run("Running", taken_over=True)
CLAIMED = Run("Running", waits=True, is_claimed=True)
STOPPED_BY_AGENT = ran(143, "The flow run was cancelled", "UserInitiated")


@pytest.mark.parametrize(
    "task, run, launch, verdict, why",
    [
        (NO_IMAGE, Run(None), Launch(), LOOK_AGAIN, "the run's state is not known"),
        (ran(0), Run("Success"), Launch(), LEAVE, "the run is Success"),
        (ran(1), TAKEN_OVER, Launch(), LEAVE, "the run was launched again since"),
        (
            ran(0),
            WAITING,
            Launch(),
            LEAVE,
            "Prefect will show the run in its queue again",
        ),
        (
            {**ran(1), "lastStatus": "DEPROVISIONING"},
            RUNNING,
            Launch(),
            LOOK_AGAIN,
            "the task is DEPROVISIONING",
        ),
        (
            STOPPED_BY_AGENT,
            RUNNING,
            Launch(),
            CANCEL,
            "the task was stopped to cancel the run",
        ),
        # The flow never ran.
        (PULL_TIMEOUT, RUNNING, Launch(), LEAVE, "another task made the run Running"),
        (
            NO_IMAGE,
            CANCELLING,
            Launch(resumed=True),
            CANCEL,
            "the run is Cancelling and has no task",
        ),
        (NO_IMAGE, SUBMITTED, Launch(), FAIL, "the task would fail to start again"),
        (PULL_TIMEOUT, SUBMITTED, Launch(3), FAIL, "3 of 3 starts failed"),
        (
            PULL_TIMEOUT,
            SUBMITTED,
            Launch(),
            RELAUNCH,
            "start 1 of 3 failed, perhaps by chance",
        ),
        # It may have run; only a run that is Running waits for a retry.
        (
            ran(143),
            CANCELLING,
            Launch(),
            CANCEL,
            "the run is Cancelling and its task has ended",
        ),
        (
            ran(1),
            Run("Submitted", waits=True),
            Launch(),
            FAIL,
            "the run is Submitted and its task has ended",
        ),
        (ran(1), CLAIMED, Launch(), FAIL, "the run is Running and its task has ended"),
        (None, RUNNING, Launch(), FAIL, "the run is Running and its task has ended"),
    ],
)
def test_why_a_task_is_judged_so(
    task: Any, run: Run, launch: Launch, verdict: Verdict, why: str
) -> None:
    """A first look ends nothing that may have run: the flow's last word may come."""
    started = task is None or "startedAt" in task
    judgement = judge(task, run, launch, confirmed=True)
    hint = stop_reasons.VANISHED if task is None else judgement.hint
    assert judgement == Judgement(verdict, why, hint, started, launch.attempt, 3)
    if started and verdict in (FAIL, CANCEL):
        verdict, why = LOOK_AGAIN, f"{why}; its last word may be on its way"
    first = judge(task, run, launch)
    assert first == Judgement(verdict, why, hint, started, launch.attempt, 3)


def test_a_launch_is_the_first_of_a_run_that_waited_by_default() -> None:
    assert Launch() == Launch(attempt=1, resumed=False, name="")
    run = Run(
        "Submitted", waits=False, taken_over=False, version=None, is_claimed=False
    )
    assert Run("Submitted") == run
    told = Judgement(LEAVE, "", stop_reasons.VANISHED)
    assert (told.started, told.attempt, told.limit) == (True, 1, 3)


def test_starts_of_one_run_are_minutes_apart_at_most() -> None:
    assert GRACE == 10
    pauses = [RELAUNCH_BACKOFF.seconds(tries, 1) for tries in (1, 2, 3, 4, 5)]
    assert pauses == [15, 30, 60, 120, 120]


TRANSIENT = "Timeout waiting for network interface provisioning to complete."
START_OF_A_CONTAINER = {
    "startedAt": {"startedAt": 1},
    "exit code": {"containers": [{"name": "flow", "exitCode": 0}]},
    "created": {"containers": [{"name": "flow", "runtimeId": "x"}]},
    "running": {"containers": [{"name": "flow", "lastStatus": "RUNNING"}]},
}


@pytest.mark.parametrize("sign", START_OF_A_CONTAINER)
def test_guarantee_1_nothing_is_launched_again_that_may_have_run(sign: str) -> None:
    task = never_ran(TRANSIENT, **START_OF_A_CONTAINER[sign])
    assert judge(task, SUBMITTED).verdict is LOOK_AGAIN
    assert judge(task, SUBMITTED, confirmed=True).verdict is FAIL


def test_a_sidecar_that_ran_does_not_count() -> None:
    task = never_ran(TRANSIENT)
    task["containers"].insert(0, {"name": "proxy", "exitCode": 137, "runtimeId": "x"})
    assert judge(task, SUBMITTED).verdict is RELAUNCH


words = st.text(max_size=40) | st.sampled_from([row[0] for row in NEVER_RAN])
tasks = st.fixed_dictionaries(
    {"lastStatus": st.sampled_from(["STOPPED", "RUNNING", "DEPROVISIONING"])},
    optional={
        "stopCode": st.sampled_from(
            [FAILED_TO_START, EXITED, "UserInitiated", "SpotInterruption", "New", None]
        ),
        "stoppedReason": words,
        "startedAt": st.just(1),
        "containers": st.lists(
            st.fixed_dictionaries(
                {"name": st.sampled_from(["flow", "proxy"])},
                optional={
                    "exitCode": st.integers(-1, 300),
                    "reason": words,
                    "runtimeId": st.just("x"),
                },
            ),
            max_size=3,
        ),
    },
)
states = st.sampled_from(
    ["Submitted", "Running", "Cancelling", "Success", "Scheduled", None]
)


@given(
    tasks | st.none(),
    st.builds(Run, states, st.booleans(), st.booleans()),
    st.builds(Launch, st.integers(1, 5), st.booleans()),
    st.booleans(),
)
def test_guarantee_1_and_2_as_laws(
    task: Any, run: Run, launch: Launch, confirmed: bool
) -> None:
    judgement = judge(task, run, launch, 3, confirmed)
    if judgement.verdict is RELAUNCH:
        flow = [c for c in task.get("containers", ()) if c["name"] == "flow"]
        assert "startedAt" not in task
        assert not any("exitCode" in container for container in flow[:1])
        assert launch.attempt < 3
        assert run.state == "Submitted" or launch.resumed
    if judgement.verdict is FAIL:
        assert run.state in ("Submitted", "Running")
    if judgement.verdict is LOOK_AGAIN and confirmed:
        assert run.state is None or task["lastStatus"] != "STOPPED"
    explanation = explain(ARN, task, None, judgement)
    assert "\n" not in explanation.message
    assert judgement.hint.cause in explanation.log


# -- The table of hints ---------------------------------------------------------------


@pytest.mark.parametrize(
    "hint", [*stop_reasons.HINTS, stop_reasons.VANISHED], ids=lambda h: h.name
)
def test_every_hint_helps_a_reader(hint: stop_reasons.StopReason) -> None:
    assert hint.cause
    assert hint.remedy
    assert not hint.cause.endswith(".")
    assert not hint.remedy.endswith(".")
    assert hint.source.startswith("https://")


def test_names_of_hints_are_unique() -> None:
    names = [hint.name for hint in (*stop_reasons.HINTS, stop_reasons.VANISHED)]
    assert len(set(names)) == len(names)


def test_every_hint_is_reached_by_a_test() -> None:
    tested = {row[1] for row in NEVER_RAN}
    by_example = {
        stop_reasons.find(example).name
        for hint in stop_reasons.HINTS
        for example in hint.examples
    }
    by_exit_code = {stop_reasons.find("", EXITED, code).name for code in range(256)}
    by_stop_code = {
        stop_reasons.find("", code).name
        for code in (
            *("SpotInterruption", "TerminationNotice", "UserInitiated"),
            *("ServiceSchedulerInitiated", EXITED),
        )
    }
    reached = tested | by_example | by_exit_code | by_stop_code
    assert {hint.name for hint in stop_reasons.HINTS} == reached


@pytest.mark.parametrize(
    "hint",
    [h for h in stop_reasons.HINTS if h.text and h.examples],
    ids=lambda h: h.name,
)
def test_an_example_leads_to_its_own_hint(hint: stop_reasons.StopReason) -> None:
    for example in hint.examples:
        assert stop_reasons.find(example) is hint


@given(st.text(), st.text(max_size=20), st.none() | st.integers())
def test_anything_finds_a_hint(text: str, code: str, exit_code: Optional[int]) -> None:
    assert stop_reasons.find(text, code, exit_code).remedy


# -- The explanation ------------------------------------------------------------------

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


def judged(task: Any, **options: Any) -> Judgement:
    return judge(task, options.pop("run", SUBMITTED), confirmed=True, **options)


def test_the_explanation_of_a_task_that_never_ran() -> None:
    task = never_ran(
        "CannotPullContainerError: x:v1: not found", pullStartedAt=1, pullStoppedAt=2
    )
    explanation = explain(ARN, task, DEFINITION, judged(task))
    assert explanation.message == (
        "The ECS task never ran because the image is not in its registry; check the "
        "repository, tag and region in `image` of the run config or the template, and "
        "that the image has been pushed (ECS says: TaskFailedToStart: "
        "CannotPullContainerError: x:v1: not found)"
    )
    assert explanation.log.splitlines() == [
        "The ECS task never ran because the image is not in its registry.",
        "What to do: check the repository, tag and region in `image` of the run config "
        "or the template, and that the image has been pushed.",
        "stopCode: TaskFailedToStart",
        "stoppedReason: CannotPullContainerError: x:v1: not found",
        "Container 'flow': no exit code",
        f"Task {ARN}: https://eu-west-1.console.aws.amazon.com/ecs/v2/clusters/prod/"
        "tasks/0123abc?region=eu-west-1",
        "Its log: https://eu-west-1.console.aws.amazon.com/cloudwatch/home?region="
        "eu-west-1#logsV2:log-groups/log-group/prefect/log-events/p$252Fflow$252F0123abc",
        f"More about this: {PULL}",
    ]


def test_the_explanation_of_a_killed_flow() -> None:
    task = ran(137, container_reason=OUT_OF_MEMORY)
    task["containers"].append({"name": "proxy", "exitCode": 0})
    explanation = explain(ARN, task, None, judged(task), ["step 1", "step 2"])
    assert explanation.message == (
        "The ECS task stopped before the run was finished because a container used "
        "more memory than it may have and was killed; the task has 2048 MiB: give it "
        "more, such as ECSRun(memory='4 GB') (ECS says: EssentialContainerExited: "
        "Essential container in task exited)"
    )
    assert explanation.log.splitlines() == [
        "The ECS task stopped before the run was finished because a container used "
        "more memory than it may have and was killed.",
        "What to do: the task has 2048 MiB: give it more, such as "
        "ECSRun(memory='4 GB').",
        "stopCode: EssentialContainerExited",
        "stoppedReason: Essential container in task exited",
        f"Container 'flow': exit code 137, killed (SIGKILL); {OUT_OF_MEMORY}",
        "Container 'proxy': exit code 0, ended as if all were well",
        f"Task {ARN}: https://eu-west-1.console.aws.amazon.com/ecs/v2/clusters/prod/"
        "tasks/0123abc?region=eu-west-1",
        f"More about this: {GUIDE}out-of-memory.html",
        "The last 2 lines of its log:",
        "    step 1",
        "    step 2",
    ]


def test_words_of_several_lines_take_one() -> None:
    task = ran(3, "It\nended", "", container_reason="so\n it  seems")
    told = explain(ARN, task, None, judged(task))
    assert told.message.endswith(" (ECS says: It ended)")
    assert told.log.splitlines()[2:4] == [
        "stoppedReason: It ended",
        "Container 'flow': exit code 3; so it seems",
    ]


ON_EC2 = {"launchType": "EC2", "cpu": "128"}
HAS, MORE = "the task has", "MiB: give it more, such as"
LEAVE_OUT = (
    "raise its `memory` in the task definition template, or leave it out so that the "
    "task's counts"
)


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
            f"the container 'flow' has 512 MiB: {LEAVE_OUT}",
        ),
        (
            overriding(memory=768),
            defining("flow", memory=512),
            f"the container 'flow' has 768 MiB: {LEAVE_OUT}",
        ),
        (
            overriding(cpu=1),
            defining("flow", memory=512),
            f"the container 'flow' has 512 MiB: {LEAVE_OUT}",
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
    message = explain(ARN, killed, definition, judged(killed)).message
    assert f"; {advice} (ECS says: " in message


@pytest.mark.parametrize(
    "launch, limit, said",
    [
        (Launch(1), 3, ", and is launched again (start 2 of 3); "),
        (Launch(2), 3, ", and is launched again (start 3 of 3); "),
        (Launch(3), 3, ", and neither did the 2 before it; "),
        (Launch(2), 2, ", and neither did the 1 before it; "),
        (Launch(1), 1, "; "),
    ],
)
def test_each_start_of_a_run_says_which_it_was(
    launch: Launch, limit: int, said: str
) -> None:
    judgement = judge(PULL_TIMEOUT, SUBMITTED, launch, limit)
    message = explain(ARN, PULL_TIMEOUT, None, judgement).message
    hint = judgement.hint
    assert message == (
        f"The ECS task never ran because {hint.cause}{said}{hint.remedy} (ECS says: "
        "TaskFailedToStart: CannotPullContainerError: i/o timeout)"
    )


def test_a_relaunched_run_that_ran_counts_no_starts() -> None:
    judgement = judged(ran(1), launch=Launch(2))
    message = explain(ARN, ran(1), None, judgement).message
    assert message.startswith(
        "The ECS task stopped before the run was finished because "
        f"{judgement.hint.cause}; {judgement.hint.remedy} ("
    )


def test_a_task_that_vanished() -> None:
    told = explain(ARN, None, None, judged(None))
    opening = (
        "The ECS task stopped before the run was finished because ECS does not know "
        "the run's task any more"
    )
    remedy = stop_reasons.VANISHED.remedy
    assert told.message == f"{opening}; {remedy}"
    assert told.log.splitlines()[:2] == [f"{opening}.", f"What to do: {remedy}."]


def test_a_long_reason_is_cut_in_the_message_only() -> None:
    reason = f"CannotPullContainerError: {'x' * 2000}"
    task = never_ran(reason)
    explanation = explain(ARN, task, None, judged(task))
    _, _, said = explanation.message.partition(" (ECS says: ")
    assert len(said) == 300 + len("...)")
    assert reason in explanation.log


def test_a_long_line_of_the_containers_log_is_cut() -> None:
    lines = ["x" * 1000, "y" * 1001]
    told = explain(ARN, ran(1), None, judged(ran(1)), lines).log.splitlines()
    assert told[-2:] == [f"    {lines[0]}", f"    {'y' * 1000}..."]


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
    explanation = explain(ARN, task, definition, judged(task), [said])
    text = explanation.message + explanation.log
    assert (said not in text, "***" in text) == (hidden, hidden)


@pytest.mark.parametrize("before", range(265, 305, 3))
def test_guarantee_7_no_part_of_a_secret_where_words_are_cut(before: int) -> None:
    password = "Zq7Wk9Lm2Xc4Vb6Nn8Pp1Rr3Tt5Yy7Uu9"
    container = {"name": "flow", "environment": [{"name": "DBPASS", "value": password}]}
    task = ran(1, stopped_reason="x" * before + password + " " + "y" * 300)
    task["overrides"] = {"containerOverrides": [container]}
    line = "x" * (700 + before) + password + " " + "y" * 300
    explanation = explain(ARN, task, {}, judged(task), [line], ["x-token-of-a-run"])
    for text in (explanation.message, explanation.log):
        slices = (password[i : i + 8] for i in range(len(password) - 7))
        assert [each for each in slices if each in text] == []
    assert "..." in explanation.message
    assert f"    {'x' * (700 + before)}"[:1004] in explanation.log


def test_guarantee_7_what_is_known_of_a_run_is_hidden_in_its_containers_log() -> None:
    known = ["token-of-the-run"]
    told = explain(ARN, ran(1), {}, judged(ran(1)), ["it is token-of-the-run"], known)
    assert "    it is ***" in told.log.splitlines()

"""What is decided about stopped tasks, as tables of ECS's own words and as laws."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Tuple

import pytest
from codes import code_of
from hypothesis import given
from hypothesis import strategies as st
from stopped_tasks import (
    ARN,
    EXITED,
    FAILED_TO_START,
    GUIDE,
    OUT_OF_MEMORY,
    PULL_TIMEOUT,
    never_ran,
    ran,
)

from prefect_ecs_plugin.launch_record import Launch
from prefect_ecs_plugin.monitoring import decision, stop_reasons
from prefect_ecs_plugin.monitoring.decision import (
    GRACE,
    RELAUNCH_BACKOFF,
    Decision,
    Run,
    Verdict,
    decide,
    waits,
)
from prefect_ecs_plugin.monitoring.explanation import explain

CENTER = "https://repost.aws/knowledge-center/"

SUBMITTED, RUNNING = Run("Submitted"), Run("Running")
RELAUNCH, FAIL, LEAVE = Verdict.RELAUNCH, Verdict.FAIL, Verdict.LEAVE
LOOK_AGAIN, CANCEL = Verdict.LOOK_AGAIN, Verdict.CANCEL


# -- Tasks that never ran -----------------------------------------------------------

#: What ECS writes, the code and verdict it must get, and a page about it. The texts
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
        "image-not-found",
        FAIL,
        PULL,
    ),
    (
        "CannotPullContainerError: pull image manifest has been retried 1 time(s): "
        "failed to resolve ref 111122223333.dkr.ecr.us-east-1.amazonaws.com/jobs:v1: "
        "not found",
        "image-not-found",
        FAIL,
        PULL,
    ),
    (
        "CannotPullContainerError: Error response from daemon: manifest for "
        "prefecthq/prefect:9.9.9 not found: manifest unknown: manifest unknown",
        "image-not-found",
        FAIL,
        CENTER + "ecs-pull-container-error",
    ),
    (
        "CannotPullContainerError: API error (500): Get https://111122223333.dkr.ecr."
        "us-east-1.amazonaws.com/v2/: net/http: request canceled while waiting for "
        "connection",
        "network-unreachable",
        RELAUNCH,
        PULL,
    ),
    (
        "CannotPullContainerError: Error response from daemon: Get url: net/http: "
        "request canceled while waiting for connection",
        "network-unreachable",
        RELAUNCH,
        PULL,
    ),
    (
        "CannotPullContainerError: pull image manifest has been retried 5 time(s): "
        'failed to resolve ref docker.io/library/x:latest: failed to do request: Head "'
        'https://registry-1.docker.io/v2/library/x/manifests/latest": dial tcp '
        "44.205.64.79:443: i/o timeout",
        "network-unreachable",
        RELAUNCH,
        "https://github.com/ActionIQ/terraform-aws-retool-ecs-fargate/issues/20",
    ),
    (
        "CannotPullContainerError: The task can’t pull the image. Check that the role "
        "has the permissions to pull images from the registry.",
        "image-denied",
        FAIL,
        PULL,
    ),
    (
        "CannotPullContainerError: The task cannot pull ‘image-name’ from the Amazon "
        "ECR repository ‘repository URI’. There is a connection issue between the task "
        "and Amazon ECR. Check your task network configuration.",
        "network-unreachable",
        RELAUNCH,
        PULL,
    ),
    (
        "CannotPullContainerError: The task can’t pull the image. Check your network "
        "configuration",
        "network-unreachable",
        RELAUNCH,
        PULL,
    ),
    (
        "CannotPullContainerError: pull image manifest has been retried 5 time(s): "
        "failed to resolve ref",
        "image-pull-failed",
        RELAUNCH,
        PULL,
    ),
    (
        "CannotPullContainerError: write /var/lib/docker/tmp/GetImageBlob111111111: no "
        "space left on device",
        "instance-disk-full",
        RELAUNCH,
        PULL,
    ),
    (
        "CannotPullContainerError: ref pull has been retried 1 time(s): failed to "
        "extract layer sha256:c023: write /var/lib/containerd/x: no space left on "
        "device",
        "task-disk-full",
        FAIL,
        CENTER + "ecs-fargate-pull-container-error",
    ),
    (
        "CannotPullContainerError: ERROR: toomanyrequests: Too Many Requests.",
        "pull-rate-limit",
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
        "pull-rate-limit",
        RELAUNCH,
        CENTER + "ecs-pull-container-error-rate-limit",
    ),
    (
        "CannotPullContainerError: ref pull has been retried 1 time(s): failed to "
        "copy: httpReaderSeeker: failed open: unexpected status code",
        "image-pull-failed",
        RELAUNCH,
        PULL,
    ),
    (
        "CannotPullContainerError: Error response from daemon: pull access denied for "
        "flow, repository does not exist or may require 'docker login'",
        "image-denied",
        FAIL,
        PULL,
    ),
    (
        "CannotPullContainerError: pull image manifest has been retried 1 time(s): "
        'failed to resolve ref "123456789012.dkr.ecr.eu-west-3.amazonaws.com/flow:1": '
        "unexpected status code 403 Forbidden",
        "image-denied",
        FAIL,
        CENTER + "ecs-pull-container-error",
    ),
    (
        "CannotPullContainerError: pull command failed: panic: runtime error: invalid "
        "memory address or nil pointer dereference",
        "network-unreachable",
        RELAUNCH,
        PULL,
    ),
    (
        "CannotPullContainerError: error pulling image configuration",
        "image-pull-failed",
        RELAUNCH,
        PULL,
    ),
    (
        "CannotPullContainerError: context canceled",
        "network-unreachable",
        RELAUNCH,
        PULL,
    ),
    (
        "CannotPullContainerError: pull image manifest has been retried 7 time(s): "
        "image Manifest does not contain descriptor matching platform 'linux/amd64'",
        "image-platform",
        FAIL,
        PULL,
    ),
    (
        "CannotPullContainerError: ref pull has been retried 1 time(s): failed to "
        "unpack image on snapshotter overlayfs: failed to extract layer sha256:c023: "
        "failed to get stream processor for application/x",
        "image-layers",
        FAIL,
        PULL,
    ),
    (
        'CannotPullContainerError: Error response from daemon: Get "https://1.dkr.ecr.'
        'us-west-2.amazonaws.commmmm/v2/": dial tcp: lookup 1.dkr.ecr.us-west-2.'
        "amazonaws.commmmm on 10.0.0.2:53: no such host",
        "host-name-unresolved",
        FAIL,
        CENTER + "ecs-pull-container-error",
    ),
    (
        "CannotPullContainerError: Error response from daemon: invalid reference "
        "format",
        "image-name",
        FAIL,
        CENTER + "ecs-pull-container-error",
    ),
    (
        "CannotPullECRContainerError: AccessDeniedException: User: arn:aws:sts::1:"
        "assumed-role/x/y is not authorized to perform: ecr:GetAuthorizationToken on "
        "resource: *",
        "image-denied",
        FAIL,
        AGENT,
    ),
    # ResourceInitializationError
    (
        AUTH + FETCH + "unable to retrieve ecr registry auth: service call has been "
        "retried 3 time(s): RequestError: send request failed caused by: Post "
        '"https://api.ecr.us-east-1.amazonaws.com/": dial tcp 3.4.5.6:443: i/o '
        "timeout. Please check your task network configuration.",
        "network-unreachable",
        RELAUNCH,
        SECRETS,
    ),
    (
        AUTH + "The task cannot pull registry auth from Amazon ECR: There is a "
        "connection issue between the task and Amazon ECR. Check your task network "
        "configuration. RequestError: send request failed caused by: Post "
        '"https://api.ecr.eu-west-2.amazonaws.com/": dial tcp 3.8.169.253:443: i/o '
        "timeout",
        "network-unreachable",
        RELAUNCH,
        INIT,
    ),
    (
        AUTH + "pull command failed: : signal: killed",
        "network-unreachable",
        RELAUNCH,
        SECRETS,
    ),
    (
        AUTH + FETCH + "unable to retrieve ecr registry auth: service call has been "
        "retried 1 time(s): AccessDeniedException: User: arn:aws:sts::1:assumed-role/"
        "ecsTaskExecutionRole/y is not authorized to perform: "
        "ecr:GetAuthorizationToken on resource: * because no identity-based policy "
        "allows the ecr:GetAuthorizationToken action",
        "image-denied",
        FAIL,
        INIT,
    ),
    (
        AUTH + FETCH + "unable to retrieve secret from asm: service call has been "
        "retried 1 time(s): failed to fetch secret arn:aws:secretsmanager:us-east-1:1:"
        "secret:db-LB1bMG from secrets manager: ResourceNotFoundException: Secrets "
        "Manager can't find the specified secret value for staging label: AWSCURRENT",
        "secret-not-found",
        FAIL,
        INIT,
    ),
    (
        AUTH + FETCH + "unable to retrieve secret from asm: service call has been "
        "retried 1 time(s): failed to fetch secret arn:aws:secretsmanager:ap-northeast"
        "-2:1:secret:x-UMl6GF from secrets manager: AccessDeniedException: User: arn:"
        "aws:sts::1:assumed-role/x/y is not authorized to perform: "
        "secretsmanager:GetSecretValue on resource: arn:...",
        "secret-not-readable",
        FAIL,
        SECRETS,
    ),
    (
        AUTH + FETCH + "unable to retrieve secret from asm: service call has been "
        "retried 1 time(s): failed to fetch secret arn:aws:secretsmanager:x from "
        "secrets manager: InvalidParameter: 1 validation error(s) found. – minimum "
        "field size of 32, GetSecretValueInput.VersionId.",
        "secret-not-found",
        FAIL,
        SECRETS,
    ),
    (
        AUTH + FETCH + "unable to retrieve secret from asm: service call has been "
        "retried.",
        "secret-unreachable",
        RELAUNCH,
        SECRETS,
    ),
    (
        AUTH + "unable to retrieve secrets from ssm: The task cannot pull secrets from "
        "AWS Systems Manager. There is a connection issue between the task and AWS "
        "Systems Manager Parameter Store. Check your task network configuration. "
        "RequestCanceled: request context canceled caused by: context deadline "
        "exceeded",
        "network-unreachable",
        RELAUNCH,
        INIT,
    ),
    (
        AUTH + FETCH + "unable to retrieve secrets from ssm: service call has been "
        "retried 1 time(s): invalid parameters: /prod/db",
        "secret-not-found",
        FAIL,
        SECRETS,
    ),
    (
        "ResourceInitializationError: The task can't retrieve the secret with ARN "
        "'sercretARN' from AWS Secrets Manager. Check whether the secret exists in the "
        "specified Region.",
        "secret-not-found",
        FAIL,
        NOT_FOUND,
    ),
    (
        "ResourceInitializationError: failed to validate logger args: create stream "
        "has been retried 1 times: failed to create Cloudwatch log stream: "
        "ResourceNotFoundException: The specified log group does not exist.",
        "log-group-not-found",
        FAIL,
        INIT,
    ),
    (
        "ResourceInitializationError: failed to validate logger args: : "
        "AccessDeniedException: User: arn:aws:sts::1:assumed-role/x/y is not "
        "authorized to perform: logs:CreateLogGroup on resource: arn:aws:logs:x",
        "logs-denied",
        FAIL,
        INIT,
    ),
    (
        "ResourceInitializationError: failed to validate logger args: The task cannot "
        "find the Amazon CloudWatch log group defined in the task definition. There is "
        "a connection issue between the task and Amazon CloudWatch. Check your network "
        "configuration. signal: killed",
        "network-unreachable",
        RELAUNCH,
        INIT,
    ),
    (
        "ResourceInitializationError: failed to validate logger args: unable to get "
        "awslogs driver arguments: awslogs-region is required",
        "log-configuration",
        FAIL,
        INIT,
    ),
    (
        "ResourceInitializationError: failed to initialize logging driver: <reason>",
        "log-configuration",
        FAIL,
        CODES,
    ),
    (
        "ResourceInitializationError: failed to invoke EFS utils commands to set up "
        "EFS volumes: stderr: b'mount.nfs4: access denied by server while mounting "
        "127.0.0.1:/'",
        "file-system",
        FAIL,
        INIT,
    ),
    (
        "ResourceInitializationError: failed to invoke EFS utils commands to set up "
        "EFS volumes: stderr: Mount attempt 1/3 failed due to timeout after 15 sec, "
        "wait 0 sec before next attempt. b'mount.nfs4: mount system call failed'",
        "file-system-unreachable",
        RELAUNCH,
        INIT,
    ),
    (
        "ResourceInitializationError: failed to invoke EFS utils commands to set up "
        'EFS volumes: stderr: Failed to resolve "fs-1.efs.us-east-1.amazonaws.com"',
        "host-name-unresolved",
        FAIL,
        INIT,
    ),
    (
        "ResourceInitializationError: failed to download env files: file download "
        "command: non empty error stream: service call has been retried 5 time(s)",
        "environment-file",
        FAIL,
        GUIDE + "use-environment-file.html",
    ),
    (
        "ResourceInitializationError: failed to configure ENI: failed to setup regular "
        "eni: netplugin failed with no error message",
        "network-interface",
        RELAUNCH,
        START,
    ),
    # Network interfaces and other provisioning
    (
        "Timeout waiting for network interface provisioning to complete.",
        "network-interface",
        RELAUNCH,
        START,
    ),
    (
        "Network interface provision complete error timeout wait for network interface "
        "provision.",
        "network-interface",
        RELAUNCH,
        START,
    ),
    (
        "Rate limit exceeded while preparing network interface to be attached to "
        "instance",
        "start-throttled",
        RELAUNCH,
        START,
    ),
    (
        "Timeout waiting for EphemeralStorage provisioning to complete.",
        "volume-provisioning",
        RELAUNCH,
        START,
    ),
    (
        "Unexpected EC2 error while attempting to Create Network Interface with public "
        "IP assignment enabled in subnet 'subnet-id'",
        "subnet-full",
        RELAUNCH,
        START,
    ),
    (
        "Unexpected EC2 error while attempting to Create Network Interface in subnet "
        "'': InsufficientFreeAddressesInSubnet",
        "subnet-full",
        RELAUNCH,
        START,
    ),
    (
        "Unexpected EC2 error while attempting to tag the network interface: "
        "TagPolicyViolation",
        "network-interface-denied",
        FAIL,
        START,
    ),
    (
        "Unable to attach network interface to unused device index",
        "network-interface",
        RELAUNCH,
        START,
    ),
    ("InternalError: <reason>", "container-runtime", RELAUNCH, START),
    # Capacity and placement
    ("RESOURCE:MEMORY", "no-capacity", RELAUNCH, PLACE),
    ("TaskFailedToStart: RESOURCE:CPU", "no-capacity", RELAUNCH, PLACE),
    ("TaskFailedToStart: AGENT", "no-capacity", RELAUNCH, PLACE),
    ("TaskFailedToStart: EMPTY CAPACITY PROVIDER", "no-capacity", RELAUNCH, PLACE),
    ("TaskFailedToStart: NO ACTIVE INSTANCES", "no-capacity", RELAUNCH, PLACE),
    (
        "Capacity is unavailable at this time. Please try again later or in a "
        "different availability zone",
        "no-capacity",
        RELAUNCH,
        GUIDE + "service-event-messages-list.html",
    ),
    (
        "You’ve reached the limit on the number of vCPUs you can run concurrently",
        "no-capacity",
        RELAUNCH,
        GUIDE + "service-event-messages-list.html",
    ),
    (
        "The requested MEMORY configuration is above your limit.",
        "account-quota",
        FAIL,
        GUIDE + "service-event-messages-list.html",
    ),
    (
        "TaskFailedToStart: MemberOf placement constraint unsatisfied.",
        "no-suitable-instance",
        FAIL,
        PLACE,
    ),
    ("TaskFailedToStart: ATTRIBUTE", "no-suitable-instance", FAIL, PLACE),
    (
        "The selected task definition is not compatible with the selected compute "
        "strategy",
        "no-suitable-instance",
        FAIL,
        START,
    ),
    (
        "ECS was unable to assume the role 'arn:aws:iam::1:role/ecsTaskExecutionRole' "
        "that was provided for this task. Please verify that the role being passed has "
        "the proper trust relationship and permissions and that your IAM user has "
        "permissions to pass this role.",
        "role-not-assumable",
        FAIL,
        GUIDE + "task_execution_IAM_role.html",
    ),
    # Starting the container
    (
        "CannotStartContainerError: failed to get container status: <reason>",
        "container-runtime",
        RELAUNCH,
        CODES,
    ),
    (
        "CannotStartContainerError: Error response from daemon: failed to initialize "
        "logging driver: failed to create Cloudwatch log stream: "
        "ResourceNotFoundException: The specified log group does not exist.",
        "log-group-not-found",
        FAIL,
        GUIDE + "cannot-start-container.html",
    ),
    (
        "CannotStartContainerError: Error response from daemon: failed to create shim "
        "task: OCI runtime create failed: runc create failed: unable to start "
        'container process: exec: "prefect": executable file not found in $PATH: '
        "unknown",
        "command-not-started",
        FAIL,
        GUIDE + "cannot-start-container.html",
    ),
    (
        "CannotStartContainerError: Error response from daemon: error gathering device "
        'information while adding custom device "/dev/dri/renderD130": no such file or '
        "directory",
        "missing-device",
        FAIL,
        GUIDE + "ecs-vt1.html",
    ),
    (
        "ContainerRuntimeTimeoutError: Could not transition to running; timed out "
        "after waiting 1m: <reason>",
        "container-runtime",
        RELAUNCH,
        CODES,
    ),
    (
        "DockerTimeoutError: Could not transition to created; timed out after waiting "
        "4m0s",
        "container-runtime",
        RELAUNCH,
        AGENT,
    ),
    ("CannotInspectContainerError: <reason>", "container-runtime", RELAUNCH, CODES),
    ("ContainerRuntimeError: <reason>", "container-runtime", RELAUNCH, CODES),
    (
        "CannotCreateContainerError: API error (500): devmapper: Thin Pool has 4350 "
        "free data blocks which is less than minimum required 4454 free data blocks.",
        "instance-disk-full",
        RELAUNCH,
        GUIDE + "CannotCreateContainerError.html",
    ),
    ("CannotCreateVolumeError: <reason>", "volume-not-created", FAIL, CODES),
    (
        "TaskStoppedBeforePullBeginError: Task stopped before image pull could begin "
        "for task: arn",
        "container-runtime",
        RELAUNCH,
        AGENT,
    ),
    ("Task failed to start", "unknown-stop-reason", RELAUNCH, CODES),
]


def test_the_table_has_enough_distinct_reasons() -> None:
    reasons = {reason for reason, *_ in NEVER_RAN}
    assert len(reasons) == len(NEVER_RAN) >= 40


@pytest.mark.parametrize(
    "reason, code, verdict", [row[:3] for row in NEVER_RAN], ids=lambda value: None
)
def test_a_task_that_never_ran(reason: str, code: str, verdict: Verdict) -> None:
    decided = decide(never_ran(reason), SUBMITTED)
    assert (decided.stop_reason.code, decided.verdict) == (code, verdict)
    assert not decided.started


@pytest.mark.parametrize(
    "reason, code, verdict", [row[:3] for row in NEVER_RAN], ids=lambda value: None
)
def test_the_reason_may_stand_at_the_container(
    reason: str, code: str, verdict: Verdict
) -> None:
    task = never_ran("Task failed to start", container_reason=reason)
    decided = decide(task, SUBMITTED)
    assert (decided.stop_reason.code, decided.verdict) == (code, verdict)


@pytest.mark.parametrize(
    "stop_code, reason, code, verdict",
    [
        (
            "SpotInterruption",
            "Your Spot Task was interrupted.",
            "spot-interruption",
            RELAUNCH,
        ),
        (
            "TerminationNotice",
            "Your Spot Task was interrupted.",
            "spot-notice",
            RELAUNCH,
        ),
        (
            "TerminationNotice",
            "Host EC2 (instance i-1234567890abcdef) terminated.",
            "host-gone",
            RELAUNCH,
        ),
        (
            "ServiceSchedulerInitiated",
            "ECS is performing maintenance on the underlying infrastructure hosting "
            "the task",
            "host-maintenance",
            RELAUNCH,
        ),
        (
            "UserInitiated",
            "Container instance deregistration forced by user",
            "host-gone",
            RELAUNCH,
        ),
        ("InfrastructureHealth", "", "infrastructure-failure", RELAUNCH),
        ("TerminationNotice", "", "infrastructure-failure", RELAUNCH),
        (
            "ServiceSchedulerInitiated",
            "Scaling activity initiated by (deployment ecs-svc/1)",
            "stopped-by-service",
            FAIL,
        ),
        ("UserInitiated", "Task stopped by user", "stopped-by-user", FAIL),
        (
            "UserInitiated",
            "timeout waiting for a network interface",
            "stopped-by-user",
            FAIL,
        ),
        (EXITED, "Essential container in task exited", "container-ended", FAIL),
        ("", "", "unknown-stop-reason", RELAUNCH),
    ],
)
def test_stop_codes_of_tasks_that_never_ran(
    stop_code: str, reason: str, code: str, verdict: Verdict
) -> None:
    decided = decide(never_ran(reason, stop_code), SUBMITTED)
    assert (decided.stop_reason.code, decided.verdict) == (code, verdict)


# -- Tasks that ran -------------------------------------------------------------------


@pytest.mark.parametrize(
    "task, code",
    [
        (ran(0), "end-not-reported"),
        (ran(1), "flow-exited"),
        (ran(2), "flow-exited"),
        (ran(127), "command-not-found"),
        (ran(126), "command-not-found"),
        (ran(137), "flow-killed"),
        (ran(139), "flow-crashed"),
        (ran(143), "flow-terminated"),
        (ran(None), "container-ended"),
        (ran(137, "Task stopped by user", "UserInitiated"), "stopped-by-user"),
        (ran(137, "Task failed container health checks", ""), "health-check-failed"),
    ],
)
@pytest.mark.parametrize("state", ["Submitted", "Running"])
def test_guarantee_2_a_task_that_ran_is_failed_after_a_second_look(
    task: Dict[str, Any], code: str, state: str
) -> None:
    """Its exit code does not matter, and it is never launched again."""
    first = decide(task, Run(state))
    second = decide(task, Run(state), confirmed=True)
    assert (first.verdict, second.verdict) == (LOOK_AGAIN, FAIL)
    assert second.stop_reason.code == code
    assert second.started


INTERRUPTED = ran(143, "Your Spot Task was interrupted.", "SpotInterruption")


@pytest.mark.parametrize(
    "task, code",
    [
        (INTERRUPTED, "spot-interruption"),
        (
            ran(143, "Your Spot Task was interrupted.", "TerminationNotice"),
            "spot-notice",
        ),
        (ran(None, "Host EC2 (instance i-0abc) terminated.", ""), "host-gone"),
        (
            ran(137, "Container instance i-0abc is draining", "UserInitiated"),
            "host-gone",
        ),
        (
            ran(
                143,
                "ECS is performing maintenance on the underlying infrastructure "
                "hosting the task",
                "ServiceSchedulerInitiated",
            ),
            "host-maintenance",
        ),
        (ran(143, "", "InfrastructureHealth"), "infrastructure-failure"),
        (ran(0, "", "TerminationNotice"), "infrastructure-failure"),
        # If it may have more memory.
        (ran(137, container_reason=OUT_OF_MEMORY), "out-of-memory"),
        (ran(1, "OutOfMemory: container killed due to memory usage"), "out-of-memory"),
    ],
)
@pytest.mark.parametrize(
    "run",
    [SUBMITTED, RUNNING, Run("Running", waits=True), Run("Running", is_claimed=True)],
)
def test_a_run_that_was_interrupted_may_go_on_after_a_second_look(
    task: Dict[str, Any], code: str, run: Run
) -> None:
    first, second = decide(task, run), decide(task, run, confirmed=True)
    assert (first.verdict, second.verdict) == (LOOK_AGAIN, Verdict.RESUME)
    assert second.stop_reason.code == code


def test_only_what_passes_and_is_outside_the_flow_interrupts_a_run() -> None:
    interrupting = {row.code for row in stop_reasons.STOP_REASONS if row.interrupted}
    assert interrupting == {
        *("host-gone", "spot-interruption", "spot-notice", "host-maintenance"),
        "infrastructure-failure",
    }


def test_a_run_that_was_interrupted_while_it_was_cancelled_is_cancelled() -> None:
    assert decide(INTERRUPTED, Run("Cancelling"), confirmed=True).verdict is CANCEL


def test_the_reasons_of_a_task() -> None:
    containers: List[Dict[str, Any]] = [
        {"name": "proxy", "reason": "first", "exitCode": 1},
        {"name": "flow", "reason": None, "exitCode": 0},
        {"name": "other", "reason": "second"},
    ]
    task = {"stoppedReason": "all of it", "containers": containers}
    assert decision.reasons(task) == ["all of it", "first", "second"]
    assert decision.reasons({"containers": containers}) == ["first", "second"]
    assert decision.reasons({"containers": None}) == []


def test_reasons_of_two_places_are_not_read_as_one() -> None:
    assert stop_reasons.find("OutOfMemoryError").code == "out-of-memory"
    task = ran(1, stopped_reason="OutOf", container_reason="MemoryError")
    assert decision.stop_reason(task).code == "flow-exited"


# -- What the API says -----------------------------------------------------------------

NO_IMAGE = never_ran("CannotPullContainerError: x: not found")


@pytest.mark.parametrize(
    "state",
    [
        *("Success", "Failed", "Cancelled", "TimedOut", "Skipped", "Cached", "Mapped"),
        *("Scheduled", "Queued", "Paused", "Pending", "Resume", "Unknown"),
    ],
)
@pytest.mark.parametrize("task", [PULL_TIMEOUT, NO_IMAGE, ran(0), ran(137), None])
def test_a_run_that_needs_no_task_is_left_alone(task: Any, state: str) -> None:
    assert decide(task, Run(state), confirmed=True).verdict is LEAVE


@pytest.mark.parametrize("task", [PULL_TIMEOUT, NO_IMAGE, ran(1), None])
@pytest.mark.parametrize("state", ["Submitted", "Running", "Cancelling"])
def test_a_run_that_was_launched_again_is_left_alone(task: Any, state: str) -> None:
    assert decide(task, Run(state, taken_over=True), confirmed=True).verdict is LEAVE


@pytest.mark.parametrize("state", ["Submitted", "Running", "Cancelling"])
def test_a_run_whose_task_was_stopped_to_cancel_it_ends_cancelled(state: str) -> None:
    """The flow may have made it Running just when it was cancelled."""
    task = {**ran(143), "stoppedReason": "The flow run was cancelled"}
    assert decide(task, Run(state), confirmed=True).verdict is CANCEL


def test_a_run_whose_claimed_task_runs_have_no_task_is_not_left_to_prefect() -> None:
    """Prefect shows the run again for the task run that waits, not for those."""
    waits_too = Run("Running", waits=True, is_claimed=True)
    assert decide(ran(1), waits_too, confirmed=True).verdict is FAIL
    resumed = Launch(resumed=True)
    assert decide(PULL_TIMEOUT, waits_too, resumed).verdict is RELAUNCH


def test_a_run_whose_task_waits_for_its_retry_is_left_alone() -> None:
    assert decide(ran(0), Run("Running", waits=True), confirmed=True).verdict is LEAVE


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
def test_runs_that_prefect_will_queue_again(states: List[str], expected: bool) -> None:
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
    assert decide(task, run, launch, 3, confirmed).verdict is verdict


WAITING = Run("Running", waits=True)
CANCELLING, TAKEN_OVER = Run("Cancelling"), Run("Running", taken_over=True)
CLAIMED = Run("Running", waits=True, is_claimed=True)
STOPPED_BY_AGENT = ran(143, "The flow run was cancelled", "UserInitiated")
RESUMED = Launch(resumed=True)


@pytest.mark.parametrize(
    "task, run, launch, verdict, fact",
    [
        (NO_IMAGE, Run(None), Launch(), LOOK_AGAIN, "not known"),
        (ran(0), Run("Success"), Launch(), LEAVE, "Success"),
        (ran(1), TAKEN_OVER, Launch(), LEAVE, "launched again"),
        (ran(0), WAITING, Launch(), LEAVE, "queue"),
        (
            {**ran(1), "lastStatus": "DEPROVISIONING"},
            RUNNING,
            Launch(),
            LOOK_AGAIN,
            "DEPROVISIONING",
        ),
        (STOPPED_BY_AGENT, RUNNING, Launch(), CANCEL, "cancel"),
        # The flow never ran.
        (PULL_TIMEOUT, RUNNING, Launch(), LEAVE, "Running"),
        (NO_IMAGE, CANCELLING, RESUMED, CANCEL, "Cancelling"),
        (NO_IMAGE, SUBMITTED, Launch(), FAIL, "start again"),
        (PULL_TIMEOUT, SUBMITTED, Launch(3), FAIL, "3 of 3"),
        (PULL_TIMEOUT, SUBMITTED, Launch(), RELAUNCH, "1 of 3"),
        # It may have run; only a run that is Running waits for a retry.
        (ran(143), CANCELLING, Launch(), CANCEL, "Cancelling"),
        (ran(1), Run("Submitted", waits=True), Launch(), FAIL, "Submitted"),
        (ran(1), CLAIMED, Launch(), FAIL, "Running"),
        (None, RUNNING, Launch(), FAIL, "Running"),
    ],
)
def test_the_reason_for_a_verdict(
    task: Any, run: Run, launch: Launch, verdict: Verdict, fact: str
) -> None:
    """A first look ends no run whose flow may have run: its last update may come."""
    started = task is None or "startedAt" in task
    decided = decide(task, run, launch, confirmed=True)
    row = stop_reasons.VANISHED if task is None else decided.stop_reason
    assert fact in decided.why
    why = decided.why
    assert decided == Decision(verdict, why, row, started, launch.attempt, 3)
    first = decide(task, run, launch)
    if started and verdict in (FAIL, CANCEL):
        assert first.why.startswith(why)
        verdict, why = LOOK_AGAIN, first.why
    assert first == Decision(verdict, why, row, started, launch.attempt, 3)


def test_a_launch_is_the_first_of_a_run_that_waited_by_default() -> None:
    assert Launch() == Launch(attempt=1, resumed=False, name="")
    run = Run("Submitted", waits=False, taken_over=False, is_claimed=False)
    assert Run("Submitted") == run
    decided = Decision(LEAVE, "", stop_reasons.VANISHED)
    assert (decided.started, decided.attempt, decided.limit) == (True, 1, 3)


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
    assert decide(task, SUBMITTED).verdict is LOOK_AGAIN
    assert decide(task, SUBMITTED, confirmed=True).verdict is FAIL


def test_a_sidecar_that_ran_does_not_count() -> None:
    task = never_ran(TRANSIENT)
    task["containers"].insert(0, {"name": "proxy", "exitCode": 137, "runtimeId": "x"})
    assert decide(task, SUBMITTED).verdict is RELAUNCH


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
    decided = decide(task, run, launch, 3, confirmed)
    if decided.verdict is RELAUNCH:
        flow = [c for c in task.get("containers", ()) if c["name"] == "flow"]
        assert "startedAt" not in task
        assert not any("exitCode" in container for container in flow[:1])
        assert launch.attempt < 3
        assert run.state == "Submitted" or launch.resumed
    if decided.verdict is FAIL:
        assert run.state in ("Submitted", "Running")
    if decided.verdict is LOOK_AGAIN and confirmed:
        assert run.state is None or task["lastStatus"] != "STOPPED"
    explanation = explain(ARN, task, None, decided)
    assert "\n" not in explanation.message
    assert decided.stop_reason.cause in explanation.log


# -- The table of stop reasons --------------------------------------------------------

ALL = [*stop_reasons.STOP_REASONS, stop_reasons.VANISHED]


@pytest.mark.parametrize("row", ALL, ids=lambda row: row.code)
def test_every_stop_reason_helps_a_reader(row: stop_reasons.StopReason) -> None:
    assert row.cause
    assert row.remedy
    assert not row.cause.endswith(".")
    assert not row.remedy.endswith(".")
    assert row.source.startswith("https://")


def test_codes_of_stop_reasons_are_unique_and_short() -> None:
    codes = [row.code for row in ALL]
    assert len(set(codes)) == len(codes)
    assert [code_of(f"x [{code}]") for code in codes] == codes
    assert max(map(len, codes)) <= 32


def test_every_stop_reason_is_reached_by_a_test() -> None:
    tested = {row[1] for row in NEVER_RAN}
    by_example = {
        stop_reasons.find(example).code
        for row in stop_reasons.STOP_REASONS
        for example in row.examples.splitlines()
    }
    by_exit_code = {stop_reasons.find("", EXITED, code).code for code in range(256)}
    by_stop_code = {
        stop_reasons.find("", code).code
        for code in (
            *("SpotInterruption", "TerminationNotice", "UserInitiated"),
            *("ServiceSchedulerInitiated", EXITED),
        )
    }
    reached = tested | by_example | by_exit_code | by_stop_code
    assert {row.code for row in stop_reasons.STOP_REASONS} == reached


@pytest.mark.parametrize(
    "row",
    [row for row in stop_reasons.STOP_REASONS if row.text and row.examples],
    ids=lambda row: row.code,
)
def test_an_example_leads_to_its_own_row(row: stop_reasons.StopReason) -> None:
    for example in row.examples.splitlines():
        assert stop_reasons.find(example) is row


@given(st.text(), st.text(max_size=20), st.none() | st.integers())
def test_any_text_finds_a_row(text: str, code: str, exit_code: Optional[int]) -> None:
    assert stop_reasons.find(text, code, exit_code).remedy

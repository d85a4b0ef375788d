"""Why tasks stop, as a table: what ECS says, what it means, what to do about it. Pure.

`find` returns the first `StopReason` that matches what ECS says about a task. Each row
names the public page behind it; docs/troubleshooting.md is generated from the table.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import FrozenSet, Mapping, Optional, Tuple

_GUIDE = "https://docs.aws.amazon.com/AmazonECS/latest/developerguide/"
_CENTER = "https://repost.aws/knowledge-center/"

_PULL = _GUIDE + "task_cannot_pull_image.html"
_INIT = _GUIDE + "resource-initialization-error.html"
_START = _GUIDE + "failed-to-start-error.html"
_VERIFY = _GUIDE + "verify-connectivity.html"
_ERRORS = _GUIDE + "stopped-task-errors.html"
_FAILURES = _GUIDE + "api_failures_messages.html"
_STOPPED = _CENTER + "ecs-task-stopped"
_PULL_SECRETS = _CENTER + "ecs-unable-to-pull-secrets"

#: About a secret. "secrets or registry auth" opens sentences about either of the two.
_SECRET = r"(secret(?!s or registry auth)|\bssm\b|\basm\b|parameter)"


@dataclass(frozen=True)
class StopReason:
    """A reason for which tasks stop.

    Attributes:
        code: Ends the messages about such a task; an anchor in the docs.
        cause: What happened, in words that fit after "because".
        remedy: What a person can do about it, as an imperative.
        source: The page behind the row.
        transient: Whether the same task may start if it is launched again. Counts
            only for tasks that never ran.
        examples: What ECS writes in such a case, one example a line; for readers who
            search for it.
        text: A regular expression, found in the stoppedReason or a container's reason
            in any case.
        stop_code: A regular expression that matches the whole stopCode.
        exit_codes: Possible exit codes of the flow's container; empty for any.
    """

    code: str
    cause: str
    remedy: str
    source: str
    transient: bool = False
    interrupted: bool = False
    examples: str = ""
    text: str = ""
    stop_code: str = ".*"
    exit_codes: FrozenSet[Optional[int]] = frozenset()

    @property
    def is_about_spot(self) -> bool:
        """Whether AWS had no Spot capacity, or took it back."""
        return self.code in ("spot-interruption", "spot-notice")

    def matches(self, text: str, stop_code: str, exit_code: Optional[int]) -> bool:
        """Whether this row explains a task."""
        return (
            (not self.exit_codes or exit_code in self.exit_codes)
            and re.fullmatch(self.stop_code, stop_code) is not None
            and re.search(self.text, text, re.IGNORECASE | re.DOTALL) is not None
        )


#: Of a task that an agent stopped because it ran for too long.
MAX_RUNTIME = StopReason(
    "max-runtime",
    cause="it ran for longer than it may",
    remedy="make the flow faster, or set PREFECT_ECS_MAX_RUNTIME in the run's env to "
    "more seconds, or to 0 for no limit",
    source="https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_StopTask.html",
    examples="Ran for longer than 3600 s (PREFECT_ECS_MAX_RUNTIME or --max-runtime)",
    text=r"ran for longer than \S+ s \(PREFECT_ECS_MAX_RUNTIME",
)

_STOPPED_BY_AGENT: Tuple[StopReason, ...] = (
    MAX_RUNTIME,
    StopReason(
        "stuck-provisioning",
        cause="it was still PROVISIONING at the agent's --start-deadline",
        remedy="on EC2, check that instances join the cluster; on Fargate, check the "
        "quota of network interfaces and the AWS Health Dashboard",
        source=_GUIDE + "task-lifecycle-explanation.html",
        transient=True,
        examples="Not RUNNING 1800 s after its creation (--start-deadline): it is "
        "PROVISIONING, and no image pull has begun",
        text=r"\(--start-deadline\): it is PROVISIONING",
    ),
    StopReason(
        "stuck-pending",
        cause="its image pull had not begun by the agent's --start-deadline",
        remedy="on EC2, check that the ECS agent of the instance is connected; check "
        "that the subnet reaches the services that the task needs to start",
        source=_VERIFY,
        transient=True,
        examples="Not RUNNING 1800 s after its creation (--start-deadline): it is "
        "PENDING, and no image pull has begun",
        text=r"\(--start-deadline\): it is \w+, and no image pull has begun",
    ),
    StopReason(
        "stuck-pulling",
        cause="its image pull had not ended by the agent's --start-deadline",
        remedy="check that the registry answers quickly, or keep the image in ECR in "
        "the task's region; make the image smaller, or raise --start-deadline",
        source=_PULL,
        transient=True,
        examples="Not RUNNING 1800 s after its creation (--start-deadline): it is "
        "PENDING, and its image pull has not ended",
        text=r"\(--start-deadline\): it is \w+, and its image pull has not ended",
    ),
    StopReason(
        "stuck-starting",
        cause="its containers had not started by the agent's --start-deadline, "
        "although the image was pulled",
        remedy="check the task's volumes, its log driver, and containers that others "
        "wait for (dependsOn)",
        source=_START,
        transient=True,
        examples="Not RUNNING 1800 s after its creation (--start-deadline): it is "
        "PENDING, and its image has been pulled",
        text=r"\(--start-deadline\): it is \w+, and its image has been pulled",
    ),
)

_STOPPED_FROM_OUTSIDE: Tuple[StopReason, ...] = (
    StopReason(
        "host-gone",
        cause="the EC2 instance under the task was terminated or deregistered",
        remedy="start the run again; protect instances that run flows from scale-in, "
        "or drain them and wait for their tasks",
        source=_ERRORS,
        transient=True,
        interrupted=True,
        examples="Host EC2 (instance i-0282b396e52b4c95d) terminated.",
        text=r"host ec2 \(instance|container instance deregistration forced"
        r"|container instance .{0,80}(draining|deregistered|terminated)",
    ),
    StopReason(
        "spot-interruption",
        cause="AWS has no Spot capacity for the task, or reclaimed it",
        remedy="start the run again; use FARGATE instead of FARGATE_SPOT for runs that "
        "must not be interrupted, and subnets in several zones",
        source=_GUIDE + "spot-interruption-errors.html",
        transient=True,
        interrupted=True,
        examples="Your Spot Task was interrupted.",
        stop_code="SpotInterruption",
    ),
    StopReason(
        "spot-notice",
        cause="AWS reclaimed the task's Spot capacity",
        remedy="start the run again; use FARGATE instead of FARGATE_SPOT for runs that "
        "must not be interrupted",
        source=_GUIDE + "fargate-capacity-providers.html",
        transient=True,
        interrupted=True,
        examples="Your Spot Task was interrupted.",
        text=r"spot (task|instance) was interrupted",
    ),
    StopReason(
        "host-maintenance",
        cause="AWS retired the infrastructure under the task for maintenance",
        remedy="start the run again; the account setting "
        "fargateTaskRetirementWaitPeriod sets how long AWS waits before it does that",
        source=_GUIDE + "task-maintenance.html",
        transient=True,
        interrupted=True,
        examples="ECS is performing maintenance on the underlying infrastructure "
        "hosting the task",
        text=r"performing maintenance on the underlying infrastructure",
    ),
    StopReason(
        "infrastructure-failure",
        cause="the infrastructure under the task failed or was shut down",
        remedy="start the run again; if it happens often, ask AWS Support",
        source="https://docs.aws.amazon.com/AmazonECS/latest/APIReference/"
        "API_Task.html",
        transient=True,
        interrupted=True,
        stop_code="TerminationNotice|InfrastructureHealth",
    ),
    StopReason(
        "health-check-failed",
        cause="the task failed a health check",
        remedy="remove the health check, which a flow does not need, or give it a "
        "longer startPeriod and more retries",
        source=_STOPPED,
        examples="Task failed container health checks",
        text=r"failed (container|elb) health checks",
    ),
    StopReason(
        "stopped-by-service",
        cause="the scheduler of an ECS service stopped the task",
        remedy="do not run flows as tasks of a service; the task's group and the "
        "service's events show which service it was",
        source=_ERRORS,
        examples="Scaling activity initiated by (deployment ecs-svc/1)",
        stop_code="ServiceSchedulerInitiated",
    ),
    StopReason(
        "stopped-by-user",
        cause="a user or program stopped the task",
        remedy="start the run again if that was a mistake; the StopTask events in AWS "
        "CloudTrail show who stopped it",
        source=_STOPPED,
        examples="Task stopped by user",
        stop_code="UserInitiated",
    ),
)

_NETWORK: Tuple[StopReason, ...] = (
    StopReason(
        "pull-rate-limit",
        cause="the image's registry limits how often images are pulled",
        remedy="copy the image into Amazon ECR (a pull-through cache does that "
        "automatically), or set repositoryCredentials on the container",
        source=_CENTER + "ecs-pull-container-error-rate-limit",
        transient=True,
        examples="toomanyrequests: You have reached your pull rate limit. You may "
        "increase the limit by authenticating and upgrading",
        text=r"toomanyrequests|too many requests|pull rate limit",
    ),
    StopReason(
        "start-throttled",
        cause="an AWS service that the task needs to start throttled its requests",
        remedy="start the run again, and fewer runs at once (--launches-per-second)",
        source=_INIT,
        transient=True,
        examples="ThrottlingException: Rate exceeded",
        text=r"throttling(exception)?\b|rate (limit )?exceeded|requestlimitexceeded",
    ),
    StopReason(
        "host-name-unresolved",
        cause="a host name that the task needs could not be resolved",
        remedy="check the image's registry or the file system's id, and that DNS "
        "resolution and DNS hostnames are enabled in the VPC",
        source=_VERIFY,
        examples="dial tcp: lookup 111122223333.dkr.ecr.us-west-2.amazonaws.commm on "
        "10.0.0.2:53: no such host",
        text=r"no such host|failed to resolve \"fs-",
    ),
    StopReason(
        "file-system-unreachable",
        cause="the task could not reach its EFS file system",
        remedy="check that the file system has a mount target in the task's zone, and "
        "that its security group allows the task on port 2049",
        source=_INIT,
        transient=True,
        examples="ResourceInitializationError: failed to invoke EFS utils commands to "
        "set up EFS volumes: stderr: Mount attempt 1/3 failed due to timeout after 15 "
        "sec",
        text=r"efs utils.*(time(d )?out|connection reset|mount system call failed)",
    ),
    StopReason(
        "network-unreachable",
        cause="the task could not reach its image's registry or an AWS service over "
        "the network",
        remedy="check the internet egress of its subnets: a public subnet needs "
        "assignPublicIp ENABLED, a private one a NAT gateway or VPC endpoints (ECR, "
        "S3, CloudWatch Logs, Secrets Manager), and the security group must allow "
        "outbound HTTPS",
        source=_VERIFY,
        transient=True,
        examples="dial tcp 10.0.3.17:443: i/o timeout\n"
        '"There is a connection issue between the task and Amazon ECR. Check your '
        'task network configuration."',
        text=r"i/o timeout|request canceled|context (deadline exceeded|canceled)"
        r"|connection issue between|check your (task )?network (conf|connection)"
        r"|client\.timeout|tls handshake timeout|connection (refused|reset|timed out)"
        r"|unexpected eof|: eof\b|network is unreachable|no route to host"
        r"|request ?error: send request failed|signal: killed"
        r"|panic: runtime error: invalid memory address|server misbehaving"
        r"|temporary failure in name resolution",
    ),
)

_PERMISSIONS: Tuple[StopReason, ...] = (
    StopReason(
        "role-not-assumable",
        cause="ECS could not assume a role of the task",
        remedy="check that the task role and the execution role exist and that their "
        "trust policies name ecs-tasks.amazonaws.com",
        source=_GUIDE + "task_execution_IAM_role.html",
        examples="ECS was unable to assume the role "
        "'arn:aws:iam::111122223333:role/ecsTaskExecutionRole' that was provided for "
        "this task.",
        text=r"unable to assume (the |the configured )?(role|ecs infrastructure role)"
        r"|sts:assumerole",
    ),
    StopReason(
        "logs-denied",
        cause="the execution role may not write to the log group",
        remedy="grant the execution role logs:CreateLogStream and logs:PutLogEvents, "
        "and logs:CreateLogGroup where awslogs-create-group is true",
        source=_GUIDE + "using_awslogs.html",
        examples="failed to create Cloudwatch log group: AccessDeniedException: ... "
        "is not authorized to perform: logs:CreateLogGroup",
        text=r"logs:(create|put|describe)"
        r"|(cloudwatch|logger|logging driver).*(accessdenied|not authorized)",
    ),
    StopReason(
        "log-group-not-found",
        cause="the task's log group does not exist",
        remedy="create it in the region that awslogs-region names, or set "
        "awslogs-create-group to true and grant the execution role "
        "logs:CreateLogGroup",
        source=_INIT,
        examples="failed to create Cloudwatch log stream: ResourceNotFoundException: "
        "The specified log group does not exist.",
        text=r"log group does not exist|cannot find the amazon cloudwatch log group"
        r"|failed to create cloudwatch log",
    ),
    StopReason(
        "log-configuration",
        cause="a container's log configuration does not work",
        remedy="check the options of its logConfiguration; awslogs needs "
        "awslogs-group, awslogs-region and, on Fargate, awslogs-stream-prefix",
        source=_INIT,
        examples="failed to validate logger args: unable to get awslogs driver "
        "arguments: awslogs-region is required",
        text=r"logger args|logging driver|log driver",
    ),
    StopReason(
        "secret-not-found",
        cause="a secret or parameter that a container asks for does not exist",
        remedy="check each valueFrom under secrets: the ARN's name, region, JSON key "
        "and version",
        source=_GUIDE + "resource-not-found-error.html",
        examples="The task can't retrieve the secret with ARN '...' from AWS Secrets "
        "Manager. Check whether the secret exists in the specified Region.",
        text=_SECRET + r".*(resourcenotfound|parameternotfound"
        r"|can.?t find the specified secret|invalid (ssm )?parameters?\b"
        r"|check whether the (secret|parameter) exists|did not contain json key"
        r"|validation error|no value)",
    ),
    StopReason(
        "secret-not-readable",
        cause="the execution role may not read a secret or parameter of the task",
        remedy="grant it secretsmanager:GetSecretValue or ssm:GetParameters on them, "
        "and kms:Decrypt where they have a key of their own",
        source=_PULL_SECRETS,
        examples="failed to fetch secret arn:... from secrets manager: "
        "AccessDeniedException: ... is not authorized to perform: "
        "secretsmanager:GetSecretValue",
        text=r"(secretsmanager|ssm|kms):[a-z]|"
        + _SECRET
        + r".*(accessdenied|not authorized|\bkms\b|invalidciphertext)",
    ),
    StopReason(
        "secret-unreachable",
        cause="a secret or parameter of the task could not be fetched",
        remedy="check the execution role's permissions on it, and that the task's "
        "subnets reach Secrets Manager or Systems Manager",
        source=_PULL_SECRETS,
        transient=True,
        examples="unable to pull secrets or registry auth: execution resource "
        "retrieval failed: unable to retrieve secret from asm: service call has been "
        "retried",
        text=r"(from|registry auth from) (asm|ssm|secrets manager)",
    ),
    StopReason(
        "environment-file",
        cause="an environment file of a container could not be read",
        remedy="check the S3 ARN under environmentFiles, and that the execution role "
        "may s3:GetObject it and s3:GetBucketLocation its bucket",
        source=_GUIDE + "use-environment-file.html",
        examples="failed to download env files: file download command: non empty "
        "error stream",
        text=r"env(ironment)? files?\b",
    ),
    StopReason(
        "file-system",
        cause="the task's EFS file system could not be mounted",
        remedy="check that the root directory or access point is there, and that the "
        "file system's policy and the task role allow the mount",
        source=_INIT,
        examples="failed to invoke EFS utils commands to set up EFS volumes: stderr: "
        "mount.nfs4: access denied by server while mounting 127.0.0.1:/",
        text=r"efs utils|mount\.nfs4",
    ),
)

_IMAGE: Tuple[StopReason, ...] = (
    StopReason(
        "image-platform",
        cause="the image is not built for the platform of the task",
        remedy="build it for linux/amd64 (`docker build --platform linux/amd64`), or "
        "set runtimePlatform in the task definition to the image's architecture",
        source=_STOPPED,
        examples="image Manifest does not contain descriptor matching platform "
        "'linux/amd64'",
        text=r"descriptor matching platform|no matching manifest for"
        r"|exec format error|image operating system .* cannot be used",
    ),
    StopReason(
        "image-name",
        cause="the image's name is invalid",
        remedy="correct `image` in the run config or the template: "
        "registry/repository:tag",
        source=_PULL,
        examples="invalid reference format",
        text=r"invalid reference format|invalid repository name",
    ),
    StopReason(
        "image-denied",
        cause="the task may not pull the image, or it does not exist",
        remedy="check the image's name; for Amazon ECR grant the execution role "
        "ecr:GetAuthorizationToken, ecr:BatchGetImage, ecr:GetDownloadUrlForLayer and "
        "ecr:BatchCheckLayerAvailability (AmazonECSTaskExecutionRolePolicy has them), "
        "for another account's the repository's policy too; for other private "
        "registries give the container repositoryCredentials",
        source=_PULL,
        examples="pull access denied for prefecthq/flow, repository does not exist or "
        "may require 'docker login'",
        text=r"pull access denied|has the permissions to pull|\becr:\w"
        r"|(pull|registry auth|\becr\b).*(accessdenied|not authorized|unauthorized"
        r"|forbidden|\b40[13]\b|no basic auth|insufficient_scope|authorization failed"
        r"|denied:)",
    ),
    StopReason(
        "image-not-found",
        cause="the image is not in its registry",
        remedy="check the repository, tag and region in `image` of the run config or "
        "the template, and that the image has been pushed",
        source=_PULL,
        examples="CannotPullContainerError: pull image manifest has been retried 1 "
        "time(s): failed to resolve ref "
        "111122223333.dkr.ecr.us-east-1.amazonaws.com/flow:v1: not found",
        text=r"pull.*(not found|manifest unknown|name unknown|does not exist"
        r"|\(404\)|\b404\b)",
    ),
    StopReason(
        "instance-disk-full",
        cause="the disk of the EC2 instance is full",
        remedy="give the instances larger volumes, or have unused images cleaned up "
        "sooner (ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION)",
        source=_PULL,
        transient=True,
        examples="write /var/lib/docker/tmp/GetImageBlob111111111: no space left on "
        "device",
        text=r"/var/lib/docker.*no space left|thin pool has",
    ),
    StopReason(
        "task-disk-full",
        cause="the task's disk is too small",
        remedy="set ephemeralStorage in the task definition (up to 200 GiB on "
        "Fargate), or make the image smaller",
        source=_GUIDE + "fargate-task-storage.html",
        examples="failed to extract layer sha256:...: write ...: no space left on "
        "device",
        text=r"no space left on device",
    ),
    StopReason(
        "image-layers",
        cause="the image's layers cannot be unpacked",
        remedy="build and push the image again, with gzip-compressed layers",
        source=_PULL,
        examples="ref pull has been retried 1 time(s): failed to unpack image on "
        "snapshotter overlayfs: failed to extract layer",
        text=r"failed to (unpack image|extract layer|register layer)",
    ),
    StopReason(
        "image-pull-failed",
        cause="the image could not be pulled",
        remedy="check the image's name, the execution role's permissions on its "
        "registry, and that the task's subnets reach it (public IP, NAT gateway or VPC "
        "endpoints)",
        source=_PULL,
        transient=True,
        examples="CannotPullContainerError: ref pull has been retried 1 time(s): "
        "failed to copy: httpReaderSeeker: failed open: unexpected status code",
        text=r"cannotpull(ecr)?container|error pulling image|pull command failed",
    ),
)

_PLACEMENT: Tuple[StopReason, ...] = (
    StopReason(
        "network-interface-denied",
        cause="AWS refused to create the task's network interface",
        remedy="check the account's tag and service control policies on "
        "ec2:CreateNetworkInterface and ec2:CreateTags",
        source=_START,
        examples="Unexpected EC2 error while attempting to tag the network interface: "
        "TagPolicyViolation",
        text=r"network interface.*(tagpolicyviolation|unauthorizedoperation"
        r"|explicit deny|invalidsubnet|invalidgroup)",
    ),
    StopReason(
        "subnet-full",
        cause="the task's subnet has no free IP address",
        remedy="use larger subnets, or more of them",
        source=_START,
        transient=True,
        examples="Unexpected EC2 error while attempting to Create Network Interface "
        "with public IP assignment enabled in subnet 'subnet-id'",
        text=r"insufficientfreeaddresses|insufficient free addresses"
        r"|create network interface",
    ),
    StopReason(
        "network-interface",
        cause="AWS did not provide the task's network interface in time",
        remedy="start the run again; on EC2, check how many network interfaces the "
        "instance type supports",
        source=_START,
        transient=True,
        examples="Timeout waiting for network interface provisioning to complete.",
        text=r"network interface|configure eni|\beni\b|unused device index",
    ),
    StopReason(
        "volume-provisioning",
        cause="AWS did not provide the task's storage in time",
        remedy="start the run again",
        source=_START,
        transient=True,
        examples="Timeout waiting for EphemeralStorage provisioning to complete.",
        text=r"timeout waiting for \w+ provisioning|ebs volume.*(timed? ?out|timeout)",
    ),
    StopReason(
        "account-quota",
        cause="the task asks for more than the account may have",
        remedy="ask for less cpu or memory, or have the account's Fargate quota raised",
        source=_GUIDE + "service-event-messages-list.html",
        examples="The requested MEMORY configuration is above your limit.",
        text=r"configuration is above your limit",
    ),
    StopReason(
        "no-capacity",
        cause="there is no capacity for the task at present",
        remedy="start the run again later; use subnets in several zones, have the "
        "account's quota raised, or give the capacity provider more or larger "
        "instances",
        source=_FAILURES,
        transient=True,
        examples="TaskFailedToStart: RESOURCE:MEMORY\n"
        "TaskFailedToStart: EMPTY CAPACITY PROVIDER\n"
        "Capacity is unavailable at this time. Please try again later or in a "
        "different availability zone",
        text=r"capacity is unavailable|insufficient capacity|resource:[a-z]"
        r"|empty capacity|no active instances|no container instances"
        r"|reached the limit on the number"
        r"|not enough capacity|(^|: )agent\b",
    ),
    StopReason(
        "no-suitable-instance",
        cause="no container instance has what the task needs",
        remedy="compare the placement constraints, the launch type or capacity "
        "provider and the task definition's requiresAttributes with the cluster",
        source=_FAILURES,
        examples="TaskFailedToStart: MemberOf placement constraint unsatisfied.\n"
        "TaskFailedToStart: ATTRIBUTE\n"
        "The selected task definition is not compatible with the selected compute "
        "strategy",
        text=r"placement constraint|(^|: )(attribute|location)\b"
        r"|not compatible with the selected compute strategy",
    ),
)

#: The code of tasks that were killed for memory, as ECS says in a reason.
OUT_OF_MEMORY = "out-of-memory"

_RUNTIME: Tuple[StopReason, ...] = (
    StopReason(
        OUT_OF_MEMORY,
        cause="a container used more memory than it may have and was killed",
        remedy="give it more memory",
        source=_GUIDE + "out-of-memory.html",
        examples="OutOfMemoryError: Container killed due to memory usage",
        text=r"outofmemory|killed due to memory usage|\boom-?kill",
    ),
    StopReason(
        "dependency-failed",
        cause="a container that another one depends on failed",
        remedy="read that container's log, and check dependsOn in the task definition",
        source=_GUIDE + "task_definition_parameters.html",
        examples="dependent container migrate exited with non-zero status",
        text=r"dependent container|dependency|depends on",
    ),
    StopReason(
        "missing-device",
        cause="the task asks for a device that its host does not have",
        remedy="correct linuxParameters or resourceRequirements in the task "
        "definition, or use instances with that device",
        source=_GUIDE + "ecs-gpu.html",
        examples="CannotStartContainerError: Error response from daemon: error "
        "gathering device information while adding custom device "
        '"/dev/dri/renderD130"',
        text=r"device information|nvidia|could not select device driver",
    ),
    StopReason(
        "command-not-started",
        cause="the container's command cannot be started",
        remedy="check entryPoint and command in the template and the run's overrides, "
        "and that `prefect` and a shell are in the image",
        source=_GUIDE + "cannot-start-container.html",
        examples="CannotStartContainerError: Error response from daemon: failed to "
        'create shim task: OCI runtime create failed: exec: "prefect": executable '
        "file not found in $PATH",
        text=r"executable file not found|exec: |no such file or directory"
        r"|cannot ?start.*permission denied",
    ),
    StopReason(
        "volume-not-created",
        cause="a volume of the task could not be created",
        remedy="check volumes and mountPoints in the task definition",
        source=_GUIDE + "cannot-create-volume.html",
        examples="CannotCreateVolumeError",
        text=r"cannotcreatevolume",
    ),
    StopReason(
        "container-runtime",
        cause="the container runtime of the host failed",
        remedy="start the run again; if it happens often, read the ECS agent's log or "
        "ask AWS Support",
        source=_GUIDE + "container-runtime-error.html",
        transient=True,
        examples="ContainerRuntimeTimeoutError: Could not transition to running; "
        "timed out after waiting 1m\n"
        "CannotInspectContainerError\n"
        "InternalError",
        text=r"containerruntime|dockertimeout|could not transition|cannot(start"
        r"|create|inspect|stop)container|internalerror|internal error"
        r"|taskstoppedbeforepull|containervanished|dockerstate",
    ),
    StopReason(
        "resource-initialization",
        cause="AWS could not set up what the task needs",
        remedy="check the task definition's roles, secrets, volumes and log "
        "configuration, and that the VPC has DNS resolution enabled",
        source=_INIT,
        transient=True,
        examples="ResourceInitializationError",
        text=r"resourceinitialization",
    ),
)

_EXITED: Tuple[StopReason, ...] = (
    StopReason(
        "flow-killed",
        cause="the flow's container was killed, probably because it used more memory "
        "than it may have",
        remedy="give it more memory",
        source=_STOPPED,
        examples="Essential container in task exited (exit code 137)",
        exit_codes=frozenset({137}),
    ),
    StopReason(
        "flow-crashed",
        cause="the flow's process crashed in native code",
        remedy="look for a library that does not match the image or its architecture; "
        "PYTHONFAULTHANDLER=1 shows where it crashes",
        source=_STOPPED,
        examples="Essential container in task exited (exit code 139)",
        exit_codes=frozenset({132, 134, 135, 136, 139}),
    ),
    StopReason(
        "flow-terminated",
        cause="the flow's container received a signal to stop",
        remedy="look at the task's other containers: when an essential one ends, ECS "
        "stops all of them",
        source=_STOPPED,
        examples="Essential container in task exited (exit code 143)",
        exit_codes=frozenset({130, 143}),
    ),
    StopReason(
        "command-not-found",
        cause="the container's command cannot be executed in this image",
        remedy="check entryPoint and command in the template and the run's overrides, "
        "and that `prefect` is in the image",
        source=_STOPPED,
        examples="Essential container in task exited (exit code 127)",
        exit_codes=frozenset({125, 126, 127, 128, 255}),
    ),
    StopReason(
        "end-not-reported",
        cause="the flow's process ended with exit code 0 and did not report its end "
        "to Prefect",
        remedy="check that the task can reach Prefect's API: its URL as seen from "
        "inside the task, the API key, the security group",
        source="https://github.com/PrefectHQ/prefect/issues/5561",
        examples="Essential container in task exited (exit code 0)",
        exit_codes=frozenset({0}),
    ),
    StopReason(
        "flow-exited",
        cause="the flow's process ended before the run was finished",
        remedy="read the container's log; check that the image has the flow's storage "
        "and dependencies, and that the task can reach Prefect's API",
        source=_STOPPED,
        examples="Essential container in task exited (exit code 1)",
        exit_codes=frozenset(range(1, 256)),
    ),
    StopReason(
        "container-ended",
        cause="an essential container of the task ended, and with it the whole task",
        remedy="read the logs of its containers",
        source=_STOPPED,
        examples="Essential container in task exited",
        stop_code="EssentialContainerExited",
    ),
)

_UNKNOWN = StopReason(
    "unknown-stop-reason",
    cause="ECS gave a reason that this agent does not know",
    remedy="look at the task in the AWS console",
    source=_GUIDE + "stopped-task-error-codes.html",
    transient=True,
    examples="Task failed to start",
)

#: For tasks that ECS does not know any more.
VANISHED = StopReason(
    "task-vanished",
    cause="ECS does not know the run's task any more",
    remedy="start the run again; ECS forgets a stopped task after about an hour, and "
    "all tasks of a cluster that is deleted",
    source=_ERRORS,
    examples="MISSING",
)

#: The table, under headings for readers. The first row that matches counts.
GROUPS: Mapping[str, Tuple[StopReason, ...]] = {
    "The agent stopped the task": _STOPPED_BY_AGENT,
    "The task was stopped from outside": _STOPPED_FROM_OUTSIDE,
    "The network": _NETWORK,
    "Roles, logs, secrets and files": _PERMISSIONS,
    "The image": _IMAGE,
    "Placement and capacity": _PLACEMENT,
    "A container did not start, or was killed": _RUNTIME,
    "The flow's process ended": _EXITED,
    "Nothing else fits": (_UNKNOWN,),
}

STOP_REASONS = tuple(row for rows in GROUPS.values() for row in rows)


def find(text: str, stop_code: str = "", exit_code: Optional[int] = None) -> StopReason:
    """The row that explains why a task stopped.

    Args:
        text: Its stoppedReason and its containers' reasons.
        stop_code: Its stopCode.
        exit_code: The flow container's exit code, None if it has none.
    """
    rows = (row for row in STOP_REASONS if row.matches(text, stop_code, exit_code))
    return next(rows, _UNKNOWN)


#: What a container's exit code says about its process.
EXIT_CODES: Mapping[int, str] = {
    0: "success",
    1: "an error",
    125: "the container could not run",
    126: "the command cannot be executed",
    127: "the command was not found",
    128: "the command cannot be executed",
    130: "interrupted (SIGINT)",
    132: "crashed (SIGILL)",
    134: "aborted (SIGABRT)",
    135: "crashed (SIGBUS)",
    136: "crashed (SIGFPE)",
    137: "killed (SIGKILL)",
    139: "crashed (SIGSEGV)",
    143: "terminated (SIGTERM)",
    255: "the command failed to start, or an error",
}

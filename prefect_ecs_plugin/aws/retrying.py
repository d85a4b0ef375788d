"""Decides what an answer of AWS means: ask again, wait, reuse a task or give up.

Pure. An `Answer` is an error response, an exception or a list of failures in one form;
`classify` finds its row in `TABLE`; the row's `Verdict` says what the launch does next;
`AWSCallError` has all of that; a `RetryBudget` limits how long one launch is retried.
"""

from __future__ import annotations

import enum
import itertools
import random
import re
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Callable, Iterable, Mapping, Optional, Tuple

from ..errors import LaunchError
from ..scheduling.backoff import Backoff
from ..scheduling.steps import Cause, Pause, Result, Steps


class Verdict(enum.Enum):
    """What an answer means for the launch that got it."""

    THROTTLED = "ask again, and slower: AWS did nothing"
    RETRY = "ask again: the answer was lost, and AWS may have done it"
    RECHECK = "check whether the definition exists now, then ask again"
    WAIT = "ask again later: there is no capacity for the task at present"
    REREGISTER = "the definition does not exist: register it again"
    REUSE_TASK = "an earlier request started the task: use that one"
    FINAL = "asking again would not help"


@dataclass(frozen=True)
class Answer:
    """An error, or a RunTask that started nothing, in one form.

    Attributes:
        code: AWS's error code, botocore's exception name, or `failures` for a
            RunTask that answered 200 with failures and no task.
        message: What it says; for failures, their reasons and details.
        status: The HTTP status, None where no answer came.
        resource_ids: For ConflictException, the tasks that the token started.
    """

    code: str
    message: str = ""
    status: Optional[int] = None
    resource_ids: Tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.code}: {self.message}" if self.message else self.code

    @classmethod
    def from_response(cls, response: Mapping[str, Any], code: str = "") -> Answer:
        """A response with an error in it, as botocore parses it.

        Args:
            response: What botocore makes of the answer.
            code: What counts where it names no code.
        """
        error = response.get("Error") or {}
        return cls(
            code=str(error.get("Code", code)),
            message=str(error.get("Message", "")),
            status=(response.get("ResponseMetadata") or {}).get("HTTPStatusCode"),
            resource_ids=tuple(response.get("resourceIds") or ()),
        )

    @classmethod
    def from_failures(cls, failures: Iterable[Mapping[str, Any]]) -> Answer:
        """Every entry of a RunTask's `failures`, not only the first."""
        sentences = "; ".join(map(_failure_sentence, failures))
        return cls("failures", sentences or "no reason given", 200)


def _failure_sentence(failure: Mapping[str, Any]) -> str:
    parts = [failure.get("reason") or "no reason given"]
    parts += [f"detail {failure['detail']}"] if failure.get("detail") else []
    parts += [f"arn {failure['arn']}"] if failure.get("arn") else []
    return ", ".join(parts)


_FLAGS = re.IGNORECASE | re.DOTALL


@dataclass(frozen=True)
class Row:
    """One row of the table: the answers that it matches, and what they mean.

    Attributes:
        error_code: A regular expression that matches AWS's whole error code.
        verdict: What the launch does next.
        cause: What happened, in words that fit after "because".
        code: The stable code of the message, as in docs/troubleshooting.md.
        pattern: A regular expression that is searched for in AWS's message.
        remedy: What a person can do about it; empty if nothing.
        example: Such a message of AWS, for readers who search for it.
    """

    error_code: str
    verdict: Verdict
    cause: str
    code: str
    pattern: str = ""
    remedy: str = ""
    example: str = ""

    def matches(self, answer: Answer) -> bool:
        """Whether an answer falls under this row; upper and lower case are equal."""
        return bool(
            re.fullmatch(self.error_code, answer.code, _FLAGS)
            and re.search(self.pattern, answer.message, _FLAGS)
        )


#: The code of a call to a region for which no client can be made.
UNUSABLE_REGION = "UnusableRegion"

#: The first row that matches counts. Sources: the ECS API reference (RunTask and
#: "Common errors"), the developer guide's "API failure messages"
#: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/api_failures_messages.html
#: and, where a row names one, the issue of a user who met it.
TABLE: Tuple[Row, ...] = (
    Row(
        error_code="ConflictException",
        verdict=Verdict.REUSE_TASK,
        cause="an earlier request of this launch has started the task",
        code="task-already-started",
    ),
    Row(
        error_code="Throttling(Exception)?|ThrottledException"
        "|RequestThrottled(Exception)?|RequestLimitExceeded"
        "|TooManyRequests(Exception)?|SlowDown"
        "|ProvisionedThroughputExceeded(Exception)?",
        verdict=Verdict.THROTTLED,
        cause="AWS limits the rate of requests",
        code="throttled",
    ),
    # https://github.com/PrefectHQ/prefect/issues/10102
    Row(
        error_code="ClientException|InvalidParameterException",
        pattern="too many concurrent attempts to create a new revision",
        verdict=Verdict.RECHECK,
        cause="another request is registering the definition's family",
        code="family-busy",
        example="Too many concurrent attempts to create a new revision of the "
        "specified family.",
    ),
    # Throttling of another service, reported as a parameter error:
    # https://github.com/dagster-io/dagster/issues/33439
    Row(
        error_code="InvalidParameterException|ClientException",
        pattern=r"error ?code: ?(\w*throttl|requestlimitexceeded|toomanyrequests)"
        r"|rate exceeded|request limit exceeded",
        verdict=Verdict.THROTTLED,
        cause="AWS limits the rate of requests that ECS sends to other services",
        code="throttled",
        example="Error retrieving subnet information: Rate exceeded (ErrorCode: "
        "Throttling)",
    ),
    Row(
        error_code="ClientException|LimitExceededException",
        pattern="provisioning",
        verdict=Verdict.WAIT,
        cause="the cluster has reached its limit of PROVISIONING tasks",
        code="provisioning-limit",
        example="You've reached the limit on the number of tasks you can run "
        "concurrently in PROVISIONING state",
    ),
    Row(
        error_code="InvalidParameterException|ClientException",
        pattern="no container instances were found",
        verdict=Verdict.WAIT,
        cause="the cluster has no container instances at present",
        remedy="add one, or let a capacity provider do so",
        code="no-container-instances",
        example="No Container Instances were found in your cluster.",
    ),
    Row(
        error_code="ClientException|InvalidParameterException",
        pattern=r"task ?definition (is |was )?(inactive|not found|does not exist)"
        r"|unable to (find|describe) task definition",
        verdict=Verdict.REREGISTER,
        cause="the task definition does not exist or is INACTIVE",
        remedy="name an ACTIVE definition of this account and region",
        code="no-task-definition",
        example="TaskDefinition is inactive",
    ),
    Row(
        error_code="failures",
        pattern=r"resource:|\bagent\b|capacity|concurren|limit|insufficient",
        verdict=Verdict.WAIT,
        cause="there is no capacity for the task at present",
        code="no-capacity",
        example="RESOURCE:MEMORY",
    ),
    Row(
        error_code="failures",
        pattern="attribute",
        verdict=Verdict.FINAL,
        cause="no container instance has what the task needs",
        remedy="compare the definition's requiresAttributes with the cluster's "
        "instances",
        code="no-suitable-instance",
        example="ATTRIBUTE",
    ),
    Row(
        error_code="failures",
        verdict=Verdict.FINAL,
        cause="ECS could not place the task",
        code="task-not-placed",
    ),
    Row(
        error_code="ServerException|InternalFailure|InternalError|InternalServerError"
        "|ServiceUnavailable(Exception)?|RequestTimeout(Exception)?"
        "|IncompleteAnswer|ResponseParserError",
        verdict=Verdict.RETRY,
        cause="AWS did not answer properly",
        code="aws-unavailable",
    ),
    Row(
        error_code="ConnectionError|EndpointConnectionError|ConnectTimeoutError"
        "|ReadTimeoutError|ConnectionClosedError|ProxyConnectionError|SSLError"
        "|HTTPClientError|ResponseStreamingError|IncompleteReadError|ChecksumError",
        verdict=Verdict.RETRY,
        cause="the connection to AWS failed",
        code="aws-unreachable",
    ),
    Row(
        error_code="CapacityNotAvailableError",
        verdict=Verdict.THROTTLED,
        cause="botocore's own retry quota is used up",
        code="retry-quota",
    ),
    Row(
        error_code="ExpiredToken(Exception)?|RequestExpired|TokenRefreshRequired"
        "|CredentialRetrievalError|NoCredentialsError|MetadataRetrievalError"
        "|TokenRetrievalError|NoAuthTokenError|RefreshWithMFAUnsupportedError"
        "|SSOError|SSOTokenLoadError|UnauthorizedSSOTokenError"
        "|LoginError|LoginTokenLoadError|LoginRefreshRequired"
        "|LoginAuthorizationCodeError|IDPCommunicationError",
        verdict=Verdict.RETRY,
        cause="the agent's AWS credentials have expired",
        remedy="renew them",
        code="expired-credentials",
    ),
    # botocore's RefreshableCredentials, when the source goes on giving expired ones.
    Row(
        error_code="RuntimeError",
        pattern="credentials",
        verdict=Verdict.RETRY,
        cause="the agent's AWS credentials have expired",
        remedy="renew them",
        code="expired-credentials",
        example="Credentials were refreshed, but the refreshed credentials are still "
        "expired.",
    ),
    # https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html
    Row(
        error_code="InvalidIdentityToken(Exception)?",
        pattern="retrieve verification key",
        verdict=Verdict.RETRY,
        cause="AWS cannot reach the identity provider of the agent's credentials",
        code="identity-provider-unreachable",
        example="Couldn't retrieve verification key from your identity provider, "
        "please reference AssumeRoleWithWebIdentity documentation for requirements",
    ),
    # A request that was sent too slowly, or a clock that is off by five minutes:
    # https://docs.aws.amazon.com/IAM/latest/UserGuide/signature-v4-troubleshooting.html
    Row(
        error_code="InvalidSignatureException|SignatureDoesNotMatch",
        pattern="signature expired|signature not yet current",
        verdict=Verdict.RETRY,
        cause="the time of the request's signature is too far from the time at AWS",
        remedy="set the machine's clock",
        code="clock-skew",
        example="Signature expired: 20240101T000000Z is now earlier than "
        "20240101T000500Z (20240101T001000Z - 5 min.)",
    ),
    Row(
        error_code="RequestTimeTooSkewed|RequestInTheFuture",
        verdict=Verdict.RETRY,
        cause="the machine's clock differs from that of AWS",
        remedy="set the machine's clock",
        code="clock-skew",
    ),
    Row(
        error_code="AccessDenied(Exception)?|UnauthorizedOperation",
        pattern="iam:PassRole",
        verdict=Verdict.FINAL,
        cause="the agent may not pass that role to a task",
        remedy="grant the agent's role iam:PassRole on it",
        code="missing-pass-role",
        example="User ... is not authorized to perform: iam:PassRole on resource: ...",
    ),
    Row(
        error_code="AccessDenied(Exception)?|UnauthorizedOperation",
        pattern="ecs:TagResource",
        verdict=Verdict.FINAL,
        cause="the agent may not set the tags that the run asks for",
        remedy="grant the agent's role ecs:TagResource, or take tags, propagateTags "
        "and enableECSManagedTags out of the template and the run_task_kwargs",
        code="missing-tag-resource",
        example="User ... is not authorized to perform: ecs:TagResource on "
        "resource: ...",
    ),
    Row(
        error_code="AccessDenied(Exception)?|UnauthorizedOperation",
        verdict=Verdict.FINAL,
        cause="the agent's AWS identity lacks a permission",
        remedy="grant it the action that AWS names",
        code="missing-permission",
    ),
    Row(
        error_code="ClusterNotFoundException|InvalidClusterException",
        verdict=Verdict.FINAL,
        cause="the cluster does not exist or is not ACTIVE",
        remedy="create it, or name another with --cluster or the run's run_task_kwargs",
        code="no-cluster",
    ),
    Row(
        error_code="PlatformUnknownException"
        "|PlatformTaskDefinitionIncompatibilityException",
        verdict=Verdict.FINAL,
        cause="Fargate's platform version does not fit",
        remedy="correct or leave out platformVersion in run_task_kwargs",
        code="platform-version",
    ),
    Row(
        error_code="UnsupportedFeatureException",
        verdict=Verdict.FINAL,
        cause="the task asks for a feature that this region does not have",
        remedy="take it out of the template or run_task_kwargs, or use another region",
        code="unsupported-feature",
    ),
    Row(
        error_code=UNUSABLE_REGION,
        verdict=Verdict.FINAL,
        cause="the agent cannot make a client for that AWS region",
        remedy="correct the region's name",
        code="unusable-region",
    ),
    Row(
        error_code="BlockedException",
        verdict=Verdict.FINAL,
        cause="AWS has blocked the account",
        remedy="contact AWS Support",
        code="account-blocked",
    ),
    Row(
        error_code="UnrecognizedClientException|InvalidClientTokenId"
        "|SignatureDoesNotMatch|InvalidSignatureException",
        verdict=Verdict.FINAL,
        cause="AWS does not accept the agent's credentials",
        remedy="correct its AWS access key and the machine's clock",
        code="invalid-credentials",
    ),
    Row(
        error_code="InvalidParameterException|ClientException",
        pattern="arn.*format.*tag|tag.*arn.*format",
        verdict=Verdict.FINAL,
        cause="the account uses the short ARN format, which does not allow tags",
        remedy="opt in to the long ARN format, or take tags, propagateTags and "
        "enableECSManagedTags out of the template and the run_task_kwargs",
        code="short-arn-format",
        example="The new ARN and resource ID format must be enabled to add tags to "
        "the service. Opt in to the new format and try again.",
    ),
    Row(
        error_code="InvalidParameterException|ClientException|ParamValidationError"
        "|ValidationException|SerializationException|ValidationError"
        "|RangeError|UnknownKeyError|UnknownParameterError|MissingParametersError"
        "|AliasConflictParameterError|InvalidHostLabelError",
        verdict=Verdict.FINAL,
        cause="AWS does not accept the request",
        remedy="correct the template, the run config or the agent's options",
        code="invalid-request",
    ),
)

_BAD_GATEWAY = Row(
    "", Verdict.RETRY, cause="AWS did not answer properly", code="aws-unavailable"
)
_UNKNOWN = Row("", Verdict.FINAL, cause="AWS refused the request", code="aws-refused")

#: Errors of botocore's that no row names, about settings that it reads at a start, and
#: errors of any other kind that an unreadable answer causes.
_NO_STATUS = Row(
    "",
    Verdict.FINAL,
    cause="AWS cannot be asked, or its answer cannot be read",
    code="aws-call-failed",
)

#: Verdicts after which the same request is worth repeating.
WORTH_WAITING = frozenset(
    {Verdict.THROTTLED, Verdict.RETRY, Verdict.WAIT, Verdict.RECHECK}
)


def classify(answer: Answer) -> Row:
    """Find the row of the table that an answer falls under."""
    for row in TABLE:
        if row.matches(answer):
            return row
    if answer.status is None:
        return _NO_STATUS
    return _BAD_GATEWAY if answer.status >= 500 else _UNKNOWN


class AWSCallError(LaunchError):
    """AWS did not do what the agent asked; says why, and what to do.

    Attributes:
        operation: The API's action, such as `RunTask`.
        answer: What AWS said.
        verdict: What that means for the launch.
        cause: The same in words.
    """

    def __init__(self, operation: str, answer: Answer) -> None:
        row = classify(answer)
        self.operation, self.answer = operation, answer
        self.verdict, self.cause = row.verdict, row.cause
        remedy = f"; {row.remedy}" if row.remedy else ""
        super().__init__(
            f"{operation} failed because {row.cause}{remedy}: {answer}", code=row.code
        )


class NoCapacity(LaunchError):
    """There has been no capacity for longer than `RetryBudget.patience`."""


def is_worth_waiting(error: Exception) -> bool:
    """Whether AWS may accept the same request later; True if it did not answer."""
    return not isinstance(error, AWSCallError) or error.verdict in WORTH_WAITING


#: Lost answers and throttles pass in seconds, missing capacity in minutes.
BACKOFF: Mapping[Verdict, Backoff] = {
    Verdict.THROTTLED: Backoff(1.0, 30.0),
    Verdict.RETRY: Backoff(1.0, 30.0),
    Verdict.RECHECK: Backoff(0.5, 10.0),
    Verdict.WAIT: Backoff(5.0, 60.0),
}

#: What the wait after an answer is for.
_CAUSES: Mapping[Verdict, Cause] = {
    Verdict.THROTTLED: Cause.RATE_LIMIT,
    Verdict.RETRY: Cause.OUTAGE,
    Verdict.RECHECK: Cause.DEFINITION,
    Verdict.WAIT: Cause.CAPACITY,
}


_order = itertools.count()


class RetryBudget:
    """How long one launch is retried, and what is known about it so far.

    Args:
        due: The run's start, in seconds since 1970; earlier runs go first.
        seconds: How long from now it is retried; 0: one attempt.
        clock: Tells the time, in seconds.
        random: Gives numbers from 0 to 1, for the jitter of pauses.

    Attributes:
        due: As given.
        clock: As given.
        place: The launch's place in every queue: by its start, then by when it was
            taken. Throttled launches keep it.
        is_uncertain: Whether an answer to RunTask was lost, so that there may be a
            task already.
        was_listed: Whether the task was found in the list of the run's tasks; it may be
            that of another launch of the run.
        confirmed_at: When the run was last known to be waiting for this launch, by the
            clock; at first, when the launch began.
        patience: Seconds without capacity after which the launch ends with
            `NoCapacity`; None for as long as it may be retried.
    """

    def __init__(
        self,
        due: float,
        seconds: float,
        clock: Callable[[], float],
        random: Callable[[], float] = random.random,
    ) -> None:
        self.due = due
        self.queue_priority = (due, next(_order))
        self.is_uncertain = self.was_listed = False
        self.clock = clock
        self.patience: Optional[float] = None
        self._no_capacity_since: Optional[float] = None
        self._random = random
        self._began = self.confirmed_at = clock()
        self._deadline = self._began + seconds

    def attempts(self, attempt: Callable[[], Steps[Result]]) -> Steps[Result]:
        """Make attempts until one succeeds or asking again would not help.

        Args:
            attempt: Starts the steps of one attempt.

        Raises:
            AWSCallError: if the answer is not worth waiting for.
            LaunchError: if the deadline would pass before the next attempt.
        """
        return (yield from self._attempts(attempt, self._pause_after))

    def retry_until_success(
        self, attempt: Callable[[], Steps[Result]]
    ) -> Steps[Result]:
        """Make attempts until one succeeds, however long that takes.

        The time that it takes does not count towards the timeout.

        Args:
            attempt: Starts the steps of one attempt.

        Raises:
            AWSCallError: if the answer is not worth waiting for.
        """
        return (yield from self.uncounted(self._attempts(attempt, self._pause)))

    def _attempts(
        self,
        attempt: Callable[[], Steps[Result]],
        pause_after: Callable[[AWSCallError, int], Pause],
    ) -> Steps[Result]:
        tries = 0
        while True:
            tries += 1
            try:
                return (yield from attempt())
            except AWSCallError as refused:
                if refused.verdict not in WORTH_WAITING:
                    raise
                if refused.operation == "RunTask" and refused.verdict is Verdict.RETRY:
                    self.is_uncertain = True
                yield pause_after(refused, tries)

    def queue(self, ticket: Future[Any]) -> Steps[None]:
        """Wait for a rate-limit slot; the wait does not count towards the timeout."""
        if not ticket.done():
            since = self.clock()
            yield ticket
            self._deadline += self.clock() - since

    def uncounted(self, steps: Steps[Result]) -> Steps[Result]:
        """Run steps; the time that they take does not count towards the timeout.

        Args:
            steps: What has to be done for the launch, such as reading its run again
                at an API that does not answer for a while.
        """
        since = self.clock()
        result = yield from steps
        self._deadline += self.clock() - since
        return result

    def seconds_since_confirmed(self) -> float:
        """How long ago the run was last known to be waiting for this launch."""
        return self.clock() - self.confirmed_at

    def confirmed(self) -> None:
        """The run is waiting for this launch now."""
        self.confirmed_at = self.clock()

    def _pause_after(self, refused: AWSCallError, tries: int) -> Pause:
        pause = self._pause(refused, tries)
        self._check_patience(refused, pause)
        if self.clock() + pause.seconds > self._deadline:
            times = "1 try" if tries == 1 else f"{tries} tries"
            raise LaunchError(
                f"Gave up after {self.clock() - self._began:.0f} s and {times} "
                f"because {refused.cause}; the last answer to {refused.operation} was "
                f"{refused.answer}",
                code=refused.code,
            ) from refused
        return pause

    def _check_patience(self, refused: AWSCallError, pause: Pause) -> None:
        """End a launch that has had no capacity for too long.

        Raises:
            NoCapacity: if so, and if certainly no task was started.
        """
        if refused.verdict is not Verdict.WAIT:
            return
        since = self._no_capacity_since
        if since is None:
            since = self._no_capacity_since = self.clock()
        seconds = self.clock() + pause.seconds - since
        if self.patience is None or seconds <= self.patience or self.is_uncertain:
            return
        raise NoCapacity(
            f"There has been no capacity for {self.clock() - since:.0f} s; the last "
            f"answer to {refused.operation} was {refused.answer}",
            code=refused.code,
        ) from refused

    def _pause(self, refused: AWSCallError, tries: int) -> Pause:
        seconds = BACKOFF[refused.verdict].seconds(tries, self._random())
        return Pause(seconds, refused.cause, _CAUSES[refused.verdict])

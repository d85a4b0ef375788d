"""An answer of AWS becomes a verdict: ask again, wait, look elsewhere or give up.

Pure. The cast: an `Answer` is what came back, whichever way it came; `judge` finds
its row in `TABLE`; its `Verdict` says what the launch does next; `AWSCallError` carries
all of it; `RetryBudget` is how long one launch goes on asking, and what it has heard.
"""

from __future__ import annotations

import enum
import itertools
import random
import re
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Callable, Iterable, Mapping, Optional, Pattern, Tuple

from ..errors import LaunchError
from ..scheduling.backoff import Backoff
from ..scheduling.steps import Cause, Pause, Result, Steps


class Verdict(enum.Enum):
    """What an answer means for the launch that got it."""

    THROTTLED = "ask again, and slower: nothing was done"
    RETRY = "ask again: the answer was lost, and something may have been done"
    LOOK = "look whether the definition exists by now, then ask again"
    WAIT = "ask again later: there is no capacity for the task at present"
    FORGET = "the definition is gone: register it once more"
    ADOPT = "the task was started by an earlier request: take that one"
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


@dataclass(frozen=True)
class Row:
    """One line of the table: an answer whose code and message match.

    Attributes:
        code: Matches the whole code.
        message: Is found in the message.
        verdict: What the launch does next.
        cause: What happened, in words that fit after "because".
        remedy: What a person can do about it, if anything.
        example: A message of such an answer, for readers who search for it.
    """

    code: Pattern[str]
    message: Pattern[str]
    verdict: Verdict
    cause: str
    remedy: str
    example: str


def _row(
    code: str,
    message: str,
    verdict: Verdict,
    cause: str,
    remedy: str = "",
    example: str = "",
) -> Row:
    flags = re.IGNORECASE | re.DOTALL
    return Row(
        re.compile(code, flags),
        re.compile(message, flags),
        verdict,
        cause,
        remedy,
        example,
    )


#: The code of a call to a region for which no client can be made.
UNUSABLE_REGION = "UnusableRegion"

#: The first row that matches counts. Sources: the ECS API reference (RunTask and
#: "Common errors"), the developer guide's "API failure messages"
#: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/api_failures_messages.html
#: and, where a row names one, the issue of a user who met it.
TABLE: Tuple[Row, ...] = (
    _row("ConflictException", "", Verdict.ADOPT, "the launch was already made"),
    _row(
        "Throttling(Exception)?|ThrottledException|RequestThrottled(Exception)?"
        "|RequestLimitExceeded|TooManyRequests(Exception)?|SlowDown"
        "|ProvisionedThroughputExceeded(Exception)?",
        "",
        Verdict.THROTTLED,
        "AWS limits the rate of requests",
    ),
    # https://github.com/PrefectHQ/prefect/issues/10102
    _row(
        "ClientException|InvalidParameterException",
        "too many concurrent attempts to create a new revision",
        Verdict.LOOK,
        "the definition's family is being registered elsewhere",
        example="Too many concurrent attempts to create a new revision of the "
        "specified family.",
    ),
    # A throttle of another service in the coat of a parameter error:
    # https://github.com/dagster-io/dagster/issues/33439
    _row(
        "InvalidParameterException|ClientException",
        r"error ?code: ?(\w*throttl|requestlimitexceeded|toomanyrequests)"
        r"|rate exceeded|request limit exceeded",
        Verdict.THROTTLED,
        "AWS limits the rate of requests behind ECS",
        example="Error retrieving subnet information: Rate exceeded (ErrorCode: "
        "Throttling)",
    ),
    _row(
        "ClientException|LimitExceededException",
        "provisioning",
        Verdict.WAIT,
        "the cluster has as many PROVISIONING tasks as it may have",
        example="You've reached the limit on the number of tasks you can run "
        "concurrently in PROVISIONING state",
    ),
    _row(
        "InvalidParameterException|ClientException",
        "no container instances were found",
        Verdict.WAIT,
        "the cluster has no container instances at present",
        "add one, or let a capacity provider do so",
        example="No Container Instances were found in your cluster.",
    ),
    _row(
        "ClientException|InvalidParameterException",
        r"task ?definition (is |was )?(inactive|not found|does not exist)"
        r"|unable to (find|describe) task definition",
        Verdict.FORGET,
        "the task definition is not there, or INACTIVE",
        "name an ACTIVE definition of this account and region",
        example="TaskDefinition is inactive",
    ),
    _row(
        "failures",
        r"resource:|\bagent\b|capacity|concurren|limit|insufficient",
        Verdict.WAIT,
        "there is no capacity for the task at present",
        example="RESOURCE:MEMORY",
    ),
    _row(
        "failures",
        "attribute",
        Verdict.FINAL,
        "no container instance has what the task needs",
        "compare the definition's requiresAttributes with the cluster's instances",
        example="ATTRIBUTE",
    ),
    _row("failures", "", Verdict.FINAL, "ECS found no place for the task"),
    _row(
        "ServerException|InternalFailure|InternalError|InternalServerError"
        "|ServiceUnavailable(Exception)?|RequestTimeout(Exception)?"
        "|IncompleteAnswer|ResponseParserError",
        "",
        Verdict.RETRY,
        "AWS did not answer properly",
    ),
    _row(
        "ConnectionError|EndpointConnectionError|ConnectTimeoutError|ReadTimeoutError"
        "|ConnectionClosedError|ProxyConnectionError|SSLError|HTTPClientError"
        "|ResponseStreamingError|IncompleteReadError|ChecksumError",
        "",
        Verdict.RETRY,
        "the connection to AWS failed",
    ),
    _row(
        "CapacityNotAvailableError",
        "",
        Verdict.THROTTLED,
        "botocore's own retry quota is used up",
    ),
    _row(
        "ExpiredToken(Exception)?|RequestExpired|TokenRefreshRequired"
        "|CredentialRetrievalError|NoCredentialsError|MetadataRetrievalError"
        "|TokenRetrievalError|NoAuthTokenError|RefreshWithMFAUnsupportedError"
        "|SSOError|SSOTokenLoadError|UnauthorizedSSOTokenError"
        "|LoginError|LoginTokenLoadError|LoginRefreshRequired"
        "|LoginAuthorizationCodeError|IDPCommunicationError",
        "",
        Verdict.RETRY,
        "the agent's AWS credentials have run out",
        "renew them",
    ),
    # botocore's RefreshableCredentials, when the source goes on giving expired ones.
    _row(
        "RuntimeError",
        "credentials",
        Verdict.RETRY,
        "the agent's AWS credentials have run out",
        "renew them",
        example="Credentials were refreshed, but the refreshed credentials are still "
        "expired.",
    ),
    # https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html
    _row(
        "InvalidIdentityToken(Exception)?",
        "retrieve verification key",
        Verdict.RETRY,
        "AWS cannot reach the identity provider of the agent's credentials",
        example="Couldn't retrieve verification key from your identity provider, "
        "please reference AssumeRoleWithWebIdentity documentation for requirements",
    ),
    # A request that was sent too slowly, or a clock that is off by five minutes:
    # https://docs.aws.amazon.com/IAM/latest/UserGuide/signature-v4-troubleshooting.html
    _row(
        "InvalidSignatureException|SignatureDoesNotMatch",
        "signature expired|signature not yet current",
        Verdict.RETRY,
        "the request was signed too long before it reached AWS, or after",
        "set the machine's clock",
        example="Signature expired: 20240101T000000Z is now earlier than "
        "20240101T000500Z (20240101T001000Z - 5 min.)",
    ),
    _row(
        "RequestTimeTooSkewed|RequestInTheFuture",
        "",
        Verdict.RETRY,
        "the machine's clock and that of AWS differ",
        "set the machine's clock",
    ),
    _row(
        "AccessDenied(Exception)?|UnauthorizedOperation",
        "iam:PassRole",
        Verdict.FINAL,
        "the agent may not hand that role to a task",
        "grant the agent's role iam:PassRole on it",
        example="User ... is not authorized to perform: iam:PassRole on resource: ...",
    ),
    _row(
        "AccessDenied(Exception)?|UnauthorizedOperation",
        "ecs:TagResource",
        Verdict.FINAL,
        "the agent may not set the tags that the run asks for",
        "grant the agent's role ecs:TagResource, or take tags, propagateTags and "
        "enableECSManagedTags out of the template and the run_task_kwargs",
        example="User ... is not authorized to perform: ecs:TagResource on "
        "resource: ...",
    ),
    _row(
        "AccessDenied(Exception)?|UnauthorizedOperation",
        "",
        Verdict.FINAL,
        "the agent's AWS identity lacks a right",
        "grant it the action that AWS names",
    ),
    _row(
        "ClusterNotFoundException|InvalidClusterException",
        "",
        Verdict.FINAL,
        "the cluster is not there or not ACTIVE",
        "create it, or name another with --cluster or the run's run_task_kwargs",
    ),
    _row(
        "PlatformUnknownException|PlatformTaskDefinitionIncompatibilityException",
        "",
        Verdict.FINAL,
        "Fargate's platform version does not fit",
        "correct or leave out platformVersion in run_task_kwargs",
    ),
    _row(
        "UnsupportedFeatureException",
        "",
        Verdict.FINAL,
        "the task asks for a feature that this region does not have",
        "take it out of the template or run_task_kwargs, or use another region",
    ),
    _row(
        UNUSABLE_REGION,
        "",
        Verdict.FINAL,
        "the agent cannot make a client for that AWS region",
        "correct the region's name",
    ),
    _row(
        "BlockedException",
        "",
        Verdict.FINAL,
        "AWS has blocked the account",
        "contact AWS Support",
    ),
    _row(
        "UnrecognizedClientException|InvalidClientTokenId|SignatureDoesNotMatch"
        "|InvalidSignatureException",
        "",
        Verdict.FINAL,
        "AWS does not accept the agent's credentials",
        "correct its AWS access key and the machine's clock",
    ),
    _row(
        "InvalidParameterException|ClientException",
        "arn.*format.*tag|tag.*arn.*format",
        Verdict.FINAL,
        "the account has the short ARN format, with which nothing can have tags",
        "opt in to the long ARN format, or take tags, propagateTags and "
        "enableECSManagedTags out of the template and the run_task_kwargs",
        example="The new ARN and resource ID format must be enabled to add tags to "
        "the service. Opt in to the new format and try again.",
    ),
    _row(
        "InvalidParameterException|ClientException|ParamValidationError"
        "|ValidationException|SerializationException|ValidationError"
        "|RangeError|UnknownKeyError|UnknownParameterError|MissingParametersError"
        "|AliasConflictParameterError|InvalidHostLabelError",
        "",
        Verdict.FINAL,
        "AWS does not accept the request",
        "correct the template, the run config or the agent's options",
    ),
)

_BAD_GATEWAY = _row("", "", Verdict.RETRY, "AWS did not answer properly")
_UNKNOWN = _row("", "", Verdict.FINAL, "AWS refused the request")

#: Errors of botocore's that no row names, about settings that it reads at a start, and
#: errors of any other kind that an answer without sense causes.
_NO_STATUS = _row(
    "", "", Verdict.FINAL, "AWS cannot be asked, or its answer cannot be read"
)

#: Verdicts after which the same request is worth repeating.
WORTH_WAITING = frozenset(
    {Verdict.THROTTLED, Verdict.RETRY, Verdict.WAIT, Verdict.LOOK}
)


def judge(answer: Answer) -> Row:
    """Find the row of the table that an answer falls under."""
    for row in TABLE:
        if row.code.fullmatch(answer.code) and row.message.search(answer.message):
            return row
    if answer.status is None:
        return _NO_STATUS
    return _BAD_GATEWAY if answer.status >= 500 else _UNKNOWN


class AWSCallError(LaunchError):
    """ECS did not do what it was asked; says why, and what to do.

    Attributes:
        operation: The API's action, such as `RunTask`.
        answer: What AWS said.
        verdict: What that means for the launch.
        cause: The same in words.
    """

    def __init__(self, operation: str, answer: Answer) -> None:
        row = judge(answer)
        self.operation, self.answer = operation, answer
        self.verdict, self.cause = row.verdict, row.cause
        remedy = f"; {row.remedy}" if row.remedy else ""
        super().__init__(f"{operation} failed because {row.cause}{remedy}: {answer}")


def is_worth_waiting(error: Exception) -> bool:
    """Whether what was refused may be taken later; so may what was not answered."""
    return not isinstance(error, AWSCallError) or error.verdict in WORTH_WAITING


#: Lost answers and throttles pass in seconds, missing capacity in minutes.
BACKOFF: Mapping[Verdict, Backoff] = {
    Verdict.THROTTLED: Backoff(1.0, 30.0),
    Verdict.RETRY: Backoff(1.0, 30.0),
    Verdict.LOOK: Backoff(0.5, 10.0),
    Verdict.WAIT: Backoff(5.0, 60.0),
}

#: What the wait after an answer is for.
_CAUSES: Mapping[Verdict, Cause] = {
    Verdict.THROTTLED: Cause.RATE_LIMIT,
    Verdict.RETRY: Cause.OUTAGE,
    Verdict.LOOK: Cause.DEFINITION,
    Verdict.WAIT: Cause.CAPACITY,
}


_places = itertools.count()


class RetryBudget:
    """How long one launch goes on asking, and what it has heard so far.

    Args:
        due: The run's start, in seconds since 1970; earlier runs go first.
        seconds: How long from now it may be refused; 0: not twice.
        clock: Tells the time, in seconds.
        random: Gives numbers from 0 to 1, for the jitter of pauses.

    Attributes:
        clock: As it was given.
        place: The launch's place in every queue: by its start, then by when it was
            taken. Throttled launches keep it.
        is_uncertain: Whether an answer to RunTask was lost, so that there may be a
            task already.
        was_listed: Whether the task was found in the list of the run's tasks; it may be
            that of another launch of the run.
        confirmed_at: When the run was last known to be waiting for this launch, by the
            clock; at first, when the launch began.
    """

    def __init__(
        self,
        due: float,
        seconds: float,
        clock: Callable[[], float],
        random: Callable[[], float] = random.random,
    ) -> None:
        self.due = due
        self.place = (due, next(_places))
        self.is_uncertain = self.was_listed = False
        self.clock = clock
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

    def queue(self, turn: Future[Any]) -> Steps[None]:
        """Wait for a turn; the wait does not count towards the timeout."""
        if not turn.done():
            since = self.clock()
            yield turn
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
        if self.clock() + pause.seconds > self._deadline:
            times = "1 try" if tries == 1 else f"{tries} tries"
            raise LaunchError(
                f"Gave up after {self.clock() - self._began:.0f} s and {times} "
                f"because {refused.cause}; the last answer to {refused.operation} was "
                f"{refused.answer}"
            ) from refused
        return pause

    def _pause(self, refused: AWSCallError, tries: int) -> Pause:
        seconds = BACKOFF[refused.verdict].seconds(tries, self._random())
        return Pause(seconds, refused.cause, _CAUSES[refused.verdict])

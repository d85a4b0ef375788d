"""Which answers of AWS are worth another try, as one table; pauses; retry budgets."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any, Dict, List, Optional, Tuple

import botocore.exceptions
import pytest
from codes import raises_code
from hypothesis import given
from hypothesis import strategies as st

from prefect_ecs_plugin.aws.retrying import (
    BACKOFF,
    TABLE,
    UNUSABLE_REGION,
    WORTH_WAITING,
    Answer,
    AWSCallError,
    Backoff,
    RetryBudget,
    Row,
    Verdict,
    classify,
    is_worth_waiting,
)
from prefect_ecs_plugin.errors import LaunchError
from prefect_ecs_plugin.scheduling.steps import Cause, Pause, Steps, run_blocking


def failures(*reasons: str) -> Answer:
    return Answer.from_failures([{"arn": "a", "reason": reason} for reason in reasons])


RETRY, THROTTLED, WAIT = Verdict.RETRY, Verdict.THROTTLED, Verdict.WAIT
FINAL = Verdict.FINAL
PARAMETER = ("InvalidParameterException", "ClientException")
SIGNATURE = ("InvalidSignatureException", "SignatureDoesNotMatch")
DENIED = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation")
CREDENTIALS = "expired-credentials"

#: Each verdict and code of ours, AWS's error codes for it and what their messages say;
#: where no message is given, any will do.
VERDICTS: List[Tuple[Verdict, str, Tuple[str, ...], Tuple[str, ...]]] = [
    (Verdict.REUSE_TASK, "task-already-started", ("ConflictException",), ()),
    (
        THROTTLED,
        "throttled",
        (
            *("ThrottlingException", "Throttling", "ThrottledException", "SlowDown"),
            *("RequestThrottled", "RequestThrottledException"),
            *("RequestLimitExceeded", "TooManyRequests", "TooManyRequestsException"),
            *(
                "ProvisionedThroughputExceeded",
                "ProvisionedThroughputExceededException",
            ),
        ),
        (),
    ),
    (
        Verdict.RECHECK,
        "family-busy",
        PARAMETER,
        (
            "Too many concurrent attempts to create a new revision of the specified "
            "family.",
        ),
    ),
    (
        THROTTLED,
        "throttled",
        PARAMETER,
        (
            "Error retrieving subnet information for [subnet-1]: (ErrorCode: "
            "Throttling)",
            "Error retrieving subnet information (Error Code: EC2ThrottledException)",
            "... (ErrorCode: RequestLimitExceeded)",
            "... (ErrorCode:TooManyRequestsException)",
            "Error retrieving security group information: Rate exceeded",
            "Request limit exceeded.",
        ),
    ),
    (
        WAIT,
        "provisioning-limit",
        ("ClientException", "LimitExceededException"),
        (
            "You've reached the limit on the number of tasks you can run concurrently "
            "in PROVISIONING state",
        ),
    ),
    (
        WAIT,
        "no-container-instances",
        PARAMETER,
        ("No Container Instances were found in your cluster.",),
    ),
    (
        Verdict.REREGISTER,
        "no-task-definition",
        PARAMETER,
        (
            "TaskDefinition is inactive",
            "TaskDefinition not found.",
            "The task definition was not found",
            "Task definition does not exist",
            "Unable to describe task definition.",
            "Unable to find task definition",
        ),
    ),
    (
        WAIT,
        "no-capacity",
        ("failures",),
        (
            "RESOURCE:CPU, arn a",
            "RESOURCE:MEMORY, arn a; RESOURCE:ENI, arn b",
            "AGENT",
            "Capacity is unavailable at this time. Please try again later",
            "You've reached the limit on the number of tasks you can run",
            "Too many concurrent tasks",
            "insufficient memory",
        ),
    ),
    (
        FINAL,
        "no-suitable-instance",
        ("failures",),
        ("ATTRIBUTE",),
    ),
    (
        FINAL,
        "task-not-placed",
        ("failures",),
        ("MISSING", "INACTIVE", "no reason given"),
    ),
    (
        RETRY,
        "aws-unavailable",
        (
            *("ServerException", "InternalFailure", "InternalError"),
            *("InternalServerError", "ServiceUnavailable"),
            *("ServiceUnavailableException", "RequestTimeout"),
            *("RequestTimeoutException", "IncompleteAnswer", "ResponseParserError"),
        ),
        (),
    ),
    (RETRY, "aws-unreachable", ("ConnectionError",), ()),
    (
        THROTTLED,
        "retry-quota",
        ("CapacityNotAvailableError",),
        (),
    ),
    (
        RETRY,
        CREDENTIALS,
        (
            *("ExpiredToken", "ExpiredTokenException", "RequestExpired"),
            *("TokenRefreshRequired", "IDPCommunicationError"),
        ),
        (),
    ),
    (
        RETRY,
        CREDENTIALS,
        ("RuntimeError",),
        (
            "Credentials were refreshed, but the refreshed credentials are still "
            "expired.",
        ),
    ),
    (
        RETRY,
        "identity-provider-unreachable",
        ("InvalidIdentityToken", "InvalidIdentityTokenException"),
        ("Couldn't retrieve verification key from your identity provider",),
    ),
    (
        RETRY,
        "clock-skew",
        SIGNATURE,
        (
            "Signature expired: 20240101T000000Z is now earlier than "
            "20240101T000500Z (20240101T001000Z - 5 min.)",
            "Signature not yet current: 20240101T001500Z is still later than "
            "20240101T000500Z (20240101T000000Z + 5 min.)",
        ),
    ),
    (
        RETRY,
        "clock-skew",
        ("RequestTimeTooSkewed", "RequestInTheFuture"),
        (),
    ),
    (
        FINAL,
        "missing-pass-role",
        DENIED,
        ("User: x is not authorized to perform: iam:PassRole on resource: y",),
    ),
    (
        FINAL,
        "missing-tag-resource",
        DENIED,
        ("User: x is not authorized to perform: ecs:TagResource on resource: *",),
    ),
    (FINAL, "missing-permission", DENIED, ()),
    (
        FINAL,
        "no-cluster",
        ("ClusterNotFoundException", "InvalidClusterException"),
        (),
    ),
    (
        FINAL,
        "platform-version",
        (
            "PlatformUnknownException",
            "PlatformTaskDefinitionIncompatibilityException",
        ),
        (),
    ),
    (
        FINAL,
        "unsupported-feature",
        ("UnsupportedFeatureException",),
        (),
    ),
    (
        FINAL,
        "unusable-region",
        (UNUSABLE_REGION,),
        (),
    ),
    (FINAL, "account-blocked", ("BlockedException",), ()),
    (
        FINAL,
        "invalid-credentials",
        ("UnrecognizedClientException", "InvalidClientTokenId", *SIGNATURE),
        ("The request signature we calculated does not match the signature you gave.",),
    ),
    (
        FINAL,
        "short-arn-format",
        PARAMETER,
        (
            "The new ARN and resource ID format must be enabled to add tags to the "
            "service. Opt in to the new format and try again.",
            "Tagging needs the long ARN format.",
        ),
    ),
    (
        FINAL,
        "invalid-request",
        (*PARAMETER, "ValidationException", "SerializationException"),
        (),
    ),
]

#: Codes that no row names, or none for that message: the HTTP status decides.
UNNAMED = [
    (Answer("502", "Bad Gateway", 502), RETRY, "aws-unavailable"),
    (Answer("Whatever", "", 500), RETRY, "aws-unavailable"),
    (Answer("Whatever", "", 499), FINAL, "aws-refused"),
    (Answer("ThrottlingOfSomeKind", "", 400), FINAL, "aws-refused"),
    (Answer("NotThrottling", "", 400), FINAL, "aws-refused"),
    (Answer("InvalidIdentityToken", "Incorrect token audience", 400), FINAL, None),
    (Answer("RuntimeError", "whatever"), FINAL, None),
    (Answer("LimitExceededException", "too many tags", 400), FINAL, None),
]


@pytest.mark.parametrize(
    "answer, verdict, code",
    [
        (Answer(error_code, message, 400), verdict, code)
        for verdict, code, error_codes, messages in VERDICTS
        for error_code in error_codes
        for message in messages or ("whatever it says",)
    ],
    ids=str,
)
def test_verdicts(answer: Answer, verdict: Verdict, code: str) -> None:
    row = classify(answer)
    assert (row.verdict, row.code) == (verdict, code)


@pytest.mark.parametrize("answer, verdict, code", UNNAMED, ids=str)
def test_verdicts_by_status(
    answer: Answer, verdict: Verdict, code: Optional[str]
) -> None:
    row = classify(answer)
    assert row not in TABLE
    assert row.verdict is verdict
    assert code in (row.code, None)


def test_every_row_of_the_table_is_reached() -> None:
    assert [row.code for row in TABLE] == [code for _, code, _, _ in VERDICTS]


def test_what_a_person_can_do_is_said() -> None:
    """At each end, but where ECS's own words are all that is known."""
    unhelped = [row.code for row in TABLE if row.verdict is FINAL and not row.remedy]
    assert unhelped == ["task-not-placed"]
    others = [row.code for row in TABLE if row.verdict is not FINAL and row.remedy]
    assert others == [
        "no-container-instances",
        "no-task-definition",
        *(CREDENTIALS, CREDENTIALS),
        *("clock-skew", "clock-skew"),
    ]


#: The classes of botocore.exceptions that pass. A connection may fail after RunTask was
#: sent, so each failure counts as a lost answer.
PASSING = {
    # The connection, TLS and proxies included, and answers that were cut off.
    **dict.fromkeys(
        (
            *("ConnectionError", "EndpointConnectionError", "ConnectTimeoutError"),
            *("ConnectionClosedError", "ReadTimeoutError", "ProxyConnectionError"),
            *("SSLError", "HTTPClientError", "ResponseStreamingError"),
            *("IncompleteReadError", "ChecksumError"),
        ),
        "aws-unreachable",
    ),
    # Credentials, which are renewed by the machine or by a person.
    **dict.fromkeys(
        (
            *("NoCredentialsError", "CredentialRetrievalError", "NoAuthTokenError"),
            *("MetadataRetrievalError", "TokenRetrievalError", "SSOError"),
            *("RefreshWithMFAUnsupportedError", "SSOTokenLoadError"),
            *("UnauthorizedSSOTokenError", "LoginError", "LoginTokenLoadError"),
            *("LoginRefreshRequired", "LoginAuthorizationCodeError"),
        ),
        CREDENTIALS,
    ),
}

#: Those about the parameters of a request.
PARAMETERS = {
    *("ParamValidationError", "ValidationError", "RangeError", "UnknownKeyError"),
    *("UnknownParameterError", "MissingParametersError", "InvalidHostLabelError"),
    "AliasConflictParameterError",
}

#: The rest, which waiting does not mend: the agent's settings, which it reads at its
#: start.
SETTINGS = {
    *("ConfigNotFound", "ConfigParseError", "ProfileNotFound", "InvalidConfigError"),
    *("InfiniteLoopConfigError", "PartialCredentialsError", "UnknownCredentialError"),
    *("UnknownTokenProviderError", "LoginInsufficientPermissions", "NoRegionError"),
    *("MissingDependencyException", "InvalidRegionError", "UnknownRegionError"),
    *("ServiceNotInRegionError", "UnknownEndpointError", "UnknownFIPSEndpointError"),
    *("BaseEndpointResolverError", "EndpointVariantError", "EndpointProviderError"),
    *("EndpointResolutionError", "UnknownEndpointResolutionBuiltInName"),
    *("InvalidEndpointConfigurationError", "InvalidIMDSEndpointError"),
    *("InvalidEndpointDiscoveryConfigurationError", "InvalidIMDSEndpointModeError"),
    *("InvalidProxiesConfigError", "InvalidDefaultsMode", "InvalidRetryModeError"),
    *("InvalidRetryConfigurationError", "InvalidMaxRetryAttemptsError"),
    *("InvalidChecksumConfigError", "InvalidSTSRegionalEndpointsConfigError"),
    *("UnknownSignatureVersionError", "UnsupportedSignatureVersionError"),
}

#: And bugs, damaged installations, other services, paginators, waiters, event streams.
NEITHER = {
    *("BotoCoreError", "ClientError", "EventStreamError", "DataNotFoundError"),
    *("ApiVersionNotFoundError", "UnknownServiceError", "UnknownServiceStyle"),
    *("UndefinedModelAttributeError", "MissingServiceIdError", "WaiterError"),
    *("UnknownClientMethodError", "UnsupportedServiceProtocolsError"),
    *("OperationNotPageableError", "PaginationError", "WaiterConfigError"),
    *("InvalidExpressionError", "MD5UnavailableError", "UnseekableStreamError"),
    *("StubResponseError", "StubAssertionError", "UnStubbedResponseError"),
    *("AwsChunkedWrapperError", "FlexibleChecksumError", "InvalidDNSNameError"),
    *("InvalidS3AddressingStyleError", "UnsupportedS3ArnError"),
    *("InvalidS3UsEast1RegionalEndpointConfigError", "UnsupportedS3ControlArnError"),
    *("UnsupportedOutpostResourceError", "UnsupportedS3ConfigurationError"),
    "UnsupportedS3AccesspointConfigurationError",
    "UnsupportedS3ControlConfigurationError",
}

BOTOCORES = sorted(
    name
    for name, found in vars(botocore.exceptions).items()
    if isinstance(found, type)
    and issubclass(found, Exception)
    and not issubclass(found, Warning)
    and found.__module__ == "botocore.exceptions"
)


@pytest.mark.parametrize("name", BOTOCORES)
def test_every_exception_of_botocore_has_a_considered_verdict(name: str) -> None:
    row = classify(Answer(name, "whatever it says"))
    expected = (
        (Verdict.RETRY, PASSING[name])
        if name in PASSING
        else (Verdict.THROTTLED, "retry-quota")
        if name == "CapacityNotAvailableError"
        else (FINAL, "invalid-request")
        if name in PARAMETERS
        else (FINAL, "aws-call-failed")
        if name in SETTINGS | NEITHER
        else "a new class of botocore: give it a verdict in the table and here"
    )
    assert (row.verdict, row.code) == expected


@pytest.mark.parametrize(
    "row", [row for row in TABLE if row.pattern], ids=lambda row: row.code
)
def test_a_row_that_looks_at_the_message_has_an_example(row: Row) -> None:
    code = row.error_code.split("|")[0].replace("(Exception)?", "")
    assert classify(Answer(code, row.example)) is row


def test_a_row_for_any_message_has_no_example() -> None:
    assert [row for row in TABLE if row.example and not row.pattern] == []


@pytest.mark.parametrize(
    "failures, text",
    [
        (
            [
                {"arn": "arn:1", "reason": "RESOURCE:CPU"},
                {"arn": "arn:2", "reason": "AGENT", "detail": "not connected"},
            ],
            "RESOURCE:CPU, arn arn:1; AGENT, detail not connected, arn arn:2",
        ),
        ([{"reason": "AGENT"}], "AGENT"),
        ([{"reason": None, "arn": "arn:1"}], "no reason given, arn arn:1"),
        ([], "no reason given"),
    ],
)
def test_every_failure_is_reported(failures: List[Dict[str, Any]], text: str) -> None:
    answer = Answer.from_failures(failures)
    assert answer == Answer("failures", text, 200)
    assert str(answer) == f"failures: {text}"


@pytest.mark.parametrize(
    "response, code, answer",
    [
        (
            {
                "Error": {"Code": "ConflictException", "Message": "token in use"},
                "ResponseMetadata": {"HTTPStatusCode": 400},
                "resourceIds": ["arn:1", "arn:2"],
            },
            "ClientError",
            Answer("ConflictException", "token in use", 400, ("arn:1", "arn:2")),
        ),
        # A proxy's answer, of which botocore makes a number.
        (
            {"Error": {"Code": 502}, "ResponseMetadata": {"HTTPStatusCode": 502}},
            "ClientError",
            Answer("502", "", 502),
        ),
        ({"Error": {"Message": 1}}, "ClientError", Answer("ClientError", "1")),
        (
            {"Error": None, "ResponseMetadata": None, "resourceIds": None},
            "ClientError",
            Answer("ClientError"),
        ),
    ],
)
def test_what_is_read_in_a_response(
    response: Dict[str, Any], code: str, answer: Answer
) -> None:
    assert Answer.from_response(response, code) == answer


def test_an_answer_of_nothing_has_no_words() -> None:
    answer = Answer.from_response({})
    assert answer == Answer(code="", message="", status=None, resource_ids=())
    assert str(Answer("IncompleteAnswer")) == "IncompleteAnswer"


def test_a_refusal_says_why_what_to_do_and_what_aws_said() -> None:
    answer = Answer("ClusterNotFoundException", "Cluster not found.")
    refused = AWSCallError("RunTask", answer)
    assert str(refused) == f"{refused.message} [no-cluster]"
    assert refused.message.startswith("RunTask failed because")
    assert "--cluster" in refused.message
    assert refused.message.endswith(str(answer))
    assert (refused.operation, refused.answer) == ("RunTask", answer)
    assert refused.verdict is FINAL
    assert refused.code == "no-cluster"


def test_a_refusal_without_a_remedy() -> None:
    refused = AWSCallError("RunTask", Answer.from_failures([]))
    assert refused.code == "task-not-placed"
    assert refused.message.endswith(f"because {refused.cause}: {refused.answer}")


@pytest.mark.parametrize(
    "error, expected",
    [
        (OSError("no answer at all"), True),
        (AWSCallError("ListTasks", Answer("ThrottlingException")), True),
        (AWSCallError("ListTasks", Answer("AccessDeniedException")), False),
    ],
)
def test_what_is_worth_waiting(error: Exception, expected: bool) -> None:
    assert is_worth_waiting(error) is expected


@given(
    st.floats(0.01, 10), st.floats(0.01, 100), st.integers(1, 10_000), st.floats(0, 1)
)
def test_a_pause_is_never_longer_than_its_bound(
    first: float, longest: float, tries: int, random: float
) -> None:
    assert 0 <= Backoff(first, longest).seconds(tries, random) <= longest


def test_pauses_double_up_to_the_longest() -> None:
    backoff = Backoff(1, 30)
    pauses = [backoff.seconds(tries, 1) for tries in range(1, 8)]
    assert pauses == [1, 2, 4, 8, 16, 30, 30]
    assert backoff.seconds(10_000, 0.5) == 15


def test_whatever_is_worth_waiting_has_a_backoff() -> None:
    assert set(BACKOFF) == set(WORTH_WAITING)


class Service:
    """Gives its answers one after the other."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    def attempt(self) -> Steps[str]:
        yield from ()
        answer = self.answers.pop(0)
        if isinstance(answer, Answer):
            raise AWSCallError("RunTask", answer)
        if isinstance(answer, AWSCallError):
            raise answer
        return str(answer)


def run(steps: Steps[str], now: List[float]) -> Any:
    """Drive steps on a simulated clock; the pauses and the result."""
    pauses: List[Pause] = []
    while True:
        try:
            wait = next(steps)
        except StopIteration as end:
            return pauses, end.value
        assert isinstance(wait, Pause)
        now[0] += wait.seconds
        pauses.append(wait)


def budget(now: List[float], deadline: float) -> RetryBudget:
    return RetryBudget(0, deadline, lambda: now[0], lambda: 1.0)


BUSY = Answer("ThrottlingException", "Rate exceeded", 400)


def test_guarantee_4_a_launch_waits_until_there_is_room() -> None:
    now = [0.0]
    service = Service(failures("RESOURCE:CPU"), BUSY, "arn")
    pauses, result = run(budget(now, 1800).attempts(service.attempt), now)
    assert result == "arn"
    assert pauses == [
        Pause(5.0, classify(failures("RESOURCE:CPU")).cause, Cause.CAPACITY),
        Pause(2.0, classify(BUSY).cause, Cause.RATE_LIMIT),
    ]


def test_a_launch_gives_up_at_its_deadline_and_says_what_was_tried() -> None:
    now = [0.0]
    service = Service(*[BUSY] * 10)
    with raises_code("throttled", LaunchError) as error:
        run(budget(now, 10).attempts(service.attempt), now)
    for said in (" 7 s ", " 4 tries ", "RunTask", str(BUSY)):
        assert said in error.value.message


def test_what_is_final_is_not_tried_again() -> None:
    now = [0.0]
    service = Service(Answer("BlockedException"), "never")
    with pytest.raises(AWSCallError):
        run(budget(now, 10).attempts(service.attempt), now)
    assert service.answers == ["never"]


def test_a_launch_keeps_its_place_in_every_queue() -> None:
    now = [0.0]
    first, second = budget(now, 10), budget(now, 10)
    earlier = RetryBudget(-1, 10, lambda: now[0])
    assert earlier.queue_priority < first.queue_priority < second.queue_priority
    assert (earlier.due, first.due, second.due) == (-1, 0, 0)


def test_what_a_launch_does_besides_is_not_taken_from_its_time() -> None:
    """Such as reading its run again at an API that is away for an hour."""
    now = [100.0]
    launch = budget(now, 10)
    answers: List[Any] = [AWSCallError("RunTask", Answer("ThrottlingException")), "arn"]

    def reads_again() -> Steps[str]:
        now[0] += 3600
        yield from ()
        return "read"

    def attempt() -> Steps[Any]:
        yield from ()
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def steps() -> Steps[Any]:
        assert (yield from launch.uncounted(reads_again())) == "read"
        return (yield from launch.attempts(attempt))

    assert run_blocking(steps(), lambda _: None) == "arn"


BUSY_FAMILY = "Too many concurrent attempts to create a new revision of the family."


@pytest.mark.parametrize(
    "answer, first, longest, cause",
    [
        (BUSY, 1.0, 30.0, Cause.RATE_LIMIT),
        (Answer("ServerException"), 1.0, 30.0, Cause.OUTAGE),
        (Answer("ClientException", BUSY_FAMILY), 0.5, 10.0, Cause.DEFINITION),
        (failures("RESOURCE:CPU"), 5.0, 60.0, Cause.CAPACITY),
    ],
    ids=str,
)
@pytest.mark.parametrize("way", ["attempts", "retry_until_success"])
def test_the_pauses_of_each_verdict(
    answer: Answer, first: float, longest: float, cause: Cause, way: str
) -> None:
    now = [0.0]
    launch = RetryBudget(0, 10_000, lambda: now[0], lambda: 1.0)
    service = Service(*[answer] * 9, "arn")
    pauses, result = run(getattr(launch, way)(service.attempt), now)
    assert result == "arn"
    seconds = [min(longest, first * 2**doubled) for doubled in range(9)]
    assert pauses == [Pause(each, classify(answer).cause, cause) for each in seconds]


@pytest.mark.parametrize(
    "seconds, answers, said",
    [
        # A pause that ends at the deadline is made; one that ends later is not.
        (3, 2, None),
        (3, 3, "3 s and 3 tries"),
        (2, 2, "1 s and 2 tries"),
        (0, 1, "0 s and 1 try"),
    ],
)
def test_a_launch_gives_up_where_a_pause_would_pass_its_deadline(
    seconds: float, answers: int, said: Optional[str]
) -> None:
    now = [100.0]
    service = Service(*[BUSY] * answers, "arn")
    steps = budget(now, seconds).attempts(service.attempt)
    if said is None:
        assert run(steps, now)[1] == "arn"
        return
    with raises_code("throttled", LaunchError) as error:
        run(steps, now)
    assert f" {said} " in error.value.message
    assert isinstance(error.value.__cause__, AWSCallError)


def test_what_is_insisted_on_outlasts_the_deadline_but_not_a_final_answer() -> None:
    now = [100.0]
    launch = budget(now, 10)
    assert (
        run(launch.retry_until_success(Service(*[BUSY] * 9, "arn").attempt), now)[1]
        == "arn"
    )
    with pytest.raises(AWSCallError):
        run(
            launch.retry_until_success(Service(Answer("BlockedException")).attempt), now
        )
    # None of that time was the launch's own: it has all of its ten seconds.
    pauses, result = run(launch.attempts(Service(*[BUSY] * 3, "arn").attempt), now)
    assert ([pause.seconds for pause in pauses], result) == ([1, 2, 4], "arn")
    # And no more: three of them are left now.
    with pytest.raises(LaunchError):
        run(launch.attempts(Service(*[BUSY] * 3, "arn").attempt), now)


@pytest.mark.parametrize(
    "operation, answer, expected",
    [
        ("RunTask", Answer("ServerException"), True),
        ("RunTask", BUSY, False),
        ("RegisterTaskDefinition", Answer("ServerException"), False),
    ],
)
def test_only_a_lost_answer_to_run_task_leaves_a_launch_uncertain(
    operation: str, answer: Answer, expected: bool
) -> None:
    now = [0.0]
    launch = budget(now, 10)
    assert launch.is_uncertain is False
    run(launch.attempts(Service(AWSCallError(operation, answer), "arn").attempt), now)
    assert launch.is_uncertain is expected


def test_a_turn_that_has_come_is_not_waited_for() -> None:
    turn: Future[None] = Future()
    turn.set_result(None)
    assert list(budget([0.0], 10).queue(turn)) == []


def test_the_time_in_a_queue_is_not_taken_from_a_launch() -> None:
    now = [100.0]
    launch = budget(now, 10)
    turn: Future[None] = Future()
    queue = launch.queue(turn)
    assert next(queue) is turn
    now[0] += 3600
    assert list(queue) == []
    with pytest.raises(LaunchError, match=r"^Gave up after 3607 s and 4 tries"):
        run(launch.attempts(Service(*[BUSY] * 4).attempt), now)


def test_a_launch_knows_when_its_run_was_last_seen_to_wait() -> None:
    now = [100.0]
    launch = budget(now, 10)
    assert launch.confirmed_at == 100
    now[0] += 7
    assert launch.seconds_since_confirmed() == 7
    launch.confirmed()
    now[0] += 2
    assert (launch.confirmed_at, launch.seconds_since_confirmed()) == (107, 2)


def test_jitter_comes_from_chance_by_default() -> None:
    now = [0.0]
    launch = RetryBudget(0, 10_000, lambda: now[0])
    pauses, _ = run(launch.attempts(Service(*[BUSY] * 9, "arn").attempt), now)
    assert len({pause.seconds for pause in pauses}) == 9

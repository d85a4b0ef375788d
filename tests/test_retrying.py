"""Which answers of AWS are worth another try, as one table; pauses; patience."""

from __future__ import annotations

from typing import Any, List

import botocore.exceptions
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_ecs_plugin.errors import LaunchError
from prefect_ecs_plugin.retrying import (
    BACKOFF,
    TABLE,
    WORTH_WAITING,
    Answer,
    Backoff,
    Patience,
    Refused,
    Row,
    Verdict,
    judge,
)
from prefect_ecs_plugin.waiting import Cause, Pause, Steps, drive


def failures(*reasons: str) -> Answer:
    return Answer.from_failures([{"arn": "a", "reason": reason} for reason in reasons])


FINAL = Verdict.FINAL
CLIENT, PARAMETER = "ClientException", "InvalidParameterException"


@pytest.mark.parametrize(
    "answer, verdict",
    [
        (Answer("ThrottlingException", "Rate exceeded", 400), Verdict.THROTTLED),
        (Answer("RequestLimitExceeded", "", 503), Verdict.THROTTLED),
        (Answer("TooManyRequestsException", "", 429), Verdict.THROTTLED),
        (
            Answer(
                CLIENT,
                "Too many concurrent attempts to create a new revision of the "
                "specified family.",
                400,
            ),
            Verdict.LOOK,
        ),
        (
            Answer(
                PARAMETER,
                "Error retrieving subnet information for [subnet-1]: Rate exceeded "
                "(ErrorCode: Throttling)",
                400,
            ),
            Verdict.THROTTLED,
        ),
        (
            Answer(PARAMETER, "... (ErrorCode: RequestLimitExceeded)", 400),
            Verdict.THROTTLED,
        ),
        (
            Answer(
                CLIENT,
                "You've reached the limit on the number of tasks you can run "
                "concurrently in PROVISIONING state",
                400,
            ),
            Verdict.WAIT,
        ),
        (failures("RESOURCE:CPU"), Verdict.WAIT),
        (failures("RESOURCE:MEMORY", "RESOURCE:ENI"), Verdict.WAIT),
        (failures("AGENT"), Verdict.WAIT),
        (
            failures("Capacity is unavailable at this time. Please try again later"),
            Verdict.WAIT,
        ),
        (
            failures("You've reached the limit on the number of tasks you can run"),
            Verdict.WAIT,
        ),
        (failures("ATTRIBUTE"), Verdict.FINAL),
        (failures("MISSING"), Verdict.FINAL),
        (failures("INACTIVE"), Verdict.FINAL),
        (Answer.from_failures([]), Verdict.FINAL),
        (Answer("IncompleteAnswer"), Verdict.RETRY),
        (Answer("ServerException", "", 500), Verdict.RETRY),
        (Answer("502", "Bad Gateway", 502), Verdict.RETRY),
        (Answer("Whatever", "", 503), Verdict.RETRY),
        (Answer("EndpointConnectionError", "Could not connect"), Verdict.RETRY),
        (Answer("ConnectionClosedError", "closed"), Verdict.RETRY),
        (Answer("ReadTimeoutError", "Read timeout"), Verdict.RETRY),
        (Answer("ExpiredTokenException", "expired", 400), Verdict.RETRY),
        (Answer("IDPCommunicationError", "try again", 400), Verdict.RETRY),
        (
            Answer("InvalidIdentityToken", "Couldn't retrieve verification key", 400),
            Verdict.RETRY,
        ),
        (Answer("InvalidIdentityToken", "Incorrect token audience", 400), FINAL),
        (
            Answer(
                "RuntimeError",
                "Credentials were refreshed, but the refreshed credentials are still "
                "expired.",
            ),
            Verdict.RETRY,
        ),
        (Answer("RuntimeError", "whatever"), FINAL),
        (
            Answer(
                "InvalidSignatureException",
                "Signature expired: 20240101T000000Z is now earlier than "
                "20240101T000500Z (20240101T001000Z - 5 min.)",
                400,
            ),
            Verdict.RETRY,
        ),
        (
            Answer(
                "InvalidSignatureException",
                "Signature not yet current: 20240101T001500Z is still later than "
                "20240101T000500Z (20240101T000000Z + 5 min.)",
                400,
            ),
            Verdict.RETRY,
        ),
        (
            Answer(
                "InvalidSignatureException",
                "The request signature we calculated does not match the signature you "
                "provided.",
                400,
            ),
            FINAL,
        ),
        (Answer("RequestTimeTooSkewed", "", 403), Verdict.RETRY),
        (
            Answer(PARAMETER, "No Container Instances were found in your cluster."),
            Verdict.WAIT,
        ),
        (Answer(CLIENT, "TaskDefinition is inactive", 400), Verdict.FORGET),
        (Answer(CLIENT, "TaskDefinition not found.", 400), Verdict.FORGET),
        (Answer(CLIENT, "Unable to describe task definition.", 400), Verdict.FORGET),
        (
            Answer("ConflictException", "token in use", 400, ("arn:task",)),
            Verdict.ADOPT,
        ),
        (
            Answer("AccessDeniedException", "not authorized: ecs:RunTask", 400),
            Verdict.FINAL,
        ),
        (Answer("ClusterNotFoundException", "Cluster not found.", 400), Verdict.FINAL),
        (Answer(PARAMETER, "No subnets", 400), Verdict.FINAL),
        (Answer("PlatformUnknownException", "", 400), Verdict.FINAL),
        (Answer("BlockedException", "", 400), Verdict.FINAL),
        (Answer("UnsupportedFeatureException", "", 400), Verdict.FINAL),
        (Answer("ParamValidationError", "Unknown parameter"), Verdict.FINAL),
        (Answer("NeverHeardOf", "", 400), Verdict.FINAL),
    ],
)
def test_verdicts(answer: Answer, verdict: Verdict) -> None:
    assert judge(answer).verdict is verdict


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
        "the connection to AWS failed",
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
        "the agent's AWS credentials have run out",
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
    row = judge(Answer(name, "whatever it says"))
    expected = (
        (Verdict.RETRY, PASSING[name])
        if name in PASSING
        else (Verdict.THROTTLED, "botocore's own retry quota is used up")
        if name == "CapacityNotAvailableError"
        else (FINAL, "AWS does not accept the request")
        if name in PARAMETERS
        else (FINAL, "AWS cannot be asked, or its answer cannot be read")
        if name in SETTINGS | NEITHER
        else "a new class of botocore: give it a verdict in the table and here"
    )
    assert (row.verdict, row.cause) == expected


@pytest.mark.parametrize(
    "row", [row for row in TABLE if row.message.pattern], ids=lambda row: row.cause
)
def test_a_row_that_looks_at_the_message_has_an_example(row: Row) -> None:
    code = row.code.pattern.split("|")[0].replace("(Exception)?", "")
    assert judge(Answer(code, row.example)) is row


def test_every_failure_is_reported() -> None:
    answer = Answer.from_failures(
        [
            {"arn": "arn:1", "reason": "RESOURCE:CPU"},
            {"arn": "arn:2", "reason": "AGENT", "detail": "not connected"},
        ]
    )
    assert str(answer) == (
        "failures: RESOURCE:CPU, arn arn:1; AGENT, detail not connected, arn arn:2"
    )


def test_a_refusal_says_why_what_to_do_and_what_aws_said() -> None:
    answer = Answer("ClusterNotFoundException", "Cluster not found.")
    refused = Refused("RunTask", answer)
    assert str(refused) == (
        "RunTask failed because the cluster is not there or not ACTIVE; create it, or "
        "name another with --cluster or the run's run_task_kwargs: "
        "ClusterNotFoundException: Cluster not found."
    )


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
            raise Refused("RunTask", answer)
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


def patience(now: List[float], deadline: float) -> Patience:
    return Patience(0, deadline, lambda: now[0], lambda: 1.0)


BUSY = Answer("ThrottlingException", "Rate exceeded", 400)


def test_guarantee_4_a_launch_waits_until_there_is_room() -> None:
    now = [0.0]
    service = Service(failures("RESOURCE:CPU"), BUSY, "arn")
    pauses, result = run(patience(now, 1800).attempts(service.attempt), now)
    assert result == "arn"
    assert pauses == [
        Pause(5.0, "there is no capacity for the task at present", Cause.CAPACITY),
        Pause(2.0, "AWS limits the rate of requests", Cause.RATE_LIMIT),
    ]


def test_a_launch_gives_up_at_its_deadline_and_says_what_was_tried() -> None:
    now = [0.0]
    service = Service(*[BUSY] * 10)
    with pytest.raises(LaunchError) as error:
        run(patience(now, 10).attempts(service.attempt), now)
    assert str(error.value) == (
        "Gave up after 7 s and 4 tries because AWS limits the rate of requests; the "
        "last answer to RunTask was ThrottlingException: Rate exceeded"
    )


def test_what_is_final_is_not_tried_again() -> None:
    now = [0.0]
    service = Service(Answer("BlockedException"), "never")
    with pytest.raises(Refused):
        run(patience(now, 10).attempts(service.attempt), now)
    assert service.answers == ["never"]


def test_a_launch_keeps_its_place_in_every_queue() -> None:
    now = [0.0]
    first, second = patience(now, 10), patience(now, 10)
    earlier = Patience(-1, 10, lambda: now[0])
    assert earlier.place < first.place < second.place


def test_what_a_launch_does_besides_is_not_taken_from_its_time() -> None:
    """Such as reading its run again at an API that is away for an hour."""
    now = [0.0]
    launch = patience(now, 10)
    answers: List[Any] = [Refused("RunTask", Answer("ThrottlingException")), "arn"]

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

    assert drive(steps(), lambda _: None) == "arn"

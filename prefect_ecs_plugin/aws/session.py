"""The agent's AWS session: credentials as boto3 finds them, the user's retry mode."""

from __future__ import annotations

import os
import threading
from typing import Any, Dict, List, Mapping, Optional, Tuple

from botocore.config import Config
from botocore.credentials import RefreshableCredentials
from botocore.exceptions import BotoCoreError
from botocore.model import OperationModel
from botocore.session import Session
from botocore.validate import validate_parameters

from ..errors import ConfigurationError
from ..observability.counters import AgentCounters, Answered
from .models import models
from .retrying import Answer, Verdict, classify


class AWSClients:
    """Makes clients of one session, with one configuration.

    Args:
        aws_access_key_id: An explicit key; else boto3's own chain counts.
        aws_secret_access_key: Its secret.
        aws_session_token: Its token, for temporary keys.
        region_name: The region; else boto3's own chain counts.
        botocore_config: Options of `botocore.config.Config`.
        max_pool_connections: How many connections a client keeps, unless
            botocore_config says so itself.
        counts: Counts the requests of all clients.

    Raises:
        ConfigurationError: one line with what to set, if there is no region, there
            are no credentials, or the configuration is not valid.
    """

    def __init__(
        self,
        *,
        aws_access_key_id: Optional[str] = None,
        aws_secret_access_key: Optional[str] = None,
        aws_session_token: Optional[str] = None,
        region_name: Optional[str] = None,
        botocore_config: Optional[Mapping[str, Any]] = None,
        max_pool_connections: int = 10,
        counts: Optional[AgentCounters] = None,
    ) -> None:
        self._requests = (counts or AgentCounters()).aws_requests
        self._making = threading.Lock()
        try:
            self.session = _session(
                aws_access_key_id, aws_secret_access_key, aws_session_token, region_name
            )
            self.session.register("needs-retry", self._count)
            self.region_name: str = self.session.get_config_variable("region")
            options = botocore_config or {}
            self._config = client_config(self.session, options, max_pool_connections)
            self._ecs_config = ecs_config(self.session, options, self._config)
            if not _speaks_of_validation(self.session, options):
                self.session.register("before-parameter-build.ecs", _validate)
            has_credentials = self.session.get_credentials() is not None
        except (BotoCoreError, TypeError, ValueError) as error:
            raise _unusable(error) from error
        if not has_credentials:
            raise ConfigurationError(
                "There are no AWS credentials; set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY or AWS_PROFILE, run `aws configure`, or give "
                "the machine or task a role.",
                code="no-credentials",
            )
        if not self.region_name:
            raise ConfigurationError(
                "There is no AWS region; set AWS_DEFAULT_REGION, or region in "
                "~/.aws/config.",
                code="no-region",
            )

    def __call__(self, service: str, region: Optional[str] = None) -> Any:
        """Make a client for a service, such as `ecs`.

        Unless the user has configured retries, botocore does not retry calls to ECS:
        the caller retries them, through the rate limiter and without holding a thread.
        Unless the user has configured validation, botocore does not validate RunTask.

        Args:
            service: Its name, as boto3 spells it.
            region: The region; None is the session's.

        Raises:
            ConfigurationError: if the settings do not go together.
        """
        try:
            with self._making:  # a session must not make two clients at the same time
                return self.session.create_client(
                    service,
                    region_name=region,
                    config=self._ecs_config if service == "ecs" else self._config,
                )
        except (BotoCoreError, ValueError) as error:
            raise _unusable(error) from error

    def _count(
        self,
        operation: Any,
        response: Optional[Tuple[Any, Mapping[str, Any]]],
        **_: Any,
    ) -> None:
        """Count one attempt of a request, before botocore decides whether to retry.

        The result None leaves that decision to botocore.
        """
        result = _result(response[1] if response else {})
        self._requests.add(operation.service_model.service_name, operation.name, result)

    def secrets(self) -> List[str]:
        """The secret key and the token, unless they are fetched anew all the time."""
        credentials = self.session.get_credentials()
        if credentials is None or isinstance(credentials, RefreshableCredentials):
            return []
        return [each for each in (credentials.secret_key, credentials.token) if each]


def _session(
    access_key: Optional[str],
    secret_key: Optional[str],
    token: Optional[str],
    region: Optional[str],
) -> Session:
    """A session with these credentials and this region, or else those it finds."""
    session = Session()
    if access_key or secret_key or token:
        session.set_credentials(access_key, secret_key, token)
    if region is not None:
        session.set_config_variable("region", region)
    loader = models(session.get_config_variable("data_path"))
    session.register_component("data_loader", loader)
    return session


def _unusable(error: Exception) -> ConfigurationError:
    return ConfigurationError(
        f"The AWS settings cannot be used: {error}; check AWS_PROFILE, the AWS_* "
        "variables and ~/.aws/config.",
        code="aws-settings",
    )


def _result(answer: Mapping[str, Any]) -> Answered:
    """How an attempt ended; an empty answer means that none arrived."""
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if status is None:
        return Answered.FAILED
    if status < 300:
        return Answered.OK
    if classify(Answer.from_response(answer)).verdict is Verdict.THROTTLED:
        return Answered.THROTTLED
    return Answered.FAILED if status >= 500 else Answered.REFUSED


def client_config(
    session: Session, options: Mapping[str, Any], max_pool_connections: int
) -> Config:
    """The user's options, and `standard` retries where the user said nothing.

    botocore takes a mode in Config before AWS_RETRY_MODE before the config file,
    and resolves the number of attempts separately, so only the mode is added.
    https://boto3.amazonaws.com/v1/documentation/api/latest/guide/retries.html
    """
    defaults: Dict[str, Any] = {"max_pool_connections": max_pool_connections}
    config = Config(**{**defaults, **options})
    retries = dict(config.retries or {})
    if "mode" in retries or _says(session, "retry_mode"):
        return config
    return config.merge(Config(retries={**retries, "mode": "standard"}))


def ecs_config(session: Session, options: Mapping[str, Any], config: Config) -> Config:
    """What `client_config` returned, with one attempt and without validation.

    The user's options and settings still take precedence.
    """
    changes: Dict[str, Any] = {}
    if not (
        options.get("retries")
        or _says(session, "retry_mode")
        or _says(session, "max_attempts")
    ):
        changes["retries"] = {**(config.retries or {}), "total_max_attempts": 1}
    if not _speaks_of_validation(session, options):
        changes["parameter_validation"] = False
    return config.merge(Config(**changes))


def _speaks_of_validation(session: Session, options: Mapping[str, Any]) -> bool:
    """Whether the user has configured whether botocore validates parameters."""
    return "parameter_validation" in options or _says(session, "parameter_validation")


def _validate(params: Mapping[str, Any], model: OperationModel, **_: Any) -> None:
    """Validate the parameters of a call of ECS, as botocore does by default.

    RunTask is left out: it is called once for each run, and `kwargs.build` has coerced
    its parameters to the types of the same model.

    Raises:
        ParamValidationError: if they do not match the model.
    """
    if model.name != "RunTask":
        validate_parameters(params, model.input_shape)


def _says(session: Session, name: str) -> bool:
    """Whether the environment or the configuration file has a setting."""
    file = session.get_scoped_config()
    return bool(os.environ.get(f"AWS_{name.upper()}") or file.get(name))

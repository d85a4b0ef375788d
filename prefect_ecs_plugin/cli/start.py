"""The click group `ecs`, which replaces Prefect's own, and the command `start`."""

from __future__ import annotations

import logging
import sys
import traceback
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Callable, ClassVar, Dict, Iterator, List, Mapping, Optional

import click
from prefect import config
from prefect.cli.agent import COMMON_START_OPTIONS, start_agent
from prefect.exceptions import AuthorizationError, ClientError

from .. import errors, limits, settings
from .._startup import REMEDY, stand_in
from ..aws import container_logs, secret_arn
from ..errors import ConfigurationError, PrefectECSError
from ..observability import log_formats
from ..observability.redaction import Secrets
from .click_types import (
    FiniteFloat,
    Integer,
    NamedCommand,
    NamedGroup,
    OffFlag,
    check_values,
    option_group,
)
from .option_sources import name_in


def _checked_by(check: Callable[[str, Any], object]) -> Callable[..., Any]:
    """A callback that refuses the values which a check of the agent refuses.

    Args:
        check: Takes the option and its value; raises a ConfigurationError.
    """

    def checked(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        try:
            if value is not None:
                check(name_in(ctx, param), value)
        except ConfigurationError as error:
            raise click.UsageError(str(error), ctx) from error
        return value

    return checked


_AWS_OPTIONS: Any = [
    click.option(
        "--cluster",
        help="The cluster's name or ARN. Default: the account's cluster `default`.",
    ),
    click.option(
        "--launch-type",
        type=click.Choice(["FARGATE", "EC2"], case_sensitive=False),
        help="The launch type of tasks. Default: FARGATE, unless set in "
        "--run-task-kwargs.",
    ),
    click.option(
        "--task-role-arn",
        help="The task role of runs, unless their run config or template names one.",
    ),
    click.option(
        "--execution-role-arn",
        help="The execution role of runs, unless their run config or template "
        "names one.",
    ),
    click.option(
        "--flow-log-group",
        metavar="NAME",
        callback=_checked_by(container_logs.check_group),
        help="The CloudWatch log group of flow runs: containers of a rendered "
        "definition that have no logConfiguration log there, with awslogs.",
    ),
]

_LAUNCH_OPTIONS: Any = [
    click.option(
        "--task-definition",
        "task_definition_path",
        metavar="PATH",
        help="The task definition template of runs whose run config has none: a YAML "
        "file, local or at s3://, gs:// or http(s)://.",
    ),
    click.option(
        "--run-task-kwargs",
        "run_task_kwargs_path",
        metavar="PATH",
        help="A YAML file with further arguments for ECS's RunTask, local or remote, "
        "or env://NAME: the environment variable NAME holds the YAML itself.",
    ),
    click.option(
        "--template-host",
        "template_hosts",
        multiple=True,
        metavar="HOST",
        help="A host from which run configs may load templates by http(s)://; repeat "
        "the option for several hosts. Default: any host.",
    ),
    click.option(
        "--launches-per-second",
        type=FiniteFloat(min=0, min_open=True),
        help="The limit on tasks launched per second, of which the agent uses 95%. "
        "Default: AWS's, 20 on Fargate and 40 on EC2.",
    ),
    click.option(
        "--launch-timeout",
        type=FiniteFloat(min=0),
        default=settings.DEFAULT_LAUNCH_TIMEOUT,
        help="How long to keep retrying a launch that ECS refuses, in seconds. 0: no "
        "retries.",
    ),
    click.option(
        "--max-delay",
        type=FiniteFloat(min=0),
        default=settings.DEFAULT_MAX_DELAY,
        help="Seconds after its scheduled start in which a run is launched for the "
        "first time. A run that is found later is Cancelled. 0: no limit.",
    ),
    click.option(
        "--limit",
        "limits",
        multiple=True,
        metavar="LIMIT",
        callback=_checked_by(lambda _, given: limits.merged(map(limits.parse, given))),
        help="How many runs may be under way at once: N, flow=NAME:N, label=NAME:N or "
        "project=NAME:N. Further runs stay Scheduled. Repeat the option for several "
        "limits; give them to all agents. Default: any number.",
    ),
    click.option(
        "--limits",
        "limits_path",
        metavar="PATH",
        help="A YAML file with such limits, local or remote. It is read again when it "
        "changes.",
    ),
    click.option(
        "--max-vcpus",
        metavar="N|quota",
        callback=_checked_by(lambda _, given: limits.vcpu_limits(given)),
        help="How many vCPUs the tasks of all runs may ask for at once; quota: what "
        "AWS's quotas of Fargate leave. Default: any number.",
    ),
]

_WATCH_OPTIONS: Any = [
    click.option(
        "--no-watch",
        "watch",
        cls=OffFlag,
        help="Do not watch tasks after their launch.",
    ),
    click.option(
        "--start-attempts",
        type=Integer(min=1),
        default=settings.DEFAULT_START_ATTEMPTS,
        help="How many times to start a task that never ran before the run is Failed.",
    ),
    click.option(
        "--start-deadline",
        type=FiniteFloat(min=0),
        default=settings.DEFAULT_START_DEADLINE,
        help="Seconds from a task's creation until it has to be RUNNING. A later task "
        "is stopped and its run launched again. 0: no limit.",
    ),
    click.option(
        "--max-runtime",
        type=FiniteFloat(min=0),
        default=settings.DEFAULT_MAX_RUNTIME,
        help="Seconds for which a task may run, unless PREFECT_ECS_MAX_RUNTIME in its "
        "run's env says otherwise. Then it is stopped and the run Failed. 0: no limit.",
    ),
    click.option(
        "--on-interruption",
        type=click.Choice(settings.ON_INTERRUPTION),
        default=settings.DEFAULT_ON_INTERRUPTION,
        help="What to do when AWS interrupts a run's task. resume: the run goes on if "
        "the task runs that were running have retries left. resume-all: without "
        "retries too. fail: the run is Failed.",
    ),
    click.option(
        "--max-interruptions",
        type=Integer(min=0),
        default=settings.DEFAULT_MAX_INTERRUPTIONS,
        help="How many times one run goes on after an interruption.",
    ),
    click.option(
        "--spot-patience",
        type=FiniteFloat(min=0),
        default=settings.DEFAULT_SPOT_PATIENCE,
        help="Seconds without Spot capacity after which a run on FARGATE_SPOT alone "
        "is launched on FARGATE.",
    ),
    click.option(
        "--no-spot-fallback",
        "spot_fallback",
        cls=OffFlag,
        help="Keep runs on FARGATE_SPOT: neither a lack of capacity nor interruptions "
        "move them to FARGATE.",
    ),
    click.option(
        "--max-memory",
        type=Integer(min=1),
        metavar="MIB",
        help="When a task on Fargate is killed for memory, its run goes on with twice "
        "as much, up to this. Default: the run is Failed.",
    ),
    click.option(
        "--cancel-grace",
        type=FiniteFloat(min=0),
        default=settings.DEFAULT_CANCEL_GRACE,
        help="Seconds between the cancellation of a run and StopTask, in which the "
        "flow can end by itself.",
    ),
    click.option(
        "--shutdown-grace",
        type=FiniteFloat(min=0),
        default=settings.DEFAULT_SHUTDOWN_GRACE,
        help="How long the agent may take to shut down after SIGTERM, in seconds.",
    ),
]

_SECRET_OPTIONS: Any = [
    click.option(
        "--api-key-secret-arn",
        metavar="ARN",
        callback=_checked_by(secret_arn.parse),
        help="The Secrets Manager secret (a JSON key is allowed) or SSM parameter from "
        "which flow runs get their API key. Default: the key is passed in plain text.",
    ),
    click.option(
        "--key-from-secret",
        metavar="ARN",
        callback=_checked_by(secret_arn.parse),
        help="The secret or parameter from which the agent reads its own API key at "
        "its start, instead of --key.",
    ),
]

_OUTPUT_OPTIONS: Any = [
    click.option(
        "--log-format",
        type=click.Choice(log_formats.FORMATS),
        default="text",
        help="The format of the agent's own log: as in Prefect's configuration, or "
        "one JSON object per line.",
    ),
    click.option(
        "--prices",
        type=click.Choice(settings.PRICES),
        default=settings.DEFAULT_PRICES,
        help="Where the prices of tasks come from. table: the package. aws: AWS's "
        "Price List, once a day (pricing:GetProducts). off: no prices.",
    ),
]


class _Lazy(NamedGroup):
    """Imports a command's module only when the command is run or listed."""

    modules: ClassVar[Dict[str, str]] = {
        "check": "prefect_ecs_plugin.cli.check.command",
        "costs": "prefect_ecs_plugin.cli.costs.command",
        "exec": "prefect_ecs_plugin.cli.exec",
        "explain": "prefect_ecs_plugin.cli.explain.command",
        "install": "prefect_ecs_plugin.cli.install.command",
        "logs": "prefect_ecs_plugin.cli.logs",
        "prune": "prefect_ecs_plugin.cli.prune.command",
        "sandbox": "prefect_ecs_plugin.sandbox.command",
        "status": "prefect_ecs_plugin.cli.status.command",
    }

    def list_commands(self, ctx: click.Context) -> List[str]:
        return sorted([*super().list_commands(ctx), *self.modules])

    def get_command(self, ctx: click.Context, cmd_name: str) -> Optional[click.Command]:
        if cmd_name in self.modules:
            return _imported(self.modules[cmd_name], cmd_name)
        return super().get_command(ctx, cmd_name)


def _imported(module: str, name: str) -> click.Command:
    """The command, or a stand-in that says why it cannot be loaded."""
    try:
        command = getattr(import_module(module), name)
    except Exception as error:  # a damaged file can raise anything
        reason = f"{type(error).__name__}: {error}"
        return stand_in(
            name, f"the command cannot be loaded ({reason}): {REMEDY} [damaged-install]"
        )
    assert isinstance(command, click.Command)
    return command


@click.group(cls=_Lazy)
def ecs() -> None:
    """Run flows as Amazon ECS tasks.

    \b
    Example:
        prefect agent ecs start --label prod --cluster my-cluster
    """


@ecs.command(cls=NamedCommand)
@option_group("Prefect", COMMON_START_OPTIONS)
@option_group("AWS", _AWS_OPTIONS)
@option_group("Launching", _LAUNCH_OPTIONS)
@option_group("Watching", _WATCH_OPTIONS)
@option_group("Secrets", _SECRET_OPTIONS)
@option_group("Output", _OUTPUT_OPTIONS)
def start(**options: Any) -> None:
    """Start an agent that runs flows as ECS tasks.

    \b
    Examples:
        prefect agent ecs start --label prod --cluster my-cluster
        prefect agent ecs start --launch-type EC2 \\
            --task-definition s3://my-bucket/task_definition.yaml
    """
    check_values(options)
    logger = logging.getLogger(
        options["name"] or config.cloud.agent.get("name", "agent")
    )
    secrets = log_formats.take_over(logger, options["log_format"])
    with _one_line_errors(options, logger, secrets):
        from ..agent import ECSAgent
        from ..observability.malloc_arenas import limit_malloc_arenas

        limit_malloc_arenas()

        options["key"] = given_key(**options)
        del options["key_from_secret"]
        start_agent(ECSAgent, **options)


def given_key(
    key: Optional[str], key_from_secret: Optional[str], **_: Any
) -> Optional[str]:
    """The agent's own API key, from its options.

    Raises:
        ConfigurationError: if the key cannot be read from its secret.
    """
    if not key_from_secret:
        return key
    from ..aws import secret_value
    from ..aws.session import AWSClients

    return secret_value.read("--key-from-secret", key_from_secret, AWSClients())


@contextmanager
def _one_line_errors(
    options: Mapping[str, Any], logger: logging.Logger, secrets: Secrets
) -> Iterator[None]:
    """Report an error that keeps the agent from starting as one line."""
    try:
        yield
    except Exception as error:
        sentence = secrets.redact_text(_sentence(error, options))
        level = options.get("log_level") or config.cloud.agent.get("level")
        is_debugging = str(level).upper() == "DEBUG"
        if options["log_format"] == "json":
            logger.critical(sentence, exc_info=error if is_debugging else None)
            sys.exit(1)
        if is_debugging:
            click.echo(secrets.redact_text(traceback.format_exc()), err=True)
        raise click.ClickException(sentence) from error


def _sentence(error: Exception, options: Mapping[str, Any]) -> str:
    if isinstance(error, PrefectECSError):
        return str(error)
    api = options.get("api") or config.cloud.api or "''"
    reason = errors.reason(error.__cause__ or error)
    if isinstance(error, AuthorizationError):
        return (
            f"The Prefect API at {api} does not accept the API key: {reason} "
            "[api-key-rejected]"
        )
    if isinstance(error, (OSError, ClientError, RuntimeError)):
        return (
            f"The Prefect API at {api} cannot be used: {reason}. Set --api or "
            "PREFECT__CLOUD__API, and check that the API is running "
            "[prefect-api-unavailable]"
        )
    return (
        f"{type(error).__name__}: {reason}. Run with --log-level DEBUG to see the "
        "traceback [start-error]"
    )

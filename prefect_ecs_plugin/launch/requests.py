"""Makes the two requests that launch a run: its definition's, and RunTask's.

Runs of one flow have equal requests, but for what names the run. They are rendered and
checked once, for a stand-in, and remembered by the content of all that they are made
of; a further run costs a copy of the RunTask request with its own id in it.
"""

from __future__ import annotations

import logging
import uuid
from dataclasses import replace
from typing import Any, Callable, Dict, Mapping, NamedTuple, Optional, Tuple

from .. import kwargs, template
from ..aws.ecs import region_of
from ..config.sources import Reader
from ..errors import RunConfigError
from ..flow_run import FlowRun
from ..launch_record import LaunchRecord, launch_of
from ..lru import Memory, content_of
from ..observability.log_formats import log_context
from ..run_config import ECSRun
from ..scheduling.steps import Steps
from ..settings import AgentSettings, PrefectSettings
from ..validation import rules
from . import overflow, run_options


class Plan(NamedTuple):
    """What a run asks for.

    Attributes:
        flow_run: The run's facts.
        run_config: Its run config.
        merged: The agent's and the run's run_task kwargs; nothing changes them.
        content: What the last two are made of; None if it is not remembered.
    """

    flow_run: FlowRun
    run_config: ECSRun
    merged: Mapping[str, Any]
    content: Optional[str]


class _Rendered(NamedTuple):
    """The requests for all runs of a flow.

    Attributes:
        definition: The register_task_definition request.
        request: The RunTask request of `flow_run`.
        flow_run: The stand-in, or the run itself if its id has another length.
        moved: The variables that went from the request into the definition.
    """

    definition: Dict[str, Any]
    request: Dict[str, Any]
    flow_run: FlowRun
    moved: Tuple[str, ...]


class Requests:
    """Makes the requests of runs.

    Args:
        settings: Returns the agent's defaults; waits until they are known.
        prefect_settings: Returns what a run needs to reach its API.
        files: Reads the templates that run configs name.
        logger: The agent's own log.
        learn: Called with a run's id and dicts that may contain secrets to redact.
    """

    def __init__(
        self,
        *,
        settings: Callable[[], AgentSettings],
        prefect_settings: Callable[[], PrefectSettings],
        files: Reader,
        logger: logging.Logger,
        learn: Callable[..., object],
    ) -> None:
        self._settings = settings
        self._prefect_settings = prefect_settings
        self._files = files
        self._logger = logger
        self._learn = learn
        # No run has this id or this launch.
        self._stand_in = {"id": str(uuid.uuid4()), "launch": uuid.uuid4().hex}
        self._read: Memory[Tuple[ECSRun, Mapping[str, Any]]] = Memory()
        self._rendered: Memory[_Rendered] = Memory()

    def read(self, run_config: Any) -> Tuple[ECSRun, Mapping[str, Any]]:
        """A run config, and the agent's run_task kwargs merged with its own.

        Args:
            run_config: As the API gave it.

        Raises:
            RunConfigError: if it is damaged, or ECS does not know a key of its kwargs.
        """

        def parse() -> Tuple[ECSRun, Mapping[str, Any]]:
            parsed = ECSRun.from_serialized(run_config)
            own = parsed.run_task_kwargs or {}
            kwargs.check(own)
            run_options.read(parsed)
            return parsed, kwargs.merge(kwargs.agent_level(self._settings()), own)

        return self._read.get(content_of(run_config), parse)

    def plan(self, row: Mapping[str, Any], record: Optional[LaunchRecord]) -> Plan:
        """Read a run.

        Args:
            row: The run as the API gave it.
            record: Its launch; None if the caller has claimed the run.

        Raises:
            RunConfigError: one line that says what to correct.
        """
        try:
            flow_run = FlowRun.from_api(row)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RunConfigError(
                "The Prefect API gives no usable description of the run's flow "
                f"({type(error).__name__}: {error}); register the flow again.",
                code="no-flow-description",
            ) from error
        launch = record or launch_of(row)
        flow_run = replace(
            flow_run,
            launch=launch.name,
            attempt=launch.attempt,
            on_demand=launch.on_demand,
            memory=launch.memory,
            cpu=launch.cpu,
        )
        run_config, merged = self.read(row.get("run_config"))
        if launch.on_demand:
            merged = kwargs.on_demand(merged)
        return Plan(flow_run, run_config, merged, content_of(row.get("run_config")))

    def for_definition(
        self, plan: Plan, definition: Mapping[str, Any]
    ) -> Dict[str, Any]:
        """The RunTask request of a run with a definition that the user registered.

        Args:
            plan: The run.
            definition: As ECS describes it.

        Raises:
            RunConfigError: if ECS would refuse the request.
        """
        request = self._request(plan, definition)
        kwargs.check_request(request, definition)
        self._log(plan.flow_run.id, plan, definition, ())
        return request

    def both(self, plan: Plan) -> Steps[Tuple[Dict[str, Any], Dict[str, Any]]]:
        """The definition of a run that names none, and the request to run it.

        Args:
            plan: The run.

        Returns:
            Both requests; the first is that of other runs too and is not to be changed.

        Raises:
            RunConfigError: if ECS would refuse one of them.
            SourceError: if the run's template cannot be read.
        """
        flow_run, run_config = plan.flow_run, plan.run_config
        source, content = self._settings().task_definition, plan.content
        if run_config.task_definition:
            source = run_config.task_definition
        elif run_config.task_definition_path:
            source = yield from self._files.mapping(run_config.task_definition_path)
            self._learn(flow_run.id, source)
            content = content and content_of(content, source)
        plan = plan._replace(flow_run=self._stand_in_for(flow_run))
        rendered = self._rendered.get(
            content and content_of(content, plan.flow_run, self._prefect_settings()),
            lambda: self._render(plan, source),
        )
        self._log(flow_run.id, plan, rendered.definition, rendered.moved)
        return rendered.definition, _for_run(rendered, flow_run)

    def _stand_in_for(self, flow_run: FlowRun) -> FlowRun:
        """The run for which requests are rendered that serve all runs of a flow.

        Its id is as long as theirs, for ECS counts the characters of overrides.
        """
        if len(self._stand_in["id"]) != len(flow_run.id):
            return flow_run
        names: Dict[str, Any] = {**self._stand_in, "name": "", "version": 0}
        return replace(flow_run, attempt=1, **names)

    def _render(self, plan: Plan, source: Mapping[str, Any]) -> _Rendered:
        settings = self._settings()
        region = region_of(str(plan.merged.get("cluster"))) or settings.region
        settings = replace(settings, region=region)
        facts = (source, plan.flow_run, plan.run_config, settings)
        definition = template.build(*facts, plan.merged)
        request, moved = overflow.move_env_to_definition(
            self._request(plan, definition), definition
        )
        if moved:
            definition = template.build(*facts, plan.merged, moved)
        kwargs.check_request(request, definition)
        names = tuple(name for env in moved.values() for name in env)
        return _Rendered(definition, request, plan.flow_run, names)

    def _request(self, plan: Plan, definition: Mapping[str, Any]) -> Dict[str, Any]:
        run_options.check_memory(plan.run_config, plan.merged, definition)
        return kwargs.build(
            plan.merged,
            definition,
            plan.flow_run,
            plan.run_config,
            self._settings(),
            self._prefect_settings(),
        )

    def _log(
        self,
        run_id: str,
        plan: Plan,
        definition: Mapping[str, Any],
        moved: Tuple[str, ...],
    ) -> None:
        about = log_context(run_id)
        for name in kwargs.dropped_overrides(plan.merged, definition):
            self._logger.debug(
                "Flow run %s has no container %r: the agent's override is left out",
                run_id,
                name,
                extra=about,
            )
        if moved:
            self._logger.info(
                "Flow run %s: ECS takes %s characters of overrides, so these variables "
                "go into the task definition: %s",
                run_id,
                rules.MAX_OVERRIDES,
                ", ".join(moved),
                extra=about,
            )


def _for_run(rendered: _Rendered, flow_run: FlowRun) -> Dict[str, Any]:
    """A request for another run: a copy with its id wherever the stand-in's was."""
    names = {
        rendered.flow_run.id: flow_run.id,
        rendered.flow_run.client_token: flow_run.client_token,
    }

    def copied(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: copied(each) for key, each in value.items()}
        if isinstance(value, list):
            return [copied(each) for each in value]
        return names.get(value, value) if isinstance(value, str) else value

    request: Dict[str, Any] = copied(rendered.request)
    return request

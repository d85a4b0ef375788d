"""ECSRun: how a flow says which ECS task it wants.

A flow's author writes it, Prefect stores it as JSON, and an agent reads it back:

    ECSRun(...)              checks the arguments when the flow is written
    serialize()              returns the same as Prefect's own ECSRun, so that both
                             agents can read it
    pickle                   pickles as Prefect's own ECSRun, so that the flow's image
                             does not need this plugin
    ECSRun.from_serialized   reads what the API stored, for the agent

Nothing of AWS is imported before there is a definition or a request to check.
"""

from __future__ import annotations

import copy
import json
import os
import warnings
from dataclasses import replace
from typing import (
    Any,
    Dict,
    Iterable,
    Iterator,
    Mapping,
    Optional,
    Tuple,
    Union,
)

from prefect.run_configs.base import RunConfig
from prefect.utilities.filesystems import parse_path

from .errors import (
    ConfigurationError,
    RunConfigError,
    SourceError,
    UnsupportedRunConfig,
)
from .flow_run import FLOW_CONTAINER, plain
from .validation import arguments, coercion, rules
from .validation.excerpt import MAX_LINE, quoted, shortened
from .validation.yaml_text import parse_mapping, read_file

#: Schemes of paths that agents read.
_SCHEMES = ("file", "agent", "s3", "gs", "gcs", "http", "https")

_DEFINITIONS = ("task_definition", "task_definition_path", "task_definition_arn")
_STRINGS = (
    "task_definition_path",
    "task_definition_arn",
    "image",
    "task_role_arn",
    "execution_role_arn",
)
_SIZES = ("cpu", "memory")
_MAPPINGS = ("task_definition", "run_task_kwargs")
_MEMBERS = (*_STRINGS, *_SIZES, "env", *_MAPPINGS)

#: Types of run configs that the agent supports, and the members that each of them has.
_MEMBERS_OF = {"ECSRun": _MEMBERS, "UniversalRun": ("env",)}

#: Members of the requests, and the arguments that set them.
_ARGUMENTS = {
    "overrides.taskRoleArn": "task_role_arn",
    "overrides.executionRoleArn": "execution_role_arn",
    "overrides.cpu": "cpu",
    "overrides.memory": "memory",
    "containerDefinitions[0].image": "image",
}


class ECSRun(RunConfig):
    """Configure a flow run to run as an ECS task.

    A task consists of a task definition and the keyword arguments of `run_task`. The
    definition comes from one of `task_definition`, `task_definition_path` and
    `task_definition_arn`, or else from the agent; `run_task_kwargs` are merged over
    the agent's.

    Mistakes that ECS would refuse are errors here already. What ECS may accept is a
    warning: a key that is only unknown, since the agent may have a newer botocore than
    the author; a size that Fargate does not have, where neither `run_task_kwargs` nor
    `task_definition` says where the flow runs; a role that is a name and no ARN.

    Args:
        task_definition (dict): the keyword arguments of `register_task_definition`.
            The flow runs in the container named `flow`, which is added when it is
            missing. It is stored with the flow in Prefect's database.
        task_definition_path (str): where to read the definition from. A local path
            (without a scheme, or `file://` or `local://`) is read at once; `s3://`,
            `gs://`, `http(s)://` and `agent://` (local to the agent) are read by the
            agent when a run is due.
        task_definition_arn (str): a registered definition, as `family:revision` or
            full ARN, that has a container named `flow`.
        image (str): the image of the container `flow`. Not with
            `task_definition_arn`, whose image is fixed.
        env (dict): environment variables of the container `flow`. Values may be
            numbers or booleans.
        cpu (int or str): CPU of the task, in CPU units (`1024`) or vCPUs
            (`"1 vCPU"`).
        memory (int or str): memory of the task, in MiB (`2048`) or GB (`"2 GB"`).
        task_role_arn (str): the IAM role that the flow's code has.
        execution_role_arn (str): the IAM role with which ECS pulls the image, reads
            secrets and writes logs.
        run_task_kwargs (dict): keyword arguments of `run_task`. A key that is None
            removes the agent's.
        labels (iterable of str): labels that an agent must have to take the run.

    Raises:
        ConfigurationError: (a ValueError) when an argument has the wrong type, when
            more than one way of giving a definition is used, or when ECS would
            refuse the definition or the request.
        SourceError: (a ConfigurationError) when the file at a local
            `task_definition_path` cannot be read.

    Rules of ECS and their sources are in `prefect_ecs_plugin.validation.rules`.
    """

    def __init__(
        self,
        *,
        task_definition: Optional[Mapping[str, Any]] = None,
        task_definition_path: Optional[str] = None,
        task_definition_arn: Optional[str] = None,
        image: Optional[str] = None,
        env: Optional[Mapping[str, Any]] = None,
        cpu: Union[int, str, None] = None,
        memory: Union[int, str, None] = None,
        task_role_arn: Optional[str] = None,
        execution_role_arn: Optional[str] = None,
        run_task_kwargs: Optional[Mapping[str, Any]] = None,
        labels: Optional[Iterable[str]] = None,
    ) -> None:
        super().__init__(env=env)  # type: ignore[arg-type]  # a dict
        self.labels = arguments.listed(labels)
        path: Any = task_definition_path
        self.task_definition = task_definition
        self.task_definition_path = (
            os.fspath(path) if isinstance(path, os.PathLike) else path
        )
        self.task_definition_arn = task_definition_arn
        self.image = image
        self.cpu = cpu
        self.memory = memory
        self.task_role_arn = task_role_arn
        self.execution_role_arn = execution_role_arn
        self.run_task_kwargs = run_task_kwargs

        self._check_types()
        if self.task_definition_path is not None:
            self._read_local_path(self.task_definition_path)
        for warning in rules.raise_certain(
            _problems(self), ConfigurationError, "ECSRun: "
        ):
            # 2: the line that calls ECSRun.
            warnings.warn(f"ECSRun: {warning}", stacklevel=2)

    def _read_local_path(self, path: str) -> None:
        scheme, _, local = parse_path(path)
        if scheme not in _SCHEMES:
            raise ConfigurationError(
                f"ECSRun: unknown scheme {quoted(scheme)} of task_definition_path "
                f"{quoted(path)}; use one of {', '.join(_SCHEMES)}",
                code="unknown-scheme",
            )
        if scheme != "file":
            return
        try:
            text = read_file(local)
        except SourceError as error:
            raise SourceError(
                f"ECSRun: cannot read task_definition_path {shortened(path, 200)}: "
                f"{error}",
                code=error.code,
            ) from error
        try:
            self.task_definition = parse_mapping(text, path)
        except SourceError as error:
            raise SourceError(
                f"ECSRun: task_definition_path {error}", code=error.code
            ) from error
        self.task_definition_path = None

    @classmethod
    def from_serialized(cls, data: Optional[Mapping[str, Any]]) -> ECSRun:
        """The run config that the API stored with a flow run.

        Local paths are not read: they were the author's. What ECS would refuse is
        left for the agent to find in the rendered requests.

        Args:
            data: The serialized run config; None is an empty one. That of a
                `UniversalRun` gives its env and labels.

        Raises:
            UnsupportedRunConfig: When it is made for another kind of agent.
            RunConfigError: When it is damaged.
        """
        data = {"type": "ECSRun"} if data is None else plain(data)
        if not isinstance(data, dict) or not isinstance(data.get("type"), str):
            raise RunConfigError(
                "The stored run config is damaged: it has no type; register the flow "
                "again",
                code="damaged-run-config",
            )
        members = _MEMBERS_OF.get(data["type"])
        if members is None:
            raise UnsupportedRunConfig(
                f"The run config is a {shortened(data['type'], 80)}, but this agent "
                f"supports only {' and '.join(_MEMBERS_OF)}: change the flow's "
                "run_config",
                code="unsupported-run-config",
            )
        self = cls.__new__(cls)
        for name in _MEMBERS:
            setattr(self, name, data.get(name) if name in members else None)
        vars(self)["labels"] = data.get("labels")
        try:
            self._check_types()
        except ConfigurationError as error:
            reason = error.message[len("ECSRun: ") :]
            raise RunConfigError(
                f"The stored run config is damaged: {reason}; register the flow again",
                code=error.code,
            ) from error
        return self

    def _check_types(self) -> None:
        rules.raise_certain(_wrong_types(vars(self)), ConfigurationError, "ECSRun: ")
        self.labels = set(self.labels or ())
        for name in _SIZES:
            size = vars(self)[name]
            vars(self)[name] = None if size is None else str(size)
        self._check_definition()

    def _check_definition(self) -> None:
        given = [name for name in _DEFINITIONS if vars(self)[name] is not None]
        if len(given) > 1:
            raise ConfigurationError(
                f"ECSRun: {' and '.join(given)} each give a task definition: keep one",
                code="several-definitions",
            )
        if self.task_definition_arn is not None and self.image is not None:
            raise ConfigurationError(
                "ECSRun: image cannot be given with task_definition_arn, because the "
                "image of a registered task definition is fixed: remove one of the two",
                code="fixed-image",
            )

    def __repr__(self) -> str:
        """The arguments that were set, without what may hold a secret.

        The values of `env`, and what is nested in a definition or in kwargs, are `...`.
        """
        members = {name: vars(self)[name] for name in _MEMBERS}
        members["labels"] = sorted(self.labels) or None
        shown = (
            f"{name}={_shown(name, value)}"
            for name, value in members.items()
            if value is not None
        )
        return f"{type(self).__name__}({', '.join(shown)})"

    def __reduce_ex__(self, protocol: Any) -> Tuple[Any, ...]:
        # A flow carries its run config into the container, whose image may not have
        # this plugin. Prefect's own class has the same attributes.
        from prefect.run_configs import ECSRun as PrefectECSRun

        return object.__new__, (PrefectECSRun,), dict(vars(self))

    # Without these, copies would go through __reduce_ex__ and be Prefect's.

    def __copy__(self) -> ECSRun:
        twin = type(self).__new__(type(self))
        vars(twin).update(vars(self))
        return twin

    def __deepcopy__(self, memo: Dict[int, Any]) -> ECSRun:
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        vars(twin).update(copy.deepcopy(vars(self), memo))
        return twin


def _shown(name: str, value: Any) -> str:
    """What `repr` shows of an argument."""
    if not isinstance(value, Mapping):
        return quoted(value, MAX_LINE)
    entries = (
        f"{quoted(key)}: "
        + ("..." if name == "env" or _is_nested(each) else quoted(each))
        for key, each in value.items()
    )
    return f"{{{', '.join(entries)}}}"


def _is_nested(value: object) -> bool:
    return not isinstance(value, (str, int, float, type(None)))


def _wrong_types(members: Mapping[str, Any]) -> Iterator[rules.Problem]:
    for name in _SIZES:
        size = members[name]
        if isinstance(size, bool) or not isinstance(size, (int, str, type(None))):
            yield arguments.wrong_type(name, "an integer or a string", size)
    for names, kind, wanted in (
        (_STRINGS, str, "a string"),
        (_MAPPINGS, Mapping, "a dict"),
    ):
        for name in names:
            if not isinstance(members[name], (kind, type(None))):
                yield arguments.wrong_type(name, wanted, members[name])
    if members["env"] is not None:
        yield from arguments.variables("env", members["env"])
    if members["labels"] is not None:
        yield from arguments.strings("labels", members["labels"])


# --- what ECS would refuse ------------------------------------------------------


def _problems(run: ECSRun) -> Iterator[rules.Problem]:
    definition, kwargs = run.task_definition, run.run_task_kwargs
    for argument, value in (
        ("task_definition", definition),
        ("run_task_kwargs", kwargs),
    ):
        try:
            json.dumps(value)
        except (TypeError, ValueError, RecursionError) as error:
            yield rules.Problem(
                argument, f"cannot be stored as JSON: {error}", code="not-json"
            )
    for problem in rules.check_one_task(kwargs or {}):
        yield problem.within("run_task_kwargs")
    yield from _problems_of_arguments(run)
    yield from _problems_of_size(run)
    if definition or kwargs:
        yield from _problems_of_requests(run, definition or {}, kwargs or {})


def _problems_of_arguments(run: ECSRun) -> Iterator[rules.Problem]:
    """Check the arguments as members of both requests."""
    container = {"name": FLOW_CONTAINER, "image": run.image or None}
    overrides = {
        "taskRoleArn": run.task_role_arn,
        "executionRoleArn": run.execution_role_arn,
        "cpu": run.cpu,
        "memory": run.memory,
    }
    for problem in (
        *rules.check_definition({"containerDefinitions": [container]}, partial=True),
        *rules.check_run_task({"overrides": overrides}, partial=True),
    ):
        yield replace(problem, place=_ARGUMENTS.get(problem.place, problem.place))


def _problems_of_requests(
    run: ECSRun, definition: Mapping[str, Any], kwargs: Mapping[str, Any]
) -> Iterator[rules.Problem]:
    register, problems = coercion.coerce("RegisterTaskDefinition", definition)
    request, request_problems = coercion.coerce("RunTask", kwargs)
    overrides = rules.Part("", request).part("overrides").value
    # Without the sizes that arguments of the run config replace.
    left = {
        key: value
        for key, value in overrides.items()
        if key not in ("cpu", "memory") or not getattr(run, key)
    }
    # The definition as the agent will complete it.
    written = rules.Part("", register)
    containers = written.items("containerDefinitions")
    if FLOW_CONTAINER not in written.texts("containerDefinitions"):
        containers.append({"name": FLOW_CONTAINER})
    on_fargate = rules.placed_on_fargate(request)
    launch_type = "FARGATE" if on_fargate else None
    problems += rules.check_definition(register, launch_type, partial=True)
    request_problems += rules.check_run_task(
        {**request, "overrides": left},
        {**register, "containerDefinitions": containers} if definition else None,
        partial=True,
    )
    yield from (problem.within("task_definition") for problem in problems)
    yield from (problem.within("run_task_kwargs") for problem in request_problems)


def _problems_of_size(run: ECSRun) -> Iterator[rules.Problem]:
    """A size that Fargate does not have; a warning if the flow may run elsewhere."""
    kwargs = rules.Part("", run.run_task_kwargs or {})
    definition = rules.Part("", run.task_definition or {})
    compatibilities = definition.items("requiresCompatibilities")
    on_fargate = rules.placed_on_fargate(kwargs.value)
    if on_fargate is None and compatibilities:
        on_fargate = "FARGATE" in compatibilities
    if on_fargate is False:
        return
    overrides = kwargs.part("overrides")
    cpu = run.cpu or overrides.get("cpu")
    memory = run.memory or overrides.get("memory")
    place = "run_task_kwargs.overrides" if cpu or memory else "task_definition"
    if run.cpu or run.memory:
        place = " and ".join(filter(None, (cpu and "cpu", memory and "memory")))
    if on_fargate:  # the size of the definition itself is checked with the definition
        yield from rules.check_fargate_size(cpu, memory, place)
        return
    cpu, memory = cpu or definition.get("cpu"), memory or definition.get("memory")
    for problem in rules.check_fargate_size(cpu, memory, place):
        hint = "for other launch types, set launchType in run_task_kwargs"
        yield replace(problem, message=f"{problem.message}; {hint}", certain=False)

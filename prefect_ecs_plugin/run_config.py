"""ECSRun: how a flow says which ECS task it wants.

It is written by a flow's author, registered as JSON, and read back by an agent:

    ECSRun(...)              checks what the author wrote, while the author is there
    serialize()              gives what Prefect's own ECSRun gives, so that either
                             agent can read it
    pickle                   as Prefect's own ECSRun, so that a flow's image needs no
                             plugin
    ECSRun.from_serialized   what the API stored, for the agent

Nothing of AWS is imported before there is a definition or a request to check.
"""

from __future__ import annotations

import copy
import json
import os
import warnings
from typing import (
    TYPE_CHECKING,
    Any,
    Dict,
    Iterable,
    Iterator,
    List,
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
from .flow_run import FLOW_CONTAINER
from .validation.excerpt import joined, quoted, shortened
from .validation.yaml_text import parse_mapping, read_file

if TYPE_CHECKING:
    from .validation.rules import Problem


_SCHEMES = ("file", "agent", "s3", "gs", "gcs", "http", "https")

_DEFINITIONS = ("task_definition", "task_definition_path", "task_definition_arn")
_STRINGS = (
    "task_definition_path",
    "task_definition_arn",
    "image",
    "cpu",
    "memory",
    "task_role_arn",
    "execution_role_arn",
)
_MAPPINGS = ("task_definition", "env", "run_task_kwargs")
_MEMBERS = _STRINGS + _MAPPINGS


class ECSRun(RunConfig):
    """Configure a flow run to run as an ECS task.

    A task is a task definition and what is asked for at its launch. The definition
    is one of `task_definition`, `task_definition_path` and `task_definition_arn`, or
    else the agent's; `run_task_kwargs` are laid over the agent's.

    Mistakes that ECS would refuse are errors here already; a key that is merely
    unknown is a warning, since the agent may have a newer botocore than the author.

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
            takes the agent's away.
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
        labels = _labels(labels)
        super().__init__(env=env, labels=labels)  # type: ignore[arg-type]  # a dict
        self.task_definition = task_definition
        self.task_definition_path = _path(task_definition_path)
        self.task_definition_arn = task_definition_arn
        self.image = image
        self.cpu = _size("cpu", cpu)
        self.memory = _size("memory", memory)
        self.task_role_arn = task_role_arn
        self.execution_role_arn = execution_role_arn
        self.run_task_kwargs = run_task_kwargs

        _check_types(vars(self))
        _check_definitions(vars(self))
        if self.task_definition_path is not None:
            self._read_local_path(self.task_definition_path)
        for warning in _refuse(_problems(self)):
            # 2: the line that calls ECSRun.
            warnings.warn(f"ECSRun: {warning}", stacklevel=2)

    def _read_local_path(self, path: str) -> None:
        scheme, _, local = parse_path(path)
        if scheme not in _SCHEMES:
            raise ConfigurationError(
                f"ECSRun: task_definition_path {quoted(path)} has the scheme "
                f"{quoted(scheme)}, which no agent reads: use one of "
                f"{', '.join(_SCHEMES)}"
            )
        if scheme == "file":
            self.task_definition = _read(local, path)
            self.task_definition_path = None

    @classmethod
    def from_serialized(cls, data: Optional[Mapping[str, Any]]) -> ECSRun:
        """The run config that the API stored with a flow run.

        Local paths are not read: they were the author's. What ECS would refuse is
        left for the agent to find in the rendered requests.

        Args:
            data: the serialized run config; None is an empty one. That of a
                `UniversalRun` gives its env and labels.

        Raises:
            UnsupportedRunConfig: when it is made for another kind of agent.
            RunConfigError: when it is damaged.
        """
        data = {"type": "ECSRun"} if data is None else _plain(data)
        if not isinstance(data, dict) or not isinstance(data.get("type"), str):
            raise RunConfigError(
                "The stored run config is damaged: it has no type; register the flow "
                "again"
            )
        if data["type"] not in _MEMBERS_OF:
            raise UnsupportedRunConfig(
                f"The run config is a {shortened(data['type'], 80)}, and this agent "
                f"takes {' and '.join(_MEMBERS_OF)} only: change the flow's run_config"
            )
        return cls._from_members(data, _MEMBERS_OF[data["type"]])

    @classmethod
    def _from_members(cls, data: Mapping[str, Any], members: Iterable[str]) -> ECSRun:
        self = cls.__new__(cls)
        for name in _MEMBERS:
            setattr(self, name, data.get(name) if name in members else None)
        try:
            self.labels = _labels(data.get("labels"))
            self.cpu, self.memory = _size("cpu", self.cpu), _size("memory", self.memory)
            _check_types(vars(self))
            _check_definitions(vars(self))
        except ConfigurationError as error:
            raise RunConfigError(
                f"The stored run config is damaged: {_without_name(error)}; register "
                "the flow again"
            ) from error
        return self

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


#: Types that the agent takes, and the members that each of them has.
_MEMBERS_OF = {"ECSRun": _MEMBERS, "UniversalRun": ("env",)}


# --- the types of the arguments -------------------------------------------------


def _labels(labels: Any) -> Any:
    if labels is None:
        return set()
    if isinstance(labels, (str, bytes)):
        raise ConfigurationError(
            "ECSRun: labels is a list of strings, this is one: "
            f"labels=[{quoted(labels)}]"
        )
    try:
        found = list(labels)
    except TypeError:
        raise _wrong_type("labels", "a list of strings", labels) from None
    for label in found:
        if not isinstance(label, str):
            raise _wrong_type("labels", "a list of strings", label)
    return set(found)


def _path(path: Any) -> Any:
    return os.fspath(path) if isinstance(path, os.PathLike) else path


def _size(name: str, size: Any) -> Optional[str]:
    if size is None:
        return None
    if isinstance(size, bool) or not isinstance(size, (int, str)):
        raise _wrong_type(name, "an integer or a string", size)
    return str(size)


def _check_types(members: Mapping[str, Any]) -> None:
    for name in _STRINGS:
        if not isinstance(members[name], (str, type(None))):
            raise _wrong_type(name, "a string", members[name])
    for name in _MAPPINGS:
        if not isinstance(members[name], (Mapping, type(None))):
            raise _wrong_type(name, "a dict", members[name])
    for key, value in (members["env"] or {}).items():
        if not isinstance(key, str):
            raise _wrong_type(f"env: the name {quoted(key)}", "a string", key)
        if not isinstance(value, (str, bool, int, float, type(None))):
            raise _wrong_type(
                f"env[{quoted(key)}]", "a string, number or boolean", value
            )


def _wrong_type(name: str, wanted: str, value: Any) -> ConfigurationError:
    return ConfigurationError(
        f"ECSRun: {name} has to be {wanted}, not {type(value).__name__}"
    )


def _check_definitions(members: Mapping[str, Any]) -> None:
    given = [name for name in _DEFINITIONS if members[name] is not None]
    if len(given) > 1:
        raise ConfigurationError(
            f"ECSRun: {' and '.join(given)} each give a task definition: keep one"
        )
    if members["task_definition_arn"] is not None and members["image"] is not None:
        raise ConfigurationError(
            "ECSRun: image cannot be given with task_definition_arn, because the "
            "image of a registered task definition is fixed: drop one of the two"
        )


def _read(local: str, path: str) -> Dict[str, Any]:
    try:
        text = read_file(local)
    except (OSError, ValueError) as error:
        raise SourceError(
            f"ECSRun: cannot read task_definition_path {shortened(path, 200)}: "
            f"{getattr(error, 'strerror', None) or error}"
        ) from error
    try:
        return parse_mapping(text, path)
    except SourceError as error:
        raise SourceError(f"ECSRun: task_definition_path {error}") from error


# --- what ECS would refuse ------------------------------------------------------


def _problems(run: ECSRun) -> Iterator[Problem]:
    definition, kwargs = run.task_definition, run.run_task_kwargs
    yield from _unstorable("task_definition", definition)
    yield from _unstorable("run_task_kwargs", kwargs)
    yield from _reserved(kwargs or {})
    yield from _problems_of_arguments(run)
    if definition or kwargs:
        yield from _problems_of_requests(run, definition or {}, kwargs or {})


def _problems_of_arguments(run: ECSRun) -> Iterator[Problem]:
    """Arguments that stand for members of the definition, judged as these."""
    from .validation import rules

    container = {"name": FLOW_CONTAINER, "image": run.image or None}
    as_definition = {
        "taskRoleArn": run.task_role_arn,
        "executionRoleArn": run.execution_role_arn,
        "cpu": run.cpu,
        "memory": run.memory,
        "containerDefinitions": [container],
    }
    arguments = {
        "taskRoleArn": "task_role_arn",
        "executionRoleArn": "execution_role_arn",
        "containerDefinitions[0].image": "image",
    }
    for problem in rules.check_definition(as_definition, partial=True):
        place = arguments.get(problem.place, problem.place)
        yield rules.Problem(place, problem.message, problem.certain)


def _problems_of_requests(
    run: ECSRun, definition: Mapping[str, Any], kwargs: Mapping[str, Any]
) -> Iterator[Problem]:
    from .validation import coercion, rules

    register, problems = coercion.fit("RegisterTaskDefinition", definition)
    request, request_problems = coercion.fit("RunTask", kwargs)
    on_fargate = rules.placed_on_fargate(request)
    launch_type = "FARGATE" if on_fargate else None
    problems += rules.check_definition(register, launch_type, partial=True)
    request_problems += rules.check_run_task(
        _without_replaced(run, request),
        _with_flow_container(register) if definition else None,
        partial=True,
    )
    yield from _within("task_definition", problems)
    yield from _within("run_task_kwargs", request_problems)
    wanted = "FARGATE" in _listed(register.get("requiresCompatibilities"))
    if on_fargate or (on_fargate is None and wanted):
        yield from _size_on_fargate(run, request)


def _without_replaced(run: ECSRun, request: Mapping[str, Any]) -> Dict[str, Any]:
    """The request without the sizes that arguments of the run config replace."""
    replaced = [key for key in ("cpu", "memory") if getattr(run, key)]
    overrides = _overrides(request)
    left = {key: value for key, value in overrides.items() if key not in replaced}
    return {**request, "overrides": left}


def _size_on_fargate(run: ECSRun, request: Mapping[str, Any]) -> Iterator[Problem]:
    """The cpu and memory that the run config says, where it says both."""
    from .validation import rules

    overrides = _overrides(request)
    yield from rules.check_fargate_size(
        run.cpu or overrides.get("cpu"),
        run.memory or overrides.get("memory"),
        "cpu and memory" if run.cpu or run.memory else "run_task_kwargs.overrides",
    )


def _overrides(request: Mapping[str, Any]) -> Mapping[str, Any]:
    overrides = request.get("overrides")
    return overrides if isinstance(overrides, Mapping) else {}


def _with_flow_container(definition: Mapping[str, Any]) -> Dict[str, Any]:
    """The definition as the agent will complete it."""
    containers = _listed(definition.get("containerDefinitions"))
    names = [item.get("name") for item in containers if isinstance(item, dict)]
    added = [] if FLOW_CONTAINER in names else [{"name": FLOW_CONTAINER}]
    return {**definition, "containerDefinitions": [*containers, *added]}


def _listed(value: Any) -> List[Any]:
    return value if isinstance(value, list) else []


def _within(argument: str, problems: Iterable[Problem]) -> Iterator[Problem]:
    from .validation.rules import Problem

    for problem in problems:
        place = f"{argument}.{problem.place}" if problem.place else argument
        yield Problem(place, problem.message, problem.certain)


def _reserved(kwargs: Mapping[str, Any]) -> Iterator[Problem]:
    from .validation.rules import Problem, check_one_task

    for problem in check_one_task(kwargs):
        yield Problem(f"run_task_kwargs.{problem.place}", problem.message)


def _unstorable(argument: str, value: Any) -> Iterator[Problem]:
    from .validation.rules import Problem

    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        yield Problem(argument, f"cannot be stored as JSON: {error}")


def _refuse(problems: Iterable[Problem]) -> List[Problem]:
    """Raise what is certainly wrong, and give back what only may be."""
    found = list(problems)
    certain = list(dict.fromkeys(str(problem) for problem in found if problem.certain))
    if certain:
        raise ConfigurationError(joined(["ECSRun: " + certain[0], *certain[1:]]))
    return found


def _without_name(error: ConfigurationError) -> str:
    prefix = "ECSRun: "
    written = str(error)
    return written[len(prefix) :] if written.startswith(prefix) else written


def _plain(value: Any) -> Any:
    """Plain dicts and lists in place of the API client's boxes."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value

"""The flow runs to render: made-up runs of the flows in files, or of a plain flow."""

from __future__ import annotations

import contextlib
import os
import runpy
import sys
import uuid
from collections import Counter
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Sequence, Tuple

import prefect
from prefect.run_configs import UniversalRun
from slugify import slugify

from .context import CheckContext
from .findings import Finding, Status, failed, has_failed, ok, skipped, warning
from .flow_files import FlowFile, is_run

#: Stands for the ids that only the API can assign.
MADE_UP_ID = str(uuid.UUID(int=0))

_NOT_RUN = skipped(
    "It is not a .py file that mentions prefect, so the command does not run it.",
    "Name the file itself if it has a flow.",
    code="flow-file-not-run",
)
_SKIPPED = skipped("This file has no flow.", code="no-flow-in-file")
_NO_FLOW = failed(
    "This file has no flow.",
    "Assign the flow to a variable of the module.",
    code="no-flow-in-file",
)


class LoadedFlow(NamedTuple):
    """A flow, its file, and a run of it as the API would send it."""

    path: str
    flow: Any
    row: Dict[str, Any]


def runs(context: CheckContext) -> Iterator[Finding]:
    """A run of each flow in the files of `--flow`; without a file, of a flow that has
    no settings for ECS.
    """
    files = context.options.get("flow_files")
    if not files:
        context.rows = {"": row_of("any", None, {})}
        return
    loaded: List[LoadedFlow] = []
    found: List[Finding] = []
    for file in files:
        finding, flows = _read(file)
        found.append(finding.of("flow", file.path))
        loaded += flows
        if finding.status is not Status.SKIPPED:
            yield found[-1]
    yield from (each for each in found if each.status is Status.SKIPPED)
    if not loaded and not has_failed(found):
        yield failed(
            "None of the files of --flow has a flow.",
            "Assign the flow to a variable of the module.",
            code="no-flow-in-file",
        )
    names = _names(loaded)
    context.rows = {name: each.row for name, each in zip(names, loaded)}
    yield from _repeated_names(loaded)
    for name, each in zip(names, loaded):
        finding = _labels(each.flow, list(context.prefect.labels))
        yield finding.of("labels", flows=(name,))
    for name, each in zip(names, loaded):
        if isinstance(each.flow.storage, prefect.storage.Local):
            yield warning(
                "With Local storage the task finds the flow only if the image contains "
                "its file, at the same path.",
                "Use S3, Docker, Git or another storage that the task can reach.",
                code="local-storage",
            ).of("storage", flows=(name,))


def _read(file: FlowFile) -> Tuple[Finding, List[LoadedFlow]]:
    """The flows of a file, and what to say about the file."""
    try:
        if not is_run(file):
            return _NOT_RUN, []
        flows = load(file.path)
        loaded = [LoadedFlow(file.path, flow, _run_of(flow)) for flow in flows]
    except (Exception, SystemExit) as error:  # a flow's file may raise anything
        text = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(":.")
        finding = failed(
            f"This file cannot be loaded: {text}.",
            f"`python {file.path}` shows the traceback.",
            code="flow-file-error",
        )
        return finding, []
    if loaded:
        return ok(", ".join(flow.name for flow in flows)), loaded
    return (_NO_FLOW if file.is_named else _SKIPPED), []


def load(path: str) -> List[Any]:
    """The flows of a file, loaded and completed as `prefect register` does.

    The output of the file goes to stderr, so that stdout has the report only. Modules
    beside the file are forgotten: another folder may have others of the same name.
    """
    whole = os.path.abspath(path)
    folder = os.path.dirname(whole)
    before, modules = list(sys.path), set(sys.modules)
    sys.path.insert(0, folder)
    try:
        with contextlib.redirect_stdout(sys.stderr), prefect.context(
            {"loading_flow": True, "local_script_path": whole}
        ):
            names = runpy.run_path(whole, run_name="<flow>")
    finally:
        sys.path[:] = before
        for name in set(sys.modules) - modules:
            is_of_known_package = name.partition(".")[0] in modules
            if not is_of_known_package and _is_beside(folder, sys.modules[name]):
                del sys.modules[name]
    found = [value for value in names.values() if isinstance(value, prefect.Flow)]
    flows = list({id(flow): flow for flow in found}.values())
    for flow in flows:
        if flow.storage is None:
            flow.storage = prefect.storage.Local(path=whole, stored_as_script=True)
        if flow.run_config is None:
            flow.run_config = UniversalRun()
    return flows


def _is_beside(folder: str, module: Any) -> bool:
    """Whether a module is in a folder or below, and not in a virtualenv there: packages
    such as numpy cannot be imported twice.
    """
    path = os.path.abspath(getattr(module, "__file__", None) or "")
    return path.startswith(os.path.join(folder, "")) and "site-packages" not in path


def _names(loaded: Sequence[LoadedFlow]) -> List[str]:
    """A name for each flow, with its file if several flows have the same name."""
    used = Counter(each.flow.name for each in loaded)
    seen: Counter[str] = Counter()
    names: List[str] = []
    for path, flow, _ in loaded:
        name = flow.name if used[flow.name] == 1 else f"{flow.name} in {path}"
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name} #{seen[name]}")
    return names


def _repeated_names(loaded: Sequence[LoadedFlow]) -> Iterator[Finding]:
    paths: Dict[str, List[str]] = {}
    for each in loaded:
        paths.setdefault(each.flow.name, []).append(each.path)
    for name, found in paths.items():
        if len(found) > 1:
            where = ", ".join(dict.fromkeys(found))
            yield warning(
                f"{len(found)} flows have this name: in {where}. In one project each "
                "that is registered replaces the one before.",
                "Rename them, or register them in different projects.",
                code="same-flow-name",
            ).of("flow name", name)


def _run_of(flow: Any) -> Dict[str, Any]:
    return row_of(flow.name, flow.run_config.serialize(), _storage(flow))


def row_of(name: str, run_config: Any, storage: Mapping[str, Any]) -> Dict[str, Any]:
    """A flow run as the API sends it, with made-up ids."""
    return {
        "id": MADE_UP_ID,
        "name": "made-up-run",
        "version": 1,
        "serialized_state": {},
        "run_config": run_config,
        "flow": {
            "id": MADE_UP_ID,
            "name": name,
            "version": 1,
            "core_version": prefect.__version__,
            "storage": dict(storage),
        },
        "task_runs": [],
    }


def _storage(flow: Any) -> Dict[str, Any]:
    """The flow's storage; a Docker image that is not built yet gets its later name."""
    storage: Dict[str, Any] = flow.storage.serialize()
    if storage.get("type") != "Docker":
        return storage
    name = storage.get("image_name") or slugify(flow.name)
    tag = storage.get("image_tag") or "made-when-registered"
    return {**storage, "image_name": name, "image_tag": tag}


def _labels(flow: Any, agent_labels: List[str]) -> Finding:
    """An agent takes a run if it has all labels of the run; an agent with labels takes
    no run without labels.
    """
    labels = set(flow.storage.labels)
    labels.update(flow.run_config.labels)
    missing = sorted(labels - set(agent_labels))
    if missing:
        return failed(
            f"This agent does not take runs of this flow: it lacks {_listed(missing)}.",
            "Start it with " + " ".join(f"--label {each}" for each in missing) + ".",
            code="agent-lacks-label",
        )
    if agent_labels and not labels:
        return failed(
            "This agent does not take runs of this flow: the flow has no labels, and "
            f"the agent has {_listed(sorted(set(agent_labels)))}.",
            "Give the flow's run config one of these labels.",
            code="flow-without-labels",
        )
    return ok(_listed(sorted(labels)) if labels else "none, as the agent")


def _listed(labels: List[str]) -> str:
    plural = "s" if len(labels) > 1 else ""
    return f"the label{plural} {', '.join(map(repr, labels))}"

"""The flow runs to render: made-up runs of the flows in a file, or of a plain flow."""

from __future__ import annotations

import contextlib
import os
import runpy
import sys
import uuid
from typing import Any, Dict, Iterator, List, Mapping

import prefect
from slugify import slugify

from .context import CheckContext
from .findings import Finding, failed, ok, warning

#: Stands for the ids that only the API can assign.
MADE_UP_ID = str(uuid.UUID(int=0))


def runs(context: CheckContext) -> Iterator[Finding]:
    """A run of each flow in the file of `--flow`; without a file, of a flow that has no
    settings for ECS.
    """
    path = context.options.get("flow_path")
    if path is None:
        context.rows = [row_of("any", None, {})]
        return
    try:
        flows = load(path)
    except (Exception, SystemExit) as error:  # a flow's file may raise anything
        text = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(":.")
        yield failed(
            f"{path} cannot be loaded: {text}.",
            "Run the file with Python alone to see the traceback.",
            code="flow-file-error",
        )
        return
    if not flows:
        yield failed(
            f"{path} has no flow.",
            "Assign the flow to a variable of the module.",
            code="no-flow-in-file",
        )
        return
    context.rows = [
        row_of(
            flow.name,
            flow.run_config.serialize() if flow.run_config else None,
            _storage(flow),
        )
        for flow in flows
    ]
    yield ok(f"{path}: {', '.join(flow.name for flow in flows)}")
    for flow in flows:
        yield _labels(flow, list(context.prefect.labels)).of("labels", flow.name)
        if isinstance(flow.storage, prefect.storage.Local):
            yield warning(
                "With Local storage the task finds the flow only if the image contains "
                "its file, at the same path.",
                "Use S3, Docker, Git or another storage that the task can reach.",
                code="local-storage",
            ).of("storage", flow.name)


def load(path: str) -> List[Any]:
    """The flows of a file, loaded as `prefect register` does.

    The output of the file goes to stderr, so that stdout has the report only.
    """
    whole = os.path.abspath(path)
    before = list(sys.path)
    sys.path.insert(0, os.path.dirname(whole))
    try:
        with contextlib.redirect_stdout(sys.stderr), prefect.context(
            {"loading_flow": True, "local_script_path": whole}
        ):
            names = runpy.run_path(whole, run_name="<flow>")
    finally:
        sys.path[:] = before
    found = [value for value in names.values() if isinstance(value, prefect.Flow)]
    flows = list({id(flow): flow for flow in found}.values())
    for flow in flows:
        if flow.storage is None:
            flow.storage = prefect.storage.Local(path=whole, stored_as_script=True)
    return flows


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
    labels.update(flow.run_config.labels if flow.run_config else ())
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

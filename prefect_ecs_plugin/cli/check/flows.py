"""The flow runs to render: made-up ones, of the flows in a file or of none."""

from __future__ import annotations

import contextlib
import os
import runpy
import sys
import uuid
from typing import Any, Dict, Iterator, List, Mapping

import prefect
from slugify import slugify

from .facts import CheckContext
from .findings import Finding, failed, ok, sentence, warning

#: What stands for the ids that only the API can give.
MADE_UP_ID = str(uuid.UUID(int=0))


def runs(facts: CheckContext) -> Iterator[Finding]:
    """A run of each flow in the file of `--flow`; without one, of a flow that says
    nothing about ECS.
    """
    path = facts.options.get("flow_path")
    if path is None:
        facts.rows = [row_of("any", None, {})]
        return
    try:
        flows = load(path)
    except (Exception, SystemExit) as error:  # a flow's file may do what it likes
        yield failed(
            sentence(f"{path} cannot be loaded: {_told(error)}"),
            "Run it with Python alone to see where.",
        )
        return
    if not flows:
        yield failed(
            f"There is no flow in {path}.", "A flow has to be in a variable of it."
        )
        return
    facts.rows = [row_of_flow(flow) for flow in flows]
    yield ok(f"{path}: {', '.join(flow.name for flow in flows)}")
    for flow in flows:
        yield from _picked_up(flow, list(facts.prefect.labels))
        yield from _found_in_image(flow)


def _told(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def load(path: str) -> List[Any]:
    """The flows of a file, loaded as `prefect register` does.

    What the file prints goes to stderr, where it does not spoil our own output.
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


def row_of_flow(flow: Any) -> Dict[str, Any]:
    """A run of a flow as the API would send it, were it registered now."""
    run_config = flow.run_config.serialize() if flow.run_config else None
    return row_of(flow.name, run_config, _storage(flow))


def row_of(name: str, run_config: Any, storage: Mapping[str, Any]) -> Dict[str, Any]:
    """A flow run as the API sends it, with what is made up in place of ids."""
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
    """Its storage; a Docker image that is not built yet has the name it will get."""
    storage: Dict[str, Any] = flow.storage.serialize()
    if storage.get("type") != "Docker":
        return storage
    name = storage.get("image_name") or slugify(flow.name)
    tag = storage.get("image_tag") or "made-when-registered"
    return {**storage, "image_name": name, "image_tag": tag}


def _picked_up(flow: Any, agent_labels: List[str]) -> Iterator[Finding]:
    """An agent takes a run whose labels are among its own, and with labels none that
    has none.
    """
    ours = set(agent_labels)
    labels = set(flow.storage.labels)
    labels.update(flow.run_config.labels if flow.run_config else ())
    missing = sorted(labels - ours)
    if missing:
        yield failed(
            f"This agent takes no runs of it: it lacks {_listed(missing)}.",
            "Start it with " + " ".join(f"--label {each}" for each in missing) + ".",
        ).of("labels", flow.name)
    elif ours and not labels:
        yield failed(
            "This agent takes no runs of it: the flow has no labels and the agent has "
            f"{_listed(sorted(ours))}.",
            "Give the flow's run config one of them.",
        ).of("labels", flow.name)
    else:
        yield ok(_listed(sorted(labels)) if labels else "none, as the agent").of(
            "labels", flow.name
        )


def _listed(labels: List[str]) -> str:
    plural = "s" if len(labels) > 1 else ""
    return f"the label{plural} {', '.join(map(repr, labels))}"


def _found_in_image(flow: Any) -> Iterator[Finding]:
    if isinstance(flow.storage, prefect.storage.Local):
        yield warning(
            "Local storage: the task finds the flow only if its file is in the image, "
            "at the same path.",
            "Use S3, Docker, Git or another storage that the task can reach.",
        ).of("storage", flow.name)

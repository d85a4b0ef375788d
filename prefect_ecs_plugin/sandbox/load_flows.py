"""A program that finds out which flows some files have: `load_flows.py REPORT FILE...`.

It appends one JSON object per file to REPORT, as `flow_files.read` takes it. Each file
runs in a process of its own, with its folder first on `sys.path`, as in `python FILE`.
So a file that ends its process, or imports another `helpers` than the last one, does
not affect the next file.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import traceback
from typing import Any, Dict, List


def look(path: str) -> Dict[str, Any]:
    """Run a file and return its flows, or why it cannot be run."""
    import prefect

    folder = os.path.dirname(path)
    sys.path.insert(0, folder)
    try:
        # As `prefect register` does, so that `flow.run()` in the file does nothing.
        with prefect.context({"loading_flow": True, "local_script_path": path}):
            names = runpy.run_path(path, run_name="<flow>")
    except BaseException as error:  # SystemExit too
        return {"error": _one_line(error, path)}
    flows = {id(value): value for value in names.values()}.values()
    return {
        "flows": [_flow(flow) for flow in flows if isinstance(flow, prefect.Flow)],
        "siblings": _siblings(folder),
    }


def _flow(flow: Any) -> Dict[str, Any]:
    parameters = sorted(flow.parameters(), key=lambda parameter: str(parameter.name))
    return {
        "name": flow.name,
        "parameters": [parameter.name for parameter in parameters],
        "required": [each.name for each in parameters if each.required],
        "bucket": _bucket(flow.storage),
    }


def _bucket(storage: Any) -> str:
    """The S3 bucket of a storage; empty for another kind of storage."""
    from prefect.storage import S3

    return str(storage.bucket) if isinstance(storage, S3) else ""


def _one_line(error: BaseException, path: str) -> str:
    """The exception, and the line of the file where it was raised."""
    text = " ".join(
        "".join(traceback.format_exception_only(type(error), error)).split()
    )
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error}"
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == path
    ]
    text = " ".join(text.split())
    return f"{text} (line {lines[-1]})" if lines else text


def _siblings(folder: str) -> List[str]:
    """The modules and packages of the folder that the file has imported."""
    found = set()
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        top = name.partition(".")[0]
        if file in (
            os.path.join(folder, f"{top}.py"),
            os.path.join(folder, top, "__init__.py"),
        ):
            found.add(top)
    return sorted(found)


def main(report: str, paths: List[str]) -> None:
    """Look at each file in a process of its own."""
    import prefect  # noqa: F401  # once, for all of them

    for path in paths:
        size = os.path.getsize(report)
        child = os.fork()
        if not child:
            _append(report, path, look(os.path.abspath(path)))
            sys.stdout.flush()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.path.getsize(report) == size:
            code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -(status & 127)
            error = f"it ended its process with exit code {code}"
            _append(report, path, {"error": error})


def _append(report: str, path: str, found: Dict[str, Any]) -> None:
    with open(report, "a", encoding="utf-8") as file:
        file.write(json.dumps({"path": path, **found}) + "\n")


if __name__ == "__main__":
    # This package's own modules must not hide the user's; where the plugin is not
    # installed, flows find it all the same.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    sys.path.append(sys.path.pop(0))
    main(sys.argv[1], sys.argv[2:])

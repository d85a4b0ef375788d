"""What botocore reads about AWS's services, without what the agent has no use for.

botocore asks a loader for its data files: the models of services, their endpoints and
their pages. `Models` differs from botocore's own loader in three ways, to save memory
and CPU:

* Models in the folder `service_models` come first. Each has only the operations that
  are called, with the members that are read. botocore's model of EC2 takes 30 MiB while
  it is read; the agent asks EC2 for the default VPC once, when it starts.
* Files are read into plain dicts without documentation, which take less than half of
  the memory.
* ECS's answers show what is read of tasks: after RunTask their ARNs, otherwise
  `MEMBERS`. botocore would convert all other members too, one by one.

https://botocore.amazonaws.com/v1/documentation/api/latest/reference/loaders.html
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Tuple

from botocore.loaders import JSONFileLoader, Loader, create_loader

#: Our models of services, in botocore's format.
FOLDER = Path(__file__).with_name("service_models")

#: What is read of described tasks, by shape.
MEMBERS: Mapping[str, Tuple[str, ...]] = {
    "Task": (
        *("taskArn", "taskDefinitionArn", "startedBy", "overrides", "containers"),
        *("createdAt", "pullStartedAt", "pullStoppedAt", "startedAt"),
        *("stoppingAt", "executionStoppedAt", "stoppedAt"),
        *("stopCode", "stoppedReason"),
        *("lastStatus", "desiredStatus", "launchType", "capacityProviderName"),
        *("cpu", "memory", "ephemeralStorage", "platformFamily", "attributes"),
    ),
    "Container": ("name", "image", "lastStatus", "runtimeId", "exitCode", "reason"),
}

#: The tasks in the answer to RunTask.
_STARTED: Mapping[str, Any] = {
    "StartedTasks": {"type": "list", "member": {"shape": "StartedTask"}},
    "StartedTask": {"type": "structure", "members": {"taskArn": {"shape": "String"}}},
}

_OPEN: Mapping[str, Any] = {".json": open, ".json.gz": gzip.open}


class _Files(JSONFileLoader):  # type: ignore[misc]  # botocore has no types
    """Reads JSON files into plain dicts, without documentation."""

    def load_file(self, file_path: str) -> Optional[Dict[str, Any]]:
        """The content of a file whose path is given without `.json` or `.json.gz`.

        Returns:
            None if there is no such file.
        """
        for suffix, open_file in _OPEN.items():
            path = Path(file_path + suffix)
            if path.is_file():
                with open_file(path, "rb") as file:
                    content: Dict[str, Any] = json.load(
                        file, object_hook=_without_documentation
                    )
                return content
        return None


def _without_documentation(content: Dict[str, Any]) -> Dict[str, Any]:
    """Empty the documentation; botocore relies on there being one."""
    if isinstance(content.get("documentation"), str):  # no member of that name
        content["documentation"] = ""
    return content


class Models(Loader):  # type: ignore[misc]  # botocore has no types
    """Loads botocore's data files."""

    FILE_LOADER_CLASS = _Files

    def load_service_model(
        self, service_name: str, type_name: str, api_version: Optional[str] = None
    ) -> Dict[str, Any]:
        """A file about a service, such as its model; see botocore's own loader.

        Args:
            service_name: Such as `ecs`.
            type_name: What the file is about, such as `service-2`.
            api_version: Such as `2014-11-13`; None for the latest.
        """
        model: Dict[str, Any] = super().load_service_model(
            service_name, type_name, api_version
        )
        if (service_name, type_name) == ("ecs", "service-2"):
            _leave_out_unread(model["operations"], model["shapes"])
        return model


def _leave_out_unread(
    operations: Mapping[str, Any], shapes: Dict[str, Dict[str, Any]]
) -> None:
    for name, read in MEMBERS.items():
        members = shapes[name]["members"].items()
        shapes[name]["members"] = {
            key: member for key, member in members if key in read
        }
    shapes.update(_STARTED)
    answer = shapes[operations["RunTask"]["output"]["shape"]]
    answer["members"]["tasks"] = {"shape": "StartedTasks"}


def models(data_path: Optional[str]) -> Models:
    """The loader for a session.

    Args:
        data_path: The folders with data files of the user, as AWS_DATA_PATH has them;
            None for none. They come after our own.
    """
    paths = [str(FOLDER), *create_loader(data_path).search_paths]
    return Models(paths, include_default_search_paths=False)

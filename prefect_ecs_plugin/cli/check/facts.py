"""What the checks have found out so far, for those that come after."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Mapping, Optional

from ... import kwargs
from ...settings import AgentSettings, PrefectSettings
from .api_access import API
from .asking import AWS
from .preview import LaunchPreview


@dataclass(frozen=True)
class Identity:
    """Who the agent is for AWS.

    Attributes:
        account: The account's number.
        arn: The ARN, a role's session's too.
    """

    account: str
    arn: str

    @property
    def partition(self) -> str:
        """`aws`, `aws-cn`, `aws-us-gov`."""
        return self.arn.split(":")[1]


@dataclass
class CheckContext:
    """What was asked for, and what is known; None is not known.

    Attributes:
        options: The options of the command, those of `start` and `flow_path`.
        prefect: What a run would be told about its API; `api` knows better.
        env_vars: What `--env` and the Prefect config add to every run.
        now: Seconds since 1970.
        api: The Prefect API, once it has answered.
        aws: AWS, once there are settings for it.
        identity: Who the agent is there.
        settings: What the agent would work with.
        rows: The flow runs to render, as the API would send them.
        launches: What would be sent for each of them.
    """

    options: Mapping[str, Any]
    prefect: PrefectSettings
    env_vars: Dict[str, Any] = field(default_factory=dict)
    now: Callable[[], float] = time.time
    api: Optional[API] = None
    aws: Optional[AWS] = None
    identity: Optional[Identity] = None
    settings: Optional[AgentSettings] = None
    rows: Optional[List[Dict[str, Any]]] = None
    launches: List[LaunchPreview] = field(default_factory=list)

    def clusters(self) -> List[str]:
        """The names or ARNs of all clusters that runs would be sent to."""
        if self.launches:
            found = [launch.cluster for launch in self.launches]
        elif self.settings is not None:
            found = [kwargs.agent_level(self.settings).get("cluster", "default")]
        else:
            found = [self.options.get("cluster") or "default"]
        return list(dict.fromkeys(found))

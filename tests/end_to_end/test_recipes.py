"""The run configs of docs/recipes.md, sent to the sandbox's ECS by a real agent."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Dict

import prefect
import pytest

pytest.importorskip("moto", reason="the sandbox needs its extra and Python 3.10")

from sandbox_aws import ec2_cluster, subnets
from world import World, eventually

from prefect_ecs_plugin import ECSRun

PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="the docs are not installed")

#: Of the recipe that has one.
LABEL = "ads-eu-west-1"

_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)


def recipes(world: World) -> Dict[str, Any]:
    """The run configs of the page, by the heading that they stand below.

    Their subnets and security groups are those that there are.
    """
    ec2 = world.aws.client("ec2")
    groups = [
        each["GroupId"] for each in ec2.describe_security_groups()["SecurityGroups"]
    ]
    text = PAGE.read_text(encoding="utf-8")
    for pattern, names in (("subnet", subnets(world.aws)), ("sg", groups)):
        for example, name in zip(
            sorted(set(re.findall(pattern + r"-[0-9a-f]{17}", text))), names
        ):
            text = text.replace(example, name)
    found = {}
    for part in text.split("\n## ")[1:]:
        for number, block in enumerate(_BLOCK.findall(part)):
            flow = SimpleNamespace()
            exec(block, {"ECSRun": ECSRun, "flow": flow})
            found[f"{part.splitlines()[0]}, {number}"] = flow.run_config
    return found


def test_ecs_takes_every_recipe(tmp_path: Path) -> None:
    with World(tmp_path, runs_tasks=False).running() as world:
        world.aws.client("ecs").create_cluster(clusterName="batch")
        ec2_cluster(world.aws, "gpu")
        found = recipes(world)
        assert len(found) >= 9
        flow_id = world.register(prefect.Flow("cooked"))
        runs = {
            name: world.run(flow_id, run_config=run_config, labels=[LABEL])
            for name, run_config in found.items()
        }
        with world.agent("--label", LABEL):
            for name, run_id in runs.items():
                eventually(
                    lambda run_id=run_id: (
                        world.tasks_of(run_id) or world.states([run_id]) == ["Failed"]
                    )
                )
                assert world.tasks_of(run_id), (name, world.log(run_id))

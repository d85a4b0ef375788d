"""The sandbox's example: parameters, a mapped task, log lines and an `ECSRun`.

It runs as it stands on a real cluster, too: register it with
`prefect register --project NAME --path example_flow.py` and start the agent there.
"""

from __future__ import annotations

import os
from typing import Dict, List, Tuple

import prefect
from prefect import Flow, Parameter, task

from prefect_ecs_plugin import ECSRun

#: How strongly each planet pulls, the Earth being 1.
PULL: Dict[str, float] = {"Mars": 0.38, "Jupiter": 2.53, "Saturn": 1.06}


@task
def weigh(planet: str, on_earth: float) -> Tuple[str, float]:
    """Return what a body of so many kg on Earth would seem to weigh on a planet."""
    weight = round(on_earth * PULL[planet], 1)
    unit = os.environ.get("UNIT", "(no unit)")
    prefect.context["logger"].info("On %s you would feel %s %s", planet, weight, unit)
    return planet, weight


@task
def lightest(weights: List[Tuple[str, float]]) -> str:
    """Return the planet with the least weight."""
    planet, _ = min(weights, key=lambda weight: weight[1])
    prefect.context["logger"].info("You would jump highest on %s", planet)
    return planet


with Flow(
    "example",
    run_config=ECSRun(cpu="512", memory="1024", env={"UNIT": "kg"}),
) as flow:
    planets = Parameter("planets", default=list(PULL))
    on_earth = Parameter("on_earth", default=70)
    lightest(weigh.map(planets, on_earth=prefect.unmapped(on_earth)))

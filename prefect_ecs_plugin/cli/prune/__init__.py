"""`prefect agent ecs prune`: deregisters this plugin's unused task definitions.

command      the options, the list, the progress
definitions  which definitions prune may remove                    (pure)
account      calls to ECS, below its rate limits, and to the Prefect API

Guarantees:

* A definition is removed only if its family ends in the digest that this plugin gives
  it and it has this plugin's tag. Definitions of an agent without permission to tag
  have no tag, so they stay.
* A definition stays while a task that was not asked to stop runs with it, and while it
  is younger than the given age. If prune cannot read this, it removes nothing.
* An agent that launches with a removed definition registers it again.
"""

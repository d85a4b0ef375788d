"""`prefect agent ecs costs`: what the tasks of flow runs used and cost, added up.

command  the options and the table
reading  the lines about stopped tasks, from an agent's log or from the Prefect API
sums     those tasks, added up by flow, label or day                       (pure)

A task counts once, however often its line was written. What an agent without
`--no-watch` did not see is not counted.
"""

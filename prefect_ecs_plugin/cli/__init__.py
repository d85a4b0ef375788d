"""The commands of `prefect agent ecs`; `start` has the group."""

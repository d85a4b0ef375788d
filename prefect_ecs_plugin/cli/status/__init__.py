"""`prefect agent ecs status`: what the agents of an API have taken, and what waits.

command     the options; refreshes the screen
reading     asks the Prefect API and ECS
overview    what was read -> what is shown (pure)
screen      that, as text for people or as JSON (pure)
"""

"""`prefect agent ecs prune`: deregisters this plugin's unused task definitions.

command   the options, the list, the progress
owning    which definitions are this plugin's, and which of them may go   (pure)
account   what is asked of ECS and told to it, below AWS's limits

Guarantees:

* A definition is touched only if its family ends in the digest that this plugin
  gives it and it bears this plugin's tag. An agent that may not tag leaves no trace,
  and what it registered stays.
* What a task runs with that has not been asked to stop stays, and so does what is
  younger than asked for. Where that cannot be seen, nothing is touched at all.
* An agent that launches with a definition that has gone registers it once more.
"""

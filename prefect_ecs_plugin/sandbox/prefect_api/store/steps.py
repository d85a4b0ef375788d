"""The steps in which a flow run enters a state, and how a test stops between them.

The server writes the state, the flow run's heartbeat and its `agent_id` in transactions
of their own, in that order, and other requests see the row in between. Seconds may pass
there under load.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Callable, List

#: The state is stored, the heartbeat is not yet.
STATE = "state"
#: The heartbeat is stored, `agent_id` is not yet.
HEARTBEAT = "heartbeat"


@dataclass(frozen=True)
class StepDone:
    """One step of a flow run's new state is stored, and another one follows.

    Args:
        flow_run_id: the flow run.
        state: the new state, such as `Submitted`.
        step: what has just been stored: STATE or HEARTBEAT.
    """

    flow_run_id: str
    state: str
    step: str


# Called between two steps, in the thread of the request and outside every transaction;
# the next step follows when it returns.
BetweenSteps = Callable[[StepDone], None]


class StepHold:
    """Holds flow runs between two steps until they are released.

        with StepHold() as hold:
            store.between_steps = hold
            run_id = hold.wait()  # Submitted now, heartbeat and agent_id as before
        # released

    Args:
        after: the step after which runs are held, STATE or HEARTBEAT.
        state: only runs that enter this state are held.
    """

    def __init__(self, after: str = STATE, state: str = "Submitted") -> None:
        self._after = after
        self._state = state
        self._held: List[str] = []
        self._changed = threading.Condition()
        self._released = False

    def __enter__(self) -> StepHold:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __call__(self, done: StepDone) -> None:
        if (done.step, done.state) != (self._after, self._state):
            return
        with self._changed:
            self._held.append(done.flow_run_id)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._released)
            self._held.remove(done.flow_run_id)

    @property
    def held(self) -> List[str]:
        """The ids of the flow runs that are held now."""
        with self._changed:
            return list(self._held)

    def wait(self, seconds: float = 60.0) -> str:
        """The id of a flow run that is held, as soon as there is one.

        Args:
            seconds: how long to wait for it.

        Raises:
            TimeoutError: no run was held in that time.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._held, seconds):
                raise TimeoutError(f"no flow run was held within {seconds} s")
            return self._held[0]

    def release(self) -> None:
        """Lets all runs go on, and holds none from now on."""
        with self._changed:
            self._released = True
            self._changed.notify_all()

"""What a Prefect server does to runs by itself; here only when it is called.

https://docs.prefect.io/orchestration/concepts/services.html
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import List

from ..states import RUNNING, simple
from ..tables import Row
from ..times import later, text
from .agents import Agents

_ALIVE = frozenset({"Scheduled", "Retrying", "Queued", "Resume", "Submitted"}) | RUNNING


class Services(Agents):
    """Lazarus and the zombie killer, each run once, at a time that is passed in."""

    def run_lazarus(
        self,
        now: datetime,
        stale_after: timedelta = timedelta(minutes=10),
        attempts: int = 3,
    ) -> List[str]:
        """Schedules again the runs that somebody took and nobody works on.

        Those are Submitted or Running, have had no heartbeat for so long, and no task
        run of theirs is scheduled or running. After `attempts` times they fail.

        Returns:
            The ids of the runs that it changed.
        """
        with self.transaction():
            runs = self.tables["flow_run"].having("state", ["Submitted", "Running"])
            oldest = text(now - stale_after)
            lost = [
                run
                for run in runs
                if (run["heartbeat"] or "") < oldest and not self._works(run)
            ]
            for run in lost:
                self._resurrect(run, text(now), attempts)
            return [run["id"] for run in lost]

    def _works(self, run: Row) -> bool:
        task_runs = self.tables["task_run"].having("flow_run_id", [run["id"]])
        return any(task_run["state"] in _ALIVE for task_run in task_runs)

    def _resurrect(self, run: Row, now: str, attempts: int) -> None:
        times = run["times_resurrected"] + 1
        if times > attempts:
            message = f"Lazarus gave the run up after {attempts} attempts."
            self._enter("flow_run", run, simple("Failed", message))
            return
        self.update("flow_run", run, times_resurrected=times)
        message = f"Lazarus scheduled the run again, attempt {times} of {attempts}."
        # Between two real visits of Lazarus the lock has long run out.
        self._locked_until.pop(run["id"], None)
        self._enter("flow_run", run, simple("Scheduled", message, start_time=now))

    def run_zombie_killer(
        self, now: datetime, stale_after: timedelta = timedelta(minutes=2)
    ) -> List[str]:
        """Ends the task runs that are Running without a heartbeat.

        A task that has retries left is Retrying, another Failed.

        Returns:
            The ids of the task runs that it changed.
        """
        with self.transaction():
            oldest = text(now - stale_after)
            dead = [
                task_run
                for task_run in self.tables["task_run"].having("state", ["Running"])
                if (task_run["heartbeat"] or "") < oldest
            ]
            for task_run in dead:
                self._bury(task_run, text(now))
            return [task_run["id"] for task_run in dead]

    def _bury(self, task_run: Row, now: str) -> None:
        task = self.row("task", task_run["task_id"])
        states = self.tables["task_run_state"].having("task_run_id", [task_run["id"]])
        runs = sum(state["state"] == "Running" for state in states)
        message = "The task run sent no heartbeat."
        if runs <= (task["max_retries"] or 0):
            start = later(now, float(task["retry_delay"] or 0))
            retrying = simple("Retrying", message, start_time=start, run_count=runs)
            self._enter("task_run", task_run, retrying)
        else:
            self._enter("task_run", task_run, simple("Failed", message))

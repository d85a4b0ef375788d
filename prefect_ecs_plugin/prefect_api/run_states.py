"""Reads and sets states of flow runs at the Prefect API, many with one request.

Guarantees of what is read:

* An answer was read after its question was put: asked after a task was seen STOPPED, it
  has everything that the flow had told the API before.
* One query is under way at a time, and is repeated through an outage.
* A run counts as gone only if the API was asked about it alone.
* A run about which the API refuses to answer is found by halving and does not hold up
  the others; its question ends with the API's error.
* After a query that took too long, the next one is about half as many runs; a run that
  is too slow by itself goes to the end of the queue.

Guarantees of what is set:

* Changes that are asked for within ten milliseconds go with one mutation. It is sent
  once; steps that are interrupted meanwhile end after its answer, so that the run can
  be read as it is then.
* An error is that of all changes sent with it: the API names one that it refuses, and
  sets the others.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any, Callable, List, Mapping, Optional, Sequence, Tuple

from ..observability.outage_log import OutageLog, retry_until_success
from ..scheduling.steps import Interrupted, Pause, Steps, as_steps, resolve
from .client import AgentClient, took_too_long

#: Seconds for which questions are collected into one query, and how many: as many as
#: one DescribeTasks shows.
_COLLECT, _AT_ONCE = 0.25, 100

#: The same for changes: as many as the queue shows twice.
_COLLECT_CHANGES, _CHANGES_AT_ONCE = 0.01, 50

READING = (
    "The states of flow runs cannot be read from the Prefect API [states-unreadable]"
)

#: The answer to a question: the run's row, None if it is gone.
_Answer = Optional[Mapping[str, Any]]

#: A run, and where its answer is awaited.
_Question = Tuple[str, "Future[_Answer]"]


class _Changes:
    """Changes that are sent together.

    Attributes:
        changes: As `AgentClient.set_run_states` takes them.
        answer: Done when the API has answered.
    """

    def __init__(self) -> None:
        self.changes: List[Mapping[str, Any]] = []
        self.answer: Future[None] = Future()


class RunStates:
    """Reads and sets states of runs.

    Args:
        client: The client of the Prefect API.
        outages: Logs what fails.
        start: Starts the steps that ask, and those that set states.

    Attributes:
        on_set: Called with the ids of runs whose states have been set, before their
            steps continue.
    """

    def __init__(
        self,
        client: AgentClient,
        outages: OutageLog,
        start: Callable[[Steps[None]], None],
    ) -> None:
        self.on_set: Callable[[Sequence[str]], object] = lambda run_ids: None
        self._client = client
        self._outages = outages
        self._start = start
        self._lock = threading.Lock()
        self._questions: List[_Question] = []
        self._is_asking = False
        self._size = _AT_ONCE
        self._collected: Optional[_Changes] = None

    def of(self, run_id: str) -> Steps[_Answer]:
        """Read what the API knows of a run, from now on and through an outage.

        Args:
            run_id: The run.

        Returns:
            Its row with `AgentClient.states_of`'s fields, None if the run is gone.

        Raises:
            ClientError, requests.HTTPError: if the API refuses this question.
        """
        answer: Future[_Answer] = Future()
        with self._lock:
            self._questions.append((run_id, answer))
            is_first, self._is_asking = not self._is_asking, True
        if is_first:
            self._start(self._ask())
        yield answer
        return answer.result()

    def set(
        self, run_id: str, version: Optional[int], state: Mapping[str, Any]
    ) -> Steps[None]:
        """Set the serialized state of a run, together with those of other runs.

        Args:
            run_id: The run.
            version: The version of its state now; Prefect Cloud compares it.
            state: The serialized state.

        Raises:
            ClientError: if the API refuses this change or one sent with it; this one
                may be set.
            requests.RequestException, RateLimited: if it does not answer.
        """
        with self._lock:
            batch, is_new = self._collected, self._collected is None
            if batch is None:
                batch = self._collected = _Changes()
            batch.changes.append(
                {"flow_run_id": run_id, "version": version, "state": state}
            )
            if len(batch.changes) == _CHANGES_AT_ONCE:
                self._collected = None
        if is_new:
            self._start(self._send(batch))
        try:
            yield batch.answer
        except Interrupted:
            if not batch.answer.cancel():  # it is under way, in another thread
                batch.answer.exception()
            raise
        batch.answer.result()

    def _send(self, batch: _Changes) -> Steps[None]:
        """Send collected changes, unless their steps were interrupted."""
        yield Pause(_COLLECT_CHANGES)
        with self._lock:
            if self._collected is batch:
                self._collected = None
        if not batch.answer.set_running_or_notify_cancel():
            return

        def send() -> None:
            self._client.set_run_states(batch.changes)
            self.on_set([each["flow_run_id"] for each in batch.changes])

        resolve(batch.answer, send)

    def _ask(self) -> Steps[None]:
        """Answer questions until there are none."""
        query = as_steps(self._query)
        while self._has_questions():
            yield Pause(_COLLECT)
            yield from retry_until_success(query, self._outages, READING)

    def _has_questions(self) -> bool:
        with self._lock:
            self._is_asking = bool(self._questions)
            return self._is_asking

    def _query(self) -> None:
        with self._lock:
            questions = self._questions[: self._size]
            del self._questions[: self._size]
        try:
            self._answer(questions)
        except Exception as error:
            left = [each for each in questions if not each[1].done()]
            is_slow = took_too_long(error)
            if is_slow:
                self._size = max(1, len(questions) // 2)
            with self._lock:
                if is_slow and len(questions) == 1:
                    self._questions += left
                else:
                    self._questions[:0] = left
            raise
        self._size = min(2 * self._size, _AT_ONCE)

    def _answer(self, questions: Sequence[_Question]) -> None:
        """Answer questions; halve them where the API refuses one of them."""
        run_ids = {run_id for run_id, _ in questions}
        try:
            rows = self._client.states_of(run_ids)
            if len(run_ids) > 1:
                for run_id in run_ids.difference(rows):  # ask about it alone
                    rows.update(self._client.states_of([run_id]))
        except Exception as error:
            if not self._client.blames(error):
                raise
            if len(questions) > 1:
                middle = len(questions) // 2
                self._answer(questions[:middle])
                self._answer(questions[middle:])
            else:
                questions[0][1].set_exception(error)
            return
        for run_id, answer in questions:
            answer.set_result(rows.get(run_id))

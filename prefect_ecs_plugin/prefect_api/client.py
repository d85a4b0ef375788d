"""The agent's client of the Prefect API, over connections that are kept.

Prefect's own client opens a connection for every request and wraps every answer into
python-box objects. This client does neither for the operations that an agent repeats;
it inherits the others.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    TypeVar,
)

import pendulum
import prefect
import requests
from prefect.client import Client
from prefect.exceptions import AuthorizationError, ClientError
from prefect.utilities.graphql import EnumValue, parse_graphql, with_args

from ..errors import RateLimited
from ..launch_record import NEEDS_TASK, RESCHEDULED_STATES
from ..observability.counters import AgentCounters
from .connections import LeanPost, kept_session

_Item = TypeVar("_Item")

#: Seconds that runs are shown ahead of their start: the longest pause between looks.
PREFETCH = 10

#: Seconds for which a retry is left to the container that failed.
OWN_RETRY = 3

_TASK_RUN_FIELDS = {"id", "version", "serialized_state"}

#: The states of a task run that has not ended.
_UNFINISHED = sorted(RESCHEDULED_STATES | {"Submitted", "Running"})

#: Task runs that were claimed once, of which a query about runs shows the claims.
_RESUMED_SHOWN = 20

#: Where the launch records of a run are; see `launch_record`. A task run is Submitted
#: only by an agent, so `resumed` is empty for all but resumed runs.
_CLAIMED = {"state": {"_eq": "Submitted"}}
_CLAIMS = {"where": _CLAIMED, "order_by": {"version": EnumValue("desc")}}
#: A run's or a task run's latest claim, and what is asked of it.
LATEST_CLAIM = with_args("states", {**_CLAIMS, "limit": 1})
CLAIM_FIELDS = {"serialized_state", "timestamp"}
_CLAIMED_NOW = with_args("task_runs", {"where": _CLAIMED})
_RESUMED = with_args(
    "task_runs",
    {
        "where": {"states": _CLAIMED},
        "order_by": {"state_timestamp": EnumValue("desc")},
        "limit": _RESUMED_SHOWN,  # of those that changed last
    },
)

#: The names of a flow and of its project.
FLOW_NAMES: Mapping[str, Any] = {"name": True, "project": {"name"}}

_LAUNCH_FIELDS = {
    "serialized_state": True,
    "state_timestamp": True,
    LATEST_CLAIM: CLAIM_FIELDS,
    f"claimed: {_CLAIMED_NOW}": {"id", "version"},
    f"resumed: {_RESUMED}": {LATEST_CLAIM: CLAIM_FIELDS},
}

#: What is asked of a run whose task has stopped. Of its task runs, of which there may
#: be thousands, one that waits.
_STATE_FIELDS = {
    **dict.fromkeys(
        ("id", "state", "version", "agent_id", "start_time", "heartbeat"), True
    ),
    **_LAUNCH_FIELDS,
    "labels": True,
    "flow": FLOW_NAMES,
    with_args(
        "task_runs",
        {"where": {"state": {"_in": sorted(RESCHEDULED_STATES)}}, "limit": 1},
    ): {"state"},
}

#: What limits need to know of a run.
_LIMITED_FIELDS: Dict[str, Any] = {
    **dict.fromkeys(
        ("id", "state", "state_timestamp", "serialized_state", "labels"), True
    ),
    "flow": FLOW_NAMES,
}

#: Rows that one query asks for at most. One that takes too long is asked again for half
#: as many, down to the second figure.
PAGE, LEAST_PAGE = 1000, 50

_QUEUE = (
    "mutation($input:get_runs_in_queue_input!)"
    "{get_runs_in_queue(input:$input){flow_run_ids}}"
)

_SET_FLOW_RUN_STATES = """
mutation($input: set_flow_run_states_input!) {
  set_flow_run_states(input: $input) { states { id status message } }
}
"""

_SET_TASK_RUN_STATES = """
mutation($input: set_task_run_states_input!) {
  set_task_run_states(input: $input) { states { id status message } }
}
"""

_WRITE_LOGS = """
mutation($input: write_run_logs_input!) { write_run_logs(input: $input) { success } }
"""

#: Runs in one request of heartbeats: a body of some 10 kB.
_HEARTBEATS_AT_ONCE = 50

#: GraphQL errors whose cause is not the content of the request.
_NOT_THE_CONTENT = ("API_ERROR", "UNAUTHENTICATED")

#: HTTP statuses of 400 to 499 whose cause is not the content either.
_NOT_THE_CONTENT_STATUS = frozenset((401, 403, 404, 407, 408, 429))


class AgentClient(Client):
    """Prefect's client for one agent; threads may share it.

    Args:
        counts: Counts its requests.
        options: See `prefect.Client`.
    """

    def __init__(self, counts: Optional[AgentCounters] = None, **options: Any) -> None:
        super().__init__(**options)
        self._kept = threading.local()
        self._quiet_until = 0.0
        self._requests = (counts or AgentCounters()).api_requests
        self._looks_lean = False
        self._lean: Optional[LeanPost] = None
        self._lean_headers: Dict[str, str] = {}

    def ask(self, query: str, **variables: Any) -> Dict[str, Any]:
        """Send a query and return its data in plain values.

        Args:
            query: The GraphQL text.
            variables: Its variables.

        Raises:
            ClientError: if the API answers with errors, or not in JSON.
            RateLimited: if it answers 429, or has lately.
            requests.RequestException: if it does not answer.
        """
        answer = self._answer(query, variables)
        if answer.get("errors"):
            raise ClientError(answer["errors"])
        data: Dict[str, Any] = answer["data"]
        return data

    def _answer(self, query: str, variables: Mapping[str, Any]) -> Dict[str, Any]:
        """An answer with data, and perhaps with errors; raises as `ask` does."""
        answer = self.post(
            path="",
            server=self.api_server,
            params={"query": query, "variables": json.dumps(variables)},
        )
        if answer.get("data") is None:
            raise ClientError(answer.get("errors") or "The API answered without data.")
        return answer

    def post(self, *args: Any, **kwargs: Any) -> Dict[str, Any]:
        """Prefect's `post`, without its repeats, which sleep in between.

        Raises:
            RateLimited: if the API has answered 429 and its time is not up.
        """
        kwargs["retry_on_api_error"] = False
        answer: Dict[str, Any] = super().post(*args, **kwargs)
        return answer

    def _send_request(self, session: Any, *args: Any, **kwargs: Any) -> Any:
        """Use this thread's kept session in place of the new one.

        Overridden because there is no public way to keep a connection open; each
        request would pay for one, and on Prefect Cloud for a TLS handshake. The new
        one would also hold its thread for a minute while the API is down, and for
        minutes while it limits the rate. Callers wait without a thread.

        After a 429 nothing is sent until its Retry-After has passed, by any thread.
        """
        with self._within_limits():
            if not hasattr(self._kept, "session"):
                self._kept.session = kept_session(self._requests)
            return super()._send_request(self._kept.session, *args, **kwargs)

    @contextmanager
    def _within_limits(self) -> Iterator[None]:
        """Send nothing before the time that the last 429 named."""
        seconds = self._quiet_until - time.monotonic()
        if seconds > 0:
            raise RateLimited(seconds)
        try:
            yield
        except RateLimited as limited:
            self._quiet_until = time.monotonic() + limited.retry_after
            raise

    # -- The queue ----------------------------------------------------------------

    def ready_runs(self, labels: Iterable[str]) -> List[str]:
        """The ids of runs that are due, or will be in ten seconds; at most 25."""
        before = datetime.now(timezone.utc) + timedelta(seconds=PREFETCH)
        which = {
            "before": before.isoformat(),
            "labels": list(labels),
            "tenant_id": self.tenant_id,
        }
        data = self._lean_answer(_QUEUE, which) if self._looks_lean else None
        if data is None:
            self._looks_lean = False  # in an outage, each look is one request
            data = self.ask(_QUEUE, input=which)
            # Prefect's own client logs requests then.
            self._looks_lean = not prefect.context.config.cloud.get("diagnostics")
        ids: List[str] = data["get_runs_in_queue"]["flow_run_ids"]
        return ids

    def _lean_answer(
        self, query: str, argument: Mapping[str, Any]
    ) -> Optional[Dict[str, Any]]:
        """What `ask` would return, for less CPU; None if `ask` has to be called.

        One thread at a time may call it.
        """
        headers = self._headers()
        if self._lean is None or self._lean_headers != headers:
            if self._lean:
                self._lean.close()
            timeout = prefect.context.config.cloud.request_timeout
            self._lean = LeanPost(self.api_server, headers, timeout, self._requests)
            self._lean_headers = headers
        variables = json.dumps({"input": argument})
        with self._within_limits():
            answer = self._lean.send({"query": query, "variables": variables})
        if not isinstance(answer, dict) or answer.get("errors"):
            return None
        data: Optional[Dict[str, Any]] = answer.get("data")
        return data

    def _headers(self) -> Dict[str, str]:
        """Those that Prefect's client adds to each request."""
        headers = {"X-PREFECT-CORE-VERSION": str(prefect.__version__)}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
            if self._tenant_id:
                headers["X-PREFECT-TENANT-ID"] = self._tenant_id
        return {**headers, **self._attached_headers}

    def runs_to_take(self, ids: Iterable[str]) -> List[Dict[str, Any]]:
        """Return the rows of the runs that no agent has taken, the earliest first.

        A run is free if it is Scheduled, or if it is Running and the retry of one of
        its tasks is due: its container has ended meanwhile.
        """
        wanted = list(ids)
        if not wanted:
            return []
        latest = pendulum.now("UTC").subtract(seconds=OWN_RETRY).isoformat()
        due = {"state_start_time": {"_lte": latest}}
        free = [
            {"state": {"_eq": "Scheduled"}},
            {"state": {"_eq": "Running"}, "task_runs": due},
        ]
        where = {"id": {"_in": wanted}, "_or": free}

        def start(row: Mapping[str, Any]) -> str:  # empty: it has begun already
            return str((row["serialized_state"] or {}).get("start_time") or "")

        return sorted(self._select("flow_run", _row_fields(due), where), key=start)

    def due_runs(
        self,
        labels: Iterable[str],
        blocked: Iterable[Mapping[str, Any]] = (),
        limit: int = PAGE,
        more: Iterable[str] = (),
    ) -> List[Dict[str, Any]]:
        """What `ready_runs` would show if it showed more than 25 runs.

        The rows have what limits are about. Scheduled runs come first, the earliest
        start first.

        Args:
            labels: The agent's.
            blocked: Conditions of Scheduled runs that are left out; an empty one
                leaves out all.
            limit: How many at most.
            more: Further columns.
        """
        before = datetime.now(timezone.utc) + timedelta(seconds=PREFETCH)
        due: Dict[str, Any] = {"state_start_time": {"_lte": before.isoformat()}}
        states: List[Any] = [{"state": {"_eq": "Running"}, "task_runs": due}]
        left_out = list(blocked)
        if all(left_out):
            which: Dict[str, Any] = {"_not": {"_or": left_out}} if left_out else {}
            states.append({"state": {"_eq": "Scheduled"}, **due, **which})
        mine = sorted(labels)
        of_mine: Dict[str, Any] = (
            {"_contained_in": mine, "_neq": []} if mine else {"_eq": []}
        )
        where = {
            "tenant_id": {"_eq": self.tenant_id},
            "labels": of_mine,
            "_or": states,
        }
        fields = {**_LIMITED_FIELDS, **dict.fromkeys(more, True)}
        order = {"state_start_time": EnumValue("asc")}
        return self._select("flow_run", fields, where, order_by=order, limit=limit)

    def taken_runs(
        self,
        which: Sequence[Mapping[str, Any]],
        agent_types: Iterable[str],
        *,
        flows: bool,
        labels: bool,
        ranks: bool,
    ) -> List[Dict[str, Any]]:
        """The runs that are Submitted, Running or Cancelling, with what limits need.

        Those of agents of other types are left out. A run that names no agent is
        included: the API sets a run's agent some time after its state.

        Args:
            which: Conditions of which one has to be met; an empty one is met by all.
            agent_types: The types of agents whose runs count.
            flows: Whether the rows have their flow's and project's names.
            labels: Whether they have labels.
            ranks: Whether they have their state and its time.
        """
        of_agent = [
            {"agent_id": {"_is_null": True}},
            {"agent": {"type": {"_in": sorted(agent_types)}}},
        ]
        conditions: List[Any] = [{"_or": of_agent}]
        if all(which):
            conditions.append({"_or": list(which)})
        where = {
            "tenant_id": {"_eq": self.tenant_id},
            "state": {"_in": sorted(NEEDS_TASK)},
            "_and": conditions,
        }
        fields: Dict[str, Any] = {"id": True, "version": True}
        if flows:
            fields["flow"] = FLOW_NAMES
        if labels:
            fields["labels"] = True
        if ranks:
            fields.update(state=True, state_timestamp=True)
        return self._all("flow_run", fields, where)

    def runs_told(self, run_ids: Iterable[str], messages: Iterable[str]) -> List[str]:
        """The runs among some in whose log one of some messages stands."""
        where = {
            "flow_run_id": {"_in": list(run_ids)},
            "message": {"_in": list(messages)},
        }
        return [
            row["flow_run_id"] for row in self._select("log", {"flow_run_id"}, where)
        ]

    def owned_runs(self) -> Iterator[Dict[str, Any]]:
        """The states of all runs that this agent claimed and that have not ended.

        They come in pages, in the order of their ids, with the run config and all of
        `states_of`.
        """
        mine = {"agent_id": {"_eq": self.agent_id}}
        return self._owned({**mine, "state": {"_in": sorted(NEEDS_TASK)}})

    def resumed_runs(self) -> Iterator[Dict[str, Any]]:
        """As `owned_runs`, those that were resumed and whose row names another agent.

        The row names the agent that claimed the run first; the launch record names the
        agent that resumed it.
        """
        where = {
            "state": {"_in": ["Running", "Cancelling"]},
            "task_runs": {"states": _CLAIMED},
            "_or": [
                {"agent_id": {"_neq": self.agent_id}},
                {"agent_id": {"_is_null": True}},
            ],
        }
        return self._owned(where)

    def _owned(self, which: Mapping[str, Any]) -> Iterator[Dict[str, Any]]:
        fields = {**_STATE_FIELDS, "run_config": True}
        return self._paged(partial(self._launch_rows, fields), which)

    def _paged(
        self, ask: Callable[..., List[Dict[str, Any]]], which: Mapping[str, Any]
    ) -> Iterator[Dict[str, Any]]:
        """All rows that a query finds, in the order of their ids.

        Args:
            ask: Makes the query, given its `where` and further arguments by name.
            which: The `where` of all rows.
        """
        size, where = PAGE, which
        while True:
            try:
                page = ask(where, order_by={"id": EnumValue("asc")}, limit=size)
            except Exception as error:
                if size <= LEAST_PAGE or not took_too_long(error):
                    raise
                size //= 2
                continue
            yield from page
            if len(page) < size:
                return
            where = {**which, "id": {"_gt": page[-1]["id"]}}

    def row(self, run_id: str) -> Optional[Dict[str, Any]]:
        """The whole row of a run that is claimed; None if it is gone.

        Its `task_runs` are those that are claimed and have not begun.
        """
        fields = {**_LAUNCH_FIELDS, **_row_fields(_CLAIMED)}
        rows = self._launch_rows(fields, {"id": {"_eq": run_id}})
        return rows[0] if rows else None

    def log_lines(self, beginning: str, since: datetime) -> Iterator[Dict[str, Any]]:
        """The lines of all runs' logs that begin with a text.

        Each has its `message`, its `timestamp`, and its run's labels, flow and project.

        Args:
            beginning: The text, without `%` and `_`.
            since: The time of the first line.
        """
        where = {
            "timestamp": {"_gte": since.isoformat()},
            "message": {"_like": f"{beginning}%"},
        }
        fields = {"id", "timestamp", "message", "flow_run_id"}
        found = self._paged(partial(self._select, "log", fields), where)
        for lines in _parts(found, PAGE):  # a log has no relation to its run
            ids = {line["flow_run_id"] for line in lines if line["flow_run_id"]}
            which = {
                "id": {"_in": sorted(ids)},
                "tenant_id": {"_eq": self.tenant_id},
            }
            rows = self._select(
                "flow_run", {"id": True, "labels": True, "flow": FLOW_NAMES}, which
            )
            runs = {row["id"]: row for row in rows}
            for line in lines:
                if line["flow_run_id"] in runs:
                    yield {**line, "flow_run": runs[line["flow_run_id"]]}

    # -- The states of runs -------------------------------------------------------

    @property
    def agent_id(self) -> Optional[str]:
        """The id under which the agent is registered; it goes with every request.

        Agents of the same type, name and labels share one.
        """
        return self._attached_headers.get("X-PREFECT-AGENT-ID")

    def states_of(self, run_ids: Iterable[str]) -> Dict[str, Dict[str, Any]]:
        """The states of runs by id, their launch records, and task runs that wait.

        Args:
            run_ids: At most some hundred; a run that is gone is left out.
        """
        where = {"id": {"_in": list(run_ids)}}
        rows = self._launch_rows(_STATE_FIELDS, where)
        return {row["id"]: row for row in rows}

    def task_run_versions(self, task_run_ids: Iterable[str]) -> Dict[str, int]:
        """The versions of the states of task runs, by id; one that is gone is left out.

        Args:
            task_run_ids: Any number; they are asked about by the page.
        """
        versions = {}
        for ids in _parts(task_run_ids, PAGE):
            where = {"id": {"_in": ids}}
            for task_run in self._select("task_run", {"id", "version"}, where):
                versions[task_run["id"]] = int(task_run["version"] or 0)
        return versions

    def claims_of(self, run_id: str) -> Optional[Dict[str, Any]]:
        """The last ten claims of a run, and those of its task runs; None if gone."""
        fields = {
            "id": True,
            with_args("states", {**_CLAIMS, "limit": 10}): CLAIM_FIELDS,
            f"resumed: {_RESUMED}": {LATEST_CLAIM: CLAIM_FIELDS},
        }
        rows = self._select("flow_run", fields, {"id": {"_eq": run_id}})
        return rows[0] if rows else None

    def states_after(self, run_id: str, version: int) -> List[Dict[str, Any]]:
        """The states of a run that are later than a version, the oldest first."""
        later = {
            "where": {"version": {"_gt": version}},
            "order_by": {"version": EnumValue("asc")},
        }
        fields = {with_args("states", later): {"version", "serialized_state"}}
        rows = self._select("flow_run", fields, {"id": {"_eq": run_id}})
        states: List[Dict[str, Any]] = rows[0]["states"] if rows else []
        return states

    def has_unfinished_task_runs(self, run_id: str) -> bool:
        """Whether a task run of a run is running, waits, or is claimed."""
        where = {"flow_run_id": {"_eq": run_id}, "state": {"_in": _UNFINISHED}}
        return bool(self._select("task_run", {"id"}, where, limit=1))

    # -- How far a run has got ----------------------------------------------------

    def tasks_of_flow(self, flow_id: str) -> List[Dict[str, Any]]:
        """The tasks of a registered flow."""
        fields = {"id", "name", "slug", "type", "max_retries", "trigger"}
        return self._all("task", fields, {"flow_id": {"_eq": flow_id}})

    def edges_of_flow(self, flow_id: str) -> List[Dict[str, Any]]:
        """Which task of a registered flow comes before which."""
        fields = {"id", "upstream_task_id", "downstream_task_id", "key"}
        return self._all("edge", fields, {"flow_id": {"_eq": flow_id}})

    def task_runs_of(self, run_id: str) -> List[Dict[str, Any]]:
        """The task runs of a run; their `states` are those in which they waited for a
        retry."""
        retrying = {"where": {"state": {"_eq": "Retrying"}}}
        fields = {
            **dict.fromkeys(
                ("id", "task_id", "map_index", "version", "serialized_state"), True
            ),
            with_args("states", retrying): {"id"},
        }
        return self._all("task_run", fields, {"flow_run_id": {"_eq": run_id}})

    def _all(
        self, table: str, fields: Any, where: Mapping[str, Any]
    ) -> List[Dict[str, Any]]:
        return list(self._paged(partial(self._select, table, fields), where))

    def blames(self, error: Exception) -> bool:
        """Whether the API refuses the content of a request, and is not down itself.

        It reports an outage of its own database as it reports a bad request, so a
        refusal proves nothing until the API has answered another query.
        """
        if not refuses_content(error):
            return False
        if isinstance(error.__cause__ or error, requests.HTTPError):
            return True  # 400 and the like, before any database was asked
        try:
            self._select("flow_run", {"id"}, {"id": {"_in": []}})
        except Exception:
            return False
        return True

    def cancelled_of(self, run_ids: Iterable[str]) -> Dict[str, Dict[str, Any]]:
        """Those of some runs that are cancelled, or being cancelled, by their id."""
        cancelled = {"state": {"_in": ["Cancelling", "Cancelled"]}}
        fields, rows = {"id", "state", "start_time"}, {}
        for ids in _parts(run_ids, PAGE):
            for row in self._select(
                "flow_run", fields, {"id": {"_in": ids}, **cancelled}
            ):
                rows[row["id"]] = row
        return rows

    def _launch_rows(
        self, fields: Any, where: Mapping[str, Any], **options: Any
    ) -> List[Dict[str, Any]]:
        """Rows of runs with the launch fields, with the latest claim in each.

        The task runs that changed last need not be those that were claimed last. Where
        there may be more than a query shows, all are asked for.
        """
        rows = self._select("flow_run", fields, where, **options)
        for row in rows:
            if len(row.get("resumed") or ()) >= _RESUMED_SHOWN:
                resumed = {"id": True, LATEST_CLAIM: CLAIM_FIELDS}
                which = {"flow_run_id": {"_eq": row["id"]}, "states": _CLAIMED}
                ask = partial(self._select, "task_run", resumed)
                row["resumed"] = list(self._paged(ask, which))
        return rows

    def _select(
        self, table: str, fields: Any, where: Mapping[str, Any], **options: Any
    ) -> List[Dict[str, Any]]:
        query = {"query": {with_args(table, {"where": where, **options}): fields}}
        rows: List[Dict[str, Any]] = self.ask(parse_graphql(query))[table]
        return rows

    # -- States and logs ----------------------------------------------------------

    def set_run_state(
        self, run_id: str, version: Optional[int], state: Mapping[str, Any]
    ) -> None:
        """Set the serialized state of a flow run."""
        change = {"flow_run_id": run_id, "version": version, "state": state}
        self.set_run_states([change])

    def set_run_states(self, changes: Sequence[Mapping[str, Any]]) -> None:
        """Set the serialized states of flow runs with one mutation.

        Args:
            changes: Mappings with `flow_run_id`, `version` and `state`.

        Raises:
            ClientError: if the API refuses one of them; the others may be set.
        """
        self.ask(_SET_FLOW_RUN_STATES, input={"states": changes})

    def set_task_states(self, changes: Sequence[Mapping[str, Any]]) -> None:
        """Set the serialized states of task runs with one mutation.

        Of more than a thousand, with one for each thousand: the API takes 5 MB.

        Args:
            changes: Mappings with `task_run_id`, `version` and `state`.
        """
        for some in _parts(changes, PAGE):
            self.ask(_SET_TASK_RUN_STATES, input={"states": some})

    def write_logs(self, lines: List[Dict[str, Any]]) -> None:
        """Write lines into the logs of runs."""
        self.ask(_WRITE_LOGS, input={"logs": lines})

    def send_heartbeats(self, run_ids: Iterable[str]) -> None:
        """Send heartbeats of runs, 50 with one request.

        Each run is a mutation of its own. One that the API refuses because the run is
        gone does not affect the others and is not an error.

        Raises:
            ClientError: if the API refuses a whole request.
            requests.RequestException, RateLimited: if it does not answer one.
        """
        for some in _parts(run_ids, _HEARTBEATS_AT_ONCE):
            inputs = {f"run{n}": {"flow_run_id": each} for n, each in enumerate(some)}
            declared = ", ".join(
                f"${name}: update_flow_run_heartbeat_input!" for name in inputs
            )
            mutations = "\n".join(
                f"{name}: update_flow_run_heartbeat(input: ${name}) {{ success }}"
                for name in inputs
            )
            self._answer(f"mutation({declared}) {{\n{mutations}\n}}", inputs)


def _parts(items: Iterable[_Item], size: int) -> Iterator[List[_Item]]:
    """All items, in lists of at most so many."""
    left = iter(items)
    return iter(lambda: list(itertools.islice(left, size)), [])


def refuses_content(error: Exception) -> bool:
    """Whether the API read a request and refuses its content.

    If so, it may accept a part of it; if not, it will accept the same request later.
    """
    if isinstance(error, requests.HTTPError) and error.response is not None:
        status = error.response.status_code
        return 400 <= status < 500 and status not in _NOT_THE_CONTENT_STATUS
    if not isinstance(error, ClientError) or isinstance(error, AuthorizationError):
        return False
    is_json = not isinstance(error.__cause__, ValueError)
    return is_json and not any(code in str(error) for code in _NOT_THE_CONTENT)


def is_unanswered(error: object) -> bool:
    """Whether the API did not answer a request, or not yet: an outage, or a 429."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return error.response.status_code >= 500
    return isinstance(error, (requests.RequestException, RateLimited))


def took_too_long(error: object) -> bool:
    """Whether an answer did not come in time: one about fewer rows may."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return bool(error.response.status_code == 504)
    return isinstance(error, requests.Timeout)


def _row_fields(task_runs: Mapping[str, Any]) -> Dict[str, Any]:
    """What a launch needs to know of a run, its flow and some of its task runs."""
    own = (
        *("id", "name", "version", "state", "serialized_state", "state_timestamp"),
        *("run_config", "agent_id", "heartbeat", "labels"),
    )
    flow = dict.fromkeys(("id", "name", "version", "core_version", "storage"), True)
    return {
        **dict.fromkeys(own, True),
        "flow": {**flow, "project": {"name"}},
        with_args("task_runs", {"where": task_runs}): _TASK_RUN_FIELDS,
    }

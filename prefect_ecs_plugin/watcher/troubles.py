"""What keeps the watcher from watching: told once, and once more when it is over."""

from __future__ import annotations

import logging
from typing import Dict

from ..ecs import answer_of
from ..retrying import Backoff, Refused, Verdict

#: Pauses after failures, by how many there were in a row.
_BACKOFF = Backoff(2.0, 30.0)

#: Seconds that every such pause lasts at least.
_SHORTEST = 1.0


class _Trouble:
    """One cluster's trouble."""

    def __init__(self, since: float) -> None:
        self.since = since
        self.failures = 0
        self.kinds: Dict[str, str] = {}  # cause -> sentence


class Troubles:
    """Clusters whose tasks cannot be described at present.

    Args:
        logger: The agent's own log.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._by_cluster: Dict[str, _Trouble] = {}

    def meet(self, cluster: str, refused: Refused, now: float, random: float) -> float:
        """Note a failure, and say so if it is the first of its kind.

        Returns:
            How long to leave the cluster alone, in seconds.
        """
        told = any(refused.cause in t.kinds for t in self._by_cluster.values())
        trouble = self._by_cluster.setdefault(cluster, _Trouble(now))
        trouble.failures += 1
        trouble.kinds[refused.cause] = str(refused)
        if not told:
            self._logger.warning(
                "The agent cannot see how its tasks in cluster %s are doing, and keeps "
                "trying: %s",
                cluster,
                refused,
            )
        return max(_SHORTEST, _BACKOFF.seconds(trouble.failures, random))

    def end(self, cluster: str, now: float) -> None:
        """A call has succeeded; say so if it ends a trouble."""
        trouble = self._by_cluster.pop(cluster, None)
        if trouble is not None and not self._by_cluster:
            self._logger.info(
                "The agent sees its tasks again, after %.0f s", now - trouble.since
            )

    def __str__(self) -> str:
        """The troubles of the moment; empty if there are none."""
        return "; ".join(
            f"cluster {cluster}: {list(trouble.kinds.values())[-1]}"
            for cluster, trouble in list(self._by_cluster.items())
        )


def refusal(error: Exception) -> Refused:
    """What an exception of a client means."""
    return Refused("DescribeTasks", answer_of(error))


def is_throttle(refused: Refused) -> bool:
    """Whether AWS says that the agent asks too often."""
    return refused.verdict is Verdict.THROTTLED


def is_about_cluster(refused: Refused) -> bool:
    """Whether the cluster itself is gone, and its tasks with it."""
    return refused.answer.code == "ClusterNotFoundException"

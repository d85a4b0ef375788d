"""Which task definitions are this plugin's, and which of them may go. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import AbstractSet, Any, Mapping, Optional

from ...template import AGENT_TAG, OWNER_TAG

#: A family of ours: a stem, and the digest of the definition's content.
_OURS = re.compile(r".+-[0-9a-f]{16}\Z")


@dataclass(frozen=True)
class Definition:
    """One revision of a family, as ECS describes it.

    Attributes:
        arn: Its ARN.
        registered_at: When it was registered; None where ECS does not say.
        is_active: Whether tasks can be started with it.
        has_our_tag: Whether it bears this plugin's tag.
        agent: The value of the tag that names the agent which registered it, None where
            there is none.
    """

    arn: str
    registered_at: Optional[datetime]
    is_active: bool
    has_our_tag: bool
    agent: Optional[str] = None

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Definition:
        """Read the answer of DescribeTaskDefinition with its TAGS."""
        described = answer["taskDefinition"]
        tags = list(answer.get("tags") or [])
        return cls(
            arn=str(described["taskDefinitionArn"]),
            registered_at=described.get("registeredAt"),
            is_active=described.get("status") == "ACTIVE",
            has_our_tag=OWNER_TAG in tags,
            agent=next(
                (each.get("value") for each in tags if each.get("key") == AGENT_TAG),
                None,
            ),
        )

    @property
    def name(self) -> str:
        """`family:revision`."""
        return name_of(self.arn)


def name_of(arn: str) -> str:
    """`family:revision` of a definition's ARN."""
    return arn.rpartition("/")[2]


def may_be_ours(arn: str) -> bool:
    """Whether the family is named as this plugin names them; the tag has to agree."""
    return _OURS.match(name_of(arn).partition(":")[0]) is not None


def is_pinned(definition: Definition, pinned: AbstractSet[str]) -> bool:
    """Whether a registered flow names a definition.

    Args:
        definition: The definition.
        pinned: What flows name: ARNs, `family:revision`, or a family alone, which
            stands for its latest revision.
    """
    family = definition.name.partition(":")[0]
    return not pinned.isdisjoint({definition.arn, definition.name, family})


def is_prunable(
    definition: Definition,
    used: AbstractSet[str],
    now: datetime,
    age: timedelta,
    agent: Optional[str] = None,
) -> bool:
    """Whether a definition is ours, unused and old.

    Args:
        definition: The definition.
        used: The ARNs of the definitions that tasks run with.
        now: The time.
        age: How old it has to be.
        agent: The value of the agent's tag that it has to bear; None for any or none.
    """
    return (
        may_be_ours(definition.arn)
        and definition.has_our_tag
        and agent in (None, definition.agent)
        and definition.arn not in used
        and definition.registered_at is not None
        and now - definition.registered_at >= age
    )

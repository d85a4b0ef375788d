"""Which task definitions prune may remove. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import AbstractSet, Any, Mapping, Optional

from ...template import AGENT_TAG, OWNER_TAG

#: This plugin's families end in the digest of the definition's content.
_OURS = re.compile(r".+-[0-9a-f]{16}\Z")


@dataclass(frozen=True)
class Definition:
    """One revision of a family, as ECS describes it.

    Attributes:
        arn: Its ARN.
        registered_at: The time of its registration, if ECS reports it.
        is_active: Whether new tasks can run with it.
        has_our_tag: Whether it has this plugin's tag.
        agent: The value of the tag that names the agent which registered it; None
            without such a tag.
    """

    arn: str
    registered_at: Optional[datetime]
    is_active: bool
    has_our_tag: bool
    agent: Optional[str] = None

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Definition:
        """Parse an answer of DescribeTaskDefinition with TAGS."""
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

    @property
    def status(self) -> str:
        """As ECS writes it."""
        return "ACTIVE" if self.is_active else "INACTIVE"


def name_of(arn: str) -> str:
    """`family:revision` of a definition's ARN."""
    return arn.rpartition("/")[2]


def may_be_ours(arn: str) -> bool:
    """Whether the family's name has this plugin's form; the tag is checked later."""
    return _OURS.match(name_of(arn).partition(":")[0]) is not None


def is_pinned(definition: Definition, pinned: AbstractSet[str]) -> bool:
    """Whether a registered flow names a definition.

    Args:
        definition: The definition.
        pinned: The names in flows: ARNs, `family:revision`, or a family alone, which
            means its latest revision.
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
    """Whether a definition is this plugin's, unused and old enough.

    Args:
        definition: The definition.
        used: The ARNs of the definitions that tasks run with.
        now: The time.
        age: The minimum age.
        agent: The required value of the agent's tag; None for any value or no tag.
    """
    return (
        may_be_ours(definition.arn)
        and definition.has_our_tag
        and agent in (None, definition.agent)
        and definition.arn not in used
        and definition.registered_at is not None
        and now - definition.registered_at >= age
    )

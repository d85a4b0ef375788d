"""`python -m benchmarks.redaction`: what redaction costs, for texts of every bad kind.

The law: twice the length costs at most 2.5 times as much, and 10,000 characters less
than 20 ms. Each time is the best of several.
"""

from __future__ import annotations

import random
import string
import sys
import time
from typing import List
from unittest import mock

from prefect_ecs_plugin.observability import redaction

#: What texts are made of, again and again.
UNITS = (
    *("\\", "*", "***bbbbb", "'", '\\"', "{", "a=", "://", "a://b:c@", "x-", "\n"),
    *("token='", 'token=\\"', "token={", "token: \\\\\\'", "token='\n", "--password "),
    *("authorization: ", "bearer a", "basic a", "eyJ-", "eyJaaaaaa.", "xoxa-", "AKIA"),
    *("-----BEGIN KEY-----\n", "-----BEGIN A", "'name': 'A_TOKEN', ", "x" * 14 + "yz"),
    '{"DB_PASSWORD": "abc", "X": 1}',
    "Flow run 1 was submitted: arn:aws:ecs:us-east-1:123456789012:task/prod/0123ab\n",
)

#: Characters; the last two for the ratio.
LENGTHS = (10_000, 500_000, 1_000_000)

MOST_MILLISECONDS, MOST_RATIO = 20.0, 2.5

_REPEATS = 3


def main() -> None:
    """Print a line for each unit; exit 1 if one breaks the law."""
    secrets = many_secrets()
    is_kept = True
    print(f"{'made of':36}{'10,000':>9}{'1,000,000':>12}{'ratio':>8}")
    for unit in UNITS:
        short, half, whole = (milliseconds(unit, each, secrets) for each in LENGTHS)
        is_good = short < MOST_MILLISECONDS and whole / half < MOST_RATIO
        is_kept = is_kept and is_good
        print(
            f"{unit!r:36}{short:6.1f} ms{whole:9.0f} ms{whole / half:8.2f}"
            + ("" if is_good else "  TOO MUCH")
        )
    sys.exit(0 if is_kept else 1)


def many_secrets() -> redaction.Secrets:
    """What an agent knows that has an awkward run."""
    chosen = random.Random(1)
    values = ["".join(chosen.choices(string.ascii_letters, k=40)) for _ in range(50)]
    values += ["***bbbbb", "a" * 200_000, "b\\'\"{}" * 600]
    values += ["x" * length + "yz" for length in range(8, 16)]
    secrets = redaction.Secrets()
    secrets.learn("run", {"env": {f"TOKEN_{n}": v for n, v in enumerate(values)}})
    return secrets


def milliseconds(unit: str, length: int, secrets: redaction.Secrets) -> float:
    """How long a text of this length takes; it is not cut for that."""
    text = (unit * (length // len(unit) + 1))[:length]
    times: List[float] = []
    with mock.patch.object(redaction, "LONGEST_TEXT", length):
        for _ in range(_REPEATS):
            began = time.process_time()
            secrets.redact_text(text, "run")
            times.append(time.process_time() - began)
    return min(times) * 1000


if __name__ == "__main__":
    main()

"""Which definitions exist: one provides, the others wait; memory is bounded."""

from __future__ import annotations

import pytest

from prefect_ecs_plugin.aws.definition_cache import (
    DESCRIBED,
    FAMILIES,
    TaskDefinitionCache,
)


def provide(cache: TaskDefinitionCache, family: str) -> None:
    _, ours = cache.reserve(family)
    assert ours
    cache.resolve(family, f"arn:{family}")


def test_the_first_provides_a_family_and_the_others_wait_for_it() -> None:
    cache = TaskDefinitionCache()
    promise, ours = cache.reserve("a")
    assert ours
    assert cache.reserve("a") == (promise, False)
    cache.resolve("a", "arn:a")
    assert cache.reserve("a") == (promise, False)
    assert promise.result() == "arn:a"


def test_a_family_that_was_rejected_is_free_again() -> None:
    cache = TaskDefinitionCache()
    promise, _ = cache.reserve("a")
    cache.reject("a", KeyError("a"))
    with pytest.raises(KeyError):
        promise.result()
    assert cache.reserve("a")[1]


def test_a_family_is_forgotten_unless_it_was_replaced() -> None:
    cache = TaskDefinitionCache()
    provide(cache, "a")
    cache.forget("a", "arn:older")
    assert not cache.reserve("a")[1]
    cache.forget("a", "arn:a")
    assert cache.reserve("a")[1]
    cache.forget("a", "arn:a")  # one that is being provided
    assert not cache.reserve("a")[1]


def test_the_least_recently_used_family_goes_first() -> None:
    cache = TaskDefinitionCache(families=2)
    provide(cache, "a")
    provide(cache, "b")
    cache.reserve("a")
    provide(cache, "c")
    assert len(cache) == 2
    assert not cache.reserve("a")[1]
    assert not cache.reserve("c")[1]
    assert cache.reserve("b")[1]


def test_a_family_that_is_being_provided_never_goes() -> None:
    cache = TaskDefinitionCache(families=1)
    promise, _ = cache.reserve("slow")
    for number in range(5):
        provide(cache, f"quick-{number}")
    assert len(cache) == 2
    assert cache.reserve("slow") == (promise, False)
    cache.resolve("slow", "arn:slow")
    assert promise.result() == "arn:slow"
    assert len(cache) == 1


def test_the_memory_is_bounded() -> None:
    cache = TaskDefinitionCache()
    for number in range(3 * FAMILIES):
        provide(cache, str(number))
    assert len(cache) == FAMILIES


def test_definitions_that_were_read_are_bounded_too() -> None:
    cache = TaskDefinitionCache()
    for number in range(2 * DESCRIBED):
        cache.keep_described(f"own:{number}", {"revision": number})
        assert cache.described("own:0") == {"revision": 0}
    kept = [n for n in range(2 * DESCRIBED) if cache.described(f"own:{n}")]
    assert kept == [0, *range(DESCRIBED + 1, 2 * DESCRIBED)]
    cache.forget_described("own:0")
    cache.forget_described("absent")
    assert cache.described("own:0") is None

from contextlib import AsyncExitStack

from sluice.runtime.shared import Shared


async def test_what_two_need_in_the_same_way_is_made_once_and_closed_behind_the_second() -> None:
    closed: list[str] = []

    async def close(value: str) -> None:
        closed.append(value)

    shared = Shared(close)
    one, two = AsyncExitStack(), AsyncExitStack()
    assert shared.take(one, "pool", ("a", 1), lambda: "first") == "first"
    assert shared.take(two, "pool", ("a", 1), lambda: "never made") == "first"
    assert shared.take(two, "pool", ("a", 2), lambda: "second") == "second"
    assert shared.named("pool") == ["first", "second"]
    await one.aclose()
    assert closed == []
    await two.aclose()
    assert closed == ["second", "first"]
    assert len(shared) == 0
    assert shared.named("pool") == []


async def test_terms_need_no_hash_and_are_compared_by_what_they_say() -> None:
    shared: Shared[object] = Shared()
    async with AsyncExitStack() as stack:
        first = shared.take(stack, "x", {"a": [1]}, object)
        assert shared.take(stack, "x", {"a": [1]}, object) is first
        assert shared.take(stack, "x", {"a": [2]}, object) is not first


async def test_what_cannot_be_made_is_not_kept() -> None:
    shared: Shared[int] = Shared()
    async with AsyncExitStack() as stack:
        try:
            shared.take(stack, "x", 1, lambda: 1 // 0)
        except ZeroDivisionError:
            assert len(shared) == 0
        assert shared.take(stack, "x", 1, lambda: 5) == 5

"""What every store of responses does."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sluice.kept import ResponseStore
from sluice.kept.memory import MemoryResponses
from sluice.kept.sqlite import SqliteResponses
from sluice.model.kept import KeptResponse

KEEP = 100.0


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> AsyncIterator[ResponseStore]:
    kinds = {
        "memory": lambda: MemoryResponses(KEEP, clock),
        "sqlite": lambda: SqliteResponses(tmp_path / "state.db", KEEP, clock),
    }
    found: ResponseStore = kinds[request.param]()
    yield found
    await found.close()


def kept(id: str = "resp_1", created: float = 1000.0, items: tuple[str, ...] = ("msg_1", "rs_1")) -> KeptResponse:
    return KeptResponse(id, "resp_0", created, b'[{"a":1}]', b'{"id":"x"}', items)


async def test_a_response_is_its_tenants_alone(store: ResponseStore) -> None:
    await store.put("a", kept())
    assert await store.get("a", "resp_1") == kept()
    assert await store.holder("a", "msg_1") == kept()
    assert await store.get("b", "resp_1") is None
    assert await store.holder("b", "msg_1") is None
    assert not await store.delete("b", "resp_1")
    assert await store.get("a", "no") is None
    assert await store.holder("a", "no") is None


async def test_what_is_deleted_is_gone_with_its_items(store: ResponseStore) -> None:
    await store.put("a", kept())
    assert await store.delete("a", "resp_1")
    assert not await store.delete("a", "resp_1")
    assert await store.get("a", "resp_1") is None
    assert await store.holder("a", "rs_1") is None


async def test_a_response_of_the_same_id_takes_the_others_place(store: ResponseStore) -> None:
    await store.put("a", kept())
    await store.put("a", kept(items=("msg_2",)))
    assert await store.holder("a", "msg_1") is None
    assert await store.holder("a", "msg_2") == kept(items=("msg_2",))


async def test_what_is_too_old_is_forgotten(store: ResponseStore, clock: Clock) -> None:
    await store.put("a", kept())
    clock.now += KEEP + 1
    assert await store.get("a", "resp_1") is None
    assert await store.holder("a", "msg_1") is None
    assert not await store.delete("a", "resp_1")
    await store.put("a", kept("resp_2", clock.now))
    clock.now -= KEEP
    assert await store.get("a", "resp_1") is None


async def test_memory_is_bounded_and_forgets_the_oldest_first(clock: Clock) -> None:
    few = MemoryResponses(KEEP, clock, responses=2)
    small = MemoryResponses(KEEP, clock, size=2 * len(b'[{"a":1}]{"id":"x"}'))
    for store in (few, small):
        for number in range(3):
            await store.put("a", kept(f"resp_{number}", items=(f"msg_{number}",)))
        assert await store.get("a", "resp_0") is None
        assert await store.holder("a", "msg_0") is None
        assert await store.get("a", "resp_2") is not None


async def test_a_file_is_read_after_a_restart_and_may_hold_more(tmp_path: Path, clock: Clock) -> None:
    from sluice.conversations.sqlite import SqliteConversations

    conversations = SqliteConversations(tmp_path / "state.db")
    for _ in range(2):
        store = SqliteResponses(tmp_path / "state.db", KEEP, clock)
        await store.put("a", kept())
        await store.close()
    again = SqliteResponses(tmp_path / "state.db", KEEP, clock)
    assert await again.get("a", "resp_1") == kept()
    await again.close()
    await conversations.close()

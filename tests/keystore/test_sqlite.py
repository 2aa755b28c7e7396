"""The keys' part of an SQLite file: alone, beside conversations, and in files that are not ours."""

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from sluice.conversations import Turn
from sluice.conversations.sqlite import SqliteConversations
from sluice.keystore import KeyStoreFailed
from sluice.keystore import sqlite as module
from sluice.keystore.sqlite import SqliteKeys
from tests.keystore.keys import stored


@pytest.mark.parametrize("order", [(SqliteKeys, SqliteConversations), (SqliteConversations, SqliteKeys)])
async def test_keys_and_conversations_share_a_file_whoever_comes_first(
    tmp_path: Path, order: tuple[type, type]
) -> None:
    for _ in range(2):
        for kind in order:
            store = kind(tmp_path / "state.db")
            if isinstance(store, SqliteKeys):
                await store.put(stored("a"), 0)
            else:
                await store.append("t", "s", await store.open("t", "s"), [Turn("user", "hi", 1.0)])
            await store.close()
    keys, conversations = SqliteKeys(tmp_path / "state.db"), SqliteConversations(tmp_path / "state.db")
    assert await keys.ids() == {"a"}
    assert len(await conversations.recent(await conversations.open("t", "s"), 10)) == 2
    await keys.close()
    await conversations.close()


def someone_elses(database: sqlite3.Connection) -> None:
    database.execute("CREATE TABLE bookmark (url TEXT)")
    database.execute("PRAGMA user_version = 3")


def newer(database: sqlite3.Connection) -> None:
    database.execute("CREATE TABLE sluice_part (name TEXT PRIMARY KEY, version INTEGER NOT NULL)")
    database.execute("INSERT INTO sluice_part VALUES ('keys', ?)", (len(module.MIGRATIONS) + 1,))


@pytest.mark.parametrize(
    ("make", "reason"), [(someone_elses, "another program's database"), (newer, "newer version")]
)
def test_a_file_that_is_not_ours_is_refused(
    tmp_path: Path, make: Callable[[sqlite3.Connection], None], reason: str
) -> None:
    path = tmp_path / "state.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        make(database)
    with pytest.raises(OSError, match=reason):
        SqliteKeys(path)


async def test_a_file_that_another_holds_is_a_failure_in_bounded_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUSY", 0.0)
    store = SqliteKeys(tmp_path / "state.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "state.db", isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        with pytest.raises(KeyStoreFailed):
            await store.put(stored("a"), 0)
        assert (await store.changes(0)).total == 0
        database.execute("ROLLBACK")
    assert await store.put(stored("a"), 0) == 1
    await store.close()
    with pytest.raises(KeyStoreFailed):
        await store.changes(0)

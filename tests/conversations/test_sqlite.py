"""The file: what survives, what cannot be a file of ours, and that nobody waits for it but its own thread."""

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sluice.conversations import Turn
from sluice.conversations import sqlite as module
from sluice.conversations.sqlite import SqliteConversations

ROOT = Path(__file__).parents[2]

WRITER = """
import asyncio, sys
from pathlib import Path
from sluice.conversations import Turn
from sluice.conversations.sqlite import SqliteConversations

async def main(path):
    store = SqliteConversations(path)
    id = await store.open("acme", "s")
    number = len(await store.recent(id, 1_000_000)) // 2
    while True:
        pair = [Turn("user", f"q{number}", number), Turn("assistant", f"a{number} " + "x" * 5000, number)]
        await store.append("acme", "s", id, pair)
        print(number, flush=True)
        number += 1

asyncio.run(main(Path(sys.argv[1])))
"""


async def pair(store: SqliteConversations, number: int, session: str = "s") -> str:
    id = await store.open("acme", session)
    await store.append(
        "acme", session, id, [Turn("user", f"q{number}", number), Turn("assistant", f"a{number}", number)]
    )
    return id


async def test_survives_a_restart_under_the_same_id(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    first = SqliteConversations(path)
    id = await pair(first, 1)
    before = await first.get(id), await first.newest(5)
    await first.close()
    second = SqliteConversations(path)
    assert await second.open("acme", "s") == id
    assert (await second.get(id), await second.newest(5)) == before
    await pair(second, 2)
    assert [turn.content for turn in await second.recent(id, 9)] == ["q1", "a1", "q2", "a2"]
    await second.close()


def killed_writer(path: Path) -> int:
    """The last number a process reported as stored before it was killed."""
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    lines = [writer.stdout.readline() for _ in range(40)]
    writer.kill()
    rest, _ = writer.communicate()
    return int([*lines, *rest.splitlines(keepends=True)[: rest.count("\n")]][-1])


async def test_nothing_that_was_stored_is_lost_by_kill_9_and_no_turn_is_stored_in_half(
    tmp_path: Path,
) -> None:
    path = tmp_path / "c.db"
    for _ in range(3):
        reported = killed_writer(path)
        store = SqliteConversations(path)
        contents = [
            turn.content.split()[0] for turn in await store.recent(await store.open("acme", "s"), 1_000_000)
        ]
        await store.close()
        assert contents == [text for n in range(len(contents) // 2) for text in (f"q{n}", f"a{n}")]
        assert len(contents) // 2 - 1 in (reported, reported + 1)  # the last one may not have been reported


async def test_two_processes_on_one_file_agree_on_one_conversation(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    one, other = SqliteConversations(path), SqliteConversations(path)
    await asyncio.gather(*(pair(store, n) for n in range(50) for store in (one, other)))
    assert await one.open("acme", "s") == await other.open("acme", "s")
    assert len(await one.recent(await one.open("acme", "s"), 1000)) == 200
    assert (await other.newest(5))[1] == 1
    await one.close()
    await other.close()


async def test_the_event_loop_does_not_wait_while_the_file_is_locked(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    store = SqliteConversations(path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        writing = asyncio.ensure_future(pair(store, 1))
        for _ in range(1000):
            await asyncio.sleep(0)
        assert not writing.done()
        other.execute("COMMIT")
    await writing
    await store.close()


async def test_waiting_for_a_locked_file_ends_in_an_error_and_the_next_turn_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUSY", 0.0)
    path = tmp_path / "c.db"
    store = SqliteConversations(path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(OSError, match="locked") as caught:
            await pair(store, 1)
        assert caught.value.filename == str(path)
        other.execute("COMMIT")
    id = await pair(store, 2)
    assert [turn.content for turn in await store.recent(id, 9)] == ["q2", "a2"]
    await store.close()


async def test_what_cannot_be_stored_stores_nothing_and_breaks_nothing(tmp_path: Path) -> None:
    store = SqliteConversations(tmp_path / "c.db")
    id = await store.open("acme", "s")
    with pytest.raises(OSError, match="not Unicode"):
        await store.append("acme", "s", id, [Turn("user", "fine", 1), Turn("assistant", "\ud800", 1)])
    assert await store.get(id) is None
    await pair(store, 1)
    assert len(await store.recent(id, 9)) == 2
    await store.close()


def nothing(path: Path) -> None:
    """The directory is missing."""
    path.parent.rmdir()


def directory(path: Path) -> None:
    path.mkdir()


def text(path: Path) -> None:
    path.write_text("role: user\n" * 1000)


def someone_elses(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE bookmark (url TEXT)")


def newer(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 9999")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (nothing, "directory of the file does not exist"),
        (directory, "directory"),
        (text, "not an SQLite database"),
        (someone_elses, "another program's database"),
        (newer, "newer version"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_one_line(
    tmp_path: Path, make: Callable[[Path], None], reason: str
) -> None:
    path = tmp_path / "state" / "c.db"
    path.parent.mkdir()
    make(path)
    with pytest.raises(OSError, match=reason) as caught:
        SqliteConversations(path)
    assert caught.value.filename == str(path)
    assert "\n" not in str(caught.value)


async def test_an_empty_file_is_a_new_store(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    path.touch()
    store = SqliteConversations(path)
    await pair(store, 1)
    await store.close()


async def test_the_file_is_written_ahead_and_its_version_is_known(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    await SqliteConversations(path).close()
    with contextlib.closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert database.execute("PRAGMA user_version").fetchone() == (len(module.MIGRATIONS),)
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_turns_of_before_there_were_thoughts_still_read(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        for statement in module.MIGRATIONS[0].split(";"):
            database.execute(statement)
        database.execute("INSERT INTO conversation VALUES (1, 'id-1', 'acme', 's', 1.0, 2.0, 'a')")
        database.execute("INSERT INTO turn VALUES (1, 1, 'user', 'a', 1.5, 0)")
        database.execute("PRAGMA user_version = 1")
    store = SqliteConversations(path)
    assert await store.recent("id-1", 9) == [Turn("user", "a", 1.5)]
    sealed = Turn("assistant", "b", 2.5, thoughts="[]")
    await store.append("acme", "s", await store.open("acme", "s"), [sealed])
    assert await store.recent("id-1", 1) == [sealed]
    await store.close()


async def test_a_new_file_is_for_its_owner_only(tmp_path: Path) -> None:
    store = SqliteConversations(tmp_path / "c.db")
    await pair(store, 1)
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}
    await store.close()


async def test_what_was_deleted_is_nowhere_in_the_file(tmp_path: Path) -> None:
    store = SqliteConversations(tmp_path / "c.db")
    id = await store.open("acme", "s")
    await store.append("acme", "s", id, [Turn("user", f"very-secret-{n}", 1) for n in range(200)])
    assert await store.delete(id)
    assert b"very-secret" not in b"".join(file.read_bytes() for file in tmp_path.iterdir())
    await store.close()


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = SqliteConversations(tmp_path / "c.db")
    await store.close()
    with pytest.raises(RuntimeError):
        await store.recent("x", 1)


async def test_ids_of_sessions_without_turns_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_UNSTORED", 3)
    store = SqliteConversations(tmp_path / "c.db")
    first = await store.open("acme", "0")
    for n in range(1, 4):
        await store.open("acme", str(n))
    assert await store.open("acme", "0") != first
    await store.close()

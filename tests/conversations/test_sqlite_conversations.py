"""What only the file has to do: last, survive, be shared, stay out of the event loop's way, and say why it cannot."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.conversations import Turn
from gateway.conversations.sqlite import HistoryFailed, SqliteConversations
from gateway.errors import ConfigError

TURN = [Turn("user", "question", 1.0), Turn("assistant", "answer", 2.0, True)]
WRITER = """
import asyncio, sys
from pathlib import Path
from gateway.conversations import Turn
from gateway.conversations.sqlite import SqliteConversations

async def main():
    store = SqliteConversations(Path(sys.argv[1]))
    id = await store.open("t", "s")
    for number in range(1_000_000):
        await store.append("t", "s", id, [Turn("user", f"{number}", 1.0), Turn("assistant", f"{number}", 2.0)])
        print(number, flush=True)

asyncio.run(main())
"""


async def say(store: SqliteConversations, session: str = "s") -> str:
    id = await store.open("t", session)
    await store.append("t", session, id, TURN)
    return id


async def test_survives_a_restart_with_the_same_ids(tmp_path: Path) -> None:
    store = SqliteConversations(tmp_path / "c.db")
    id, unsaid = await say(store), await store.open("t", "never said anything")
    before = await store.get(id)
    await store.close()
    again = SqliteConversations(tmp_path / "c.db")
    assert await again.get(id) == before
    assert await again.recent(id, 10) == TURN
    assert await again.open("t", "s") == id
    assert await again.open("t", "never said anything") == unsaid
    await again.close()


async def test_survives_kill_9_with_every_turn_that_was_confirmed_and_no_half_ones(tmp_path: Path) -> None:
    confirmed = 0
    for _ in range(2):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path / "c.db")],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            text=True,
        )
        assert writer.stdout is not None
        for _ in range(30):
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        confirmed += 30 + len(writer.stdout.read().splitlines(keepends=True)[:-1])
        writer.wait()
        writer.stdout.close()
    store = SqliteConversations(tmp_path / "c.db")
    turns = await store.recent(await store.open("t", "s"), 1_000_000)
    assert len(turns) >= 2 * confirmed
    assert [turn.role for turn in turns] == ["user", "assistant"] * (len(turns) // 2)
    assert all(question.content == answer.content for question, answer in zip(turns[::2], turns[1::2], strict=True))
    await store.close()


async def test_two_processes_worth_of_stores_share_one_file(tmp_path: Path) -> None:
    stores = [SqliteConversations(tmp_path / "c.db") for _ in range(3)]
    assert len({await store.open("t", "s") for store in stores}) == 1
    await asyncio.gather(*(say(store, f"s{number % 4}") for number in range(20) for store in stores))
    for store in stores:
        assert [len(await store.recent(await store.open("t", f"s{number}"), 1000)) for number in range(4)] == [30] * 4
        await store.close()


async def test_the_loop_runs_on_while_another_process_holds_the_file(tmp_path: Path) -> None:
    store = SqliteConversations(tmp_path / "c.db")
    other = sqlite3.connect(tmp_path / "c.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    saying = asyncio.create_task(say(store))
    for _ in range(1000):
        await asyncio.sleep(0)
    assert not saying.done()
    other.execute("COMMIT")
    other.close()
    assert len(await store.recent(await saying, 10)) == 2
    await store.close()


async def test_a_cancelled_append_is_stored_whole_or_not_at_all(tmp_path: Path) -> None:
    store = SqliteConversations(tmp_path / "c.db")
    for rounds in range(30):
        saying = asyncio.create_task(say(store))
        for _ in range(rounds % 6):
            await asyncio.sleep(0)
        saying.cancel()
        await asyncio.wait([saying])
    turns = await store.recent(await store.open("t", "s"), 1000)
    assert turns == TURN * (len(turns) // 2)
    await store.close()


async def test_a_turn_that_fails_half_way_leaves_nothing_and_the_next_one_is_kept(tmp_path: Path) -> None:
    store = SqliteConversations(tmp_path / "c.db")
    other = sqlite3.connect(tmp_path / "c.db")
    other.execute(
        "CREATE TRIGGER no BEFORE INSERT ON messages WHEN new.role = 'assistant' BEGIN SELECT raise(ABORT, 'disk full'); END"
    )
    with pytest.raises(HistoryFailed):
        await say(store)
    assert await store.newest(10) == ([], 0)
    other.execute("DROP TRIGGER no")
    assert await store.recent(await say(store), 10) == TURN
    other.close()
    await store.close()


async def test_a_file_that_breaks_while_open_is_reported_as_our_error(tmp_path: Path) -> None:
    store = SqliteConversations(tmp_path / "c.db")
    other = sqlite3.connect(tmp_path / "c.db")
    other.execute("DROP TABLE messages")
    with pytest.raises(HistoryFailed) as caught:
        await store.recent("x", 1)
    assert caught.value.code == "unavailable"
    assert str(tmp_path) not in str(caught.value)
    other.close()
    await store.close()


async def test_only_its_owner_may_read_the_file(tmp_path: Path) -> None:
    store = SqliteConversations(tmp_path / "c.db")
    await say(store)
    assert {os.stat(path).st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    await store.close()


def test_the_directory_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="directory .*/missing of the SQLite file does not exist"):
        SqliteConversations(tmp_path / "missing" / "c.db")


@pytest.mark.parametrize(
    "content", [b"this is no database at all, whatever its name says" * 10, None], ids=["text", "directory"]
)
def test_what_is_no_database_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "c.db"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"c\.db cannot be used"):
        SqliteConversations(path)


def test_a_file_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    newer = sqlite3.connect(tmp_path / "c.db")
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(ConfigError, match="newer version"):
        SqliteConversations(tmp_path / "c.db")

"""One SQLite file for several stores of several processes."""

import sqlite3
import subprocess
import sys
from pathlib import Path

from sluice.storage.sqlite import SqliteFile

BUSY = 30.0
ANOTHER_PROCESS = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("INSERT INTO note VALUES (?)", (sys.argv[2],))
print([text for [text] in database.execute("SELECT text FROM note ORDER BY text")])
database.close()
"""


def make(database: sqlite3.Connection) -> None:
    database.execute("CREATE TABLE IF NOT EXISTS note (text TEXT)")


def add(store: SqliteFile, text: str) -> None:
    store.database.execute("INSERT INTO note VALUES (?)", (text,))


def another_process(path: Path, text: str) -> str:
    """Adds a note, and leaves as a worker does that is replaced; what it has read."""
    done = subprocess.run(
        [sys.executable, "-c", ANOTHER_PROCESS, str(path), text], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


async def test_a_process_that_leaves_does_not_take_the_log_away_from_two_stores_of_another(
    tmp_path: Path,
) -> None:
    path = tmp_path / "sluice.db"
    stores = [SqliteFile(path, name, make, busy=BUSY) for name in ("keys", "usage")]
    log = Path(f"{path}-wal").stat().st_ino
    await stores[0].run(add, stores[0], "a")
    assert another_process(path, "b") == "['a', 'b']"
    assert Path(f"{path}-wal").stat().st_ino == log
    await stores[1].run(add, stores[1], "c")
    assert another_process(path, "d") == "['a', 'b', 'c', 'd']"
    for store in stores:
        await store.close()


async def test_a_file_that_others_may_read_is_made_private(tmp_path: Path) -> None:
    path = tmp_path / "sluice.db"
    path.touch(0o666)
    store = SqliteFile(path, "keys", make, busy=BUSY)
    assert path.stat().st_mode & 0o777 == 0o600
    await store.close()

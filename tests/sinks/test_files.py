"""Files of records: rotation by size and age, several writers, disks that are full."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sluice.config.types import RecordFile
from sluice.config.units import Bytes, Seconds
from sluice.sinks import files
from sluice.sinks.files import RotatingFile


class Wall:
    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


def rotated(path: Path) -> list[str]:
    return sorted(found.name for found in path.parent.glob(path.name + ".*"))


def test_a_file_is_put_aside_by_size_and_the_newest_are_kept(tmp_path: Path) -> None:
    path, wall = tmp_path / "calls.jsonl", Wall()
    file = RotatingFile(RecordFile(path=str(path), size=Bytes(20), keep=2), wall)
    for number in range(10):
        file.write(b'{"n":%d}\n' % number * 2)
    assert path.read_bytes() == b'{"n":9}\n' * 2
    kept = [(tmp_path / name).read_bytes() for name in rotated(path)]
    assert kept == [b'{"n":7}\n' * 2, b'{"n":8}\n' * 2]


def test_a_file_is_of_one_period(tmp_path: Path) -> None:
    path, wall = tmp_path / "calls.jsonl", Wall()
    config = RecordFile(path=str(path), age=Seconds(3600))
    RotatingFile(config, wall).write(b"old\n")
    os.utime(path, (wall.now - 3600, wall.now - 3600))
    RotatingFile(config, wall).write(b"new\n")  # after a restart, too
    assert path.read_bytes() == b"new\n"
    assert len(rotated(path)) == 1


def test_a_disk_that_is_full_leaves_no_half_of_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "calls.jsonl"
    file = RotatingFile(RecordFile(path=str(path)))
    file.write(b"one\n")
    write = os.write
    taken = iter([3])

    def full(number: int, data: bytes) -> int:
        for size in taken:
            return write(number, bytes(data[:size]))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "write", full)
    with pytest.raises(OSError, match="No space"):
        file.write(b"second\n")
    monkeypatch.undo()
    assert path.read_bytes() == b"one\n"
    file.write(b"second\n")
    assert path.read_bytes() == b"one\nsecond\n"


def test_several_processes_write_one_file_without_losing_a_line(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    code = f"""
from sluice.config.types import RecordFile
from sluice.config.units import Bytes
from sluice.sinks.files import RotatingFile
import sys
file = RotatingFile(RecordFile(path={str(path)!r}, size=Bytes(200), keep=1000))
for number in range(100):
    file.write(f"{{sys.argv[1]}}-{{number}}\\n".encode() * 2)
"""
    writers = [subprocess.Popen([sys.executable, "-c", code, name]) for name in "abc"]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    lines = [line for found in tmp_path.iterdir() for line in found.read_text().splitlines()]
    assert sorted(lines) == sorted(
        f"{name}-{number}" for name in "abc" for number in range(100) for _ in range(2)
    )
    assert len(list(tmp_path.iterdir())) > 2

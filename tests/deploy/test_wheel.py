"""The wheel is the same, bit by bit, wherever and whenever a commit is built."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("gateway", "plugins", "config", "pyproject.toml", "README.md", "LICENSE")


def wheel(folder: Path, mask: int, seconds: int) -> bytes:
    """Built from a copy whose files have other rights and another age. pytest keeps `folder` for a while."""
    source = folder / "source"
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
    source.mkdir(parents=True)
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, source / name)
    for path in source.rglob("*"):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)
        os.utime(path, (seconds, seconds))
    command = [
        sys.executable,
        "-m",
        "hatchling",
        "build",
        "--target",
        "wheel",
        "--directory",
        str(folder / "dist"),
    ]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (built,) = (folder / "dist").glob("*.whl")
    shutil.rmtree(source)
    return built.read_bytes()


def test_two_builds_of_the_wheel_are_the_same(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="hatchling is not installed")
    first = wheel(tmp_path / "one", 0o022, 1_700_000_000)
    assert first == wheel(tmp_path / "somewhere" / "else", 0o077, 1_800_000_001)

"""`--workers auto`."""

import os
from pathlib import Path

import pytest

from sluice.process.processors import usable


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max 100000\n", 0),
        ("150000 100000\n", 2),
        ("1000 100000\n", 1),
        ("0 0\n", 0),
        ("nonsense\n", 0),
        ("\n", 0),
    ],
)
def test_processors_are_those_that_may_be_used_or_what_the_quota_is_worth(
    tmp_path: Path, text: str, expected: int
) -> None:
    (tmp_path / "cpu.max").write_text(text)
    here = len(os.sched_getaffinity(0))
    assert usable(tmp_path / "cpu.max") == (min(expected, here) or here)
    assert usable(tmp_path / "none") == here

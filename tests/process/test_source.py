"""The configuration's file: when it has changed."""

import os
from pathlib import Path

from sluice.process.source import ConfigSource, FileWatch


def test_a_change_is_told_once_and_when_it_is_over() -> None:
    watch = FileWatch((1, 1, 1, 1))
    states = [
        (1, 1, 1, 1),
        (1, 1, 2, 5),
        (1, 1, 3, 9),
        (1, 1, 3, 9),
        (1, 1, 3, 9),
        (1, 2, 4, 9),
        (1, 2, 4, 9),
    ]
    assert [watch.look(state) for state in states] == [False, False, False, True, False, False, True]


def test_a_file_that_is_away_for_a_moment_is_no_change() -> None:
    watch = FileWatch((1, 1, 1, 1))
    assert [watch.look(state) for state in (None, None, (1, 1, 1, 1), (1, 1, 1, 1))] == [False] * 4
    assert [watch.look(state) for state in (None, (1, 2, 1, 1), (1, 2, 1, 1))] == [False, False, True]


def test_a_link_that_leads_elsewhere_is_another_state(tmp_path: Path) -> None:
    """Kubernetes replaces a ConfigMap so."""
    (tmp_path / "one").write_text("a: 1")
    (tmp_path / "two").write_text("a: 2")
    link = tmp_path / "link"
    link.symlink_to("one")
    source = ConfigSource(str(link))
    before = source.state()
    assert source.state() == before
    (tmp_path / "new").symlink_to("two")
    os.replace(tmp_path / "new", link)
    assert source.state() != before
    assert source.read() == b"a: 2"
    link.unlink()
    assert source.state() is None

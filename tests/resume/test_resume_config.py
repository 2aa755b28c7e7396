"""Where journals are kept is checked, and never shown."""

from pathlib import Path

import pytest

from sluice.config.loader import load
from sluice.errors import ConfigError
from tests.e2e.test_resume import config


@pytest.mark.parametrize(
    "store", ["memory", "redis://:secret@cache:6379/1", "rediss://cache", "unix:///run/redis.sock"]
)
def test_stores_of_streams(store: str, tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(config(f'"{store}"'))
    loaded = load(str(path)).config
    assert loaded.resume.reveal() == store
    assert "secret" not in repr(loaded)


@pytest.mark.parametrize("store", ["redis", "http://cache", "sqlite:x", "Memory"])
def test_other_stores_of_streams_are_refused(store: str, tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(config(f'"{store}"'))
    with pytest.raises(ConfigError, match="resume: expected memory or a redis://"):
        load(str(path))

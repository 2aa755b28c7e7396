"""Contract tests that run on several servers from one source, by pytest.mark.usefixtures: both_servers,
every_server."""

import pytest

from tests.e2e import gateways


def _runs_on(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateways, "server", name)


@pytest.fixture(params=["sluice", "aiohttp"])
def both_servers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own server, and an aiohttp application."""
    _runs_on(request.param, monkeypatch)


@pytest.fixture(params=["sluice", "aiohttp", "mounted"])
def every_server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both, and an application that is mounted under a prefix."""
    _runs_on(request.param, monkeypatch)

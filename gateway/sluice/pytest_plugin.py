"""The fixture `sluice_gateway`, which pytest finds by an entry point. The gateway is imported when a test
requests it."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from sluice.testing import RunningGateway


@pytest.fixture
def sluice_config() -> Mapping[str, Any] | None:
    """Returns sections that the gateway of `sluice_gateway` has in addition: override it in a conftest.py or
    a test file."""
    return None


@pytest.fixture
def sluice_gateway(sluice_config: Mapping[str, Any] | None) -> "Iterator[RunningGateway]":
    """Yields a gateway with the models "echo" and "scripted", one per test: `sluice.testing.gateway`."""
    from sluice.testing import gateway

    with gateway(sluice_config) as running:
        yield running

"""How file descriptors are dealt out."""

import pytest

from sluice.runtime.descriptors import places


@pytest.mark.parametrize("limit", [16, 64, 256, 1024, 4096, 20_000, 1 << 20, 1 << 30])
@pytest.mark.parametrize("wanted", [1, 100, 10_000])
def test_a_client_its_upstream_and_all_the_rest_fit(limit: int, wanted: int) -> None:
    found = places(limit, wanted)
    assert 1 <= found.clients <= wanted
    assert min(found.operators, found.refused, found.idle) >= 1
    assert 2 * found.clients + found.idle + found.operators + found.refused < limit
    kept = limit - 2 * found.clients - found.idle - found.operators - found.refused
    assert kept >= min(limit // 8, 512), "stores, files, the event loop"


def test_where_there_are_enough_the_configuration_decides() -> None:
    assert places(1 << 20, 10_000).clients == 10_000
    assert places(1 << 20, 10_000).idle > 10_000

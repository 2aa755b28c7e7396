"""The HTTP status of every error."""

from typing import get_args

import pytest

from sluice import errors
from sluice.errors import GatewayError, UpstreamError, UpstreamErrorKind
from sluice.frontends.statuses import STATUS, status_of


def subclasses(kind: type[GatewayError]) -> set[type[GatewayError]]:
    return {kind}.union(*map(subclasses, kind.__subclasses__()))


def test_every_error_of_the_gateway_has_a_status_of_its_own() -> None:
    ours = {kind for kind in subclasses(GatewayError) if kind.__module__ == errors.__name__}
    upstream = subclasses(UpstreamError)
    assert ours - upstream - STATUS.keys() <= {GatewayError, errors.StageFault}


@pytest.mark.parametrize("kind", get_args(UpstreamErrorKind))
def test_an_upstreams_error_is_never_a_success(kind: UpstreamErrorKind) -> None:
    assert 400 <= status_of(UpstreamError(kind)) < 600


def test_an_unknown_id_is_400_only_where_the_provider_says_so() -> None:
    assert status_of(UpstreamError("unknown_id", status=400)) == 400
    assert status_of(UpstreamError("unknown_id", status=404)) == 404

"""Outcomes of attempts, and the errors of responses without success."""

from types import SimpleNamespace
from typing import Any, get_args

import pytest

from sluice.errors import NoCapacity, StaleConnection, UpstreamError, UpstreamErrorKind
from sluice.proxy import outcome
from sluice.proxy.outcome import OUTCOMES, failover_cause, refused, secrets_of
from sluice.telemetry import table


def test_every_kind_of_error_has_an_outcome_that_the_metric_knows() -> None:
    assert OUTCOMES.keys() == {*get_args(UpstreamErrorKind)}
    assert {*OUTCOMES.values()} <= {*table.OUTCOMES}
    assert {*table.OUTCOMES} >= outcome.UNSEEN


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (NoCapacity(1.0, "requests"), "no_room"),
        (StaleConnection("closed"), "stale_connection"),
        (UpstreamError("context_length"), "context"),
        (UpstreamError("overloaded"), "server_error"),
    ],
)
def test_causes_of_failovers(error: UpstreamError, cause: str) -> None:
    assert failover_cause(error) == cause


class Response:
    def __init__(self, status: int, body: bytes | UpstreamError = b"", **headers: str) -> None:
        self.status, self.headers, self._body = status, headers, body

    async def read(self, limit: int) -> bytes:
        if isinstance(self._body, UpstreamError):
            raise self._body
        return self._body[:limit]


def target() -> Any:
    def error(status: int, headers: dict[str, str], body: bytes) -> UpstreamError:
        return UpstreamError("server_error", body.decode(), status=status)

    return SimpleNamespace(upstream="up", backend=SimpleNamespace(error=error))


async def test_a_redirect_says_where_to_but_not_the_whole_url() -> None:
    response: Any = Response(302, location="https://elsewhere.example/v1?key=secret")
    error = await refused(target(), response)
    assert (error.kind, error.status) == ("not_found", 302)
    assert "elsewhere.example" in error.detail
    assert "secret" not in error.detail


async def test_an_error_whose_body_is_cut_is_judged_by_its_status() -> None:
    whole: Any = Response(503, b"overloaded")
    cut: Any = Response(503, UpstreamError("truncated"))
    assert (await refused(target(), whole)).message == "overloaded"
    assert (await refused(target(), cut)).status == 503


def test_all_parts_of_credentials_are_secrets() -> None:
    backend: Any = SimpleNamespace(
        headers={"x-extra-token": "t-1", "x-colour": "red"},
        credentials=lambda: [("authorization", "Bearer k-1")],
    )
    transport = SimpleNamespace(secrets=lambda: ["k-2"])
    assert set(secrets_of(backend, transport)) == {"Bearer k-1", "k-1", "t-1", "k-2"}

"""CORS: which pages may read what."""

from types import SimpleNamespace
from typing import Any

import pytest

from sluice.api.cors import ALLOWED, FOR_SERVERS, MAX_REQUESTED, RENEW, Cors, is_for_pages

ORIGIN = "https://app.example"


def cors() -> Cors:
    frontend: Any = SimpleNamespace(
        credential_headers=("x-goog-api-key",),
        request_headers=("x-client",),
        id_headers=("x-id",),
        response_headers=("x-left",),
    )
    return Cors([ORIGIN], [frontend])


def request(path: str = "/v1/chat/completions", **headers: str) -> Any:
    replies: list[tuple[int, dict[str, str]]] = []
    return SimpleNamespace(
        path=path,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        reply=lambda status, body, headers: replies.append((status, dict(headers))),
        replies=replies,
    )


def test_a_page_of_an_allowed_origin_may_read_the_headers_of_dialects() -> None:
    headers = dict(cors().headers(request(origin=ORIGIN)))
    assert headers["Access-Control-Allow-Origin"] == ORIGIN
    assert {"x-id", "x-left"} <= {*headers["Access-Control-Expose-Headers"].split(", ")}
    assert headers["Vary"] == "Origin"


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "", ORIGIN + ".evil.example", ORIGIN.upper()]
)
def test_no_other_page_may_read_anything(origin: str) -> None:
    assert cors().headers(request(origin=origin)) == []


def test_what_is_for_servers_is_for_no_page_but_renewing_is() -> None:
    for prefix in FOR_SERVERS:
        assert not is_for_pages(prefix)
    assert is_for_pages(RENEW)
    assert is_for_pages(RENEW + "/")
    assert cors().headers(request(FOR_SERVERS[0], origin=ORIGIN)) == []


def test_a_preflight_allows_what_the_page_asks_for_beside_what_is_known() -> None:
    asked = request(origin=ORIGIN, access_control_request_headers="X-Stainless-Lang, x-client")
    cors().preflight(asked, "POST, OPTIONS")
    [(status, headers)] = asked.replies
    allowed = headers["Access-Control-Allow-Headers"].split(", ")
    assert (status, headers["Access-Control-Allow-Methods"]) == (204, "POST, OPTIONS")
    assert {*ALLOWED, "x-client", "x-goog-api-key", "x-stainless-lang"} <= {*allowed}
    assert len(allowed) == len({*allowed})


@pytest.mark.parametrize(
    "requested", ["a\r\nb", "a b", "*, ", "x" * 65, ",".join(["x"] * (MAX_REQUESTED + 1))]
)
def test_what_is_no_list_of_names_adds_nothing(requested: str) -> None:
    assert cors().allowed(requested) == cors().allowed("x-client")


def test_a_preflight_of_another_page_learns_the_methods_alone() -> None:
    asked = request(origin="https://evil.example")
    cors().preflight(asked, "POST")
    assert asked.replies == [(204, {"Allow": "POST"})]

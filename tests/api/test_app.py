"""Which path and method lead where, and in whose shape what leads nowhere is told."""

import json
from typing import Any

import pytest

from sluice.frontends.registry import find_frontend, installed
from tests.api.serving import CONFIG, KEY, PAGE, FakeRequest, served

MESSAGES = {"model": "chat", "messages": [{"role": "user", "content": "tokens=2 gap_us=0"}]}
SHOWN = [
    *dict.fromkeys(
        route.path for name in installed() for route in find_frontend(name).routes() if "{" not in route.path
    ),
    "/v1/openapi.json",
]  # fmt: skip
TURN = {"sessionId": "s", "message": "hi"}


def of_openai(answer: Any) -> bool:
    return isinstance(answer["error"], dict)


# --- calls


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/chat/completions/", "/chat/completions", "/chat/completions/"]
)
async def test_a_call_goes_with_and_without_v1_and_with_a_slash_at_the_end(path: str) -> None:
    async with served() as api:
        request = await api.ask("POST", path, MESSAGES)
        assert (request.status, request.json["object"]) == (200, "chat.completion")
        assert api.log[-1]["route"] == path.rstrip("/")


@pytest.mark.parametrize(("path", "content_type"), [
    ("/v1/chat/stream", "application/x-ndjson"), ("/chat", "application/x-ndjson"), ("/chat/", "application/x-ndjson"),
    ("/v1/chat", "application/json"), ("/v1/chat/", "application/json"),
])  # fmt: skip
async def test_the_widgets_route_says_whether_its_answer_is_streamed(path: str, content_type: str) -> None:
    async with served() as api:
        request = await api.ask("POST", path, TURN)
        assert request.status == 200
        assert request.content_type.startswith(content_type)


@pytest.mark.parametrize(
    "path", ["/V1/chat", "/v1/chat//", "//v1/chat", "/v1/chat/completions/x", "/v1/chat/streams"]
)
async def test_a_path_that_is_nearly_one_is_none(path: str) -> None:
    async with served() as api:
        assert (await api.ask("POST", path, TURN)).status == 404


async def test_a_request_has_its_id_in_both_headers_and_a_bad_one_gets_another() -> None:
    async with served() as api:
        for given, kept in (("mine-1", True), ("a b", False), ("x" * 129, False)):
            request = await api.ask("GET", "/health", headers={"x-request-id": given})
            assert request.told["x-request-id"] == request.told["request-id"]
            assert (request.told["x-request-id"] == given) is kept


# --- models


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/", "/models", "/models/"])
async def test_models_are_listed(path: str) -> None:
    async with served() as api:
        request = await api.ask("GET", path)
        assert [model["id"] for model in request.json["data"]] == ["chat", "a/b"]
        assert api.log[-1]["route"] == "/v1/models"


@pytest.mark.parametrize("path", ["/v1/models/a/b", "/v1/models/a%2Fb", "/models/a/b/", "/models/a%2fb"])
async def test_a_model_is_found_by_its_name_slashes_and_all(path: str) -> None:
    async with served() as api:
        request = await api.ask("GET", path)
        assert (request.status, request.json["id"]) == (200, "a/b")
        assert api.log[-1]["route"] == "/v1/models/*"


async def test_a_model_that_there_is_not_is_told_in_openais_shape() -> None:
    async with served() as api:
        request = await api.ask("GET", "/v1/models/no")
        assert (request.status, request.json["error"]["code"]) == (404, "model_not_found")


async def test_head_is_answered_where_get_is_and_a_stranger_is_not() -> None:
    async with served() as api:
        assert (await api.ask("HEAD", "/v1/models")).status == 200
        request = await api.ask("GET", "/v1/models", key="sk-nobody")
        assert (request.status, request.json["error"]["code"]) == (401, "invalid_api_key")
        assert "Bearer" in request.told["www-authenticate"]


# --- what leads nowhere


@pytest.mark.parametrize(("path", "openai"), [
    ("/v1/embedding", True), ("/v1/assistants/17", True), ("/responses/x/y", True), ("/engines/x", True),
    ("/v1/chat/completions/x", True),
    ("/v1/chat/x", False), ("/v1/tokens/x", False), ("/v1/admin", False), ("/v1/openapi.jsonx", True), ("/admin/x", False),
    ("/v1", False), ("", False), ("*", False), ("/nowhere", False),
])  # fmt: skip
async def test_an_unknown_path_is_told_in_the_shape_of_who_claims_it(path: str, openai: bool) -> None:
    async with served() as api:
        request = await api.ask("GET", path)
        assert request.status == 404
        assert of_openai(request.json) is openai
        text = request.json["error"]["message"] if openai else request.json["reason"]
        _, _, paths = text.partition("Served are ")
        assert set(SHOWN) <= set(paths.split(", "))
        assert api.log[-1]["route"] == "other"


async def test_who_looks_for_a_server_at_the_root_finds_one() -> None:
    async with served() as api:
        head = await api.ask("HEAD", "/", key="")
        assert (head.status, head.answer) == (200, b"")
        told = await api.ask("GET", "/", key="", headers={"accept": "*/*"})
        assert (told.status, told.answer) == (200, b"Ollama is running")
        assert told.content_type == "text/plain; charset=utf-8"
        page = await api.ask("GET", "/", key="", headers={"accept": "text/html,*/*;q=0.8"})
        assert (page.status, "Served are" in page.json["reason"]) == (404, True)
        assert (await api.ask("GET", "/", key="")).status == 404


async def test_without_ollamas_dialect_nobody_says_that_ollama_runs() -> None:
    async with served(f"server: {{frontends: [openai]}}\n{CONFIG}") as api:
        assert (await api.ask("HEAD", "/", key="")).status == 200
        assert (await api.ask("GET", "/", key="")).status == 404


async def test_the_admin_port_has_no_dialects_routes_but_their_errors() -> None:
    async with served() as api:
        for path, openai in (("/v1/chat/completions", True), ("/v1/chat", False), ("/nowhere", False)):
            request = FakeRequest("POST", path, MESSAGES)
            await api.operators(request)
            assert (request.status, of_openai(request.json)) == (404, openai)
            assert "Served" not in request.answer.decode()


# --- methods


@pytest.mark.parametrize(("method", "path", "allowed"), [
    ("GET", "/v1/chat", "OPTIONS, POST"),
    ("PUT", "/v1/chat/stream", "OPTIONS, POST"),
    ("GET", "/v1/chat/completions", "OPTIONS, POST"),
    ("HEAD", "/v1/chat/completions", "OPTIONS, POST"),
    ("DELETE", "/v1/chat/completions", "GET, OPTIONS, POST"),
    ("HEAD", "/v1/chat/stream/abcdefghijklmnop", "GET, OPTIONS"),
    ("POST", "/v1/chat/stream/abcdefghijklmnop", "GET, OPTIONS"),
    ("POST", "/v1/models", "GET, HEAD, OPTIONS"),
    ("POST", "/v1/models/chat", "GET, HEAD, OPTIONS"),
    ("GET", "/v1/tokens", "OPTIONS, POST"),
    ("PUT", "/admin/keys", "GET, HEAD, OPTIONS, POST"),
    ("PUT", "/admin/keys/one", "DELETE, GET, HEAD, OPTIONS, PATCH"),
    ("GET", "/admin/keys/one/rotate", "OPTIONS, POST"),
    ("BREW", "/readyz", "GET, HEAD, OPTIONS"),
])  # fmt: skip
async def test_another_method_is_refused_with_those_that_there_are(
    method: str, path: str, allowed: str
) -> None:
    async with served() as api:
        request = await api.ask(method, path)
        assert (request.status, request.told["allow"]) == (405, allowed)
        if "GET" in allowed.split(", ") or "completions" not in path:
            assert (await api.ask("OPTIONS", path)).told["allow"] == allowed


async def test_a_key_has_only_the_actions_that_there_are() -> None:
    async with served() as api:
        admin = {"x-admin-api-key": KEY}
        assert (await api.ask("POST", "/admin/keys/one/melt", headers=admin)).status == 404
        made = await api.ask("POST", "/admin/keys", {"id": "a/b"}, headers=admin)
        assert made.status == 201
        for action, status in (("disable", 200), ("enable", 200), ("rotate", 200)):
            changed = await api.ask("POST", f"/admin/keys/a%2Fb/{action}", headers=admin)
            assert (changed.status, changed.json["id"]) == (status, "a/b")
        assert (await api.ask("GET", "/admin/keys/a%2Fb/", headers=admin)).json["id"] == "a/b"
        assert (await api.ask("GET", "/admin/keys/a/b", headers=admin)).status == 404


# --- pages


async def test_a_preflight_of_an_allowed_page_is_told_what_it_may_send_and_of_another_nothing() -> None:
    wanted = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "X-Odd, authorization",
    }
    async with served() as api:
        request = await api.ask("OPTIONS", "/v1/chat/completions", headers={"origin": PAGE, **wanted}, key="")
        assert request.status == 204
        assert request.told["access-control-allow-origin"] == PAGE
        assert request.told["access-control-allow-methods"] == "GET, OPTIONS, POST"
        names = request.told["access-control-allow-headers"].split(", ")
        assert {
            "authorization",
            "content-type",
            "x-api-key",
            "x-widget-api-key",
            "x-stainless-os",
            "x-odd",
        } <= {*names}
        for path, origin in (
            ("/v1/chat/completions", "https://evil.example"),
            ("/admin/keys", PAGE),
            ("/v1/tokens", PAGE),
        ):
            request = await api.ask("OPTIONS", path, headers={"origin": origin, **wanted}, key="")
            assert request.status == 204
            assert not [name for name in request.told if name.lower().startswith("access-control")]
            assert "allow" in request.told
        assert (await api.ask("OPTIONS", "/v1/tokens/renew", headers={"origin": PAGE})).told[
            "access-control-allow-origin"
        ] == PAGE


async def test_a_page_may_read_its_answer_and_the_headers_that_there_are() -> None:
    async with served() as api:
        for method, path, body in (("POST", "/v1/chat", TURN), ("GET", "/v1/models", None)):
            request = await api.ask(method, path, body, headers={"origin": PAGE})
            assert (request.status, request.told["access-control-allow-origin"]) == (200, PAGE)
            exposed = request.told["access-control-expose-headers"].split(", ")
            assert {"x-request-id", "retry-after", "x-ratelimit-remaining-tokens", "x-sluice-target"} <= {
                *exposed
            }
        request = await api.ask("POST", "/v1/chat", TURN, headers={"origin": "https://evil.example"})
        assert request.status == 403
        assert "access-control-allow-origin" not in request.told


# --- resuming


async def test_a_stream_is_resumed_by_its_path_and_by_last_event_id() -> None:
    async with served() as api:
        whole = await api.ask("POST", "/v1/chat/stream", TURN)
        stream = json.loads(whole.answer.splitlines()[0])["streamId"]
        again = await api.ask("GET", f"/v1/chat/stream/{stream}")
        assert again.answer == whole.answer
        by_header = await api.ask("GET", "/v1/chat/completions", headers={"last-event-id": f"{stream}:0"})
        assert by_header.status == 200
        assert whole.answer.endswith(by_header.answer)
        assert (await api.ask("GET", "/v1/chat/stream/unknown-unknown-unknown")).status == 404
        assert [line["event"] for line in api.log if line["event"] == "resume"] == ["resume", "resume"]


# --- the process


async def test_probes_are_not_logged_and_metrics_are_the_operators() -> None:
    async with served() as api:
        for path in ("/health", "/livez", "/healthz", "/readyz", "/readyz/"):
            assert (await api.ask("GET", path)).status == 200
        assert (await api.ask("GET", "/metrics")).status == 404
        request = FakeRequest("GET", "/metrics")
        await api.operators(request)
        assert (request.status, b"sluice_" in request.answer) == (200, True)
        assert [line["route"] for line in api.log if line["event"] == "request"] == ["other"]


async def test_the_description_has_what_is_served() -> None:
    async with served(CONFIG + "\nserver: {frontends: [openai]}\n") as api:
        paths = (await api.ask("GET", "/v1/openapi.json")).json["paths"]
        assert "/v1/chat/completions" in paths
        assert "/v1/chat/stream" not in paths
        assert "/admin/keys/{id}/rotate" in paths


@pytest.mark.parametrize(("path", "route"), [
    ("/v1/models/chat:generateContent", "/v1/models/*:generateContent"),
    ("/v1beta/models/a/b:countTokens", "/v1beta/models/*:countTokens"),
])  # fmt: skip
async def test_a_pattern_with_more_text_goes_before_one_with_less(path: str, route: str) -> None:
    async with served() as api:
        request = await api.ask("POST", path, {"contents": [{"parts": [{"text": "hi"}]}]})
        assert request.status == 200
        assert api.log[-1]["route"] == route

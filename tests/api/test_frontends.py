"""What a frontend may bring: paths that say the model, keys in its own headers and in the query, a marker,
its own errors."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from sluice.api.table import PathClaims
from sluice.config.loader import check
from sluice.errors import BadRequest, ConfigError, GatewayError
from sluice.frontends import (
    Answer,
    CallRoute,
    Encoder,
    Endpoint,
    Frontend,
    Inquiry,
    Reply,
    RequestHead,
    ResumeRoute,
    Route,
)  # fmt: skip
from sluice.frontends.openai.dialect import OpenAI
from sluice.frontends.registry import conflicts, installed
from sluice.frontends.widget.answer import NdjsonLines, Whole
from sluice.model.chat import ChatRequest, Message, Text
from tests.api.serving import CONFIG, KEY, FakeRequest, served


class Pathed(Frontend):
    """Model and streaming are in the path, the key may be in the query: as Gemini has it."""

    name: ClassVar[str] = "pathed"
    numbered: ClassVar[bool] = True
    claims: ClassVar[tuple[str, ...]] = ("/v9beta/",)
    credential_headers: ClassVar[tuple[str, ...]] = ("x-goog-api-key",)
    credential_parameters: ClassVar[tuple[str, ...]] = ("key",)
    response_headers: ClassVar[tuple[str, ...]] = ("x-pathed",)
    id_headers: ClassVar[tuple[str, ...]] = ("x-pathed-id",)

    def routes(self) -> Sequence[Route]:
        model = "/v9beta/models/{model}"
        return (
            CallRoute(
                path=f"{model}:generateContent", parse=lambda body, head: self.chat(body, head, stream=False)
            ),
            CallRoute(
                path=f"{model}:streamGenerateContent",
                parse=lambda body, head: self.chat(body, head, stream=True),
            ),
            Endpoint(path="/v9beta/models", answer=self.models),
            Endpoint(path="/v9beta/echo/{a}/of/{+rest}", methods=("GET", "POST"), answer=self.echo),
        )

    def chat(self, body: bytes, head: RequestHead, *, stream: bool) -> ChatRequest:
        wire = json.loads(body)
        if "text" not in wire:
            raise BadRequest("text: is required", param="text")
        profile = head.query.get("alt", "")
        messages = (Message("user", (Text(wire["text"]),)),)
        return ChatRequest("", head.parameters["model"], messages, stream=stream, profile=profile)

    async def models(self, inquiry: Inquiry) -> Reply:
        return Reply(json.dumps({"models": [*inquiry.models]}).encode(), headers=(("x-pathed", "yes"),))

    async def echo(self, inquiry: Inquiry) -> Reply:
        sent = await inquiry.json() if inquiry.method == "POST" else None
        return Reply(
            json.dumps([dict(inquiry.head.parameters), dict(inquiry.head.query), sent]).encode(), 202
        )

    def encoder(self, chat: ChatRequest, answer: Answer, *, verbatim: bool = False) -> Encoder:
        return NdjsonLines(answer, full=False) if chat.stream else Whole(answer)

    def error(self, error: GatewayError, request_id: str) -> dict[str, Any]:
        return {"pathed": error.code, "id": request_id}

    def status(self, error: GatewayError) -> int:
        return 499 if isinstance(error, BadRequest) else super().status(error)


class Marked(Pathed):
    """Has OpenAI's path of models, in another shape, as Anthropic's dialect has it, too."""

    name: ClassVar[str] = "marked"
    marker: ClassVar[str] = "marked-version"
    claims: ClassVar[tuple[str, ...]] = ("/v1/", "/v1/marks")
    credential_parameters: ClassVar[tuple[str, ...]] = ()
    id_headers: ClassVar[tuple[str, ...]] = ()

    def routes(self) -> Sequence[Route]:
        return (Endpoint(path="/v1/models", answer=self.models), ResumeRoute(path="/v1/marks"))

    def error(self, error: GatewayError, request_id: str) -> dict[str, Any]:
        return {"marked": error.code}


class Tenanted(Pathed):
    """Has a parameter for its first segment."""

    name: ClassVar[str] = "tenanted"
    credential_parameters: ClassVar[tuple[str, ...]] = ()

    def routes(self) -> Sequence[Route]:
        return (Endpoint(path="/{a}/notes/of/{+rest}", answer=self.echo),)


INSTALLED = ", ".join(installed())
ASK = {"text": "tokens=2 gap_us=0"}


@pytest.mark.parametrize("first", ["acme", "v1beta", "v9beta"])
async def test_a_first_segment_may_be_a_parameter_beside_others_that_are_none(first: str) -> None:
    async with served(CONFIG, Pathed(), Tenanted()) as api:
        request = await api.ask("GET", f"/{first}/notes/of/b/c")
        assert (request.status, request.json[0]) == (202, {"a": first, "rest": "b/c"})
        assert (await api.ask("GET", "/v9beta/echo/1/of/2")).json[0] == {"a": "1", "rest": "2"}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["chat", "a%2Fb"])
async def test_model_and_streaming_may_be_in_the_path(model: str, stream: bool) -> None:
    async with served(CONFIG, Pathed()) as api:
        how = "streamGenerateContent" if stream else "generateContent"
        request = await api.ask("POST", f"/v9beta/models/{model}:{how}?alt=sse", ASK)
        assert request.status == 200, request.answer
        assert request.content_type.startswith("application/x-ndjson" if stream else "application/json")
        line = api.log[-1]
        assert (line["route"], line["frontend"]) == (f"/v9beta/models/*:{how}", "pathed")
        assert line["alias"] == model.replace("%2F", "/")
        assert b'frontend="pathed"' in api.runtime.exposition()


async def test_what_a_caller_writes_into_a_path_is_not_logged() -> None:
    async with served(CONFIG, Pathed()) as api:
        assert (await api.ask("POST", "/v9beta/models/canary-1:generateContent", ASK)).status == 404
        assert (await api.ask("GET", "/v9beta/echo/canary-2/of/canary-3/canary-4?q=canary-5")).status == 202
        assert "canary" not in json.dumps(api.log)


@pytest.mark.parametrize(("headers", "query", "status"), [
    ({}, f"?key={KEY}", 200), ({"x-goog-api-key": KEY}, "", 200), ({"x-goog-api-key": KEY}, f"?key={KEY}", 200),
    ({"x-api-key": KEY}, "", 200), ({"x-goog-api-key": "other"}, f"?key={KEY}", 401), ({}, "?key=nobody", 401),
    ({}, "?key=", 401), ({}, "", 401), ({}, "?key=%C3%A9", 401), ({"x-api-key": "sk-nobody"}, f"?key={KEY}", 401),
])  # fmt: skip
async def test_a_key_may_come_under_the_dialects_own_names(
    headers: dict[str, str], query: str, status: int
) -> None:
    async with served(CONFIG, Pathed()) as api:
        for method, path, body in (
            ("POST", "/v9beta/models/chat:generateContent", ASK),
            ("GET", "/v9beta/models", None),
        ):
            request = await api.ask(method, path + query, body, headers=headers, key="")
            assert request.status == status
            assert KEY not in json.dumps(api.log)
        if status == 401:
            assert request.json["pathed"] == "unauthorized"


async def test_a_key_in_the_query_is_none_for_another_dialect() -> None:
    async with served(CONFIG, Pathed()) as api:
        assert (await api.ask("GET", f"/v1/models?key={KEY}", key="")).status == 401
        assert (await api.ask("GET", "/v1/models", key="", headers={"x-goog-api-key": KEY})).status == 200


async def test_errors_ids_and_readable_headers_are_the_dialects() -> None:
    async with served(CONFIG, Pathed()) as api:
        request = await api.ask("POST", "/v9beta/models/chat:generateContent", {})
        assert (request.status, request.json["pathed"]) == (499, "invalid_request")
        assert request.told["x-pathed-id"] == request.told["x-request-id"] == request.json["id"]
        request = await api.ask("GET", "/v9beta/nowhere")
        assert (request.status, request.json["pathed"]) == (404, "not_found")
        assert "x-pathed-id" not in (await api.ask("GET", "/v1/models")).told
        request = await api.ask("GET", "/v9beta/models", headers={"origin": "https://shop.example.com"})
        assert {"x-pathed", "x-pathed-id"} <= {*request.told["access-control-expose-headers"].split(", ")}


async def test_limits_are_told_under_the_dialects_own_names() -> None:
    class Renaming(Pathed):
        def headers(self, pairs: Sequence[tuple[str, str]]) -> Sequence[tuple[str, str]]:
            return [(name.replace("x-ratelimit-", "x-pathed-"), value) for name, value in pairs]

    limited = CONFIG.replace(
        "default_alias: chat,", "default_alias: chat, limits: {requests: {rate: 1/min, burst: 3}},"
    )
    async with served(limited, Renaming()) as api:
        for how, status in (
            ("generateContent", 200),
            ("streamGenerateContent", 200),
            ("generateContent", 429),
        ):
            if status == 429:
                await api.ask("POST", "/v9beta/models/chat:generateContent", ASK)
            request = await api.ask("POST", f"/v9beta/models/chat:{how}", ASK)
            assert (request.status, request.told["x-pathed-limit-requests"]) == (status, "3")
            assert not [name for name in request.told if name.startswith("x-ratelimit")]
            assert api.log[-1]["status"] == status
            assert api.log[-1]["key"] == "test"
        of_openai = await api.ask(
            "POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}
        )
        assert "x-ratelimit-limit-requests" in of_openai.told


async def test_an_endpoint_has_its_parameters_query_and_body() -> None:
    async with served(CONFIG, Pathed()) as api:
        request = await api.ask("POST", "/v9beta/echo/x%20y/of/b/c/?q=1", {"z": 1})
        assert (request.status, request.json) == (202, [{"a": "x y", "rest": "b/c"}, {"q": "1"}, {"z": 1}])
        assert (await api.ask("POST", "/v9beta/echo/x/of/b", b"[")).status == 499
        assert (
            await api.ask("POST", "/v9beta/echo/x/of/b", b"{}", headers={"content-type": "text/plain"})
        ).status == 415
        assert (await api.ask("GET", "/v9beta/echo/x/y/of/b")).status == 404


@pytest.mark.parametrize("media_type", ["application/x-www-form-urlencoded", "text/plain", "", None])
async def test_a_dialect_may_read_bodies_whatever_their_content_type(media_type: str | None) -> None:
    class Careless(Pathed):
        any_content_type: ClassVar[bool] = True

    headers = {} if media_type is None else {"content-type": media_type}
    async with served(CONFIG, Careless()) as api:
        paths = {
            "/v9beta/models/chat:generateContent": ASK,
            "/v9beta/echo/x/of/b": {"z": 1},
            "/v1/completions": {"prompt": "x"},
        }
        found = []
        for path, body in paths.items():
            raw = json.dumps(body).encode()
            request = FakeRequest("POST", path, raw, headers)
            if media_type is None:
                del request.headers["content-type"]
            await api.clients(request)
            found.append(request.status)
        assert found == [200, 202, 415]  # the other dialects look


async def test_a_marker_tells_two_dialects_apart_at_one_path() -> None:
    async with served(CONFIG, Marked()) as api:
        marked = {"marked-version": "1"}
        assert "data" in (await api.ask("GET", "/v1/models")).json
        assert "models" in (await api.ask("GET", "/v1/models", headers=marked)).json
        assert "data" in (await api.ask("GET", "/models", headers=marked)).json  # it claims no such path
        assert "error" in (await api.ask("GET", "/v1/nowhere")).json
        assert (await api.ask("GET", "/v1/nowhere", headers=marked)).json == {"marked": "not_found"}
        assert (await api.ask("GET", "/v1/marks/x")).json == {"marked": "not_found"}


async def test_an_endpoint_that_fails_is_a_fault_of_ours() -> None:
    class Failing(Pathed):
        async def models(self, inquiry: Inquiry) -> Reply:
            raise ZeroDivisionError

    async with served(CONFIG, Failing()) as api:
        request = await api.ask("GET", "/v9beta/models")
        assert (request.status, request.json["pathed"]) == (500, "internal_error")
        assert [line["event"] for line in api.log] == ["crash", "request"]


async def test_two_routes_that_nothing_tells_apart_are_refused() -> None:
    class Twin(OpenAI):
        name: ClassVar[str] = "twin"

        def routes(self) -> Sequence[Route]:
            return (Endpoint(path="/v1/models/{other}", answer=None),)  # type: ignore[arg-type]

    [conflict] = conflicts([OpenAI(), Twin()])
    assert (
        conflict == 'frontends "openai" and "twin" both answer GET /v1/models/{other}: switch one of them off'
    )
    with pytest.raises(
        ConfigError, match=r'frontend "twin": GET /v1/models/.other. is a route of frontend "openai"'
    ):
        async with served(CONFIG, Twin()):
            pass
    assert conflicts([OpenAI(), Marked(), Pathed()]) == []


async def test_a_route_of_the_gateways_own_is_nobodys() -> None:
    class Thief(Pathed):
        def routes(self) -> Sequence[Route]:
            return (Endpoint(path="/readyz", answer=self.models),)

    with pytest.raises(ConfigError, match="of the gateway itself"):
        async with served(CONFIG, Thief()):
            pass


def test_where_nobody_claims_the_rest_errors_are_plain() -> None:
    claims = PathClaims([OpenAI()], ["/admin"], Pathed())
    assert claims.of("/v1/x", {}).name == "openai"
    assert {claims.of(path, {}).name for path in ("/x", "/admin", "/admin/keys")} == {"pathed"}


# --- switching them off


async def test_a_dialect_that_is_switched_off_has_no_paths() -> None:
    async with served(CONFIG + "\nserver: {frontends: [openai]}\n") as api:
        for path in ("/v1/chat", "/chat", "/v1/chat/stream", "/v1/chat/stream/abcdefghijklmnop"):
            assert (await api.ask("POST", path, {"sessionId": "s", "message": "m"})).status == 404
        assert (
            await api.ask("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]})
        ).status == 200
        request = await api.ask("GET", "/nowhere")
        assert (request.status, request.json["error"]) == (404, "Not found")
        assert (await api.ask("GET", "/v1/models", key="", headers={"x-widget-api-key": KEY})).status == 401
        names = {
            line.split('frontend="')[1].split('"')[0]
            for line in api.runtime.exposition().decode().splitlines()
            if 'frontend="' in line
        }
        assert names == {"openai", "other"}
    async with served(CONFIG + "\nserver: {frontends: [widget]}\n") as api:
        assert (await api.ask("GET", "/v1/models")).json["error"] == "Not found"


@pytest.mark.parametrize(("frontends", "message"), [
    ("[opnai]", f'server.frontends[0]: no frontend "opnai"; installed: {INSTALLED}; did you mean "openai"?'),
    ("[widget, '']", f'server.frontends[1]: no frontend ""; installed: {INSTALLED}'),
    ("[]", f"server.frontends: at least one is needed; installed: {INSTALLED}"),
])  # fmt: skip
def test_a_dialect_that_there_is_not_is_a_problem_of_the_file(
    frontends: str, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(CONFIG + f"\nserver: {{frontends: {frontends}}}\n")
    [problem] = check(str(file)).problems
    assert f"{problem.path}: {problem.message}" == message


def test_only_what_is_switched_on_is_imported(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(CONFIG + "\nserver: {frontends: [openai]}\n")
    script = (
        "import sys; from sluice.config.loader import load; import sluice.api.app; load(sys.argv[1]); "
        "print([name for name in sys.modules if name.startswith('sluice.frontends.widget')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(file)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


async def test_a_stream_of_a_dialect_that_is_off_now_is_not_resumable() -> None:
    async with served() as api:
        whole = await api.ask("POST", "/v1/chat/stream", {"sessionId": "s", "message": "m"})
        stream = json.loads(whole.answer.splitlines()[0])["streamId"]
        del api.runtime.frontends["widget"]
        request: FakeRequest = await api.ask(
            "GET", "/v1/chat/completions", headers={"last-event-id": f"{stream}:0"}
        )
        assert (request.status, request.json["error"]["code"]) == (410, "stream_not_resumable")

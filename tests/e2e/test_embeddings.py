"""POST /v1/embeddings: an operation that is no chat, with the keys, limits, budgets, prices, failover and
figures of chats."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from tests.e2e.gateways import HEAD, KEY, Running, gateway
from tests.fakes.rawserver import Peer, RawServer, Request, sized
from tests.sdks.running import need, printed

JSON = ("Content-Type", "application/json")
ASK = {"model": "emb", "input": ["hello", "world"], "encoding_format": "float", "x_own": [1.50]}
ANSWER = (
    b'{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.10, -2e-3]}],\n'
    b'"model":"te-3-small","usage":{"prompt_tokens":1000,"total_tokens":1000}}'
)
CONFIG = f"""{HEAD}
upstreams:
  one: {{backend: openai, base_url: "ONE/v1", api_key: sk-one, limits: LIMITS}}
  two: {{backend: openai, base_url: "TWO/v1"}}
  other: {{backend: anthropic, base_url: "TWO", api_key: sk-other}}
prices: {{models: {{te-3: {{input: 0.02, output: 0}}}}, header: true}}
aliases:
  emb:
    tiers: [[{{upstream: one, model: te-3}}], [{{upstream: other, model: te-3}}], [{{upstream: two, model: te-3}}]]
    retry: {{same_target: 1, backoff: 0.01}}
  hidden: {{tiers: [[{{upstream: one, model: te-3}}]], report_model: alias}}
  none: {{tiers: [[{{upstream: other, model: te-3}}]]}}
  limited: {{tiers: [[{{upstream: one, model: te-3}}]], limits: {{tokens: {{rate: 1/min, burst: 2000}}}}}}
"""
Behaviour = Callable[[Request, Peer], Awaitable[None]]


def says(*answers: bytes) -> Behaviour:
    """One after another; the last one again and again."""
    left = list(answers)

    async def answer(request: Request, peer: Peer) -> None:
        peer.send(left.pop(0) if len(left) > 1 else left[0])

    return answer


OK = sized(ANSWER, 200, JSON, ("x-request-id", "req-7"))
BUSY = sized(b'{"error":{"message":"busy"}}', 500, JSON)


class Asked:
    def __init__(self, status: int, body: bytes, headers: Any) -> None:
        self.status, self.body, self.headers = status, body, headers

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def ask(g: Running, body: Any = ASK, path: str = "/v1/embeddings", key: str = KEY) -> Asked:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    async with (
        aiohttp.ClientSession(g.url) as client,
        client.post(path, data=data, headers=headers) as response,
    ):
        return Asked(response.status, await response.read(), response.headers)


def config(one: RawServer, two: RawServer | None = None, limits: str = "{}") -> str:
    text = (
        CONFIG.replace("default_alias: chat", "default_alias: emb")
        .replace("ONE", one.url)
        .replace("LIMITS", limits)
    )
    return text.replace("TWO", two.url if two is not None else "http://127.0.0.1:1")


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embeddings", "/v1/embeddings/"])
async def test_request_and_answer_go_through_as_they_came_but_for_the_model(path: str) -> None:
    async with RawServer(says(OK)) as up, gateway(config(up)) as g:
        body = b'{"model":"emb", "input": "hello",  "encoding_format":"base64","dimensions":2.50}'
        asked = await ask(g, body, path)
        assert (asked.status, asked.body) == (200, ANSWER)
        [sent] = up.requests
        assert (sent.path, sent.body) == ("/v1/embeddings", body.replace(b'"emb"', b'"te-3"'))
        assert sent.headers["authorization"] == "Bearer sk-one"
        assert asked.headers["x-sluice-target"] == "one/te-3"
        assert asked.headers["x-sluice-upstream-request-id"] == "req-7"
        assert asked.headers["x-sluice-cost-usd"] == "0.000020000"
        assert asked.headers["content-type"] == "application/json"


@pytest.mark.parametrize("given", ["hello", ["a", "b"], [1, 2, 3], [[1, 2], [3]]])
async def test_any_form_of_input_goes_on(given: Any) -> None:
    async with RawServer(says(OK)) as up, gateway(config(up)) as g:
        assert (await ask(g, {"model": "emb", "input": given})).status == 200
        assert json.loads(up.requests[0].body) == {"model": "te-3", "input": given}


async def test_a_model_that_is_hidden_is_the_alias() -> None:
    async with RawServer(says(OK)) as up, gateway(config(up)) as g:
        asked = await ask(g, {**ASK, "model": "hidden"})
        assert asked.body == ANSWER.replace(b'"te-3-small"', b'"hidden"')
        assert "x-sluice-target" not in asked.headers


async def test_usage_and_cost_are_logged_counted_and_kept() -> None:
    async with RawServer(says(OK)) as up, gateway(config(up)) as g:
        await ask(g)
        line = g.requests[-1]
        expected = {
            "route": "/v1/embeddings", "alias": "emb", "target": "one/te-3", "tokens_in": 1000, "tokens_out": 0,
            "cost_usd": 0.00002, "end": "done", "stream": False,
        }  # fmt: skip
        assert {name: line[name] for name in expected} == expected
        assert (
            g.metric('sluice_tokens_total{kind="input",model="te-3",source="provider",upstream="one"}')
            == 1000
        )
        assert g.metric('sluice_cost_usd_total{model="te-3",upstream="one"}') == pytest.approx(0.00002)
        assert (
            g.metric('sluice_operation_requests_total{code="2xx",frontend="openai",operation="embeddings"}')
            == 1
        )
        assert g.metric('sluice_requests_total{alias="emb",code="2xx",frontend="openai"}') == 1
        async with aiohttp.ClientSession(g.url, headers={"x-admin-api-key": KEY}) as client:
            report = await (await client.get("/admin/usage?by=alias")).json()
        assert [(row["alias"], row["input_tokens"], row["output_tokens"]) for row in report["rows"]] == [
            ("emb", 1000, 0)
        ]


async def test_usage_that_is_not_reported_is_estimated_of_the_input_alone() -> None:
    answer = sized(b'{"data":[{"embedding":[1]}]}', 200, JSON)
    async with RawServer(says(answer)) as up, gateway(config(up)) as g:
        assert (await ask(g, {"model": "emb", "input": "x" * 400})).status == 200
        assert (g.requests[-1]["tokens_in"], g.requests[-1]["tokens_out"], g.requests[-1]["estimated"]) == (
            100,
            0,
            True,
        )


async def test_a_target_is_asked_again_and_then_the_next_that_carries_it() -> None:
    async with RawServer(says(BUSY)) as one, RawServer(says(OK)) as two, gateway(config(one, two)) as g:
        asked = await ask(g)
        assert (asked.status, asked.headers["x-sluice-attempts"], asked.headers["x-sluice-target"]) == (
            200,
            "3",
            "two/te-3",
        )
        assert (len(one.requests), len(two.requests)) == (2, 1)
        assert g.requests[-1]["attempts"] == ["one/te-3 server_error", "one/te-3 server_error", "two/te-3 ok"]


@pytest.mark.parametrize("answer", [
    sized(b'{"object":"list","data":[],"model":"m"}', 200, JSON), sized(b'{"error":{"message":"oops"}}', 200, JSON),
    sized(b"<html>", 200, ("Content-Type", "text/html")), b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{",
])  # fmt: skip
async def test_what_is_no_answer_is_no_answer(answer: bytes) -> None:
    async def once(request: Request, peer: Peer) -> None:
        peer.send(answer)
        peer.close()

    async with RawServer(once) as one, RawServer(says(OK)) as two, gateway(config(one, two)) as g:
        asked = await ask(g)
        assert (asked.status, asked.body, asked.headers["x-sluice-target"]) == (200, ANSWER, "two/te-3")


async def test_what_the_provider_objects_to_is_told_to_the_caller() -> None:
    refusal = sized(
        b'{"error":{"message":"dimensions must be positive","type":"invalid_request_error","code":"bad_input"}}',
        400,
        JSON,
    )
    async with RawServer(says(refusal)) as up, gateway(config(up)) as g:
        asked = await ask(g)
        assert (asked.status, asked.json["error"]["message"]) == (400, "dimensions must be positive")
        assert len(up.requests) == 1


async def test_a_model_that_nothing_carries_it_for_is_refused_with_its_name() -> None:
    async with RawServer(says(OK)) as up, gateway(config(up)) as g:
        asked = await ask(g, {**ASK, "model": "none"})
        error = asked.json["error"]
        assert (asked.status, error["code"], error["param"]) == (400, "unsupported_operation", "model")
        assert error["message"] == "No upstream of this model carries embeddings"
        assert (
            g.metric('sluice_operation_requests_total{code="4xx",frontend="openai",operation="embeddings"}')
            == 1
        )


@pytest.mark.parametrize(("body", "status", "code"), [
    ({"model": "emb"}, 400, "invalid_request"), ({"model": "emb", "input": [1, "a"]}, 400, "invalid_request"),
    (b"{", 400, "invalid_request"),
    ({"model": "nope", "input": "a"}, 404, "model_not_found"),
])  # fmt: skip
async def test_bad_input_is_refused_before_anybody_is_asked(body: Any, status: int, code: str) -> None:
    async with RawServer(says(OK)) as up, gateway(config(up)) as g:
        asked = await ask(g, body)
        assert (asked.status, asked.json["error"]["code"]) == (status, code)
        assert (await ask(g, key="nobody")).status == 401
        assert not up.requests


async def test_tokens_of_the_input_alone_are_reserved_and_settled() -> None:
    few = ANSWER.replace(b"1000", b"1200")
    async with RawServer(says(sized(few, 200, JSON))) as up, gateway(config(up)) as g:
        body = {"model": "limited", "input": [1] * 1600}
        first = await ask(g, body)
        assert (first.status, first.headers["x-ratelimit-limit-tokens"]) == (200, "2000")
        assert (await ask(g, body)).status == 429  # 1200 of 2000 are used
        assert (await ask(g, {"model": "limited", "input": [1] * 800})).status == 200
        assert (await ask(g, {"model": "limited", "input": [1] * 2001})).status == 429
        assert len(up.requests) == 2


async def test_an_upstreams_own_limits_hold_and_the_next_one_is_asked() -> None:
    limits = "{tokens: {rate: 1/min, burst: 2000}}"
    async with RawServer(says(OK)) as one, RawServer(says(OK)) as two, gateway(config(one, two, limits)) as g:
        assert (await ask(g, {"model": "emb", "input": [1] * 2001})).headers["x-sluice-target"] == "two/te-3"


async def test_budgets_are_charged() -> None:
    async with RawServer(says(OK)) as up:
        text = config(up).replace('aliases: ["*"]', 'aliases: ["*"], limits: {budget: {day: 0.00003}}')
        async with gateway(text) as g:
            assert [(await ask(g)).status for _ in range(3)] == [200, 200, 429]


async def test_a_client_that_leaves_ends_the_upstreams_call() -> None:
    async def stalls(request: Request, peer: Peer) -> None:
        await peer.stall()

    async with RawServer(stalls) as up, gateway(config(up)) as g, aiohttp.ClientSession(g.url) as client:
        body = {**ASK, "model": "hidden"}
        asking = asyncio.create_task(_posted(client, body))
        while not up.requests:
            await asyncio.sleep(0.01)
        asking.cancel()
        await up.all_closed()


async def _posted(client: aiohttp.ClientSession, body: Any) -> None:
    async with client.post("/v1/embeddings", json=body, headers={"x-api-key": KEY}):
        pass


async def test_tens_of_thousands_of_vectors_pass() -> None:
    vector = b'{"object":"embedding","index":0,"embedding":"' + b"A" * 8000 + b'"}'
    body = (
        b'{"object":"list","data":['
        + b",".join([vector] * 1500)
        + b'],"model":"te","usage":{"prompt_tokens":9}}'
    )
    async with RawServer(says(sized(body, 200, JSON))) as up, gateway(config(up)) as g:
        tokens = [[*range(100, 300)]] * 1500
        asked = await ask(g, {"model": "hidden", "input": tokens})
        assert asked.status == 200
        assert asked.body == body.replace(b'"te"', b'"hidden"')
        assert json.loads(up.requests[0].body) == {"model": "te-3", "input": tokens}


async def test_curl() -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    async with RawServer(says(OK)) as up, gateway(config(up)) as g:
        process = await asyncio.create_subprocess_exec(
            "curl", "-sS", "--fail", "--noproxy", "*", f"{g.url}/v1/embeddings", "-H", f"authorization: Bearer {KEY}",
            "-H", "content-type: application/json", "-d", json.dumps(ASK), stdout=subprocess.PIPE,
        )  # fmt: skip
        out, _ = await process.communicate()
        assert (process.returncode, out) == (0, ANSWER)


@pytest.mark.parametrize("given", ["hello", ["a", "b"], [1, 2]])
async def test_the_openai_sdk(given: Any) -> None:
    """It asks for base64 unless told otherwise, and reads either."""
    need("py_openai")
    script = (
        "import json, sys, openai; url, key, given = json.loads(sys.stdin.read());"
        "c = openai.OpenAI(base_url=url, api_key=key, max_retries=0);"
        "r = c.embeddings.create(model='emb', input=given);"
        "e = None\n"
        "try: c.embeddings.create(model='none', input=given)\n"
        "except openai.BadRequestError as error: e = error.code\n"
        "print(json.dumps([r.data[0].embedding, r.model, r.usage.prompt_tokens, e]))"
    )
    packed = ANSWER.replace(b"[0.10, -2e-3]", b'"AACAPwAAAMA="')
    async with RawServer(says(sized(packed, 200, JSON))) as up, gateway(config(up)) as g:
        assert await printed(script, f"{g.url}/v1", KEY, given) == [
            [1.0, -2.0],
            "te-3-small",
            1000,
            "unsupported_operation",
        ]
        assert json.loads(up.requests[0].body)["encoding_format"] == "base64"

"""Aliases that end in *: the caller's model goes to the upstream, and is counted under the configured names
only."""

import json
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest

from sluice.config.loader import check
from sluice.config.types import covering
from tests.e2e.answers import ask
from tests.e2e.gateways import HEAD, KEY, gateway
from tests.fakes.faulty import Provider, Turn, healthy
from tests.fakes.rawserver import Peer, RawServer, Request, sized

CONFIG = """
upstreams:
  one: {{backend: openai, api_key: k, base_url: "{url}/v1"}}
aliases:
  "openai/*": {{tiers: [[{{upstream: one, model: "*"}}]], heartbeat: null}}
  "openai/ft:*": {{tiers: [[{{upstream: one, model: "tuned-*"}}]], heartbeat: null}}
  chat: {{tiers: [[{{upstream: one, model: plain}}]]}}
  openai/fixed: {{tiers: [[{{upstream: one, model: pinned}}]], heartbeat: null}}
"""
MODELS = [
    ("openai/gpt-x", "gpt-x"),
    ("openai/org/model:free@v1", "org/model:free@v1"),
    ("openai/ft:mine", "tuned-mine"),
    ("openai/fixed", "pinned"),
]
NOT_MODELS = [
    "openai/", "openai/*", "openai/../admin", "openai/a..b", "openai/a//b", "openai//etc", "openai/a b", "openai/a\n",
    "openai/é", "openai/a?b", "openai/%2e", "openai/" + "a" * 129, "openai/-a", "openai/a/", "other/x", "open",
]  # fmt: skip


async def test_the_model_behind_the_prefix_reaches_the_upstream_and_no_metric() -> None:
    async with Provider(healthy) as provider:
        text = HEAD + CONFIG.format(url=provider.url)
        async with gateway(text) as g, aiohttp.ClientSession(g.url) as client:
            for mode in ("openai stream", "openai whole"):
                for called, model in MODELS:
                    assert (await ask(client, mode, called)).error == ""
                    assert provider.turns[-1].model == model
            line = g.requests[0]
            assert (line["alias"], line["model"], line["target"]) == ("openai/*", "openai/gpt-x", "one/*")
            assert "model" not in g.requests[-1]
            assert g.metric('sluice_upstream_attempts_total{model="*",outcome="ok",upstream="one"}') == 4
            exposition = g.runtime.exposition().decode()
            assert not [model for model in ("gpt-x", "mine", "free") if model in exposition]
            asked = len(provider.turns)
            assert {(await ask(client, "openai stream", name)).error for name in NOT_MODELS} == {
                "model_not_found"
            }
            assert len(provider.turns) == asked


async def test_a_key_has_the_wildcard_or_one_name_of_it() -> None:
    keys = f"""
keys:
  - {{id: all, digest: "{digest("sk-all")}", aliases: ["openai/*"]}}
  - {{id: some, digest: "{digest("sk-some")}", aliases: ["openai/gpt-*"]}}
  - {{id: one, digest: "{digest("sk-one")}", aliases: [openai/gpt-x]}}
  - {{id: none, digest: "{digest("sk-none")}", aliases: [openai/fixed]}}
"""
    head = "\n".join(line for line in HEAD.splitlines() if not line.startswith("keys:"))
    async with Provider(healthy) as provider:
        text = head + keys + CONFIG.format(url=provider.url)
        async with gateway(text) as g, aiohttp.ClientSession(g.url) as client:
            allowed = {}
            for key in ("all", "some", "one", "none"):
                headers = {"authorization": f"Bearer sk-{key}"}
                answers = {
                    name: await ask(client, "openai stream", name, headers)
                    for name in ("openai/gpt-x", "openai/o", "openai/fixed")
                }
                allowed[key] = {
                    name.partition("/")[2] for name, answer in answers.items() if not answer.error
                }
            assert allowed == {
                "all": {"gpt-x", "o", "fixed"},
                "some": {"gpt-x"},
                "one": {"gpt-x"},
                "none": {"fixed"},
            }
            listed = {}
            for key in ("all", "one"):
                async with client.get(
                    "/v1/models", headers={"authorization": f"Bearer sk-{key}"}
                ) as response:
                    listed[key] = [model["id"] for model in (await response.json())["data"]]
            assert listed == {"all": ["openai/*", "openai/ft:*", "openai/fixed"], "one": ["openai/gpt-x"]}


def digest(key: str) -> str:
    from sluice.identity.keys import digest_of

    return digest_of(key)


async def test_prices_and_usage_by_their_names() -> None:
    prices = 'prices: {header: true, models: {gpt-x: {input: 1000000, output: 0}, "one/gpt-y": {input: 500000, output: 0}}}\n'
    async with Provider(healthy) as provider:
        text = HEAD + prices + CONFIG.format(url=provider.url)
        async with gateway(text) as g, aiohttp.ClientSession(g.url) as client:
            for name in ("openai/gpt-x", "openai/gpt-y", "openai/gpt-z"):
                assert (await ask(client, "openai stream", name)).error == ""
            costs = [line["cost_usd"] for line in g.requests]
            assert costs[0] == 2 * costs[1] > 0
            assert costs[2] is None
            await g.runtime.usage.flush()
            day = datetime.now(UTC).date().isoformat()
            rows = await g.runtime.usage.store.of_day(day)
            assert {(subject.alias, subject.model) for subject, _ in rows} == {("openai/*", "one/*")}


@pytest.mark.parametrize(
    ("alias", "words"),
    [
        ('chat: {tiers: [[{upstream: one, model: "*"}]]}', "has no * at its end"),
        ('"*": {tiers: [[{upstream: one, model: "*"}]]}', "starting with a letter"),
        ('"a*b": {tiers: [[{upstream: one, model: "*"}]]}', "* at its end"),
        ('"a**": {tiers: [[{upstream: one, model: "*"}]]}', "* at its end"),
    ],
)
def test_what_cannot_be_a_wildcard_is_found_by_the_check(alias: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(f"upstreams: {{one: {{backend: openai, api_key: k}}}}\naliases:\n  {alias}\n")
    problems = [str(problem) for problem in check(str(file)).problems]
    assert len(problems) == 1
    assert words in problems[0]


def test_the_longest_prefix_covers() -> None:
    names = ["a/*", "a/b/*", "a", "c*"]
    assert [covering(names, name) for name in ("a/x", "a/b/x", "a/b/", "a", "a/", "cc", "d", "a/*")] == [
        "a/*", "a/b/*", "a/b/*", "", "a/*", "c*", "", "",
    ]  # fmt: skip


def test_models_beyond_those_that_are_kept_are_made_anew() -> None:
    from sluice.runtime.wildcards import MAX_CACHED_ROUTES, Wildcards

    made: list[str] = []
    wildcards = Wildcards(["a/*"], lambda name, called: made.append(called) or object())  # type: ignore[arg-type, func-returns-value, return-value]
    for number in range(MAX_CACHED_ROUTES + 5):
        assert wildcards.route_of(f"a/{number}", lambda _: True) is not None
    assert wildcards.route_of(f"a/{MAX_CACHED_ROUTES}", lambda _: True) is not None
    assert len(made) == MAX_CACHED_ROUTES + 5
    assert len(wildcards._kept) <= MAX_CACHED_ROUTES
    assert wildcards.route_of("a/new", lambda _: False) is None
    assert (
        wildcards.route_of(f"a/{MAX_CACHED_ROUTES}", lambda _: False) is None
    )  # another caller's has been made


async def test_another_operation_is_asked_for_by_each_model_of_its_own() -> None:
    """Routes of operations are kept by alias: two models of one wildcard must not share theirs."""
    body = (
        b'{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.5]}],'
        b'"model":"m","usage":{"prompt_tokens":1,"total_tokens":1}}'
    )

    async def embedded(request: Request, peer: Peer) -> None:
        peer.send(sized(body, 200, ("Content-Type", "application/json")))

    async with (
        RawServer(embedded) as server,
        gateway(HEAD + CONFIG.format(url=server.url)) as g,
        aiohttp.ClientSession(g.url) as client,
    ):
        for name in ("openai/te-1", "openai/te-2", "openai/te-1"):
            asked = {"model": name, "input": "x"}
            headers = {"authorization": f"Bearer {KEY}"}
            async with client.post("/v1/embeddings", json=asked, headers=headers) as response:
                assert response.status == 200
        assert [json.loads(request.body)["model"] for request in server.requests] == ["te-1", "te-2", "te-1"]


async def test_models_that_are_made_up_do_not_open_the_breaker_of_the_others() -> None:
    async def known(turn: Turn) -> None:
        if turn.model == "real":
            await healthy(turn)
        else:
            turn.peer.send(
                sized(b'{"error": {"message": "The model does not exist", "code": "model_not_found"}}', 404)
            )

    async with (
        Provider(known) as provider,
        gateway(HEAD + CONFIG.format(url=provider.url)) as g,
        aiohttp.ClientSession(g.url) as client,
    ):
        for number in range(8):
            assert (await ask(client, "openai stream", f"openai/no-{number}")).error
        assert g.metric('sluice_breaker_state{model="*",upstream="one"}') == 0
        assert (await ask(client, "openai stream", "openai/real")).error == ""

"""What the metrics say is what somebody saw who stood outside: callers and the provider."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from sluice.routing.health import BreakerState
from tests.e2e.answers import ask
from tests.e2e.gateways import HEAD, KEY, Running, gateway
from tests.e2e.test_disconnect import Caller, callers
from tests.fakes.dialects import OPENAI, TOKENS
from tests.fakes.faulty import Behaviour, Provider, Turn, cut, healthy, refusing
from tests.fakes.rawserver import Peer, Request, sized
from tests.telemetry.metrics_proto import families
from tests.upstream.calls import until

PAIR = "tiers: [[{upstream: one, model: m}], [{upstream: two, model: m}]], heartbeat: null"
PATIENT = "breaker: {failures: 100000, error_rate: null}"


def config(alias: str, one: str, two: str = "", *, breaker: str = PATIENT, more: str = "") -> str:
    upstreams = {"one": one, "two": two or one}
    lines = [
        f'  {name}: {{backend: openai, base_url: "{url}", {breaker}}}' for name, url in upstreams.items()
    ]
    return "\n".join([HEAD, "upstreams:", *lines, "aliases:", f"  chat: {{{alias}}}", more])


@asynccontextmanager
async def pair(
    first: Behaviour, second: Behaviour, alias: str = PAIR, **options: str
) -> AsyncIterator[tuple[Running, Provider]]:
    async with (
        Provider(first) as one,
        Provider(second) as two,
        gateway(config(alias, one.url, two.url, **options)) as g,
    ):
        yield g, one


async def told(g: Running) -> dict[str, Any]:
    """The line of the one request, when nothing goes on any more."""
    await until(lambda: not g.runtime.pipeline.runs and bool(g.requests))
    [line] = g.requests
    return line


async def asked(g: Running, mode: str) -> Any:
    async with aiohttp.ClientSession(g.url) as client:
        return await ask(client, mode, "chat")


# --- recoveries


async def never_ends(turn: Turn) -> None:
    """A complete answer to the last word of its dialect, in a body that does not end."""
    turn.begin(len(TOKENS))
    turn.finish()
    turn.write(turn.dialect.end())
    await turn.peer.stall()


@pytest.mark.parametrize("how", ["prefill", "fresh"])
async def test_a_recovery_is_complete_though_its_client_closes_at_the_last_word(how: str) -> None:
    alias = PAIR.replace(
        "[{upstream: two, model: m}]", f"[{{upstream: two, model: m, prefill: {how == 'prefill'}}}]".lower()
    )
    async with pair(cut(20), never_ends, f"{alias}, recovery: continue") as (g, _):
        for _ in range(5):
            [caller] = await callers(g, 1, "openai stream", "chat")
            await until(lambda: b"[DONE]" in caller.received)  # noqa: B023
            caller.transport.abort()
        await until(lambda: not g.runtime.pipeline.runs)
        assert g.metric(f'sluice_recoveries_total{{alias="chat",how="{how}",outcome="ok"}}') == 5
        for outcome in ("failed", "abandoned"):
            assert g.metric(f'sluice_recoveries_total{{alias="chat",how="{how}",outcome="{outcome}"}}') == 0
        assert g.metric('sluice_stream_end_total{alias="chat",frontend="openai",reason="done"}') == 5


async def test_a_client_that_leaves_a_recovery_is_no_failure_of_it() -> None:
    async def stalls(turn: Turn) -> None:
        turn.begin(40)
        await turn.peer.stall()

    async with pair(cut(20), stalls, f"{PAIR}, recovery: continue") as (g, _):
        [caller] = await callers(g, 1, "openai stream", "chat")
        await until(lambda: b"w39" in caller.received)
        caller.transport.abort()
        await until(lambda: not g.runtime.pipeline.runs)
        assert g.metric('sluice_recoveries_total{alias="chat",how="fresh",outcome="abandoned"}') == 1


async def test_a_recovery_that_is_cut_again_has_failed() -> None:
    async with pair(cut(20), cut(40), f"{PAIR}, recovery: continue") as (g, _):
        assert (await asked(g, "openai stream")).error == "truncated"
        assert g.metric('sluice_recoveries_total{alias="chat",how="fresh",outcome="failed"}') == 1


# --- times


@pytest.mark.parametrize("mode", ["widget whole", "openai whole", "widget stream", "openai stream"])
@pytest.mark.parametrize("backend", ["openai", "anthropic"])
async def test_times_to_the_first_token_are_of_streams_and_no_answer_makes_tokens_in_no_time(
    mode: str, backend: str
) -> None:
    async def answers(request: Request, peer: Peer) -> None:
        """A whole answer where one is asked for, else a stream."""
        if json.loads(request.body).get("stream"):
            await provider.stream(request, peer)
        else:
            usage = {"prompt_tokens": 7, "completion_tokens": 60, "total_tokens": 67}
            choice = {"index": 0, "message": {"role": "assistant", "content": "w"}, "finish_reason": "stop"}
            body = json.dumps({"id": "1", "object": "chat.completion", "choices": [choice], "usage": usage})
            peer.send(sized(body.encode(), 200, ("Content-Type", "application/json")))

    provider = Provider(healthy)
    provider.stream = provider._answer  # type: ignore[attr-defined]
    provider._handler = answers
    async with provider:
        text = config("tiers: [[{upstream: one, model: m}]]", provider.url).replace(
            "backend: openai", f"backend: {backend}", 1
        )
        async with gateway(text) as g:
            assert (await asked(g, mode)).complete
            line = await told(g)
            streamed, frontend = mode.endswith("stream"), mode.split()[0]
            assert (
                g.metric(f'sluice_time_to_first_token_seconds_count{{alias="chat",frontend="{frontend}"}}')
                == streamed
            )
            assert (line["ttft"] is not None) == streamed
            in_one_piece = mode == "openai whole" and backend == "openai"
            per_token = g.metric('sluice_time_per_output_token_seconds_count{model="m",upstream="one"}')
            assert per_token == (not in_one_piece)


async def test_a_shadow_is_none_of_a_callers_overhead() -> None:
    alias = "tiers: [[{upstream: one, model: m}]], shadow: {upstream: two, model: m, share: 1}"
    async with pair(healthy, healthy, alias) as (g, _):
        for _ in range(3):
            await asked(g, "openai stream")
        ok = 'sluice_upstream_attempts_total{model="m",outcome="ok",upstream="two"}'
        await until(lambda: g.metric(ok) == 3)
        for phase in ("request", "first_token"):
            assert g.metric(f'sluice_overhead_seconds_count{{phase="{phase}"}}') == 3, phase
        assert g.metric('sluice_answered_total{alias="chat",model="m",rank="1",upstream="one"}') == 3


# --- who answered, and who was passed over


def answered(g: Running, upstream: str, rank: int) -> float:
    return g.metric(f'sluice_answered_total{{alias="chat",model="m",rank="{rank}",upstream="{upstream}"}}')


def passed(g: Running, cause: str) -> float:
    return g.metric(f'sluice_failovers_total{{alias="chat",cause="{cause}",from="one/m",to="two/m"}}')


async def test_who_answered_and_who_was_passed_over_for_an_open_breaker() -> None:
    breaker = "breaker: {failures: 1, open_for: 60, open_max: 60}"
    async with pair(refusing("server"), healthy, breaker=breaker) as (g, one):
        for _ in range(5):
            assert (await asked(g, "openai stream")).complete
        assert len(one.turns) == 1
        assert (answered(g, "one", 1), answered(g, "two", 2)) == (0, 5)
        assert (passed(g, "server_error"), passed(g, "breaker_open")) == (1, 4)


async def test_a_target_that_said_when_to_come_back_is_passed_over_as_rate_limited() -> None:
    async with pair(refusing("rate", ("Retry-After", "3600")), healthy) as (g, one):
        for _ in range(3):
            assert (await asked(g, "openai whole")).complete
        assert len(one.turns) == 1
        assert (passed(g, "rate_limited"), passed(g, "breaker_open")) == (3, 0)
        assert answered(g, "two", 2) == 3


async def test_targets_without_room_and_those_too_small_are_counted_by_that() -> None:
    full = PAIR.replace("one, model: m", "one, model: m, context: 10000")
    text = "breaker: {failures: 100}, limits: {requests: {rate: 1/day, burst: 1}}"
    async with Provider(healthy) as one, Provider(healthy) as two:
        there = config(full, one.url, two.url).replace(PATIENT, text, 1)
        async with gateway(there) as g:
            for _ in range(3):
                assert (await asked(g, "widget stream")).complete
            assert (answered(g, "one", 1), answered(g, "two", 2), passed(g, "no_room")) == (1, 2, 2)
            long = [{"role": "user", "content": "x" * 50_000}]
            async with aiohttp.ClientSession(g.url, headers={"x-api-key": KEY}) as client:
                body = {"model": "chat", "messages": long}
                async with client.post("/v1/chat/completions", json=body) as response:
                    assert response.status == 200
            assert (passed(g, "context"), answered(g, "two", 2)) == (1, 3)


async def test_a_failed_probe_of_a_half_open_breaker_costs_one_call() -> None:
    """Also where the alias would ask a target twice after a server error, and where it has no other."""
    breaker = "breaker: {failures: 1, open_for: 1ms, open_max: 1ms}"
    alias = "tiers: [[{upstream: one, model: m}]], retry: {same_target: 5, backoff: 1ms}"
    for wrong in ("server", "overloaded"):
        async with pair(refusing(wrong, ("Retry-After-Ms", "1")), healthy, alias, breaker=breaker) as (
            g,
            one,
        ):
            [target] = g.runtime.routes["chat"].targets
            for number in range(1, 5):
                assert (await asked(g, "openai stream")).status >= 500
                assert len(one.turns) == number
                await until(lambda: target.health.state is BreakerState.HALF_OPEN)  # noqa: B023


async def test_the_breakers_state_is_that_of_the_moment_it_is_looked_at() -> None:
    breaker = "breaker: {failures: 1, open_for: 1ms, open_max: 1ms}"
    async with pair(refusing("server"), healthy, breaker=breaker) as (g, one):
        state = 'sluice_breaker_state{model="m",upstream="one"}'
        assert g.metric(state) == 0
        assert state.encode() in g.runtime.exposition()
        await asked(g, "openai stream")
        await until(lambda: g.metric(state) == 1)  # nobody calls: its time passes
        one.behaviour = healthy
        await asked(g, "openai stream")
        assert g.metric(state) == 0
        changes = {
            to: g.metric(f'sluice_breaker_transitions_total{{model="m",state="{to}",upstream="one"}}')
            for to in ("open", "half_open", "closed")
        }
        assert changes == {"open": 1, "half_open": 1, "closed": 1}


async def test_a_providers_429_is_counted_as_its_own() -> None:
    async with pair(
        refusing("rate", ("Retry-After", "3600")), healthy, "tiers: [[{upstream: one, model: m}]]"
    ) as (g, _):
        assert (await asked(g, "openai whole")).status == 429
        assert g.metric('sluice_rate_limited_total{alias="chat",resource="",scope="provider"}') == 1


async def test_connections_and_how_many_there_may_be() -> None:
    async with pair(healthy, healthy) as (g, _), aiohttp.ClientSession(g.url) as client:
        async with client.get("/livez"):
            pass
        assert g.metric('sluice_client_connections{port="api"}') == 1
        assert g.metric('sluice_client_connections_max{port="api"}') == g.state.places.clients
        await until(lambda: g.metric('sluice_event_loop_lag_seconds_count{worker="0"}') > 0)


# --- ends


async def test_answers_that_never_began_are_counted_apart_from_ends_of_streams() -> None:
    async def stall(turn: Turn) -> None:
        turn.begin(5)
        await turn.peer.stall()

    alias = "tiers: [[{upstream: one, model: m}]], retry: {same_target: 0}"
    behaviours: list[Behaviour] = [healthy, cut(10), refusing("server"), refusing("server"), stall]
    turns = iter(behaviours)

    async def one_after_another(turn: Turn) -> None:
        await next(turns)(turn)

    async with pair(one_after_another, healthy, alias) as (g, one):
        got = [await asked(g, "openai stream") for _ in range(4)]
        [left] = await callers(g, 1, "openai stream", "chat")
        await until(lambda: b"w4" in left.received)
        left.transport.abort()
        gone: list[Caller] = []
        one.behaviour = stall_silently
        gone = await callers(g, 2, "openai stream", "chat")
        await until(lambda: len(one.turns) == 7)
        for caller in gone:
            caller.transport.abort()
        await until(lambda: not g.runtime.pipeline.runs)
        began = [answer for answer in got if answer.status == 200]
        assert (len(began), len(got)) == (2, 4)

        def ended(name: str, reason: str) -> float:
            return g.metric(f'sluice_{name}_total{{alias="chat",frontend="openai",reason="{reason}"}}')

        assert [
            ended("stream_end", reason) for reason in ("done", "truncated", "client_gone", "upstream_error")
        ] == [
            1,
            1,
            1,
            0,
        ]
        assert [ended("unanswered", reason) for reason in ("upstream_error", "client_gone", "done")] == [
            2,
            2,
            0,
        ]
        assert g.metric('sluice_requests_total{alias="chat",code="5xx",frontend="openai"}') == 2


async def stall_silently(turn: Turn) -> None:
    await turn.peer.stall()


# --- estimates

WORDS = (
    "The cut came in the middle of a sentence, as cuts do, and nobody had said how many tokens there were: "
    "so the gateway has to guess, and its guess is what the caller pays. "
) * 4


def pieces_of(size: int) -> list[str]:
    """The text in pieces of so many tokens each; a word with its space, or a mark, is a token."""
    tokens: list[str] = []
    for number, word in enumerate(WORDS.split()):
        bare = word.rstrip(",:.")
        tokens.append(f"{' ' if number else ''}{bare}")
        tokens += word[len(bare) :]
    return ["".join(tokens[at : at + size]) for at in range(0, len(tokens), size)]


CUT = {
    "a token at a time": (pieces_of(1), len(pieces_of(1))),
    "long words, a token at a time": ([f" token-{n:05}" for n in range(150)], 150),
    "two tokens at a time": (pieces_of(2), len(pieces_of(1))),
    "four tokens at a time": (pieces_of(4), len(pieces_of(1))),
    "half a line at a time": (pieces_of(12), len(pieces_of(1))),
    "all at once": (pieces_of(10_000), len(pieces_of(1))),
    "no spaces, a token at a time": (["\u8a9e\u6587"] * 80, 80),
}


@pytest.mark.parametrize("mode", ["openai stream", "widget stream"])
@pytest.mark.parametrize("kind", CUT)
async def test_a_cut_stream_is_estimated_within_a_fifth_and_its_line_says_so(kind: str, mode: str) -> None:
    pieces, tokens = CUT[kind]

    async def cut_short(turn: Turn) -> None:
        turn.begin()
        for piece in pieces:
            turn.write(OPENAI.token(piece))
        await turn.peer.drain()
        turn.peer.close()

    async with pair(cut_short, healthy, "tiers: [[{upstream: one, model: m}]]") as (g, _):
        assert (await asked(g, mode)).error == "truncated"
        line = await told(g)
        counted = g.metric('sluice_tokens_total{kind="output",model="m",source="estimate",upstream="one"}')
        assert abs(counted - tokens) <= 0.2 * tokens
        assert (line["tokens_out"], line["estimated"], line["level"]) == (counted, True, "warning")
        assert (
            line["tokens_in"]
            == g.metric('sluice_tokens_total{kind="input",model="m",source="estimate",upstream="one"}')
            > 0
        )


async def test_what_the_provider_reports_is_not_called_an_estimate() -> None:
    async with pair(healthy, healthy, "tiers: [[{upstream: one, model: m}]]") as (g, _):
        await asked(g, "openai stream")
        line = await told(g)
        assert (line["tokens_in"], line["tokens_out"], "estimated" in line) == (7, 60, False)


# --- /metrics


async def test_a_scrape_shows_what_alerts_need_and_what_was_used_and_nothing_else() -> None:
    async with pair(healthy, healthy) as (g, _):
        fresh = labelled(g)
        for alias, frontend in (
            ("chat", "widget"),
            ("chat", "openai"),
            ("other", "widget"),
            ("other", "openai"),
        ):
            series = [
                line for line in fresh if f'alias="{alias}"' in line and f'frontend="{frontend}"' in line
            ]
            assert len(series) == 5, series
            assert all('code="5xx"' in line or "sluice_stream_end_total" in line for line in series)
        of_target = [line for line in fresh if 'upstream="one"' in line]
        assert len(of_target) == 10, of_target
        over = [line for line in fresh if line.startswith("sluice_failovers_total")]
        assert len(over) == 4, over
        assert all('alias="chat"' in line and 'from="one/m",to="two/m"' in line for line in over)
        dialects = {line.partition('frontend="')[2].partition('"')[0] for line in fresh} - {""}
        assert (
            len(fresh) <= 2 * 5 * len(dialects) + 2 * 20
        )  # of two aliases, and of two targets with an alias each
        await asked(g, "openai stream")
        more = {line.partition(" ")[0] for line in labelled(g)} - {line.partition(" ")[0] for line in fresh}
        assert not [line for line in more if 'frontend="widget"' in line or 'upstream="two"' in line]
        assert 'sluice_requests_total{alias="chat",code="2xx",frontend="openai"}' in more
        assert not any('code="4xx"' in line or 'reason="length"' in line for line in more)


def labelled(g: Running) -> list[str]:
    """The series that have labels of a configuration."""
    lines = g.runtime.exposition().decode().splitlines()
    return [
        line for line in lines if line.startswith("sluice_") and ("alias=" in line or "upstream=" in line)
    ]


PROTOBUF = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"


@pytest.mark.parametrize("slice", [0.0, 0.002])
async def test_a_scraper_gets_the_format_that_it_asks_for(
    slice: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sluice.telemetry.metrics.SLICE", slice)
    async with pair(healthy, healthy) as (g, _), aiohttp.ClientSession(g.admin_url) as client:
        await asked(g, "openai stream")
        await told(g)

        async def scrape(accept: str) -> tuple[str, bytes]:
            async with client.get("/metrics", headers={"accept": accept}) as response:
                return response.headers["content-type"], await response.read()

        kind, text = await scrape("*/*")
        assert (kind, b"# EOF" in text) == ("text/plain; version=0.0.4; charset=utf-8", False)
        kind, text = await scrape("application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
        assert kind == "application/openmetrics-text; version=1.0.0; charset=utf-8"
        assert text.endswith(b"# EOF\n")
        for _ in range(2):
            kind, data = await scrape(PROTOBUF)
            assert kind == PROTOBUF
            [first] = [
                family for family in families(data) if family.name == "sluice_time_to_first_token_seconds"
            ]
            [found] = [metric.histogram for metric in first.metric]
            assert (found.sample_count, found.schema, len(found.positive_span)) == (1, 2, 1)


@pytest.mark.parametrize("scrapers", [1, 3])
async def test_a_scrape_lets_others_have_their_turn_between_its_pieces(
    scrapers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sluice.telemetry.metrics.SLICE", 0.0)  # each series is a piece
    async with pair(healthy, healthy) as (g, _):
        for n in range(300):
            g.runtime.metrics.child("inter_token_seconds", f"alias-{n}").observe(n)
        made: list[int] = []
        turn = 0
        of_families = g.runtime.metrics.slices

        def watched(clock: Any, format: Any) -> Any:
            for piece in of_families(clock, format):
                made.append(turn)
                yield piece

        monkeypatch.setattr(g.runtime.metrics, "slices", watched)

        async def turns() -> None:
            nonlocal turn
            while True:
                await asyncio.sleep(0)
                turn += 1

        counting = asyncio.create_task(turns())
        async with aiohttp.ClientSession(g.admin_url) as client:

            async def scrape() -> str:
                async with client.get("/metrics") as response:
                    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
                    return await response.text()

            texts = await asyncio.gather(*(scrape() for _ in range(scrapers)))
            async with client.head("/metrics") as response:
                assert response.status == 200
                assert await response.read() == b""
            async with client.get("/livez") as response:
                assert response.status == 200
        counting.cancel()
        assert all(
            text.count("sluice_inter_token_seconds_count{") == 300 and text.endswith("\n") for text in texts
        )
        assert len(made) > 300 * scrapers
        assert len(set(made)) == len(made), "two pieces in one turn of the event loop"

"""Proof 1 of the streams: whatever the provider does, the caller gets the whole answer or one clean, bounded
error.

Each fault, through each backend dialect, to a streamed and a whole request in each client dialect at once.
The first target is faulty, the second (of the next tier) is well. Every mode has aliases of its own, so that
health is its own.
"""

import asyncio
import gc
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from types import SimpleNamespace

import aiohttp
import pytest

from sluice.routing.failover import RetryBudget
from sluice.runtime import state
from tests.e2e.answers import FULL, MODES, Answer, ask
from tests.e2e.gateways import HEAD, Running, gateway
from tests.fakes.dialects import ANSWER, DIALECTS, INPUT, TOKENS
from tests.fakes.faulty import (
    BEHAVIOURS,
    Behaviour,
    Provider,
    cut,
    healthy,
    malformed,
    no_prefill,
    other_words,
    refusing,
)
from tests.fakes.rawserver import Peer, RawServer, Request, authority, black_hole, refused_url
from tests.upstream.calls import until

DIALECT = pytest.mark.parametrize("dialect", list(DIALECTS))
PATIENT = "{connect: 20, headers: 20, first_token: 20, idle: 20, whole: 20}"
BOUND = 20.0
"""Seconds in which any answer has come, or has failed."""

STREAMS = tuple(mode for mode in MODES if mode.endswith("stream"))
SURVIVED = {
    "429 with Retry-After once": "rate_limited ok",
    "500 once": "server_error ok",
    "one event invalid": "ok",
    "no terminator": "ok",
    "body never ends": "ok",
    "extra response": "ok",
}
"""Faults after which the target itself still answers, and the outcomes of the attempts at it."""
BEFORE = {
    "429 always": "rate_limited",
    "429 with a long Retry-After": "rate_limited",
    "500 always": "server_error server_error",
    "503 always": "server_error server_error",
    "500 whose body stalls": "server_error server_error",
    "reset before headers": "connect_error connect_error",
    "closed before headers": "connect_error connect_error",
    "never answers": "headers_timeout",
    "head drips": "headers_timeout",
    "headers, then nothing": "first_token_timeout",
    "first token too late": "first_token_timeout",
    "comments and no token": "first_token_timeout",
    "a frame drips": "first_token_timeout",
    "cut before a token": "truncated",
    "error in the stream": "server_error",
    "HTML 200": "garbled",
    "truncated Content-Length": "truncated",
    "CL and TE": "garbled",
    "64 MiB line": "garbled",
    "5000 headers": "garbled",
    "gzip bomb": "garbled",
    "redirect": "client_error",
    "not HTTP": "garbled",
}
"""Faults before the first content."""
DURING = {
    "cut after 40 tokens": "truncated",
    "reset after 40 tokens": "truncated",
    "ends after 40 tokens": "truncated",
    "stall after 20 tokens": "idle_timeout",
    "comments after 20 tokens": "idle_timeout",
    "error after 20 tokens": "server_error",
}
"""Faults when the caller holds a part of the answer already."""
DEADLINES = frozenset({
    "500 whose body stalls", "never answers", "head drips", "headers, then nothing", "first token too late",
    "comments and no token", "a frame drips", "stall after 20 tokens", "comments after 20 tokens",
})  # fmt: skip
"""Those that only a deadline ends."""
ENDS: Mapping[str, Collection[str]] = {
    "headers_timeout": ("headers", "whole"),
    "first_token_timeout": ("first_token", "whole"),
    "idle_timeout": ("idle", "whole"),
    "server_error server_error": ("first_token", "idle", "whole"),
}
"""The deadlines that end such a fault, by its outcome."""


def deadlines(fault: str) -> str:
    """Those that end this fault are short, the others are not: they do not pass on a slow machine."""
    short = ENDS[{**BEFORE, **DURING}[fault]] if fault in DEADLINES else ()
    names = ("connect", "headers", "first_token", "idle", "whole")
    return "{" + ", ".join([f"{name}: {0.3 if name in short else 20}" for name in names]) + "}"


SPARES_THE_CONNECTION = frozenset({
    "429 with Retry-After once", "429 always", "429 with a long Retry-After", "500 once", "500 always", "503 always",
    "one event invalid", "no terminator", "empty answer", "HTML 200", "redirect", "context length", "content policy",
    "ends after 40 tokens",
})  # fmt: skip
"""Faults of the provider, in answers that are HTTP as it should be."""


def configuration(
    dialect: str,
    urls: Mapping[str, str],
    aliases: Iterable[str],
    *,
    timeouts: str = PATIENT,
    options: str = "",
    breaker: str = "{failures: 1000, error_rate: null}",
) -> str:
    """Upstreams by name and URL; the first one is the faulty one, with the deadlines and options that are
    given."""
    lines = [HEAD.replace(", default_alias: chat", ""), "upstreams:"]
    for n, (name, url) in enumerate(urls.items()):
        more = f"timeouts: {timeouts if n == 0 else PATIENT}, breaker: {breaker}{options if n == 0 else ''}"
        lines.append(
            f'  {name}: {{backend: {dialect}, base_url: "{url}", api_key: sk-of-{name}-0123456789, {more}}}'
        )
    return "\n".join([*lines, "aliases:", *(f"  {alias}" for alias in aliases)]) + "\n"


def alias(name: str, *targets: str, extra: str = "") -> str:
    """One tier for each target, which is "upstream" or "upstream, option: value". The model is called as the
    alias."""
    tiers = ", ".join(f"[{{upstream: {target}, model: {name}}}]" for target in targets)
    return f"{name}: {{tiers: [{tiers}], heartbeat: null, retry: {{backoff: 0.01}}{extra}}}"


def named(kind: str, mode: str) -> str:
    return f"{kind}-{mode.replace(' ', '-')}"


async def answers(g: Running, kind: str, modes: Iterable[str] = MODES, **headers: str) -> dict[str, Answer]:
    """What the alias of each mode answers, all asked at once."""
    modes = tuple(modes)
    async with aiohttp.ClientSession(g.url) as client:
        asked = (ask(client, mode, named(kind, mode), headers) for mode in modes)
        async with asyncio.timeout(BOUND):
            return dict(zip(modes, await asyncio.gather(*asked), strict=True))


class Record:
    """What the log and the metrics say when all calls have ended; read once, for reading is not cheap."""

    def __init__(self, g: Running) -> None:
        self._lines = {line["alias"]: line for line in g.requests}
        series = (
            line.rpartition(" ") for line in g.runtime.exposition().decode().splitlines() if line[0] != "#"
        )
        self._series = {name: float(value) for name, _, value in series}

    def metric(self, line: str) -> float:
        return self._series.get(line, 0.0)

    def end(self, name: str) -> str:
        return str(self._lines[name]["end"])

    def attempts(self, name: str) -> list[str]:
        """The attempts of an alias's latest call, from its log line; the metrics must say the same of all of
        its calls."""
        found = [attempt.replace(f"/{name} ", " ") for attempt in self._lines[name]["attempts"]]
        for attempt, count in Counter(found).items():
            upstream, outcome = attempt.split()
            series = (
                f'sluice_upstream_attempts_total{{model="{name}",outcome="{outcome}",upstream="{upstream}"}}'
            )
            assert self.metric(series) == count, series
        return found


async def settled(g: Running) -> Record:
    """Every call has ended and been logged; nothing crashed, and no connection is in use."""
    await until(lambda: not g.runtime.pipeline.runs)
    await until(lambda: not g.busy)
    gc.collect()  # what was never awaited or retrieved says so now
    await asyncio.sleep(0)
    assert [line for line in g.log_lines if line["event"] in ("crash", "library")] == []
    return Record(g)


def expected(outcomes: str, *then: str) -> list[str]:
    return [*(f"faulty {outcome}" for outcome in outcomes.split()), *then]


@asynccontextmanager
async def pair(
    dialect: str,
    fault: Behaviour,
    second: Behaviour = healthy,
    *,
    timeouts: str = PATIENT,
    options: str = "",
    modes: Iterable[str] = MODES,
) -> AsyncIterator[tuple[Running, Provider, Provider]]:
    """A gateway before a faulty provider and another one, with four aliases for each mode.

    pair: recovery is off · prefill, fresh: it is on, the latter by default; a prefill can be taken or not ·
    alone: no second.
    """
    aliases = []
    for mode in modes:
        aliases += [
            alias(named("pair", mode), "faulty", "well", extra=", recovery: error"),
            alias(named("prefill", mode), "faulty", "well, prefill: true", extra=", recovery: continue"),
            alias(named("fresh", mode), "faulty", "well"),
            alias(named("alone", mode), "faulty", extra=", recovery: continue"),
        ]
    async with RawServer(unasked) as elsewhere:
        async with Provider(fault, elsewhere=elsewhere.url) as faulty, Provider(second) as well:
            urls = {"faulty": faulty.url, "well": well.url}
            async with gateway(
                configuration(dialect, urls, aliases, timeouts=timeouts, options=options)
            ) as g:
                # what bounds retries is tested apart: here every call may have its own
                g.runtime.pipeline.failover.retries = RetryBudget(time.monotonic, reserve=1000)
                yield g, faulty, well
                await settled(g)
            async with asyncio.timeout(BOUND):
                await faulty.all_closed()
                await well.all_closed()
        assert elsewhere.peers == [], "somebody followed a redirect"


async def unasked(request: Request, peer: Peer) -> None:
    raise AssertionError("nobody should have asked this server")


def check_connections(fault: str, provider: Provider) -> None:
    if fault not in SPARES_THE_CONNECTION:
        assert all(len(peer.requests) <= 1 for peer in provider.peers), (
            "a connection was used again after a fault"
        )


# --- the provider is at fault


@DIALECT
@pytest.mark.parametrize("fault", SURVIVED)
async def test_a_target_that_recovers_by_itself_gives_the_whole_answer(fault: str, dialect: str) -> None:
    async with pair(dialect, BEHAVIOURS[fault]) as (g, faulty, well):
        for kind in ("pair", "alone"):
            for mode, answer in (await answers(g, kind)).items():
                assert answer == Answer(200, ANSWER), (kind, mode)
        record = await settled(g)
        for kind in ("pair", "alone"):
            for mode in MODES:
                assert record.attempts(named(kind, mode)) == expected(SURVIVED[fault]), (kind, mode)
        assert well.turns == []
        skipped = sum(
            record.metric(f'sluice_skipped_events_total{{model="{named("pair", mode)}",upstream="faulty"}}')
            for mode in MODES
        )
        assert skipped == (len(MODES) if fault == "one event invalid" else 0)
        check_connections(fault, faulty)


@DIALECT
@pytest.mark.parametrize("fault", BEFORE)
async def test_a_fault_before_the_first_token_costs_the_caller_nothing(fault: str, dialect: str) -> None:
    outcomes = BEFORE[fault]
    if fault == "HTML 200" and dialect == "anthropic":
        outcomes = "truncated"  # in server-sent events, a page is a stream without any event
    async with pair(dialect, BEHAVIOURS[fault], timeouts=deadlines(fault)) as (g, faulty, well):
        got = await asyncio.gather(answers(g, "pair"), answers(g, "fresh", STREAMS), answers(g, "alone"))
        for answer in (*got[0].values(), *got[1].values()):
            assert answer == Answer(200, ANSWER)
        for mode, answer in got[2].items():
            assert answer.error, mode
            assert answer.text == ""
            assert (answer.status == 200) == (mode == "widget stream"), (
                "an error before anything was said has its status"
            )
        record = await settled(g)
        for mode in MODES:
            assert record.attempts(named("pair", mode)) == expected(outcomes, "well ok")
            assert record.attempts(named("alone", mode)) == expected(outcomes)
        assert {turn.prefill for turn in well.turns} == {""}
        assert "done" not in {record.end(named("alone", mode)) for mode in MODES}
        check_connections(fault, faulty)


@DIALECT
@pytest.mark.parametrize("fault", DURING)
async def test_a_stream_that_breaks_is_continued_or_ends_in_one_error(fault: str, dialect: str) -> None:
    async with pair(dialect, BEHAVIOURS[fault], timeouts=deadlines(fault)) as (g, faulty, well):
        kinds = ("pair", "prefill", "fresh", "alone")
        got = dict(zip(kinds, await asyncio.gather(*(answers(g, kind) for kind in kinds)), strict=True))
        record = await settled(g)
        for mode in MODES:
            for kind in ("prefill", "fresh"):
                assert got[kind][mode] == Answer(200, ANSWER), (kind, mode)
                assert record.attempts(named(kind, mode)) == expected(DURING[fault], "well ok")
            assert record.attempts(named("alone", mode)) == expected(DURING[fault])
            alone, told = got["alone"][mode], got["pair"][mode]
            assert alone.error
            if mode in STREAMS:
                assert told.error
                assert told.text == alone.text
                assert ANSWER.startswith(told.text)
                assert record.attempts(named("pair", mode)) == expected(DURING[fault])
            else:  # nothing had been said
                assert told == Answer(200, ANSWER)
        assert {turn.prefill for turn in well.turns if turn.model.startswith("fresh")} == {""}
        assert all(
            turn.prefill for turn in well.turns if turn.model in (named("prefill", mode) for mode in STREAMS)
        )
        how = {"prefill": "prefill", "fresh": "fresh"}
        for kind, way in how.items():
            for mode in STREAMS:
                assert (
                    record.metric(
                        f'sluice_recoveries_total{{alias="{named(kind, mode)}",how="{way}",outcome="ok"}}'
                    )
                    == 1
                )
        check_connections(fault, faulty)


@DIALECT
async def test_an_empty_answer_is_asked_for_elsewhere_and_believed_where_there_is_no_other(
    dialect: str,
) -> None:
    async with pair(dialect, BEHAVIOURS["empty answer"]) as (g, _, _):
        for answer in (await answers(g, "pair")).values():
            assert answer == Answer(200, ANSWER)
        for answer in (await answers(g, "alone")).values():
            assert answer == Answer(200, "")


@DIALECT
async def test_a_malformed_event_is_a_cut_where_the_upstream_is_strict(dialect: str) -> None:
    async with pair(dialect, malformed, options=", strict: true") as (g, _, _):
        got = await asyncio.gather(answers(g, "pair"), answers(g, "prefill"), answers(g, "alone"))
        for mode in MODES:
            assert got[1][mode] == Answer(200, ANSWER)
            assert got[2][mode].error == "garbled"
            assert got[0][mode].complete == (mode not in STREAMS)
        record = await settled(g)
        for mode in MODES:
            assert record.attempts(named("prefill", mode)) == ["faulty garbled", "well ok"]


# --- recovery


@DIALECT
async def test_a_fallback_that_refuses_the_prefill_is_asked_afresh(dialect: str) -> None:
    async with pair(dialect, cut(40), no_prefill) as (g, _, well):
        got = await answers(g, "prefill", STREAMS)
        record = await settled(g)
        for mode in STREAMS:
            assert got[mode] == Answer(200, ANSWER)
            assert record.attempts(named("prefill", mode)) == expected(
                "truncated", "well client_error", "well ok"
            )
            turns = [turn for turn in well.turns if turn.model == named("prefill", mode)]
            assert [bool(turn.prefill) for turn in turns] == [True, False]


@DIALECT
async def test_another_answer_is_never_appended_to_the_one_that_was_cut(dialect: str) -> None:
    async with pair(dialect, cut(40), other_words) as (g, _, _):
        for answer in (await answers(g, "fresh", STREAMS)).values():
            assert (answer.text, answer.error) == ("".join(TOKENS[:40]), "diverged")
        record = await settled(g)
        for mode in STREAMS:
            assert record.attempts(named("fresh", mode)) == expected("truncated", "well garbled")


@DIALECT
async def test_a_caller_that_can_start_over_gets_another_answer_whole(dialect: str) -> None:
    async with pair(dialect, cut(40), other_words) as (g, _, _):
        [answer] = (await answers(g, "fresh", ["widget stream"], accept=FULL)).values()
        assert answer == Answer(200, "Quite another answer")


@DIALECT
async def test_the_tokens_of_every_attempt_are_counted_apart(dialect: str) -> None:
    async with pair(dialect, cut(40)) as (g, faulty, _):
        await answers(g, "prefill", STREAMS)
        record = await settled(g)

        def tokens(upstream: str, mode: str, kind: str, source: str) -> float:
            model = named("prefill", mode)
            return record.metric(
                f'sluice_tokens_total{{kind="{kind}",model="{model}",source="{source}",upstream="{upstream}"}}'
            )

        for mode in STREAMS:
            [turn] = [turn for turn in faulty.turns if turn.model == named("prefill", mode)]
            assert tokens("faulty", mode, "output", "estimate") == turn.tokens
            assert tokens("faulty", mode, "output", "provider") == 0
            assert tokens("well", mode, "output", "provider") == len(TOKENS) - turn.tokens
            assert tokens("well", mode, "input", "provider") == INPUT


# --- the request is at fault


@pytest.mark.parametrize(("fault", "code"), [("context", "context_length"), ("policy", "content_policy")])
@DIALECT
async def test_a_refused_request_goes_where_it_may_be_taken_and_nowhere_else(
    fault: str, code: str, dialect: str
) -> None:
    if fault not in DIALECTS[dialect].errors:
        pytest.skip("this vendor has no such refusal")
    aliases = []
    for mode in MODES:
        larger = ("faulty, context: 1000", "same, context: 1000", "well, context: 2000")
        aliases += [
            alias(named("larger", mode), *larger),
            alias(named("policy", mode), "faulty", "well", extra=", fall_back_on_content_policy: true"),
            alias(named("pair", mode), "faulty, context: 1000", "well, context: 1000"),
        ]
    async with Provider(refusing(fault)) as faulty, Provider(healthy) as same, Provider(healthy) as well:
        urls = {"faulty": faulty.url, "same": same.url, "well": well.url}
        async with gateway(configuration(dialect, urls, aliases)) as g:
            for answer in (await answers(g, "larger" if fault == "context" else "policy")).values():
                assert answer == Answer(200, ANSWER)
            for mode, answer in (await answers(g, "pair")).items():
                assert answer.status == (200 if mode == "widget stream" else 400)
                assert answer.error.startswith(code)
                assert answer.text == ""
            record = await settled(g)
            for mode in MODES:
                assert record.attempts(named("pair", mode)) == ["faulty client_error"]
        assert same.turns == []


# --- there is no provider


@DIALECT
@pytest.mark.parametrize(
    ("where", "outcomes", "code"),
    [
        ("refused", "connect_error", "connect_error"),
        ("black hole", "connect_error", "connect_timeout"),
        ("no such name", "connect_error", "dns_error"),
        ("untrusted certificate", "tls_error", "tls_error"),
        ("no TLS", "tls_error", "tls_error"),
    ],
)
async def test_a_provider_that_cannot_be_reached_costs_the_caller_nothing(
    where: str, outcomes: str, code: str, dialect: str
) -> None:
    kinds = ("pair", "alone")
    aliases = [alias(named("pair", mode), "faulty", "well") for mode in MODES]
    aliases += [alias(named("alone", mode), "faulty") for mode in MODES]

    async def greet(peer: Peer) -> None:
        peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        peer.close()

    stranger = RawServer(unasked, tls=authority().stranger)
    async with stranger, RawServer(unasked, greet=greet) as plain, Provider(healthy) as well:
        with black_hole() as hole:
            url = {
                "refused": refused_url(),
                "black hole": hole,
                "no such name": "http://no-such-host.invalid:80",
                "untrusted certificate": stranger.url,
                "no TLS": plain.url.replace("http:", "https:"),
            }[where]
            config = configuration(
                dialect, {"faulty": url, "well": well.url}, aliases, timeouts=PATIENT.replace("20", "0.4", 1)
            )
            async with gateway(config) as g:
                got = dict(
                    zip(kinds, await asyncio.gather(*(answers(g, kind) for kind in kinds)), strict=True)
                )
                record = await settled(g)
                for mode in MODES:
                    assert got["pair"][mode] == Answer(200, ANSWER)
                    assert got["alone"][mode].error == code
                    assert record.attempts(named("pair", mode)) == expected(outcomes, "well ok")
                    assert record.attempts(named("alone", mode)) == expected(outcomes)
                assert record.metric('sluice_upstream_connections{state="open",upstream="faulty"}') == 0


# --- the provider comes back


async def test_a_target_that_was_down_serves_again_soon_after_its_recovery(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    skew = [0.0]
    clock = SimpleNamespace(time=time.time, monotonic=lambda: time.monotonic() + skew[0])
    monkeypatch.setattr(state, "time", clock)
    modes = ["openai stream"]
    async with Provider(refusing("overloaded")) as flapping, Provider(healthy) as well:
        aliases = [alias(named("pair", mode), "faulty", "well") for mode in modes]
        urls = {"faulty": flapping.url, "well": well.url}
        async with gateway(
            configuration("openai", urls, aliases, breaker="{failures: 5}").replace(
                "drain_delay", "header_timeout: 1h, drain_delay"
            )
        ) as g:

            async def asked() -> int:
                """How many of the provider's answers one call took, which is answered whole in any case."""
                before = len(flapping.turns)
                assert list((await answers(g, "pair", modes)).values()) == [Answer(200, ANSWER)]
                return len(flapping.turns) - before

            while await asked():
                pass  # until the breaker opens
            for _ in range(60):  # a minute
                skew[0] += 1
                await asked()
            assert len(flapping.turns) < 30, "a target that is down is asked now and then only"
            flapping.behaviour = healthy
            skew[0] += 16
            assert await asked() == await asked() == 1
            await settled(g)


BURST = 100


@pytest.mark.parametrize(
    "fault", ["503 always", "reset before headers", "429 always", "headers, then nothing"]
)
async def test_a_burst_of_calls_fails_over_whole(fault: str) -> None:
    """Retries are bounded when everything fails; not when another target is well."""
    mode = "openai stream"
    async with Provider(BEHAVIOURS[fault]) as faulty, Provider(healthy) as well:
        urls = {"faulty": faulty.url, "well": well.url}
        config = configuration(
            "openai",
            urls,
            [alias(named("pair", mode), "faulty", "well")],
            timeouts=deadlines(fault),
            breaker="{}",
        )
        async with (
            gateway(config) as g,
            aiohttp.ClientSession(g.url, connector=aiohttp.TCPConnector(limit=0)) as client,
        ):
            got = await asyncio.gather(*(ask(client, mode, named("pair", mode)) for _ in range(BURST)))
            await settled(g)
            assert Counter(answer.error or "whole" for answer in got) == {"whole": BURST}

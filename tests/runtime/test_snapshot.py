"""Another configuration is taken while calls run: those go on by the old one, and new ones follow the new one
at once."""

import asyncio
import gc
import os
import weakref
from collections import Counter
from typing import Any

import msgspec
import pytest

from sluice.config.loader import Loaded
from sluice.routing.health import BreakerState
from sluice.runtime import snapshot as module
from sluice.runtime.restart import NeedsRestart
from tests.e2e.gateways import HEAD, KEY, Running, gateway
from tests.fakes.rawserver import Peer, Request, sized
from tests.runtime.held import NEW, OLD, SERVER, Provider, begin, client_of, hold_echoes, key, loaded, whole
from tests.upstream.calls import until

ECHO = "upstreams: {echo: {backend: echo}}\n"
CHAT = "aliases: {chat: {tiers: [[{upstream: echo, model: echo}]]}}\n"


async def alone(g: Running) -> None:
    """Only the current snapshot is left."""
    await until(lambda: g.snapshots.living == [g.snapshots.current])


# --- under load


async def test_a_swap_under_200_streams_cuts_none_and_new_calls_follow_it_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = hold_echoes(monkeypatch)

    def config(chat: str, secret: str, price: int, more: str = "") -> str:
        return f"""{SERVER}
keys: [{key("caller", secret)}]
prices: {{models: {{m: {{input: {price}, output: 0}}}}}}
upstreams:
  first: {{backend: openai, base_url: "{first.url}", timeouts: {{connect: 60s}}}}
  second: {{backend: openai, base_url: "{second.url}", timeouts: {{connect: 60s}}}}
  echo: {{backend: echo, tokens: 5}}
aliases:
  chat: {{tiers: [[{{upstream: {chat}, model: m}}]]}}
  echo: {{tiers: [[{{upstream: echo, model: echo}}]]}}
  {more}
"""

    async with Provider() as first, Provider() as second:
        added = "added: {tiers: [[{upstream: second, model: m}]]}"
        before, after = config("first", OLD, 1), config("second", NEW, 10, added)
        async with gateway(before) as g, client_of(g.url) as client:
            streams = await asyncio.gather(*(begin(client, ("chat", "echo")[n % 2], OLD) for n in range(200)))
            assert len(g.snapshots.runs) == 200
            await g.swap(loaded(after))
            assert (await whole(client, "chat", OLD))[0] == 401
            assert (await whole(client, "chat", NEW))[0] == 200
            assert (await whole(client, "added", NEW))[0] == 200
            assert len(second.requests) == 2
            newer = await begin(client, "chat", NEW)
            assert len(g.snapshots.living) == 2
            first.gate.set()
            gate.set()
            texts = Counter(await asyncio.gather(*(stream.text() for stream in streams)))
            assert texts == {"begin end": 100, "tok0 tok1 tok2 tok3 tok4": 100}
            await alone(g)
            second.gate.set()
            assert await newer.text() == "begin end"
            await until(lambda: not g.snapshots.runs and len(g.requests) == 204)
            lines = g.requests
            assert Counter(line["end"] for line in lines) == {"done": 203, "refused": 1}
            costs = Counter(line.get("cost_usd") for line in lines if line.get("alias") != "echo")
            assert costs == {1.0: 100, 10.0: 3, None: 1}
            assert [line for line in g.log_lines if line["level"] != "info"] == []


async def test_a_request_whose_body_comes_after_the_swap_ends_by_the_old_configuration() -> None:
    async with gateway(f"{HEAD}{ECHO}{CHAT}") as g:
        reader, writer = await asyncio.open_connection(*g.address)
        body = b'{"messages":[{"role":"user","content":"hi"}]}'
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nx-api-key: sk-sluice-test\r\nContent-Length: {len(body)}\r\n"
        writer.write(f"{head}Content-Type: application/json\r\n\r\n".encode() + body[:10])
        await until(lambda: bool(g.clients.answering()))
        for _ in range(10):
            await asyncio.sleep(0)
        before = g.snapshots.current
        await g.swap(loaded(f"{SERVER}{ECHO}{CHAT}"))  # it has no keys
        assert g.snapshots.living == [before, g.snapshots.current]
        writer.write(body[10:])
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")
        await alone(g)
        writer.close()


# --- what both need, and what only one does


def upstreams(**urls: str) -> str:
    sections = [
        f'  {name}: {{backend: openai, base_url: "{url}", api_key: sk-up}}' for name, url in urls.items()
    ]
    aliases = [f"  {name}: {{tiers: [[{{upstream: {name}, model: m}}]]}}" for name in urls]
    return "\n".join(["upstreams:", *sections, "aliases:", *aliases, ""])


async def test_connections_of_an_upstream_that_has_not_changed_are_used_on() -> None:
    async with (
        Provider() as one,
        Provider() as two,
        gateway(HEAD + upstreams(chat=one.url, moved=one.url)) as g,
        client_of(g.url) as client,
    ):
        assert [(await whole(client, name))[0] for name in ("chat", "moved")] == [200, 200]
        await g.swap(loaded(HEAD + upstreams(chat=one.url + "/v1", moved=two.url)))
        await alone(g)
        assert [(await whole(client, name))[0] for name in ("chat", "moved")] == [200, 200]
        assert [len(peer.requests) for peer in one.peers] == [2, 1], "the first connection again"
        assert len(two.peers) == 1
        await one.peers[1].closed.wait()
        assert not one.peers[0].closed.is_set()


@pytest.mark.parametrize("change", ["api_key: sk-other", "max_connections: 7", 'proxy: "http://127.0.0.1:9"'])
async def test_what_makes_a_connection_different_makes_a_new_pool(change: str) -> None:
    async with Provider() as one, gateway(HEAD + upstreams(chat=one.url)) as g:
        [pool] = g.state.transports.named("chat")
        await g.swap(loaded((HEAD + upstreams(chat=one.url)).replace("api_key: sk-up", change)))
        await alone(g)
        assert g.state.transports.named("chat") != [pool]


async def test_what_a_vanished_upstream_has_is_closed_when_its_last_call_has_ended() -> None:
    async with Provider() as gone, gateway(HEAD + upstreams(chat=gone.url)) as g, client_of(g.url) as client:
        stream = await begin(client)
        assert (await whole(client))[0] == 200
        assert gone.open == 2
        await g.swap(loaded(f"{HEAD}{ECHO}{CHAT}"))
        assert "You said" in (await whole(client))[1]["choices"][0]["message"]["content"]
        assert gone.open == 2
        assert g.metric('sluice_upstream_connections{state="open",upstream="chat"}') == 2
        gone.gate.set()
        assert await stream.text() == "begin end"
        await gone.all_closed()
        await alone(g)
        assert b'upstream="chat"' not in g.runtime.exposition()


async def test_a_long_stream_keeps_its_own_configuration_and_not_all_that_came_later() -> None:
    async with Provider() as one:

        def config(number: int) -> str:
            return (
                f"{HEAD}{upstreams(chat=one.url)}prices: {{models: {{m: {{input: {number}, output: 0}}}}}}\n"
            )

        async with gateway(config(0)) as g, client_of(g.url) as client:
            oldest = g.snapshots.current
            stream = await begin(client, "chat", KEY)
            taken = []
            for number in range(1, 5):
                await g.swap(loaded(config(number)))
                assert (await whole(client))[0] == 200
                taken.append(g.snapshots.current)
            await until(lambda: g.snapshots.living == [oldest, taken[0], taken[-1]])
            closed = weakref.ref(taken.pop(1))
            g.snapshots.retired = gc.collect
            await g.swap(loaded(config(5)))
            await until(lambda: closed() is None)
            one.gate.set()
            assert await stream.text() == "begin end"
            await alone(g)


async def test_a_call_that_its_client_left_holds_its_snapshot_too() -> None:
    async with Provider() as slow:
        text = (HEAD + upstreams(chat=slow.url)).replace(
            "chat: {tiers", "chat: {on_disconnect: finish, tiers"
        )
        async with gateway(text) as g, client_of(g.url) as client:
            stream = await begin(client)
            stream.response.close()
            await until(lambda: bool(g.runtime.detached.tasks))
            await g.swap(loaded(f"{HEAD}{ECHO}{CHAT}"))
            assert len(g.snapshots.living) == 2
            slow.gate.set()
            await alone(g)
            await until(lambda: any(line["event"] == "detached" for line in g.log_lines))
            assert [line["end"] for line in g.log_lines if line["event"] == "detached"] == ["done"]


async def test_what_was_learned_of_a_target_is_kept_while_its_address_and_breaker_stay() -> None:
    def config(breaker: str, more: str = "") -> str:
        return f"""{HEAD}
upstreams: {{down: {{backend: echo, fail: overloaded, breaker: {{failures: {breaker}, open_for: 1h, open_max: 1h}}}}}}
aliases: {{chat: {{tiers: [[{{upstream: down, model: m}}]], retry: {{same_target: 0}}}}{more}}}
"""

    state = 'sluice_breaker_state{model="m",upstream="down"}'
    async with gateway(config("1")) as g, client_of(g.url) as client:
        assert (await whole(client))[0] == 503
        [target] = g.runtime.routes["chat"].targets
        assert target.health.state is BreakerState.OPEN
        await g.swap(loaded(config("1", ", also: {tiers: [[{upstream: down, model: m}]]}")))
        assert g.runtime.routes["also"].targets[0].health is target.health
        assert g.runtime.routes["chat"].targets[0].load is target.load
        assert g.metric(state) == BreakerState.OPEN
        events = [line["event"] for line in g.log_lines]
        assert events.count("alias_without_target") == 2, "the alias that came has no target either"
        await g.swap(loaded(config("2")))
        await alone(g)
        assert g.runtime.routes["chat"].targets[0].health is not target.health
        assert g.metric(state) == BreakerState.CLOSED
        assert [line["event"] for line in g.log_lines].count("alias_has_target") == 1
        written = len(g.log_lines)
        g.state.notices.tick(g.state.clock() + 3600)
        assert len(g.log_lines) == written, "nothing lasts any more"


async def test_key_sets_and_probes_are_kept_while_they_do_not_change() -> None:
    async with Provider() as one:
        issuer = f'jwt: [{{issuer: x, audience: a, algorithms: [RS256], jwks_url: "{one.url}/keys"LEEWAY}}]\n'
        text = HEAD + issuer + upstreams(chat=one.url).replace("sk-up", "sk-up, probe: {every: 1h}")
        async with gateway(text.replace("LEEWAY", "")) as g:
            [keys], [probe] = g.state.key_sets.named("x"), g.state.probes.named("chat")
            await g.swap(loaded(text.replace("LEEWAY", ", leeway: 1s")))
            await alone(g)
            assert (g.state.key_sets.named("x"), g.state.probes.named("chat")) == ([keys], [probe])
            await g.swap(loaded(f"{HEAD}{ECHO}{CHAT}"))
            await alone(g)
            assert len(g.state.key_sets) == len(g.state.probes) == 0
            assert probe.cancelled()
            assert not [task for task in asyncio.all_tasks() if "RemoteKeys" in repr(task)]


class Choosy(Provider):
    """Refuses the key sk-bad."""

    async def _answer(self, request: Request, peer: Peer) -> None:
        if "sk-bad" in request.headers["authorization"]:
            peer.send(
                sized(b'{"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}}', 401)
            )
        else:
            await super()._answer(request, peer)


async def test_what_was_learned_of_credentials_is_kept_while_they_do_not_change() -> None:
    state = 'sluice_credential_state{credential="bad",upstream="chat"}'
    several = "credentials: [{name: bad, api_key: sk-bad, weight: 9}, {name: SPARE, api_key: sk-good}]"
    async with Choosy() as one:
        text = HEAD + upstreams(chat=one.url).replace("api_key: sk-up", several)
        async with gateway(text.replace("SPARE", "spare")) as g, client_of(g.url) as client:
            while not g.metric(state):
                assert (await whole(client))[0] == 200
            await g.swap(loaded(text.replace("SPARE", "spare") + "prices: {header: true}\n"))
            await alone(g)
            assert g.metric(state) == 1
            refused = sum("sk-bad" in request.headers["authorization"] for request in one.requests)
            assert refused == 1
            await g.swap(loaded(text.replace("SPARE", "other")))
            await alone(g)
            assert g.metric(state) == 0
            assert b'credential="other"' in g.runtime.exposition()
            assert b'credential="spare"' not in g.runtime.exposition()


# --- limits, turns, keys


async def test_limits_go_on_from_where_they_were() -> None:
    def config(limits: str) -> str:
        return f"{SERVER}keys: [{key('k', OLD, f', limits: {{{limits}}}')}]\n{ECHO}{CHAT}"

    async with gateway(config("requests: {rate: 3/h}")) as g, client_of(g.url) as client:
        assert [(await whole(client, "chat", OLD))[0] for _ in range(2)] == [200, 200]
        await g.swap(loaded(config("requests: {rate: 3/h}, streams: 9")))
        assert [(await whole(client, "chat", OLD))[0] for _ in range(2)] == [200, 429]
        await g.swap(loaded(config("streams: 9")))
        assert (await whole(client, "chat", OLD))[0] == 200


async def test_a_budget_that_is_new_knows_what_was_spent() -> None:
    async with Provider() as one:
        text = HEAD + "prices: {models: {m: {input: 0, output: 1}}}\n" + upstreams(chat=one.url)
        async with gateway(text) as g, client_of(g.url) as client:
            assert (await whole(client))[0] == 200  # one US dollar
            await until(lambda: len(g.requests) == 1)
            await g.swap(
                loaded(
                    text.replace("default_alias: chat", "default_alias: chat, limits: {budget: {month: 1}}")
                )
            )
            assert (await whole(client))[0] == 429


async def test_a_call_that_waits_in_a_queue_is_admitted_when_a_call_of_another_snapshot_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = hold_echoes(monkeypatch)
    chat = "aliases: {chat: {tiers: [[{upstream: echo, model: echo}]], limits: {streams: 1}, queue: {timeout: TIME}}}\n"
    text = f"{HEAD}{ECHO}{chat}"
    async with gateway(text.replace("TIME", "1h")) as g, client_of(g.url) as client:
        first = await begin(client)
        await g.swap(loaded(text.replace("TIME", "59m")))
        second = asyncio.create_task(begin(client))
        await until(lambda: len(g.state.alias_queues) == 1)
        await g.swap(loaded(text.replace("TIME", "58m")))
        third = asyncio.create_task(begin(client))
        await until(lambda: len(g.state.alias_queues) == 2)
        gate.set()
        for stream in (first, await second, await third):
            assert await stream.text() == "You said: hi"
        await alone(g)


async def test_the_turns_of_a_session_stay_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = hold_echoes(monkeypatch)
    async with gateway(f"{HEAD}{ECHO}{CHAT}") as g, client_of(g.url) as client:

        async def turn() -> str:
            body, headers = {"sessionId": "s", "message": "hi"}, {"x-api-key": "sk-sluice-test"}
            async with client.post("/v1/chat", json=body, headers=headers) as response:
                return str((await response.json())["message"])

        first = asyncio.create_task(turn())
        await until(lambda: len(g.snapshots.runs) == 1)
        await g.swap(loaded(f"{HEAD}{ECHO}{CHAT}"))
        second = asyncio.create_task(turn())
        await until(lambda: len(g.snapshots.runs) == 2)
        gate.set()
        assert [await first, await second] == ["You said: hi", "Turn 2, you said: hi"]


async def test_draining_waits_for_the_calls_of_all_snapshots(monkeypatch: pytest.MonkeyPatch) -> None:
    gate, hurry = hold_echoes(monkeypatch), asyncio.Event()
    async with gateway(f"{HEAD}{ECHO}{CHAT}") as g, client_of(g.url) as client:
        streams = [await begin(client)]
        await g.swap(loaded(f"{HEAD}{ECHO}{CHAT}"))
        streams.append(await begin(client))
        hurry.set()
        draining = asyncio.create_task(g.drain(hurry))
        await until(
            lambda: any(line["event"] == "draining" and line["in_flight"] == 2 for line in g.log_lines)
        )
        assert not draining.done()
        gate.set()
        assert {await stream.text() for stream in streams} == {"You said: hi"}
        await draining


async def test_what_only_a_restart_can_change_is_named_and_refused_as_a_whole() -> None:
    async with gateway(f"{HEAD}{ECHO}{CHAT}") as g:
        new = (
            HEAD.replace("drain_delay: 0", "drain_delay: 3s, write_idle: 5s")
            + 'state: "sqlite:elsewhere.db"\n'
        )
        before = shape(g)
        with pytest.raises(NeedsRestart) as refused:
            await g.swap(loaded(f"{new}{ECHO}{CHAT}log: {{level: debug, format: text}}\n"))
        assert refused.value.options == ["server.write_idle", "log.format", "state"]
        assert shape(g) == before
        assert g.runtime.config.server.drain_delay == 0


# --- configurations that cannot be followed


class Broken(msgspec.Struct, frozen=True):
    """A backend that cannot be reached in any way."""

    base_url: str = "nowhere"
    dialect: str = ""

    def transport(self) -> None:
        return None

    def credentials(self) -> tuple[()]:
        return ()


def broken() -> Loaded:
    """It fails when most of it has been built."""
    text = HEAD + "jwt: [{issuer: 'http://127.0.0.1:9', audience: a, algorithms: [RS256], discovery: true}]\n"
    text += "upstreams: {up: {backend: openai, base_url: 'http://127.0.0.1:9'}, bad: {backend: echo}}\n"
    text += "aliases: {chat: {tiers: [[{upstream: up, model: m}], [{upstream: bad, model: m}]]}, more: {tiers: MORE}}\n"
    found = loaded(text.replace("MORE", "[[{upstream: up, model: n}]]"))
    backends: dict[str, Any] = {**found.backends, "bad": Broken()}
    return msgspec.structs.replace(found, backends=backends)


def shape(g: Running) -> tuple[object, ...]:
    """What must be as it was, where nothing has changed."""
    state = g.state
    shared = (state.transports, state.standings, state.key_sets, state.probes)
    series = sorted(
        line.rpartition(b" ")[0] for line in g.runtime.exposition().splitlines() if b"sluice_" in line
    )
    return g.snapshots.current, g.clients.dispatch, [*map(len, shared)], len(asyncio.all_tasks()), series


async def test_a_configuration_that_cannot_be_followed_changes_nothing() -> None:
    async with gateway(f"{HEAD}{ECHO}{CHAT}") as g, client_of(g.url) as client:
        assert (await whole(client))[0] == 200
        before = shape(g)
        with pytest.raises(ValueError, match="http://"):
            await g.swap(broken())
        assert shape(g) == before
        assert (await whole(client))[0] == 200


async def test_a_swap_that_is_cancelled_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    reached = asyncio.Event()

    async def never(*_: object) -> None:
        reached.set()
        await asyncio.Event().wait()

    async with Provider() as one, gateway(f"{HEAD}{ECHO}{CHAT}") as g, client_of(g.url) as client:
        assert (await whole(client))[0] == 200
        before = shape(g)
        with monkeypatch.context() as patch:
            patch.setattr(module, "reopen", never)
            swapping = asyncio.create_task(g.swap(loaded(HEAD + upstreams(chat=one.url))))
            await reached.wait()
            swapping.cancel()
            await asyncio.wait([swapping])
        assert shape(g) == before
        await g.swap(loaded(HEAD + upstreams(chat=one.url)))
        assert (await whole(client))[1]["choices"][0]["message"]["content"] == "whole"


async def test_a_swap_that_is_under_way_when_the_gateway_closes_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reached, goes_on = asyncio.Event(), asyncio.Event()

    async def slow(*_: object) -> None:
        reached.set()
        await goes_on.wait()

    async with gateway(f"{HEAD}{ECHO}{CHAT}") as g:
        monkeypatch.setattr(module, "reopen", slow)
        before = g.snapshots.current
        swapping = asyncio.create_task(g.swap(loaded(f"{HEAD}{ECHO}{CHAT}")))
        await reached.wait()
        closing = asyncio.create_task(g.snapshots.__aexit__(None, None, None))
        await asyncio.sleep(0)
        goes_on.set()
        with pytest.raises(RuntimeError, match="closing"):
            await swapping
        await closing
        assert g.snapshots.current is before
        assert g.snapshots.living == []
        assert len(g.state.transports) == len(g.state.standings) == 0


# --- what is left behind


async def test_fifty_swaps_leave_nothing_behind() -> None:
    async with Provider() as one:

        def config(number: int) -> str:
            names = upstreams(**{"chat": one.url, f"up-{number}": one.url}).replace(
                "sk-up", "sk-up, probe: {every: 1h}"
            )
            issuer = f'jwt: [{{issuer: "i-{number}", audience: a, algorithms: [RS256], jwks_url: "{one.url}/keys"}}]\n'
            head = (
                HEAD.replace("id: test", f"id: test-{number}")
                + "metrics: {key_label: true}\nlog: {level: error}\n"
            )
            return head + issuer + names

        async with gateway(config(0)) as g, client_of(g.url) as client:
            snapshots = weakref.WeakSet([g.snapshots.current])
            sizes = []
            for number in range(1, 51):
                await g.swap(loaded(config(number)))
                snapshots.add(g.snapshots.current)
                assert (await whole(client, f"up-{number}"))[0] == 200
                await alone(g)
                if number in (10, 50):
                    # what closed the one before may still be on its way through the event loop
                    await until(lambda: gc.collect() >= 0 and set(snapshots) == {g.snapshots.current})
                    await until(lambda: one.open <= 2)  # one idle, and the fetch of keys or none
                    state = g.state
                    shared = (
                        state.transports,
                        state.standings,
                        state.key_sets,
                        state.probes,
                        state.records.series,
                    )
                    series = len(g.runtime.exposition().splitlines())
                    tasks = [task for task in asyncio.all_tasks() if "RawServer" not in repr(task)]
                    descriptors = len(os.listdir("/proc/self/fd"))
                    sizes.append((list(map(len, shared)), len(tasks), series, descriptors))
            assert sizes[0] == sizes[1]


async def test_a_target_whose_model_refuses_a_prefill_is_not_asked_to_go_on_by_one() -> None:
    config = f"""{SERVER}
keys: [{key("caller", OLD)}]
upstreams: {{claude: {{backend: anthropic, base_url: "http://127.0.0.1:9", api_key: k}}}}
aliases:
  chat:
    tiers:
      - [{{upstream: claude, model: claude-sonnet-4-5, prefill: true}}]
      - [{{upstream: claude, model: claude-sonnet-4-6, prefill: true}}]
      - [{{upstream: claude, model: claude-sonnet-4-5}}]
"""
    async with gateway(config) as g:
        targets = g.snapshots.current.routes["chat"].targets
        assert [target.spec.prefill for target in targets] == [True, False, False]

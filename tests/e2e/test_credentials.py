"""Several accounts of one upstream, and a key that is replaced in its file: what callers, metrics and the log
are told."""

import asyncio
import itertools
import json
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.e2e.answers import MODES, ask
from tests.e2e.gateway_process import DIGEST, KEY, serving
from tests.e2e.gateways import HEAD, Running, gateway
from tests.fakes.faulty import Behaviour, Provider, Turn, healthy
from tests.fakes.rawserver import sized

REFUSALS = {
    401: sized(b'{"error": {"message": "Incorrect API key provided: %s", "code": "invalid_api_key"}}', 401),
    402: sized(b'{"error": {"message": "Insufficient Balance"}}', 402),
    429: sized(b'{"error": {"message": "Rate limit reached for you"}}', 429, ("Retry-After", "20")),
}
FIRST, SECOND = "sk-first-4d9f2c", "sk-second-77ab01"


class Accounts:
    """A provider that knows keys: `status` is what it answers to each (200 where it is not named)."""

    def __init__(self) -> None:
        self.status: dict[str, int] = {}
        self.seen: Counter[str] = Counter()

    async def behave(self, turn: Turn) -> None:
        key = turn.request.headers.get("authorization", "").removeprefix(
            "Bearer "
        ) or turn.request.headers.get("x-api-key", "")
        self.seen[key] += 1
        status = self.status.get(key, 200)
        if status == 200:
            await healthy(turn)
        else:
            turn.peer.send(REFUSALS[status].replace(b"%s", b"%b" % key.encode()[:2]))


@asynccontextmanager
async def accounts(
    credentials: str, *, backend: str = "openai", behaviour: Behaviour | None = None
) -> AsyncIterator[tuple[Running, Accounts]]:
    known = Accounts()
    async with Provider(behaviour or known.behave) as provider:
        text = f"""{HEAD}
upstreams:
  one: {{backend: {backend}, base_url: "{provider.url}", credentials: {credentials}}}
aliases:
  chat: {{tiers: [[{{upstream: one, model: m}}]], heartbeat: null}}
"""
        async with gateway(text) as g:
            yield g, known


async def asked(g: Running, count: int = 1, mode: str = "openai stream") -> list[str]:
    """Errors of so many calls, one after the other; "" for those that were answered."""
    async with aiohttp.ClientSession(g.url) as client:
        return [(await ask(client, mode, "chat")).error for _ in range(count)]


def no_secret(g: Running, *secrets: str) -> None:
    text = g.log_bytes.getvalue().decode() + g.runtime.exposition().decode()
    assert not [secret for secret in secrets if secret in text]


TWO = f"[{{api_key: {FIRST}, weight: 3}}, {{api_key: {SECOND}, name: spare}}]"


async def test_calls_are_shared_by_weight() -> None:
    async with accounts(TWO) as (g, known):
        assert await asked(g, 16) == [""] * 16
        assert known.seen == {FIRST: 12, SECOND: 4}
        no_secret(g, FIRST, SECOND)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("status", "reason"), [(401, "bad_credentials"), (402, "billing"), (429, "rate_limited")]
)
async def test_one_account_that_is_refused_is_left_alone_and_no_call_fails(
    mode: str, status: int, reason: str
) -> None:
    async with accounts(TWO) as (g, known):
        known.status[FIRST] = status
        assert await asked(g, 6, mode) == [""] * 6
        assert (known.seen[FIRST], known.seen[SECOND]) == (1, 6)
        errors = 'sluice_credential_errors_total{credential="1",reason="%s",upstream="one"}'
        assert g.metric(errors % reason) == 1
        assert g.metric('sluice_credential_state{credential="1",upstream="one"}') == 1
        assert g.metric('sluice_credential_state{credential="spare",upstream="one"}') == 0
        assert g.metric('sluice_breaker_state{model="m",upstream="one"}') == 0
        assert g.metric('sluice_upstream_attempts_total{model="m",outcome="ok",upstream="one"}') == 6
        refused = [line for line in g.log_lines if line["event"] == "credential_refused"]
        assert [
            (line["level"], line["upstream"], line["credential"], line["reason"]) for line in refused
        ] == [("warning", "one", "1", reason)]
        no_secret(g, FIRST, SECOND)


async def test_where_no_account_is_left_the_target_fails_with_what_the_last_one_was_told() -> None:
    async with accounts(TWO) as (g, known):
        known.status |= {FIRST: 429, SECOND: 401}
        assert await asked(g) == ["rate_limit_exceeded"]
        assert known.seen == {FIRST: 1, SECOND: 1}
        assert (
            g.metric('sluice_upstream_attempts_total{model="m",outcome="rate_limited",upstream="one"}') == 1
        )
        no_secret(g, FIRST, SECOND)


@pytest.mark.parametrize("backend", ["openai", "anthropic", "ollama"])
async def test_a_single_account_is_sent_as_its_backend_sends_keys(backend: str) -> None:
    async with accounts(f"{{api_key: {FIRST}}}", backend=backend) as (g, known):
        assert await asked(g, 2) == ["", ""]
        assert known.seen == {FIRST: 2}


async def repeats(turn: Turn) -> None:
    body = {
        "error": {
            "message": f"no, {turn.request.headers['authorization']} is none",
            "code": "invalid_request",
        }
    }
    turn.peer.send(sized(json.dumps(body).encode(), 400))


async def test_a_provider_that_repeats_the_key_does_not_give_it_away(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("a-plain-word-of-a-key")
    async with accounts(f"{{kind: file, path: {tmp_path}/key}}", behaviour=repeats) as (g, _):
        body = {"model": "chat", "messages": [{"role": "user", "content": "hi"}]}
        headers = {"authorization": f"Bearer {KEY}"}
        async with (
            aiohttp.ClientSession(g.url) as client,
            client.post("/v1/chat/completions", json=body, headers=headers) as response,
        ):
            told = await response.text()
        assert "is none" in told
        assert "plain-word" not in told
        no_secret(g, "plain-word")


async def test_what_a_program_prints_is_sent_and_shown_to_nobody(tmp_path: Path) -> None:
    script = tmp_path / "token"
    script.write_text(f'#!/bin/sh\necho \'{{"token": "{FIRST}"}}\'\n')
    script.chmod(0o700)
    for backend in ("openai", "anthropic", "ollama"):
        async with accounts(f"{{kind: exec, command: [{script}]}}", backend=backend) as (g, known):
            assert await asked(g, 2) == ["", ""]
            assert known.seen == {FIRST: 2}
            no_secret(g, FIRST)


async def test_without_any_token_the_target_fails_and_the_log_says_why_once(tmp_path: Path) -> None:
    async with accounts("{kind: exec, name: vault, command: [sh, -c, 'exit 3']}") as (g, known):
        assert set(await asked(g, 3)) == {"bad_credentials"}
        assert known.seen == {}
        said = [line for line in g.log_lines if line["event"] == "credential_not_refreshed"]
        assert [(line["upstream"], line["credential"], line["why"]) for line in said] == [
            ("one", "vault", "sh ended with 3")
        ]
        assert (
            g.metric('sluice_credential_errors_total{credential="vault",reason="refresh",upstream="one"}')
            >= 1
        )
        assert (
            g.metric('sluice_credential_errors_total{credential="vault",reason="unavailable",upstream="one"}')
            >= 1
        )


ROTATION = """
server:
  {{listen: "127.0.0.1:${{API_PORT}}", admin_listen: "127.0.0.1:${{ADMIN_PORT}}", drain_delay: 0s, workers: 2}}
keys: [{{id: test, digest: "{digest}", aliases: ["*"]}}]
limits: {{address: null}}
upstreams:
  one: {{backend: openai, base_url: "{url}", credentials: {credentials}}}
aliases: {{chat: {{tiers: [[{{upstream: one, model: m}}]], heartbeat: null, retry: {{same_target: 0}}}}}}
"""


async def rotated(api: str, keys: list[str], path: Path, known: Accounts) -> list[str]:
    """The errors of all calls, while one key after the other takes the place of the one before."""
    errors: list[str] = []
    stop = asyncio.Event()

    async def caller() -> None:
        async with aiohttp.ClientSession(api, connector=aiohttp.TCPConnector(force_close=True)) as client:
            while not stop.is_set():
                errors.append((await ask(client, "openai stream", "chat")).error)

    async def calls(key: str, count: int) -> None:
        while known.seen[key] < count:
            await asyncio.sleep(0.01)

    callers = [asyncio.create_task(caller()) for _ in range(8)]
    for old, new in itertools.pairwise(keys):
        await calls(old, 40)
        path.with_name("new").write_text(new)
        os.replace(path.with_name("new"), path)
        known.status |= {old: 401, new: 200}
    await calls(keys[-1], 40)
    stop.set()
    await asyncio.gather(*callers)
    return errors


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_key_that_is_replaced_on_disk_under_load_costs_no_call(tmp_path: Path) -> None:
    """Two processes; the old key is revoked in the moment in which the file is replaced."""
    known = Accounts()
    keys = [f"sk-rotated-{number}" for number in range(4)]
    path = tmp_path / "key"
    path.write_text(keys[0])
    known.status |= dict.fromkeys(keys[1:], 401)
    async with Provider(known.behave) as provider:
        text = ROTATION.format(digest=DIGEST, url=provider.url, credentials=f"{{kind: file, path: {path}}}")
        serve = serving(text)
        g = await asyncio.to_thread(serve.__enter__)
        try:
            await asyncio.to_thread(g.wait_for, lambda _: len(g.records("started")) >= 2)
            errors = await rotated(g.api, keys, path, known)
        finally:
            await asyncio.to_thread(serve.__exit__, None, None, None)
    assert set(errors) == {""}
    assert len(errors) > 150
    assert "sk-rotated" not in g.output()

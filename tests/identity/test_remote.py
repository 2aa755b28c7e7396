"""Key sets that are fetched, from a real server: who waits, who asks, how often, and what is believed."""

import asyncio
import gzip
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest
import trustme
from aiohttp import web

from sluice.config.types import Config
from sluice.errors import ConfigError, Unauthorized, Unavailable
from sluice.identity import Authenticator, KeysWanted, Principal, remote
from sluice.identity.jwt import Verifier
from sluice.identity.remote import OUTCOMES, STALE, FetchFailed, RemoteKeys, fetch, life_of
from tests.identity.provider import Provider, provider, public


class Alarm:
    """A sleep that ends when the test says so; it keeps what it was asked for."""

    def __init__(self) -> None:
        self.pauses: list[float] = []
        self._asleep = asyncio.Event()
        self._ring = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self._asleep.set()
        await self._ring.wait()
        self._ring.clear()

    async def asleep(self) -> None:
        await self._asleep.wait()

    async def ring(self) -> None:
        """Wake the sleeper, and return when it sleeps again."""
        self._asleep.clear()
        self._ring.set()
        await self._asleep.wait()


class Gate:
    """A verifier over the keys of one provider, asked as the gateway asks: without waiting, then once
    more."""

    def __init__(self, idp: Provider, **options: Any) -> None:
        self.now = 1000.0
        self.alarm = Alarm()
        self.outcomes: list[str] = []
        self.rests: list[float] = []
        issuer = idp.issuer(**options)
        self.keys = RemoteKeys(
            issuer,
            lambda name, outcome, keys: self.outcomes.append(outcome),
            clock=lambda: self.now,
            chance=lambda: 0.0,
            sleep=self.alarm.sleep,
            rest=self.rest,
        )
        self.verifier = Verifier([issuer], fetched={issuer.issuer: self.keys})

    async def rest(self, seconds: float) -> None:
        """Time passes when everybody who is there has begun to wait."""
        await asyncio.sleep(0)
        self.rests.append(seconds)
        self.now += seconds

    def at_once(self, token: str) -> Principal:
        return self.verifier.principal(token)

    async def principal(self, token: str) -> Principal:
        try:
            return self.verifier.principal(token)
        except KeysWanted as wanted:
            await wanted.keys.renew()
        return self.verifier.principal(token)

    async def reason(self, token: str) -> str:
        try:
            await self.principal(token)
        except (Unauthorized, Unavailable) as refused:
            return refused.reason if isinstance(refused, Unauthorized) else refused.code
        return "accepted"


@asynccontextmanager
async def gate(*kids: str, started: bool = True, **options: Any) -> AsyncIterator[tuple[Provider, Gate]]:
    """A provider that publishes `kids`, and a gate that has fetched them."""
    async with provider() as idp:
        idp.publish(*kids)
        one = Gate(idp, **options)
        if started:
            one.keys.start()
            await one.alarm.asleep()
        try:
            yield idp, one
        finally:
            await one.keys.close()


# who waits


async def test_a_token_with_a_known_key_waits_for_nothing_and_costs_no_fetch() -> None:
    async with gate("k1") as (idp, one):
        for number in range(200):
            assert one.at_once(idp.token("k1", sub=f"u{number % 20}")).tenant == f"{idp.url}|u{number % 20}"
        assert idp.fetches == 1


async def test_tokens_before_the_first_answer_wait_for_the_one_fetch_under_way() -> None:
    async with gate("k1", started=False) as (idp, one):
        idp.gate.clear()
        one.keys.start()
        await idp.asked.wait()
        with pytest.raises(KeysWanted):
            one.at_once(idp.token("k1"))
        waiting = [asyncio.create_task(one.principal(idp.token("k1", sub=f"u{n}"))) for n in range(50)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        idp.gate.set()
        assert len({principal.tenant for principal in await asyncio.gather(*waiting)}) == 50
        assert idp.fetches == 1


async def test_a_token_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "WAIT", 0.05)
    async with gate("k1", started=False) as (idp, one):
        idp.gate.clear()
        one.keys.start()
        assert await one.reason(idp.token("k1")) == "unavailable"
        idp.gate.set()
        await one.alarm.asleep()
        assert await one.reason(idp.token("k1")) == "accepted"
        idp.gate.clear()
        assert await one.reason(idp.token("k2")) == "unknown_key"


async def test_one_who_waits_and_leaves_does_not_end_the_fetch_for_the_others() -> None:
    async with gate("k1", started=False) as (idp, one):
        idp.gate.clear()
        leaver, stayer = (asyncio.create_task(one.principal(idp.token("k1"))) for _ in range(2))
        await idp.asked.wait()
        leaver.cancel()
        idp.gate.set()
        assert (await stayer).tenant == f"{idp.url}|u"
        assert idp.fetches == 1


async def test_without_any_keys_a_token_cannot_be_judged() -> None:
    async with gate(started=False) as (idp, one):
        idp.answer = status(500)
        one.keys.start()
        await one.alarm.asleep()
        assert [await one.reason(idp.token("k1")) for _ in range(20)] == ["unavailable"] * 20
        assert idp.fetches == 1 + remote.BURST  # the first, and those that were asked for


# who asks


async def test_made_up_key_ids_at_one_time_cost_one_fetch() -> None:
    async with gate("k1") as (idp, one):
        idp.gate.clear()
        flood = [asyncio.create_task(one.reason(idp.token("k9", name=f"made-up-{n}"))) for n in range(50)]
        await asyncio.sleep(0)
        idp.gate.set()
        assert set(await asyncio.gather(*flood)) == {"unknown_key"}
        assert idp.fetches == 2


async def test_made_up_key_ids_cost_a_burst_of_fetches_and_then_one_each_spacing() -> None:
    async with gate("k1") as (idp, one):
        began = one.now
        for number in range(20):
            assert await one.reason(idp.token("k9", name=f"made-up-{number}")) == "unknown_key"
        assert idp.fetches == 1 + 20
        assert one.rests == [remote.SPACING] * (20 - remote.BURST)
        one.now = began + 1000
        assert await one.reason(idp.token("k9")) == "unknown_key"
        assert len(one.rests) == 20 - remote.BURST


@pytest.mark.parametrize("strangers", [1, remote.BURST, 10])
async def test_strangers_do_not_keep_a_new_key_out(strangers: int) -> None:
    async with gate("k1") as (idp, one):
        for number in range(strangers):
            assert await one.reason(idp.token("k9", name=f"made-up-{number}")) == "unknown_key"
        idp.publish("k1", "k2")
        before = one.now
        assert await one.reason(idp.token("k2")) == "accepted"
        assert one.now - before <= remote.SPACING < remote.WAIT


async def test_more_than_may_wait_are_refused_at_once_and_known_keys_still_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(remote, "WAITERS", 5)
    async with gate("k1") as (idp, one):
        idp.gate.clear()
        idp.asked.clear()
        flood = [asyncio.create_task(one.reason(idp.token("k9", name=f"made-up-{n}"))) for n in range(5)]
        await idp.asked.wait()
        with pytest.raises(Unauthorized) as refused:
            one.at_once(idp.token("k9", name="another"))
        assert not isinstance(refused.value, KeysWanted)
        assert one.at_once(idp.token("k1")).tenant == f"{idp.url}|u"
        idp.gate.set()
        await asyncio.gather(*flood)
        with pytest.raises(KeysWanted):
            one.at_once(idp.token("k9", name="another"))


async def test_what_no_newer_set_could_verify_asks_nobody() -> None:
    async with gate("k1") as (idp, one):
        head, body, signature = idp.token("k1").split(".")
        stranger = jwt.encode({"iss": "https://nobody", "aud": "sluice", "sub": "u", "exp": 9e9}, "x" * 32)
        hmac = jwt.encode(
            {"iss": idp.url, "aud": "sluice", "sub": "u", "exp": 9e9}, "x" * 32, headers={"kid": "k9"}
        )
        for token in (
            f"{head}.{body}.{signature[:-4]}AAAA",
            f"{head}.{body}.",
            stranger,
            hmac,
            "a.b.c",
            idp.token("k1", exp=1),
        ):
            with pytest.raises(Unauthorized) as refused:
                one.at_once(token)
            assert not isinstance(refused.value, KeysWanted)
        assert idp.fetches == 1


# rotation


async def test_a_new_key_works_with_its_first_token() -> None:
    async with gate("k1") as (idp, one):
        idp.publish("k1", "k2")
        assert (await one.principal(idp.token("k2"))).tenant == f"{idp.url}|u"
        assert one.at_once(idp.token("k1")).tenant == f"{idp.url}|u"
        assert idp.fetches == 2


async def test_a_key_that_is_not_listed_any_more_is_gone_and_so_are_its_verified_tokens() -> None:
    async with gate("k1", "k2") as (idp, one):
        old, new = idp.token("k1"), idp.token("k2")
        remembered = one.at_once(new)
        one.at_once(old)
        idp.publish("k2", "k3")
        one.at_once(old)  # until the next fetch
        await one.alarm.ring()
        assert one.at_once(new) is remembered
        assert await one.reason(old) == "unknown_key"
        assert [token for token in (old, new) if await one.reason(token) == "accepted"] == [new]


async def test_another_key_under_the_same_name_is_another_key() -> None:
    async with gate("k1") as (idp, one):
        old = idp.token("k1")
        one.at_once(old)
        idp.keys = [public("k2") | {"kid": "k1"}]
        await one.alarm.ring()
        assert await one.reason(old) == "bad_signature"
        assert await one.reason(idp.token("k2", name="k1")) == "accepted"


async def test_an_empty_set_takes_all_keys_back() -> None:
    async with gate("k1") as (idp, one):
        old = idp.token("k1")
        one.at_once(old)
        idp.publish()
        await one.alarm.ring()
        assert await one.reason(old) == "unknown_key"
        assert one.outcomes[:2] == ["ok", "ok"]


# when it is fetched


LIVES = [
    ("", 300), ("public", 300), ("max-age=600", 600), ("public, max-age=600, must-revalidate", 600), ("Max-Age=600", 600),
    ('max-age="600"', 600), ("max-age=0", 60), ("max-age=59", 60), ("max-age=999999999", 3600), ("max-age=-5", 300),
    ("max-age=x", 300), ("s-maxage=900", 300), ("no-store", 300), ("private,max-age=120", 120), ("max-age=" + "9" * 400, 3600),
]  # fmt: skip


@pytest.mark.parametrize(("cache_control", "life"), LIVES, ids=[text[:40] or "none" for text, _ in LIVES])
def test_a_set_lives_as_long_as_its_server_says_within_bounds(cache_control: str, life: float) -> None:
    assert life_of(cache_control) == life


async def test_a_set_is_fetched_ahead_of_its_end_and_later_after_failures() -> None:
    async with provider() as idp:
        idp.publish("k1")
        idp.headers = {"Cache-Control": "max-age=1000"}
        one = Gate(idp)
        one.keys._chance = lambda: 0.5
        one.keys.start()
        await one.alarm.asleep()
        idp.headers = {}
        await one.alarm.ring()
        idp.answer = status(503)
        for _ in range(9):
            await one.alarm.ring()
        idp.answer = None
        await one.alarm.ring()
        await one.keys.close()
        assert one.alarm.pauses == [900, 270, 0.75, 1.5, 3, 6, 12, 24, 45, 45, 45, 270]


async def test_keys_are_used_on_for_a_day_while_their_address_cannot_be_had() -> None:
    async with gate("k1") as (idp, one):
        idp.answer = status(500)
        one.now += STALE
        await one.alarm.ring()
        assert one.at_once(idp.token("k1", sub="late")).tenant == f"{idp.url}|late"
        one.now += 1
        await one.alarm.ring()
        assert await one.reason(idp.token("k1", sub="late")) == "unavailable"
        idp.answer = None
        await one.alarm.ring()
        assert await one.reason(idp.token("k1", sub="late")) == "accepted"


async def test_closing_ends_a_fetch_under_way() -> None:
    async with gate("k1", started=False) as (idp, one):
        idp.gate.clear()
        one.keys.start()
        await idp.asked.wait()
        await one.keys.close()
        assert [task for task in asyncio.all_tasks() if "RemoteKeys" in repr(task)] == []


# what is believed


def status(code: int, **headers: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(status=code, headers=headers)

    return answer


def body(data: bytes, **headers: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(body=data, headers=headers)

    return answer


async def cut(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"keys":')
    assert request.transport is not None
    request.transport.close()
    return response


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while request.transport is not None and not request.transport.is_closing():
        await response.write(b" " * 65536)
    return response


SET = b'{"keys": []}'
REFUSED: list[tuple[str, Callable[[web.Request], Awaitable[web.StreamResponse]], str]] = [
    ("a redirect", status(302, Location="/.well-known/openid-configuration"), "bad_status"),
    ("a permanent redirect", status(308, Location="/jwks.json"), "bad_status"),
    ("not found", status(404), "bad_status"),
    ("an empty success", status(204), "bad_status"),
    ("a server error", status(500), "bad_status"),
    ("nothing", body(b""), "invalid"),
    ("a page", body(b"<html>"), "invalid"),
    ("no set", body(b'{"key": []}'), "invalid"),
    ("a list", body(b"[]"), "invalid"),
    ("nested without end", body(b'{"keys": [], "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "invalid"),
    ("compressed", body(gzip.compress(SET), **{"Content-Encoding": "gzip"}), "invalid"),
    ("said to be compressed", body(b"x", **{"Content-Encoding": "gzip"}), "invalid"),
    ("too large", body(SET + b" " * (1 << 20)), "too_large"),
    ("endless", endless, "too_large"),
    ("cut", cut, "unreachable"),
]


@pytest.mark.parametrize(("answer", "outcome"), [pytest.param(a, o, id=i) for i, a, o in REFUSED])
async def test_refuses_an_answer_that_is_no_key_set_and_keeps_the_last_one(answer: Any, outcome: str) -> None:
    async with gate("k1") as (idp, one):
        idp.answer = answer
        await one.alarm.ring()
        assert one.outcomes == ["ok", outcome]
        assert outcome in OUTCOMES
        assert one.at_once(idp.token("k1")).tenant == f"{idp.url}|u"
        assert (idp.fetches, idp.discoveries) == (2, 0)


async def test_the_largest_set_is_read() -> None:
    async with provider() as idp:
        idp.answer = body(SET + b" " * ((1 << 20) - len(SET)))
        assert (await fetch(idp.issuer())).keys == ()


@pytest.mark.parametrize("deadline", ["READ", "DEADLINE"])
async def test_a_slow_server_is_given_up(monkeypatch: pytest.MonkeyPatch, deadline: str) -> None:
    monkeypatch.setattr(remote, deadline, 0.05)
    async with provider() as idp:
        idp.gate.clear()
        assert await outcome_of(idp) == "timeout"


async def test_a_server_that_is_not_there_is_unreachable() -> None:
    async with provider() as idp:
        pass
    assert await outcome_of(idp) == "unreachable"


async def test_a_certificate_that_nobody_vouches_for_is_not_believed() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    async with provider(context) as idp:
        idp.publish("k1")
        assert idp.url.startswith("https://")
        assert await outcome_of(idp) == "unreachable"
        assert idp.fetches == 0


async def outcome_of(idp: Provider, **options: Any) -> str:
    with pytest.raises(FetchFailed) as failed:
        await fetch(idp.issuer(**options))
    return failed.value.outcome


async def test_neither_proxies_nor_cookies_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with gate("k1") as (idp, one):
        idp.headers = {"Set-Cookie": "a=b; Path=/"}
        await one.alarm.ring()
        await one.alarm.ring()
        assert one.outcomes == ["ok"] * 3
        assert [
            name
            for request in idp.requests
            for name in request.headers
            if name in ("Cookie", "Authorization")
        ] == []


async def test_a_set_gives_only_keys_that_may_verify_the_issuers_algorithms() -> None:
    async with provider() as idp:
        secret = {"kty": "oct", "k": "A" * 64, "kid": "k1"}
        idp.keys = [
            secret, public("k2", use="enc"), public("k3", key_ops=["sign"]), public("k4", alg="ES384"), public("k5", use=7),
            {"kty": "XYZ"}, public("k6", use="sig", key_ops=["verify"], alg="ES256", x5u="http://127.0.0.1:1/"),
        ]  # fmt: skip
        assert [key.kid for key in (await fetch(idp.issuer())).keys] == ["k6"]


@pytest.mark.parametrize("algorithm", ["HS256", "HS512", "none", "RS1"])
async def test_an_algorithm_that_is_none_for_public_keys_is_refused_at_start(algorithm: str) -> None:
    async with provider() as idp:
        for options in ({}, {"discovery": True}):
            config = Config(
                upstreams={}, aliases={}, jwt=(idp.issuer(algorithms=("ES256", algorithm), **options),)
            )
            with pytest.raises(
                ConfigError, match="needs a secret" if algorithm.startswith("HS") else "unknown algorithm"
            ):
                Authenticator(config)


# discovery


async def test_the_set_is_found_by_discovery() -> None:
    async with gate("k1", discovery=True) as (idp, one):
        assert one.at_once(idp.token("k1")).tenant == f"{idp.url}|u"
        assert (idp.fetches, idp.discoveries) == (1, 1)
        assert "Cookie" not in idp.requests[0].headers


@pytest.mark.parametrize("name", ["/realms/one", "/realms/one/"])
async def test_an_issuer_with_a_path_is_asked_below_it(name: str) -> None:
    async with provider() as idp:
        idp.publish("k1")
        issuer = idp.url + name
        idp.metadata = {"issuer": issuer}
        assert len((await fetch(idp.issuer(issuer=issuer, discovery=True))).keys) == 1


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("another issuer", {"issuer": "https://login.example.com"}, "wrong_issuer"),
    ("a slash more", {"issuer": "SELF/"}, "wrong_issuer"),
    ("no issuer", {"issuer": None}, "invalid"),
    ("no address", {"jwks_uri": None}, "invalid"),
    ("an address that is none", {"jwks_uri": "jwks.json"}, "invalid"),
    ("a file", {"jwks_uri": "file:///etc/passwd"}, "invalid"),
    ("plain http elsewhere", {"jwks_uri": "http://login.example.com/jwks.json"}, "invalid"),
    ("a user", {"jwks_uri": "http://a:b@127.0.0.1/jwks.json"}, "invalid"),
]


@pytest.mark.parametrize(("metadata", "outcome"), [pytest.param(m, o, id=i) for i, m, o in WRONG])
async def test_refuses_metadata_that_is_not_the_issuers_own(metadata: dict[str, Any], outcome: str) -> None:
    async with provider() as idp:
        idp.metadata = {
            name: value.replace("SELF", idp.url) if value else value for name, value in metadata.items()
        }
        assert await outcome_of(idp, discovery=True) == outcome
        assert idp.fetches == 0


# what is imported


def test_a_gateway_without_such_issuers_does_not_import_the_client() -> None:
    program = (
        "import sys, sluice.runtime.snapshot; sys.exit('aiohttp' in sys.modules or 'jwt' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[2], check=False, timeout=60
    )
    assert done.returncode == 0

"""Limits by more than the key, over HTTP and with every store: single aliases of a key, teams above
tenants."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sluice.identity.keys import digest_of
from tests.e2e.gateways import Running, gateway
from tests.fakes.dialects import INPUT, TOKENS
from tests.fakes.faulty import Behaviour, Provider, Turn, cut, healthy, refusing, stall
from tests.servers import RedisServer, redis_server

ONE, TWO, OTHER, ADMIN = "sk-sluice-one", "sk-sluice-two", "sk-sluice-other", "sk-sluice-admin"
PRICE = 1000.0
"""US dollars for a million tokens: a tenth of a cent for each."""


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture(params=["memory", "shared", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis")
        return f"{server.url}&timeout=10"
    return "memory" if request.param == "memory" else f"shared:{tmp_path}/limits"


class Lab:
    """A gateway, its provider, and callers."""

    def __init__(self, g: Running, provider: Provider, client: aiohttp.ClientSession) -> None:
        self.g = g
        self.provider = provider
        self.client = client

    async def ask(
        self, key: str = ONE, model: str = "chat", headers: Any = None, **fields: Any
    ) -> tuple[int, Any, Any]:
        """Status, headers and body of an answer."""
        body = {
            "model": model,
            "messages": [{"role": "user", "content": "12345678"}],
            "max_tokens": 10,
            **fields,
        }
        url = f"{self.g.url}/v1/chat/completions"
        async with self.client.post(
            url, json=body, headers={"x-api-key": key, **(headers or {})}
        ) as response:
            return response.status, response.headers, await response.json(content_type=None)

    async def budget(self, scope: str, owner: str) -> dict[str, Any]:
        """The only budget of this owner, when nothing of it is reserved any more."""
        url, headers = f"{self.g.admin_url}/admin/budgets", {"x-admin-api-key": ADMIN}
        while True:
            async with self.client.get(
                url, params={"scope": scope, "owner": owner}, headers=headers
            ) as response:
                assert response.status == 200, await response.text()
                [found] = (await response.json())["budgets"]
            if not found["reserved_usd"]:
                return dict(found)
            await asyncio.sleep(0)


@asynccontextmanager
async def serving(
    store: str = "memory",
    behaviour: Behaviour = healthy,
    *,
    one: str = "{}",
    limits: str = "",
    more: str = "",
    alias: str = "",
) -> AsyncIterator[Lab]:
    """Keys `one` and `two` of the tenants acme and beta, whose team is web, below company; `other` has no
    team."""
    async with Provider(behaviour) as provider:
        config = f"""
server: {{listen: "127.0.0.1:0", admin_listen: "127.0.0.1:0", drain_delay: 0}}
limits: {{address: null, store: "{store}", prefix: "p{os.urandom(6).hex()}", output_tokens: 20{limits}}}
admin: {{digest: "{digest_of(ADMIN)}"}}
keys:
  - {{id: one, digest: "{digest_of(ONE)}", tenant: acme, limits: {one}}}
  - {{id: two, digest: "{digest_of(TWO)}", tenant: beta}}
  - {{id: other, digest: "{digest_of(OTHER)}"}}
upstreams:
  fake: {{backend: openai, base_url: "{provider.url}"}}
  spare: {{backend: openai, base_url: "{provider.url}"}}
aliases:
  chat: {{tiers: [[{{upstream: fake, model: m}}], [{{upstream: spare, model: n}}]], retry: {{same_target: 0}}{alias}}}
  "any/*": {{tiers: [[{{upstream: fake, model: "*"}}]]}}
prices: {{models: {{m: {{input: {PRICE}, output: {PRICE}}}, n: {{input: {PRICE}, output: {PRICE}}}}}}}
{more}"""
        async with gateway(config) as g, aiohttp.ClientSession() as client:
            yield Lab(g, provider, client)


TEAMS = """
tenants: {{acme: {{team: web}}, beta: {{team: web}}}}
teams: {{web: {{limits: {web}, parent: company}}, company: {{limits: {company}}}}}
"""


async def test_a_key_is_limited_per_alias_and_per_name_of_a_wildcard(store: str) -> None:
    one = '{aliases: {chat: {requests: {rate: 2/h}}, "any/a*": {requests: {rate: 1/h}}}}'
    async with serving(store, one=one) as it:
        for remaining in ("1", "0"):
            status, headers, _ = await it.ask()
            assert (status, headers["x-ratelimit-remaining-requests"]) == (200, remaining)
        status, headers, body = await it.ask()
        assert status == 429
        assert "per key and alias" in body["error"]["message"]
        assert 1700 < int(headers["Retry-After"]) <= 1800
        assert [(await it.ask(model=model))[0] for model in ("any/ab", "any/ac", "any/b", "any/b")] == [
            200,
            429,
            200,
            200,
        ]
        assert (await it.ask(TWO))[0] == 200
        assert (
            it.g.metric(
                'sluice_ratelimit_decisions_total{decision="refused",resource="requests",scope="key_alias"}'
            )
            == 2
        )


async def test_calls_of_all_tenants_together_never_exceed_their_team(store: str) -> None:
    more = TEAMS.format(web="{requests: {rate: 11/day}}", company="{}")
    async with serving(store, more=more) as it:
        answers = await asyncio.gather(*(it.ask(key) for key in (ONE, TWO) * 15))
        assert sorted(status for status, _, _ in answers) == [200] * 11 + [429] * 19
        refused = next(body for status, _, body in answers if status == 429)
        assert "per team" in refused["error"]["message"]
        assert (await it.ask(OTHER))[0] == 200


async def test_each_level_of_budgets_holds_and_a_spent_parent_refuses_every_tenant(store: str) -> None:
    more = TEAMS.format(web="{budget: {month: 10}}", company="{budget: {month: 0.1}}")
    async with serving(store, more=more) as it:
        spent = (INPUT + len(TOKENS)) * PRICE / 1e6
        assert (await it.ask())[0] == 200
        for owner in ("web", "company"):
            assert (await it.budget("team", owner))["spent_usd"] == pytest.approx(spent)
        while (await it.ask(TWO))[0] == 200:
            pass
        status, headers, body = await it.ask(TWO)
        assert (status, headers["x-should-retry"]) == (429, "false")
        assert "budget reached per team" in body["error"]["message"]
        assert (await it.ask(ONE))[0] == 429
        assert (await it.ask(OTHER))[0] == 200


async def test_what_failed_over_is_settled_once_at_every_level(store: str) -> None:
    def flaky(turn: Turn) -> Any:
        return (refusing("overloaded") if turn.model == "m" else healthy)(turn)

    more = TEAMS.format(web="{budget: {month: 10}, streams: 1}", company="{}")
    one = "{aliases: {chat: {budget: {day: 5}, streams: 1, tokens: {rate: 1/day, burst: 1000}}}}"
    async with serving(store, flaky, one=one, more=more) as it:
        spent = (INPUT + len(TOKENS)) * PRICE / 1e6
        for number in (1, 2):  # the second finds the places of the first
            status, headers, _ = await it.ask()
            assert status == 200, await it.budget("team", "web")
            assert headers["x-sluice-attempts"] == "2"
            for scope, owner in (("team", "web"), ("key_alias", "one|chat")):
                assert (await it.budget(scope, owner))["spent_usd"] == pytest.approx(number * spent)


async def test_a_shadow_costs_its_callers_nothing(store: str) -> None:
    more = TEAMS.format(web="{budget: {month: 10}}", company="{}")
    shadow = ", shadow: {upstream: spare, model: shadowed, share: 1}"
    async with serving(store, one="{aliases: {chat: {budget: {day: 5}}}}", more=more, alias=shadow) as it:
        assert (await it.ask())[0] == 200
        await it.g.runtime.pipeline.shadows.idle()
        assert {turn.model for turn in it.provider.turns} == {"m", "shadowed"}
        spent = (INPUT + len(TOKENS)) * PRICE / 1e6
        for scope, owner in (("team", "web"), ("key_alias", "one|chat")):
            assert (await it.budget(scope, owner))["spent_usd"] == pytest.approx(spent)


async def test_places_come_back_whatever_becomes_of_a_call(store: str) -> None:
    more = TEAMS.format(web="{streams: 1}", company="{streams: 1}")
    async with serving(store, cut(3), one="{aliases: {chat: {streams: 1}}}", more=more) as it:
        body = {"model": "chat", "messages": [{"role": "user", "content": "12345678"}], "stream": True}
        url, headers = f"{it.g.url}/v1/chat/completions", {"x-api-key": ONE}
        for _ in range(3):  # cut in the middle, and left by its client
            async with it.client.post(url, json=body, headers=headers) as response:
                assert response.status == 200
                await response.content.readline()
                response.close()
            while it.g.runtime.pipeline.runs or it.g.state.settlements.settling:
                await asyncio.sleep(0)
        async with it.client.post(url, json=body, headers=headers) as response:
            assert response.status == 200
            await response.read()


class Left:
    """What a key has left, by scope and resource."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self.answer = answer

    def __getitem__(self, place: tuple[str, str]) -> Any:
        [found] = [one for one in self.answer["data"] if (one["scope"], one["resource"]) == place]
        return found


async def left(it: Lab, key: str = ONE, model: str = "", status: int = 200) -> Left:
    url, query = f"{it.g.url}/v1/limits", {"model": model} if model else {}
    async with it.client.get(url, params=query, headers={"x-api-key": key}) as response:
        assert response.status == status, await response.text()
        assert status != 200 or response.headers["Cache-Control"] == "no-store"
        return Left(await response.json())


async def test_a_key_may_ask_what_it_has_left_and_asking_takes_nothing(store: str) -> None:
    more = TEAMS.format(web="{budget: {month: 10}}", company="{tokens: {rate: 100/day, burst: 5000}}")
    aliases = "{chat: {budget: {day: 5}}, any/a: {requests: {rate: 1/h}}}"
    one = f"{{requests: [{{rate: 3/h}}, {{rate: 500/day}}], streams: 4, aliases: {aliases}}}"
    async with serving(store, one=one, more=more) as it:
        assert (await it.ask())[0] == 200
        await it.budget("team", "web")
        used = INPUT + len(TOKENS)
        for _ in range(3):
            found = await left(it, model="chat")
            assert (found.answer["key"], found.answer["tenant"]) == ("one", "acme")
            assert [(one["scope"], one["resource"]) for one in found.answer["data"]] == [
                ("key_alias", "budget"), ("key", "requests"), ("key", "requests"), ("key", "streams"),
                ("team", "budget"), ("team", "tokens"),
            ]  # fmt: skip
            assert found["key", "streams"] == {
                "scope": "key", "owner": "one", "resource": "streams", "limit": 4, "remaining": 4,
            }  # fmt: skip
            [hour, day] = [one for one in found.answer["data"] if one["resource"] == "requests"]
            assert (hour["rate"], hour["limit"], int(hour["remaining"]), day["limit"]) == ("3/h", 3, 2, 500)
            assert 0 < hour["reset_seconds"] <= 1200
            assert found["key_alias", "budget"]["alias"] == "chat"
            assert found["key_alias", "budget"]["remaining"] == pytest.approx(5 - used * PRICE / 1e6)
            assert found["team", "budget"]["remaining"] == pytest.approx(10 - used * PRICE / 1e6)
            assert found["team", "tokens"]["owner"] == "company"
            assert 5000 - used <= found["team", "tokens"]["remaining"] < 5000 - used + 1
        every = await left(it)
        assert [one["alias"] for one in every.answer["data"] if one["scope"] == "key_alias"] == [
            "chat",
            "any/a",
        ]
        assert (await left(it, model="any/b")).answer["data"][0]["scope"] == "key"
        assert (await left(it, OTHER)).answer["data"] == []
        await left(it, model="nothing", status=404)
        await left(it, "sk-sluice-stranger", status=401)


async def test_places_in_use_are_told(store: str) -> None:
    def held(turn: Turn) -> Any:
        return stall(2)(turn)

    async with serving(store, held, one="{streams: 2}") as it:
        body = {"model": "chat", "messages": [{"role": "user", "content": "12345678"}], "stream": True}
        async with it.client.post(
            f"{it.g.url}/v1/chat/completions", json=body, headers={"x-api-key": ONE}
        ) as response:
            await response.content.readline()
            assert (await left(it))["key", "streams"]["remaining"] == 1
            response.close()
        while (await left(it))["key", "streams"]["remaining"] != 2:
            pass


async def test_answers_say_what_is_left_of_the_narrowest_budget_if_wanted(store: str) -> None:
    more = TEAMS.format(web="{budget: {month: 10}}", company="{}")
    one = "{aliases: {chat: {budget: {day: 5, week: 6}}}}"
    async with serving(store, one=one, limits=", budget_header: true", more=more) as it:
        _, headers, _ = await it.ask(max_tokens=98)  # its prompt is of 2, so a tenth of a dollar is reserved
        assert headers["x-sluice-budget-remaining"] == "day 4.9, week 5.9"
        _, headers, _ = await it.ask(TWO, max_tokens=98)
        assert headers["x-sluice-budget-remaining"].startswith("month 9.")
        assert "x-sluice-budget-remaining" not in (await it.ask(OTHER))[1]
    async with serving(store, one=one) as it:
        assert "x-sluice-budget-remaining" not in (await it.ask())[1]


# end users

SECRET = "a secret of thirty-two bytes or more"


async def test_end_users_have_limits_of_their_own_in_every_dialect(store: str) -> None:
    limits = ", end_users: {requests: {rate: 2/h}}"
    async with serving(store, limits=limits) as it:
        assert [(await it.ask(user=user))[0] for user in ("ann", "ann", "bob", "ann")] == [200, 200, 200, 429]
        status, headers, body = await it.ask(user="ann")
        assert status == 429
        assert "per end user" in body["error"]["message"]
        assert headers["x-ratelimit-limit-requests"] == "2"
        said = {"model": "chat", "max_tokens": 9, "messages": [{"role": "user", "content": "12345678"}]}
        for user, expected in (("bob", 200), ("bob", 429)):
            anthropic = {**said, "metadata": {"user_id": user}}
            async with it.client.post(
                f"{it.g.url}/v1/messages", json=anthropic, headers={"x-api-key": ONE}
            ) as response:
                assert response.status == expected
        async with it.client.post(
            f"{it.g.url}/v1/responses",
            json={"model": "chat", "input": "hi", "safety_identifier": "ann"},
            headers={"x-api-key": ONE},
        ) as response:
            assert response.status == 429
        assert (await it.ask(TWO, user="ann"))[0] == 200  # another tenant's ann
        assert [(await it.ask())[0] for _ in range(3)] == [200] * 3  # nobody is named
        text = f"{it.g.log_lines}{it.g.runtime.exposition().decode()}"
        assert "ann" not in text.replace("channel", "")


async def test_an_end_users_budget_is_told_and_corrected_by_its_name(store: str) -> None:
    limits = ', end_users: {source: ["header:X-User-Id"], budget: {day: 0.2}, streams: 1, missing: refuse}'
    async with serving(store, limits=limits) as it:
        status, _, body = await it.ask()
        assert status == 400
        assert "header:X-User-Id" in body["error"]["message"]
        while (await it.ask(headers={"x-user-id": "ann|b"}))[0] == 200:
            pass
        assert (await it.ask(headers={"x-user-id": "bob"}))[0] == 200
        url, admin = f"{it.g.admin_url}/admin/budgets", {"x-admin-api-key": ADMIN}
        named = {"scope": "end_user", "owner": "acme", "user": "ann|b"}
        async with it.client.get(url, params=named, headers=admin) as response:
            [found] = (await response.json())["budgets"]
            assert (found["owner"], found["limit_usd"]) == ("acme", 0.2)
            assert found["spent_usd"] > 0.1
        async with it.client.patch(
            url, json={**named, "period": "day", "spent": 0}, headers=admin
        ) as response:
            assert response.status == 200, await response.text()
        assert (await it.ask(headers={"x-user-id": "ann|b"}))[0] == 200
        async with it.client.get(
            url, params={"scope": "end_user", "owner": "acme"}, headers=admin
        ) as response:
            assert response.status == 400


async def test_what_an_end_user_has_left_is_told(store: str) -> None:
    async with serving(
        store, limits=', end_users: {source: [body, "header:x-user"], requests: {rate: 2/h}}'
    ) as it:
        assert (await it.ask(user="ann"))[0] == 200
        url, key = f"{it.g.url}/v1/limits", {"x-api-key": ONE}
        for query, headers, remaining in (
            ({"user": "ann"}, {}, 1),
            ({}, {"x-user": "ann"}, 1),
            ({"user": "bob"}, {}, 2),
        ):
            async with it.client.get(url, params=query, headers={**key, **headers}) as response:
                [found] = (await response.json())["data"]
                assert (found["scope"], found["owner"], found["resource"]) == ("end_user", "acme", "requests")
                assert int(found["remaining"]) == remaining
        async with it.client.get(url, headers=key) as response:
            assert (await response.json())["data"] == []
        async with it.client.get(url, params={"user": "x" * 2000}, headers=key) as response:
            assert response.status == 404
        named = {"scope": "end_user", "owner": "acme", "user": "x" * 2000}
        url, admin = f"{it.g.admin_url}/admin/budgets", {"x-admin-api-key": ADMIN}
        async with it.client.get(url, params=named, headers=admin) as response:
            assert response.status == 400


async def test_the_subject_of_a_token_is_its_end_user() -> None:
    import jwt

    more = f"""
jwt:
  - {{issuer: "https://idp", audience: sluice, algorithms: [HS256], secret: "{SECRET}", claims: {{tenant: org, user: email}}}}
"""

    def token(email: str) -> str:
        claims = {"iss": "https://idp", "aud": "sluice", "exp": 2**33, "org": "acme", "email": email}
        return jwt.encode(claims, SECRET, "HS256")

    async with serving(limits=", end_users: {source: [token], requests: {rate: 1/h}}", more=more) as it:
        said = {"model": "chat", "max_tokens": 9, "messages": [{"role": "user", "content": "12345678"}]}
        found = []
        for email, user in (("a@x", "1"), ("a@x", "2"), ("b@x", "1")):
            bearer = {"Authorization": f"Bearer {token(email)}"}
            async with it.client.post(
                f"{it.g.url}/v1/chat/completions", json={**said, "user": user}, headers=bearer
            ) as response:
                found.append(response.status)
        assert found == [200, 429, 200]
        for query, status in (({}, 200), ({"user": "b@x"}, 200), ({"user": "a@x"}, 403)):
            bearer = {"Authorization": f"Bearer {token('b@x')}"}
            async with it.client.get(f"{it.g.url}/v1/limits", params=query, headers=bearer) as response:
                assert response.status == status
                if status == 200:
                    [left] = (await response.json())["data"]
                    assert (left["scope"], int(left["remaining"])) == ("end_user", 0)


async def test_names_that_change_with_each_call_share_the_limits_of_one(store: str) -> None:
    async with serving(store, limits=", end_users: {requests: {rate: 3/h}, most: 2}") as it:
        assert [(await it.ask(user=f"u{number}"))[0] for number in range(7)] == [200] * 5 + [429] * 2
        assert (await it.ask(user="u0"))[0] == 200
        assert it.g.metric("sluice_end_users_folded_total") == 5


async def test_keys_of_the_admin_api_have_limits_of_single_aliases_too() -> None:
    async with serving(more=TEAMS.format(web="{}", company="{}")) as it:
        url, admin = f"{it.g.url}/admin/keys", {"x-admin-api-key": ADMIN}

        async def make(alias: str) -> tuple[int, Any]:
            limits = {"aliases": {alias: {"requests": {"rate": "1/h"}, "budget": {"day": 3}}}}
            body = {"id": "made", "tenant": "acme", "limits": limits}
            async with it.client.post(url, json=body, headers=admin) as response:
                return response.status, await response.json()

        status, answer = await make("chatt")
        assert status == 400
        assert 'unknown alias "chatt"' in str(answer)
        status, answer = await make("chat")
        assert status == 201, answer
        assert [(await it.ask(answer["key"]))[0] for _ in range(2)] == [200, 429]
        assert (await it.budget("key_alias", "made|chat"))["limit_usd"] == 3
        assert (await left(it, answer["key"]))["key_alias", "requests"]["remaining"] == 0

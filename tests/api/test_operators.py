"""What operators' pages and commands ask of the admin API: overview, aliases, explanations, calls,
configuration."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from sluice.config.loader import load_mapping
from sluice.config.shown import MASK, shown
from sluice.conversations import Turn
from tests.api.serving import CONFIG, KEY, FakeRequest, Served, served

WITH_UI = CONFIG.replace("admin: {digest: ", "admin: {ui: true, digest: ")
ADMIN = {"x-admin-api-key": KEY}
ASKED = {"messages": [{"role": "user", "content": "a secret prompt"}], "model": "chat"}


@asynccontextmanager
async def operated() -> AsyncIterator[Served]:
    async with served(WITH_UI) as there:
        yield there


async def ask(there: Served, method: str, path: str, body: object = None, **headers: str) -> FakeRequest:
    sent = ADMIN | {name.replace("_", "-"): value for name, value in headers.items()}
    request = FakeRequest(method, path, body, headers=sent, key="")
    await there.operators(request)
    return request


@pytest.mark.parametrize("path", ["overview", "aliases", "tenants", "calls", "config"])
async def test_each_asks_for_the_admin_key(path: str) -> None:
    async with operated() as there:
        for answer in (there.clients, there.operators):
            request = FakeRequest("GET", f"/admin/{path}", key=KEY)
            await answer(request)
            assert request.status == 401
        assert (await ask(there, "GET", f"/admin/{path}")).status == 200


async def test_the_overview_counts_what_was_answered() -> None:
    async with operated() as there:
        await there.ask("POST", "/v1/chat/completions", ASKED)
        await there.ask("POST", "/v1/chat/completions", {})
        found = (await ask(there, "GET", "/admin/overview")).json
        assert found["requests"]["2xx"] == 1
        assert found["requests"]["4xx"] == 1
        assert found["in_flight"] == 0
        assert found["targets"] == {"closed": 1, "half_open": 0, "open": 0}


async def test_aliases_say_how_their_targets_do() -> None:
    async with operated() as there:
        found = (await ask(there, "GET", "/admin/aliases")).json
        [chat] = [alias for alias in found["aliases"] if alias["alias"] == "chat"]
        [[target]] = [tier["targets"] for tier in chat["tiers"]]
        assert (target["upstream"], target["state"], target["in_flight"]) == ("echo", "closed", 0)
        assert chat["resumable"]
        assert found["upstreams"][0]["backend"] == "echo"


async def test_aliases_say_how_many_of_their_calls_each_target_answered() -> None:
    async with operated() as there:
        for model in ("chat", "chat", "a/b", "nobody"):
            await there.ask("POST", "/v1/chat/completions", ASKED | {"model": model})
        found = (await ask(there, "GET", "/admin/aliases")).json["aliases"]
        assert {alias["alias"]: alias["tiers"][0]["targets"][0]["answered"] for alias in found} == {
            "chat": 2,
            "a/b": 1,
        }


async def test_conversations_are_found_by_their_words_however_many_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sluice.api.admin_conversations.PAGE", 20)
    monkeypatch.setattr("sluice.api.admin_conversations.MAX_SEARCHED", 100)
    async with operated() as there:
        store = there.runtime.conversations
        for number in range(250):
            turn = Turn("user", "Where is my Parcel?" if number % 100 == 7 else "hi", float(number))
            await store.append(
                "shop", f"visitor-{number}", await store.open("shop", f"visitor-{number}"), [turn]
            )
        for words, expected in (
            ("parcel", [207, 107, 7]),
            ("VISITOR-24", [24, *range(240, 250)]),
            ("none", []),
        ):
            found, after, rounds = [], "", 0
            while after is not None:
                page = (await ask(there, "GET", f"/v1/admin/conversations?search={words}&after={after}")).json
                found += [one["sessionId"] for one in page["conversations"]]
                after, rounds = page["next"], rounds + 1
            assert sorted(found) == sorted(f"visitor-{number}" for number in expected)
            assert rounds == 3
        assert page["total"] == 250
        newest = (await ask(there, "GET", "/v1/admin/conversations?limit=1")).json
        assert [*newest] == ["conversations", "total"]
        assert (await ask(there, "GET", "/v1/admin/conversations?search=x&limit=0")).status == 400


async def test_explain_says_where_a_call_would_go() -> None:
    async with operated() as there:
        any_call = await ask(there, "POST", "/admin/explain", {"alias": "chat"})
        assert any_call.json["lines"][0] == "chat: any request"
        image = {"messages": [{"role": "user", "content": "x" * 400}]}
        one = await ask(there, "POST", "/admin/explain", {"alias": "chat", "request": image})
        assert one.json["lines"][0].startswith("chat: a request of about")
        assert (await ask(there, "POST", "/admin/explain", {"alias": "none"})).status == 404
        for wrong in (
            {},
            {"alias": 1},
            {"alias": "chat", "request": 1},
            {"alias": "chat", "request": {"messages": 1}},
        ):
            assert (await ask(there, "POST", "/admin/explain", wrong)).status == 400


async def test_the_last_calls_are_remembered_without_their_content() -> None:
    async with operated() as there:
        for _ in range(3):
            await there.ask("POST", "/v1/chat/completions", ASKED)
        await there.ask("POST", "/v1/chat/completions", ASKED | {"model": "nobody"})
        found = await ask(there, "GET", "/admin/calls")
        assert b"secret" not in found.answer
        assert [call["number"] for call in found.json["calls"]] == [4, 3, 2, 1]
        assert found.json["calls"][1]["alias"] == "chat"
        assert found.json["calls"][0]["error"] == "model_not_found"
        page = (await ask(there, "GET", "/admin/calls?limit=2")).json
        rest = (await ask(there, "GET", f"/admin/calls?limit=2&before={page['next']}")).json
        assert [call["number"] for call in rest["calls"]] == [2, 1]
        assert len((await ask(there, "GET", "/admin/calls?error=*")).json["calls"]) == 1
        assert len((await ask(there, "GET", "/admin/calls?alias=chat&key=test")).json["calls"]) == 3
        for wrong in (
            "before=x",
            "before=-1",
            "before=1-",
            "before=%C2%B2-1",
            "before=" + "9" * 99,
            "limit=0",
        ):
            assert (await ask(there, "GET", f"/admin/calls?{wrong}")).status == 400


async def test_no_calls_are_remembered_without_the_pages() -> None:
    async with served() as there:
        await there.ask("POST", "/v1/chat/completions", ASKED)
        assert (await ask(there, "GET", "/admin/calls")).status == 404


async def test_the_running_configuration_is_shown_and_its_file_compared() -> None:
    async with operated() as there:
        found = (await ask(there, "GET", "/admin/config")).json
        assert yaml.safe_load(found["text"])["aliases"]["chat"]["resumable"] is True
        assert not (await ask(there, "POST", "/admin/config/check")).json[
            "ok"
        ]  # it was there only to be read
        file = Path(there.runtime.path)
        file.parent.mkdir()
        file.write_text(WITH_UI)
        checked = (await ask(there, "POST", "/admin/config/check")).json
        assert checked["ok"]
        assert not checked["changed"]
        assert checked["diff"] == []
        file.write_text(WITH_UI.replace("resumable: true", "timeout: 9s") + "state: sqlite:x.db\n")
        checked = (await ask(there, "POST", "/admin/config/check")).json
        assert checked["changed"]
        assert any(line.startswith("+") and "timeout: 9s" in line for line in checked["diff"])
        assert checked["needs_restart"] == ["state"]
        file.unlink()
        file.parent.rmdir()


async def test_a_text_is_checked_without_reading_anything() -> None:
    async with operated() as there:
        wrong = (
            await ask(
                there,
                "POST",
                "/admin/config/check",
                {"text": "upstreams: {a: {backend: nobody}}\naliases: {}"},
            )
        ).json
        assert not wrong["ok"]
        assert any("nobody" in problem for problem in wrong["problems"])
        reading = CONFIG.replace(
            "aliases:\n  chat: {", "aliases:\n  chat: {system: '${file:/etc/hostname} ${HOME}', "
        )
        fine = await ask(there, "POST", "/admin/config/check", {"text": reading})
        assert fine.json["ok"]
        assert "diff" not in fine.json
        broken = (await ask(there, "POST", "/admin/config/check", {"text": "a: [\x00"})).json
        assert not broken["ok"]


def test_secrets_are_never_shown() -> None:
    secrets = {
        "api": "sk-live-0123456789",
        "proxy": "http://me:pass4321@proxy:3128",
        "header": "Bearer tok-987654",
    }
    config = load_mapping(
        {
            "upstreams": {
                "token": {
                    "backend": "openai",
                    "base_url": "https://api.example.com/v1",
                    "api_key": secrets["api"],
                    "proxy": secrets["proxy"],
                    "headers": {"x-org": secrets["header"]},
                }
            },
            "aliases": {
                "key": {
                    "tiers": [[{"upstream": "token", "model": "m"}]],
                    "limits": {"requests": {"rate": "10/min"}},
                }
            },
            "limits": {"store": "redis://user:pass4321@redis/0"},
            "tokens": {"secret": "s" * 40},
            "admin": {"pepper": "pepper-0123456789"},
        }
    ).config
    found: dict[str, Any] = shown(config)
    text = yaml.safe_dump(found)
    for secret in ("sk-live", "pass4321", "tok-987654", "ssss", "pepper-0"):
        assert secret not in text
    upstream = found["upstreams"]["token"]
    assert upstream["api_key"] == upstream["proxy"] == upstream["headers"]["x-org"] == MASK
    assert upstream["base_url"] == "https://api.example.com/v1"
    assert found["aliases"]["key"]["limits"]["requests"]["rate"] == "10/min"


async def test_the_playground_calls_in_the_name_of_a_key() -> None:
    async with operated() as there:
        played = await ask(there, "POST", "/ui/play/v1/chat/completions", ASKED, x_sluice_key="test")
        assert played.status == 200
        assert "a secret prompt" in played.json["choices"][0]["message"]["content"]
        [call] = (await ask(there, "GET", "/admin/calls")).json["calls"]
        assert (call["key"], call["route"]) == ("test", "/v1/chat/completions")
        assert (
            await ask(there, "POST", "/ui/play/v1/chat/completions", ASKED, x_sluice_key="nobody")
        ).status == 403
        assert (await ask(there, "POST", "/ui/play/v1/chat/completions", ASKED)).status == 400
        assert (await ask(there, "POST", "/ui/play/v1/nothing", ASKED, x_sluice_key="test")).status == 404
        stranger = FakeRequest(
            "POST", "/ui/play/v1/chat/completions", ASKED, headers={"x-sluice-key": "test"}, key=KEY
        )
        await there.operators(stranger)
        assert stranger.status == 401

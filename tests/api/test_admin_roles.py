"""Roles of the admin API: which route needs which, and what a viewer is refused."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from sluice.api.admin_export import AdminExport
from sluice.api.admin_keys import AdminKeys
from sluice.api.admin_roles import NEEDED
from sluice.config.loader import load_mapping
from sluice.errors import ConfigError
from sluice.identity.keys import digest_of
from tests.api.serving import CONFIG, FakeRequest, Served, served
from tests.ui.test_pages import Browser

VIEWER, SECOND = "sk-sluice-viewer", "sk-sluice-second"
KEYS = (
    f'keys: [{{id: looks, digest: "{digest_of(VIEWER)}", role: viewer}}, '
    f'{{id: second, digest: "{digest_of(SECOND)}", role: operator}}]'
)
WITH_KEYS = CONFIG.replace("admin: {digest: ", f"admin: {{ui: true, edit: true, {KEYS}, digest: ")


async def ask(there: Served, name: str, key: str = VIEWER, body: object = None) -> FakeRequest:
    method, _, path = name.partition(" ")
    if path.endswith("/live"):  # its GET does not end
        method = "HEAD"
    path = re.sub(
        r"\{\+?(\w+)\}", lambda found: {"upstream": "echo", "model": "echo"}.get(found[1], "test"), path
    )
    sent = body if body is not None else {} if method not in ("GET", "HEAD") else None
    request = FakeRequest(method, path, sent, headers={"x-admin-api-key": key}, key="")
    await there.operators(request)
    return request


async def test_the_table_has_every_route_of_operators_and_no_other() -> None:
    async with served(WITH_KEYS) as there:
        found = {
            f"{method} {shape}"
            for shape, place in there.operators.table.shapes().items()
            for method in place.methods
            if shape.startswith(("/admin", "/v1/admin", "/ui/play"))
        }
    assert found == {re.sub(r"\{[^}]*\}", "*", name) for name in NEEDED}


def test_whatever_changes_something_needs_an_operator() -> None:
    computed = {"POST /admin/explain", "POST /admin/config/check"}
    assert {
        name for name, role in NEEDED.items() if not name.startswith("GET ") and role == "viewer"
    } == computed


@pytest.mark.parametrize("name", sorted(NEEDED))
async def test_a_viewer_is_refused_what_an_operator_may(name: str) -> None:
    async with served(WITH_KEYS) as there:
        answer = await ask(there, name)
        if NEEDED[name] == "viewer":
            assert answer.status not in (401, 403)
            return
        assert answer.status == 403
        assert f"{name} needs the role operator; yours is viewer" in answer.answer.decode()
        if not name.endswith(("/drain", "/restart")):
            assert (await ask(there, name, SECOND)).status not in (401, 403)
        assert [
            line for line in there.log if line["event"] == "admin_action" and line["operator"] == "looks"
        ] == []


async def test_a_viewers_session_is_offered_what_it_may_and_refused_the_rest() -> None:
    async with served(WITH_KEYS) as there:
        user = Browser(there)
        done = (await user.sign_in(VIEWER)).json
        assert (done["name"], done["role"]) == ("looks", "viewer")
        assert set(done["routes"]) <= {name for name, role in NEEDED.items() if role == "viewer"}
        assert (await user.ask("GET", "/admin/keys")).status == 200
        assert (await user.ask("POST", "/admin/keys", {"id": "more"})).status == 403
        played = await user.ask(
            "POST", "/ui/play/v1/chat", {"sessionId": "s", "message": "hi"}, x_sluice_key="test"
        )
        assert played.status == 403
        assert (await user.sign_in(SECOND)).json["role"] == "operator"
        assert (await user.ask("POST", "/admin/keys", {"id": "more"})).status == 201
        actions = [line for line in there.log if line["event"] == "admin_action"]
        assert [(line["operator"], line["route"], line["status"]) for line in actions] == [
            ("second", "POST /admin/keys", 201)
        ]


async def test_roles_hold_on_the_clients_port_too() -> None:
    async with served(WITH_KEYS) as there:
        for path, status in (("/admin/keys", 200), ("/v1/admin/conversations", 403)):
            request = FakeRequest("GET", path, headers={"x-admin-api-key": VIEWER}, key="")
            await there.clients(request)
            assert request.status == status


async def test_an_action_that_raises_is_logged_with_its_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(WITH_KEYS) as there:
        assert (await ask(there, "POST /admin/keys", SECOND, {"id": "test"})).status == 409
        monkeypatch.setattr(AdminKeys, "_look", _crash)
        assert (await ask(there, "DELETE /admin/keys/{id}", SECOND)).status == 500
        assert outcomes(there) == [
            ("POST /admin/keys", None, "refused", "conflict"),
            ("DELETE /admin/keys/{id}", None, "failed", None),
        ]


async def test_a_delete_whose_client_leaves_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(WITH_KEYS) as there:
        begun = asyncio.Event()

        async def hang(*_: object) -> None:
            begun.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(AdminKeys, "_look", hang)
        asking = asyncio.create_task(ask(there, "DELETE /admin/keys/{id}", SECOND))
        await begun.wait()
        asking.cancel()
        await asyncio.wait([asking])
        assert outcomes(there) == [("DELETE /admin/keys/{id}", None, "cut", None)]


@pytest.mark.parametrize("how", ["client", "store"])
async def test_an_export_that_is_cut_is_logged(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def chunks(*_: object, **__: object) -> AsyncIterator[bytes]:
        yield b"{}\n"
        if how == "store":
            raise RuntimeError
        asking.cancel()
        await asyncio.sleep(0)
        yield b"{}\n"

    name = "GET /v1/admin/conversations/export"
    monkeypatch.setattr(AdminExport, "_conversation_lines", chunks)
    async with served(WITH_KEYS) as there:
        asking = asyncio.create_task(ask(there, name, SECOND))
        await asyncio.wait([asking])
        assert outcomes(there) == [(name, 200, {"client": "cut", "store": "failed"}[how], None)]


async def _crash(*_: object) -> None:
    raise RuntimeError("a fault of ours")


def outcomes(there: Served) -> list[tuple[Any, ...]]:
    actions = [line for line in there.log if line["event"] == "admin_action"]
    assert all(line["operator"] == "second" for line in actions)
    return [(line["route"], line["status"], line["outcome"], line.get("error")) for line in actions]


ONE = digest_of("one")


@pytest.mark.parametrize(
    ("admin", "expected"),
    [
        ({"digest": ONE, "keys": [{"id": "a", "digest": ONE, "role": "viewer"}]}, "another admin key's"),
        ({"digest": ONE, "keys": [{"id": "admin", "digest": digest_of("two"), "role": "viewer"}]}, "is taken"),
        ({"keys": [{"id": "a", "digest": digest_of(text), "role": "viewer"} for text in "12"]}, "is taken"),
        ({"keys": [{"id": "a", "digest": ONE}]}, "role"),
        ({"keys": [{"id": "a", "digest": ONE, "role": "root"}]}, "viewer"),
    ],
)  # fmt: skip
def test_check_finds_keys_that_contradict_each_other(admin: dict[str, Any], expected: str) -> None:
    sections = {
        "upstreams": {"echo": {"backend": "echo"}},
        "aliases": {"chat": {"tiers": [[{"upstream": "echo", "model": "m"}]]}},
        "admin": admin,
    }
    with pytest.raises(ConfigError, match=expected):
        load_mapping(sections)


def test_the_development_key_is_refused_as_a_further_one_where_others_reach_it() -> None:
    sections: dict[str, Any] = {
        "upstreams": {"echo": {"backend": "echo"}},
        "aliases": {"chat": {"tiers": [[{"upstream": "echo", "model": "m"}]]}},
        "server": {"listen": "0.0.0.0:8080"},
        "admin": {"keys": [{"id": "a", "digest": digest_of("sk-sluice-dev"), "role": "viewer"}]},
    }
    with pytest.raises(ConfigError, match="development key"):
        load_mapping(sections)

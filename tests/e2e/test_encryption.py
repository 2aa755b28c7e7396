"""Encrypted conversations over HTTP: keys that are rotated by a reload, and keys that are lost."""

from pathlib import Path

import aiohttp
import msgspec
import pytest

from sluice.config.loader import load
from sluice.conversations import Resealed
from sluice.conversations.sqlite import SqliteConversations
from tests.e2e.gateways import gateway
from tests.e2e.test_admin_conversations import Client, config

OLD, NEW = "b2xkb2xkb2xkb2xkb2xkb2xkb2xkb2xkb2xkb2xkb2w=", "bmV3bmV3bmV3bmV3bmV3bmV3bmV3bmV3bmV3bmV3bmU="


def with_keys(state: str, *keys: str) -> str:
    return config(state) + (f'encryption: {{keys: "{" ".join(keys)}"}}\n' if keys else "")


async def test_keys_are_rotated_by_a_reload_and_what_is_at_rest_is_encrypted(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    async with gateway(with_keys(f"sqlite:{path}", OLD)) as g, aiohttp.ClientSession() as session:
        client = Client(g, session)
        assert await client.turn("a") == ("You said: hi", "")
        (rotated := tmp_path / "rotated.yaml").write_text(
            with_keys(f"sqlite:{path}", NEW, OLD) + "log: {level: debug}\n"
        )
        await g.swap(load(str(rotated)))
        assert await client.turn("a") == ("Turn 2, you said: hi", "")
        listed = (await client.admin("GET"))[1]["conversations"]
        assert listed[0]["lastMessage"] == "Turn 2, you said: hi"
    assert b"you said" not in b"".join(file.read_bytes() for file in tmp_path.glob("state.db*")).lower()
    async with gateway(with_keys(f"sqlite:{path}", NEW, OLD)) as g, aiohttp.ClientSession() as session:
        assert await Client(g, session).turn("a") == ("Turn 3, you said: hi", "")
        assert not [line for line in g.log_lines if line["event"] == "conversations_unreadable"]


@pytest.mark.parametrize("keys", [(NEW,), ()])
async def test_a_key_that_is_lost_is_said_at_the_start_and_calls_go_on_without_history(
    tmp_path: Path, keys: tuple[str, ...]
) -> None:
    state = f"sqlite:{tmp_path / 'state.db'}"
    async with gateway(with_keys(state, OLD)) as g, aiohttp.ClientSession() as session:
        await Client(g, session).turn("a")
    async with gateway(with_keys(state, *keys)) as g, aiohttp.ClientSession() as session:
        assert [line["problem"] for line in g.log_lines if line["event"] == "conversations_unreadable"]
        client = Client(g, session)
        assert await client.turn("a") == ("You said: hi", "unavailable")
        failed = next(line for line in g.log_lines if line["event"] == "conversation_not_kept")
        assert (failed["operation"], failed["reason"]) == ("open", "key")
        [conversation] = (await client.admin("GET"))[1]["conversations"]
        assert conversation["lastMessage"] == ""
        assert (await client.admin("GET", f"/{conversation['_id']}"))[0] == 503
        assert (await client.admin("DELETE", f"/{conversation['_id']}"))[0] == 200
        assert await client.turn("a") == ("You said: hi", "")
        assert await client.turn("a") == ("Turn 2, you said: hi", "")


async def test_what_could_not_be_encrypted_anew_is_counted_and_the_others_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reseal, failing = SqliteConversations.reseal, [2]

    async def sometimes(self: SqliteConversations, id: str) -> Resealed:
        failing[0] -= 1
        if failing[0] == 0:
            raise OSError("it failed")
        return msgspec.structs.replace(await reseal(self, id), left=1)

    monkeypatch.setattr(SqliteConversations, "reseal", sometimes)
    state = f"sqlite:{tmp_path / 'state.db'}"
    async with gateway(with_keys(state, NEW)) as g, aiohttp.ClientSession() as session:
        client = Client(g, session)
        for name in "abc":
            await client.turn(name)
        found = await client.admin("POST", "/reencrypt")
        expected = {"conversations": 3, "messages": 0, "unreadable": 0, "left": 2, "failed": 1, "next": None}
        assert found == (200, expected)

        async def never(self: SqliteConversations, id: str) -> Resealed:
            raise OSError("it is down")

        monkeypatch.setattr(SqliteConversations, "reseal", never)
        assert (await client.admin("POST", "/reencrypt"))[0] == 503

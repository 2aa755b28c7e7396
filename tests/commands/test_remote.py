"""Commands against a running gateway: keys, usage, calls, targets, chat."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.e2e.gateways import HEAD, KEY, OnSluice, gateway
from tests.test_cli import sluice

CONFIG = HEAD.replace("admin: {digest", "admin: {ui: true, digest") + (
    "upstreams: {echo: {backend: echo}}\naliases: {chat: {tiers: [[{upstream: echo, model: a/b}]]}}\n"
)


class Shell:
    def __init__(self, there: OnSluice) -> None:
        self._there = there

    async def run(
        self, *arguments: str, stdin: str = "", **environ: str
    ) -> "subprocess.CompletedProcess[str]":
        variables = {"SLUICE_ADMIN_KEY": KEY, "SLUICE_API_KEY": KEY} | environ
        url = self._there.url if arguments[0] == "chat" else self._there.admin_url
        return await asyncio.to_thread(sluice, *arguments, "--url", url, stdin=stdin, **variables)

    async def ok(self, *arguments: str, stdin: str = "") -> str:
        done = await self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout


@asynccontextmanager
async def shell() -> AsyncIterator[Shell]:
    async with gateway(CONFIG) as there:
        yield Shell(there)


async def test_a_keys_life() -> None:
    async with shell() as user:
        key = (
            await user.ok(
                "keys", "make", "shop/1", "--requests", "60/min", "--budget-day", "5", "--alias", "chat"
            )
        ).strip()
        assert key.startswith("sk-sluice-")
        shown: Any = json.loads(await user.ok("keys", "show", "shop/1"))
        assert shown["limits"]["budget"]["day"] == 5
        assert "shop/1" in await user.ok("keys", "list")
        assert (await user.ok("keys", "rotate", "shop/1", "--overlap", "10m")).strip() != key
        assert await user.ok("keys", "disable", "shop/1") == "shop/1: disabled\n"
        assert await user.ok("keys", "enable", "shop/1") == "shop/1: enabled\n"
        assert await user.ok("keys", "delete", "shop/1") == "shop/1: deleted\n"
        gone = await user.run("keys", "show", "shop/1")
        assert (gone.returncode, gone.stderr.startswith("sluice: ")) == (1, True)
        wrong = await user.run("keys", "make", "x", "--requests", "often")
        assert (wrong.returncode, "limits.requests" in wrong.stderr) == (1, True), wrong.stderr


async def test_chat_usage_and_calls() -> None:
    async with shell() as user:
        assert await user.ok("chat", "Hello", "there") == "You said: Hello there\n"
        assert "You said: piped" in await user.ok("chat", stdin="piped")
        assert "data: " in await user.ok("chat", "--raw", "x")
        assert "echo/a/b" in await user.ok("calls")
        assert json.loads(await user.ok("calls", "--errors", "--json"))["calls"] == []
        assert "total" in await user.ok("usage", "--by", "alias,model")
        stranger = await user.run("chat", "hi", SLUICE_API_KEY="sk-wrong")
        assert (stranger.returncode, "401" in stranger.stderr) == (1, True)
        unknown = await user.run("chat", "--model", "nobody", "hi")
        assert unknown.returncode == 1
        assert "--model may be chat" in unknown.stderr


async def test_calls_are_printed_with_their_texts_and_nothing_that_a_terminal_would_follow() -> None:
    async with gateway(CONFIG + "log: {content: full}\n") as there:
        user = Shell(there)
        await user.ok("chat", "red \x1b[31m\nalert")
        printed = await user.ok("calls", "--content")
        assert "  user: red \\x1b[31m\n    alert\n  answer: You said: red" in printed
        assert "\x1b" not in printed
        [call] = json.loads(await user.ok("calls", "--content", "--json"))["calls"]
        assert call["content"]["answer"]["text"].startswith("You said: red \x1b")
    async with shell() as user:
        await user.ok("chat", "hello")
        assert "no texts: log.content is none for it" in await user.ok("calls", "--content")


async def test_the_api_is_not_taken_for_the_admin_port() -> None:
    async with gateway(CONFIG) as there:
        done = await asyncio.to_thread(sluice, "status", "--url", there.url, SLUICE_ADMIN_KEY=KEY)
        assert done.returncode == 1
        assert done.stderr == (
            "sluice: there is no admin API at this address: is it that of the admin port (server.admin_listen, 8081)?\n"
        )


async def test_verbs_of_targets_say_which_gateway_they_ask_behind_themselves() -> None:
    async with shell() as user:
        for verb in ("disable", "drain", "enable"):
            done = await user.run("targets", verb, "echo/a/b")  # a gateway within a test cannot switch any
            assert (done.returncode, "part of another process" in done.stderr) == (1, True), done.stderr


@pytest.mark.parametrize("command", [["keys", "list"], ["usage"], ["calls"]])
async def test_without_the_key_it_says_so(command: list[str]) -> None:
    async with shell() as user:
        for key in ("", "sk-wrong"):
            done = await user.run(*command, SLUICE_ADMIN_KEY=key)
            assert (done.returncode, "SLUICE_ADMIN_KEY" in done.stderr) == (1, True)


async def test_conversations_are_exported_and_deleted() -> None:
    async with gateway(f"{CONFIG}responses: {{store: memory}}\n") as there:
        user = Shell(there)
        async with aiohttp.ClientSession(there.url, headers={"authorization": f"Bearer {KEY}"}) as session:
            for name in ("u1-a", "u1-b", "u2-a"):
                async with session.post("/v1/chat", json={"sessionId": name, "message": "Hello"}) as response:
                    assert response.status == 200
            async with session.post("/v1/responses", json={"model": "chat", "input": "Hello"}) as response:
                assert response.status == 200
        everything = [
            json.loads(line)
            for line in (await user.ok("conversations", "export", "--tenant", "test")).splitlines()
        ]
        assert [line.get("sessionId") for line in everything].count(None) == 1
        assert len(everything) == 4
        person = await user.ok("conversations", "export", "--tenant", "test", "--session-prefix", "u1-")
        assert len(person.splitlines()) == 2
        assert len((await user.ok("conversations", "export")).splitlines()) == 3
        arguments = ("conversations", "delete", "--tenant", "test")
        assert await user.ok(*arguments, "--session-prefix", "u1-") == "conversations deleted: 2\n"
        assert (await user.run(*arguments, "--session-prefix", "")).returncode == 1
        assert await user.ok(*arguments) == "conversations deleted: 1\nresponses deleted: 1\n"
        assert await user.ok("conversations", "export", "--tenant", "test") == ""
        for option in ("--tenant", "--session-prefix"):
            assert (await user.run("conversations", "export", option, "")).returncode == 1
        refused = await user.run("conversations", "export", SLUICE_ADMIN_KEY="sk-wrong")
        assert (refused.returncode, "is not the admin key" in refused.stderr) == (1, True)


async def test_conversations_are_encrypted_anew(tmp_path: Path) -> None:
    configured = f"{CONFIG}state: sqlite:{tmp_path}/state.db\n"
    async with (
        gateway(configured) as there,
        aiohttp.ClientSession(there.url, headers={"x-api-key": KEY}) as session,
    ):
        for number in range(3):
            async with session.post(
                "/v1/chat", json={"sessionId": f"s{number}", "message": "Hello"}
            ) as response:
                assert response.status == 200
        refused = await Shell(there).run("conversations", "reencrypt")
        assert (refused.returncode, "encryption.keys" in refused.stderr) == (1, True)
    key = "q83vASNFZ4mrze8BI0VniavN7wEjRWeJq83vASNFZ4k="
    async with gateway(f'{configured}encryption: {{keys: "{key}"}}\n') as there:
        done = await Shell(there).ok("conversations", "reencrypt")
        assert done == "conversations looked at: 3\nmessages encrypted anew: 6\n"
        assert b"You said" not in b"".join([file.read_bytes() for file in tmp_path.glob("state.db*")])
    other = "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI="
    async with gateway(f'{configured}encryption: {{keys: "{other}"}}\n') as there:
        refused = await Shell(there).run("conversations", "reencrypt")
        assert (refused.returncode, "messages that cannot be decrypted: 6" in refused.stderr) == (1, True)


async def test_status_is_watched_over_a_reload() -> None:
    async with gateway(CONFIG) as there:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "sluice", "status", "--watch", "--url", there.admin_url),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "SLUICE_ADMIN_KEY": KEY},
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(60):
                titles = (await process.stdout.readline()).decode().split()
                first = (await process.stdout.readline()).decode().split()
                assert (titles[:2], first[1]) == (["UTC", "STATE"], "ready")
                assert isinstance(there, OnSluice)
                await there.swap(there.runtime.loaded)
                async with aiohttp.ClientSession(headers={"x-api-key": KEY}) as session:
                    body = {"sessionId": "s", "message": "Hello"}
                    async with session.post(f"{there.url}/v1/chat/stream", json=body) as response:
                        await response.read()
                while (await process.stdout.readline()).split()[3:5] != [b"1", b"1"]:
                    pass
        finally:
            process.kill()
            await process.wait()

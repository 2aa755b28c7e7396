"""A store that refuses is said: at the start, in the log, in a metric and in /readyz?verbose; calls go on."""

import os
from errno import EACCES, EBUSY, EIO, ENOSPC
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sluice.identity.keys import digest_of
from sluice.storage import REASONS
from sluice.storage.sqlite import SqliteFile
from tests.e2e.gateways import Running, gateway
from tests.servers import free_port, redis_server
from tests.upstream.calls import until

KEY = "sk-sluice-store"
PASSWORD = "geheim"


def config(url: str, when_down: str = "open") -> str:
    return f"""
server: {{listen: "127.0.0.1:0", admin_listen: "127.0.0.1:0", drain_delay: 0}}
limits: {{address: null, store: "{url}", when_down: {when_down}}}
admin: {{store: "{url}", digest: "{digest_of(KEY)}"}}
resume: "{url}"
keys: [{{id: one, digest: "{digest_of(KEY)}", default_alias: chat, limits: {{requests: {{rate: 100/s}}}}}}]
upstreams: {{echo: {{backend: echo, tokens: 2, delay: 0}}}}
aliases: {{chat: {{tiers: [[{{upstream: echo, model: m}}]], resumable: true}}}}
"""


async def states(g: Running) -> tuple[int, dict[str, Any]]:
    async with aiohttp.ClientSession() as client, client.get(g.admin_url + "/readyz?verbose") as response:
        return response.status, (await response.json())["stores"]


async def asked(g: Running) -> int:
    """The status of one call."""
    body = {"message": "hi", "sessionId": "s"}
    async with (
        aiohttp.ClientSession() as client,
        client.post(g.url + "/v1/chat", json=body, headers={"x-api-key": KEY}) as response,
    ):
        return response.status


@pytest.mark.parametrize(
    ("login", "reason"),
    [("", "noauth"), (":wrong@", "wrongpass"), (f"nothing:{PASSWORD}@", "noperm"), (f":{PASSWORD}@", "")],
)
async def test_what_is_wrong_is_said_at_the_start_and_by_every_means(login: str, reason: str) -> None:
    options = ["--requirepass", PASSWORD, "--user", "nothing", "on", f">{PASSWORD}", "~*", "+@connection"]
    with redis_server(None, *options) as server:
        async with gateway(config(f"redis://{login}127.0.0.1:{server.port}/0")) as g:
            status, stores = await states(g)
            assert status == 200
            assert set(stores) == {"limits", "keys", "usage", "resume", "conversations"}
            assert {name for name, store in stores.items() if store["kind"] != "redis"} == {"conversations"}
            said = [line for line in g.log_lines if line["event"] == "store_failing"]
            # each from the start, so that an increase sees an error that comes once; none of a store in memory
            counted = g.runtime.exposition().decode().count("\nsluice_store_errors_total{")
            assert counted == 4 * len(REASONS)
            if not reason:
                assert {store["state"] for store in stores.values()} == {"ok"}
                assert said == []
            else:
                assert {line["store"] for line in said} >= {"limits", "keys", "resume"}
                for name in ("limits", "keys", "resume"):
                    assert next(line["reason"] for line in said if line["store"] == name) == reason
                    assert stores[name]["state"] == "failing"
                    assert g.metric(f'sluice_store_errors_total{{reason="{reason}",store="{name}"}}') >= 1
            assert await asked(g) == 200
            assert PASSWORD not in str(g.log_lines)


async def test_a_gateway_whose_store_is_not_there_is_ready_and_says_so() -> None:
    async with gateway(config(f"redis://127.0.0.1:{free_port()}", when_down="closed")) as g:
        status, stores = await states(g)
        assert status == 200
        assert {stores[name]["reason"] for name in ("limits", "keys", "resume")} == {"connection"}
        async with aiohttp.ClientSession() as client, client.get(g.admin_url + "/readyz") as response:
            assert await response.json() == {"status": "ready"}
        assert await asked(g) == 503


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_every_store_that_is_used_is_shown(kind: str, tmp_path: Path) -> None:
    at = "memory" if kind == "memory" else f"sqlite:{tmp_path}/all"
    more = f'state: "{at}"\nresponses: {{store: "{at}"}}\n'
    text = config("memory").replace('admin: {store: "memory"', f'admin: {{store: "{at}"')
    async with gateway(text + more) as g:
        assert await asked(g) == 200
        status, stores = await states(g)
    assert status == 200
    assert {name: store["kind"] for name, store in stores.items()} == {
        "conversations": kind, "responses": kind, "keys": kind, "usage": kind, "limits": "memory", "resume": "memory",
    }  # fmt: skip
    assert {store["state"] for store in stores.values()} == {"ok"}


@pytest.mark.parametrize(
    ("error", "reason"), [(ENOSPC, "full"), (EACCES, "noperm"), (EBUSY, "busy"), (EIO, "reply")]
)
async def test_a_file_that_fails_is_said_with_its_reason_and_fails_no_call(
    error: int, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = f"sqlite:{tmp_path}/turns"
    text = config("memory").replace('admin: {store: "memory"', f'admin: {{store: "{at}"')
    async with gateway(text + f'state: "{at}"\n') as g:

        async def failing(*_: object, **__: object) -> None:
            raise OSError(error, os.strerror(error))

        with monkeypatch.context() as broken:
            broken.setattr(SqliteFile, "run", failing)
            assert await asked(g) == 200
            _, stores = await states(g)
            assert (stores["conversations"]["state"], stores["conversations"]["reason"]) == (
                "failing",
                reason,
            )
            await until(lambda: g.metric(f'sluice_store_errors_total{{reason="{reason}",store="usage"}}') > 0)
        said = [line for line in g.log_lines if line["event"] == "store_failing"]
        assert {"conversations", "usage"} <= {line["store"] for line in said}
        assert {line["reason"] for line in said} == {reason}

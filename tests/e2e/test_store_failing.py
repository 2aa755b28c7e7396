"""A store that refuses is said: at the start, in the log, in a metric and in /readyz?verbose; calls go on."""

from typing import Any

import aiohttp
import pytest

from sluice.identity.keys import digest_of
from tests.e2e.gateways import Running, gateway
from tests.servers import free_port, redis_server

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
            assert set(stores) == {"limits", "keys", "usage", "resume"}
            assert {store["kind"] for store in stores.values()} == {"redis"}
            said = [line for line in g.log_lines if line["event"] == "store_failing"]
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

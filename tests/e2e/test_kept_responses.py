"""A kept response is kept, whatever its store does while it is brought there, and whoever refers to it meanwhile
waits for it."""

import asyncio
import time

import pytest

from sluice.kept import ResponsesFailed
from sluice.kept.memory import MemoryResponses
from sluice.model.kept import KeptResponse
from sluice.policies.kept import DOUBTFUL_SECONDS
from sluice.storage import Reason
from tests.e2e.gateways import Running, gateway
from tests.e2e.test_responses import CONFIG, asked, client
from tests.upstream.calls import until

KEEPING = CONFIG + "responses: {store: memory}\n"


class Failing(MemoryResponses):
    """A store that answers its first puts with these errors. `lost`: it has done what it is asked
    nevertheless, and only its reply is lost. `gate`: nothing is put before it is open."""

    def __init__(self, *reasons: Reason, lost: bool = False) -> None:
        super().__init__(3600.0, time.time)
        self.reasons = [*reasons]
        self.lost = lost
        self.puts = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def put(self, tenant: str, kept: KeptResponse) -> None:
        self.puts += 1
        await self.gate.wait()
        if not self.reasons or self.lost:
            await super().put(tenant, kept)
        if self.reasons:
            raise ResponsesFailed(self.reasons.pop(0))


def put_in_place(g: Running, store: Failing) -> Failing:
    g.runtime.kept.store = store
    return store


@pytest.mark.parametrize("lost", [False, True])
async def test_what_a_store_does_not_take_in_time_is_sent_again(lost: bool) -> None:
    async with gateway(KEEPING) as g, client(g) as session:
        store = put_in_place(g, Failing("timeout", "connection", "loading", lost=lost))
        first = await asked(session, input="One")
        second = await asked(session, input="Two", previous_response_id=first["id"])
        assert second["previous_response_id"] == first["id"]
        await until(lambda: store.puts == 5)
        assert not [line for line in g.log_lines if line["event"] == "conversation_not_kept"]


async def test_what_a_store_refuses_is_not_sent_again() -> None:
    async with gateway(KEEPING) as g, client(g) as session:
        store = put_in_place(g, Failing("oom"))
        first = await asked(session, input="One")
        assert store.puts == 1
        body = {"model": "chat", "input": "Two", "previous_response_id": first["id"]}
        async with session.post("/v1/responses", json=body) as response:
            assert response.status == 503, "it may have been kept"
        g.runtime.kept._failed_at -= DOUBTFUL_SECONDS
        async with session.post("/v1/responses", json=body) as response:
            assert response.status == 404


@pytest.mark.parametrize("how", ["previous", "item", "get", "input", "delete"])
async def test_who_refers_to_what_is_on_its_way_waits_for_it(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sluice.policies.kept.STORE_SECONDS", 0.01)
    async with gateway(KEEPING) as g, client(g) as session:
        store = put_in_place(g, Failing())
        store.gate.clear()
        first = await asked(session, input="One")
        body = {"model": "chat", "input": "Two", "previous_response_id": first["id"], "store": False}
        if how == "item":
            named = {"type": "item_reference", "id": first["output"][0]["id"]}
            body = {"model": "chat", "input": [named, {"role": "user", "content": "Two"}], "store": False}
        path = f"/v1/responses/{first['id']}"
        method, path, sent = {
            "previous": ("POST", "/v1/responses", body),
            "item": ("POST", "/v1/responses", body),
            "get": ("GET", path, None),
            "input": ("GET", f"{path}/input_items", None),
            "delete": ("DELETE", path, None),
        }[how]
        waiting = g.runtime.kept.settled

        async def settled(tenant: str | None = None) -> bool:
            asyncio.get_running_loop().call_soon(store.gate.set)
            return await waiting(tenant)

        monkeypatch.setattr(g.runtime.kept, "settled", settled)
        async with session.request(method, path, json=sent) as response:
            assert response.status == 200, await response.text()
        await until(lambda: not g.runtime.pipeline.runs)


async def test_the_end_of_an_answer_waits_for_the_first_try_alone() -> None:
    async with gateway(KEEPING) as g, client(g) as session:
        store = put_in_place(g, Failing("connection"))
        tried = store.put
        second = asyncio.Event()

        async def put(tenant: str, kept: KeptResponse) -> None:
            if store.puts:
                await second.wait()
            await tried(tenant, kept)

        store.put = put  # type: ignore[method-assign]
        first = await asked(session, input="One")
        assert (first["status"], store.puts) == ("completed", 1)
        second.set()
        async with session.get(f"/v1/responses/{first['id']}") as response:
            assert response.status == 200

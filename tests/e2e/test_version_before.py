"""Two versions of the gateway at one store, as while a new one is rolled out: this one, and the one from before the
last change of PostgreSQL's tables, out of the history.

The echo model says how many of the user's messages it was given, so each answer tells the place of its turn.
"""

import asyncio
import io
import json
import subprocess
import tarfile
import tomllib
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.e2e.gateway_process import KEY, GatewayProcess, serving
from tests.e2e.test_hosts import config, place_of, postgres_address, redis_address

ROOT = Path(__file__).resolve().parents[2]
TABLES = "gateway/sluice/*/postgres.py"
DEFINITION = "(CREATE|ALTER|DROP) (UNIQUE |UNLOGGED )?(TABLE|INDEX)"
HEADERS = {"x-api-key": KEY, "x-admin-api-key": KEY}
PATIENCE = 60.0
STORES: dict[str, Callable[[], AbstractContextManager[str]]] = {
    "redis": redis_address,
    "postgres": postgres_address,
}


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which `python -m sluice` is the version before."""
    log = [
        "git",
        "-C",
        ROOT,
        "log",
        "-1",
        "--format=%P",
        "--extended-regexp",
        f"-G{DEFINITION}",
        "--",
        TABLES,
    ]
    commit = subprocess.run(log, capture_output=True, text=True, timeout=60).stdout.strip()
    if not commit:
        pytest.skip("no history of the tables")
    archive = ["git", "-C", str(ROOT), "archive", commit, "gateway", "plugins", "config", "pyproject.toml"]
    done = subprocess.run(archive, capture_output=True, timeout=60, check=True)
    folder = tmp_path_factory.mktemp("before")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as packed:
        packed.extractall(folder, filter="data")
    # what it loads by name is what its own metadata names, not those of this version, which are installed
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    metadata = folder / "gateway" / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = [
        line
        for group, names in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {place}" for name, place in names.items()))
    ]
    (metadata / "entry_points.txt").write_text("\n".join(lines))
    return {"PYTHONPATH": f"{folder / 'gateway'}:{folder / 'plugins'}"}


async def call(method: str, url: str, body: object = None, **headers: str) -> Any:
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(PATIENCE)) as client,
        client.request(method, url, json=body, headers={**HEADERS, **headers}) as response,
    ):
        assert response.status < 300, await response.text()
        assert "x-sluice-history" not in response.headers
        return json.loads(await response.text() or "null")


async def turn(gateway: GatewayProcess, message: str, session: str = "s") -> int:
    """Its place in the session."""
    answer = await call("POST", f"{gateway.api}/v1/chat", {"sessionId": session, "message": message})
    assert answer["message"].endswith(message)
    return place_of(answer["message"])


async def respond(gateway: GatewayProcess, text: str, previous: str | None = None) -> tuple[str, str]:
    """The response's id and what it says."""
    body = {"model": "chat", "input": text, "previous_response_id": previous}
    answer = await call("POST", f"{gateway.api}/v1/responses", body, authorization=f"Bearer {KEY}")
    return answer["id"], answer["output"][-1]["content"][0]["text"]


async def used(gateway: GatewayProcess) -> int:
    """Calls of today, as everybody's gateway has counted them."""
    report = await call("GET", f"{gateway.admin}/admin/usage")
    return sum(row["requests"] for row in report["rows"])


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("engine", STORES)
async def test_a_version_and_the_one_before_it_are_one_gateway(engine: str, before: dict[str, str]) -> None:
    with STORES[engine]() as state, ExitStack() as stack:
        text = config(state).replace("store: memory", f'store: "{state}&timeout=30s"')
        text += f'responses: {{store: "{state}&timeout=30s"}}\n'
        old = stack.enter_context(serving(text, before))
        assert [await turn(old, f"old {number}") for number in range(3)] == [0, 1, 2]
        new = stack.enter_context(serving(text))
        both = (old, new)
        places = [await turn(both[number % 2], f"both {number}") for number in range(10)]
        assert places == list(range(3, 13))

        found = await asyncio.gather(*(turn(both[number % 2], f"at once {number}") for number in range(10)))
        assert sorted(found) == list(range(13, 23))

        first, _ = await respond(old, "kept by the old")
        second, said = await respond(new, "kept by the new", first)
        assert "Turn 2" in said
        _, said = await respond(old, "and again by the old", second)
        assert "Turn 3" in said

        again = stack.enter_context(serving(text, before))  # as a rollback does
        assert await turn(again, "rolled back") == 23
        assert await turn(new, "still there") == 24
        for making, using in ((old, new), (new, again)):
            made = await call(
                "POST", f"{making.admin}/admin/keys", {"id": f"k{making.port}", "default_alias": "chat"}
            )
            async with asyncio.timeout(PATIENCE):
                while not await accepted(using, made["key"]):
                    await asyncio.sleep(0.05)  # the other gateway's clock: there is nothing to wait on
        async with asyncio.timeout(PATIENCE):
            while len({await used(gateway) for gateway in (old, new, again)} | {28}) != 1:
                await asyncio.sleep(0.05)


async def accepted(gateway: GatewayProcess, key: str) -> bool:
    async with (
        aiohttp.ClientSession() as client,
        client.get(f"{gateway.api}/v1/models", headers={"authorization": f"Bearer {key}"}) as response,
    ):
        return response.status == 200

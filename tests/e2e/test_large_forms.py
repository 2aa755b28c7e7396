"""Forms too large to be held: through a file, the model's name put in wherever it stands, as often as they
are sent."""

import asyncio
import contextlib
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.gateways import KEY, gateway
from tests.e2e.test_embeddings import JSON, says
from tests.e2e.test_forms import FORM, HEARD, form, post
from tests.e2e.test_operations import BUSY, config
from tests.fakes.rawserver import RawServer, sized

PATH = "/v1/audio/transcriptions"
SOUND = hashlib.sha256(b"seed").digest() * (3 << 15)  # 3 MiB
MODELS: dict[str, tuple[bytes, bytes]] = {
    "first": (form(model=b"chat", file=SOUND), form(model=b"m", file=SOUND)),
    "last": (form(file=SOUND, model=b"chat"), form(file=SOUND, model=b"m")),
    "not": (form(file=SOUND), form(model=b"m", file=SOUND)),
}


def spooling(up: RawServer, two: RawServer | None = None, server: str = "") -> str:
    text = config(up, two)
    assert "server: {" in text
    return text.replace("server: {", "server: {" + server)


@pytest.mark.parametrize("where", MODELS)
async def test_the_models_name_is_put_in_wherever_it_stands(where: str) -> None:
    given, expected = MODELS[where]
    async with RawServer(says(sized(HEARD, 200, JSON))) as up, gateway(config(up)) as g:
        asked = await post(g, PATH, given)
        assert (asked.status, asked.body) == (200, HEARD)
        [sent] = up.requests
        assert sent.body == expected
        assert sent.headers["content-length"] == str(len(expected))


async def test_another_target_gets_all_of_it_again() -> None:
    given, expected = MODELS["last"]
    async with (
        RawServer(says(BUSY)) as one,
        RawServer(says(sized(HEARD, 200, JSON))) as two,
        gateway(config(one, two)) as g,
    ):
        assert (await post(g, PATH, given)).status == 200
        assert [request.body for request in (*one.requests, *two.requests)] == [expected, expected]


async def test_in_chunks_without_a_length() -> None:
    given, expected = MODELS["last"]
    async with RawServer(says(sized(HEARD, 200, JSON))) as up, gateway(config(up)) as g:

        async def pieces() -> Any:
            for start in range(0, len(given), 100_000):
                yield given[start : start + 100_000]

        assert (await post(g, PATH, pieces())).status == 200  # type: ignore[arg-type]
        assert up.requests[0].body == expected


async def test_more_than_may_be_is_refused_and_so_is_what_is_no_form() -> None:
    async with RawServer(says(sized(HEARD, 200, JSON))) as up:
        async with gateway(spooling(up, server="form_limit: 2MiB, ")) as g:
            assert (await post(g, PATH, MODELS["last"][0])).status == 413
        async with gateway(spooling(up, server="form_spool: 2MiB, ")) as g:
            refused = await post(g, PATH, MODELS["last"][0])
            assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        async with gateway(config(up)) as g:
            assert (await post(g, PATH, MODELS["last"][0][:-30])).status == 400
            assert (await post(g, PATH, MODELS["last"][0], "multipart/form-data")).status == 400
            assert (await post(g, PATH, MODELS["last"][0], key="sk-no")).status == 401
        assert not up.requests


async def test_without_a_place_for_files_memory_has_to_do(tmp_path: Path) -> None:
    async with RawServer(says(sized(HEARD, 200, JSON))) as up:
        async with gateway(spooling(up, server=f'form_directory: "{tmp_path}/none", ')) as g:
            assert (await post(g, PATH, MODELS["last"][0])).status == 200
        assert up.requests[0].body == MODELS["last"][1]


async def test_nothing_is_left_behind(tmp_path: Path) -> None:
    async with RawServer(says(sized(HEARD, 200, JSON))) as up:
        async with gateway(spooling(up, server=f'form_directory: "{tmp_path}", ')) as g:
            assert (await post(g, PATH, MODELS["last"][0])).status == 200
            reader, writer = await asyncio.open_connection("127.0.0.1", int(g.url.rpartition(":")[2]))
            head = (
                f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Type: {FORM}\r\n"
            )
            writer.write(head.encode() + b"Content-Length: 4000000\r\n\r\n" + MODELS["last"][0][: 2 << 20])
            await writer.drain()
            writer.close()
            await writer.wait_closed()
            del reader
            async with asyncio.timeout(60):
                while files_in(tmp_path):
                    await asyncio.sleep(0)
        assert not [*tmp_path.iterdir()]


def files_in(folder: Path) -> list[str]:
    """The files there that this process has open, with a name or without."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{number}"))
    return [name for name in found if name.startswith(str(folder))]


async def test_an_upstream_that_answers_before_it_has_read_all_is_heard() -> None:
    refusal = sized(b'{"error":{"message":"the file is too large"}}', 400, JSON)

    async def refuses(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(refusal)
        await writer.drain()
        await reader.read()  # which never ends while the gateway would go on to send, but for its closing

    server = await asyncio.start_server(refuses, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with RawServer(says(BUSY)) as two:
            text = config(two).replace(two.url, f"http://127.0.0.1:{port}")
            async with gateway(text) as g:
                asked = await post(g, PATH, MODELS["first"][0])
                assert (asked.status, asked.json["error"]["message"]) == (400, "the file is too large")

"""A relay between a client and the gateway that notes what was not answered with success."""

import asyncio
import re
from collections.abc import Callable
from types import TracebackType
from typing import Self

_ASKED = re.compile(rb"([A-Z]{3,7}) (\S+) HTTP/1\.1\r\n")
_ANSWERED = re.compile(rb"HTTP/1\.1 (\d{3}) ")


class Watch:
    """Listens on 127.0.0.1 while entered, at `url`, and passes bytes on as they are.

    `unsuccessful` holds "STATUS METHOD PATH" of answers from 400 on, the query of the path left out; `successful` counts
    the other answers to POST. A head
    is looked for only where a read begins, which is where clients and the gateway put it.
    """

    def __init__(self, gateway: tuple[str, int]) -> None:
        self._gateway = gateway
        self._tasks: set[asyncio.Task[None]] = set()
        self.unsuccessful: set[str] = set()
        self.successful = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        up_reader, up_writer = await asyncio.open_connection(*self._gateway)
        asked: list[str] = []

        def request(data: bytes) -> None:
            if found := _ASKED.match(data):
                asked.append(f"{found[1].decode()} {found[2].partition(b'?')[0].decode()}")

        def response(data: bytes) -> None:
            if (found := _ANSWERED.match(data)) and not found[1].startswith(b"1"):
                one = asked.pop(0) if asked else "?"
                if found[1] >= b"400":
                    self.unsuccessful.add(f"{found[1].decode()} {one}")
                else:
                    self.successful += one.startswith("POST ")

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_pass(reader, up_writer, request))
                group.create_task(_pass(up_reader, writer, response))
        except* OSError:
            pass  # one of the two has gone
        finally:
            writer.close()
            up_writer.close()


async def _pass(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, look: Callable[[bytes], None]
) -> None:
    while data := await reader.read(1 << 16):
        look(data)
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()

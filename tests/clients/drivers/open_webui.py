"""Open WebUI on the task: python open_webui.py API ADDRESS KEY MODEL...; one line of JSON per model.

Starts its server with `openai` or `ollama` as its connection, and does what its page does: signs up, adds
functions, lists the models, and has a chat in a session of its socket.
"""

import asyncio
import contextlib
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import socketio

TASK = "Write a short note, read it again, and say what it says."
START, ANSWER = 400, 60
"""Seconds: it makes its database in a hundred steps, and loads much."""
FUNCTIONS = '''
from pathlib import Path


class Tools:
    def write_note(self, text: str) -> str:
        """
        Keep a note.
        :param text: what the note says
        """
        Path("note").write_text(text)
        return "kept"

    def read_note(self) -> str:
        """
        Give it.
        """
        return Path("note").read_text()
'''


def environment(api: str, address: str, key: str) -> dict[str, str]:
    of_ollama = {"ENABLE_OPENAI_API": "false", "OLLAMA_BASE_URL": address,
                 "OLLAMA_API_CONFIGS": json.dumps({"0": {"enable": True, "key": key}})}  # fmt: skip
    of_openai = {"ENABLE_OLLAMA_API": "false", "OPENAI_API_BASE_URL": f"{address}/v1", "OPENAI_API_KEY": key}
    quiet = {
        "OFFLINE_MODE": "true",
        "ANONYMIZED_TELEMETRY": "false",
        "SCARF_NO_ANALYTICS": "true",
        "DO_NOT_TRACK": "true",
    }
    return {**os.environ, **quiet, **(of_ollama if api == "ollama" else of_openai),
            "DATA_DIR": os.getcwd(), "WEBUI_SECRET_KEY": "secret", "ENABLE_PERSISTENT_CONFIG": "false"}  # fmt: skip


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


async def started(client: aiohttp.ClientSession, server: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(START):
        while server.returncode is None:
            with contextlib.suppress(aiohttp.ClientError):
                async with client.get("/health") as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(0.5)
    raise RuntimeError(f"the server ended with {server.returncode}")


async def sent(client: aiohttp.ClientSession, path: str, body: Any = None) -> Any:
    async with client.request("GET" if body is None else "POST", path, json=body) as response:
        if response.status != 200:
            raise RuntimeError(f"{path}: {response.status} {(await response.text())[:300]}")
        return await response.json()


async def chat(client: aiohttp.ClientSession, page: Any, events: asyncio.Queue[Any], model: str) -> list[str]:
    """The pieces of the answer, as they come by the socket."""
    asked, answered = str(uuid4()), str(uuid4())
    said = {
        "id": asked,
        "role": "user",
        "content": TASK,
        "parentId": None,
        "childrenIds": [answered],
        "models": [model],
    }
    await sent(client, "/api/chat/completions", {
        "model": model, "stream": True, "messages": [{"role": "user", "content": TASK}], "tool_ids": ["notes"],
        "params": {"function_calling": "native"}, "session_id": page.sid, "parent_id": None, "id": answered,
        "user_message": said, "background_tasks": {},
    })  # fmt: skip
    pieces: list[str] = []
    async with asyncio.timeout(ANSWER):
        while True:
            event = await events.get()
            data = event["data"].get("data") or {}
            if event.get("message_id") != answered:
                continue
            if event["data"]["type"] == "chat:message:error" or data.get("error"):
                raise RuntimeError(f"told {data}")
            if data.get("type") == "response.output_text.delta":
                pieces.append(data["delta"])
            if data.get("done"):
                return pieces


async def main(api: str, address: str, key: str, models: list[str]) -> None:
    port = free_port()
    program = str(Path(sys.executable).with_name("open-webui"))
    server = await asyncio.create_subprocess_exec(
        program, "serve", "--host", "127.0.0.1", "--port", str(port), env=environment(api, address, key),
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
            await started(client, server)
            token = (
                await sent(
                    client,
                    "/api/v1/auths/signup",
                    {"name": "A", "email": "a@example.org", "password": "Pass-word-1"},
                )
            )["token"]
            client.headers["Authorization"] = f"Bearer {token}"
            tool = {"id": "notes", "name": "Notes", "content": FUNCTIONS, "meta": {"description": "Notes"}}
            await sent(client, "/api/v1/tools/create", tool)
            listed = {model["id"] for model in (await sent(client, "/api/models"))["data"]}
            events: asyncio.Queue[Any] = asyncio.Queue()
            page = socketio.AsyncClient(reconnection=False)
            page.on("events", events.put_nowait)
            await page.connect(
                f"http://127.0.0.1:{port}",
                socketio_path="/ws/socket.io",
                auth={"token": token},
                transports=["websocket"],
            )
            for model in models:
                pieces, error = [], "" if model in listed else f"{model} is not among {sorted(listed)}"
                try:
                    pieces = pieces if error else await chat(client, page, events, model)
                except Exception as failure:
                    error = f"{type(failure).__name__}: {failure}"
                print(json.dumps({"model": model, "pieces": pieces, "error": error}), flush=True)
            await page.disconnect()
    finally:
        if server.returncode is None:
            server.kill()
        await server.wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]))

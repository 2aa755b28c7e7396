"""Chromium without a window, by its DevTools protocol (https://chromedevtools.github.io/devtools-protocol/);
no other tools.

A `Page` fails its test for every error that the console shows: broken scripts, refused requests, violations
of the policy.
"""

import asyncio
import atexit
import base64
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

import aiohttp
import pytest

HANG = 30.0
"""Seconds after which a test gives up."""
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless=new", "--remote-debugging-port=0", "--no-first-run", "--disable-gpu", "--disable-dev-shm-usage", "--no-sandbox",
    "--disable-background-networking", "--disable-component-update", "--disable-extensions", "--hide-scrollbars",
    "--no-proxy-server", "--lang=en", "--disable-features=DialMediaRouteProvider",
)  # fmt: skip


def found() -> str | None:
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """A tab."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, context: str = "") -> None:
        self.context = context  # of the browser, whose settings for downloads are its own
        self._socket = socket
        self._number = 0
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self.problems: list[str] = []
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for message in self._socket:
            wire = json.loads(message.data)
            if (number := wire.get("id")) is not None:
                future = self._waiting.pop(number)
                if not future.done():
                    future.set_result(wire)
            else:
                self._note(wire["method"], wire["params"])

    def _note(self, method: str, params: dict[str, Any]) -> None:
        match method:
            case "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                self.problems.append(details.get("exception", {}).get("description") or details["text"])
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                self.problems.append(
                    " ".join(str(one.get("value", one.get("description"))) for one in params["args"])
                )
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                self.problems.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")

    async def send(self, method: str, **params: Any) -> Any:
        self._number += 1
        future = self._waiting[self._number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": self._number, "method": method, "params": params})
        async with asyncio.timeout(HANG):
            wire = await future
        assert "error" not in wire, wire
        return wire["result"]

    async def js(self, expression: str) -> Any:
        """What the expression gives, awaited where it is a promise."""
        done = await self.send(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    async def until(self, condition: str) -> Any:
        """Waits, in the page, until the condition holds."""
        with_frames = (
            "new Promise((done, fail) => { const end = performance.now() + %d; const look = () => { let value; "
            "try { value = (%s); } catch (error) { value = null; } "
            "if (value) done(value); else if (performance.now() > end) fail(new Error('waited in vain: ' + %s + ' in ' + "
            "document.body.innerText.slice(0, 2000))); else setTimeout(look, 20); }; look(); })"
        )
        return await self.js(with_frames % (HANG * 900, condition, json.dumps(condition)))

    async def open(self, url: str) -> None:
        await self.send("Page.navigate", url=url)
        await self.until("document.readyState === 'complete'")

    async def type(self, selector: str, text: str) -> None:
        """As a person would: into the field that has the focus."""
        await self.js(
            f"(document.querySelector({json.dumps(selector)}).focus(), document.activeElement.select?.())"
        )
        await self.send("Input.insertText", text=text)

    async def press(self, key: str, code: int, text: str = "") -> None:
        event = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        await self.send("Input.dispatchKeyEvent", type="keyDown", text=text, **event)
        await self.send("Input.dispatchKeyEvent", type="keyUp", **event)

    async def click(self, text: str, tag: str = "button") -> None:
        """The first such element with this text."""
        find = f"[...document.querySelectorAll({json.dumps(tag)})].find((one) => one.textContent.trim() === {json.dumps(text)})"
        await self.until(f"{find} && !{find}.disabled")
        await self.js(f"{find}.click()")

    async def size(self, width: int, height: int = 900, *, dark: bool = False) -> None:
        await self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = "dark" if dark else "light"
        await self.send(
            "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
        )

    async def picture(self, name: str) -> None:
        """A screenshot, where SCREENSHOTS names a folder for them."""
        if folder := os.environ.get("SCREENSHOTS"):
            data = (await self.send("Page.captureScreenshot", format="png"))["data"]
            Path(folder, f"{name}.png").write_bytes(base64.b64decode(data))

    async def close(self) -> None:
        self._reading.cancel()
        await self._socket.close()


class Chromium:
    """One browser for all tests of a process: starting it takes a second of CPU. Each test has a context of its
    own in it: cookies, storage and cache."""

    def __init__(self, program: str) -> None:
        self._profile = TemporaryDirectory(ignore_cleanup_errors=True)
        self.process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={self._profile.name}", "about:blank"], stderr=subprocess.PIPE
        )
        self.address: Future[str] = Future()
        Thread(target=self._read, daemon=True).start()
        atexit.register(self.end)

    def _read(self) -> None:
        """Takes the address, and whatever else is told, so that the pipe is never full."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if b"DevTools listening on ws://" in line and not self.address.done():
                self.address.set_result(line.decode().strip().partition("ws://")[2])
        if not self.address.done():
            self.address.set_exception(AssertionError("Chromium did not start"))

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self._profile.cleanup()


_running: list[Chromium] = []


def _browser(program: str) -> Chromium:
    while _running and _running[0].process.poll() is not None:
        _running.pop().end()
    if not _running:
        _running.append(Chromium(program))
    return _running[0]


@asynccontextmanager
async def page() -> AsyncIterator[Page]:
    """A tab that shares nothing with other tests' tabs. Skips the test where there is no Chromium."""
    program = found()
    if program is None:
        pytest.skip("there is no Chromium here (apt-get install chromium, or CHROMIUM=/path)")
    async with asyncio.timeout(HANG):
        address = await asyncio.wrap_future(_browser(program).address)
    async with aiohttp.ClientSession() as session:
        browser = Page(await session.ws_connect(f"ws://{address}"))
        made = await browser.send("Target.createBrowserContext", disposeOnDetach=True)
        tab = await browser.send("Target.createTarget", url="about:blank", **made)
        at = f"ws://{address.partition('/')[0]}/devtools/page/{tab['targetId']}"
        opened = Page(await session.ws_connect(at, max_msg_size=64 << 20), made["browserContextId"])
        try:
            for domain in ("Runtime", "Page", "Log"):
                await opened.send(f"{domain}.enable")
            yield opened
        finally:
            await opened.close()
            await browser.close()

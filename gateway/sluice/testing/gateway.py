"""The gateway on loopback, in a thread with an event loop of its own."""

import asyncio
import secrets
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self
from urllib.request import ProxyHandler, build_opener

from sluice.config.loader import load_mapping
from sluice.identity.keys import digest_of
from sluice.process.gateway import Gateway
from sluice.testing.upstream import ScriptedUpstream
from sluice.web.logger import LoggerLines


class RunningGateway:
    """A gateway, to be entered by `with` or `async with`.

    `url`: the API's base, without a slash. `key` may use every alias, and is also the admin key. `upstream`:
    the upstream of the model "scripted". Log lines go to the logger "sluice", where pytest's caplog finds
    them.
    """

    url: str
    admin_url: str

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        self.key = f"sk-sluice-{secrets.token_hex(16)}"
        self.upstream = ScriptedUpstream()
        self._config = config or {}
        self._started: Future[None] = Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve()), name="sluice gateway", daemon=True
        )

    def __enter__(self) -> Self:
        """Raises ConfigError with everything that is wrong with the configuration."""
        self._thread.start()
        self._started.result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.__enter__)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.__exit__, kind, error, at)

    def metrics(self) -> str:
        """Returns the present exposition, as Prometheus reads it."""
        with build_opener(ProxyHandler({})).open(self.admin_url + "/metrics", timeout=30) as response:
            text: str = response.read().decode()
            return text

    def metric(self, name: str, **labels: str) -> float:
        """Returns the sum of the series of this name with these labels; 0.0 if there are none.

        gw.metric("sluice_requests_total", code="2xx")
        """
        wanted = {f'{label}="{value}"' for label, value in labels.items()}
        found = 0.0
        for line in self.metrics().splitlines():
            series, _, value = line.rpartition(" ")
            of, _, written = series.removesuffix("}").partition("{")
            if of == name and wanted <= set(written.split(",")):
                found += float(value)
        return found

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        try:
            async with self.upstream, Gateway(load_mapping(self._sections()), LoggerLines()) as running:
                self.url, self.admin_url = (
                    "http://{}:{}".format(*at) for at in (running.address, running.admin_address)
                )
                self._started.set_result(None)
                await self._stop.wait()
        except Exception as error:
            if self._started.done():
                raise
            self._started.set_exception(error)

    def _sections(self) -> dict[str, Any]:
        """Returns the usual sections, overridden by those that were given: upstreams and aliases by name,
        other sections as a whole."""
        given, digest = self._config, digest_of(self.key)
        usual: dict[str, Any] = {
            "keys": [{"id": "test", "digest": digest, "aliases": ["*"], "default_alias": "echo"}],
            "admin": {"digest": digest},
            "limits": {"address": None},
        }
        upstreams = {
            "echo": {"backend": "echo"},
            "scripted": {"backend": "openai", "base_url": self.upstream.url},
        }
        aliases = {name: {"tiers": [[{"upstream": name, "model": name}]]} for name in upstreams}
        server = {"listen": "127.0.0.1:0", "admin_listen": "127.0.0.1:0", "drain_delay": 0}
        return {
            **usual,
            **given,
            "upstreams": upstreams | given.get("upstreams", {}),
            "aliases": aliases | given.get("aliases", {}),
            "server": given.get("server", {}) | server,
        }


def gateway(config: Mapping[str, Any] | None = None) -> RunningGateway:
    """Returns a gateway with the models "echo" and "scripted", and the sections of `config`, written as in
    its file."""
    return RunningGateway(config)

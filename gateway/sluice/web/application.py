"""The applications: the API, and the admin routes of the same gateway."""

from collections.abc import AsyncIterator, Mapping
from os import PathLike, fspath
from typing import Any

from aiohttp import web
from aiohttp.http import SERVER_SOFTWARE

from sluice.config.loader import Loaded, load, load_mapping
from sluice.telemetry.logs import LogLines
from sluice.web.embedded import EmbeddedGateway
from sluice.web.logger import LoggerLines

GATEWAY = web.AppKey("gateway", EmbeddedGateway)
ANY_PATH = "/{path:(?s:.*)}"
"""Every path below the prefix, also with an encoded line feed in it. The API answers unknown paths in its
dialects."""

Config = str | PathLike[str] | Mapping[str, Any] | Loaded
"""A configuration: the path of its file, its sections as a mapping, or a Loaded that `sluice.config.loader`
made."""


def application(config: Config, *, lines: LogLines | None = None) -> web.Application:
    """Returns the API of the gateway with this configuration.

    Its state lives from the application's startup to its cleanup. On shutdown, calls in flight may finish
    within `server.drain_timeout`; the remaining ones are ended by an error in their dialect. `lines` receives
    log lines, in place of the logger "sluice". Raises ConfigError.
    """
    gateway = EmbeddedGateway(_loaded(config), lines or LoggerLines())

    async def running(app: web.Application) -> AsyncIterator[None]:
        async with gateway:
            yield

    async def drain(app: web.Application) -> None:
        await gateway.drain()

    app = _routed(gateway, operators=False)
    app.cleanup_ctx.append(running)
    app.on_shutdown.append(drain)
    return app


def admin(app: web.Application) -> web.Application:
    """Returns the admin routes (metrics, keys, budgets, usage, conversations, probes) of the gateway that
    `application` made.

    They answer 503 while that application is not running. As on the admin port of `sluice serve`, /metrics
    needs no key: make it reachable for operators only.
    """
    return _routed(app[GATEWAY], operators=True)


def _routed(gateway: EmbeddedGateway, *, operators: bool) -> web.Application:
    async def handle(request: web.Request) -> web.StreamResponse:
        return await gateway.answer(request, operators=operators)

    # For an application that is run by itself; a mounted one is served as its parent's runner is configured.
    # Without handler_cancellation it takes up to a second until a call ends whose client has left. The API
    # decompresses bodies itself, within its bounds.
    keepalive = float(gateway.config.server.keepalive_timeout)
    app = web.Application(
        handler_args={"handler_cancellation": True, "auto_decompress": False, "keepalive_timeout": keepalive}
    )
    app[GATEWAY] = gateway
    app.router.add_route("*", ANY_PATH, handle, expect_handler=_wait)
    app.on_response_prepare.append(_without_server)
    return app


async def _wait(request: web.Request) -> None:
    """Sends no 100 Continue here: the code that reads the body does."""


async def _without_server(request: web.Request, response: web.StreamResponse) -> None:
    """Removes aiohttp's Server field with its version and Python's; a Server field that the host sets stays."""
    if response.headers.get("Server") == SERVER_SOFTWARE:
        del response.headers["Server"]


def _loaded(config: Config) -> Loaded:
    match config:
        case Loaded():
            return config
        case Mapping():
            return load_mapping(config)
        case _:
            return load(fspath(config))

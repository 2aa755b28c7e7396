"""Routes about the process itself: liveness, readiness, metrics, and the description of the API."""

import asyncio
from collections.abc import Iterator
from typing import Any

import msgspec

from sluice.api.cors import READ_BY_ALL
from sluice.api.request import Request
from sluice.api.table import OwnRoute
from sluice.runtime.snapshot import Snapshot
from sluice.telemetry.formats import CONTENT_TYPES, format_of

_json = msgspec.json.Encoder().encode


class Probes:
    def __init__(self, runtime: Snapshot) -> None:
        self._runtime = runtime
        self._scraping = asyncio.Lock()

    def routes(self) -> list[OwnRoute]:
        alive, ready = ("/health", "/livez"), ("/healthz", "/readyz")
        found = [OwnRoute("GET", path, self.health, quiet=True) for path in alive]
        return found + [OwnRoute("GET", path, self.ready, quiet=True) for path in ready]

    def scrapes(self) -> list[OwnRoute]:
        return [OwnRoute("GET", "/metrics", self.metrics, quiet=True)]

    async def health(self, request: Request, request_id: str) -> None:
        request.reply(200, b'{"status":"ok"}', READ_BY_ALL)

    async def ready(self, request: Request, request_id: str) -> None:
        """Readiness. `?verbose` adds the current configuration and the state of the stores; neither an
        invalid file nor a failing store makes the process unready, because calls go on.
        """
        ready = self._runtime.state.ready
        found: dict[str, Any] = {"status": "ready" if ready else "draining"}
        if "verbose" in request.query:
            found["config"] = self._runtime.state.following.shown()
            found["stores"] = {name: watch.state() for name, watch in self._runtime.watches.items()}
        request.reply(200 if ready else 503, _json(found))

    async def metrics(self, request: Request, request_id: str) -> None:
        """The metrics of all processes if there are several. Those of one process are sent in pieces while
        they are made: one piece per turn of the event loop, however many scrapers there are.
        """
        fleet = self._runtime.state.fleet
        format = format_of(request.headers.get("accept", ""))
        kind = CONTENT_TYPES[format]
        merged = await fleet.exposition(format) if fleet is not None else None
        if merged is not None:
            request.reply(200, merged, content_type=kind)
            return
        pieces = self._runtime.scrape(format)
        piece, following = await self._piece(pieces), await self._piece(pieces)
        if following is None or request.method == "HEAD":
            request.reply(200, piece or b"", content_type=kind)
            return
        request.begin(kind, ())
        while piece is not None:
            if piece:  # an empty chunk would end the body
                request.write(piece)
                await request.writable()
            piece, following = following, await self._piece(pieces)
        request.write(b"", last=True)

    async def _piece(self, pieces: Iterator[bytes]) -> bytes | None:
        """Returns the next piece, at most one per turn of the event loop; None at the end."""
        async with self._scraping:
            await asyncio.sleep(0)
            return next(pieces, None)

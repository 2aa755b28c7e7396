"""OTLP over HTTP: protobuf by POST (https://opentelemetry.io/docs/specs/otlp/#otlphttp)."""

import asyncio
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import aiohttp

from sluice.otlp.receiver import Exported, ExportResult, ReceiverConfig, Signal, compressed, rejected_by
from sluice.version import VERSION
from sluice.wire.retry_after import parse_retry_after

RESULTS: dict[int, ExportResult] = {
    429: "again", 502: "again", 503: "again", 504: "again",
    400: "refused", 413: "refused", 415: "refused", 422: "refused",
}  # fmt: skip
"""By status; all others but 2xx have failed."""
ANSWER = 64 << 10
"""Bytes of an answer that are read."""
MAX_REQUEST_BYTES = 20 << 20


class HttpReceiver:
    """See `OtlpReceiver`. No redirect is followed: headers hold secrets."""

    largest = MAX_REQUEST_BYTES
    _session: aiohttp.ClientSession

    def __init__(self, config: ReceiverConfig, signal: Signal, deadline: float) -> None:
        self._url = signal_url(config.endpoint, signal)
        self._deadline = deadline
        self._gzip = config.compression == "gzip"
        self._headers = {name: value.reveal() for name, value in config.headers.items()}
        self._headers["content-type"] = "application/x-protobuf"
        if self._gzip:
            self._headers["content-encoding"] = "gzip"

    async def __aenter__(self) -> Self:
        agent = {"user-agent": f"sluice/{VERSION}"}
        timeout = aiohttp.ClientTimeout(total=self._deadline)
        self._session = aiohttp.ClientSession(timeout=timeout, headers=agent)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._session.close()

    async def export(self, body: bytes) -> Exported:
        sent = await asyncio.to_thread(compressed, body) if self._gzip else body
        try:
            async with self._session.post(
                self._url, data=sent, headers=self._headers, allow_redirects=False
            ) as answer:
                read = await answer.content.read(ANSWER)
                if answer.status // 100 == 2:
                    protobuf = answer.content_type == "application/x-protobuf"
                    return Exported("accepted", rejected=rejected_by(read) if protobuf else 0)
                wait = parse_retry_after({name.lower(): value for name, value in answer.headers.items()})
                result = RESULTS.get(answer.status, "failed")
                return Exported(result, f"status {answer.status}", wait=wait or 0.0)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return Exported("again", type(error).__name__)


def signal_url(endpoint: str, signal: Signal) -> str:
    """Returns the URL for a signal at a receiver with the base URL `endpoint`; an address with the signal's
    path is unchanged."""
    named = urlsplit(endpoint).path.endswith(signal.path)
    return endpoint if named else f"{endpoint.rstrip('/')}{signal.path}"

"""Sends records over HTTP: to a webhook, or to an S3-compatible store."""

import asyncio
import gzip
import time
from collections.abc import Callable, Mapping
from hashlib import sha256
from types import TracebackType
from typing import Self
from urllib.parse import quote

import aiohttp
from yarl import URL

from sluice.config.types import RecordBucket, RecordWebhook
from sluice.sinks.delivery import Delivered, RecordBatch
from sluice.version import VERSION
from sluice.wire.sigv4 import AwsKeys, Signer, host_of

DEADLINE = 15.0
"""Seconds for one request."""
REFUSED = frozenset({400, 413, 415, 422})
"""Statuses by which a receiver refuses this body for good. Other failures may be repaired: a token, an
address."""
ANSWER = 64 << 10
"""Bytes of a response that are read, so that its connection can be used again."""


class _OverHttp:
    """Sends one request at a time. Redirects are not followed, because headers contain secrets."""

    _session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        agent = {"user-agent": f"sluice/{VERSION}"}
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=DEADLINE), headers=agent)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._session.close()

    async def _sent(
        self, method: str, url: str, body: bytes, headers: Mapping[str, str], refused: frozenset[int]
    ) -> Delivered:
        try:
            async with self._session.request(
                method, URL(url, encoded=True), data=body, headers=headers, allow_redirects=False
            ) as answer:
                await answer.content.read(ANSWER)
                if answer.status // 100 == 2:
                    return Delivered("delivered")
                return Delivered(
                    "refused" if answer.status in refused else "again", f"status {answer.status}"
                )
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return Delivered("again", type(error).__name__)


class Webhook(_OverHttp):
    """Sends a POST for each batch."""

    def __init__(self, config: RecordWebhook) -> None:
        self._url = config.url
        self._list = config.format == "json"
        self._gzip = config.gzip
        self._headers = {name: value.reveal() for name, value in config.headers.items()}
        self._headers["content-type"] = "application/json" if self._list else "application/x-ndjson"
        if config.gzip:
            self._headers["content-encoding"] = "gzip"

    async def deliver(self, batch: RecordBatch) -> Delivered:
        body = b"[" + b",".join(batch.lines) + b"]" if self._list else batch.body
        body = await asyncio.to_thread(_compressed, body) if self._gzip else body
        headers = {**self._headers, "idempotency-key": batch.name}
        return await self._sent("POST", self._url, body, headers, REFUSED)


class BucketSink(_OverHttp):
    """Stores an object for each batch. A batch that is sent again gets the same name, and so is stored once.

    https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html
    """

    def __init__(self, config: RecordBucket, wall: Callable[[], float] = time.time) -> None:
        base = (config.endpoint or f"https://s3.{config.region}.amazonaws.com").rstrip("/")
        self._base = f"{base}/{quote(config.bucket, safe='')}/{quote(config.prefix, safe='/')}"
        token = config.session_token.reveal() if config.session_token is not None else ""
        self._keys = AwsKeys(config.access_key.reveal(), config.secret_key.reveal(), token)
        self._signer = Signer(config.region, "s3")
        self._wall = wall

    async def deliver(self, batch: RecordBatch) -> Delivered:
        body = await asyncio.to_thread(_compressed, batch.body)
        folder = time.strftime("%Y/%m/%d/%H", time.gmtime(batch.at))
        url = f"{self._base}{folder}/{quote(batch.name, safe='')}.ndjson.gz"
        return await self._sent("PUT", url, body, self._signed(url, body), frozenset())

    def _signed(self, url: str, body: bytes) -> dict[str, str]:
        headers = {
            "content-type": "application/gzip",
            "x-amz-content-sha256": sha256(body).hexdigest(),
            "x-amz-date": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._wall())),
        }
        if self._keys.token:
            headers["x-amz-security-token"] = self._keys.token
        signed = {"host": host_of(url), **headers}
        return {**headers, "authorization": self._signer.authorization(self._keys, "PUT", url, signed, body)}


def _compressed(body: bytes) -> bytes:
    """Compresses the body; equal bodies give equal bytes."""
    return gzip.compress(body, 6, mtime=0)

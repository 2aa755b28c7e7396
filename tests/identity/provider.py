"""An identity provider on a real socket: it publishes keys, signs tokens with them, and counts who asks.

async with provider() as idp:
    idp.publish("k1")
    token = idp.token("k1", sub="u")
"""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from sluice.config.types import Issuer

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@cache
def private(kid: str) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def public(kid: str, **members: Any) -> dict[str, Any]:
    return {**ECAlgorithm.to_jwk(private(kid).public_key(), as_dict=True), "kid": kid, **members}


class Provider:
    """`answer` and `discovery`, where set, are what it does in place of publishing. `gate`: it answers once
    this is set."""

    def __init__(self) -> None:
        self.keys: list[dict[str, Any]] = []
        self.headers: dict[str, str] = {}
        self.answer: Answer | None = None
        self.metadata: dict[str, Any] = {}
        self.requests: list[web.Request] = []
        self.discoveries = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = asyncio.Event()
        self.url = ""

    @property
    def fetches(self) -> int:
        return len(self.requests)

    def publish(self, *kids: str) -> None:
        self.keys = [public(kid) for kid in kids]

    def issuer(self, **options: Any) -> Issuer:
        """The configuration of this provider as an issuer, by URL unless `discovery`."""
        where = {} if options.get("discovery") else {"jwks_url": f"{self.url}/jwks.json"}
        usual: dict[str, Any] = {"issuer": self.url, "audience": "sluice", "algorithms": ("ES256",), **where}
        return Issuer(**{**usual, **options})

    def token(self, kid: str, *, name: str | None = None, **claims: Any) -> str:
        """Signed by the key `kid`; `name`: what it says its key is."""
        usual = {"iss": self.url, "aud": "sluice", "sub": "u", "exp": time.time() + 600}
        return jwt.encode({**usual, **claims}, private(kid), "ES256", {"kid": name or kid})

    async def _jwks(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.asked.set()
        await self.gate.wait()
        if self.answer is not None:
            return await self.answer(request)
        return web.json_response({"keys": self.keys}, headers=self.headers)

    async def _discovery(self, request: web.Request) -> web.StreamResponse:
        self.discoveries += 1
        usual = {
            "issuer": self.url,
            "jwks_uri": f"{self.url}/jwks.json",
            "authorization_endpoint": f"{self.url}/authorize",
        }
        return web.json_response({**usual, **self.metadata})


@asynccontextmanager
async def provider(tls: ssl.SSLContext | None = None) -> AsyncIterator[Provider]:
    idp = Provider()
    app = web.Application()
    app.router.add_get("/jwks.json", idp._jwks)
    app.router.add_get("/.well-known/openid-configuration", idp._discovery)
    app.router.add_get("/realms/one/.well-known/openid-configuration", idp._discovery)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    host, port = runner.addresses[0][:2]
    idp.url = f"{'https' if tls else 'http'}://{host}:{port}"
    try:
        yield idp
    finally:
        idp.gate.set()
        await runner.cleanup()

"""OpenID providers to sign in at: a real one, and one that does what a test wants of it."""

import asyncio
import json
import re
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import aiohttp
import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

NODE = Path(__file__).parents[2] / ".cache/ui-node"
HANG = 60.0
KEY = rsa.generate_private_key(65537, 2048)
OTHER_KEY = rsa.generate_private_key(65537, 2048)


@asynccontextmanager
async def certified(
    redirect_uri: str, *, secret: str = "", groups_in: str = "id_token"
) -> AsyncIterator[str]:
    """The issuer of a running oidc-provider whose client is "sluice"; `groups_in`: id_token or userinfo."""
    node = shutil.which("node")
    if node is None or not (NODE / "node_modules/oidc-provider").is_dir():
        pytest.skip("node or npm's oidc-provider is not installed (see .cache/log/ui-node.log)")
    process = await asyncio.create_subprocess_exec(
        node, "provider.mjs", "sluice", secret, redirect_uri, groups_in,
        cwd=NODE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        async with asyncio.timeout(HANG):
            port = int(await process.stdout.readline())
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        await process.wait()


async def person(url: str, name: str, redirect_uri: str) -> str:
    """Where oidc-provider sends the browser of somebody who signs in as `name`, and agrees."""
    async with (
        asyncio.timeout(HANG),
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser,
    ):
        form: dict[str, str] | None = None
        for _ in range(12):
            async with browser.request(
                "GET" if form is None else "POST", url, data=form, allow_redirects=False
            ) as response:
                page = await response.text()
                if response.status in (302, 303):
                    url, form = urljoin(url, response.headers["location"]), None
                    if url.startswith(redirect_uri):
                        return url
                    continue
            assert response.status == 200, page[:2000]
            found = re.search(r'name="prompt" value="(\w+)"', page)
            action = re.search(r'action="([^"]+)"', page)
            assert found is not None, page[:2000]
            assert action is not None, page[:2000]
            url = urljoin(url, action[1])
            form = {"prompt": found[1], "login": name, "password": "x"}
    raise AssertionError("the provider goes round in circles")


class Hostile:
    """A provider that answers as it is told: `claims` replace those of the ID token, `token` the token
    itself."""

    def __init__(self) -> None:
        self.url = ""
        self.metadata: dict[str, Any] = {}
        self.claims: dict[str, Any] = {}
        self.header: dict[str, Any] = {"kid": "k1"}
        self.key: Any = KEY
        self.algorithm = "RS256"
        self.token: str | None = None
        self.status = 200
        self.userinfo: dict[str, Any] = {}
        self.codes: dict[str, dict[str, str]] = {}
        self.asked: list[tuple[dict[str, str], str]] = []
        self.discoveries = 0

    def authorize(self, url: str, code: str = "code-1", **more: str) -> str:
        """What the browser comes back with from `url`: the query of the callback."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        self.codes[code] = asked
        return "&".join(
            f"{name}={value}" for name, value in {"code": code, "state": asked["state"], **more}.items()
        )

    async def _discovery(self, request: web.Request) -> web.StreamResponse:
        self.discoveries += 1
        places = {
            "authorization_endpoint": "authorize",
            "token_endpoint": "token",
            "jwks_uri": "jwks",
            "userinfo_endpoint": "me",
        }
        return web.json_response(
            {
                "issuer": self.url,
                **{name: f"{self.url}/{path}" for name, path in places.items()},
                **self.metadata,
            }
        )

    async def _token(self, request: web.Request) -> web.StreamResponse:
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.asked.append((form, request.headers.get("authorization", "")))
        known = self.codes.pop(form.get("code", ""), None)  # a code is good for once
        if known is None or self.status != 200:
            return web.json_response({"error": "invalid_grant"}, status=400 if known is None else self.status)
        usual = {
            "iss": self.url, "aud": "sluice", "sub": "s-1", "exp": time.time() + 300, "iat": time.time(),
            "nonce": known["nonce"], "groups": ["staff"],
        }  # fmt: skip
        claims = {name: value for name, value in {**usual, **self.claims}.items() if value is not None}
        token = (
            self.token
            if self.token is not None
            else jwt.encode(claims, self.key, self.algorithm, self.header)
        )
        return web.json_response({"id_token": token, "access_token": "at", "token_type": "Bearer"})

    async def _jwks(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(
            {"keys": [{**RSAAlgorithm.to_jwk(KEY.public_key(), as_dict=True), "kid": "k1", "use": "sig"}]}
        )

    async def _me(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=json.dumps(self.userinfo).encode(), content_type="application/json")


@asynccontextmanager
async def hostile() -> AsyncIterator[Hostile]:
    idp = Hostile()
    app = web.Application()
    app.router.add_get("/.well-known/openid-configuration", idp._discovery)
    app.router.add_post("/token", idp._token)
    app.router.add_get("/jwks", idp._jwks)
    app.router.add_get("/me", idp._me)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    idp.url = f"http://{host}:{port}"
    try:
        yield idp
    finally:
        await runner.cleanup()

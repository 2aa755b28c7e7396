"""Sends requests to an OpenID provider: for its metadata, the tokens for a code, its keys, and userinfo.

As in `sluice.identity.remote`: https, or http to this machine; no redirects, proxies or cookies; one deadline
and one maximum size for all. Keys are fetched for each sign-in, because sign-ins are rare and a withdrawn key
must not verify anything.
"""

import asyncio
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import quote_plus

import aiohttp
import msgspec

from sluice.config.types import Oidc
from sluice.identity.jwks import Jwk, parse_jwks
from sluice.identity.oidc import Flow, Metadata, SignInFailed, metadata_of
from sluice.identity.remote import DEADLINE, FetchFailed, client, get, read

LIFE = 300.0
"""Seconds for which metadata is used."""
PAUSE = 2.0
"""Seconds after a failure during which the provider is not asked again; other requests get the same error."""
MAX_CODE_LENGTH = 4_096

T = TypeVar("T")


class Tokens(msgspec.Struct, frozen=True):
    """The token response for a code (Core 1.0 section 3.1.3.3), with the fields that are used."""

    id_token: str
    access_token: str = ""


class _TokenError(msgspec.Struct, frozen=True):
    """The error response of the token endpoint (RFC 6749 section 5.2), with the fields that are used."""

    error: str


class Discovery:
    """Caches the metadata of one issuer. `clock` is monotonic, in seconds."""

    def __init__(self, issuer: str, clock: Callable[[], float]) -> None:
        self._issuer = issuer
        self._clock = clock
        self._found: tuple[float, Metadata] | None = None
        self._failed: tuple[float, str] | None = None
        self._lock = asyncio.Lock()

    @property
    def known(self) -> Metadata | None:
        """Returns the metadata that was read last, however old; None if none has been read yet."""
        return self._found[1] if self._found is not None else None

    async def metadata(self) -> Metadata:
        """Raises SignInFailed("provider")."""
        async with self._lock:  # several sign-ins at a time cost one request
            if self._found is not None and self._clock() - self._found[0] < LIFE:
                return self._found[1]
            if self._failed is not None and self._clock() - self._failed[0] < PAUSE:
                raise SignInFailed("provider", self._failed[1])
            try:
                found = await self._read()
            except SignInFailed as failed:
                self._failed = (self._clock(), failed.detail)
                raise
            self._found = (self._clock(), found)
            return found

    async def _read(self) -> Metadata:
        data = await _within(self._fetch)
        try:
            return metadata_of(data, self._issuer)
        except ValueError as error:
            raise SignInFailed("provider", f"metadata: {error}") from None

    async def _fetch(self, session: aiohttp.ClientSession) -> bytes:
        data, _ = await get(session, self._issuer.removesuffix("/") + "/.well-known/openid-configuration")
        return data


async def exchange(metadata: Metadata, oidc: Oidc, flow: Flow, code: str) -> Tokens:
    """Returns the tokens for a code (Core 1.0 section 3.1.3; RFC 7636 section 4.5).

    Raises SignInFailed: "token" for a code that the provider does not know (`invalid_grant`, RFC 6749 section
    5.2), else "provider".
    """
    form = {
        "grant_type": "authorization_code",
        "code": code[:MAX_CODE_LENGTH],
        "redirect_uri": flow.redirect_uri,
        "code_verifier": flow.verifier,
    }
    headers: dict[str, str] = {}
    if oidc.client_secret is None:
        form["client_id"] = oidc.client_id
    elif "client_secret_basic" in metadata.token_endpoint_auth_methods_supported:
        name, secret = (
            quote_plus(oidc.client_id),
            quote_plus(oidc.client_secret.reveal()),
        )  # RFC 6749 section 2.3.1
        headers["Authorization"] = f"Basic {b64encode(f'{name}:{secret}'.encode()).decode()}"
    else:
        form |= {"client_id": oidc.client_id, "client_secret": oidc.client_secret.reveal()}

    async def ask(session: aiohttp.ClientSession) -> bytes:
        async with session.post(
            metadata.token_endpoint, data=form, headers=headers, allow_redirects=False
        ) as response:
            data = await read(response)
            if response.status == 400 and _is_invalid_grant(data):
                raise SignInFailed("token", "invalid_grant")
            if response.status != 200:
                raise SignInFailed("provider", f"the token endpoint answered {response.status}")
            return data

    try:
        return msgspec.json.decode(await _within(ask), type=Tokens)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise SignInFailed("provider", "no ID token was given") from None


def _is_invalid_grant(data: bytes) -> bool:
    try:
        return msgspec.json.decode(data, type=_TokenError).error == "invalid_grant"
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


async def keys(metadata: Metadata) -> tuple[Jwk, ...]:
    """Returns the provider's keys as they are published now. Raises SignInFailed("provider")."""

    async def ask(session: aiohttp.ClientSession) -> bytes:
        data, _ = await get(session, metadata.jwks_uri)
        return data

    try:
        return parse_jwks(await _within(ask))
    except ValueError:
        raise SignInFailed("provider", "the key set cannot be read") from None


async def userinfo(metadata: Metadata, tokens: Tokens, subject: object) -> Mapping[str, Any]:
    """Returns the userinfo claims of this subject (Core 1.0 section 5.3); none if the provider has no
    userinfo endpoint. Raises SignInFailed."""
    url = metadata.userinfo_endpoint
    if url is None or not tokens.access_token:
        return {}

    async def ask(session: aiohttp.ClientSession) -> bytes:
        headers = {"Authorization": f"Bearer {tokens.access_token}"}
        async with session.get(url, headers=headers, allow_redirects=False) as response:
            return await read(response) if response.status == 200 else b"{}"

    try:
        found: dict[str, Any] = msgspec.json.decode(await _within(ask), type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise SignInFailed("provider", "userinfo is no JSON object") from None
    return (
        found if found.get("sub") == subject else {}
    )  # section 5.3.2: claims of another subject must not be used


async def _within(ask: Callable[[aiohttp.ClientSession], Any]) -> bytes:
    """Returns the result of `ask`, within the time limit. Raises SignInFailed("provider")."""
    try:
        async with asyncio.timeout(DEADLINE), client() as session:
            data: bytes = await ask(session)
            return data
    except FetchFailed as failed:
        raise SignInFailed("provider", failed.outcome) from None
    except TimeoutError:
        raise SignInFailed("provider", "timeout") from None
    except (aiohttp.ClientError, OSError, ValueError):
        raise SignInFailed("provider", "unreachable") from None

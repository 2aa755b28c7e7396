"""OAuth 2.0 token endpoints (RFC 6749 5): a form goes there, a token with its life comes back. What kinds have in common."""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import msgspec

from sluice.backends.credentials import CredentialFailed, Setting
from sluice.backends.transport import Headers, UpstreamRequest
from sluice_plugins.credentials.refreshing import Fresh

LARGEST = 1 << 20
"""Bytes of a file."""
SHORTEST = 300.0
"""Seconds that a token lives whose answer does not say for how long."""
FORM = (("content-type", "application/x-www-form-urlencoded"), ("accept", "application/json"))


class _Answer(msgspec.Struct):
    access_token: str = ""
    expires_in: float | None = None
    expires_on: float | None = None
    error: object = None


async def token_of(setting: Setting, url: str, form: Mapping[str, str], headers: Headers = ()) -> Fresh[str]:
    """The token that an endpoint gives for a form. Raises CredentialFailed, with the endpoint's own error code."""
    check_endpoint(url)
    body = urlencode(form).encode()
    return await asked(setting, UpstreamRequest(url, (*FORM, *headers), body))


async def asked(setting: Setting, request: UpstreamRequest) -> Fresh[str]:
    """The token that an endpoint answers a request with. Microsoft's metadata servers write numbers as text."""
    answer = await setting.fetch(request)
    try:
        given = msgspec.json.decode(answer.body, type=_Answer, strict=False)
    except msgspec.DecodeError:
        given = _Answer()
    host = urlsplit(request.url).hostname
    if answer.status != 200 or not given.access_token:
        raise CredentialFailed(f"{host} answered {answer.status}{_code(given.error)}")
    if given.expires_on is not None:
        return Fresh(given.access_token, given.expires_on)
    life = given.expires_in if given.expires_in is not None else SHORTEST
    return Fresh(given.access_token, setting.wall() + life)


def _code(error: object) -> str:
    """An error's code, if it is one of RFC 6749 5.2: descriptions may repeat what was sent."""
    return f" ({error})" if isinstance(error, str) and error.replace("_", "").isalpha() and len(error) <= 64 else ""


def check_endpoint(url: str) -> None:
    """Secrets go over TLS, or to this machine. Raises CredentialFailed."""
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "::1", "localhost"):
        raise CredentialFailed("a token endpoint must be an https:// URL")


def text_of(path: str) -> str:
    """A file's text, to be called in a thread. Raises CredentialFailed."""
    try:
        with Path(path).open("rb") as file:
            return file.read(LARGEST).decode().strip()
    except OSError as error:
        raise CredentialFailed(f"cannot read {path}: {(error.strerror or 'failed').lower()}") from None
    except UnicodeDecodeError:
        raise CredentialFailed(f"cannot read {path}: not UTF-8") from None

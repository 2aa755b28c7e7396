"""Requests tokens from OAuth 2.0 token endpoints (RFC 6749 5); shared by several credential kinds."""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import msgspec

from sluice.backends.credentials import CredentialFailed, Setting
from sluice.backends.transport import Headers, UpstreamRequest
from sluice_plugins.credentials.refreshing import Fresh

MAX_FILE_BYTES = 1 << 20
"""Most bytes of a file."""
DEFAULT_LIFETIME = 300.0
"""Lifetime of a token, in seconds, if the answer has none."""
FORM = (("content-type", "application/x-www-form-urlencoded"), ("accept", "application/json"))


class _Answer(msgspec.Struct):
    access_token: str = ""
    expires_in: float | None = None
    expires_on: float | None = None
    error: object = None


async def token_of(setting: Setting, url: str, form: Mapping[str, str], headers: Headers = ()) -> Fresh[str]:
    """Send a form and return the token in the answer. Raises CredentialFailed, with the endpoint's error
    code."""
    check_endpoint(url)
    body = urlencode(form).encode()
    return await token_for(setting, UpstreamRequest(url, (*FORM, *headers), body))


async def token_for(setting: Setting, request: UpstreamRequest) -> Fresh[str]:
    """Send a request and return the token in the answer. Microsoft's metadata servers write numbers as
    strings, so decoding is not strict."""
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
    life = given.expires_in if given.expires_in is not None else DEFAULT_LIFETIME
    return Fresh(given.access_token, setting.wall() + life)


def _code(error: object) -> str:
    """Returns an error's code (RFC 6749 5.2), without its description, which may repeat what was sent."""
    return (
        f" ({error})"
        if isinstance(error, str) and error.replace("_", "").isalpha() and len(error) <= 64
        else ""
    )


def check_endpoint(url: str) -> None:
    """Raise CredentialFailed for a URL that would send secrets without TLS to another machine."""
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "::1", "localhost"):
        raise CredentialFailed("a token endpoint must be an https:// URL")


def text_of(path: str) -> str:
    """Returns a file's text, blocking: call it in a thread. Raises CredentialFailed."""
    try:
        with Path(path).open("rb") as file:
            return file.read(MAX_FILE_BYTES).decode().strip()
    except OSError as error:
        raise CredentialFailed(f"cannot read {path}: {(error.strerror or 'failed').lower()}") from None
    except UnicodeDecodeError:
        raise CredentialFailed(f"cannot read {path}: not UTF-8") from None

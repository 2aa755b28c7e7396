"""AWS Signature Version 4: the headers that authenticate a request, including its body. Pure.

The path is encoded once more than it is sent, as all services except S3 require: a model's id that is `a%3Ab`
in the URL is signed as `a%253Ab`. For S3 it is signed as it is sent.
https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html
"""

import hmac
import re
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from hashlib import sha256
from urllib.parse import quote, urlsplit

import msgspec

Pairs = tuple[tuple[str, str], ...]
ALGORITHM = "AWS4-HMAC-SHA256"


class AwsKeys(msgspec.Struct, frozen=True):
    """An access key. `token`: that of a session; "" for a user's own key."""

    access_key: str
    secret_key: str
    token: str = ""

    __repr__ = object.__repr__


class Signer:
    """Signs requests for one service in one region."""

    def __init__(self, region: str, service: str) -> None:
        self._region = region
        self._service = service
        self._path = _as_sent if service == "s3" else _encoded_again
        self._derived: tuple[AwsKeys, str, bytes] | None = None

    def headers(
        self, keys: AwsKeys, method: str, url: str, body: bytes, *, at: float, content_type: str = ""
    ) -> tuple[tuple[str, str], ...]:
        """Returns the headers to add to a request that is sent at the time `at` (seconds since the epoch)
        with this content type."""
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(at))
        added = [("x-amz-date", stamp)]
        if keys.token:
            added.append(("x-amz-security-token", keys.token))
        signed = {"host": host_of(url), **dict(added)}
        if content_type:
            signed["content-type"] = content_type
        return (*added, ("authorization", self.authorization(keys, method, url, signed, body)))

    def authorization(
        self, keys: AwsKeys, method: str, url: str, signed: Mapping[str, str], body: bytes
    ) -> str:
        """Returns the Authorization header of a request with the headers `signed` (lower-case names,
        x-amz-date among them)."""
        stamp = signed["x-amz-date"]
        scope = f"{stamp[:8]}/{self._region}/{self._service}/aws4_request"
        names = ";".join(sorted(signed))
        request = canonical_request(method, url, signed, sha256(body).hexdigest(), path=self._path)
        text = f"{ALGORITHM}\n{stamp}\n{scope}\n{sha256(request.encode()).hexdigest()}"
        signature = hmac.digest(self._key(keys, stamp[:8]), text.encode(), "sha256").hex()
        return (
            f"{ALGORITHM} Credential={keys.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
        )

    def _key(self, keys: AwsKeys, day: str) -> bytes:
        """Returns the signing key of a day; the last one is cached."""
        derived = self._derived
        if derived is None or derived[1] != day or derived[0] is not keys:
            key = ("AWS4" + keys.secret_key).encode()
            for part in (day, self._region, self._service, "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            derived = self._derived = keys, day, key
        return derived[2]


def _as_sent(path: str) -> str:
    return path or "/"


def _encoded_again(path: str) -> str:
    return quote(_normal(path), safe="/~")


def canonical_request(
    method: str,
    url: str,
    signed: Mapping[str, str],
    body_hash: str,
    *,
    path: Callable[[str], str] = _encoded_again,
) -> str:
    """Returns the canonical request. `path`: in the form that the service requires."""
    place, query = _place(url, path)
    names = sorted(signed)
    lines = "".join(f"{name}:{' '.join(signed[name].split())}\n" for name in names)
    return f"{method}\n{place}\n{query}\n{lines}\n{';'.join(names)}\n{body_hash}"


@lru_cache(256)
def _place(url: str, path: Callable[[str], str]) -> tuple[str, str]:
    """Returns path and query as they are signed. Cached: requests go to a few URLs again and again."""
    parts = urlsplit(url)
    return path(parts.path), _query(parts.query)


@lru_cache(256)
def host_of(url: str) -> str:
    """Returns the host as it is sent: without the scheme's default port."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    own = {"https": 443, "http": 80}.get(parts.scheme)
    return host if parts.port in (None, own) else f"{host}:{parts.port}"


_DOTS = re.compile(r"//|/\.\.?(?:/|\Z)")


def _normal(path: str) -> str:
    """Returns a path without empty, "." and ".." segments (RFC 3986 5.2.4), as botocore does: a slash at its
    end is kept."""
    if not _DOTS.search(path):
        return path or "/"
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in ("", "."):
            kept.append(segment)
    end = "/" if kept and path.endswith("/") else ""
    return "/" + "/".join(kept) + end


def _query(query: str) -> str:
    """Returns the query's parameters as they are sent, sorted by name and value."""
    if not query:
        return ""
    pairs = [(name, value) for name, _, value in (part.partition("=") for part in query.split("&"))]
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))

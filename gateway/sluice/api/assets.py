"""Files for browsers: pages, scripts, styles. Read once, at the first request, and revalidated by their hash.

A folder may be *hashed*: its pages name their files below a digest of the whole folder (`3f0c…/app.js`), where a
browser may keep them for ever, for another version of the folder has other names (RFC 8246).

Each response has a policy that lets a page load only this gateway's files, and no inline code
(https://www.w3.org/TR/CSP3/). A client that already has the file gets a 304 (RFC 9110 13.1.2).
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import PurePosixPath

import msgspec

from sluice.api.request import Request
from sluice.errors import NotFound

TYPES: Mapping[str, str] = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
Headers = tuple[tuple[str, str], ...]
FOREVER = "public, max-age=31536000, immutable"
_HASH = re.compile(r"[0-9a-f]{16}")
_OWN_FILE = re.compile(rb'((?:src|href)=")(?=[\w./-]+")')
"""Attributes that name a file of the page's own folder."""


class Asset(msgspec.Struct, frozen=True):
    content: bytes
    content_type: str
    tag: str

    def headers(self, cache: str) -> Headers:
        return (("Cache-Control", cache), ("ETag", self.tag), ("Content-Security-Policy", POLICY))


class Assets:
    """Loads the files in a package's folder, by path. `more`: headers of every response; `cache`: its
    Cache-Control, but for names with the hash of a `hashed` folder."""

    def __init__(
        self, package: str, folder: str, *, cache: str = "no-cache", more: Headers = (), hashed: bool = False
    ) -> None:
        self._find: Callable[[], Traversable] = lambda: files(package).joinpath(folder)
        self._cache = cache
        self._more = more
        self._read: dict[str, Asset] = {}
        self._hash = _hash_of(self._find()) if hashed else ""

    def answer(self, request: Request, name: str) -> None:
        """Answers with the file at this path. Raises NotFound."""
        first, _, rest = name.partition("/")
        cache = FOREVER if first == self._hash else self._cache
        if self._hash and _HASH.fullmatch(first):
            name = rest  # also with the hash of another version: of a page that another replica gave
        asset = self._read.get(name) or self._load(name)
        headers = (*asset.headers(cache), *self._more)
        given = request.headers.get("if-none-match", "")
        known = asset.tag in {tag.strip().removeprefix("W/") for tag in given.split(",")[:16]}
        request.reply(304 if known else 200, b"" if known else asset.content, headers, asset.content_type)

    def _load(self, name: str) -> Asset:
        place, pieces = self._find(), PurePosixPath(name).parts
        content_type = TYPES.get(PurePosixPath(name).suffix)
        if (
            content_type is None
            or not pieces
            or any(not piece.strip(".") or "\\" in piece for piece in pieces)
            or "\0" in name
        ):
            raise NotFound("There is no such file")
        for (
            piece
        ) in pieces:  # piece by piece, among existing entries: a request's path never reaches the file system
            found = (
                next((inner for inner in place.iterdir() if inner.name == piece), None)
                if place.is_dir()
                else None
            )
            if found is None:
                raise NotFound("There is no such file")
            place = found
        if not place.is_file():
            raise NotFound("There is no such file")
        content = place.read_bytes()
        if self._hash and name.endswith(".html"):
            content = _OWN_FILE.sub(rb"\g<1>" + self._hash.encode() + b"/", content)
        tag = f'"{hashlib.sha256(content).hexdigest()[:24]}"'
        asset = self._read[name] = Asset(content, content_type, tag)
        return asset


def _hash_of(folder: Traversable) -> str:
    """The digest of all files below a folder, by their names."""
    digest = hashlib.sha256()
    waiting = [("", folder)]
    while waiting:
        path, place = waiting.pop()
        for inner in sorted(place.iterdir(), key=lambda one: one.name):
            name = f"{path}/{inner.name}"
            if inner.is_dir():
                waiting.append((name, inner))
            else:
                digest.update(b"%b\0%b\0" % (name.encode(), hashlib.sha256(inner.read_bytes()).digest()))
    return digest.hexdigest()[:16]

"""Files for browsers: pages, scripts, styles. Read once, at the first request, and revalidated by their hash.

Each response has a policy that lets a page load only this gateway's files, and no inline code
(https://www.w3.org/TR/CSP3/). A client that already has the file gets a 304 (RFC 9110 13.1.2).
"""

import hashlib
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


class Asset(msgspec.Struct, frozen=True):
    content: bytes
    content_type: str
    tag: str

    def headers(self, cache: str) -> Headers:
        return (("Cache-Control", cache), ("ETag", self.tag), ("Content-Security-Policy", POLICY))


class Assets:
    """Loads the files in a package's folder, by path. `more`: headers of every response; `cache`: its
    Cache-Control."""

    def __init__(self, package: str, folder: str, *, cache: str = "no-cache", more: Headers = ()) -> None:
        self._find: Callable[[], Traversable] = lambda: files(package).joinpath(folder)
        self._cache = cache
        self._more = more
        self._read: dict[str, Asset] = {}

    def answer(self, request: Request, name: str) -> None:
        """Answers with the file at this path. Raises NotFound."""
        asset = self._read.get(name) or self._load(name)
        headers = (*asset.headers(self._cache), *self._more)
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
        tag = f'"{hashlib.sha256(content).hexdigest()[:24]}"'
        asset = self._read[name] = Asset(content, content_type, tag)
        return asset

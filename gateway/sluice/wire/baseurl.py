"""Turns the address that people write for an upstream into the URL of one of its endpoints.

They write it with a slash at its end, with the endpoint in it (copied from a curl line), with the version or
without, and with a query (Azure's api-version). All of these mean the same, and a query stays behind the
path.
"""

from collections.abc import Sequence
from urllib.parse import urlsplit


def base_of(base_url: str, endings: Sequence[str] = ()) -> tuple[str, str]:
    """Returns the URL without its query, and without a slash or one of `endings` at its end; and the query,
    or "".

    The first of `endings` that matches is taken off, so longer ones come first. Raises ValueError, which says
    what to write, for anything but an http(s) URL with a host and without fragment or credentials.
    """
    try:
        url = urlsplit(base_url)
    except ValueError:
        raise ValueError(
            "base_url has no valid host: an IPv6 address stands in brackets, as https://[::1]:8080/v1"
        ) from None
    if "://" not in base_url:
        raise ValueError("base_url must begin with http:// or https://, such as https://api.example.com/v1")
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ValueError("base_url must be an http(s) URL with a host, such as https://api.example.com/v1")
    if url.fragment:
        raise ValueError("base_url must not have a fragment (#…)")
    if "@" in url.netloc:
        raise ValueError("base_url must not hold credentials: use api_key or headers")
    if any(character.isspace() or not character.isprintable() for character in base_url):
        raise ValueError("base_url must not have spaces or control characters: write %20")
    try:
        url.port  # noqa: B018  it is parsed when it is asked for
    except ValueError:
        raise ValueError("the port in base_url must be a number up to 65535") from None
    path = url.path.rstrip("/")
    for ending in endings:
        if path.endswith(ending):
            path = path.removesuffix(ending).rstrip("/")
            break
    return f"{url.scheme}://{url.netloc}{path}", url.query


def endpoint(base_url: str, path: str, endings: Sequence[str] = ()) -> str:
    """Returns the URL of `path` below a base URL, whose query is kept. `endings` and errors: see `base_of`."""
    base, query = base_of(base_url, endings)
    return f"{base}{path}?{query}" if query else base + path

"""Chooses the proxy to an upstream: a URL, or the one of the environment (`env`)."""

import base64
import ipaddress
import re
from collections.abc import Mapping
from typing import Literal, cast
from urllib.parse import unquote, urlsplit

import msgspec

from sluice.upstream.request import Origin, origin_of
from sluice.upstream.socks import MAX_CREDENTIAL

Scheme = Literal["http", "https", "socks5", "socks5h"]
FROM_ENVIRONMENT = "env"
_PORT = re.compile(r"[0-9]{1,5}").fullmatch
_PORTS = {"socks5": 1080, "socks5h": 1080}
_FORM = (
    "expected http://host:port, https://, socks5:// (we look the upstream's name up) or socks5h:// (the proxy does), "
    'with user:password@ where it needs them, or "env"'
)


class Proxy(msgspec.Struct, frozen=True):
    """`socks5`: the upstream's name is looked up here. `socks5h`: the proxy looks it up, as HTTP proxies do."""

    origin: Origin
    user: str = ""
    password: str = ""
    scheme: Scheme = "http"

    def __repr__(self) -> str:
        return f"Proxy({self.scheme}, {self.origin.name})"

    @property
    def authorization(self) -> str:
        """The value of Proxy-Authorization (RFC 7617), empty without credentials."""
        if not self.user and not self.password:
            return ""
        return f"Basic {base64.b64encode(f'{self.user}:{self.password}'.encode()).decode()}"


def proxy_of(url: str) -> Proxy:
    """Parses a proxy's URL, scheme://[user:password@]host:port. Raises ValueError, without the URL: it may
    hold a password.
    """
    if not url.isprintable():
        raise ValueError(_FORM)
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https", "socks5", "socks5h"):
        raise ValueError(_FORM)
    scheme = cast("Scheme", parts.scheme)
    place = parts.netloc.rpartition("@")[2]
    if scheme in _PORTS and not place.rpartition("]")[2].rpartition(":")[2].isdigit():
        place = f"{place.removesuffix(':')}:{_PORTS[scheme]}"
    origin = origin_of(f"{'https' if scheme == 'https' else 'http'}://{place}")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if scheme in _PORTS and any(len(text.encode()) > MAX_CREDENTIAL for text in (user, password)):
        raise ValueError(f"a user or password for SOCKS 5 has at most {MAX_CREDENTIAL} bytes")
    return Proxy(origin, user, password, scheme)


def check_proxy(text: str) -> None:
    """Raises ValueError for an invalid `proxy` of an upstream."""
    if text != FROM_ENVIRONMENT:
        proxy_of(text)


def proxy_for(text: str, origin: Origin, environ: Mapping[str, str]) -> str | None:
    """Returns the URL of the proxy to `origin`: `text`, or for "env" that of HTTPS_PROXY (HTTP_PROXY for http
    upstreams, ALL_PROXY for both; lower-case names first) unless NO_PROXY contains the host. Raises
    ValueError for an invalid URL in the environment."""
    if text != FROM_ENVIRONMENT:
        return text
    names = ["https_proxy", "HTTPS_PROXY"] if origin.scheme == "https" else ["http_proxy", "HTTP_PROXY"]
    url = next((environ[name] for name in (*names, "all_proxy", "ALL_PROXY") if environ.get(name)), "")
    if not url or spared(environ.get("no_proxy") or environ.get("NO_PROXY") or "", origin):
        return None
    url = url if "://" in url else f"http://{url}"
    try:
        proxy_of(url)
    except ValueError:
        raise ValueError(
            f"the proxy in the environment ({names[1]} or ALL_PROXY) cannot be used: {_FORM}"
        ) from None
    return url


def spared(no_proxy: str, origin: Origin) -> bool:
    """Returns whether NO_PROXY contains this host: as "*", as a name (which covers all names below it), or in
    a network such as 10.0.0.0/8; each may have a port."""
    for entry in no_proxy.replace(",", " ").lower().split():
        if entry == "*":
            return True
        host, colon, port = entry.rpartition(":")
        if colon and _PORT(port) and ":" not in host.strip("[]").replace("::", ""):
            if int(port) != origin.port:
                continue
            entry = host
        if _within(entry.strip("[]"), origin.host.lower()):
            return True
    return False


def _within(entry: str, host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = entry.removeprefix("*").lstrip(".")
        return bool(name) and (host == name or host.endswith(f".{name}"))
    try:
        return address in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False

"""Addresses that the gateway listens on, as the configuration writes them."""

MAX_SOCKET_PATH_BYTES = 103
"""Bytes of a Unix socket's path: 107 on Linux, 103 on macOS."""


def address(text: str) -> tuple[str, int]:
    """ "host:port" -> (host, port); IPv6 in brackets, an empty host is every interface. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if (
        not colon
        or not port.isascii()
        or not port.isdigit()
        or len(port) > 5
        or int(port) > 65535
        or (":" in host) != bracketed
        or " " in host
    ):
        raise ValueError("expected host:port, such as 127.0.0.1:8080 or [::1]:8080, or unix:/path")
    return host, int(port)


def unix_path(text: str) -> str | None:
    """The path of a Unix socket that is written as unix:/path; None for any other address. Raises
    ValueError."""
    if not text.startswith("unix:"):
        return None
    path = text.removeprefix("unix:")
    if not path or "\0" in path or len(path.encode("utf-8", "surrogatepass")) > MAX_SOCKET_PATH_BYTES:
        raise ValueError(
            f"expected unix:/path, of at most {MAX_SOCKET_PATH_BYTES} bytes, such as unix:/run/sluice/api.sock"
        )
    return path


def check_listening(text: str) -> None:
    """Raises ValueError where the text is neither host:port nor unix:/path."""
    if unix_path(text) is None:
        address(text)


def on_loopback(listen: str) -> bool:
    """Returns whether only this machine can reach a listener; an address that cannot be read has its own
    problem."""
    if listen.startswith("unix:"):
        return True
    try:
        host, _ = address(listen)
    except ValueError:
        return True
    return host.lower() in ("localhost", "::1") or host.startswith("127.")

"""Parses the addresses that the gateway listens on."""

MAX_SOCKET_PATH_BYTES = 103
"""Maximum bytes of a Unix socket's path: 107 on Linux, 103 on macOS."""


def address(text: str) -> tuple[str, int]:
    """Parses "host:port" into host and port; IPv6 is in brackets, an empty host means every interface. Raises
    ValueError."""
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
    """Returns the path of a Unix socket that is written as unix:/path; None for any other address. Raises
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
    """Raises ValueError if the text is neither host:port nor unix:/path."""
    if unix_path(text) is None:
        address(text)


def on_loopback(listen: str) -> bool:
    """Returns whether only this machine can reach a listener. An address that cannot be parsed is reported
    elsewhere."""
    if listen.startswith("unix:"):
        return True
    try:
        host, _ = address(listen)
    except ValueError:
        return True
    return host.lower() in ("localhost", "::1") or host.startswith("127.")

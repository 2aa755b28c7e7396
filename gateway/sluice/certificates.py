"""Reads files with certificates and keys, for both sides of TLS: listeners, and connections to upstreams.

Each function raises ValueError for a file that cannot be used, with the option's name, the file and the
reason, and never with its content. To be called outside the event loop, because they read files.
"""

import os
import ssl
from collections.abc import Callable, Iterable

MAX_FILE = 1 << 20
"""Bytes of a file of certificates."""
VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
State = tuple[int, int, int, int]
"""Device, inode, nanoseconds of the last change, size; zeros if there is no such file."""


def trust(context: ssl.SSLContext, path: str, *, option: str = "ca") -> None:
    """Makes the context trust the certificates in a file (PEM or DER), and those that they have signed."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise ValueError(f"{option}: {path} cannot be read: {_why(error)}") from None
    if len(data) > MAX_FILE:
        raise ValueError(f"{option}: {path} is larger than {MAX_FILE >> 10} KiB")
    try:
        context.load_verify_locations(
            cadata=data.decode("ascii", "ignore") if b"-----BEGIN" in data else data
        )
    except (ssl.SSLError, ValueError):  # ValueError: the file is empty
        raise ValueError(f"{option}: {path} holds no certificates (PEM or DER is expected)") from None


def identify(context: ssl.SSLContext, cert: str, key: str | None, password: Callable[[], str]) -> None:
    """Makes the context present the certificate in a file (PEM, with its chain).

    `key` None: it is in the same file. `password`: of an encrypted key; without one OpenSSL would ask at the
    terminal.
    """
    for name, path in (("cert", cert), ("key", key or cert)):
        try:
            if os.stat(path).st_size > MAX_FILE:
                raise ValueError(f"{name}: {path} is larger than {MAX_FILE >> 10} KiB")
            with open(path, "rb"):
                pass
        except OSError as error:
            raise ValueError(f"{name}: {path} cannot be read: {_why(error)}") from None
    try:
        context.load_cert_chain(cert, key, password)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = (error.reason or "") if isinstance(error, ssl.SSLError) else ""
        if reason == "KEY_VALUES_MISMATCH":
            raise ValueError(f"key: is not the key of the certificate in {cert}") from None
        text = "hold no certificate with its key in PEM, or key_password is not the key's"
        raise ValueError(f"cert: {cert} and {key or cert} {text}") from None


def states(paths: Iterable[str]) -> tuple[State, ...]:
    """Returns values that change when the files are replaced.

    They describe the target of a symbolic link, not the link: Kubernetes replaces a secret by pointing a
    symbolic link at another directory.
    """
    return tuple(map(_state, paths))


def _state(path: str) -> State:
    try:
        found = os.stat(path)
    except OSError:
        return (0, 0, 0, 0)
    return (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)


def _why(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()

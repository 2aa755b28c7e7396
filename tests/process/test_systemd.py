"""sd_notify and sd_listen_fds, as systemd speaks them: by a socket in NOTIFY_SOCKET, and by descriptors from
3 on."""

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from sluice.process.ports import CannotListen
from sluice.process.systemd import ServiceManager, inherited_sockets


@contextmanager
def listening(count: int = 1) -> Iterator[list[int]]:
    """Descriptors, one behind the other, of sockets that listen."""
    bound = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    high = 700
    passed = [os.dup2(one.fileno(), high + at) for at, one in enumerate(bound)]
    for one in bound:
        one.close()
    try:
        yield passed
    finally:
        for descriptor in passed:
            with suppress(OSError):  # the test has closed it
                os.close(descriptor)


def environ(count: int, names: str | None = None, pid: int | None = None) -> dict[str, str]:
    given = {"LISTEN_PID": str(pid or os.getpid()), "LISTEN_FDS": str(count), "OTHER": "1"}
    return given if names is None else given | {"LISTEN_FDNAMES": names}


@pytest.mark.parametrize(
    ("count", "names", "expected"),
    [
        (1, None, ["api"]),
        (2, None, ["api", "admin"]),
        (1, "sluice.socket", ["api"]),
        (2, "sluice.socket:sluice.socket", ["api", "admin"]),
        (2, "admin:api", ["admin", "api"]),
        (1, "admin", ["admin"]),
    ],
)
def test_sockets_are_taken_by_their_names_or_in_their_order(
    count: int, names: str | None, expected: list[str]
) -> None:
    with listening(count) as passed:
        given = environ(count, names)
        found = inherited_sockets(given, passed[0])
        assert list(found) == expected
        assert [one.fileno() for one in found.values()] == passed
        assert not any(one.getblocking() or one.get_inheritable() for one in found.values())
        assert given == {"OTHER": "1"}, "programs that are started do not take them for theirs"
        for one in found.values():
            one.close()


@pytest.mark.parametrize(
    "given", [{}, environ(1, pid=1), environ(0), {"LISTEN_FDS": "1"}, environ(1) | {"LISTEN_FDS": "x"}]
)
def test_without_them_or_for_another_process_there_are_none(given: dict[str, str]) -> None:
    assert inherited_sockets(dict(given)) == {}


@pytest.mark.parametrize(
    ("count", "names"),
    [(3, None), (2, "api:api"), (2, "api:other"), (3, "api:admin:other"), (1, "api:admin")],
)
def test_others_are_refused_with_what_is_expected(count: int, names: str | None) -> None:
    with (
        listening(count) as passed,
        pytest.raises(CannotListen, match="expected one named api, and one named admin or none"),
    ):
        inherited_sockets(environ(count, names), passed[0])


def test_what_is_no_listening_socket_is_refused() -> None:
    with socket.socket() as idle, pytest.raises(CannotListen, match="no listening stream socket"):
        inherited_sockets(environ(1), idle.fileno())
    with tempfile.TemporaryFile() as file, pytest.raises(CannotListen, match="cannot be used"):
        inherited_sockets(environ(1), file.fileno())


@contextmanager
def manager(address: str, **more: str) -> Iterator[tuple[ServiceManager, socket.socket]]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind("\0" + address[1:] if address.startswith("@") else address)
        heard.setblocking(False)
        environ = {"NOTIFY_SOCKET": address, **more}
        found = ServiceManager(environ)
        assert environ == {}
        yield found, heard
        found.close()


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_what_the_manager_is_told(kind: str, tmp_path: Path) -> None:
    with manager(str(tmp_path / "notify") if kind == "path" else f"@sluice/test/{os.getpid()}") as (
        told,
        heard,
    ):
        told.ready()
        assert heard.recv(999).split(b"\n")[0] == b"READY=1"
        told.reloading()
        first, monotonic, _ = heard.recv(999).split(b"\n")
        assert (first, monotonic.startswith(b"MONOTONIC_USEC=")) == (b"RELOADING=1", True)
        told.stopping(70.5)
        assert heard.recv(999).split(b"\n")[:2] == [b"STOPPING=1", b"EXTEND_TIMEOUT_USEC=70500000"]
        told.alive()
        assert heard.recv(999) == b"WATCHDOG=1"
        assert told.beat_every is None


def test_a_manager_that_does_not_listen_costs_nothing(tmp_path: Path) -> None:
    with manager(str(tmp_path / "notify")) as (told, heard):
        for _ in range(5000):  # its queue is full at once
            told.alive()
        heard.close()
        told.ready()
    silent = ServiceManager({})
    silent.ready()
    silent.close()
    silent.alive()


@pytest.mark.parametrize(
    ("usec", "pid", "every"),
    [
        ("30000000", None, 15.0),
        ("30000000", "self", 15.0),
        ("30000000", "1", None),
        ("0", None, None),
        ("x", None, None),
    ],
)
def test_the_watchdog_is_beaten_twice_in_its_time_by_whom_it_is_for(
    usec: str, pid: str | None, every: float | None, tmp_path: Path
) -> None:
    more = {"WATCHDOG_USEC": usec} | (
        {} if pid is None else {"WATCHDOG_PID": str(os.getpid()) if pid == "self" else pid}
    )
    with manager(str(tmp_path / "notify"), **more) as (told, _):
        assert told.beat_every == every

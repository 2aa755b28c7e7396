"""The addresses: both families where no host is given, an address in use is said, and left-overs are waited
for."""

import errno
import os
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from sluice.config.types import Server
from sluice.process.ports import CannotListen, Marks, is_left_over, mark_ports, share_ports, take_ports
from tests.servers import free_port

ANY = Server(listen="127.0.0.1:0", admin_listen="127.0.0.1:0")


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def connects(family: socket.AddressFamily, host: str, port: int) -> bool:
    with socket.socket(family) as client:
        return client.connect_ex((host, port)) == 0


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
@pytest.mark.parametrize("take", [take_ports, share_ports])
def test_no_host_is_ipv6_and_ipv4(take: Any) -> None:
    ports = take(Server(listen=":0", admin_listen=":0"))
    for bound in (ports.api, ports.admin):
        port = bound.getsockname()[1]
        bound.listen()
        assert connects(socket.AF_INET6, "::1", port)
        assert connects(socket.AF_INET, "127.0.0.1", port)
    ports.close()


@pytest.mark.parametrize("without", ["socket", "bind"])
def test_no_host_is_ipv4_where_the_system_has_no_ipv6(without: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Ipv4Only(socket.socket):
        def __init__(self, family: int = socket.AF_INET, *args: Any) -> None:
            if family == socket.AF_INET6 and without == "socket":
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            super().__init__(family, *args)

        def bind(self, address: Any) -> None:
            if self.family == socket.AF_INET6:
                raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
            super().bind(address)

    monkeypatch.setattr(socket, "socket", Ipv4Only)
    ports = take_ports(Server(listen=":0", admin_listen=":0"))
    assert ports.api.family == socket.AF_INET
    assert ports.api.getsockname()[0] == "0.0.0.0"
    ports.close()


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
def test_an_address_of_one_family_is_of_that_one() -> None:
    ports = take_ports(Server(listen="[::1]:0", admin_listen="127.0.0.1:0"))
    assert ports.api.family == socket.AF_INET6
    assert ports.admin.family == socket.AF_INET
    ports.close()


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("option", ["listen", "admin_listen"])
def test_an_address_in_use_is_named_with_its_option(option: str, shared: bool) -> None:
    with socket.socket() as other:
        if shared:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(
            CannotListen, match=rf"127\.0\.0\.1:{port} \(server\.{option}\).*in use.*another port"
        ):
            take_ports(
                Server(
                    **{"listen": "127.0.0.1:0", "admin_listen": "127.0.0.1:0", option: f"127.0.0.1:{port}"}
                )
            )


def test_an_address_that_is_let_go_of_in_time_is_had(monkeypatch: pytest.MonkeyPatch) -> None:
    other = socket.socket()
    other.bind(("127.0.0.1", 0))
    other.listen()
    port = other.getsockname()[1]
    looked = threading.Event()
    monkeypatch.setattr("sluice.process.ports.time.sleep", lambda _: (looked.set(), other.close()))
    server = Server(listen=f"127.0.0.1:{port}", admin_listen="127.0.0.1:0")
    ports = take_ports(server, left_over=lambda _: True)
    assert looked.is_set()
    assert ports.api.getsockname()[1] == port
    ports.close()


@pytest.mark.skipif(sys.platform != "linux", reason="by Linux's abstract names")
def test_workers_whose_supervisor_is_gone_are_told_from_a_gateway_and_from_others() -> None:
    server = Server(listen=f"127.0.0.1:{free_port()}", admin_listen="127.0.0.1:0")
    assert not is_left_over(server), "others"
    marks = mark_ports(server)
    assert not is_left_over(server), "a gateway"
    assert mark_ports(server) == Marks(-1, -1)
    os.close(marks.supervisor)
    assert is_left_over(server)
    os.close(marks.everybody)
    assert not is_left_over(server)


def test_a_unix_socket_of_a_gateway_that_is_starting_is_not_taken_from_it(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    server = Server(listen=f"unix:{path}", admin_listen="127.0.0.1:0", socket_mode="0600")
    first = take_ports(server)  # it does not accept yet
    with pytest.raises(CannotListen, match=r"in use.*another path"):
        take_ports(server)
    assert path.stat().st_mode & 0o777 == 0o600
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))  # waits for the first one
        first.api.setblocking(True)
        first.api.accept()[0].close()
    first.close()
    take_ports(server).close()
    assert [found.name for found in tmp_path.iterdir()] == ["api.sock"]


def test_one_of_many_that_find_an_abandoned_unix_socket_has_it(tmp_path: Path) -> None:
    server = Server(listen=f"unix:{tmp_path}/api.sock", admin_listen="127.0.0.1:0")
    for _ in range(20):
        take_ports(server).close()  # leaves the file
        together = threading.Barrier(8)
        had: list[Any] = []

        def take(together: threading.Barrier = together, had: list[Any] = had) -> None:
            together.wait()
            try:
                had.append(take_ports(server))
            except CannotListen as error:
                assert error.in_use  # noqa: PT017 (in a thread)

        threads = [threading.Thread(target=take) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(had) == 1
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"{tmp_path}/api.sock")
        had[0].close()
    assert [found.name for found in tmp_path.iterdir()] == ["api.sock"]


def test_shared_ports_are_had_by_several_and_refuse_until_somebody_listens() -> None:
    server = Server(listen=f"127.0.0.1:{free_port()}", admin_listen=f"127.0.0.1:{free_port()}")
    first, second = share_ports(server), share_ports(server)
    port = first.api.getsockname()[1]
    assert second.api.getsockname()[1] == port
    assert not connects(socket.AF_INET, "127.0.0.1", port)
    second.api.listen()
    assert connects(socket.AF_INET, "127.0.0.1", port)
    first.close()
    second.close()


def test_what_is_no_socket_is_left_alone_and_called_so(tmp_path: Path) -> None:
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(tmp_path / "dead"))
    dead.close()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "dead")
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    before = sorted(tmp_path.iterdir())
    for name in ("file", "folder", "pipe", "link", "nowhere"):
        with pytest.raises(
            CannotListen, match="what stands there is no socket, and is left alone"
        ) as refused:
            take_ports(Server(listen=f"unix:{tmp_path}/{name}", admin_listen="127.0.0.1:0"))
        assert not refused.value.in_use
    assert (sorted(tmp_path.iterdir()), (tmp_path / "file").read_text()) == (before, "mine")


def test_a_lock_that_cannot_be_had_is_named(tmp_path: Path) -> None:
    (tmp_path / "api.sock.lock").symlink_to("/etc/passwd")
    with pytest.raises(CannotListen, match=r"api\.sock\.lock"):
        take_ports(Server(listen=f"unix:{tmp_path}/api.sock", admin_listen="127.0.0.1:0"))

"""Hosts as network namespaces on one machine, joined by a switch whose delay, loss and partitions a test sets.

Each host has its own kernel addresses, routes and TCP connections; files are those of the machine, so a test
reaches servers by their Unix sockets, past the network. Nothing is left of it afterwards.
"""

import fcntl
import itertools
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import pytest

from tests.deploy.switch import address

TUNSETIFF, TAP, NO_HEADER = 0x400454CA, 0x0002, 0x1000
NET = "10.77.0"


class Network:
    """`hosts`: their names. `lines` of a host's programs go to files in `directory`."""

    def __init__(self, hosts: Sequence[str], directory: Path, stack: ExitStack) -> None:
        self._places = {name: place for place, name in enumerate(hosts)}
        self._directory = directory
        self._stack = stack
        self._numbers = itertools.count()
        devices = [self._host(name) for name in hosts]
        for descriptor in devices:
            stack.callback(os.close, descriptor)
        self._switch = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("switch.py")), *map(str, devices)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=devices,
            text=True,
            bufsize=1,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        stack.callback(self._end_switch)

    def ip(self, host: str) -> str:
        return f"{NET}.{self._places[host] + 1}"

    def link(self, delay: float, lost: float) -> None:
        """Delay of each packet, one way, in seconds, and the share of packets that are lost: between all
        hosts."""
        self._tell(f"link {delay} {lost}")

    @contextmanager
    def partition(self, some: Sequence[str], others: Sequence[str]) -> Iterator[None]:
        """Nothing passes between these hosts and those, and nobody is told."""
        pairs = [f"{self._places[a]} {self._places[b]}" for a in some for b in others if a != b]
        for pair in pairs:
            self._tell(f"cut {pair}")
        try:
            yield
        finally:
            for pair in pairs:
                self._tell(f"join {pair}")

    def start(self, host: str, *command: str, **options: object) -> "subprocess.Popen[bytes]":
        """A program on this host, until the end of the network."""
        output = self._output(f"{host}{next(self._numbers)}")
        process = subprocess.Popen(  # type: ignore[call-overload]
            ["ip", "netns", "exec", _namespace(host), *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=self._directory,
            **options,
        )
        self._stack.callback(_end, process)
        found: subprocess.Popen[bytes] = process
        return found

    def _output(self, name: str) -> IO[bytes]:
        return self._stack.enter_context((self._directory / f"{name}.log").open("wb"))

    def _host(self, name: str) -> int:
        """Makes the host. Returns the descriptor of its device, by which the switch reads what it sends."""
        place, space = self._places[name], _namespace(name)
        _ip("netns", "add", space)
        self._stack.callback(_ip, "netns", "delete", space)
        device = os.open("/dev/net/tun", os.O_RDWR)
        link = f"sl{os.getpid()}-{place}"
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH14s", link.encode(), TAP | NO_HEADER, b""))
        _ip("link", "set", link, "netns", space)
        # neighbours are known beforehand, so that a partition is silence, as between routed networks
        others = [
            f"neigh add {self.ip(other)} lladdr {_text(at)} dev eth0 nud permanent"
            for other, at in self._places.items()
            if at != place
        ]
        lines = [
            f"link set {link} name eth0",
            f"link set eth0 address {_text(place)}",
            "link set eth0 up",
            "link set lo up",
            f"addr add {self.ip(name)}/24 dev eth0",
            *others,
        ]
        _ip("-n", space, "-batch", "-", lines="\n".join(lines))
        return device

    def _tell(self, command: str) -> None:
        assert self._switch.stdin is not None
        assert self._switch.stdout is not None
        self._switch.stdin.write(f"{command}\n")
        if self._switch.stdout.readline() != "done\n":
            raise RuntimeError("the switch has ended")

    def _end_switch(self) -> None:
        self._switch.kill()
        self._switch.communicate()


@contextmanager
def network(hosts: Sequence[str], directory: Path) -> Iterator[Network]:
    """Skips the test where namespaces or their devices cannot be made."""
    if shutil.which("ip") is None:
        pytest.skip("no ip: Debian's iproute2 package is not installed")
    with ExitStack() as stack:
        try:
            found = Network(hosts, directory, stack)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"network namespaces and TAP devices cannot be made (only root may): {error}")
        yield found


def _namespace(host: str) -> str:
    return f"sluice{os.getpid()}-{host}"


def _text(place: int) -> str:
    return address(place).hex(":")


def _ip(*arguments: str, lines: str | None = None) -> None:
    subprocess.run(["ip", *arguments], input=lines, text=True, check=True, capture_output=True)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()

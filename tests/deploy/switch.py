"""A switch between network namespaces, in a process of its own: it forwards Ethernet frames between TAP devices,
late, and not all of them, as it is told.

Each argument is the file descriptor of a device; the device at place N has the hardware address `address(N)`. It
reads commands from stdin, a line each, and answers each with a line:

    link SECONDS SHARE     from now on each frame is late by so much, and this share of them is lost
    cut A B                nothing passes between the devices at these places, in either direction
    join A B               it passes again

What `tc netem` does in kernels that have it; here the loss and the delay are seen by the kernels' own TCP as well.
"""

import heapq
import os
import random
import select
import sys
import time

MOST = 20_000
"""Frames on their way; further ones are lost, as in a full buffer."""


def address(place: int) -> bytes:
    return bytes((2, 0, 0, 0, 0, place))


class Switch:
    def __init__(self, devices: list[int], chance: random.Random) -> None:
        self._devices = devices
        self._chance = chance
        self._delay = self._lost = 0.0
        self._cut: set[tuple[int, int]] = set()
        self._waiting: list[tuple[float, int, int, bytes]] = []
        self._number = 0

    def command(self, line: str) -> None:
        match line.split():
            case ["link", seconds, share]:
                self._delay, self._lost = float(seconds), float(share)
            case ["cut", a, b]:
                self._cut |= {(int(a), int(b)), (int(b), int(a))}
            case ["join", a, b]:
                self._cut -= {(int(a), int(b)), (int(b), int(a))}

    def frame(self, at: int, frame: bytes, now: float) -> None:
        target = frame[:6]
        for other, device in enumerate(self._devices):
            if other == at or (target != address(other) and not target[0] & 1):
                continue
            if (at, other) in self._cut or self._chance.random() < self._lost:
                continue
            if not self._delay:
                _write(device, frame)
            elif len(self._waiting) < MOST:
                self._number += 1
                heapq.heappush(self._waiting, (now + self._delay, self._number, device, frame))

    def due(self, now: float) -> float | None:
        """Forwards what is late enough. Returns the seconds until the next one is; None: there is none."""
        while self._waiting and self._waiting[0][0] <= now:
            *_, device, frame = heapq.heappop(self._waiting)
            _write(device, frame)
        return self._waiting[0][0] - now if self._waiting else None


def _write(device: int, frame: bytes) -> None:
    try:
        os.write(device, frame)
    except OSError:  # it is down: so is its host
        return


def main(devices: list[int]) -> None:
    switch, poll = Switch(devices, random.Random()), select.epoll()
    for descriptor in (0, *devices):
        os.set_blocking(descriptor, False)
        poll.register(descriptor, select.EPOLLIN)
    places = {device: place for place, device in enumerate(devices)}
    while True:
        wait = switch.due(time.monotonic())
        for descriptor, _ in poll.poll(-1 if wait is None else wait):
            if descriptor == 0:
                if not (text := os.read(0, 65536)):
                    return
                for line in text.decode().splitlines():
                    switch.command(line)
                    os.write(1, b"done\n")
                continue
            try:
                for _ in range(64):
                    switch.frame(places[descriptor], os.read(descriptor, 65536), time.monotonic())
            except BlockingIOError:
                continue


if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]])

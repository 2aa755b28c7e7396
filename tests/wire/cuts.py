"""The ways to cut a body into reads that a test of a sans-io parser wants: one cut anywhere, byte by byte, at
random."""

from collections.abc import Iterator
from random import Random


def single(body: bytes, every: int = 1) -> Iterator[list[bytes]]:
    """The body in two reads, cut before each byte in turn (`every` > 1: before each n-th byte)."""
    for at in range(1, len(body), every):
        yield [body[:at], body[at:]]


def bytewise(body: bytes) -> list[bytes]:
    return [body[at : at + 1] for at in range(len(body))]


def random(body: bytes, seed: int, longest: int = 400) -> list[bytes]:
    """Reads of 1 to `longest` bytes; the same for the same seed."""
    chance = Random(seed)
    reads = []
    at = 0
    while at < len(body):
        size = chance.randint(1, longest)
        reads.append(body[at : at + size])
        at += size
    return reads


def exhaustive(body: bytes) -> Iterator[list[bytes]]:
    """Whole, every single cut, byte by byte: for short bodies."""
    yield [body]
    yield from single(body)
    yield bytewise(body)

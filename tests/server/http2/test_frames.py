"""Bounds of HTTP/2 frames that are not complete."""

import pytest

from sluice.server.http1 import MAX_HEAD
from sluice.server.http2.frames import MAX_FRAME, SMALL_PER_HEAD, FrameBounds

DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 8, 9
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, payload: bytes = b"", flags: int = 0) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + (1).to_bytes(4, "big") + payload


def counts(data: bytes) -> tuple[int, int, int, int]:
    """The counts, which are the same whole and byte by byte."""
    whole, single = FrameBounds(), FrameBounds()
    assert whole.hold(PREFACE + data)
    assert all(single.hold(bytes((byte,))) for byte in PREFACE + data)
    found = [(one.fruitless, one.small, one.updates, one.resets) for one in (whole, single)]
    assert found[0] == found[1]
    return found[0]


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        (frame(SETTINGS) + frame(PING, b"12345678"), (2, 0, 0, 0)),
        (frame(DATA), (1, 1, 0, 0)),  # empty
        (frame(DATA, b"x"), (0, 1, 0, 0)),
        (frame(DATA, b"x" * 256), (0, 0, 0, 0)),
        (frame(DATA, b"x", flags=1), (0, 0, 0, 0)),  # it ends a body
        (frame(HEADERS, b"x"), (0, -SMALL_PER_HEAD, 0, 0)),
        (frame(WINDOW_UPDATE, b"0000") * 3, (0, 0, 3, 0)),
        (frame(RST_STREAM, b"0000"), (0, 0, 0, 1)),
    ],
)
def test_frames_are_counted_by_what_they_bring(frames: bytes, expected: tuple[int, int, int, int]) -> None:
    assert counts(frames) == expected


def test_a_frame_that_would_be_too_large_is_refused_at_its_head() -> None:
    head = frame(DATA, b"x" * (MAX_FRAME + 1))[:9]
    assert FrameBounds().hold(PREFACE + head[:8])
    assert not FrameBounds().hold(PREFACE + head)


def test_a_head_is_bounded_over_all_its_frames() -> None:
    bounds, full = FrameBounds(), b"x" * MAX_FRAME
    more = MAX_HEAD // MAX_FRAME - 1
    assert bounds.hold(PREFACE + frame(HEADERS, full) + frame(CONTINUATION, full) * more)
    assert not bounds.hold(frame(CONTINUATION, b"x"))
    assert FrameBounds().hold(PREFACE + frame(HEADERS, full) * (2 * more))  # many heads

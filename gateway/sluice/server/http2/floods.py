"""Bounds against clients that send many frames which cost work and bring nothing. Pure.

Streams that are reset as soon as they are begun: CVE-2023-44487; empty and small frames: CVE-2019-9511 to 9518.
"""

from sluice.server.http2.frames import FrameBounds

MAX_FRUITLESS = 1000
"""Frames per second without a request or content: pings, settings, empty data; resets of no stream in all."""
MAX_SMALL = 5000
"""Frames per second with less than 256 bytes of data, also of streams that are over. h2 works 14 to 23 us for
each, however little it brings."""
UPDATES = 10
"""Windows that a client may give for each frame of data that it was sent; beyond these MAX_FRUITLESS in all.
Envoy has the same bound (`max_inbound_window_update_frames_per_data_frame_sent`)."""
RESETS = 100
SHORT = 1.0
"""Streams that a client may reset within SHORT seconds of their beginning; beyond it at most half of all
streams."""


class FloodBounds:
    """The frames of one client. `begun`: its requests. `sent`: frames of data that were sent to it. `resets`:
    streams that it has reset within SHORT seconds of their beginning."""

    __slots__ = ("begun", "frames", "resets", "sent")

    def __init__(self) -> None:
        self.frames = FrameBounds()
        self.begun = self.resets = self.sent = 0

    def exceeded(self) -> bool:
        """Returns whether the connection has to be ended (ENHANCE_YOUR_CALM, RFC 9113 7)."""
        frames, begun = self.frames, self.begun
        return (
            frames.fruitless > MAX_FRUITLESS
            or frames.small > MAX_SMALL
            or frames.updates > MAX_FRUITLESS + 2 * begun + UPDATES * self.sent
            or frames.resets > MAX_FRUITLESS + begun
            or (self.resets > RESETS and self.resets * 2 > begun)
        )

    def begin_second(self) -> None:
        """Begins to count anew those frames that are bounded per second. To be called once a second."""
        self.frames.fruitless = self.frames.small = 0

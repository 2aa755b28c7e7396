"""h2's state of a connection, as this server uses it; and requests out of the heads that h2 has found valid."""

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
from hyperframe.frame import Frame, GoAwayFrame

from sluice.server.http1 import FIELD, MAX_HEAD, MAX_LINE, is_host
from sluice.server.incoming import Incoming
from sluice.wire.fields import by_name

MAX_STREAMS = 100
"""Requests of one connection at a time (SETTINGS_MAX_CONCURRENT_STREAMS)."""
STREAM_WINDOW = 256 << 10
"""Bytes of one stream's body that may be in flight."""


class Http2Protocol(h2.connection.H2Connection):
    """h2's connection, except that a client's GOAWAY does not end running streams.

    GOAWAY means that the client begins no more streams (RFC 9113 6.8), but h2 takes the connection for
    closed: it refuses what the client sends afterwards (acknowledgements, windows), and what is sent to it. A
    test checks that this workaround works.
    """

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Frame], list[h2.events.Event]]:
        before = self.state_machine.state
        events = super()._receive_goaway_frame(frame)
        self.state_machine.state = before
        return events


def server_protocol() -> Http2Protocol:
    """Returns the state of a new connection. Its first bytes (the settings) are ready to be sent."""
    protocol = Http2Protocol(h2.config.H2Configuration(client_side=False, header_encoding=None))
    protocol.decoder.max_header_list_size = MAX_HEAD
    settings = {
        h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
        h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEAD,
        h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
    }
    protocol.local_settings = h2.settings.Settings(client=False, initial_values=settings)
    protocol.initiate_connection()
    return protocol


def request_of(headers: list[tuple[bytes, bytes]]) -> Incoming | None:
    """Returns the request for a head that h2 has found valid; None for a form in which HTTP/1.1 requests are
    also refused."""
    pseudo = {name: value for name, value in headers if name[:1] == b":"}
    pairs = [(bytes(name), bytes(value)) for name, value in headers if name[:1] != b":"]
    if b":authority" in pseudo and not any(name == b"host" for name, _ in pairs):
        pairs.append((b"host", pseudo[b":authority"]))
    target = pseudo.get(b":path", b"").decode("latin-1")
    fields = by_name(pairs)
    method = pseudo.get(b":method", b"").decode("latin-1")
    size = sum(len(name) + len(value) + FIELD for name, value in pairs)
    longest = max([len(name) + len(value) for name, value in pairs], default=0)
    if (
        method == "CONNECT"
        or "#" in target
        or len(target) > MAX_LINE
        or longest > MAX_LINE
        or size > MAX_HEAD
    ):
        return None
    length = fields.get("content-length", "-1")
    if not is_host(fields.get("host", "")) or not length.lstrip("-").isdigit():
        return None
    return Incoming(method, target, (2, 0), pairs, fields, True, int(length), size)

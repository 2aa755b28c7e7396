"""Replaces the model's name in the upstream's own chunks and documents (`report_model: alias`), and changes
nothing else."""

import msgspec

from sluice.wire.jsonedit import with_string
from sluice.wire.lenient import encoded, value_again
from sluice.wire.sse import EventStream, payloads

_encode = msgspec.json.Encoder().encode
_KEY = b'"model"'


class Renaming:
    """`name` replaces the model's name in one upstream's answers. If a document names no model, none is
    added."""

    __slots__ = ("_name", "_written")

    def __init__(self, name: str) -> None:
        self._name = name
        self._written = _encode(name)

    def frames(self, data: bytes) -> bytes:
        """Renames complete frames of server-sent events."""
        found = payloads(data)
        if found is not None:
            return b"".join([b"data: %b\n\n" % self.document(payload) for payload in found])
        events = EventStream(limit=len(data)).feed(data)
        return b"".join(
            [b"data: %b\n\n" % self.document(event.data).replace(b"\n", b"\ndata: ") for event in events]
        )

    def document(self, data: bytes) -> bytes:
        """Renames one chunk, or one whole answer. Anything but a JSON object is returned unchanged."""
        edited = with_string(data, _KEY, self._written)
        if edited is not None:
            return edited
        value = value_again(data)
        if type(value) is not dict or "model" not in value:
            return data
        value["model"] = self._name
        return encoded(value)

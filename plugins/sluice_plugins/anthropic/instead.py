"""Reads a whole message that was sent in place of a stream, as the events of a stream."""

from typing import Any

from sluice.errors import UpstreamGarbled, UpstreamTruncated
from sluice.wire.lenient import parse
from sluice.wire.upstream_errors import reported_error


def as_events(document: bytes) -> list[dict[str, Any]]:
    """Returns the events of a stream with the same content. Raises UpstreamTruncated for an incomplete
    document, UpstreamError for a document that reports an error."""
    try:
        message = parse(document)
    except (ValueError, RecursionError):
        raise UpstreamTruncated from None
    if type(message) is list and len(message) == 1:
        message = message[0]
    if type(message) is not dict:
        raise UpstreamGarbled
    if message.get("type") == "error" or "content" not in message:
        error = reported_error(document)
        if error is not None:
            raise error
    content = message.get("content")
    if not content and not message.get("stop_reason"):
        raise UpstreamTruncated if "content" in message else UpstreamGarbled
    blocks = (
        content
        if type(content) is list
        else [{"type": "text", "text": content}]
        if type(content) is str
        else []
    )
    events: list[dict[str, Any]] = [{"type": "message_start", "message": {**message, "content": []}}]
    for index, block in enumerate(blocks):
        events.append({"type": "content_block_start", "index": index, "content_block": block})
        events.append({"type": "content_block_stop", "index": index})
    end = {name: message.get(name) for name in ("stop_reason", "stop_sequence")}
    events += [
        {"type": "message_delta", "delta": end, "usage": message.get("usage")},
        {"type": "message_stop"},
    ]
    return events

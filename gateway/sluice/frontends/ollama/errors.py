"""Errors as Ollama has them: one text, with the gateway's stable code beside it and the other fields of an
upstream of this dialect.

Standard: https://github.com/ollama/ollama/blob/main/docs/api/errors.mdx
"""

from typing import Any

from sluice.errors import NO_OTHER_FIELDS, GatewayError, ModelNotFound, UpstreamError, wait_of


class ModelLoaded(GatewayError):
    """Not an error: a request without a prompt loads (or unloads) a model at Ollama, and clients send it
    before their first one. Aliases need no loading, so no upstream is asked."""

    code = "load"

    def __init__(self, fields: dict[str, Any]) -> None:
        super().__init__("There is nothing to answer")
        self.fields = fields


def error_object(error: GatewayError) -> dict[str, Any]:
    """Returns the error's object, before a stream and within it. Clients look for "not found" in the text.
    `retry_after` is in seconds, if it is known."""
    said = error.fields if isinstance(error, UpstreamError) else NO_OTHER_FIELDS
    fields = {**said, "error": _text(error), "code": error.code}
    wait = wait_of(error)
    return fields if wait is None else {**fields, "retry_after": wait}


def _text(error: GatewayError) -> str:
    return f"model not found: {error.message}" if isinstance(error, ModelNotFound) else error.message

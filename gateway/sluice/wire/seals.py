"""Providers' seals on reasoning as `encrypted_content` of OpenAI's Responses API, and back.

A client of that API keeps a reasoning item with its encrypted content and sends it back in the next round of
a tool loop. So the seals of every vendor travel there: Anthropic's signatures and redacted blocks, Google's
signatures of parts and calls, and OpenAI's own content with the id that it belongs to. What begins with none
of the marks below is OpenAI's own.

https://platform.openai.com/docs/guides/reasoning#encrypted-reasoning-items
"""

import re

from sluice.model.chat import Thought

GOOGLES = "gemini:"
"""What stands before a signature of Google's in a block of reasoning: no other vendor is to be sent it."""
OPENAIS = "openai:"
"""Likewise before the id and encrypted content of a reasoning item of OpenAI's Responses API:
"openai:ID:CONTENT"."""
BEDROCKS = "bedrock:"
"""Likewise before redacted reasoning of a model of Bedrock that is not Claude: base64 of its bytes."""

OURS = "sluice:"
"""How each content of our making begins: OpenAI itself would refuse it."""
_SIGNED = OURS + "s:"
_REDACTED = OURS + "r:"
_CALL = OURS + "c:"


_MARK = re.compile(r"[a-z]{1,32}:")


def is_marked(seal: str) -> bool:
    """Returns whether a seal has a vendor's mark before it. Anthropic's have none: they are base64, which has
    no colon (RFC 4648 4)."""
    return _MARK.match(seal) is not None


def sealed(signature: str, redacted: str = "") -> str:
    """The encrypted content that carries a block's signature, or the data that stand in place of its text."""
    return _REDACTED + redacted if redacted else _SIGNED + signature if signature else ""


def sealed_call(signature: str) -> str:
    """The encrypted content of a reasoning item that stands before a tool call and carries its signature."""
    return _CALL + signature


def call_signature(content: str) -> str:
    """The signature of the tool call behind this reasoning item; "" where it is about its own text."""
    return content.removeprefix(_CALL) if content.startswith(_CALL) else ""


def thought_of(id: str, text: str, content: str) -> Thought | None:
    """The thought that a reasoning item is; None where nothing is in it."""
    if content.startswith(_SIGNED):
        return Thought(text, content.removeprefix(_SIGNED))
    if content.startswith(_REDACTED):
        return Thought(redacted=content.removeprefix(_REDACTED))
    if content and not content.startswith(OURS):
        return Thought(text, f"{OPENAIS}{id}:{content}")
    return Thought(text) if text else None


def openais(signature: str) -> tuple[str, str] | None:
    """The id and encrypted content that a signature of OpenAI's holds; None for another vendor's."""
    if not signature.startswith(OPENAIS):
        return None
    id, _, content = signature.removeprefix(OPENAIS).partition(":")
    return id, content

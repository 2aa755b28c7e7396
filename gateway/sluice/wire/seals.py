"""Converts providers' seals on reasoning to `encrypted_content` of OpenAI's Responses API, and back.

A client of that API keeps a reasoning item with its encrypted content, and sends it back in the next round of
a tool loop. So it carries the seals of every vendor: Anthropic's signatures and redacted blocks, Google's
signatures of parts and calls, and OpenAI's own content with the id that it belongs to. Content without one of
the prefixes below is OpenAI's own.
https://platform.openai.com/docs/guides/reasoning#encrypted-reasoning-items
"""

import re

from sluice.model.chat import Thought

GOOGLES = "gemini:"
"""The prefix of Google's signatures in a block of reasoning: they must not be sent to other vendors."""
OPENAIS = "openai:"
"""The prefix of the id and encrypted content of a reasoning item of OpenAI's Responses API:
"openai:ID:CONTENT"."""
BEDROCKS = "bedrock:"
"""The prefix of redacted reasoning of Bedrock's models other than Claude: base64 of its bytes."""

SEAL_PREFIX = "sluice:"
"""The prefix of encrypted content that the gateway has made: OpenAI itself would refuse it."""
_SIGNED = SEAL_PREFIX + "s:"
_REDACTED = SEAL_PREFIX + "r:"
_CALL = SEAL_PREFIX + "c:"


_MARK = re.compile(r"[a-z]{1,32}:")


def is_marked(seal: str) -> bool:
    """Returns whether a seal has a vendor's prefix. Anthropic's have none: they are base64, which has no
    colon (RFC 4648 4)."""
    return _MARK.match(seal) is not None


def sealed(signature: str, redacted: str = "") -> str:
    """Returns the encrypted content that carries a block's signature, or the data in place of its text."""
    return _REDACTED + redacted if redacted else _SIGNED + signature if signature else ""


def sealed_call(signature: str) -> str:
    """Returns the encrypted content of a reasoning item that precedes a tool call and carries its signature."""
    return _CALL + signature


def call_signature(content: str) -> str:
    """Returns the signature of the tool call that follows this reasoning item; "" if it belongs to the item's
    own text."""
    return content.removeprefix(_CALL) if content.startswith(_CALL) else ""


def thought_of(id: str, text: str, content: str) -> Thought | None:
    """Returns the thought in a reasoning item; None if the item is empty."""
    if content.startswith(_SIGNED):
        return Thought(text, content.removeprefix(_SIGNED))
    if content.startswith(_REDACTED):
        return Thought(redacted=content.removeprefix(_REDACTED))
    if content and not content.startswith(SEAL_PREFIX):
        return Thought(text, f"{OPENAIS}{id}:{content}")
    return Thought(text) if text else None


def openais(signature: str) -> tuple[str, str] | None:
    """Returns the id and encrypted content in a signature of OpenAI's; None if it is another vendor's."""
    if not signature.startswith(OPENAIS):
        return None
    id, _, content = signature.removeprefix(OPENAIS).partition(":")
    return id, content

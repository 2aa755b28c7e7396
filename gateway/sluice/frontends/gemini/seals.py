"""Signatures of reasoning, as Gemini's clients keep them: `thoughtSignature`, bytes in base64, which comes
back with its part.

Google's own are passed on as they are. A block of another vendor's reasoning (Anthropic's text and signature,
its encrypted blocks, OpenAI's encrypted items) is wrapped into one, text and all: clients do not send
thoughts back, only signatures.

https://ai.google.dev/gemini-api/docs/thought-signatures
"""

from base64 import b64decode, b64encode

import msgspec

from sluice.model.chat import Thought
from sluice.model.events import ReasoningBlock
from sluice.wire.dataurl import standard_base64
from sluice.wire.seals import GOOGLES

_MARK = b"sluice:"
_decode = msgspec.json.Decoder(tuple[str, str, str]).decode


def signature_of(block: ReasoningBlock) -> str:
    if block.signature.startswith(GOOGLES):
        return block.signature.removeprefix(GOOGLES)
    packed = msgspec.json.encode((block.text, block.signature, block.redacted))
    return b64encode(_MARK + packed).decode()


def thought_of(signature: str) -> Thought:
    """Returns the block of reasoning that a part's signature carries. SDKs re-encode base64, in the URL-safe
    alphabet.
    """
    encoded = standard_base64(signature)
    if encoded.startswith("c2x1aWNlO"):  # the mark
        packed = b64decode(encoded)
        if packed.startswith(_MARK):
            try:
                return Thought(*_decode(packed.removeprefix(_MARK)))
            except (msgspec.DecodeError, UnicodeDecodeError):
                pass
    return Thought(signature=GOOGLES + signature)

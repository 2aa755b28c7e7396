"""Parses OpenAI's document of embeddings, for dialects that write its vectors in another form."""

import msgspec

from sluice.errors import UpstreamGarbled


class _Item(msgspec.Struct):
    embedding: msgspec.Raw
    index: int = 0


class _Document(msgspec.Struct):
    data: list[_Item]


_decode = msgspec.json.Decoder(_Document).decode


def vectors_in(document: bytes) -> list[msgspec.Raw]:
    """Returns the vectors in the order of their inputs, each as it was written. Raises UpstreamGarbled if there
    are none.

    Standard: https://platform.openai.com/docs/api-reference/embeddings/object
    """
    try:
        items = sorted(_decode(document).data, key=lambda item: item.index)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        items = []
    if not items:
        raise UpstreamGarbled("The upstream's answer has no embeddings")
    return [item.embedding for item in items]

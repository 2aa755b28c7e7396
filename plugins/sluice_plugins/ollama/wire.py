"""Edits the request of a caller of Ollama's own dialect: its JSON object is sent with as few changes as
possible.

What is changed:
  - `keep_alive` and options of the machine that runs the model (`MACHINE`) are for the operator to set: the upstream's
    configured values are sent;
  - the upstream's `model_options` and `think` are added where the caller sets nothing;
  - `stream` is set as the gateway needs it;
  - messages are rewritten if Ollama would refuse them, though the gateway accepts them from its callers: images as data:
    URLs, arguments of calls as text, the role `developer`, roles in capitals.
"""

from collections.abc import Mapping
from typing import Any

Wire = dict[str, Any]
MACHINE = frozenset({
    "num_gpu", "main_gpu", "num_thread", "num_batch", "low_vram", "use_mmap", "use_mlock", "numa", "f16_kv", "vocab_only",
    "logits_all", "embedding_only",
})  # fmt: skip
"""Options of the server rather than of a single answer:
https://github.com/ollama/ollama/blob/main/api/types.go (Runner)."""
_ROLES = frozenset({"system", "user", "assistant", "tool"})


def edits_of(wire: Wire, options: Mapping[str, Any], *, think: Any, keep_alive: Any, stream: bool) -> Wire:
    """Returns the fields to change, with their new values; None removes a field. `messages` is None if the
    messages have to be rewritten."""
    edits: Wire = {}
    if (wire.get("stream") is not False) is not stream:
        edits["stream"] = stream
    if wire.get("keep_alive") != keep_alive:
        edits["keep_alive"] = keep_alive
    if think is not None and wire.get("think") is None:
        edits["think"] = think
    given = wire.get("options")
    given = given if type(given) is dict else {}
    if options or not MACHINE.isdisjoint(given):
        edits["options"] = {
            **options,
            **{name: value for name, value in given.items() if name not in MACHINE},
        }
    messages = wire.get("messages")
    if type(messages) is list and not all([_as_ollama_takes(message) for message in messages]):
        edits["messages"] = None
    if type(images := wire.get("images")) is list and any([_is_url(image) for image in images]):
        edits["images"] = [image.partition(",")[2] if _is_url(image) else image for image in images]
    return edits


def _as_ollama_takes(message: Any) -> bool:
    if message.get("role") not in _ROLES or any([_is_url(image) for image in message.get("images") or ()]):
        return False
    return all(
        [type(call["function"].get("arguments", {})) is dict for call in message.get("tool_calls") or ()]
    )


def _is_url(image: str) -> bool:
    return image[:5].lower() == "data:"

"""A request of a caller of the same dialect: its own JSON object, with as few edits as the target needs.

What is changed:
  - `keep_alive` and options of the machine that a model runs on (`MACHINE`) are the operator's: the upstream's own are sent;
  - `model_options` of the upstream are added for options of which the caller says nothing, and `think` where he says nothing;
  - `stream` is as the gateway asks;
  - messages are written anew where Ollama would refuse them, though the gateway takes them from its callers: images as data:
    URLs, arguments of calls as text, a `developer`, roles in capitals.
"""

from collections.abc import Mapping
from typing import Any

Wire = dict[str, Any]
MACHINE = frozenset({
    "num_gpu", "main_gpu", "num_thread", "num_batch", "low_vram", "use_mmap", "use_mlock", "numa", "f16_kv", "vocab_only",
    "logits_all", "embedding_only",
})  # fmt: skip
"""Options of a server, and not of an answer: https://github.com/ollama/ollama/blob/main/api/types.go
(Runner)."""
_ROLES = frozenset({"system", "user", "assistant", "tool"})


def edits_of(wire: Wire, options: Mapping[str, Any], *, think: Any, keep_alive: Any, stream: bool) -> Wire:
    """The fields that the target is to have otherwise; None stands for one that it is not to have. `messages`
    is None where they are to be written anew."""
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

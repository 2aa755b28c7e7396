"""The request of `POST /v1/completions`, which continues a text: editors complete code with it.

Upstreams that have this endpoint get the caller's request (`completions` of the backend). Others get a chat
with the prompt as the user's message; what a chat cannot do (a suffix, tokens for a prompt …) is refused by
name then.

Standard: https://platform.openai.com/docs/api-reference/completions/create
"""

from typing import Any

import msgspec

from sluice.frontends import RequestHead
from sluice.frontends.checks import check_names, explained, refused, whole_number
from sluice.frontends.openai.request import MAX_CHOICES
from sluice.model.chat import Message, Sampling, Text, text_size
from sluice.model.operations import GeneratingRequest
from sluice.wire.jsontext import checked_object, unambiguous_object

DIALECT = "completions"


class _Options(msgspec.Struct):
    include_usage: bool | None = None


class _Request(msgspec.Struct):
    prompt: Any
    model: str | None = None
    stream: bool | None = None
    stream_options: _Options | None = None
    suffix: str | None = None
    echo: bool | None = None
    best_of: float | None = None
    n: float | None = None
    max_tokens: float | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None


_NAMES = frozenset(_Request.__struct_fields__)


def completion_of(body: bytes, head: RequestHead) -> GeneratingRequest:
    """Parses the request. Raises BadRequest, `param` naming the field."""
    wire = unambiguous_object(body)
    unescaped = wire is not None
    wire = checked_object(body) if wire is None else wire
    check_names(wire, _NAMES, "")
    try:
        given = msgspec.convert(wire, _Request)
    except msgspec.ValidationError as error:
        raise explained(str(error)) from None
    if given.model == "":
        raise refused("model", "must not be empty")
    text, tokens, only = _prompt(given.prompt)
    stop = given.stop or ()
    return GeneratingRequest(
        DIALECT,
        given.model,
        (Message("user", (Text(text),)),),
        given.stream is True,
        sampling=Sampling(
            _limit(given.max_tokens),
            given.temperature,
            given.top_p,
            (stop,) if isinstance(stop, str) else tuple(stop),
            given.seed,
            given.frequency_penalty,
            given.presence_penalty,
        ),
        include_usage=given.stream_options is not None and given.stream_options.include_usage is True,
        wire=wire,
        body=body if unescaped else b"",
        n=_choices(given.n),
        dialect_only=only or _only(given),
        operation="completions",
        tokens=tokens + text_size(given.suffix or "") // 4,
        longest=tokens,
    )


def _prompt(given: Any) -> tuple[str, int, str]:
    """Returns the text, its estimated number of tokens, and why a chat cannot express it."""
    match given:
        case str(text):
            return text, text_size(text) // 4, ""
        case [str(text)]:
            return text, text_size(text) // 4, ""
        case [str(), *_] if all(isinstance(text, str) for text in given):
            return "", sum(map(text_size, given)) // 4, "prompt: several texts"
        case [int(), *_] if all(type(token) is int for token in given):
            return "", len(given), "prompt: a list of tokens"
        case [[int(), *_], *_] if all(isinstance(tokens, list) for tokens in given):
            return "", sum(map(len, given)), "prompt: a list of tokens"
        case _:
            raise refused(
                "prompt", "must be a string, a list of strings, a list of tokens or a list of such lists"
            )


def _only(given: _Request) -> str:
    if given.suffix:
        return "suffix: a text that follows"
    if given.echo:
        return "echo: the prompt before the answer"
    return "best_of: several tries" if given.best_of is not None and given.best_of > 1 else ""


def _limit(value: float | None) -> int | None:
    if value is None or value <= 0:
        return None
    return whole_number(value, "max_tokens")


def _choices(value: float | None) -> int:
    found = 1 if value is None else whole_number(value, "n")
    if not 1 <= found <= MAX_CHOICES:
        raise refused("n", f"must be from 1 to {MAX_CHOICES}")
    return found

"""Where a server numbers the parts of its answers in a way of its own, in all of its frames alike, text, thoughts,
calls and finish stay what they are, for each upstream dialect and each client.

Numbers come as texts, as floats, begin with 1, are the same for all parts, negative, or missing.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.fakes import eventstreams
from tests.matrix import answers, hearing
from tests.matrix.answers import Answer
from tests.matrix.lanes import CLIENTS, relay_of
from tests.matrix.talk import Call
from tests.matrix.test_answers import asked

GONE = object()
NUMBERS: Mapping[str, Callable[[Any], Any]] = {
    "texts": str,
    "floats": float,
    "null": lambda _: None,
    "a list": lambda _: [],
    "from 1": lambda number: number + 1,
    "all the same": lambda _: 0,
    "negative": lambda _: -1,
    "huge": lambda number: 10**18 + number,
    "missing": lambda _: GONE,
}
IDS: Mapping[str, Callable[[Any], Any]] = {
    "numbers": len,
    "all the same": lambda _: "x",
    "null": lambda _: None,
    "missing": lambda _: GONE,
}
TYPES: Mapping[str, Callable[[Any], Any]] = {
    "null": lambda _: None,
    "a list": lambda _: [],
    "missing": lambda _: GONE,
}
FIELDS: list[tuple[str, str, Mapping[str, Callable[[Any], Any]]]] = [
    ("openai", "index", NUMBERS),
    ("anthropic", "index", NUMBERS),
    ("anthropic", "content", {**TYPES, "an object": lambda _: {}}),
    ("anthropic", "usage", {**TYPES, "a text": lambda _: "x"}),
    ("anthropic", "output_tokens", {**TYPES, "a text": lambda _: "x"}),
    ("gemini", "index", NUMBERS),
    ("bedrock", "contentBlockIndex", NUMBERS),
    ("cohere", "index", NUMBERS),
    ("cohere", "type", TYPES),
    ("responses", "output_index", NUMBERS),
    ("responses", "item_id", IDS),
]
SAID = (
    Answer("a thought", "c2Vh", "said", (Call("1", "f", {"x": 1}), Call("2", "g", {})), "tool_calls", seed=3),
    Answer("", "", "said it", (), "length"),
)
LANES = [(client, stream) for client in CLIENTS for stream in (True, False) if stream or client != "widget"]


class Changed:
    """Stands for the module `json` where frames are written: a field of all of them has another value."""

    def __init__(self, field: str, change: Callable[[Any], Any]) -> None:
        self._field = field
        self._change = change

    def dumps(self, value: Any) -> str:
        return json.dumps(self._of(value))

    def _of(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._of(one) for one in value]
        if not isinstance(value, dict):
            return value
        found = {
            name: self._change(one) if name == self._field else self._of(one) for name, one in value.items()
        }
        return {name: one for name, one in found.items() if one is not GONE}


def said(client: str, upstream: str, stream: bool, body: bytes) -> tuple[str, str, list[Call], str]:
    relay, out = relay_of(client, upstream, asked(client, stream=stream))
    for at in range(0, len(body), 101):
        out += relay.feed(body[at : at + 101], 1.0)
    heard = hearing.READERS[client](out + relay.close(1.0), stream=stream)
    return heard.text, heard.thought, [Call("", call.name, call.arguments) for call in heard.calls], heard.end


@pytest.mark.parametrize("answer", SAID, ids=["calls", "text"])
@pytest.mark.parametrize(
    ("upstream", "field", "how"), [(up, field, how) for up, field, all_ in FIELDS for how in all_]
)
def test_an_answer_does_not_depend_on_how_its_parts_are_numbered(
    upstream: str, field: str, how: str, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    [change] = [changes[how] for up, name, changes in FIELDS if (up, name) == (upstream, field)]
    usual = answers.WRITERS[upstream](answer)
    for module in (answers, eventstreams):
        monkeypatch.setattr(module, "json", Changed(field, change))
    odd = answers.WRITERS[upstream](answer)
    monkeypatch.undo()
    for client, stream in LANES:
        if field in ("usage", "output_tokens") and client in ("widget", "gemini"):
            continue  # their readers want counts
        assert said(client, upstream, stream, odd) == said(client, upstream, stream, usual), (client, stream)


def test_ollamas_last_line_may_say_only_why_it_is_the_last() -> None:
    body = answers.ollama(SAID[1])
    for odd in (b'"done": null', b'"done": "x"', b'"was": 1'):
        for client in ("openai", "anthropic", "responses", "gemini", "widget"):
            found = said(client, "ollama", True, body.replace(b'"done": true', odd))
            assert found == said(client, "ollama", True, body)


def test_a_stream_of_messages_without_its_beginning_gets_one() -> None:
    body = answers.anthropic(SAID[1])
    begun = body.index(b"event: content_block_start")
    assert said("anthropic", "anthropic", True, body[begun:]) == said("anthropic", "anthropic", True, body)


@pytest.mark.parametrize("answer", SAID, ids=["calls", "text"])
def test_a_message_without_a_stop_reason_is_told_with_one(answer: Answer) -> None:
    usual = answers.anthropic(answer)
    for reason in (b'"tool_use"', b'"max_tokens"'):
        usual = usual.replace(b'"stop_reason": ' + reason, b'"stop_reason": null')
    text, thought, calls, end = said("anthropic", "anthropic", True, usual)
    assert (text, thought, end) == (answer.text, answer.thought, "tool_calls" if calls else "stop")

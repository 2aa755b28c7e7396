"""An upstream's own bytes under another model's name: that, and nothing else, is changed."""

import json
from typing import Any

import pytest

from sluice.frontends import Answer
from sluice.frontends.openai.dialect import OpenAI
from sluice.frontends.openai.rename import Renaming
from sluice.model.chat import ChatRequest
from sluice.model.events import Finished, Started, TextDelta, Usage, Verbatim

DOCUMENTS: list[tuple[bytes, bytes]] = [
    (b'{"id":"c","model":"m","choices":[]}', b'{"id":"c","model":"a\\"b","choices":[]}'),
    (b'{"model" : "m\\"x" ,"x":1.50}', b'{"model":"a\\"b" ,"x":1.50}'),
    (b'{"x":"\\"model\\":\\"m\\"","model":"m"}', b'{"x":"\\"model\\":\\"m\\"","model":"a\\"b"}'),
    (b'{"id":"c"}', b'{"id":"c"}'),
    (b'{"model":null,"x":"m"}', b'{"model":"a\\"b","x":"m"}'),
    (b'{"model":5}', b'{"model":"a\\"b"}'),
    (b'{"role":"model","model":"m"}', b'{"role":"model","model":"a\\"b"}'),
    (b"[1]", b"[1]"),
    (b"no JSON", b"no JSON"),
]


@pytest.mark.parametrize(("document", "renamed"), DOCUMENTS)
def test_a_document_has_another_models_name(document: bytes, renamed: bytes) -> None:
    assert Renaming('a"b').document(document) == renamed


def test_half_a_character_does_not_matter() -> None:
    document = b'{"model":"m","o":{"model":"n"},"x":"\\ud83d"}'
    assert json.loads(Renaming("a").document(document)) == {"model": "a", "o": {"model": "n"}, "x": "\ufffd"}


def test_frames_of_any_form() -> None:
    frames = b': hi\n\nevent: x\ndata: {"model":\ndata: "m"}\n\ndata:{"model":"m"}\n\n'
    assert Renaming("a").frames(frames) == b'data: {"model":"a"}\n\ndata: {"model":"a"}\n\n'
    plain = b'data: {"model":"m","a":1}\n\ndata: {"b":2}\n\n'
    assert Renaming("a").frames(plain) == b'data: {"model":"a","a":1}\n\ndata: {"b":2}\n\n'


CHUNK: dict[str, Any] = {
    "id": "c", "object": "chat.completion.chunk", "created": 7, "model": "m-2026", "system_fingerprint": "f", "provider": "p",
    "choices": [{"index": 0, "delta": {"content": "Hi", "reasoning_details": [{"text": "t", "index": 0}],
        "images": [{"type": "image_url"}], "annotations": [{"type": "url_citation"}], "extra_content": {"google": {}}},
        "logprobs": {"content": [{"token": "Hi", "logprob": -0.1}]}, "finish_reason": None}],
}  # fmt: skip


def test_a_stream_under_the_aliass_name_keeps_all_else() -> None:
    frame = b"data: %b\n\n" % json.dumps(CHUNK).encode()
    events = [Started("c", "m-2026"), TextDelta("Hi"), Verbatim(frame)]
    chat = ChatRequest("openai", "a", (), stream=True, include_usage=True)
    encoder = OpenAI().encoder(chat, Answer("r", "a", 1, reveal=False), verbatim=True)
    assert json.loads(encoder.encode(events)[6:]) == {**CHUNK, "model": "a"}
    last = encoder.encode([TextDelta("x"), Verbatim(frame)])
    assert json.loads(last[6:]) == {**CHUNK, "model": "a"}
    ending = encoder.encode([Finished("stop", Usage(1, 2))])
    assert json.loads(ending.split(b"\n\n")[0][6:])["model"] == "a"


def test_a_whole_answer_under_the_aliass_name_keeps_all_else() -> None:
    answer = {"id": "c", "model": "m-2026", "choices": CHUNK["choices"], "odd": [1]}
    document = json.dumps(answer).encode()
    encoder = OpenAI().encoder(
        ChatRequest("openai", "a", (), stream=False), Answer("r", "a", 1, reveal=False), verbatim=True
    )
    assert json.loads(encoder.encode([Finished("stop"), Verbatim(document, whole=True)])) == {
        **answer,
        "model": "a",
    }
    together = OpenAI().encoder(
        ChatRequest("openai", "a", (), stream=False), Answer("r", "a", 1, reveal=False), verbatim=True
    )
    frame = b"data: %b\n\n" % json.dumps(CHUNK).encode()
    whole = json.loads(together.encode([Started("c", "m-2026"), Verbatim(frame), Finished("stop")]))
    assert (whole["model"], whole["provider"]) == ("a", "p")
    assert whole["choices"][0]["logprobs"]["content"][0]["token"] == "Hi"

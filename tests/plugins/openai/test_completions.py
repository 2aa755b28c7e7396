"""An upstream's own completions: its streams under every cut, its documents, what it is asked."""

import json
from typing import Any

import msgspec
import pytest

from sluice.config.types import Secret
from sluice.errors import UpstreamError, UpstreamGarbled, UpstreamTruncated
from sluice.frontends import Head
from sluice.frontends.openai.completions import completion_of
from sluice.model.chat import with_messages
from sluice.model.events import Finished, Started, StreamEvent, TextDelta, Usage, Verbatim
from sluice.wire.sse import EventStream
from sluice_plugins.ollama.backend import Ollama
from sluice_plugins.openai.backend import OpenAI
from sluice_plugins.openai.completions import Completions, TextDecoder, TextDocument
from tests.wire import cuts


def frame(**chunk: Any) -> bytes:
    return b"data: %b\n\n" % json.dumps(chunk).encode()


A = frame(id="c-1", model="x", choices=[{"text": "a", "index": 0}])
B = frame(
    id="c-1",
    model="x",
    choices=[{"text": "b", "index": 0, "finish_reason": None}, {"text": "other", "index": 1}],
)
END = frame(choices=[{"text": "", "index": 0, "finish_reason": "length"}])
USAGE = frame(choices=[], usage={"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5})
DONE = b"data: [DONE]\n\n"
SAID: list[StreamEvent] = [Started("c-1", "x"), TextDelta("a"), TextDelta("b")]
FINISHED = Finished("length", Usage(3, 2), "length")


def heard(reads: list[bytes]) -> tuple[list[StreamEvent], bytes]:
    decoder = TextDecoder(EventStream(1 << 20), verbatim=True)
    events = [event for read in reads for event in decoder.feed(read)] + decoder.close()
    frames = b"".join([event.data for event in events if isinstance(event, Verbatim)])
    return [event for event in events if not isinstance(event, Verbatim)], frames


@pytest.mark.parametrize(("body", "events"), [
    (A + B + END + USAGE + DONE, [*SAID, FINISHED]),
    (A + B + END + DONE, [*SAID, Finished("length", None, "length")]),
    (A + B + END, [*SAID, Finished("length", None, "length")]),
    (A + B + DONE, [*SAID, Finished("stop", None, "")]),
    (A + B + END.rstrip(), [*SAID, Finished("length", None, "length")]),
    (A + b": ping\n\n" + b"data: nonsense\n\n" + B + END + DONE, [*SAID, Finished("length", None, "length")]),
])  # fmt: skip
def test_a_stream_under_every_cut(body: bytes, events: list[StreamEvent]) -> None:
    for reads in cuts.exhaustive(body):
        found, frames = heard(reads)
        assert found == events
        assert frames == b"".join([piece for piece in (A, B, END) if piece.rstrip() in body])


@pytest.mark.parametrize("body", [A, A + B, USAGE, DONE, b""])
def test_a_cut_is_no_answer(body: bytes) -> None:
    with pytest.raises(UpstreamTruncated):
        heard([body])


@pytest.mark.parametrize(("body", "kind"), [
    (A + frame(error={"message": "no", "type": "rate_limit_error"}), "rate_limited"),
    (A + frame(choices=[{"text": "", "finish_reason": "error"}]), "stream_error"),
])  # fmt: skip
def test_an_error_in_it_comes_behind_the_text(body: bytes, kind: str) -> None:
    decoder = TextDecoder(EventStream(1 << 20))
    assert decoder.feed(body) == SAID[:2]
    with pytest.raises(UpstreamError) as failed:
        decoder.close()
    assert failed.value.kind == kind


def test_fields_of_another_type_cost_themselves_only() -> None:
    events, _ = heard([frame(id=7, choices=[{"text": "a", "index": "0"}], usage=[]), END])
    assert [event for event in events if isinstance(event, TextDelta)] == [TextDelta("a")]


def test_a_document() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2}
    body = json.dumps(
        {"model": "x", "choices": [{"text": "ab", "finish_reason": "stop"}], "usage": usage}
    ).encode()
    decoder = TextDocument()
    assert decoder.feed(body) == []
    end = Finished("stop", Usage(1, 2), "stop")
    assert decoder.close() == [Started("", "x"), TextDelta("ab"), end, Verbatim(body, whole=True)]
    for bad, error in (
        (b"{}", UpstreamGarbled),
        (b'{"error":{"message":"no"}}', UpstreamError),
        (b"<html>", UpstreamGarbled),
    ):
        decoder = TextDocument()
        decoder.feed(bad)
        with pytest.raises(error):
            decoder.close()


# --- what is asked


def completions(**options: Any) -> Completions:
    backend = OpenAI(completions=True, **options)
    found = backend.operation("completions", "completions")
    assert isinstance(found, Completions)
    return found


def test_the_body_is_the_callers_under_the_models_name() -> None:
    chat = completion_of(b'{"model":"m","prompt":[1,2],"suffix":"x","x_own":1,"stream":true}', Head())
    request = completions(base_url="http://h/v1?api-version=1", api_key=Secret("sk-1")).request(chat, "real")
    assert request.url == "http://h/v1/completions?api-version=1"
    assert msgspec.json.decode(request.body) == {
        "model": "real", "prompt": [1, 2], "suffix": "x", "x_own": 1, "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    whole = completions(path="/deployments/{model}/chat/completions").whole_request(chat, "real")
    assert whole.url.endswith("/deployments/real/completions")
    assert "stream_options" not in msgspec.json.decode(whole.body)


def test_a_prompt_that_was_changed_is_written_anew() -> None:
    chat = completion_of(b'{"model":"m","prompt":"Once","max_tokens":5,"x_own":1}', Head())
    sent = msgspec.json.decode(completions().whole_request(with_messages(chat, chat.messages), "real").body)
    assert sent == {"model": "real", "prompt": "Once", "max_tokens": 5}


def test_who_carries_them() -> None:
    assert OpenAI().operation("completions", "completions") is None
    assert OpenAI(completions=True).operation("completions", "openai") is None
    found = Ollama(base_url="http://h/api", api_key=Secret("k")).operation("completions", "completions")
    assert isinstance(found, Completions)
    assert found.request(completion_of(b'{"prompt":"a"}', Head()), "x").url == "http://h/v1/completions"
    assert found.credentials() == (("authorization", "Bearer k"),)

"""The upstream's own Responses, passed on as they came."""

import json
from typing import Any

from sluice.errors import UpstreamError
from sluice.frontends import Answer
from sluice.frontends.responses.dialect import Responses
from sluice.frontends.responses.request import chat_of
from sluice.model.events import Finished, Started, TextDelta, Verbatim
from tests.frontends.responses.reading import events_of

ANSWER = Answer("r1", "chat", 1)
HIDDEN = Answer("r1", "chat", 1, reveal=False)
BEGUN = {
    "id": "resp_x",
    "object": "response",
    "model": "gpt",
    "status": "in_progress",
    "output": [],
    "error": None,
}


def frame(kind: str, number: int, **fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (
        kind.encode(),
        json.dumps({"type": kind, "sequence_number": number, **fields}).encode(),
    )


CREATED = frame("response.created", 0, response=BEGUN)
DELTA = frame("response.output_text.delta", 1, delta='about "model"s')
DONE = frame("response.completed", 2, response={**BEGUN, "status": "completed"})


def encoder(answer: Answer = ANSWER, *, stream: bool = True) -> Any:
    return Responses().encoder(chat_of({"input": "?", "stream": stream}), answer, verbatim=True)


def test_frames_are_passed_on_as_they_came() -> None:
    passing = encoder()
    assert passing.encode([Started(), TextDelta("x"), Verbatim(CREATED + DELTA)]) == CREATED + DELTA
    assert passing.encode([TextDelta("x"), Verbatim(DELTA)]) == DELTA
    assert passing.encode([Finished("stop"), Verbatim(DONE)]) == DONE
    assert not passing.continues


def test_the_alias_stands_in_place_of_the_model_and_nothing_else_is_changed() -> None:
    passing = encoder(HIDDEN)
    said = passing.encode([Started(), TextDelta("x"), Verbatim(CREATED + DELTA)])
    created, delta = events_of(said)
    assert created["response"] == {**BEGUN, "model": "chat"}
    assert DELTA in said
    assert delta["delta"] == 'about "model"s'
    assert (
        events_of(CREATED + DELTA + passing.encode([Finished("stop"), Verbatim(DONE)]))[-1]["response"][
            "model"
        ]
        == "chat"
    )


def test_a_stream_that_breaks_is_ended_in_its_own_terms() -> None:
    passing = encoder()
    said = passing.encode([Started(), TextDelta("x"), Verbatim(CREATED)]) + passing.encode(
        [TextDelta("x"), Verbatim(DELTA)]
    )
    *_, error, failed = events_of(said + passing.fail(UpstreamError("truncated", "cut")))
    assert (error["code"], error["error"]["message"]) == ("truncated", "cut")
    assert failed["response"] == {
        **BEGUN,
        "status": "failed",
        "error": {"code": "truncated", "message": "cut"},
    }


def test_a_stream_that_never_began_is_ended_in_ours() -> None:
    events = events_of(encoder().fail(UpstreamError("truncated", "cut")))
    assert [event["type"] for event in events][-2:] == ["error", "response.failed"]


def test_a_whole_answer_is_passed_on_or_taken_from_a_streams_end() -> None:
    document = json.dumps(BEGUN).encode()
    assert (
        encoder(stream=False).encode([Started(), Finished("stop"), Verbatim(document, whole=True)])
        == document
    )
    assert (
        json.loads(encoder(HIDDEN, stream=False).encode([Finished("stop"), Verbatim(document, whole=True)]))[
            "model"
        ]
        == "chat"
    )
    passing = encoder(stream=False)
    assert passing.encode([Started(), TextDelta("x"), Verbatim(CREATED + DELTA)]) == b""
    assert json.loads(passing.encode([Finished("stop"), Verbatim(DONE)])) == {**BEGUN, "status": "completed"}

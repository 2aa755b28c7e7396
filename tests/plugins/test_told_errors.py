"""Errors inside of a 200, in whatever shape, are told with their kind, words and wait by every decoder."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from sluice.errors import UpstreamError
from sluice_plugins.anthropic.stream import MessagesDecoder
from sluice_plugins.ollama.stream import ChatDecoder
from sluice_plugins.openai.document import DocumentDecoder
from sluice_plugins.openai.stream import ChunkDecoder
from tests.wire.cuts import exhaustive

_json = msgspec.json.encode
SHAPES: list[tuple[Any, str, str]] = [
    ({"error": {"message": "Not so fast", "code": "429"}}, "rate_limited", "Not so fast"),
    ({"error": "prompt is too long", "code": "x"}, "context_length", "prompt is too long"),
    ({"error": {"message": '{"error":{"message":"Busy","code":503}}'}}, "overloaded", "Busy"),
    ({"object": "error", "message": "Wrong", "type": "BadRequestError", "code": 400}, "bad_request", "Wrong"),
    ({"code": 429, "message": "Not so fast"}, "rate_limited", "Not so fast"),
    ({"detail": [{"msg": "Wrong", "type": "missing"}]}, "stream_error", "Wrong"),
    ({"message": "prompt is too long"}, "context_length", "prompt is too long"),
    ({"detail": {"error": "Not so fast", "code": 429}}, "rate_limited", "Not so fast"),
    ({"errors": [{"message": "Overloaded"}]}, "overloaded", "Overloaded"),
    ({"base_resp": {"status_code": 1002, "status_msg": "Not so fast"}}, "rate_limited", "Not so fast"),
    (
        {"choices": None, "base_resp": {"status_code": 1027, "status_msg": "Not that"}},
        "content_policy",
        "Not that",
    ),
]
FRAMED: dict[str, Callable[[], Any]] = {
    "openai": ChunkDecoder,
    "whole": DocumentDecoder,
    "anthropic": MessagesDecoder,
}


def failure(decoder: Any, reads: list[bytes]) -> UpstreamError:
    try:
        for data in reads:
            decoder.feed(data)
        decoder.close()
        decoder.close()  # raises what stood behind the first one's events
    except UpstreamError as error:
        return error
    raise AssertionError("no error was told")


@pytest.mark.parametrize("dialect", FRAMED)
@pytest.mark.parametrize(("error", "kind", "words"), SHAPES)
def test_a_frame_that_is_an_error_is_told(error: Any, kind: str, words: str, dialect: str) -> None:
    data = b"data: %b\n\ndata: [DONE]\n\n" % _json(error)
    for reads in exhaustive(data):
        told = failure(FRAMED[dialect](), reads)
        assert (told.kind, told.message, told.status) == (kind, words, 200)


@pytest.mark.parametrize("decoder", [ChunkDecoder, DocumentDecoder])
@pytest.mark.parametrize(("error", "kind", "words"), SHAPES)
def test_a_document_that_is_an_error_is_told(
    error: Any, kind: str, words: str, decoder: Callable[[], Any]
) -> None:
    for document in (error, [error]):
        told = failure(decoder(), [_json(document)])
        assert (told.kind, told.message) == (kind, words)


@pytest.mark.parametrize("code", [429, "429"])
def test_a_line_that_is_an_error_is_told(code: object) -> None:
    told = failure(ChatDecoder(), [_json({"error": "Not so fast", "code": code, "retry_after": 9}) + b"\n"])
    assert (told.kind, told.message, told.retry_after) == ("rate_limited", "Not so fast", 9.0)


@pytest.mark.parametrize(("error", "kind", "words"), [row for row in SHAPES if "choices" not in row[0]])
def test_a_line_or_document_of_any_shape_is_told_by_the_other_dialects(
    error: Any, kind: str, words: str
) -> None:
    for decoder, body in (
        (ChatDecoder, _json(error) + b"\n"),
        (ChatDecoder, _json([error])),
        (ChatDecoder, msgspec.json.format(_json(error))),
        (MessagesDecoder, _json(error)),
        (MessagesDecoder, _json([error])),
        (ChatDecoder, msgspec.json.format(_json([error]))),
    ):
        for reads in exhaustive(body):
            told = failure(decoder(), reads)
            assert (told.kind, told.message) == (kind, words)


@pytest.mark.parametrize("decoder", [ChunkDecoder, DocumentDecoder])
@pytest.mark.parametrize("place", ["delta", "message"])
def test_an_error_within_a_choice_is_told(place: str, decoder: Callable[[], Any]) -> None:
    choice = {
        "index": 0,
        place: {"content": ""},
        "finish_reason": "error",
        "error": {"code": 429, "message": "Not so fast"},
    }
    answer = _json({"id": "1", "choices": [choice]})
    for body in (answer, b"data: %b\n\n" % answer):
        told = failure(decoder(), [body])
        assert (told.kind, told.message) == ("rate_limited", "Not so fast")


def test_a_line_behind_text_that_is_an_error_is_told() -> None:
    hi = _json({"model": "m", "message": {"role": "assistant", "content": "Hi"}, "done": False}) + b"\n"
    assert (
        failure(ChatDecoder(), [hi, _json({"code": 429, "message": "Not so fast"}) + b"\n"]).kind
        == "rate_limited"
    )


def test_the_words_of_an_error_event_are_told_whatever_its_shape() -> None:
    for error in (
        {"message": "Prompt is too long"},
        {"type": "error", "detail": ["Prompt is too long"]},
        {"message": ["prompt is too long"]},
    ):
        told = failure(MessagesDecoder(), [b"event: error\ndata: %b\n\n" % _json(error)])
        assert told.kind == "context_length"


def test_a_success_that_tells_of_its_success_is_none() -> None:
    decoder = ChunkDecoder()
    text = {"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}]}
    last = {
        "choices": [],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1},
        "base_resp": {"status_code": 0},
    }
    events = decoder.feed(b"data: %b\n\ndata: %b\n\ndata: [DONE]\n\n" % (_json(text), _json(last)))
    assert len(events) == 3

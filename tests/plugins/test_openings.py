"""Answers in one piece where a stream was asked for, and events where lines were: however they are cut."""

import json
from typing import Any

import pytest

from sluice.errors import UpstreamError, UpstreamGarbled, UpstreamTruncated
from sluice.model.events import (
    Finished,
    ReasoningDelta,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
)
from sluice_plugins.anthropic.backend import Anthropic
from sluice_plugins.ollama.backend import Ollama
from tests.wire import cuts

MESSAGE: dict[str, Any] = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "m",
    "content": [
        {"type": "thinking", "thinking": "Hm", "signature": "c2ln"},
        {"type": "text", "text": "Héllo "},
        {"type": "tool_use", "id": "t1", "name": "w", "input": {"city": "Oslo"}},
    ],
    "stop_reason": "tool_use", "usage": {"input_tokens": 5, "output_tokens": 7},
}  # fmt: skip
CHAT: dict[str, Any] = {
    "model": "m", "message": {"role": "assistant", "content": "Héllo ", "thinking": "Hm"},
    "done": True, "done_reason": "stop", "prompt_eval_count": 5, "eval_count": 7,
}  # fmt: skip


def said(backend: Anthropic | Ollama, reads: list[bytes]) -> list[StreamEvent]:
    decoder = backend.decoder()
    events = [event for read in reads for event in decoder.feed(read)]
    return events + decoder.close()


def told(events: list[StreamEvent]) -> dict[str, Any]:
    [finished] = [event for event in events if isinstance(event, Finished)]
    assert finished.usage is not None
    return {
        "text": "".join(event.text for event in events if isinstance(event, TextDelta)),
        "reasoning": "".join(event.text for event in events if isinstance(event, ReasoningDelta)),
        "calls": [(event.id, event.name) for event in events if isinstance(event, ToolCallStarted)],
        "arguments": "".join(event.arguments for event in events if isinstance(event, ToolCallDelta)),
        "end": finished.reason,
        "usage": (finished.usage.input, finished.usage.output),
    }


RIGHT = {"text": "Héllo ", "reasoning": "Hm", "end": "stop", "usage": (5, 7), "calls": [], "arguments": ""}


@pytest.mark.parametrize(
    "written",
    [
        json.dumps(MESSAGE),
        json.dumps(MESSAGE, indent=2),
        "\n \ufeff" + json.dumps(MESSAGE, ensure_ascii=False) + "\n",
    ],
)
def test_a_message_in_place_of_its_stream(written: str) -> None:
    for reads in cuts.exhaustive(written.encode()):
        found = told(said(Anthropic(), reads))
        assert json.loads(found.pop("arguments")) == {"city": "Oslo"}
        assert found == {
            **{name: value for name, value in RIGHT.items() if name != "arguments"},
            "end": "tool_calls",
            "calls": [("t1", "w")],
        }


@pytest.mark.parametrize(
    ("document", "error"),
    [
        ({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, UpstreamError),
        ({"error": {"message": "no", "type": "invalid_request_error"}}, UpstreamError),
        ({"hello": 1}, UpstreamGarbled),
    ],
)
def test_a_document_that_is_no_message(document: dict[str, Any], error: type[UpstreamError]) -> None:
    for reads in cuts.exhaustive(json.dumps(document).encode()):
        with pytest.raises(error):
            said(Anthropic(), reads)


def test_half_a_document_is_a_cut() -> None:
    with pytest.raises(UpstreamTruncated):
        said(Anthropic(), [json.dumps(MESSAGE).encode()[:-9]])


@pytest.mark.parametrize(
    "written",
    [
        json.dumps(CHAT),
        json.dumps(CHAT) + "\n",
        json.dumps(CHAT, indent=2),
        " \n" + json.dumps(CHAT, indent=1) + "\n",
        f"data: {json.dumps(CHAT)}\n\n",
        f"event: message\ndata: {json.dumps(CHAT)}\n\ndata: [DONE]\n\n",
        f": hi\n\ndata: {json.dumps(CHAT)}",
    ],
)
def test_ollamas_answer_however_it_is_written(written: str) -> None:
    for reads in cuts.exhaustive(written.encode()):
        assert told(said(Ollama(), reads)) == RIGHT


def test_a_document_has_a_bound() -> None:
    for backend in (Anthropic(max_event=1 << 10), Ollama(max_event=1 << 10)):
        with pytest.raises(UpstreamGarbled):
            said(backend, [b"{\n"] + [b"x" * 100] * 20)

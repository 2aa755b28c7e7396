"""Tools have names that their vendor takes, and callers hear their own."""

import re
from typing import Any

import pytest

from sluice.backends.protocol import Decoder
from sluice.model.chat import ChatRequest, Message, Text, Tool, ToolCall
from sluice.model.events import Finished, Started, StreamEvent, TextDelta, ToolCallStarted
from sluice.model.rules import ToolNames
from sluice.proxy.stages import StagedDecoder
from sluice.proxy.tool_names import NamedDecoder, NamesFitting

OPENAI: ToolNames = "[A-Za-z0-9_-]{1,64}"
GEMINI: ToolNames = "[A-Za-z_][A-Za-z0-9_.:-]{0,63}"
LONG = "mcp__4e9e25f1-b480-40f3-ba8d-a792f8f6ff07__update_project_deployment_protection"


def request(*names: str, **fields: Any) -> ChatRequest:
    return ChatRequest(
        "gemini",
        None,
        (Message("user", (Text("q"),)),),
        tools=tuple([Tool(name) for name in names]),
        **fields,
    )


@pytest.mark.parametrize("form", [OPENAI, GEMINI])
@pytest.mark.parametrize(
    "name", [LONG, "fs/read", "2fa check", "-x", "天気", "a" * 65, "a.b:c" * 20, "\ud800", " ", "it's"]
)
def test_a_name_that_a_vendor_refuses_becomes_one_that_it_takes_and_back(form: ToolNames, name: str) -> None:
    chat, names = NamesFitting(form)(request(name, "plain"))
    made, plain = [tool.name for tool in chat.tools]
    assert re.fullmatch(form, made)
    assert plain == "plain"
    assert names == ({made: name} if made != name else {})


def test_names_that_begin_alike_stay_different() -> None:
    given = [f"{'n' * 70}{end}" for end in "abc"] + ["a.b", "a:b", "a_b"]
    chat, names = NamesFitting(OPENAI)(request(*given))
    made = [tool.name for tool in chat.tools]
    assert len(set(made)) == len(given)
    assert [names.get(name, name) for name in made] == given


def test_a_request_whose_names_all_fit_stays_the_same_object() -> None:
    chat = request("a", "b-c", "D_9")
    assert NamesFitting(OPENAI)(chat) == (chat, {})
    assert NamesFitting(OPENAI)(chat)[0] is chat


def test_the_choice_and_the_calls_of_the_history_have_the_same_name() -> None:
    calls = (ToolCall("1", LONG, "{}", "seal"), ToolCall("2", "plain", "{}"))
    history = (Message("user", (Text("q"),)), Message("assistant", (), calls))
    chat = ChatRequest("anthropic", None, history, tools=(Tool(LONG),), tool_choice=("function", LONG))
    fitted, names = NamesFitting(OPENAI)(chat)
    [made] = names
    assert fitted.tools[0].name == made
    assert fitted.tool_choice == ("function", made)
    assert fitted.messages[1].tool_calls == (ToolCall("1", made, "{}", "seal"), calls[1])
    assert fitted.messages[0] is history[0]
    assert NamesFitting(OPENAI)(ChatRequest("anthropic", None, history))[1] == {made: LONG}


class Said(Decoder):
    ids: frozenset[str] = frozenset()

    def distinguish(self, ids: frozenset[str]) -> None:
        self.ids = ids

    def feed(self, data: bytes) -> list[StreamEvent]:
        return [Started(), TextDelta("x"), ToolCallStarted(0, "c", "made"), ToolCallStarted(1, "d", "other")]

    def close(self) -> list[StreamEvent]:
        return [Finished("tool_calls", None, "")]


def test_calls_of_the_answer_have_the_callers_names() -> None:
    decoder = NamedDecoder(Said(), {"made": LONG})
    events = decoder.feed(b"")
    assert events[2:] == [ToolCallStarted(0, "c", LONG), ToolCallStarted(1, "d", "other")]
    assert decoder.close() == [Finished("tool_calls", None, "")]


@pytest.mark.parametrize(
    "wrap", [lambda inner: NamedDecoder(inner, {}), lambda inner: StagedDecoder(inner, ())]
)
def test_ids_of_the_conversation_reach_the_decoder_within(wrap: Any) -> None:
    inner = Said()
    wrap(inner).distinguish(frozenset({"a"}))
    assert inner.ids == {"a"}

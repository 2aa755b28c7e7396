"""Ids of tool calls as vendors take them: one to one, in calls and results, in both forms of a request."""

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.model.chat import Message, Text, ToolCall
from sluice.model.rules import ToolIds
from sluice_plugins.tool_ids import fitted_ids, fitted_wire_ids

FORMS: list[ToolIds] = ["[A-Za-z0-9_-]{1,64}", "[A-Za-z0-9]{9}"]
Ids = list[list[str]]


def rounds(ids: Ids) -> list[Message]:
    """For each list of ids: a message that makes these calls, and their results."""
    found = []
    for called in ids:
        found.append(Message("assistant", (), tuple(ToolCall(id, "f", "{}") for id in called)))
        found += [Message("tool", (Text("r"),), tool_call_id=id) for id in called]
    return found


def mapped(ids: Ids, form: ToolIds) -> tuple[Ids, Ids]:
    """The ids of calls, and those of results, round for round."""
    calls: Ids = []
    results: Ids = []
    for message in fitted_ids(rounds(ids), form):
        if message.tool_calls:
            calls.append([call.id for call in message.tool_calls])
            results.append([])
        else:
            results[-1].append(message.tool_call_id)
    return calls, results


any_ids = st.lists(
    st.lists(
        st.text(max_size=70) | st.sampled_from(["a.b", "a_b", "call_0", "functions.w:0", ""]),
        min_size=1,
        max_size=4,
    ),
    min_size=1,
    max_size=4,
)


@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None)
@given(any_ids)
def test_ids_fit_differ_and_are_the_same_in_results(form: ToolIds, ids: Ids) -> None:
    calls, results = mapped(ids, form)
    assert results == calls
    flat = [id for called in calls for id in called]
    assert len(set(flat)) == len(flat)
    assert all(re.fullmatch(form, id) for id in flat)
    assert mapped(ids, form) == (calls, results), (
        "the same conversation, the same ids: prompt caches depend on it"
    )


def test_what_fits_stays() -> None:
    assert mapped([["toolu_01A-b", "call_1"]], FORMS[0])[0] == [["toolu_01A-b", "call_1"]]
    assert mapped([["abcDEF123"]], FORMS[1])[0] == [["abcDEF123"]]


def test_ids_that_look_alike_stay_apart() -> None:
    [[one], [two], [three]], _ = mapped([["functions.w:0"], ["functions_w:0"], ["functions_w_0"]], FORMS[0])
    assert len({one, two, three}) == 3
    assert three == "functions_w_0"


def test_a_later_turn_does_not_change_the_ids_before_it() -> None:
    first, both = mapped([["call_0"]], FORMS[0])[0], mapped([["call_0"], ["call_0"]], FORMS[0])[0]
    assert both[0] == first[0]
    assert both[1] != first[0]


def test_a_result_without_its_call_has_an_id_that_fits() -> None:
    lost = [Message("tool", (Text("r"),), tool_call_id="a.b"), *rounds([["x"]])]
    assert re.fullmatch(FORMS[0], fitted_ids(lost, FORMS[0])[0].tool_call_id)


def test_messages_without_calls_are_the_same_object() -> None:
    messages = (Message("user", (Text("Hi"),)),)
    assert fitted_ids(messages, FORMS[0]) is messages


@settings(deadline=None)
@given(any_ids)
def test_both_forms_of_a_request_get_the_same_ids(ids: Ids) -> None:
    wire: list[dict[str, Any]] = []
    for called in ids:
        calls = [
            {"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}} for id in called
        ]
        wire.append({"role": "assistant", "content": None, "tool_calls": calls})
        wire += [{"role": "tool", "tool_call_id": id, "content": "r"} for id in called]
    fitted = fitted_wire_ids(wire, FORMS[0])
    found = [[call["id"] for call in message["tool_calls"]] for message in fitted if "tool_calls" in message]
    assert found == mapped(ids, FORMS[0])[0]
    results = [message["tool_call_id"] for message in fitted if message["role"] == "tool"]
    assert results == [id for called in found for id in called]

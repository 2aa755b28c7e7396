"""Which tool call a result belongs to, where dialects do not say it by an id."""

from sluice.frontends.open_calls import OpenCalls
from sluice.model.chat import ToolCall


def opened() -> OpenCalls:
    calls = OpenCalls()
    calls.begin(
        [ToolCall("c1", "look_up", "{}"), ToolCall("c2", "add", "{}"), ToolCall("c3", "look_up", "{}")]
    )
    return calls


def test_by_its_id_then_its_name_then_its_place() -> None:
    calls = opened()
    assert calls.answered("c3", "look_up") == "c3"
    assert calls.answered(None, "add") == "c2"
    assert calls.answered(None, None) == "c1"
    assert calls.answered(None, None) == "call"


def test_results_of_one_tool_belong_to_its_calls_in_their_order() -> None:
    calls = opened()
    assert [calls.answered(None, "look_up") for _ in range(3)] == ["c1", "c3", "look_up"]


def test_an_id_that_nobody_knows_is_kept() -> None:
    assert opened().answered("unknown", None) == "unknown"


def test_a_new_message_with_calls_takes_the_place_of_the_last() -> None:
    calls = opened()
    calls.begin([ToolCall("d1", "add", "{}")])
    assert calls.answered(None, "look_up") == "look_up"
    assert calls.answered(None, None) == "d1"

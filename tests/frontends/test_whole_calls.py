"""Tool calls put together: when each is told, and which never is."""

import pytest

from sluice.frontends.whole_calls import WholeCalls
from sluice.model.events import ToolCallDelta, ToolCallStarted

Step = ToolCallStarted | ToolCallDelta


def start(index: int, name: str = "f", kind: str = "function") -> ToolCallStarted:
    return ToolCallStarted(index, f"call_{index}", name, kind)  # type: ignore[arg-type]


def piece(index: int, text: str) -> ToolCallDelta:
    return ToolCallDelta(index, text)


TOLD: list[tuple[list[Step], list[str], list[str]]] = [
    ([start(0), piece(0, '{"a":'), piece(0, "1}")], [], ['{"a":1}']),
    ([start(0)], [], ["{}"]),
    ([start(0), piece(0, '{"a":1}'), start(1), piece(1, "{}")], ['{"a":1}'], ["{}"]),
    ([start(0), start(1), piece(0, '{"a":1}'), piece(1, '{"b":2}')], [], ['{"a":1}', '{"b":2}']),  # by turns
    ([start(0), piece(0, "{"), start(1), piece(1, "{}"), start(2), piece(0, "}")], [], ["{}", "{}", "{}"]),
    ([start(0, kind="server"), piece(0, "{}"), start(1), piece(1, "{}")], [], ["{}"]),
    ([start(0), piece(0, '\n{\r\n "a": "x\\n" }\n')], [], ['{   "a": "x\\n" }']),
    ([piece(7, "{}")], [], []),
]  # fmt: skip


@pytest.mark.parametrize(("steps", "before", "at_the_end"), TOLD)
def test_a_call_is_told_once_it_is_complete(
    steps: list[Step], before: list[str], at_the_end: list[str]
) -> None:
    calls = WholeCalls()
    told = [call for step in steps for call in calls.take(step)]
    rest = calls.rest()
    assert [bytes(call.arguments).decode() for call in told] == before
    assert [bytes(call.arguments).decode() for call in rest] == at_the_end
    assert [call.number for call in (*told, *rest)] == list(range(len(told) + len(rest)))
    assert not calls.unreadable


@pytest.mark.parametrize("text", ['{"a":', "[]", "1", '"x"', "nonsense", "[" * 100_000, '{"a":1}{"b":2}'])
def test_what_is_no_object_is_left_out_and_known(text: str) -> None:
    calls = WholeCalls()
    told = [
        call for step in (start(0), piece(0, text), start(1), piece(1, "{}")) for call in calls.take(step)
    ]
    assert [call.name for call in (*told, *calls.rest())] == ["f"]
    assert calls.unreadable


def test_a_call_without_an_id_gets_one() -> None:
    calls = WholeCalls()
    calls.take(ToolCallStarted(0, "", "f", signature="s"))
    [call] = calls.rest()
    assert call.id.startswith("call_")
    assert call.signature == "s"

"""The trace context that came and the one that goes on."""

from itertools import count

import pytest

from sluice.tracing.context import MAX_NOTES, CallNote, TraceContext, context_of

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def context(headers: dict[str, str], share: float = 1.0) -> TraceContext:
    numbers = count(1)
    return context_of(headers, share, lambda size: next(numbers) if size != 53 else 1 << 52, lambda: 0.0)


@pytest.mark.parametrize(("flags", "sampled"), [("01", True), ("00", False), ("03", True), ("02", False)])
def test_a_callers_trace_is_gone_on_with_as_the_caller_samples(flags: str, sampled: bool) -> None:
    found = context(
        {"traceparent": f"00-{TRACE}-{PARENT}-{flags}", "tracestate": "a=1"}, share=0.0 if sampled else 1.0
    )
    assert (found.trace, found.parent, found.sampled, found.known) == (TRACE, PARENT, sampled, True)
    lines = found.attempt_lines()
    assert (
        lines
        == f"traceparent: 00-{TRACE}-{found.attempts[0]}-0{int(sampled)}\r\ntracestate: a=1\r\n".encode()
    )
    assert found.attempts[0] not in (PARENT, found.span)


@pytest.mark.parametrize(
    "wrong",
    [
        "", "x", f"00-{TRACE}-{PARENT}", f"ff-{TRACE}-{PARENT}-01", f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{PARENT}-01", f"00-{TRACE}-{PARENT}-01\r\nx: y",
    ],
)  # fmt: skip
def test_what_is_no_trace_parent_begins_a_new_trace_without_its_state(wrong: str) -> None:
    found = context({"traceparent": wrong, "tracestate": "a=1"})
    assert (found.parent, found.known, found.state) == ("", False, "")
    assert found.trace == f"8{0:031x}"
    assert found.span == f"8{1:015x}"


@pytest.mark.parametrize("drawn", [0, 1, (1 << 192) - 1])
def test_an_id_is_never_of_zeros_alone_and_always_of_its_length(drawn: int) -> None:
    found = context_of({}, 1.0, lambda size: drawn & (1 << size) - 1, lambda: 0.0)
    found.attempt_lines()
    ids = [found.trace, found.span, *found.attempts]
    assert [len(one) for one in ids] == [32, 16, 16]
    assert all(one.strip("0") for one in ids)


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    assert context({"traceparent": f"01-{TRACE}-{PARENT}-01-more"}).trace == TRACE


def test_a_share_of_new_traces_is_sampled() -> None:
    assert not context({}, 0.5).sampled  # the chance is a half exactly
    assert context({}, 0.51).sampled
    assert not context({}, 0.0).sampled


def test_a_state_that_cannot_be_sent_is_left_out() -> None:
    found = context({"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "a=\x00"})
    assert found.state == ""
    assert b"tracestate" not in found.attempt_lines()


def test_waits_and_notes_are_kept_in_their_order_and_up_to_a_bound() -> None:
    times = iter([0.0, 0.0005, 1.0, 1.25, *map(float, range(2, 200))])
    found = context_of({}, 1.0, lambda size: 1, lambda: next(times))
    found.wait("limits")
    found.waited()  # half a millisecond
    found.wait("queue")
    found.waited()
    found.waited()  # there is none
    assert found.notes == [CallNote("waited", 1.25, {"reason": "queue", "seconds": 0.25})]
    for _ in range(100):
        found.note("failover", {"from": "a", "to": "b", "cause": "server_error"})
    assert len(found.notes) == MAX_NOTES
    assert found.notes[1].at == 2.0

"""The relay as a state machine: what it says when, with a decoder and an encoder one can read."""

from collections.abc import Sequence
from typing import ClassVar

import pytest

from sluice.errors import GatewayError, UpstreamError, UpstreamGarbled, UpstreamTruncated
from sluice.model.events import (
    Finished,
    ReasoningBlock,
    ReasoningDelta,
    Started,
    StreamEvent,
    TextDelta,
    ToolCallStarted,
    Usage,
    Verbatim,
    Working,
)
from sluice.proxy.relay import Relay


class Script:
    """A decoder whose input names its events: one letter each."""

    EVENTS: ClassVar[dict[str, StreamEvent]] = {
        "s": Started("id", "m"), "a": TextDelta("a"), "b": TextDelta("b"), "r": ReasoningDelta("r"),
        "t": ToolCallStarted(0, "c", "f"), "v": Verbatim(b"raw"), "." : Finished("stop", Usage(1, 2)),
        "l": Finished("length"), "w": TextDelta(" "), "n": TextDelta("\n"), "k": Working(), "K": Working("n"),
        "B": ReasoningBlock(0, "r", "sig"),
    }  # fmt: skip

    def __init__(self, complete_at_close: bool = False) -> None:
        self.complete_at_close = complete_at_close
        self.reported: Usage | None = None

    def feed(self, data: bytes) -> list[StreamEvent]:
        if b"!" in data:
            raise UpstreamError("stream_error")
        return [self.EVENTS[letter] for letter in data.decode() if letter not in "_\n"]

    def close(self) -> list[StreamEvent]:
        if self.complete_at_close:
            return [self.EVENTS["."]]
        raise UpstreamTruncated


class Names:
    """An encoder that writes the events' letters back."""

    content_type = "text/plain"
    restarting = b""

    def start(self) -> bytes:
        return b""

    def encode(self, events: Sequence[StreamEvent]) -> bytes:
        letters = {event: letter for letter, event in Script.EVENTS.items()}
        return "".join(e.text if isinstance(e, TextDelta) else letters[e] for e in events).encode()

    def fail(self, error: GatewayError) -> bytes:
        return b"<" + error.code.encode() + b">"

    def resume(self, started: Started) -> None:
        pass

    def restart(self) -> bytes:
        return self.restarting

    def heartbeat(self) -> bytes:
        return b"~"


class WholeNames(Names):
    """The same for a whole answer, silent until its end."""

    def __init__(self) -> None:
        self.kept = b""

    def encode(self, events: Sequence[StreamEvent]) -> bytes:
        self.kept += super().encode(events)
        return self.kept if any(isinstance(event, Finished) for event in events) else b""


def relay(
    *,
    whole: bool = False,
    accept_empty: bool = False,
    said: str = "",
    prefilled: bool = False,
    resumes: bool = False,
) -> Relay:
    encoder = WholeNames() if whole else Names()
    r = Relay(Script(), encoder, whole, accept_empty, alive_at=1.0, resumes=resumes)
    if said:
        r.resume(said, prefilled=prefilled)
    return r


def test_nothing_is_said_before_the_first_content() -> None:
    r = relay()
    assert r.feed(b"s", 2) == b""
    assert not r.committed
    assert r.feed(b"_", 3) == b""
    assert r.feed(b"ab", 4) == b"sab", "what was held back comes first"
    assert r.committed
    assert (r.first_content_at, r.alive_at) == (4, 4)
    assert r.feed(b"a", 6) == b"a"
    assert (r.first_content_at, r.alive_at, r.gap) == (4, 6, 2)
    assert r.feed(b"v", 7) == b"v"
    assert (r.alive_at, r.gap) == (6, 0), "a gap ends with content, and is told of once"


@pytest.mark.parametrize(
    ("reported", "used"),
    [
        (None, Usage(7, 2)),
        (Usage(30, 1, cached_input=20), Usage(30, 2, cached_input=20)),
        (Usage(30, 9, reasoning=4), Usage(30, 9, reasoning=4)),
        (
            Usage(30, 1, written_input=20, written_input_1h=9),
            Usage(30, 2, written_input=20, written_input_1h=9),
        ),
        (Usage(0, 9), Usage(7, 9)),
        (Usage(-1, 9), Usage(7, 2)),
    ],
)
def test_what_a_cut_answer_used_is_what_was_told_of_it_and_else_about(
    reported: Usage | None, used: Usage
) -> None:
    r = relay()
    r.feed(b"sab", 2)
    r.decoder.reported = reported  # type: ignore[misc]
    assert r.used(7) == used
    r.feed(b".", 3)
    assert r.used(7) == Usage(1, 2), "the end says it all"


@pytest.mark.parametrize("letter", ["a", "r", "t"])
def test_text_reasoning_and_tool_calls_are_content(letter: str) -> None:
    r = relay()
    assert r.feed(b"s" + letter.encode(), 2) != b""
    assert r.first_content_at == 2


@pytest.mark.parametrize("letter", ["s", "v", "_"])
def test_roles_and_frames_are_not_content(letter: str) -> None:
    r = relay()
    assert r.feed(letter.encode(), 2) == b""
    assert r.first_content_at == 0


def test_a_whole_answer_waits_for_its_end() -> None:
    r = relay(whole=True)
    assert r.feed(b"sab", 2) == b""
    assert not r.committed
    assert r.feed(b".", 3) == b"sab."
    assert r.text == "ab"


def test_a_whole_answer_that_breaks_leaves_no_trace() -> None:
    r = relay(whole=True)
    assert r.feed(b"sab", 2) == b""
    with pytest.raises(UpstreamTruncated):
        r.close(3)
    assert not r.committed


def test_the_end_of_the_body_can_complete_an_answer() -> None:
    r = Relay(Script(complete_at_close=True), Names(), whole=False, accept_empty=False, alive_at=1)
    r.feed(b"sa", 2)
    assert r.close(3) == b"."
    assert r.finished is not None


def test_the_end_of_the_body_before_the_answers_end_is_a_cut() -> None:
    r = relay()
    r.feed(b"sa", 2)
    with pytest.raises(UpstreamTruncated):
        r.close(3)


def test_nothing_is_said_after_the_end() -> None:
    r = relay()
    assert r.feed(b"sa.", 2) == b"sa."
    assert r.feed(b"ab", 3) == b""
    assert r.close(4) == b""
    assert r.text == "a"


def test_an_empty_answer_is_a_failure_while_another_target_is_left() -> None:
    with pytest.raises(UpstreamError, match="empty"):
        relay().feed(b"s.", 2)
    assert relay(accept_empty=True).feed(b"s.", 2) == b"s."


def test_an_answer_cut_by_its_length_before_any_content_is_an_answer() -> None:
    assert relay().feed(b"sl", 2) == b"sl"


# --- an answer that was cut, continued by another attempt


def test_behind_a_prefill_everything_is_new() -> None:
    r = relay(said="ab", prefilled=True)
    assert r.feed(b"s", 2) == b""
    assert r.feed(b"a", 3) == b"a", "no second start"
    assert r.feed(b"b.", 4) == b"b."
    assert r.text == "abab"


def test_a_fresh_answer_is_silent_until_it_has_reproduced_what_was_said() -> None:
    r = relay(said="ab")
    assert r.feed(b"sa", 2) == b""
    assert r.feed(b"b", 3) == b""
    assert not r.committed
    assert r.feed(b"a", 4) == b"a"
    assert r.feed(b"b.", 5) == b"b."
    assert r.text == "abab"


def test_a_fresh_answer_may_pass_what_was_said_within_one_read() -> None:
    r = relay(said="ab")
    assert r.feed(b"sabba.", 2).endswith(b".")
    assert r.text == "abba"


def test_an_answer_that_ends_where_the_cut_was_is_complete() -> None:
    r = relay(said="ab")
    assert r.feed(b"sab.", 2) == b"."
    assert r.text == "ab"


@pytest.mark.parametrize("answer", [b"sb", b"saa", b"sa."])
def test_another_answer_than_the_one_that_was_cut_is_an_error(answer: bytes) -> None:
    r = relay(said="ab")
    with pytest.raises(UpstreamError, match="Another answer"):
        r.feed(answer, 2)
    assert r.text == "ab", "what the client holds"


def test_a_client_that_can_starts_over_when_the_answer_is_another() -> None:
    encoder = Names()
    encoder.restarting = b"<again>"
    r = Relay(Script(), encoder, whole=False, accept_empty=True, alive_at=1)
    r.resume("ab", prefilled=False)
    assert r.feed(b"sa", 2) == b""
    assert r.feed(b"a", 3).startswith(b"<again>")
    assert r.feed(b"b.", 4) == b"b."
    assert r.text == "aab"


@pytest.mark.parametrize(
    ("said", "answer", "new"),
    [
        ("a b ", b"_s_ab.", b"ab."),
        ("a ", b"ws a.", b"a."),
        ("x\n\n", b"s_nna.", b"a."),
        ("x\n", b"nwa.", b" a."),
    ],
)
def test_white_space_that_the_prefill_did_without_is_not_said_twice(
    said: str, answer: bytes, new: bytes
) -> None:
    whole = relay(said=said, prefilled=True)
    assert whole.feed(answer.replace(b" ", b""), 2) == new
    cut = relay(said=said, prefilled=True)
    assert b"".join(cut.feed(bytes([letter]), 2) for letter in answer.replace(b" ", b"")) == new
    assert cut.text == said + new.decode().removesuffix(".")


def test_behind_reasoning_that_was_cut_only_what_is_not_reasoning_is_new() -> None:
    subject = relay(resumes=True)
    assert [subject.feed(data, 2.0) for data in (b"sr", b"r", b"ra", b"b.")] == [b"", b"", b"a", b"b."]
    assert subject.text == "ab"
    assert subject.recovered


def test_behind_reasoning_that_was_cut_an_end_without_text_is_an_end() -> None:
    assert relay(resumes=True, accept_empty=True).feed(b"sr.", 2.0) == b"."


def test_every_piece_of_content_is_counted_and_nothing_else() -> None:
    r = relay()
    for data in (b"s", b"av", b"rbt", b"v", b"."):
        r.feed(data, 2)
    assert (r.pieces, r.characters, r.estimated_tokens) == (4, 4, 4)
    for batch in range(1, 300):
        r = relay()
        r.feed(b"a" * batch, 2)
        r.feed(b"ab" * batch, 3)
        assert r.pieces == 3 * batch, "however they are folded"


def test_pieces_that_say_again_what_the_client_holds_count_too() -> None:
    r = relay(said="ab")
    assert r.feed(b"sa", 2) == b""
    assert r.feed(b"bab", 3) == b"ab"
    assert r.feed(b"a.", 4) == b"a."
    assert r.pieces == 5


def test_large_pieces_are_estimated_by_their_characters() -> None:
    r = Relay(Long(), Names(), whole=True, accept_empty=True, alive_at=1)
    r.feed(b"", 2)
    assert (r.pieces, r.estimated_tokens) == (1, 250)


class Long(Script):
    def feed(self, data: bytes) -> list[StreamEvent]:
        return [TextDelta("x" * 1000)]


def test_the_end_says_the_cost_where_it_is_asked_for() -> None:
    said: list[StreamEvent] = []

    class Keeps(Names):
        def encode(self, events: Sequence[StreamEvent]) -> bytes:
            said.extend(events)
            return b"x"

    r = Relay(Script(), Keeps(), whole=False, accept_empty=False, alive_at=1)
    r.priced = lambda finished: Finished(finished.reason, finished.usage, cost=0.5)
    r.feed(b"sa", 2)
    r.feed(b"b.", 3)
    assert said[-1] == r.finished == Finished("stop", Usage(1, 2), cost=0.5)


def bounded(*, whole: bool, before: int = 10, answer: int = 20) -> Relay:
    return Relay(Script(), WholeNames() if whole else Names(), whole, False, before, answer, alive_at=1.0)


TOO_EARLY = "more than 10 bytes before any content"
TOO_LONG = "more than 20 bytes"
BOUNDS: list[tuple[bool, list[bytes], str]] = [
    (False, [b"s", *[b"v"] * 10], TOO_EARLY),
    (False, [b"s", *[b"v"] * 9, b"a", b"v" * 100], ""),
    (False, [b"v" * 11], TOO_EARLY),
    (False, [b"_" * 11 + b"a"], ""),  # the read that brings content
    (False, [b"s", b"_" * 10, b"v"], TOO_EARLY),  # a frame that came in two reads
    (False, [b"s", b"_" * 10, b"a"], ""),
    (False, [b"s", b"_" * 9, b"_\n"], TOO_EARLY),  # frames that mean nothing to this dialect
    (False, [b"_" * 20, b"a"], TOO_LONG),  # one frame, for all that is known
    (False, [b"a", b"a" * 100, b"."], ""),  # a stream that is passed on is not kept
    (True, [b"s", *[b"v"] * 10], TOO_EARLY),
    (True, [b"s", b"a", *[b"v"] * 17, b"."], ""),
    (True, [b"s", b"a", *[b"v"] * 19], TOO_LONG),
    (True, [b"a" * 19, b"."], ""),
    (True, [b"a" * 20, b"."], TOO_LONG),
    (True, [b"_\n" * 6, b"a."], ""),  # a document
    (True, [b"_" * 21], TOO_LONG),
]


@pytest.mark.parametrize(("whole", "reads", "refusal"), BOUNDS)
def test_what_is_not_said_yet_is_bounded_in_bytes(whole: bool, reads: list[bytes], refusal: str) -> None:
    r = bounded(whole=whole)
    *all_but_one, last = enumerate(reads, 1)
    said = b"".join([r.feed(data, at) for at, data in all_but_one])
    if not refusal:
        assert said + r.feed(last[1], last[0])
        return
    assert said == b"", "nothing was said: another target may answer"
    with pytest.raises(UpstreamGarbled, match=refusal):
        r.feed(last[1], last[0])


def test_the_events_of_a_whole_answer_are_not_kept() -> None:
    """They are encoded as they come: an answer of many frames neither fills the memory nor takes a long turn
    at its end."""
    encoded: list[int] = []

    class Counts(WholeNames):
        def encode(self, events: Sequence[StreamEvent]) -> bytes:
            encoded.append(len(events))
            return super().encode(events)

    r = Relay(Script(), Counts(), whole=True, accept_empty=False, alive_at=1)
    for _ in range(100):
        assert r.feed(b"ab", 2) == b""
    assert encoded == [2] * 100
    assert r._held == []
    assert r.feed(b".", 3) == b"ab" * 100 + b"."


def test_work_that_shows_nothing_is_a_sign_of_life_and_commits_nothing() -> None:
    r = relay()
    assert r.feed(b"sk", 2) == b""
    assert (r.alive_at, r.first_content_at, r.committed) == (2, 0, False)
    for now in range(3, 1003):
        assert r.feed(b"k", now) == b""
    assert (r.alive_at, r.committed) == (1002, False)
    assert len(r._held) == 1, "nothing piles up meanwhile"
    assert r.feed(b"ka", 2000) == b"sa"
    assert r.feed(b"k", 2001) == b""
    assert (r.alive_at, r.gap) == (2001, 0)


def test_a_model_that_hands_over_is_named() -> None:
    r = relay()
    r.feed(b"sa", 2)
    assert r.feed(b"Kb", 3) == b"Kb"
    assert r.model == "n"


def test_a_block_for_its_provider_waits_for_content_and_is_kept() -> None:
    r = relay()
    assert r.feed(b"sB", 2) == b""
    assert (r.alive_at, r.first_content_at, r.committed) == (2, 0, False)
    assert r.feed(b"a", 3) == b"sBa"
    assert r.thoughts == [ReasoningBlock(0, "r", "sig")]


def test_a_block_of_another_attempt_is_not_told_where_the_answer_goes_on() -> None:
    r = relay()
    r.resume("a", prefilled=True)
    assert r.feed(b"sBb", 2) == b"b"

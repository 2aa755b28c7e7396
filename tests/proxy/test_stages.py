"""Stages between decoder and encoder: what they see, hold back, replace and end."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from sluice.backends.protocol import Decoder
from sluice.errors import Forbidden, GatewayError, UpstreamError
from sluice.model.events import (
    Finished,
    ReasoningDelta,
    Started,
    StreamEvent,
    TextDelta,
    ToolCallStarted,
    Usage,
    Working,
)
from sluice.proxy.stages import Stage, StagedDecoder
from tests.proxy.scripts import ENDING, OPENING, Scene, Script, begun, frame


class Given(Decoder):
    """A decoder that yields what it is given."""

    skipped = 3  # type: ignore[assignment]
    reported = Usage(1, 2)  # type: ignore[assignment]

    def __init__(self, *batches: list[StreamEvent]) -> None:
        self.batches = list(batches)

    def feed(self, data: bytes) -> list[StreamEvent]:
        return self.batches.pop(0)

    def close(self) -> list[StreamEvent]:
        return self.batches.pop(0) if self.batches else []


class Shout:
    """Holds nothing back."""

    def feed(self, events: list[StreamEvent]) -> list[StreamEvent]:
        return [TextDelta(event.text.upper()) if isinstance(event, TextDelta) else event for event in events]

    def close(self) -> list[StreamEvent]:
        return []


class Pairs:
    """Lets two letters go at a time."""

    def __init__(self) -> None:
        self.held = ""
        self.seen: list[StreamEvent] = []

    def feed(self, events: list[StreamEvent]) -> list[StreamEvent]:
        assert events
        self.seen += events
        out: list[StreamEvent] = []
        for event in events:
            if not isinstance(event, TextDelta):
                out += [*self.close(), event]
                continue
            self.held += event.text
            whole = len(self.held) // 2 * 2
            out += [TextDelta(self.held[:whole])] if whole else []
            self.held = self.held[whole:]
        return out

    def close(self) -> list[StreamEvent]:
        held, self.held = self.held, ""
        return [TextDelta(held)] if held else []


END = Finished("stop", Usage(1, 2))


def fed(stages: list[Stage], *batches: list[StreamEvent]) -> list[list[StreamEvent]]:
    decoder = StagedDecoder(Given(*batches), stages)
    return [decoder.feed(b"x") for _ in batches]


def test_a_stage_sees_everything_but_the_end_and_what_it_holds_goes_before_that() -> None:
    pairs = Pairs()
    reads = fed([pairs], [Started("i", "m"), TextDelta("a")], [TextDelta("bc")], [END])
    assert reads == [[Started("i", "m")], [TextDelta("ab")], [TextDelta("c"), END]]
    assert END not in pairs.seen


def test_the_order_of_text_and_calls_is_the_stage_s_to_keep() -> None:
    call = ToolCallStarted(0, "c", "f")
    assert fed([Pairs()], [TextDelta("a"), call]) == [[TextDelta("a"), call]]


def test_stages_follow_one_another_and_what_one_releases_passes_those_behind_it() -> None:
    assert fed([Pairs(), Shout()], [TextDelta("abc")], [END]) == [[TextDelta("AB")], [TextDelta("C"), END]]
    assert fed([Shout(), Pairs()], [TextDelta("abc")], [END]) == [[TextDelta("AB")], [TextDelta("C"), END]]


def test_what_is_all_held_back_is_a_sign_of_life() -> None:
    assert fed([Pairs()], [TextDelta("a")], []) == [[Working()], []]


def test_an_end_in_the_same_read_as_the_text() -> None:
    assert fed([Pairs()], [TextDelta("abc"), END]) == [[TextDelta("ab"), TextDelta("c"), END]]


def test_an_end_that_comes_when_the_body_ends() -> None:
    decoder = StagedDecoder(Given([TextDelta("a")], [END]), [Pairs()])
    assert decoder.feed(b"x") == [Working()]
    assert decoder.close() == [TextDelta("a"), END]


def test_figures_are_the_decoder_s() -> None:
    decoder = StagedDecoder(Given(), [])
    assert (decoder.skipped, decoder.skipped_fields, decoder.finish_missing, decoder.reported) == (
        3,
        0,
        0,
        Usage(1, 2),
    )


# --- through the pipeline


class Kind:
    def __init__(self, make: Callable[[], Stage]) -> None:
        self.stage = make


class Refusing(Shout):
    """Ends an answer that has "w3" in it."""

    def __init__(self, error: GatewayError) -> None:
        self.error = error

    def feed(self, events: list[StreamEvent]) -> list[StreamEvent]:
        if any("w3" in event.text for event in events if isinstance(event, TextDelta)):
            raise self.error
        return events


def staged(make: Callable[[], Stage], scripts: list[Script], **alias: Any) -> Scene:
    scene = Scene(scripts, **alias)
    for tier in scene.route.tiers:
        tier.targets = [target.with_stages([Kind(make)]) for target in tier.targets]  # type: ignore[attr-defined]
    return scene


@pytest.mark.parametrize("frontend", ["widget", "openai"])
async def test_text_of_both_lanes_passes_a_stage(frontend: str) -> None:
    scene = staged(Shout, [Script()])
    call = scene.call(frontend)
    task = asyncio.create_task(scene.pipeline.answer(call, scene.client))
    await scene.play(task, 100)
    await task
    assert b"W5" in scene.client.data
    assert b"w5" not in scene.client.data
    assert (call.end, call.attempts[0].characters) == ("done", 18)


async def test_every_attempt_has_a_stage_of_its_own_and_a_cut_answer_goes_on() -> None:
    made: list[Pairs] = []

    def make() -> Pairs:
        made.append(Pairs())
        return made[-1]

    scene = staged(make, [Script(words=3, ending="cut"), Script()], recovery="continue")
    call = scene.call()
    task = asyncio.create_task(scene.pipeline.answer(call, scene.client))
    await scene.play(task, 100)
    await task
    assert (call.end, call.text, len(made)) == ("done", " w0 w1 w2 w3 w4 w5", 2)


async def test_a_stage_that_finds_the_target_at_fault_leads_to_the_next_before_any_content() -> None:
    scene = staged(lambda: Refusing(UpstreamError("garbled")), [Script(), Script(words=2)])
    call = scene.call()
    task = asyncio.create_task(scene.pipeline.answer(call, scene.client))
    await begun(scene, 1)
    scene.world.responses[0].push(OPENING + frame({"content": "w3"}))
    await begun(scene, 2)
    scene.world.responses[1].push(OPENING + frame({"content": "fine"}) + ENDING)
    scene.world.responses[1].finish()
    await task
    assert [attempt.outcome for attempt in call.attempts] == ["garbled", "ok"]
    assert scene.client.lines[-1]["message"] == "fine"


async def test_a_stage_ends_an_answer_in_band_and_the_target_is_not_at_fault() -> None:
    scene = staged(lambda: Refusing(Forbidden("Not this", code="guarded")), [Script()])
    call = scene.call()
    task = asyncio.create_task(scene.pipeline.answer(call, scene.client))
    await scene.play(task, 100)
    await task
    assert [line["type"] for line in scene.client.lines] == ["start", "token", "token", "token", "error"]
    assert scene.client.lines[-1]["code"] == "guarded"
    assert (call.end, call.attempts[0].outcome) == ("upstream_error", "abandoned")
    assert scene.targets[0].health.healthy()
    assert scene.world.open == 0


async def test_a_stage_ends_a_call_that_has_not_begun_with_its_own_error() -> None:
    scene = staged(lambda: Refusing(Forbidden("Not this", code="guarded")), [Script()])
    task = asyncio.create_task(scene.pipeline.answer(scene.call("openai"), scene.client))
    await begun(scene, 1)
    scene.world.responses[0].push(OPENING + frame({"content": "w3"}))
    with pytest.raises(Forbidden, match="Not this"):
        await task
    assert not scene.client.begun


async def test_a_fault_of_a_stage_is_a_fault_of_ours() -> None:
    class Faulty(Shout):
        def feed(self, events: list[StreamEvent]) -> list[StreamEvent]:
            raise KeyError

    scene = staged(Faulty, [Script()])
    call = scene.call()
    task = asyncio.create_task(scene.pipeline.answer(call, scene.client))
    await scene.play(task, 100)
    await task
    assert (call.end, scene.client.lines[-1]["code"]) == ("internal_error", "internal_error")


async def test_thoughts_pass_a_stage_too() -> None:
    seen = Pairs()
    assert fed([seen], [ReasoningDelta("hm")]) == [[ReasoningDelta("hm")]]
    assert seen.seen == [ReasoningDelta("hm")]


async def test_an_alias_with_a_stage_passes_no_frames_on_and_asks_for_no_whole_answer() -> None:
    scene = Scene([])
    [target] = scene.route.tiers[0].targets
    staged_target = target.with_stages([Kind(Shout)])  # type: ignore[attr-defined]
    assert (staged_target.passes_on, staged_target.whole) == (None, None)
    assert target.with_stages([]) is target, "and without one nothing is changed"  # type: ignore[attr-defined]

"""The calls that a process remembers, while its clock is set."""

import pytest

from sluice.sinks.content import full
from sluice.sinks.record import Draft
from sluice.telemetry.logs import LogLine
from sluice.telemetry.recent import MAX_TEXT_BYTES, RecentCalls, RecentTexts


class Wall:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Line(LogLine, kw_only=True):
    event: str = "request"


@pytest.mark.parametrize("back", [0.5, 5 * 3600.0])
def test_the_last_minute_is_a_minute_though_the_clock_is_set_back(back: float) -> None:
    wall = Wall()
    recent = RecentCalls(wall)
    say = recent.feed(lambda line: None)
    for _ in range(3):
        say(Line())
        wall.now += 20
    wall.now -= back
    assert len(recent.within(60)[0]) == 3
    wall.now += 61
    assert len(recent.within(60)[0]) == 0
    say(Line())
    times = [at for at, _ in recent.newest(10, None, {}, 1)]
    assert times == sorted(set(times), reverse=True)
    assert times[0] == int(wall.now * 1e6)
    assert len(recent.newest(10, (times[0], 1), {}, 1)) == 3


def draft(text: str = "x") -> Draft:
    return Draft({}, 0.0, full((), text, 1000))


def kept(texts: RecentTexts) -> list[int]:
    return [number for number, one in texts.drafts.items() if one is not None]


def test_texts_are_bounded_by_their_number_and_by_their_bytes() -> None:
    texts = RecentTexts(calls=3, most=100)
    for number in range(1, 6):
        texts.keep(number, draft(), 10)
    assert kept(texts) == [3, 4, 5]
    texts.keep(6, draft(), 85)
    assert kept(texts) == [5, 6]
    texts.keep(7, draft(), 101)
    assert kept(texts) == [], "one that is too large alone takes the others' place, and has none"
    texts.keep(8, draft(), 100)
    assert kept(texts) == [8]
    assert [*texts.drafts] == [1, 2, 3, 4, 5, 6, 7, 8], "those that are forgotten are known to be"


def test_what_is_known_of_texts_goes_with_the_calls_themselves() -> None:
    texts = RecentTexts(calls=3, most=100, kept=10)
    for number in range(1, 500, 4):
        texts.keep(number, draft(), 40)
        assert all(one > number - 10 for one in texts.drafts)
        assert len(kept(texts)) == min(2, len(texts.drafts))
    texts.keep(5000, draft(), 40)
    assert kept(texts) == [*texts.drafts] == [5000]


def test_the_bytes_are_those_that_python_takes() -> None:
    texts = full((), "\N{GRINNING FACE}" * 1000, 1000)
    assert texts.held >= 4000
    recent = RecentCalls(Wall())
    say = recent.feed(lambda line: None)
    for _ in range(5):
        line = Line()
        say(line)
        recent.keep(line, draft(), MAX_TEXT_BYTES // 2)
    assert [recent.draft(number) is not None for number in range(1, 6)] == [False, False, False, True, True]


def test_texts_are_those_of_the_line_that_came_last_or_nobodys() -> None:
    recent = RecentCalls(Wall())
    say = recent.feed(lambda line: None)
    before, last = Line(), Line()
    recent.keep(last, draft(), 1)
    say(before)
    say(last)
    recent.keep(before, draft(), 1)
    with pytest.raises(KeyError):
        recent.draft(2)
    recent.keep(last, draft("mine"), 1)
    found = recent.draft(2)
    assert found is not None
    assert found.texts()["answer"]["text"] == "mine"

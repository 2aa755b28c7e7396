"""Bounds against floods of HTTP/2 frames."""

import pytest

from sluice.server.http2.floods import MAX_FRUITLESS, MAX_SMALL, RESETS, UPDATES, FloodBounds


@pytest.mark.parametrize(("field", "most"), [("fruitless", MAX_FRUITLESS), ("small", MAX_SMALL)])
def test_frames_without_content_are_bounded_per_second(field: str, most: int) -> None:
    floods = FloodBounds()
    setattr(floods.frames, field, most)
    assert not floods.exceeded()
    setattr(floods.frames, field, most + 1)
    assert floods.exceeded()
    floods.begin_second()
    assert not floods.exceeded()


def test_windows_and_resets_are_bounded_over_the_whole_connection() -> None:
    floods = FloodBounds()
    floods.frames.updates = floods.frames.resets = MAX_FRUITLESS + 1
    floods.begin_second()
    assert floods.exceeded()


def test_each_request_and_each_frame_that_was_sent_allows_further_windows() -> None:
    floods = FloodBounds()
    floods.begun, floods.sent = 3, 5
    floods.frames.updates = MAX_FRUITLESS + 2 * 3 + UPDATES * 5
    assert not floods.exceeded()
    floods.frames.updates += 1
    assert floods.exceeded()


def test_a_client_that_resets_most_of_its_streams_at_once_is_refused() -> None:
    """CVE-2023-44487."""
    floods = FloodBounds()
    floods.begun, floods.resets = 2 * RESETS, RESETS + 1
    assert floods.exceeded()
    floods.begun = 2 * (RESETS + 1)
    assert not floods.exceeded()

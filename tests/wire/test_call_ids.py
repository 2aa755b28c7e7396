"""Ids of tool calls whose provider gives none."""

import re

from sluice.wire.call_ids import new_call_id


def test_ids_are_different_and_of_characters_that_vendors_take() -> None:
    ids = [new_call_id() for _ in range(1000)]
    assert len({*ids}) == 1000
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{29}", id) for id in ids)

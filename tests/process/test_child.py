"""The supervisor's record of a worker."""

from typing import Any

import msgspec
import pytest

from sluice.process.child import Child


def child(**fields: Any) -> Child:
    given = {field.name: None for field in msgspec.structs.fields(Child) if field.required}
    return Child(**{**given, **fields})


@pytest.mark.parametrize(
    ("fields", "state", "serves"),
    [
        ({}, "starting", False),
        ({"listens": True}, "serving", True),
        ({"listens": True, "replaced": True}, "draining", True),
        ({"listens": True, "replaced": True, "leaves": True}, "leaving", False),
        ({"listens": True, "leaves": True}, "leaving", False),
        ({"listens": True, "silent": True}, "silent", True),
    ],
)
def test_states_in_words(fields: dict[str, bool], state: str, serves: bool) -> None:
    found = child(**fields)
    assert (found.state, found.serves) == (state, serves)

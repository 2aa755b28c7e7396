"""What Anthropic's dialect tells of tokens."""

import pytest

from sluice.frontends.anthropic.message import usage_object
from sluice.model.events import Usage


@pytest.mark.parametrize(
    ("usage", "told"),
    [
        (Usage(10, 2), (10, 0, 0)),
        (Usage(10, 2, cached_input=6, written_input=3), (1, 3, 6)),
        (Usage(10, 2, cached_input=14), (0, 0, 10)),
        (Usage(10, 2, cached_input=6, written_input=9), (0, 4, 6)),
    ],
)
def test_the_parts_of_a_prompt_add_up_to_it(usage: Usage, told: tuple[int, int, int]) -> None:
    said = usage_object(usage)
    names = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    assert tuple(said[name] for name in names) == told
    assert sum(told) == usage.input


def test_what_was_written_for_an_hour_is_told_apart() -> None:
    assert "cache_creation" not in usage_object(Usage(10, 2, written_input=3))
    assert usage_object(Usage(10, 2, written_input=3, written_input_1h=2))["cache_creation"] == {
        "ephemeral_5m_input_tokens": 1,
        "ephemeral_1h_input_tokens": 2,
    }

"""Translates the requested amount of reasoning into OpenAI's `reasoning_effort`."""

from collections.abc import Sequence

from sluice.model.chat import Reasoning
from sluice.model.rules import Effort

LEVELS: Sequence[Effort] = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
USUAL: Sequence[Effort] = LEVELS[:5]
"""Efforts of models that have no rule: only a few models have the two highest."""
BUDGETS: Sequence[tuple[int, Effort]] = ((2048, "low"), (8192, "medium"))
"""The largest budget, in tokens, that becomes each effort; a larger budget becomes high."""


def effort_of(wish: Reasoning, known: Sequence[Effort]) -> Effort | None:
    """Returns the highest of the model's efforts that is not above the requested one, else its lowest.
    `known`: the model's efforts; empty: those of most models."""
    level = wish.effort or next(
        (effort for tokens, effort in BUDGETS if (wish.budget or 0) <= tokens), "high"
    )
    if level == "none" and known and "none" not in known:
        return None
    efforts = known or USUAL
    below = [effort for effort in efforts if LEVELS.index(effort) <= LEVELS.index(level)]
    return below[-1] if below else efforts[0]

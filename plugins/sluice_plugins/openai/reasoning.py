"""Translates amounts of reasoning into OpenAI's `reasoning_effort`."""

from collections.abc import Sequence

from sluice.model.chat import Reasoning
from sluice.model.rules import Effort

LEVELS: Sequence[Effort] = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
USUAL: Sequence[Effort] = LEVELS[:5]
"""What servers know of which nothing else is known: the two above are single models'."""
BUDGETS: Sequence[tuple[int, Effort]] = ((2048, "low"), (8192, "medium"))
"""Tokens up to which a budget is this effort; a larger one is high."""


def effort_of(wish: Reasoning, known: Sequence[Effort]) -> Effort | None:
    """The highest of the model's efforts up to the wish, else its lowest. `known`: the model's; empty: those
    of most."""
    level = wish.effort or next(
        (effort for tokens, effort in BUDGETS if (wish.budget or 0) <= tokens), "high"
    )
    if level == "none" and known and "none" not in known:
        return None
    efforts = known or USUAL
    below = [effort for effort in efforts if LEVELS.index(effort) <= LEVELS.index(level)]
    return below[-1] if below else efforts[0]

"""Facts about models, for lists of models: context, output, and modalities. No call depends on them."""

import re
from collections.abc import Iterable, Mapping

import msgspec

SNAPSHOT = re.compile(r"(.+?)[-@](?:[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{8})\Z").match
"""A model's name that ends in a date, and its family's name before that."""
_MAKERS = "anthropic|amazon|cohere|mistral|meta|openai|deepseek"
_OF_BEDROCK = re.compile(rf"(?:[a-z]{{2,6}}\.)?(?:{_MAKERS})\.(.+?)(?:-v\d+)?(?::\d+)?\Z").match


class Facts(msgspec.Struct, frozen=True):
    """`context` is in tokens, and so is `output`, the longest answer; 0: unknown. `input` and `answers` are
    kinds of content: "text", "image", "pdf", "audio", "video"; empty: unknown."""

    context: int = 0
    output: int = 0
    input: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()


NOTHING = Facts()


def names_for(model: str) -> Iterable[str]:
    """Returns the names that a target's model may have in the table, the most exact one first: as written;
    without the maker or the region before it; without Bedrock's version; without a date."""
    last = model.rpartition("/")[2]
    bare = [model, last]
    if found := _OF_BEDROCK(last):
        bare.append(found[1])
    for name in bare:
        yield name
        if dated := SNAPSHOT(name):
            yield dated[1]


def facts_of(table: Mapping[str, Facts], model: str) -> Facts:
    """Returns the facts about a target's model; NOTHING if it is not in the table."""
    return next((table[name] for name in names_for(model) if name in table), NOTHING)


def common(several: Iterable[Facts]) -> Facts:
    """Returns the facts that hold for all of these models: the smallest figures, and the modalities that all
    have."""
    first, *others = several
    for other in others:
        first = Facts(
            min(first.context, other.context),  # 0 means unknown, and so does the smaller of it and another
            min(first.output, other.output),
            tuple([kind for kind in first.input if kind in other.input]),
            tuple([kind for kind in first.answers if kind in other.answers]),
        )
    return first

"""The dimensions of usage, prices, and the table of models."""

from typing import Annotated, Literal

from msgspec import Meta

from sluice.config.types.values import Name, Section


class Tag(Section, frozen=True):
    """A tag that callers set, by which usage is counted: in a header, or in `metadata` of the body.

    The header takes precedence. Values that are not in `values`, or exceed `most` a day, count as "other".
    """

    header: str | None = None  # the request header with the value
    metadata: str | None = None  # the field with the value in the metadata of the body
    values: tuple[str, ...] = ()  # the only values that are counted separately; default: any
    most: Annotated[int, Meta(ge=1, le=10_000)] = 1000  # values per day that each process counts separately


class UsageReport(Section, frozen=True):
    """The dimensions that usage is counted by, in addition to day, key, tenant, alias and model."""

    hourly_days: Annotated[int, Meta(ge=0, le=400)] = (
        8  # days for which usage is also stored by the hour; 0: not at all
    )
    tags: dict[Name, Tag] = {}  # tags of calls, by their name in reports (tag:NAME)


MAX_PRICE = 1_000_000
"""The largest price, in US dollars for a million tokens: a dollar for each. A larger one must be a
mistake."""


class Rates(Section, frozen=True):
    """US dollars for a million tokens. `cached_input` (read from the provider's prompt cache) and
    `written_input` (written to it) null: as input; `written_input_1h` (written to it for an hour, at Anthropic)
    null: as `written_input`; `reasoning` null: as output."""

    input: Annotated[float, Meta(ge=0, le=MAX_PRICE)]  # US dollars for a million tokens of input
    output: Annotated[float, Meta(ge=0, le=MAX_PRICE)]  # US dollars for a million tokens of output
    cached_input: Annotated[float, Meta(ge=0, le=MAX_PRICE)] | None = (
        None  # US dollars for a million tokens read from the prompt cache; default: as input
    )
    written_input: Annotated[float, Meta(ge=0, le=MAX_PRICE)] | None = (
        None  # US dollars for a million tokens written to the prompt cache; default: as input
    )
    written_input_1h: Annotated[float, Meta(ge=0, le=MAX_PRICE)] | None = (
        None  # US dollars for a million tokens written to it for an hour; default: as written_input
    )
    reasoning: Annotated[float, Meta(ge=0, le=MAX_PRICE)] | None = (
        None  # US dollars for a million tokens of reasoning; default: as output
    )


class LongPrompt(Rates, frozen=True, kw_only=True):
    """Prices of all tokens of a call whose prompt has more than `above` tokens, including those from a
    cache."""

    above: Annotated[
        int, Meta(ge=1, le=1_000_000_000)
    ]  # the price applies to prompts of more tokens than this


class Price(Rates, frozen=True, kw_only=True):
    """Prices of a model's tokens. `long_prompts`: other prices for calls with long prompts; of several, the
    one with the largest `above` that the prompt exceeds applies. `since`: a date."""

    long_prompts: tuple[LongPrompt, ...] = ()  # prices of calls with long prompts
    since: str | None = None  # the first day on which it applies


class Prices(Section, frozen=True):
    """Prices of tokens: `file` (default: the table that is part of Sluice), and `models`, which takes
    precedence.

    A model is named "upstream/model" or "model". `unknown`: whether a call whose model has no price is
    allowed or refused. `header`: whole answers have their cost in a header (for streams it is in the log line
    and in usage).
    """

    file: str | None = None  # a table instead of the one that is part of Sluice
    models: dict[
        Name, Price | tuple[Price, ...]
    ] = {}  # prices by model, which take precedence over the table
    unknown: Literal["allow", "refuse"] = "allow"  # whether calls to models without a price are allowed
    header: bool = False  # whether answers have their cost in a header


class Models(Section, frozen=True):
    """The table of models and the request fields that they accept: `file` replaces the table that is part of
    Sluice."""

    file: str | None = None  # a table instead of the one that is part of Sluice (sluice models update --to)

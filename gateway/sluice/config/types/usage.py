"""The dimensions of usage, prices, and the table of models."""

from typing import Annotated, Literal

from msgspec import Meta

from sluice.config.types.values import Name, Section


class Tag(Section, frozen=True):
    """A tag that calls give themselves, by which usage is counted: in a header, or in `metadata` of its body.

    The header goes before the metadata. Values beyond `values`, or beyond `most` a day, count as "other".
    """

    header: str | None = None  # the request header that has the value
    metadata: str | None = None  # the field of the body's metadata that has it
    values: tuple[str, ...] = ()  # the only values that are kept apart; default: any
    most: Annotated[int, Meta(ge=1, le=10_000)] = 1000  # values that each process keeps apart a day


class UsageReport(Section, frozen=True):
    """The dimensions that usage is counted by, beside the day, the key, the tenant, the alias and the model."""

    hourly_days: Annotated[int, Meta(ge=0, le=400)] = (
        8  # days for which it is also kept by the hour; 0: not at all
    )
    tags: dict[Name, Tag] = {}  # what calls say of themselves, by the name in reports (tag:NAME)


MAX_PRICE = 1_000_000
"""US dollars for a million tokens: a dollar for each. What is more is a mistake, or a price for a single
token."""


class Rates(Section, frozen=True):
    """US dollars for a million tokens. `cached_input` (read from the provider's prompt cache) and
    `written_input` (written to it) null: as input; `written_input_1h` (written to it for an hour, at Anthropic)
    null: as `written_input`; `reasoning` null: as output."""

    input: Annotated[float, Meta(ge=0, le=MAX_PRICE)]  # US dollars for a million tokens of input
    output: Annotated[float, Meta(ge=0, le=MAX_PRICE)]  # US dollars for a million tokens of output
    cached_input: Annotated[float, Meta(ge=0, le=MAX_PRICE)] | None = None  # likewise; default: as input
    written_input: Annotated[float, Meta(ge=0, le=MAX_PRICE)] | None = None  # likewise; default: as input
    written_input_1h: Annotated[float, Meta(ge=0, le=MAX_PRICE)] | None = (
        None  # likewise; default: as written_input
    )
    reasoning: Annotated[float, Meta(ge=0, le=MAX_PRICE)] | None = None  # likewise; default: as output


class LongPrompt(Rates, frozen=True, kw_only=True):
    """What all tokens of a call cost whose prompt has more than `above` tokens, those from a cache included."""

    above: Annotated[int, Meta(ge=1, le=1_000_000_000)]  # tokens of the prompt


class Price(Rates, frozen=True, kw_only=True):
    """What a model's tokens cost. `long_prompts`: other rates for calls with long prompts; of several the one with
    the largest `above` that the prompt exceeds. `since`: a date."""

    long_prompts: tuple[LongPrompt, ...] = ()  # what calls with long prompts cost
    since: str | None = None  # the first day that it holds


class Prices(Section, frozen=True):
    """Prices of tokens: `file` (default: the table that comes with the gateway), `models` before it.

    A model is named "upstream/model" or "model". `unknown`: a call whose model has no price goes on, or is
    refused. `header`: answers say what they cost (whole ones; streams say it in their log line and usage).
    """

    file: str | None = None  # a table in place of the one that comes along
    models: dict[Name, Price | tuple[Price, ...]] = {}  # prices that go before the table's, by model
    unknown: Literal["allow", "refuse"] = "allow"  # whether calls to models without a price go on
    header: bool = False  # whether answers have their cost in a header


class Models(Section, frozen=True):
    """The table of models and of the fields that they take: `file` in place of the table that comes with the
    gateway."""

    file: str | None = None  # a table in place of the one that comes along (sluice models update --to)

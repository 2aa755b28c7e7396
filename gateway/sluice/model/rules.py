"""Rules for requests to one target: which fields its model accepts. Built when the configuration is read.

The rules come from a table (config/models.yaml, read by `sluice.config.rule_file`), and from the options
`drop`, `rename`, `default`, `force` and `roles` of an upstream and of a target. Fields have the names of
OpenAI's dialect, whatever the upstream speaks. `sluice.proxy.fitting` applies the rules that change a
request; backends follow those from `blank_stops` on themselves.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec

LIMITS = ("max_tokens", "max_completion_tokens")
"""The names of the token limit in OpenAI's dialect: the old and the new one."""

Effort = Literal["", "none", "minimal", "low", "medium", "high", "xhigh", "max"]
"""OpenAI's scale of `reasoning_effort`, extended upwards; "" is unset."""
Thinking = Literal["", "budget", "adaptive", "never"]
"""How thinking is requested: by a budget of tokens, adaptively, or never; "" is unknown (treated as
budget)."""
ThinkingOff = Literal["disabled", "between_tools", "never"]
"""The type of `thinking` that turns it off; "never": it cannot be turned off."""
ToolIds = Literal["", "[A-Za-z0-9_-]{1,64}", "[A-Za-z0-9]{9}", ".{1,40}"]
"""The required form of tool call ids; "" is any."""
ToolNames = Literal["", "[A-Za-z0-9_-]{1,64}", "[A-Za-z0-9_-]{1,128}", "[A-Za-z_][A-Za-z0-9_.:-]{0,63}"]
"""The required form of tools' names; "" is any."""


CacheMarks = Literal["", "cache_control", "prompt_cache_breakpoint"]
"""How parts of a prompt are marked for the provider's cache: as Anthropic does, as OpenAI does, or not at
all."""


class Overrides(msgspec.Struct, frozen=True):
    """The options of an upstream or a target. A name with "!" in `drop`, or a null value, removes a rule of
    the table."""

    drop: tuple[str, ...] = ()
    rename: Mapping[str, str | None] = {}
    default: Mapping[str, Any] = {}
    force: Mapping[str, Any] = {}
    roles: Mapping[str, str | None] = {}


class ModelRules(msgspec.Struct, frozen=True):
    """The rules of one target.

    drop             fields that are left out
    either           groups of fields of which only the first given one is sent
    rename           other names of fields
    cap              maximum values; of `stop`, the maximum number of sequences
    default          values for fields that the caller does not set
    force            values that replace the caller's
    roles            other names of messages' roles
    plain_images     data: URLs of images are normalized
    lacks            features (`sluice.model.features`) that the model lacks, though its dialect can express them
    blank_stops      the model accepts stop sequences of white space
    efforts          the efforts of reasoning that it accepts
    always_thinks    it thinks unless thinking is turned off
    prefix           a last message of the assistant has to be marked as the answer's beginning (`prefix: true`, Mistral)
    prefill          it continues a last message of the assistant; otherwise a cut answer is not continued in this way,
                     whatever the target's option says
    cache_marks      the form of callers' marks for the prompt cache, if its dialect has none for every model (OpenAI's)
    replies          roles have an order: results of tools directly behind their calls, an assistant's message between them
                     and a user's, and the system's only at the beginning or behind a user's (Mistral)
    blank_answers    it accepts messages of the assistant without content and calls
    thinking_switch  the `type` of `thinking` that stands for any effort, and for none, if it has no efforts
    blank_reasoning  tool calls of earlier messages need some reasoning while it thinks (DeepSeek, Moonshot)
    least_tokens     the smallest token limit
    """

    drop: frozenset[str] = frozenset()
    either: tuple[tuple[str, ...], ...] = ()
    rename: Mapping[str, str] = {}
    cap: Mapping[str, float] = {}
    default: Mapping[str, Any] = {}
    force: Mapping[str, Any] = {}
    roles: Mapping[str, str] = {}
    plain_images: bool = False
    lacks: frozenset[str] = frozenset()
    blank_stops: bool = True
    tool_ids: ToolIds = ""
    tool_names: ToolNames = ""
    thinking: Thinking = ""
    efforts: tuple[Effort, ...] = ()
    always_thinks: bool = False
    thinking_off: ThinkingOff = "disabled"
    prefix: bool = False
    prefill: bool = True
    cache_marks: CacheMarks = ""
    replies: bool = False
    blank_answers: bool = True
    thinking_switch: tuple[str, ...] = ()
    blank_reasoning: bool = False
    least_tokens: int = 0

    @property
    def limit_name(self) -> str:
        """The name of this model's token limit; "" if it accepts both names."""
        return next((self.rename[name] for name in LIMITS if name in self.rename), "")


NO_RULES = ModelRules()


class ModelRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One rule of the table. It applies to targets that match all of its conditions: backend, host or vendor,
    model.

    `host` and `model` are regular expressions, which are searched for regardless of case; `backend` and
    `vendor` list whole names. If there is a `host`, a matching `vendor` (config/vendors.yaml) is enough,
    because a vendor may be reached at another address. `source`: the vendor's page or a report, read at
    `date`.
    """

    source: str
    date: str
    backend: str | None = None
    host: str | None = None
    vendor: str | None = None
    model: str | None = None
    drop: tuple[str, ...] = ()
    either: tuple[str, ...] = ()
    rename: dict[str, str] = {}
    cap: dict[str, float] = {}
    default: dict[str, Any] = {}
    force: dict[str, Any] = {}
    roles: dict[str, str] = {}
    lacks: tuple[str, ...] = ()
    plain_images: bool | None = None
    blank_stops: bool | None = None
    tool_ids: ToolIds | None = None
    tool_names: ToolNames | None = None
    thinking: Thinking | None = None
    efforts: tuple[Effort, ...] | None = None
    always_thinks: bool | None = None
    thinking_off: ThinkingOff | None = None
    prefix: bool | None = None
    prefill: bool | None = None
    cache_marks: CacheMarks | None = None
    replies: bool | None = None
    blank_answers: bool | None = None
    thinking_switch: tuple[str, str] | None = None
    blank_reasoning: bool | None = None
    least_tokens: int | None = None

    def holds_for(self, backend: str, host: str, model: str, vendor: str = "") -> bool:
        return (
            (self.backend is None or re.fullmatch(self.backend, backend) is not None)
            and self._made_by(host, vendor)
            and (self.model is None or re.search(self.model, model, re.IGNORECASE) is not None)
        )

    def _made_by(self, host: str, vendor: str) -> bool:
        if self.host is not None and re.search(self.host, host, re.IGNORECASE) is not None:
            return True
        if self.vendor is not None:
            return re.fullmatch(self.vendor, vendor) is not None
        return self.host is None


_LATER_WINS = (
    "plain_images",
    "blank_stops",
    "tool_ids",
    "tool_names",
    "thinking",
    "efforts",
    "always_thinks",
    "thinking_off",
    "prefix",
    "prefill",
    "cache_marks",
    "replies",
    "blank_answers",
    "thinking_switch",
    "blank_reasoning",
    "least_tokens",
)


def rules_of(
    lines: Iterable[ModelRule],
    overrides: Iterable[Overrides],
    backend: str,
    host: str,
    model: str,
    *,
    vendor: str = "",
) -> ModelRules:
    """Returns the rules of one target: the table's lines that apply to it in their order, then the upstream's
    options, then the target's own."""
    drop: set[str] = set()
    lacks: set[str] = set()
    either: list[tuple[str, ...]] = []
    maps: dict[str, dict[str, Any]] = {name: {} for name in ("rename", "cap", "default", "force", "roles")}
    others: dict[str, Any] = {}
    for line in lines:
        if not line.holds_for(backend, host, model, vendor):
            continue
        drop |= set(line.drop)
        lacks |= set(line.lacks)
        either += [line.either] if line.either else []
        for name, kept in maps.items():
            kept.update(getattr(line, name))
        others |= {name: value for name in _LATER_WINS if (value := getattr(line, name)) is not None}
    for options in overrides:
        kept_fields = {name[1:] for name in options.drop if name.startswith("!")}
        drop = (drop - kept_fields) | {name for name in options.drop if not name.startswith("!")}
        either = [group for group in either if kept_fields.isdisjoint(group)]
        for name in ("rename", "default", "force", "roles"):
            maps[name].update(getattr(options, name))
    found = {
        name: {key: value for key, value in kept.items() if value is not None} for name, kept in maps.items()
    }
    rules = ModelRules(drop=frozenset(drop), lacks=frozenset(lacks), either=tuple(either), **others | found)
    return NO_RULES if rules == NO_RULES else rules

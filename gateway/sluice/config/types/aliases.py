"""The names that callers give as the model, and the targets behind them."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from msgspec import Meta

from sluice.config.types.limits import CallLimits, Queue
from sluice.config.types.upstreams import Fitted, Timeouts
from sluice.config.types.values import Content, Count, Section
from sluice.config.units import Seconds


class Canary(Section, frozen=True):
    """Callers for whom a target's weight is `weight`: those with one of `keys`, or whose `header` has this
    value."""

    weight: Annotated[float, Meta(ge=0, le=10**6)]  # the weight for these callers
    keys: tuple[str, ...] = ()  # ids of keys
    header: str | None = None  # "x-canary: yes"


class Target(Fitted, frozen=True, kw_only=True):
    """One model of one upstream. Nothing goes to a target of weight 0 unless nothing else is left.

    `drop`, `rename`, `default`, `force` and `roles` change requests to it, after its upstream's.
    """

    upstream: str  # its name in upstreams
    model: str  # the model as the provider names it; * in it: what the caller's name has in place of the alias's *
    weight: Annotated[float, Meta(ge=0, le=10**6)] = (
        1.0  # its share of the calls of its tier; 0: only where nothing else is left
    )
    timeouts: Timeouts | None = None  # in place of the upstream's
    context: Count | None = None  # tokens that the model takes; null: not known, never a reason to skip it
    vision: bool = True  # whether it takes images
    tools: bool = True  # whether it takes tools
    prefill: bool = (
        False  # it continues an assistant message that ends the request (Claude from 4.6 on never does)
    )
    price: Annotated[float, Meta(ge=0, le=10**6)] | None = (
        None  # of a million tokens, in any unit, for the strategy `cheapest`
    )
    canary: Canary | None = None  # callers for whom its weight differs


Strategy = Literal[
    "weighted",
    "round_robin",
    "least_in_flight",
    "lowest_ttft",
    "cheapest",
    "affinity",
    "queue_depth",
    "prefix_cache",
]


class Tier(Section, frozen=True):
    """Targets of the same rank. `affinity` keeps calls that share a session, key or prompt prefix on one
    target."""

    targets: tuple[Target, ...]  # the targets of this tier
    strategy: Strategy = "weighted"  # the order in which they are tried
    affinity: Literal["session", "key", "prefix"] = (
        "session"  # what keeps callers at one target, for the strategy affinity
    )


def covering(names: Iterable[str], name: str) -> str:
    """Returns the longest of the names that end in * and cover `name`; "" if there is none."""
    found = [one for one in names if one.endswith("*") and name.startswith(one[:-1]) and name != one]
    return max(found, key=len, default="")


def targets_of(tier: tuple[Target, ...] | Tier) -> tuple[Target, ...]:
    return tier.targets if isinstance(tier, Tier) else tier


class History(Section, frozen=True):
    """The part of a conversation that the model gets: the most recent messages within both bounds."""

    messages: Annotated[int, Meta(ge=0, le=10**9)] = 30  # messages of the history at most
    tokens: Count = 16_000  # tokens of the history at most, estimated; null: no bound


class Retry(Section, frozen=True):
    """After a server error the same target is tried again, `backoff` later; a Retry-After up to the bound is
    waited out."""

    same_target: Annotated[int, Meta(ge=0, le=5)] = 1  # further tries at one target
    backoff: Seconds = Seconds(0.1)  # the wait before a further try, doubling, at random within it
    retry_after_wait: Seconds = Seconds(2)  # the longest Retry-After that is waited out


class Hedge(Section, frozen=True):
    """Send to a second target, too, when the first has no content after `after`; null: after its own 95th
    percentile."""

    after: Seconds | None = None  # time without content; null: the 95th percentile of the first target


class Shadow(Section, frozen=True):
    """Send a share of the calls to another target, too, and throw its answer away; only metrics see it."""

    upstream: str  # its name in upstreams
    model: str  # the model as the provider names it
    share: Annotated[float, Meta(gt=0, le=1)]  # share of the calls that are copied


class Interceptor(Section, frozen=True):
    """A plugin that wraps an alias's calls. Every other key beside its name is one of its options.

    `options` are these as they were validated: never a key of the file.
    """

    name: str  # what the plugin is called where it is installed
    options: dict[str, Any] = {}  # the plugin's own options


class Stage(Section, frozen=True):
    """A plugin that sees an alias's answers, and may change them. Every other key beside its name is one of
    its options.

    `options` are these as they were validated: never a key of the file.
    """

    name: str  # what the plugin is called where it is installed
    options: dict[str, Any] = {}  # the plugin's own options


class Alias(Section, frozen=True):
    """A name that callers give as the model: tiers are tried in order. A tier is a list of targets, or a
    section with a strategy."""

    tiers: tuple[
        tuple[Target, ...] | Tier, ...
    ]  # lists of targets: the first that can answers, the others are its fallbacks
    system: str = ""  # a system prompt before the messages of widgets
    history: History = History()  # what of a conversation is sent again
    max_message_chars: Count = 4000  # characters of one message of a widget
    heartbeat: Seconds | None = Seconds(15)  # silence after which a stream gets a sign of life; null: never
    report_model: Literal["target", "alias"] = "target"  # whether callers see the target's model or the alias
    timeout: Seconds | None = None  # the whole call, all attempts together
    retry: Retry = Retry()  # tries at the same target
    recovery: Literal["error", "continue"] | None = (
        None  # of a cut stream; null: continue where another target exists
    )
    fall_back_on_content_policy: bool = False  # else the refusal is passed on
    unsupported: Literal["refuse", "drop"] | None = (
        None  # fields that no target can express; null: drop preferences alone
    )
    on_disconnect: Literal["cancel", "finish"] = "cancel"  # what becomes of a call whose client leaves
    finish_limit: Seconds = Seconds(60)  # with `finish`: for so long after the client has left
    hedge: Hedge | None = None  # a second target beside a slow first one; null: never
    shadow: Shadow | None = None  # a target that gets a copy of calls; null: none
    resumable: bool = False  # whether clients can resume streams
    resume_window: Seconds = Seconds(300)  # how long a finished stream can be resumed
    limits: CallLimits = CallLimits()  # of all its calls together
    queue: Queue | None = None  # wait in place of an immediate 429; null: do not
    interceptors: tuple[Interceptor, ...] = ()  # plugins around its calls, the outermost first
    stages: tuple[Stage, ...] = ()  # plugins that its answers pass, in this order
    log_content: Content | None = (
        None  # what call records and pages have of its calls' texts; null: as log.content
    )
    expand: bool = False  # lists of models have what its upstream lists, in place of the *

    @property
    def continues(self) -> bool:
        """Whether a stream that is cut goes on with a target: by default where there is another one."""
        if self.recovery is not None:
            return self.recovery == "continue"
        return sum(len(targets_of(tier)) for tier in self.tiers) > 1

"""The model names that callers use, and the targets behind them."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from msgspec import Meta

from sluice.config.types.limits import CallLimits, Queue
from sluice.config.types.upstreams import Fitted, Timeouts
from sluice.config.types.values import Content, Count, Section
from sluice.config.units import Seconds


class Canary(Section, frozen=True):
    """Callers for whom a target has another `weight`: those with one of `keys`, and those who send `header`
    with this value."""

    weight: Annotated[float, Meta(ge=0, le=10**6)]  # the weight for these callers
    keys: tuple[str, ...] = ()  # ids of keys
    header: str | None = None  # a header with its value, such as "x-canary: yes"


class Target(Fitted, frozen=True, kw_only=True):
    """One model of one upstream. A target of weight 0 is used only if no other target is left.

    `drop`, `rename`, `default`, `force` and `roles` change requests to this target, after those of its
    upstream.
    """

    upstream: str  # the name of its upstream
    model: str  # the model as the provider names it; * in it: what the caller's name has in place of the alias's *
    weight: Annotated[float, Meta(ge=0, le=10**6)] = (
        1.0  # its share of the calls of its tier; 0: only used if no other target is left
    )
    timeouts: Timeouts | None = None  # deadlines, instead of the upstream's
    context: Count | None = None  # the context size of the model in tokens; null: unknown, no limit
    vision: bool = True  # whether the model accepts images
    tools: bool = True  # whether the model accepts tools
    prefill: bool = (
        False  # whether it continues an assistant message that ends the request (Claude from 4.6 on does not)
    )
    price: Annotated[float, Meta(ge=0, le=10**6)] | None = (
        None  # price of a million tokens, in any unit, for the strategy `cheapest`
    )
    canary: Canary | None = None  # callers for whom the weight differs


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
    """Targets that are tried before those of the next tier. `affinity` sends calls that share a session, key
    or prompt prefix to one target."""

    targets: tuple[Target, ...]  # the targets of this tier
    strategy: Strategy = "weighted"  # the order in which they are tried
    affinity: Literal["session", "key", "prefix"] = (
        "session"  # what calls must share to go to the same target, for the strategy affinity
    )


def covering(names: Iterable[str], name: str) -> str:
    """Returns the longest of the names that end in * and cover `name`; "" if there is none."""
    found = [one for one in names if one.endswith("*") and name.startswith(one[:-1]) and name != one]
    return max(found, key=len, default="")


def targets_of(tier: tuple[Target, ...] | Tier) -> tuple[Target, ...]:
    return tier.targets if isinstance(tier, Tier) else tier


class History(Section, frozen=True):
    """The part of a stored conversation that is sent to the model: its latest messages within both bounds."""

    messages: Annotated[int, Meta(ge=0, le=10**9)] = 30  # messages of the history at most
    tokens: Count = 16_000  # tokens of the history at most, estimated; null: no bound


class Retry(Section, frozen=True):
    """After a server error the same target is tried again, `backoff` later. A Retry-After of at most
    `retry_after_wait` is waited for."""

    same_target: Annotated[int, Meta(ge=0, le=5)] = 1  # most retries at one target
    backoff: Seconds = Seconds(
        0.1
    )  # the longest wait before the first retry, doubling; each wait is random within it
    retry_after_wait: Seconds = Seconds(2)  # the longest Retry-After that is waited out


class Hedge(Section, frozen=True):
    """Send a call to a second target, too, if the first has sent no content after `after`; null: after the
    95th percentile of its time to the first token."""

    after: Seconds | None = None  # time without content; null: the 95th percentile of the first target


class Shadow(Section, frozen=True):
    """Send a share of the calls to another target, too, and discard its answers; only metrics count them."""

    upstream: str  # the name of its upstream
    model: str  # the model as the provider names it
    share: Annotated[float, Meta(gt=0, le=1)]  # share of the calls that are copied


class Interceptor(Section, frozen=True):
    """A plugin that wraps the calls of an alias. All keys beside `name` are options of the plugin.

    `options` has the validated options: it is not a key of the file.
    """

    name: str  # the name of the installed plugin
    options: dict[str, Any] = {}  # the plugin's own options


class Stage(Section, frozen=True):
    """A plugin that processes the answers of an alias. All keys beside `name` are options of the plugin.

    `options` has the validated options: it is not a key of the file.
    """

    name: str  # the name of the installed plugin
    options: dict[str, Any] = {}  # the plugin's own options


class Alias(Section, frozen=True):
    """A model name that callers use. Its tiers are tried in order. A tier is a list of targets, or a section
    with a strategy."""

    tiers: tuple[
        tuple[Target, ...] | Tier, ...
    ]  # lists of targets: the first that can answers, the others are its fallbacks
    system: str = ""  # a system prompt that is put before the messages of chat widgets
    history: History = History()  # the part of a conversation that is sent with each turn
    max_message_chars: Count = 4000  # most characters of one message of a chat widget
    heartbeat: Seconds | None = Seconds(
        15
    )  # silence after which a heartbeat is sent in a stream; null: never
    report_model: Literal["target", "alias"] = "target"  # whether callers see the target's model or the alias
    timeout: Seconds | None = None  # deadline of the whole call, with all attempts; null: none
    retry: Retry = Retry()  # retries at the same target
    recovery: Literal["error", "continue"] | None = (
        None  # on a broken stream; null: continue where another target exists
    )
    fall_back_on_content_policy: bool = False  # whether a content policy refusal leads to another target
    unsupported: Literal["refuse", "drop"] | None = (
        None  # fields that no target supports; null: drop preferences, refuse others
    )
    on_disconnect: Literal["cancel", "finish"] = "cancel"  # what happens to a call whose client disconnects
    finish_limit: Seconds = Seconds(60)  # with `finish`: how long such a call may continue
    hedge: Hedge | None = None  # a second target beside a slow first one; null: never
    shadow: Shadow | None = None  # a target that gets a copy of calls; null: none
    resumable: bool = False  # whether clients can resume streams
    resume_window: Seconds = Seconds(300)  # how long a finished stream can be resumed
    limits: CallLimits = CallLimits()  # limits of all its calls together
    queue: Queue | None = (
        None  # a queue for calls that exceed a limit, instead of an immediate 429; null: none
    )
    interceptors: tuple[Interceptor, ...] = ()  # plugins around its calls, the outermost first
    stages: tuple[Stage, ...] = ()  # plugins that process its answers, in this order
    log_content: Content | None = (
        None  # whether call records and pages contain the texts of its calls; null: as log.content
    )
    expand: bool = False  # whether lists of models contain the upstream's models in place of the *

    @property
    def continues(self) -> bool:
        """Whether another target continues a stream that breaks: by default if the alias has another
        target."""
        if self.recovery is not None:
            return self.recovery == "continue"
        return sum(len(targets_of(tier)) for tier in self.tiers) > 1

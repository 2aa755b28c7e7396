"""The configuration as types: one file, strict, every default in sight. Reading it is `gateway.configfile`.

Durations are seconds ("2s", "500ms", "1m" or a number), sizes are bytes ("64KiB" or a number), a rate is
"10/s", "500/min", "20000/h" or "1000000/day". Secrets come as ${VAR}, ${VAR:-default} or ${file:/path}.
Relative paths are relative to the working directory.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from gateway.units import Bytes as Bytes
from gateway.units import Rate as Rate
from gateway.units import Seconds as Seconds
from gateway.units import Secret as Secret

Name = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}\Z",
        description="a name: letters, digits and . _ : / @ -, at most 128, starting with a letter or digit",
    ),
]
Digest = Annotated[
    str,
    Meta(pattern=r"^sha256:[0-9a-f]{64}\Z", description="sha256: and 64 hex digits, as `sluice keys hash` prints them"),
]
Count = Annotated[int, Meta(ge=1)]


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class Server(_Section, frozen=True):
    """Where the gateway listens, and what it takes from callers before it hangs up."""

    listen: str = "127.0.0.1:8080"
    admin_listen: str = "127.0.0.1:8081"
    trusted_proxies: tuple[str, ...] = ()  # networks whose X-Forwarded-For or Forwarded is believed, rightmost first
    body_limit: Bytes = Bytes(4 << 20)
    body_timeout: Seconds = Seconds(30)  # of silence, or of less than 1 KiB a second on average
    body_memory: Bytes = Bytes(64 << 20)  # for unfinished bodies of all connections together, in each process
    header_timeout: Seconds = Seconds(15)
    keepalive_timeout: Seconds = Seconds(75)
    write_idle: Seconds = Seconds(60)  # a reader that takes nothing for so long is closed
    send_buffer: Bytes = Bytes(64 << 10)  # per client connection: what the kernel has taken and not sent yet
    max_connections: Count = 10_000
    workers: Count = 1  # processes on one port
    drain_delay: Seconds = Seconds(5)  # after SIGTERM: not ready, still serving
    drain_timeout: Seconds = Seconds(60)  # then: streams may finish for so long


class Timeouts(_Section, frozen=True):
    """Deadlines by phase, in seconds. `total` null: none.

    `whole`: of an answer that is asked for in one piece, in place of `headers`, `first_token` and `idle`.
    """

    connect: Seconds = Seconds(2)
    headers: Seconds = Seconds(30)
    first_token: Seconds = Seconds(30)
    idle: Seconds = Seconds(30)
    whole: Seconds = Seconds(300)
    total: Seconds | None = None


class Limit(_Section, frozen=True):
    """A token bucket: `rate` refills it, `burst` is its capacity (default: one window's worth: 500 of 500/min, at least 1)."""

    rate: Rate
    burst: Annotated[float, Meta(gt=0)] | None = None

    @property
    def capacity(self) -> float:
        return self.burst if self.burst is not None else max(1.0, self.rate * self.rate.window)


class Budget(_Section, frozen=True):
    """US dollars per calendar day, week (from Monday) and month, in UTC. From `soft` (a share) on callers are warned."""

    day: Annotated[float, Meta(gt=0)] | None = None
    week: Annotated[float, Meta(gt=0)] | None = None
    month: Annotated[float, Meta(gt=0)] | None = None
    soft: Annotated[float, Meta(gt=0, le=1)] = 0.8


class CallLimits(_Section, frozen=True):
    """What may be taken: calls, tokens (input and output), US dollars, streams at a time. Several windows each, all hold.

    `weight`: the share of a key in the queue of an alias that has one.
    """

    requests: Limit | tuple[Limit, ...] = ()
    tokens: Limit | tuple[Limit, ...] = ()
    money: Limit | tuple[Limit, ...] = ()
    streams: Count | None = None
    budget: Budget | None = None
    weight: Annotated[float, Meta(gt=0)] = 1.0


def windows_of(limit: Limit | tuple[Limit, ...]) -> tuple[Limit, ...]:
    return (limit,) if isinstance(limit, Limit) else limit


class Queue(_Section, frozen=True):
    """In place of an immediate 429: wait for up to `timeout`, with at most `size` others, fairly by key and its weight."""

    size: Count = 100
    timeout: Seconds = Seconds(10)


class Tenant(_Section, frozen=True):
    """What all keys of one tenant may take together."""

    limits: CallLimits = CallLimits()


class Breaker(_Section, frozen=True):
    """When a target is left alone: after `failures` in a row or a share of them, for `open_for`, doubling to `open_max`."""

    failures: Count = 5
    error_rate: Annotated[float, Meta(gt=0, le=1)] | None = 0.5  # of at least 20 calls within 30 s
    open_for: Seconds = Seconds(5)
    open_max: Seconds = Seconds(15)


class Probe(_Section, frozen=True):
    """Ask the upstream `path` (below its base_url) every so often; it spends no tokens, and any answer below 500 is well."""

    path: str = "/models"
    every: Seconds = Seconds(10)


class _Fitted(_Section, frozen=True, kw_only=True):
    """What is changed in requests, beside what the table of models says (config/models.yaml). Fields are named as in OpenAI's
    dialect, whatever the upstream speaks; "messages.x" is a field of messages. A null, or "!" before a name of `drop`, takes
    a rule of the table (or the upstream's) away.

    `drop`: fields that are left out. `rename`: other names for them. `default`: fields where the caller gives none. `force`:
    fields whatever the caller gives. `roles`: other names of messages' roles.
    """

    drop: tuple[str, ...] = ()
    rename: dict[str, str | None] = {}
    default: dict[str, Any] = {}
    force: dict[str, Any] = {}
    roles: dict[str, str | None] = {}


class Upstream(_Fitted, frozen=True, kw_only=True):
    """One provider account or server. Every other key beside these is an option of the backend (base_url, api_key …).

    `drop`, `rename`, `default`, `force` and `roles` change requests to it. `options` are the backend's options as they were
    validated: never a key of the file, for showing the configuration only.
    """

    backend: str
    timeouts: Timeouts = Timeouts()
    breaker: Breaker = Breaker()
    probe: Probe | None = None
    max_connections: Count = 1024
    max_before_content: Bytes = Bytes(1 << 20)  # of a stream, before its first content
    max_answer: Bytes = Bytes(64 << 20)  # of an answer whose caller wants it in one piece
    proxy: Secret | None = None  # http://[user:password@]host:port to tunnel through (CONNECT)
    limits: CallLimits = CallLimits()  # of all calls to it: a target that has no room is passed over
    forward: dict[str, Literal["any"] | tuple[str, ...]] = {}  # the callers' headers that it gets, with the values that may be
    options: dict[str, Any] = {}


class Canary(_Section, frozen=True):
    """Callers for whom a target's weight is `weight`: those with one of `keys`, or whose `header` has this value."""

    weight: Annotated[float, Meta(ge=0)]
    keys: tuple[str, ...] = ()
    header: str | None = None  # "x-canary: yes"


class Target(_Fitted, frozen=True, kw_only=True):
    """One model of one upstream. Nothing goes to a target of weight 0 unless nothing else is left.

    `drop`, `rename`, `default`, `force` and `roles` change requests to it, after its upstream's.
    """

    upstream: str
    model: str
    weight: Annotated[float, Meta(ge=0)] = 1.0
    timeouts: Timeouts | None = None  # in place of the upstream's
    context: Count | None = None  # tokens that the model takes; null: not known, never a reason to pass it over
    vision: bool = True
    tools: bool = True
    prefill: bool = False  # it continues an assistant message that ends the request
    price: Annotated[float, Meta(ge=0)] | None = None  # of a million tokens, in any unit, for the strategy `cheapest`
    canary: Canary | None = None


Strategy = Literal["weighted", "round_robin", "least_in_flight", "lowest_ttft", "cheapest", "affinity"]


class Tier(_Section, frozen=True):
    """Targets of the same rank. `affinity` keeps calls that share a session, key or prompt prefix on one target."""

    targets: tuple[Target, ...]
    strategy: Strategy = "weighted"
    affinity: Literal["session", "key", "prefix"] = "session"


def targets_of(tier: tuple[Target, ...] | Tier) -> tuple[Target, ...]:
    return tier.targets if isinstance(tier, Tier) else tier


class History(_Section, frozen=True):
    """How much of a conversation the model is given: the most recent messages within both bounds."""

    messages: Annotated[int, Meta(ge=0)] = 30
    tokens: Count = 16_000


class Retry(_Section, frozen=True):
    """After a server error the same target is asked once more, `backoff` later; a Retry-After up to the bound is waited out."""

    same_target: Annotated[int, Meta(ge=0, le=5)] = 1
    backoff: Seconds = Seconds(0.1)
    retry_after_wait: Seconds = Seconds(2)


class Hedge(_Section, frozen=True):
    """Ask a second target when the first has no content after `after`; null: after its own 95th percentile."""

    after: Seconds | None = None


class Shadow(_Section, frozen=True):
    """Send a share of the calls to another target, too, and throw its answer away; only metrics see it."""

    upstream: str
    model: str
    share: Annotated[float, Meta(gt=0, le=1)]


class Alias(_Section, frozen=True):
    """What callers name as the model: tiers are tried in order. A tier is a list of targets, or a section with a strategy."""

    tiers: tuple[tuple[Target, ...] | Tier, ...]
    system: str = ""
    history: History = History()
    max_message_chars: Count = 4000
    heartbeat: Seconds | None = Seconds(15)
    report_model: Literal["target", "alias"] = "target"
    timeout: Seconds | None = None  # the whole call, all attempts together
    retry: Retry = Retry()
    recovery: Literal["error", "continue"] = "error"  # when a stream is cut after its first content
    fall_back_on_content_policy: bool = False  # else the refusal is passed on
    on_disconnect: Literal["cancel", "finish"] = "cancel"
    finish_limit: Seconds = Seconds(60)  # with `finish`: for so long after the client has left
    hedge: Hedge | None = None
    shadow: Shadow | None = None
    resumable: bool = False
    resume_window: Seconds = Seconds(300)  # how long a finished stream can be asked for again
    limits: CallLimits = CallLimits()  # of all its calls together
    queue: Queue | None = None


class Grant(_Section, frozen=True):
    """What a key may do, and until when."""

    aliases: tuple[str, ...] = ("*",)
    default_alias: str | None = None
    limits: CallLimits = CallLimits()
    origins: tuple[str, ...] = ()  # browser origins that may use it, exact ("https://app.example.com")
    expires: str | None = None  # RFC 3339
    enabled: bool = True


class NamedGrant(Grant, frozen=True, kw_only=True):
    """A key without the secret. `tenant` null: the key's id."""

    id: Name
    tenant: Name | None = None

    @property
    def owner(self) -> str:
        """The tenant that history and usage belong to."""
        return self.tenant or self.id


class Key(NamedGrant, frozen=True, kw_only=True):
    """A caller's key. Only its digest stands here: `sluice keys new` prints both."""

    digest: Digest


class Claims(_Section, frozen=True):
    """Which claims say what: `tenant` (default: sub), `aliases` (a list or a space-separated text; absent: the issuer's).

    `plan` names one of the issuer's `plans`; absent, or another: the issuer's `limits`.
    """

    tenant: str = "sub"
    aliases: str = "aliases"
    plan: str = "plan"


class Issuer(_Section, frozen=True):
    """Whose JWTs are accepted (RFC 7519). Exactly one of `secret`, `jwks_file`, `jwks_url` (RFC 7517) and `discovery`.

    `discovery`: the key set's address stands in the issuer's /.well-known/openid-configuration (OpenID Connect Discovery).

    The tenant is the claim behind `tenant_prefix` (default: the issuer and "|", so that nobody who may choose a subject
    can choose another's tenant; "" where the issuer's tenants are the same as the keys').
    """

    issuer: str
    audience: str
    algorithms: tuple[str, ...]
    secret: Secret | None = None
    jwks_file: str | None = None
    jwks_url: str | None = None
    discovery: bool = False
    leeway: Seconds = Seconds(30)
    tenant_prefix: str | None = None
    claims: Claims = Claims()
    aliases: tuple[str, ...] = ("*",)
    default_alias: str | None = None
    limits: CallLimits = CallLimits()
    plans: dict[Name, CallLimits] = {}
    origins: tuple[str, ...] = ()


class BrowserTokens(_Section, frozen=True):
    """POST /v1/tokens: a key with `origins` mints tokens for pages, bound to an origin, an alias and a session prefix.

    `longest`: how long one can live. `renewable`: for how long after it was minted a page can renew it; null: never.
    """

    secret: Secret
    longest: Seconds = Seconds(900)
    renewable: Seconds | None = Seconds(86400)


class Limits(_Section, frozen=True):
    """`store`: "memory", "shared:PATH" (workers of one host) or a URL of Redis: redis://, rediss://, unix://, or where
    Sentinel chooses the server redis+sentinel://host:port,host:port/service/db; with ?timeout=250ms where it is far away.

    `address`: per client address, strangers included; null: none. Behind a proxy it needs `server.trusted_proxies`.
    `overall`: all calls together. `output_tokens`: what is reserved for an answer where the caller sets no maximum.

    When the store does not answer: `open` counts in this process, with the limits divided by `replicas`; `closed` refuses.
    """

    store: Secret = Secret("memory")
    address: Limit | None = None
    overall: CallLimits = CallLimits()
    output_tokens: Count = 1024
    when_down: Literal["open", "closed"] = "open"
    replicas: Count = 1
    prefix: Name = "sluice"


class Admin(_Section, frozen=True):
    """Who may use /v1/admin and /admin: the digest of the key sent as x-admin-api-key. Without it those routes answer 401.

    `store`: where dynamic keys and usage are kept: "memory", "sqlite:PATH", or a redis:// / rediss:// / unix:// URL;
    null: as `state`. `pepper`: dynamic keys are kept as HMAC-SHA-256 under it, else as plain SHA-256; another pepper
    invalidates all of them.
    """

    digest: Digest | None = None
    store: Secret | None = None
    pepper: Secret | None = None


MOST_EXPENSIVE = 1_000_000
"""US dollars for a million tokens: a dollar for each. What is more is a mistake, or a price for a single token."""


class Price(_Section, frozen=True):
    """US dollars for a million tokens. `cached_input` null: as input; `reasoning` null: as output; `since`: a date."""

    input: Annotated[float, Meta(ge=0, le=MOST_EXPENSIVE)]
    output: Annotated[float, Meta(ge=0, le=MOST_EXPENSIVE)]
    cached_input: Annotated[float, Meta(ge=0, le=MOST_EXPENSIVE)] | None = None
    reasoning: Annotated[float, Meta(ge=0, le=MOST_EXPENSIVE)] | None = None
    since: str | None = None


class Prices(_Section, frozen=True):
    """What tokens cost: `file` (default: the table that comes with the gateway), `models` before it.

    A model is named "upstream/model" or "model". `unknown`: a call whose model has no price goes on, or is refused.
    `header`: answers say what they cost (whole ones; streams say it in their log line and usage).
    """

    file: str | None = None
    models: dict[Name, Price | tuple[Price, ...]] = {}
    unknown: Literal["allow", "refuse"] = "allow"
    header: bool = False


class Log(_Section, frozen=True):
    """One line per request at info; why things go wrong at debug. `format` auto: short text on a terminal, JSON otherwise."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "text"] = "auto"


class Metrics(_Section, frozen=True):
    """`key_label`: also count requests by the configured key's id."""

    key_label: bool = False


class Config(_Section, frozen=True):
    """The whole file: who answers (`upstreams`), what callers may name (`aliases`), who may call (`keys`, `jwt`)."""

    upstreams: dict[Name, Upstream]
    aliases: dict[Name, Alias]
    keys: tuple[Key, ...] = ()
    jwt: tuple[Issuer, ...] = ()
    tokens: BrowserTokens | None = None
    tenants: dict[Name, Tenant] = {}
    server: Server = Server()
    limits: Limits = Limits()
    state: str = "memory"  # conversations: "memory" or "sqlite:PATH"
    resume: Secret = Secret("memory")  # resumable streams: "memory" or a redis:// / rediss:// / unix:// URL
    admin: Admin = Admin()
    prices: Prices = Prices()
    log: Log = Log()
    metrics: Metrics = Metrics()

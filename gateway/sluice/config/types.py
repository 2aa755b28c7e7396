"""The configuration as types: one file, strict, every default in sight. Reading it is `sluice.config.loader`.

Durations are seconds ("2s", "500ms", "1m" or a number), sizes are bytes ("64KiB" or a number), a rate is
"10/s", "500/min", "20000/h" or "1000000/day". Secrets come as ${VAR}, ${VAR:-default} or ${file:/path}.
Relative paths are relative to the working directory.
"""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from sluice.config.units import Bytes as Bytes
from sluice.config.units import DataKeys as DataKeys
from sluice.config.units import HeaderValue as HeaderValue
from sluice.config.units import Rate as Rate
from sluice.config.units import Seconds as Seconds
from sluice.config.units import Secret as Secret
from sluice.config.units import SessionKey as SessionKey

Name = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}\Z",
        description="a name: letters, digits and . _ : / @ -, at most 128, starting with a letter or digit",
    ),
]
AliasName = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,126}(?:[A-Za-z0-9._:/@-]|\*)?\Z",
        description="a name: letters, digits and . _ : / @ -, at most 128, starting with a letter or digit; * at its end: "
        "it stands for all names that begin so",
    ),
]
Digest = Annotated[
    str,
    Meta(
        pattern=r"^sha256:[0-9a-f]{64}\Z",
        description="sha256: and 64 hex digits, as `sluice keys hash` prints them",
    ),
]
Count = Annotated[int, Meta(ge=1)]
Address = Annotated[
    str,
    Meta(description='host:port in quotes, such as "127.0.0.1:8080", "[::1]:8080" or ":8080"; or unix:/path'),
]


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


Content = Literal["none", "hash", "full"]
"""What call records have of a prompt's and an answer's text, from the strictest on."""


class ServerTls(_Section, frozen=True):
    """TLS on the API's port. Files that are replaced are used by new connections, without a restart."""

    cert: str  # a file with the certificate that is shown (PEM, with its chain)
    key: str | None = None  # a file with its key (PEM); null: it is in cert, too
    key_password: Secret | None = None  # of an encrypted key
    client_ca: str | None = (
        None  # a file of certificates (PEM or DER): only clients with a certificate of theirs are let in
    )
    min_version: Literal["1.2", "1.3"] = "1.2"  # the oldest version of TLS that is spoken


class Server(_Section, frozen=True):
    """Where the gateway listens, and what it takes from callers before it hangs up."""

    listen: Address = "127.0.0.1:8080"  # host:port of the API, or unix:/path
    admin_listen: Address = "127.0.0.1:8081"  # host:port of metrics, probes and admin routes, or unix:/path
    socket_mode: Annotated[str, Meta(pattern="^0?[0-7]{3}$")] = (
        "0660"  # who may connect to Unix sockets, in octal
    )
    tls: ServerTls | None = None  # https on `listen`; null: plain HTTP, as behind a proxy that ends TLS
    http2: bool = False  # also HTTP/2 on `listen`: by ALPN with tls, else by prior knowledge (h2c); needs the extra [http2]
    trusted_proxies: tuple[
        str, ...
    ] = ()  # networks whose X-Forwarded-For or Forwarded is believed, rightmost first
    body_limit: Bytes = Bytes(4 << 20)  # bytes of a request's body, decompressed
    form_limit: Bytes = Bytes(
        100 << 20
    )  # bytes of a form (recordings, images); with a body_limit below 1MiB: as that
    form_spool: Bytes = Bytes(
        1 << 30
    )  # bytes of temporary files that large forms may take together, in each process
    form_directory: str | None = None  # where these are; null: where temporary files go (TMPDIR, /tmp)
    body_timeout: Seconds = Seconds(30)  # of silence, or of less than 1 KiB a second on average
    body_memory: Bytes = Bytes(64 << 20)  # for unfinished bodies of all connections together, in each process
    header_timeout: Seconds = Seconds(15)  # for a request's head
    keepalive_timeout: Seconds = Seconds(75)  # for which an idle connection is kept
    write_idle: Seconds = Seconds(60)  # a reader that takes nothing for so long is closed
    send_buffer: Bytes = Bytes(64 << 10)  # per client connection: what the kernel has taken and not sent yet
    max_connections: Count = 10_000  # client connections; further ones are answered 503
    workers: Count = 1  # processes on one port
    watch: bool = False  # reload when this file is changed; SIGHUP and POST /admin/reload do it, too
    drain_delay: Seconds = Seconds(5)  # after SIGTERM: not ready, still serving
    drain_timeout: Seconds = Seconds(60)  # then: streams may finish for so long
    demo: Name | None = (
        None  # a key with origins: a page at /demo shows the chat widget in its name; null: no page
    )
    frontends: tuple[str, ...] | None = (
        None  # client dialects that are served; default: all that are installed
    )


class Timeouts(_Section, frozen=True):
    """Deadlines by phase, in seconds. `total` null: none.

    `whole`: of an answer in one piece, in place of `headers`, `first_token` and `idle`.
    """

    connect: Seconds = Seconds(2)  # DNS, TCP and TLS together
    headers: Seconds = Seconds(30)  # from the request to the head of the answer
    first_token: Seconds = Seconds(30)  # from the head to the first content
    idle: Seconds = Seconds(30)  # between two pieces of content
    whole: Seconds = Seconds(300)  # for an answer in one piece, in place of headers, first_token and idle
    total: Seconds | None = None  # one attempt altogether; null: none


class Limit(_Section, frozen=True):
    """A token bucket: `rate` refills it, `burst` is its capacity (default: one window's worth: 500 of
    500/min, at least 1)."""

    rate: Rate  # how fast the bucket refills, such as 10/s or 500/min
    burst: Annotated[float, Meta(gt=0)] | None = None  # how much it holds; default: one window's worth

    @property
    def capacity(self) -> float:
        return self.burst if self.burst is not None else max(1.0, self.rate * self.rate.window)


class Budget(_Section, frozen=True):
    """US dollars per calendar day, week (from Monday) and month, in UTC. From `soft` (a share) on callers are
    warned."""

    day: Annotated[float, Meta(gt=0)] | None = None  # US dollars a day
    week: Annotated[float, Meta(gt=0)] | None = None  # US dollars a week, from Monday
    month: Annotated[float, Meta(gt=0)] | None = None  # US dollars a month
    soft: Annotated[float, Meta(gt=0, le=1)] = 0.8  # the share from which on callers are warned


class CallLimits(_Section, frozen=True):
    """What may be taken: calls, tokens (input and output), US dollars, streams at a time. Several windows
    each, all hold.

    `weight`: the share of a key in the queue of an alias that has one.
    """

    requests: Limit | tuple[Limit, ...] = ()  # calls, in one or several windows
    tokens: Limit | tuple[Limit, ...] = ()  # input and output, reserved before and settled after
    money: Limit | tuple[Limit, ...] = ()  # US dollars, reserved before and settled after
    streams: Count | None = None  # calls at a time
    budget: Budget | None = None  # US dollars by the calendar
    weight: Annotated[float, Meta(gt=0)] = 1.0  # the share in an alias's queue


class KeyLimits(CallLimits, frozen=True):
    """What a caller may take: of everything, and in `aliases` of single ones, whose limits hold beside those
    of everything.

    The alias's own name decides, or the name that the caller gave where a wildcard answers it; else the
    longest name here that ends in * and covers it.
    """

    aliases: dict[
        AliasName, CallLimits
    ] = {}  # of one alias, or of all names that one with * at its end covers


def windows_of(limit: Limit | tuple[Limit, ...]) -> tuple[Limit, ...]:
    return (limit,) if isinstance(limit, Limit) else limit


class Queue(_Section, frozen=True):
    """In place of an immediate 429: wait for up to `timeout`, with at most `size` others, fairly by key and
    its weight."""

    size: Count = 100  # calls that wait at most
    timeout: Seconds = Seconds(10)  # how long one waits at most


class Tenant(_Section, frozen=True):
    """What all keys of one tenant may take together."""

    limits: CallLimits = CallLimits()  # what all its keys may take together
    team: Name | None = None  # the team that it belongs to, whose limits hold beside its own; null: none


class Team(_Section, frozen=True):
    """What all tenants of one team, and of the teams below it, may take together."""

    limits: CallLimits = CallLimits()  # what all of them may take together
    parent: Name | None = None  # the team above it, whose limits hold, too; null: none


class Breaker(_Section, frozen=True):
    """When a target gets no calls: after `failures` in a row or a share of them, for `open_for`, doubling to
    `open_max`."""

    failures: Count = 5  # failures in a row that open it
    error_rate: Annotated[float, Meta(gt=0, le=1)] | None = 0.5  # of at least 20 calls within 30 s
    open_for: Seconds = Seconds(5)  # how long it stays open at first; doubles with each failed try
    open_max: Seconds = Seconds(15)  # the longest that it stays open


class Probe(_Section, frozen=True):
    """GET `path` (below base_url) of the upstream at intervals; it spends no tokens, and any answer below 500
    means healthy."""

    path: str = "/models"  # below base_url
    every: Seconds = Seconds(10)  # time between two probes


class Pods(_Section, frozen=True):
    """The servers of an upstream that is several: pods of vLLM or SGLang with the same models, each asked by
    its own address.

    Their queues are what the strategies `queue_depth` and `prefix_cache` go by.
    """

    addresses: tuple[
        str, ...
    ] = ()  # host:port of each; none: all addresses of base_url's host (a headless service)
    resolve: Seconds = Seconds(2)  # how often these addresses are looked up
    metrics: str | None = "/metrics"  # path of each server's metrics (Prometheus); null: it has none
    every: Seconds = Seconds(0.5)  # how often these are read, by each process
    stale: Seconds = Seconds(3)  # older figures are ignored
    max: Annotated[int, Meta(ge=1, le=1024)] = 256  # servers that are used at most
    header: bool = False  # answers name the server that was asked, in x-sluice-pod


class Picker(_Section, frozen=True):
    """An endpoint picker (llm-d, Gateway API inference extension): says for each request which servers are to
    be asked.

    It is asked by gRPC (Envoy's external processing).
    """

    address: str  # host:port of its gRPC service
    tls: bool = False  # whether it is spoken to in TLS
    ca: str | None = (
        None  # a file of certificates (PEM) that its own may come from; null: the system's authorities
    )
    verify: bool = True  # false: any certificate will do, as pickers make their own at the start
    timeout: Seconds = Seconds(10)  # for its answer; a picker may hold requests back until a server has room
    when_down: Literal["refuse", "service"] = (
        "refuse"  # without its answer: the next target, or base_url's own address
    )


class _Fitted(_Section, frozen=True, kw_only=True):
    """What is changed in requests, beside what the table of models says (config/models.yaml). Fields are
    named as in OpenAI's dialect, whatever the upstream speaks; "messages.x" is a field of messages. A null,
    or "!" before a name of `drop`, takes a rule of the table (or the upstream's) away.

    `drop`: fields that are left out. `rename`: other names for them. `default`: fields where the caller gives
    none. `force`: fields whatever the caller gives. `roles`: other names of messages' roles.
    """

    drop: tuple[str, ...] = ()  # fields of a request that are left out
    rename: dict[str, str | None] = {}  # fields of a request that go under another name
    default: dict[str, Any] = {}  # fields that a request gets where it lacks them
    force: dict[str, Any] = {}  # fields that every request gets
    roles: dict[str, str | None] = {}  # roles of messages that go under another name


class Credential(_Section, frozen=True):
    """One account of an upstream. Every other key beside these is an option of its kind.

    `options` are these as they were validated: never a key of the file.
    """

    kind: str = "static"  # where its key or token comes from: static, file, or a plugin's
    name: Name | None = None  # what metrics and logs call it; default: its number, from 1
    weight: Annotated[float, Meta(ge=0)] = 1.0  # its share of the requests; 0: only where no other is usable
    options: dict[str, Any] = {}  # the kind's own options


class UpstreamTls(_Section, frozen=True):
    """TLS to an https upstream. Files that are replaced are used by new connections, without a restart.

    `system_store` null: the system's authorities are believed where no `ca` is given. `cert` may hold the
    key, too.
    """

    ca: str | None = None  # a file of certificates (PEM or DER) whose upstreams are believed
    system_store: bool | None = None  # also believe the system's authorities; null: only where no ca is given
    cert: str | None = None  # a file with the certificate that we show (PEM, with its chain)
    key: str | None = None  # a file with the key of cert (PEM); null: it is in cert, too
    key_password: Secret | None = None  # of an encrypted key
    server_name: str | None = (
        None  # the name that is asked for (SNI) and checked, in place of the address's host
    )
    min_version: Literal["1.2", "1.3"] = "1.2"  # the oldest version of TLS that is spoken

    @property
    def uses_system_store(self) -> bool:
        return self.ca is None if self.system_store is None else self.system_store


class Upstream(_Fitted, frozen=True, kw_only=True):
    """One provider account or server. Every other key beside these is an option of the backend (base_url,
    api_key …).

    `drop`, `rename`, `default`, `force` and `roles` change requests to it. Never keys of the file: `options`,
    the backend's options as they were validated, for showing the configuration only; `vendor`, the one that
    `backend` names.
    """

    backend: str  # the dialect that it speaks: openai, anthropic, ollama, echo, or a plugin's; or a vendor: groq, deepseek …
    timeouts: Timeouts = Timeouts()  # deadlines by phase
    breaker: Breaker = Breaker()  # when its targets get no calls
    probe: Probe | None = None  # a cheap request every so often; null: none
    pods: Pods | None = (
        None  # the servers that it consists of, each asked by itself; null: one address, whatever is behind it
    )
    picker: Picker | None = None  # who says for each request which of its servers are asked; null: nobody
    max_connections: Count = 1024  # open and opening ones (of pods: to each); further calls wait for one
    max_connection_age: Seconds | None = Seconds(
        600
    )  # older ones get no further call, so new addresses are seen; null: any
    rate_headers: bool = (
        True  # calls go to another target while its answers say that nothing remains of a limit
    )
    max_before_content: Bytes = Bytes(1 << 20)  # of a stream, before its first content
    max_answer: Bytes = Bytes(64 << 20)  # of an answer whose caller wants it in one piece
    proxy: Secret | None = (
        None  # to tunnel through: http, https, socks5 or socks5h://[user:password@]host:port; "env"; null
    )
    tls: UpstreamTls = UpstreamTls()  # whom of https upstreams we believe, and the certificate that we show
    limits: CallLimits = CallLimits()  # of all calls to it: a target whose limits are used up is skipped
    forward: dict[
        str, Literal["any"] | tuple[str, ...]
    ] = {}  # the callers' headers that it gets, with the values that may be
    credentials: (
        Credential | tuple[Credential, ...]
    ) = ()  # in place of the backend's api_key: one account, or several
    options: dict[str, Any] = {}  # the backend's own options
    vendor: str = ""  # the vendor that backend names


COMPUTED = frozenset({"options", "vendor"})
"""Fields of `Upstream` that the loader sets: never keys of the file."""


class Canary(_Section, frozen=True):
    """Callers for whom a target's weight is `weight`: those with one of `keys`, or whose `header` has this
    value."""

    weight: Annotated[float, Meta(ge=0)]  # the weight for these callers
    keys: tuple[str, ...] = ()  # ids of keys
    header: str | None = None  # "x-canary: yes"


class Target(_Fitted, frozen=True, kw_only=True):
    """One model of one upstream. Nothing goes to a target of weight 0 unless nothing else is left.

    `drop`, `rename`, `default`, `force` and `roles` change requests to it, after its upstream's.
    """

    upstream: str  # its name in upstreams
    model: str  # the model as the provider names it; * in it: what the caller's name has in place of the alias's *
    weight: Annotated[float, Meta(ge=0)] = (
        1.0  # its share of the calls of its tier; 0: only where nothing else is left
    )
    timeouts: Timeouts | None = None  # in place of the upstream's
    context: Count | None = None  # tokens that the model takes; null: not known, never a reason to skip it
    vision: bool = True  # whether it takes images
    tools: bool = True  # whether it takes tools
    prefill: bool = False  # it continues an assistant message that ends the request
    price: Annotated[float, Meta(ge=0)] | None = (
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


class Tier(_Section, frozen=True):
    """Targets of the same rank. `affinity` keeps calls that share a session, key or prompt prefix on one
    target."""

    targets: tuple[Target, ...]  # the targets of this tier
    strategy: Strategy = "weighted"  # the order in which they are tried
    affinity: Literal["session", "key", "prefix"] = (
        "session"  # what keeps callers at one target, for the strategy affinity
    )


def credentials_of(upstream: Upstream) -> tuple[Credential, ...]:
    given = upstream.credentials
    return (given,) if isinstance(given, Credential) else given


def covering(names: Iterable[str], name: str) -> str:
    """Of names that end in *, the longest that `name` begins with; "" where there is none."""
    found = [one for one in names if one.endswith("*") and name.startswith(one[:-1]) and name != one]
    return max(found, key=len, default="")


def heeds_limits(upstream: Upstream) -> bool:
    """Whether what its answers say of limits is about the target: with several accounts it is about the one
    that was asked."""
    return upstream.rate_headers and len(credentials_of(upstream)) < 2


def targets_of(tier: tuple[Target, ...] | Tier) -> tuple[Target, ...]:
    return tier.targets if isinstance(tier, Tier) else tier


class History(_Section, frozen=True):
    """How much of a conversation the model is given: the most recent messages within both bounds."""

    messages: Annotated[int, Meta(ge=0)] = 30  # messages of the history at most
    tokens: Count = 16_000  # tokens of the history at most, estimated; null: no bound


class Retry(_Section, frozen=True):
    """After a server error the same target is tried again, `backoff` later; a Retry-After up to the bound is
    waited out."""

    same_target: Annotated[int, Meta(ge=0, le=5)] = 1  # further tries at one target
    backoff: Seconds = Seconds(0.1)  # the wait before a further try, doubling, at random within it
    retry_after_wait: Seconds = Seconds(2)  # the longest Retry-After that is waited out


class Hedge(_Section, frozen=True):
    """Send to a second target, too, when the first has no content after `after`; null: after its own 95th
    percentile."""

    after: Seconds | None = None  # time without content; null: the 95th percentile of the first target


class Shadow(_Section, frozen=True):
    """Send a share of the calls to another target, too, and throw its answer away; only metrics see it."""

    upstream: str  # its name in upstreams
    model: str  # the model as the provider names it
    share: Annotated[float, Meta(gt=0, le=1)]  # share of the calls that are copied


class Interceptor(_Section, frozen=True):
    """A plugin that wraps an alias's calls. Every other key beside its name is one of its options.

    `options` are these as they were validated: never a key of the file.
    """

    name: str  # what the plugin is called where it is installed
    options: dict[str, Any] = {}  # the plugin's own options


class Stage(_Section, frozen=True):
    """A plugin that sees an alias's answers, and may change them. Every other key beside its name is one of
    its options.

    `options` are these as they were validated: never a key of the file.
    """

    name: str  # what the plugin is called where it is installed
    options: dict[str, Any] = {}  # the plugin's own options


class Alias(_Section, frozen=True):
    """What callers name as the model: tiers are tried in order. A tier is a list of targets, or a section
    with a strategy."""

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
    log_content: Content | None = None  # what call records have of its calls' texts; null: as log.content
    expand: bool = False  # lists of models have what its upstream lists, in place of the *

    @property
    def continues(self) -> bool:
        """Whether a stream that is cut goes on with a target: by default where there is another one."""
        if self.recovery is not None:
            return self.recovery == "continue"
        return sum(len(targets_of(tier)) for tier in self.tiers) > 1


class Grant(_Section, frozen=True):
    """What a key may do, and until when."""

    aliases: tuple[str, ...] = ("*",)  # aliases that may be used; "*": all
    default_alias: str | None = None  # the alias of requests that name none
    limits: KeyLimits = KeyLimits()  # what may be taken
    origins: tuple[str, ...] = ()  # browser origins that may use it, exact ("https://app.example.com")
    expires: str | None = None  # RFC 3339
    enabled: bool = True  # false: it is refused
    log_content: Content | None = (
        None  # what call records may have of its calls' texts at most; null: what the alias's may
    )


class NamedGrant(Grant, frozen=True, kw_only=True):
    """A key without the secret. `tenant` null: the key's id."""

    id: Name  # its name, in logs and reports
    tenant: Name | None = None  # whose it is; default: its id

    @property
    def owner(self) -> str:
        """The tenant that history and usage belong to."""
        return self.tenant or self.id


class Key(NamedGrant, frozen=True, kw_only=True):
    """A caller's key. Only its digest stands here: `sluice keys new` prints both."""

    digest: Digest  # sha256:… of the key, as `sluice keys hash` prints it


class Claims(_Section, frozen=True):
    """Names of claims: `tenant` (default: sub), `aliases` (a list or a space-separated text; absent: the
    issuer's).

    `plan` names one of the issuer's `plans`; absent, or another: the issuer's `limits`. `user` is who
    `limits.end_users` are told apart by, with the source `token`.
    """

    tenant: str = "sub"  # the claim of the tenant
    aliases: str = "aliases"  # the claim of the aliases; null: none
    plan: str = "plan"  # the claim of the plan; null: none
    user: str = "sub"  # the claim of the end user


class Issuer(_Section, frozen=True):
    """Whose JWTs are accepted (RFC 7519). Exactly one of `secret`, `jwks_file`, `jwks_url` (RFC 7517) and
    `discovery`.

    `discovery`: the key set's address stands in the issuer's /.well-known/openid-configuration (OpenID
    Connect Discovery).

    The tenant is the claim behind `tenant_prefix` (default: the issuer and "|", so that nobody who may choose
    a subject can choose another's tenant; "" where the issuer's tenants are the same as the keys').
    """

    issuer: str  # the `iss` of its tokens
    audience: str  # the `aud` of its tokens
    algorithms: tuple[str, ...]  # the signatures that are accepted, such as RS256
    secret: Secret | None = None  # the secret of HS algorithms
    jwks_file: str | None = None  # a file of keys (RFC 7517)
    jwks_url: str | None = None  # where its keys are fetched
    discovery: bool = False  # whether its keys are found by OpenID Connect Discovery
    leeway: Seconds = Seconds(30)  # what clocks may differ by
    tenant_prefix: str | None = None  # before the tenant of its tokens; default: the issuer and |
    claims: Claims = Claims()  # names of the claims that are read
    aliases: tuple[str, ...] = ("*",)  # aliases that its tokens may use; "*": all
    default_alias: str | None = None  # the alias of requests that name none
    limits: KeyLimits = KeyLimits()  # what a token without a plan may take
    plans: dict[Name, KeyLimits] = {}  # limits by the plan that a token names
    origins: tuple[str, ...] = ()  # web origins that may use its tokens


class BrowserTokens(_Section, frozen=True):
    """POST /v1/tokens: a key with `origins` mints tokens for pages, bound to an origin, an alias and a
    session prefix.

    `longest`: how long one can live. `renewable`: for how long after it was minted a page can renew it; null:
    never.
    """

    secret: Secret  # what tokens are signed with: 32 bytes or more
    longest: Seconds = Seconds(900)  # the longest life of a token
    renewable: Seconds | None = Seconds(86400)  # how long after its first token a page may renew


EndUserSource = Annotated[
    str,
    Meta(
        pattern=r"^(?:body|token|header:[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64})\Z",
        description="body, token, or header:NAME, such as header:x-user-id",
    ),
]


class EndUsers(CallLimits, frozen=True, kw_only=True):
    """What each person may take that a tenant's keys act for, by all keys of the tenant together.

    `source`: where its name is, the first one that has any. `body`: OpenAI's `user` or `safety_identifier`,
    Anthropic's `metadata.user_id`; `header:NAME`; `token`: the claim `jwt.claims.user`, or the session prefix
    of a page's token.
    """

    source: tuple[EndUserSource, ...] = (
        "body",
    )  # where the name is read: body, token, header:NAME; the first decides
    missing: Literal["allow", "refuse"] = (
        "allow"  # a call that names nobody: only the other limits hold, or 400
    )
    most: Annotated[int, Meta(ge=1, le=100_000)] = (
        10_000  # of one tenant, in each process; further ones share one's limits
    )


class Limits(_Section, frozen=True):
    """`store`: "memory", "shared:PATH" (workers of one host) or a URL of Redis: redis://, rediss://, unix://,
    where Sentinel chooses the server redis+sentinel://host:port,host:port/service/db, of a cluster
    redis+cluster://host:port,host:port; with ?timeout=250ms where it is far away.

    `address`: per client address, strangers included; null: none. Behind a proxy it needs
    `server.trusted_proxies`. `overall`: all calls together. `output_tokens`: what is reserved for an answer
    where the caller sets no maximum.

    When the store does not answer: `open` counts in this process, with the limits divided by `replicas`;
    `closed` refuses.
    """

    store: Secret = Secret("memory")  # memory, shared:PATH, or a redis:// URL
    address: Limit | None = None  # of one client address; null: none
    overall: CallLimits = CallLimits()  # of everybody together
    end_users: EndUsers | None = None  # of each person that a tenant's keys act for; null: none
    output_tokens: Count = 1024  # tokens reserved for a call that sets no maximum
    budget_header: bool = False  # answers say what is left of the caller's budget: x-sluice-budget-remaining
    when_down: Literal["open", "closed"] = "open"  # count in this process, or refuse, while the store is down
    replicas: Count = 1  # gateways that share the limits while the store is down
    prefix: Name = "sluice"  # of the keys in Redis


class Responses(_Section, frozen=True):
    """Where answers of /v1/responses go that callers want kept (`store`), and may refer to in their next
    request."""

    store: Secret | None = (
        None  # memory, sqlite:PATH, a redis:// or a postgresql:// URL, also that of `state`; null: no
    )
    keep: Seconds = Seconds(30 * 86400)  # how long one is kept


class Encryption(_Section, frozen=True):
    """AES-256-GCM of the messages of conversations (`state`) and of kept responses (`responses`), in every
    store but memory.

    The first of `keys` encrypts, all decrypt: a new one is put before the others. Tenants, names of sessions,
    ids and times are not encrypted.
    """

    keys: DataKeys | None = None  # 32 random bytes each, in base64, one a line; null: no encryption
    plaintext: Literal["read", "refuse"] = "read"  # whether what was stored without encryption is read


class Retention(_Section, frozen=True):
    """How long conversations (`state`) are kept. What is older or more is deleted once a minute, beside the
    calls.

    null: as the store keeps them: for ever; in Redis for 30 days, and 1,000 messages; in memory 10,000 of
    1,000 messages.
    """

    age: Seconds | None = None  # since the last turn; null: as the store
    messages: Count | None = None  # of a conversation, the latest: a turn has two; null: as the store
    conversations: Count | None = None  # of a tenant, those with the latest turns; null: as many as there are


Role = Literal["viewer", "operator"]
"""What somebody may do by the admin API: look (but at nobody's conversations), or everything."""


class AdminKey(_Section, frozen=True):
    """A further key of the admin API, sent as x-admin-api-key. A viewer reads, but no conversations; an
    operator does all."""

    id: Name  # what the log calls it
    digest: Digest  # sha256:… of the key, as `sluice keys hash` prints it
    role: Role  # viewer or operator


class OidcRoles(_Section, frozen=True):
    """Who has which role, by a claim of the ID token (or of userinfo): a value, or one of a list. Nobody else
    is let in.

    `claim` may lead into an object: realm_access.roles. `email` counts only with `email_verified` true. "*"
    among the values is anybody whom the provider signs in.
    """

    claim: str = "groups"  # the claim, or a path to it such as realm_access.roles
    viewer: tuple[str, ...] = ()  # values of the claim that make a viewer; "*": anybody who signs in
    operator: tuple[str, ...] = ()  # values of the claim that make an operator; "*": anybody who signs in


class Oidc(_Section, frozen=True):
    """Signing in to the pages by an OpenID provider: authorization code with PKCE (OpenID Connect Core 1.0,
    RFC 7636).

    To be registered there: the pages' address and /ui/oidc/callback, such as
    https://ops.example.com/ui/oidc/callback.
    """

    issuer: str  # the provider's issuer, whose /.well-known/openid-configuration is read
    client_id: str  # what the provider calls this gateway
    client_secret: Secret | None = (
        None  # the client's secret; null: a public client, which PKCE alone protects
    )
    scopes: tuple[str, ...] = (
        "openid",
        "profile",
        "email",
    )  # scopes that are asked for; openid must be among them
    algorithms: tuple[str, ...] = ("RS256",)  # signatures of ID tokens that are accepted
    redirect_uri: str | None = (
        None  # the callback's address as browsers see it; null: by the address of the page
    )
    name: str | None = None  # what the button to sign in calls the provider; null: its host
    roles: OidcRoles = OidcRoles()  # who is let in, and in which role


class Admin(_Section, frozen=True):
    """Who may use /v1/admin and /admin: the digest of the key sent as x-admin-api-key. Without it those
    routes answer 401.

    `keys`: further keys, each with its role. `store`: where dynamic keys and usage are kept: "memory",
    "sqlite:PATH", a URL of Redis or a postgresql:// one; null: as `state`. `pepper`: dynamic keys are kept as
    HMAC-SHA-256 under it, else as SHA-256; another pepper invalidates all of them. `ui`: pages for operators
    on the admin port, under /ui/. `edit`: operators may read and write the configuration's file there.
    `session_key`: what their sessions are signed with, so that they hold at all replicas that have it and over
    restarts; null: they end with the gateway.
    """

    digest: Digest | None = None  # sha256:… of an operator's key; null: see keys, oidc
    keys: tuple[AdminKey, ...] = ()  # further keys, of viewers and operators
    store: Secret | None = None  # where dynamic keys and usage are kept; default: as state
    pepper: Secret | None = None  # a secret that dynamic keys' digests are made with
    ui: bool = False  # pages on the admin port, under /ui/; people sign in with an admin key, or by oidc
    edit: bool = False  # operators may read and write this file by /admin/config/file and its page
    oidc: Oidc | None = None  # signing in to the pages by an OpenID provider
    session_key: SessionKey | None = None  # 32 random bytes in base64, for all replicas; null: drawn by lot

    @property
    def usable(self) -> bool:
        """Whether anybody at all may use the admin API."""
        return self.digest is not None or bool(self.keys) or self.oidc is not None


class Tag(_Section, frozen=True):
    """What a call says of itself, as usage is told apart by it: in a header, or in `metadata` of its body.

    The header goes before the metadata. Values beyond `values`, or beyond `most` a day, count as "other".
    """

    header: str | None = None  # the request header that has the value
    metadata: str | None = None  # the field of the body's metadata that has it
    values: tuple[str, ...] = ()  # the only values that are kept apart; default: any
    most: Annotated[int, Meta(ge=1, le=10_000)] = 1000  # values that each process keeps apart a day


class UsageReport(_Section, frozen=True):
    """What usage is kept by, beside the day, the key, the tenant, the alias and the model."""

    hourly_days: Annotated[int, Meta(ge=0, le=400)] = (
        8  # days for which it is also kept by the hour; 0: not at all
    )
    tags: dict[Name, Tag] = {}  # what calls say of themselves, by the name in reports (tag:NAME)


MOST_EXPENSIVE = 1_000_000
"""US dollars for a million tokens: a dollar for each. What is more is a mistake, or a price for a single
token."""


class Price(_Section, frozen=True):
    """US dollars for a million tokens. `cached_input` null: as input; `reasoning` null: as output; `since`: a
    date."""

    input: Annotated[float, Meta(ge=0, le=MOST_EXPENSIVE)]  # US dollars for a million tokens of input
    output: Annotated[float, Meta(ge=0, le=MOST_EXPENSIVE)]  # US dollars for a million tokens of output
    cached_input: Annotated[float, Meta(ge=0, le=MOST_EXPENSIVE)] | None = None  # likewise; default: as input
    reasoning: Annotated[float, Meta(ge=0, le=MOST_EXPENSIVE)] | None = None  # likewise; default: as output
    since: str | None = None  # the first day that it holds


class Prices(_Section, frozen=True):
    """What tokens cost: `file` (default: the table that comes with the gateway), `models` before it.

    A model is named "upstream/model" or "model". `unknown`: a call whose model has no price goes on, or is
    refused. `header`: answers say what they cost (whole ones; streams say it in their log line and usage).
    """

    file: str | None = None  # a table in place of the one that comes along
    models: dict[Name, Price | tuple[Price, ...]] = {}  # prices that go before the table's, by model
    unknown: Literal["allow", "refuse"] = "allow"  # whether calls to models without a price go on
    header: bool = False  # whether answers have their cost in a header


class Models(_Section, frozen=True):
    """What models take of requests, and what is known of them: `file` in place of the table that comes with
    the gateway."""

    file: str | None = None  # a table in place of the one that comes along (sluice models update --to)


class Log(_Section, frozen=True):
    """One line per request at info; why things go wrong at debug. `format` auto: short text on a terminal,
    JSON otherwise.

    `content` is what call records (`records`) have of prompts and answers; log lines never have any. An alias
    and a key may have a `log_content` each: the stricter one holds. `hash`: a digest under `hash_key`, for
    comparing.
    """

    level: Literal["debug", "info", "warning", "error"] = "info"  # debug, info, warning or error
    format: Literal["auto", "json", "text"] = "auto"  # json, text, or auto: text on a terminal
    content: Content = "none"  # of texts in call records, for aliases that do not say: none, hash or full
    content_chars: Count = 16_384  # characters of a prompt, and of an answer, that a record has at most
    hash_key: Secret | None = None  # the secret that digests of texts are made with


class MetricsPush(_Section, frozen=True, kw_only=True):
    """Metrics by OTLP, beside /metrics: the same figures, cumulative, of all workers together."""

    endpoint: str  # the receiver's base URL: http://collector:4318
    protocol: Literal["http", "grpc"] = "http"  # OTLP over HTTP, or over gRPC (extra `http2`)
    compression: Literal["none", "gzip"] = "none"  # of requests
    headers: dict[str, HeaderValue] = {}  # of every request to it: authorization
    every: Seconds = Seconds(60)  # time between two requests
    service: str = "sluice"  # service.name
    attributes: dict[str, str] = {}  # more attributes of the resource: deployment.environment.name


class Metrics(_Section, frozen=True):
    """`key_label`: also count requests by the configured key's id."""

    key_label: bool = False  # whether requests are also counted by key
    push: MetricsPush | None = None  # where metrics are sent by OTLP; null: nowhere


class Tracing(_Section, frozen=True, kw_only=True):
    """OpenTelemetry's traces, by OTLP: a span for each call and each attempt, without content.

    A caller's `traceparent` says whether its calls are traced; of all others `sample` are, and beside them
    those that end in an error or take as long as `slow`.
    """

    endpoint: str  # the receiver's base URL: http://collector:4318
    protocol: Literal["http", "grpc"] = "http"  # OTLP over HTTP, or over gRPC (extra `http2`)
    compression: Literal["none", "gzip"] = "none"  # of requests
    headers: dict[str, HeaderValue] = {}  # of every request to it: authorization
    sample: Annotated[float, Meta(ge=0, le=1)] = 1.0  # the share of calls that are traced
    errors: bool = True  # whether every call that ends in an error is traced
    slow: Seconds | None = None  # calls that take as long are all traced; null: no such rule
    semconv: Literal["1.36", "1.37", "1.41"] = (
        "1.37"  # the version of the conventions for names of attributes
    )
    service: str = "sluice"  # service.name
    attributes: dict[str, str] = {}  # more attributes of the resource: deployment.environment.name
    interval: Seconds = Seconds(2.0)  # how long a span waits for others
    queue: Count = 8192  # spans that wait at most; more are dropped, and counted


class RecordFile(_Section, frozen=True, kw_only=True):
    """A file of JSON lines. It is put aside when it would be larger than `size`, or when a period of `age`
    begins."""

    path: str  # the file; those put aside are beside it, with their time behind the name
    size: Bytes = Bytes(64 << 20)  # bytes of a file
    age: Seconds | None = Seconds(86400)  # the period that a file is of: 1d, 1h; null: no such bound
    keep: Count = 14  # files put aside that are kept


class RecordWebhook(_Section, frozen=True, kw_only=True):
    """POST of batches to an HTTP server, which answers 2xx when it has them."""

    url: str  # where batches are sent
    headers: dict[str, HeaderValue] = {}  # of each request: authorization
    format: Literal["ndjson", "json"] = "ndjson"  # a record per line, or a JSON list
    gzip: bool = False  # whether bodies are compressed


class RecordBucket(_Section, frozen=True, kw_only=True):
    """Objects of an S3-compatible store, one per batch: gzipped JSON lines, named by date and hour.

    `endpoint` null: Amazon's of the region. Buckets are addressed by path: ENDPOINT/BUCKET/KEY.
    """

    bucket: str  # its name
    region: str = "us-east-1"  # that requests are signed for
    endpoint: str | None = None  # http(s)://host:port of the store; null: Amazon S3
    prefix: str = "sluice/"  # before the objects' names
    access_key: Secret  # the key's id
    secret_key: Secret  # the key's secret
    session_token: Secret | None = None  # of temporary keys


class RecordOtlp(_Section, frozen=True, kw_only=True):
    """Log records of OpenTelemetry, by OTLP."""

    endpoint: str  # the receiver's base URL: http://collector:4318
    protocol: Literal["http", "grpc"] = "http"  # OTLP over HTTP, or over gRPC (extra `http2`)
    compression: Literal["none", "gzip"] = "none"  # of requests
    headers: dict[str, HeaderValue] = {}  # of every request to it: authorization
    service: str = "sluice"  # service.name


class RecordKafkaTls(_Section, frozen=True, kw_only=True):
    """TLS to the brokers. Files are read when the connection's first batch is sent."""

    ca: str | None = (
        None  # a file of certificates (PEM) that brokers' may come from; null: the system's authorities
    )
    cert: str | None = None  # a file with the certificate that we show (PEM)
    key: str | None = None  # a file with the key of cert (PEM); null: it is in cert, too
    key_password: Secret | None = None  # of an encrypted key


class RecordKafkaSasl(_Section, frozen=True, kw_only=True):
    """Who we are to the brokers: `user` and `password`, or for oauthbearer a token."""

    mechanism: Literal["plain", "scram-sha-256", "scram-sha-512", "oauthbearer"]  # how it is shown
    user: str | None = None  # of plain and scram
    password: Secret | None = None  # its password
    token_file: str | None = None  # of oauthbearer: a file with the token, read again before it ends


class RecordKafka(_Section, frozen=True, kw_only=True):
    """Messages of a Kafka topic, one per record (extra `kafka`). All replicas in sync have acknowledged what counts
    as delivered."""

    brokers: tuple[str, ...]  # host:port of some of them; the others are found
    topic: str  # there must be one; it is not made
    key: Literal["tenant", "key", "alias", "request_id", "none"] = (
        "tenant"  # what messages of a partition share
    )
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = "none"  # of batches
    headers: dict[str, str] = {}  # of each message; idempotency-key is always there
    tls: RecordKafkaTls | None = None  # {}: with the system's authorities; null: not encrypted
    sasl: RecordKafkaSasl | None = None  # null: not authenticated, or by tls's certificate


class Records(_Section, frozen=True, kw_only=True):
    """Where a record of each call goes: exactly one of `file`, `webhook`, `s3`, `otlp` and `kafka`.

    A batch that could not be delivered is kept in the directory `spill`, if there is one, and tried again
    until it is.
    """

    name: Name  # what metrics, logs and spilled files call it
    file: RecordFile | None = None  # a file with rotation
    webhook: RecordWebhook | None = None  # an HTTP server
    s3: RecordBucket | None = None  # an S3-compatible object store
    otlp: RecordOtlp | None = None  # an OTLP receiver
    kafka: RecordKafka | None = None  # a topic of Kafka
    batch: Count = 500  # records of a batch at most
    interval: Seconds = Seconds(2)  # how long a record waits for others
    buffer: Bytes = Bytes(
        16 << 20
    )  # bytes of records that wait in memory, in each process; more are dropped, and counted
    spill: str | None = None  # a directory for batches that could not be delivered; null: they wait in memory
    spill_max: Bytes = Bytes(1 << 30)  # bytes in that directory


class Config(_Section, frozen=True):
    """The whole file: who answers (`upstreams`), what callers may name (`aliases`), who may call (`keys`,
    `jwt`)."""

    upstreams: dict[Name, Upstream]  # provider accounts and servers, by name
    aliases: dict[AliasName, Alias]  # what callers name as the model
    keys: tuple[Key, ...] = ()  # who may call, by key
    jwt: tuple[Issuer, ...] = ()  # issuers whose JWTs are accepted
    tokens: BrowserTokens | None = None  # short-lived tokens for web pages; null: none
    tenants: dict[Name, Tenant] = {}  # limits of all keys of a tenant together
    teams: dict[Name, Team] = {}  # limits of all tenants of a team together
    server: Server = Server()  # listeners, and what is taken from callers
    limits: Limits = Limits()  # where limits are counted, and those of everybody
    state: Secret = Secret("memory")  # conversations: memory, sqlite:PATH, a redis:// or a postgresql:// URL
    retention: Retention = Retention()  # how long conversations are kept
    responses: Responses = Responses()  # answers that callers want kept
    encryption: Encryption = Encryption()  # of conversations and of kept responses
    resume: Secret = Secret("memory")  # resumable streams: "memory" or a redis:// / rediss:// / unix:// URL
    admin: Admin = Admin()  # who may use the admin routes
    prices: Prices = Prices()  # what tokens cost
    usage: UsageReport = UsageReport()  # what usage is kept by
    models: Models = Models()  # what models take, and what is known of them
    log: Log = Log()  # what is logged, and how
    metrics: Metrics = Metrics()  # what metrics are labelled by
    tracing: Tracing | None = None  # where traces are sent; null: nowhere
    records: tuple[Records, ...] = ()  # where records of calls go

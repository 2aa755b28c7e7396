"""Providers' accounts and servers: how they are reached, watched, and what they are sent."""

from typing import Annotated, Any, Literal

from msgspec import Meta

from sluice.config.types.limits import CallLimits
from sluice.config.types.values import Count, Name, Section
from sluice.config.units import Bytes, Seconds, Secret


class Timeouts(Section, frozen=True):
    """Deadlines by phase, in seconds. `total` null: none.

    `whole`: of an answer in one piece, in place of `headers`, `first_token` and `idle`.
    """

    connect: Seconds = Seconds(2)  # DNS, TCP and TLS together
    headers: Seconds = Seconds(30)  # from the request to the head of the answer
    first_token: Seconds = Seconds(30)  # from the head to the first content
    idle: Seconds = Seconds(30)  # between two pieces of content
    whole: Seconds = Seconds(300)  # for an answer in one piece, in place of headers, first_token and idle
    total: Seconds | None = None  # one attempt altogether; null: none


class Breaker(Section, frozen=True):
    """When a target gets no calls: after `failures` in a row or a share of them, for `open_for`, doubling to
    `open_max`."""

    failures: Count = 5  # failures in a row that open it
    error_rate: Annotated[float, Meta(gt=0, le=1)] | None = 0.5  # of at least 20 calls within 30 s
    open_for: Seconds = Seconds(5)  # how long it stays open at first; doubles with each failed try
    open_max: Seconds = Seconds(15)  # the longest that it stays open


class Probe(Section, frozen=True):
    """GET `path` (below base_url) of the upstream at intervals; it spends no tokens, and any answer below 500
    means healthy."""

    path: str = "/models"  # below base_url
    every: Seconds = Seconds(10)  # time between two probes


class Pods(Section, frozen=True):
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


class Picker(Section, frozen=True):
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
    networks: tuple[str, ...] | None = (
        None  # where its servers are, [10.8.0.0/14]; others get no request; null: anywhere
    )


class Fitted(Section, frozen=True, kw_only=True):
    """Changes to requests, beside what the table of models says (config/models.yaml). Fields are named as in
    OpenAI's dialect, whatever the upstream speaks; "messages.x" is a field of messages. A null, or "!" before
    a name of `drop`, takes a rule of the table (or the upstream's) away.

    `drop`: fields that are left out. `rename`: other names for them. `default`: fields where the caller gives
    none. `force`: fields whatever the caller gives. `roles`: other names of messages' roles.
    """

    drop: tuple[str, ...] = ()  # fields of a request that are left out
    rename: dict[str, str | None] = {}  # fields of a request that go under another name
    default: dict[str, Any] = {}  # fields that a request gets where it lacks them
    force: dict[str, Any] = {}  # fields that every request gets
    roles: dict[str, str | None] = {}  # roles of messages that go under another name


class Credential(Section, frozen=True):
    """One account of an upstream. Every other key beside these is an option of its kind.

    `options` are these as they were validated: never a key of the file.
    """

    kind: str = "static"  # where its key or token comes from: static, file, or a plugin's
    name: Name | None = None  # what metrics and logs call it; default: its number, from 1
    weight: Annotated[float, Meta(ge=0, le=10**6)] = (
        1.0  # its share of the requests; 0: only where no other is usable
    )
    options: dict[str, Any] = {}  # the kind's own options


class UpstreamTls(Section, frozen=True):
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


class Upstream(Fitted, frozen=True, kw_only=True):
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


def credentials_of(upstream: Upstream) -> tuple[Credential, ...]:
    given = upstream.credentials
    return (given,) if isinstance(given, Credential) else given


def heeds_limits(upstream: Upstream) -> bool:
    """Returns whether the rate headers of its answers are about the target: with several accounts they are
    about the one that was used."""
    return upstream.rate_headers and len(credentials_of(upstream)) < 2

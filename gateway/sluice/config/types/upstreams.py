"""Upstreams: provider accounts and servers; how they are reached and monitored, and how requests to them
change."""

from typing import Annotated, Any, Literal

from msgspec import Meta

from sluice.config.types.limits import CallLimits
from sluice.config.types.values import Count, Name, Section
from sluice.config.units import Bytes, Seconds, Secret


class Timeouts(Section, frozen=True):
    """Timeouts of one attempt by phase, in seconds.

    `whole`: for an answer that is not streamed, instead of `headers`, `first_token` and `idle`.
    """

    connect: Seconds = Seconds(2)  # for DNS, TCP and TLS together
    headers: Seconds = Seconds(30)  # from the request to the headers of the answer
    first_token: Seconds = Seconds(30)  # from the headers to the first content
    idle: Seconds = Seconds(30)  # between two pieces of content
    whole: Seconds = Seconds(300)  # for an answer in one piece, in place of headers, first_token and idle
    total: Seconds | None = None  # for one attempt altogether; null: none


class Breaker(Section, frozen=True):
    """The circuit breaker of a target. After `failures` in a row, or at `error_rate`, it gets no calls for
    `open_for`, which doubles up to `open_max`."""

    failures: Count = 5  # failures in a row that open it
    error_rate: Annotated[float, Meta(gt=0, le=1)] | None = (
        0.5  # share of failures that opens it, of at least 20 calls within 30 s; null: none
    )
    open_for: Seconds = Seconds(5)  # how long it stays open at first; doubled after each failed try
    open_max: Seconds = Seconds(15)  # the longest time that it stays open


class Probe(Section, frozen=True):
    """Health checks of the upstream by GET `path` (below base_url). They use no tokens; any status below 500
    means healthy."""

    path: str = "/models"  # the path below base_url
    every: Seconds = Seconds(10)  # time between two probes


class Pods(Section, frozen=True):
    """The servers of an upstream that has several: pods of vLLM or SGLang with the same models. Requests are
    sent to the address of a single server.

    The strategies `queue_depth` and `prefix_cache` choose a server by the servers' queues.
    """

    addresses: tuple[
        str, ...
    ] = ()  # host:port of each server; empty: all addresses of base_url's host (a headless service)
    resolve: Seconds = Seconds(2)  # time between two lookups of these addresses
    metrics: str | None = "/metrics"  # path of each server's Prometheus metrics; null: it has none
    every: Seconds = Seconds(0.5)  # time between two reads of the metrics, by each process
    stale: Seconds = Seconds(3)  # older metrics are ignored
    max: Annotated[int, Meta(ge=1, le=1024)] = 256  # most servers that are used
    header: bool = False  # whether answers name the server in x-sluice-pod


class Picker(Section, frozen=True):
    """An endpoint picker (llm-d, Gateway API inference extension), which chooses the servers for each
    request.

    The gateway calls it by gRPC (Envoy's external processing).
    """

    address: str  # host:port of its gRPC service
    tls: bool = False  # whether the connection uses TLS
    ca: str | None = None  # a file of CA certificates (PEM) for its certificate; null: the system's
    verify: bool = True  # whether its certificate is verified; pickers generate their own at the start
    timeout: Seconds = Seconds(
        10
    )  # for its answer; a picker may hold requests back until a server has capacity
    when_down: Literal["refuse", "service"] = (
        "refuse"  # without its answer: refuse (the next target is tried), or service (base_url's own address)
    )
    networks: tuple[str, ...] | None = (
        None  # the networks of its servers, [10.8.0.0/14]; servers elsewhere get no request; null: anywhere
    )


class Fitted(Section, frozen=True, kw_only=True):
    """Changes to requests, in addition to those of the table of models (config/models.yaml). Fields are named
    as in OpenAI's dialect, whatever the upstream speaks; "messages.x" is a field of messages. A null, or "!"
    before a name in `drop`, removes a rule of the table (or of the upstream).

    `drop`: fields that are left out. `rename`: new names of fields. `default`: values of fields that the
    caller does not send. `force`: values of fields, whatever the caller sends. `roles`: new names of the
    roles of messages.
    """

    drop: tuple[str, ...] = ()  # request fields that are left out
    rename: dict[str, str | None] = {}  # new names of request fields
    default: dict[str, Any] = {}  # values of request fields that a request lacks
    force: dict[str, Any] = {}  # values of request fields, whatever the caller sends
    roles: dict[str, str | None] = {}  # new names of the roles of messages


class Credential(Section, frozen=True):
    """One account of an upstream. All other keys are options of its kind.

    `options` has the validated options: it is not a key of the file.
    """

    kind: str = "static"  # the kind of credentials: static, file, or a plugin's
    name: Name | None = None  # its name in metrics and logs; default: its number, from 1
    weight: Annotated[float, Meta(ge=0, le=10**6)] = (
        1.0  # its share of the requests; 0: only used if no other is usable
    )
    options: dict[str, Any] = {}  # the kind's own options


class UpstreamTls(Section, frozen=True):
    """TLS to an https upstream. When the files are replaced, new connections use the new ones, without a
    restart.

    `system_store` null: the CA certificates of the system are trusted if no `ca` is set. `cert` may contain
    the key, too.
    """

    ca: str | None = None  # a file of CA certificates (PEM or DER) for the certificates of upstreams
    system_store: bool | None = (
        None  # whether the system's CA certificates are trusted, too; null: only if no ca is set
    )
    cert: str | None = None  # a file with the client certificate (PEM, with its chain)
    key: str | None = None  # a file with the key of cert (PEM); null: it is in cert, too
    key_password: Secret | None = None  # password of an encrypted key
    server_name: str | None = (
        None  # the server name that is requested (SNI) and verified; null: the host of the address
    )
    min_version: Literal["1.2", "1.3"] = "1.2"  # the oldest accepted version of TLS

    @property
    def uses_system_store(self) -> bool:
        return self.ca is None if self.system_store is None else self.system_store


class Upstream(Fitted, frozen=True, kw_only=True):
    """One provider account or server. All other keys are options of the backend (base_url, api_key …).

    `drop`, `rename`, `default`, `force` and `roles` change requests to it. Not keys of the file: `options`,
    the validated options of the backend, only for showing the configuration; `vendor`, the vendor that
    `backend` names.
    """

    backend: str  # the dialect that it speaks: openai, anthropic, ollama, echo, or a plugin's; or a vendor: groq, deepseek …
    timeouts: Timeouts = Timeouts()  # deadlines by phase
    breaker: Breaker = Breaker()  # when its targets get no calls
    probe: Probe | None = None  # periodic health checks; null: none
    pods: Pods | None = None  # the servers that it consists of, each addressed by itself; null: one address
    picker: Picker | None = None  # an endpoint picker that chooses a server for each request; null: none
    max_connections: Count = (
        1024  # most connections, open or opening (for pods: to each); further calls wait for one
    )
    max_connection_age: Seconds | None = Seconds(
        600
    )  # older connections get no further call, so that new addresses are used; null: no bound
    rate_headers: bool = (
        True  # whether calls go to another target while its answers report that a rate limit is used up
    )
    max_before_content: Bytes = Bytes(1 << 20)  # most bytes of a stream before its first content
    max_answer: Bytes = Bytes(64 << 20)  # most bytes of an answer that is not streamed
    proxy: Secret | None = (
        None  # http, https, socks5 or socks5h://[user:password@]host:port; "env": of the environment; null: none
    )
    tls: UpstreamTls = UpstreamTls()  # TLS to https upstreams
    limits: CallLimits = (
        CallLimits()
    )  # limits of all calls to it: a target whose limits are used up is skipped
    forward: dict[
        str, Literal["any"] | tuple[str, ...]
    ] = {}  # headers of callers that are passed on, with the allowed values
    credentials: (
        Credential | tuple[Credential, ...]
    ) = ()  # one or several accounts, instead of the backend's api_key
    options: dict[str, Any] = {}  # the backend's own options
    vendor: str = ""  # the vendor that backend names


COMPUTED = frozenset({"options", "vendor"})
"""Fields of `Upstream` that the loader sets: never keys of the file."""


def credentials_of(upstream: Upstream) -> tuple[Credential, ...]:
    given = upstream.credentials
    return (given,) if isinstance(given, Credential) else given


def heeds_limits(upstream: Upstream) -> bool:
    """Returns whether rate limit headers of its answers apply to the whole upstream: with several accounts
    they only apply to the one that was used."""
    return upstream.rate_headers and len(credentials_of(upstream)) < 2

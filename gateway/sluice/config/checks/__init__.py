"""Checks a configuration beyond its types: references, options that exclude each other, addresses, dates.

Short checks are here; the other modules have those of one section (`callers`, `pods`, `records` …) or of the
whole file (`file`). Each check examines one section, wherever it is in the file, and reports problems by
path; the report knows the positions. Values that were already found wrong are INVALID and skipped, so one
mistake is one line.
"""

import re
from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any

from sluice.config.checks.admin import check_admin
from sluice.config.checks.callers import CallerChecks
from sluice.config.checks.file import (
    check_address_limit,
    check_demo,
    check_development_key,
    check_unused,
    not_shared,
)
from sluice.config.checks.otlp import check_receiver
from sluice.config.checks.pods import check_picker, check_pods, check_pooled, check_strategies
from sluice.config.checks.records import check_records, check_sink
from sluice.config.checks.tags import check_tags
from sluice.config.checks.teams import check_teams
from sluice.config.listening import check_listening
from sluice.config.price_file import check_order, check_price
from sluice.config.problems import Path, Report, suggestion
from sluice.config.types import (
    Admin,
    Alias,
    BrowserTokens,
    Canary,
    Config,
    Issuer,
    Limit,
    Limits,
    MetricsPush,
    NamedGrant,
    Pods,
    Price,
    Prices,
    Probe,
    RecordOtlp,
    Records,
    Responses,
    Retention,
    Server,
    ServerTls,
    Shadow,
    Target,
    Tier,
    Timeouts,
    Tracing,
    Upstream,
    UpstreamTls,
    targets_of,
)
from sluice.config.units import Bytes, Seconds, Secret
from sluice.config.validation import INVALID
from sluice.errors import BadRequest
from sluice.limits import Limit as BucketLimit
from sluice.limits.bucket import rule_of
from sluice.proxy.fitting import RESERVED_FIELDS, check_values
from sluice.storage.address import CONVERSATIONS, DRIVERS, LIMITS, RESUME, Kind, store_of
from sluice.wire.forwarding import check_forward

MAX_UNSENT = 1 << 30
"""Maximum bytes for one connection; kernels accept no more than 2 GiB (TCP_NOTSENT_LOWAT has 32 bits)."""


class Checks:
    """Checks one file. `upstreams` and `aliases` are the names that it declares, valid or not. Call `section`
    for each section, then `whole`."""

    def __init__(self, report: Report, upstreams: Iterable[str], aliases: Iterable[str]) -> None:
        self._report = report
        self._upstreams = set(upstreams)
        self._aliases = set(aliases)
        self._used: set[str] = set()
        self._callers = CallerChecks(report, self._aliases)

    def section(self, path: Path, section: Any) -> None:
        match section:
            case Server():
                self._server(path, section)
            case Timeouts():
                for name in ("connect", "headers", "first_token", "idle", "whole", "total"):
                    self._above_zero((*path, name), getattr(section, name))
            case Target(upstream=str(name)) | Shadow(upstream=str(name)):
                if isinstance(section, Target):
                    self._fitted(path, section)
                self._used.add(name)
                if name not in self._upstreams:
                    hint = suggestion(name, self._upstreams)
                    self._report.problem((*path, "upstream"), f'unknown upstream "{name}"{hint}')
            case Alias():
                self._alias(path, section)
            case NamedGrant():
                self._callers.key(path, section)
            case Issuer():
                self._callers.issuer(path, section)
            case Limit(rate=float(), burst=None | float() | int()):
                self._limit(path, section)
            case Upstream():
                self._upstream(path, section)
                self._fitted(path, section)
            case ServerTls():
                if INVALID not in (
                    section.cert,
                    section.key,
                    section.key_password,
                    section.client_ca,
                    section.min_version,
                ):
                    self._report.attempt(path, lambda _: _served_files(section), "")
            case UpstreamTls():
                self._tls(path, section)
            case BrowserTokens():
                self._callers.tokens(path, section)
            case Limits(store=store):
                self._store((*path, "store"), store, *LIMITS)
            case Retention(age=age) if age is not None:
                self._above_zero((*path, "age"), age)
            case Admin():
                check_admin(self._report, path, section)
                self._store((*path, "store"), section.store, *CONVERSATIONS)
            case Pods():
                check_pods(self._report.problem, path, section)
            case Probe():
                self._above_zero((*path, "every"), section.every)
            case Canary():
                self._canary(path, section)
            case Price():
                check_price(self._report, path, section)
            case Prices(models=dict(models)):
                check_order(self._report, (*path, "models"), models)
            case Records():
                self._records(path, section)
            case MetricsPush() | RecordOtlp() | Tracing():
                check_receiver(self._report.problem, path, section)
            case Config():
                self._whole(section)

    def _store(self, path: Path, store: object, *kinds: Kind) -> None:
        text = store.reveal() if isinstance(store, Secret) else store
        self._report.attempt(path, lambda text: _installed(store_of(text, *kinds).kind), text)

    def _fitted(self, path: Path, section: Upstream | Target) -> None:
        """Checks changes of requests: they may not concern fields that the gateway sets itself, and may only
        set values that a caller could send."""
        for option in ("drop", "rename", "default", "force"):
            for name in getattr(section, option) or ():
                if isinstance(name, str) and name.removeprefix("!") in RESERVED_FIELDS:
                    self._report.problem((*path, option), f'"{name}" is the gateway\'s own to say')
        for option in ("default", "force"):
            values = getattr(section, option)
            try:
                if isinstance(values, dict) and not RESERVED_FIELDS & values.keys():
                    check_values({name: value for name, value in values.items() if value is not None})
            except BadRequest as error:
                self._report.problem((*path, option), error.message)

    def _records(self, path: Path, sink: Records) -> None:
        check_sink(sink, lambda within, text: self._report.problem((*path, *within), text))

    def _limit(self, path: Path, limit: Limit) -> None:
        try:
            rule_of(BucketLimit(limit.capacity, float(limit.rate)))
        except ValueError as error:
            self._report.problem(path, str(error))

    def _above_zero(self, path: Path, value: Seconds | None) -> None:
        if value is not None and value <= 0:
            self._report.problem(path, "must be more than 0")

    def _some_bytes(self, path: Path, value: Bytes) -> None:
        if isinstance(value, int) and value < 1:
            self._report.problem(path, "must be more than 0")

    def _server(self, path: Path, server: Server) -> None:
        for name in ("listen", "admin_listen"):
            self._report.attempt((*path, name), check_listening, getattr(server, name))
        if server.http2 is True and find_spec("h2") is None:
            self._report.problem((*path, "http2"), "h2 is not installed: pip install 'sluice-gateway[http2]'")
        if server.listen == server.admin_listen and not server.listen.endswith(":0"):
            self._report.problem((*path, "admin_listen"), "must differ from listen")
        for index, network in enumerate(server.trusted_proxies):
            self._report.attempt((*path, "trusted_proxies", index), _network, network)
        for name in ("body_timeout", "header_timeout", "keepalive_timeout", "write_idle"):
            self._above_zero((*path, name), getattr(server, name))
        if isinstance(server.send_buffer, int) and server.send_buffer > MAX_UNSENT:
            self._report.problem((*path, "send_buffer"), f"must be at most {MAX_UNSENT >> 20}MiB")
        for name in ("body_limit", "send_buffer"):
            self._some_bytes((*path, name), getattr(server, name))
        if (
            isinstance(server.body_limit, int)
            and isinstance(server.body_memory, int)
            and server.body_memory < server.body_limit
        ):
            self._report.problem(
                (*path, "body_memory"), "must be at least body_limit: else no such body could ever arrive"
            )

    def _upstream(self, path: Path, upstream: Upstream) -> None:
        if isinstance(upstream.proxy, Secret):
            self._report.attempt((*path, "proxy"), _proxy, upstream.proxy.reveal())
        for name in ("max_before_content", "max_answer"):
            self._some_bytes((*path, name), getattr(upstream, name))
        self._above_zero((*path, "max_connection_age"), upstream.max_connection_age)
        check_pooled(self._report.problem, path, upstream)
        check_picker(self._report.problem, path, upstream)
        address = upstream.options.get("base_url")
        if (
            upstream.tls not in (UpstreamTls(), INVALID)
            and isinstance(address, str)
            and address.startswith("http://")
        ):
            self._report.problem(
                (*path, "tls"), "the address is an http:// one: nothing is spoken in TLS there"
            )
        for name in upstream.forward:
            self._report.attempt((*path, "forward", name), check_forward, name)

    def _tls(self, path: Path, tls: UpstreamTls) -> None:
        if INVALID in (
            tls.ca,
            tls.system_store,
            tls.cert,
            tls.key,
            tls.key_password,
            tls.server_name,
            tls.min_version,
        ):
            return
        if tls.cert is None and (tls.key is not None or tls.key_password is not None):
            self._report.problem(path, "key and key_password belong to a cert, which is missing")
        elif tls.ca is None and not tls.uses_system_store:
            self._report.problem(
                (*path, "system_store"), "without it and without a ca no upstream is believed"
            )
        elif tls != UpstreamTls():
            self._report.attempt(path, lambda _: _tls_files(tls), "")
        if tls.server_name is not None:
            self._report.attempt((*path, "server_name"), _host_name, tls.server_name)

    def _alias(self, path: Path, alias: Alias) -> None:
        self._above_zero((*path, "heartbeat"), alias.heartbeat)
        self._above_zero((*path, "timeout"), alias.timeout)
        if alias.tiers is INVALID:
            return
        if not alias.tiers:
            self._report.problem((*path, "tiers"), "needs at least one tier with one target")
        for index, tier in enumerate(alias.tiers):
            if tier is INVALID:
                continue
            targets = targets_of(tier)
            if not str(path[-1]).endswith("*"):
                self._no_wildcard((*path, "tiers", index), tier)
            if not targets:
                self._report.problem((*path, "tiers", index), "needs at least one target")
            elif targets is not INVALID and len(targets) > 1 and all(_unwanted(target) for target in targets):
                self._report.problem(
                    (*path, "tiers", index), "every target has weight 0: none would be asked"
                )

    def _no_wildcard(self, path: Path, tier: tuple[Target, ...] | Tier) -> None:
        targets = targets_of(tier)
        within = (*path, "targets") if isinstance(tier, Tier) else path
        for index, target in enumerate(targets if isinstance(targets, tuple) else ()):
            if isinstance(target, Target) and isinstance(target.model, str) and "*" in target.model:
                text = "the alias has no * at its end that this could stand for"
                self._report.problem((*within, index, "model"), text)

    def _canary(self, path: Path, canary: Canary) -> None:
        if not canary.keys and canary.header is None:
            self._report.problem(path, "needs keys or a header to know its callers by")
        if isinstance(canary.header, str) and not re.fullmatch(r"[A-Za-z0-9-]+:\s*\S.*", canary.header):
            self._report.problem(
                (*path, "header"), 'expected a header and its value, such as "x-canary: yes"'
            )

    def _whole(self, config: Config) -> None:
        self._store(("state",), config.state, *CONVERSATIONS)
        self._store(("resume",), config.resume, *RESUME)
        if isinstance(config.responses, Responses) and config.responses.store is not None:
            self._store(("responses", "store"), config.responses.store, *CONVERSATIONS)
        check_records(config, self._report)
        self._declared(config)
        check_unused(config, self._report, aliases=self._aliases)
        check_teams(config, self._report)
        check_tags(config, self._report)
        check_strategies(self._report.problem, config)
        check_address_limit(config, self._report)
        check_development_key(config, self._report)
        check_demo(config, self._report)
        if (
            isinstance(config.server, Server)
            and isinstance(config.server.workers, int)
            and config.server.workers > 1
        ):
            for path, text in not_shared(config):
                self._report.warning(path, text)

    def _declared(self, config: Config) -> None:
        for name, declared in (("upstreams", self._upstreams), ("aliases", self._aliases)):
            if not declared and isinstance(getattr(config, name), dict):
                self._report.problem((name,), "needs at least one")
        for name in sorted(self._upstreams - self._used):
            self._report.warning(("upstreams", name), "no alias uses this upstream")


def _installed(kind: Kind) -> None:
    module, engine, extra = DRIVERS.get(kind, ("", "", ""))
    if module and find_spec(module) is None:
        raise ValueError(f"{engine}'s driver is not installed: pip install 'sluice-gateway[{extra}]'")


def _network(text: str) -> None:
    from ipaddress import ip_network

    try:
        ip_network(text)
    except ValueError:
        raise ValueError("expected a network such as 10.0.0.0/8 (no bits set behind the prefix)") from None


def _proxy(text: str) -> None:
    from sluice.upstream.proxies import check_proxy

    check_proxy(text)


def _tls_files(tls: UpstreamTls) -> None:
    from sluice.upstream.tls import context_of

    context_of(tls)


def _served_files(tls: ServerTls) -> None:
    from sluice.server.tls import served_by

    served_by(tls)


def _host_name(text: str) -> None:
    from sluice.upstream.request import origin_of

    if origin_of(f"https://{text}").name != f"{text.lower()}:443":
        raise ValueError("expected a host's name, such as llm.example.com")


def _unwanted(target: object) -> bool:
    return isinstance(target, Target) and target.weight == 0 and target.canary is None

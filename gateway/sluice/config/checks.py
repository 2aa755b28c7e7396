"""Checks a configuration beyond its types: references, options that exclude each other, addresses, dates.

Each check looks at one section, wherever it stands, and reports by path; positions are the report's business.
Values that were already found wrong are INVALID and skipped, so one mistake is one line.
"""

import re
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from typing import Any

from sluice.config.admin_checks import check_admin, discoverable
from sluice.config.otlp_checks import check_receiver
from sluice.config.pod_checks import check_picker, check_pods, check_pooled, check_strategies
from sluice.config.price_file import check_date, check_order
from sluice.config.problems import Path, Report, suggestion
from sluice.config.record_checks import check_records, check_sink
from sluice.config.tag_checks import check_tags
from sluice.config.team_checks import check_teams
from sluice.config.types import (
    Admin,
    AdminKey,
    Alias,
    BrowserTokens,
    Canary,
    Config,
    Issuer,
    Key,
    KeyLimits,
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
    covering,
    targets_of,
)
from sluice.config.units import Bytes, Seconds, Secret
from sluice.config.validation import INVALID
from sluice.errors import BadRequest
from sluice.identity.browser import SHORTEST_SECRET
from sluice.identity.jwks import check_url, is_remote, issuer_keys, unfit, unusable
from sluice.identity.keys import timestamp
from sluice.limits import Limit as BucketLimit
from sluice.limits.bucket import rule_of
from sluice.proxy.fitting import OURS, check_values
from sluice.storage.address import CONVERSATIONS, DRIVERS, LIMITS, RESUME, Kind, store_of
from sluice.wire.forwarding import check_forward

DEVELOPMENT_KEYS = frozenset({"sha256:f54ca937b7efefe972b761a7b8dc7dd477c073770dec53b33fe59a66f6ef9a9f"})
"""The digest of sk-sluice-dev, the key of config/gateway.dev.yaml. It is public, so nothing is given away by
comparing it."""


LONGEST_PATH = 103
"""Bytes of a Unix socket's path: 107 on Linux, 103 on macOS."""


def address(text: str) -> tuple[str, int]:
    """ "host:port" -> (host, port); IPv6 in brackets, an empty host is every interface. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if (
        not colon
        or not port.isascii()
        or not port.isdigit()
        or int(port) > 65535
        or (":" in host) != bracketed
        or " " in host
    ):
        raise ValueError("expected host:port, such as 127.0.0.1:8080 or [::1]:8080, or unix:/path")
    return host, int(port)


def unix_path(text: str) -> str | None:
    """The path of a Unix socket that is written as unix:/path; None for any other address. Raises
    ValueError."""
    if not text.startswith("unix:"):
        return None
    path = text.removeprefix("unix:")
    if not path or "\0" in path or len(path.encode("utf-8", "surrogatepass")) > LONGEST_PATH:
        raise ValueError(
            f"expected unix:/path, of at most {LONGEST_PATH} bytes, such as unix:/run/sluice/api.sock"
        )
    return path


def _listening(text: str) -> None:
    if unix_path(text) is None:
        address(text)


class Checks:
    """`upstreams` and `aliases` are the names that the file declares, valid or not. Call `section` for each,
    then `whole`."""

    def __init__(self, report: Report, upstreams: Iterable[str], aliases: Iterable[str]) -> None:
        self._report = report
        self._upstreams = set(upstreams)
        self._aliases = set(aliases)
        self._used: set[str] = set()
        self._first: dict[tuple[str, str], Path] = {}

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
                self._key(path, section)
            case Issuer():
                self._issuer(path, section)
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
                    self._try(path, lambda _: _served_files(section), "")
            case UpstreamTls():
                self._tls(path, section)
            case BrowserTokens():
                self._tokens(path, section)
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
                check_date(self._report, path, section)
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
        self._try(path, lambda text: _installed(store_of(text, *kinds).kind), text)

    def _fitted(self, path: Path, section: Upstream | Target) -> None:
        """Checks changes of requests: not of what the gateway sets itself, and only to values that a caller
        could send."""
        for option in ("drop", "rename", "default", "force"):
            for name in getattr(section, option) or ():
                if isinstance(name, str) and name.removeprefix("!") in OURS:
                    self._report.problem((*path, option), f'"{name}" is the gateway\'s own to say')
        for option in ("default", "force"):
            values = getattr(section, option)
            try:
                if isinstance(values, dict) and not OURS & values.keys():
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

    def _try(self, path: Path, check: Callable[[str], object], text: object) -> None:
        """Report what `check` has to say about `text`."""
        if not isinstance(text, str):
            return
        try:
            check(text)
        except ValueError as error:
            self._report.problem(path, str(error))

    def _once(self, kind: str, value: object, path: Path) -> None:
        if not isinstance(value, str):
            return
        if (first := self._first.setdefault((kind, value), path)) != path:
            where = self._report.line_of(first)
            self._report.problem(path, f"the same {kind} stands in line {where} already")

    def _server(self, path: Path, server: Server) -> None:
        for name in ("listen", "admin_listen"):
            self._try((*path, name), _listening, getattr(server, name))
        if server.http2 is True and find_spec("h2") is None:
            self._report.problem((*path, "http2"), "h2 is not installed: pip install 'sluice-gateway[http2]'")
        if server.listen == server.admin_listen and not server.listen.endswith(":0"):
            self._report.problem((*path, "admin_listen"), "must differ from listen")
        for index, network in enumerate(server.trusted_proxies):
            self._try((*path, "trusted_proxies", index), _network, network)
        for name in ("body_timeout", "header_timeout", "keepalive_timeout", "write_idle"):
            self._above_zero((*path, name), getattr(server, name))
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
            self._try((*path, "proxy"), _proxy, upstream.proxy.reveal())
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
            self._try((*path, "forward", name), check_forward, name)

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
            self._try(path, lambda _: _tls_files(tls), "")
        if tls.server_name is not None:
            self._try((*path, "server_name"), _host_name, tls.server_name)

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

    def _caller(self, path: Path, caller: NamedGrant | Issuer) -> None:
        """Checks the common part of keys and issuers: the aliases and the origins that they allow."""
        for index, name in enumerate(caller.aliases):
            if isinstance(name, str) and name != "*":
                self._known_alias((*path, "aliases", index), name)
        if caller.default_alias is not None:
            self._default_alias((*path, "default_alias"), caller.default_alias, caller.aliases)
        for index, origin in enumerate(caller.origins):
            self._try((*path, "origins", index), _origin, origin)
        self._single_aliases((*path, "limits"), caller.limits, caller.aliases)

    def _single_aliases(self, path: Path, limits: KeyLimits, allowed: tuple[str, ...]) -> None:
        """The aliases that a caller has limits of its own for: known ones that it may use."""
        if not isinstance(limits, KeyLimits) or not isinstance(limits.aliases, dict):
            return
        mine = [name for name in allowed if _is_text(name)]
        for name in limits.aliases:
            at = (*path, "aliases", name)
            if not any(covering([name], alias) for alias in self._aliases) and not self._known_alias(
                at, name
            ):
                continue
            if "*" not in mine and not any(_overlap(name, one) for one in mine):
                self._report.warning(at, "this caller may not use this alias")

    def _default_alias(self, path: Path, name: str, allowed: tuple[str, ...]) -> None:
        if (
            self._known_alias(path, name)
            and name not in allowed
            and "*" not in allowed
            and not covering(filter(_is_text, allowed), name)
        ):
            self._report.problem(path, f'"{name}" is not among its aliases')

    def _known_alias(self, path: Path, name: str) -> bool:
        known = name in self._aliases or bool(covering(self._aliases, name))
        if not known:
            self._report.problem(path, f'unknown alias "{name}"{suggestion(name, self._aliases)}')
        return known

    def _key(self, path: Path, key: NamedGrant) -> None:
        self._once("id", key.id, (*path, "id"))
        if isinstance(key, Key):
            self._once("digest", key.digest, (*path, "digest"))
        self._caller(path, key)
        if key.expires is not None:
            self._expiry((*path, "expires"), key.expires)

    def _expiry(self, path: Path, text: str) -> None:
        try:
            if timestamp(text) <= time.time():
                self._report.warning(path, "this key has expired")
        except ValueError as error:
            self._report.problem(path, str(error))

    def _issuer(self, path: Path, issuer: Issuer) -> None:
        self._once("issuer", issuer.issuer, (*path, "issuer"))
        self._caller(path, issuer)
        given = [
            value
            for value in (issuer.secret, issuer.jwks_file, issuer.jwks_url, issuer.discovery or None)
            if value
        ]
        for name, plan in issuer.plans.items() if isinstance(issuer.plans, dict) else ():
            self._single_aliases((*path, "plans", name), plan, issuer.aliases)
        if len(given) != 1:
            if not any(
                self._report.has_problem_at((*path, name))
                for name in ("secret", "jwks_file", "jwks_url", "discovery")
            ):
                self._report.problem(path, "needs exactly one of secret, jwks_file, jwks_url and discovery")
            return
        if issuer.jwks_url is not None:
            self._try((*path, "jwks_url"), check_url, issuer.jwks_url)
        if issuer.discovery:
            self._try((*path, "issuer"), discoverable, issuer.issuer)
        if not isinstance(issuer.algorithms, tuple) or INVALID in issuer.algorithms:
            return
        if not issuer.algorithms:
            self._report.problem((*path, "algorithms"), "needs at least one algorithm")
        if is_remote(issuer):
            if problem := unfit(issuer.algorithms):
                self._report.problem((*path, "algorithms"), problem)
            return
        try:
            keys = issuer_keys(issuer)
        except ValueError as error:
            self._report.problem((*path, "jwks_file"), str(error))
            return
        if problem := unusable(issuer.algorithms, keys, by_secret=issuer.jwks_file is None):
            self._report.problem((*path, "algorithms"), problem)

    def _tokens(self, path: Path, tokens: BrowserTokens) -> None:
        if tokens.secret is not INVALID and len(tokens.secret.reveal().encode()) < SHORTEST_SECRET:
            self._report.problem((*path, "secret"), f"is too short: at least {SHORTEST_SECRET} bytes")
        if tokens.longest < 1:
            self._report.problem((*path, "longest"), "must be at least 1s")

    def _whole(self, config: Config) -> None:
        self._store(("state",), config.state, *CONVERSATIONS)
        self._store(("resume",), config.resume, *RESUME)
        if isinstance(config.responses, Responses) and config.responses.store is not None:
            self._store(("responses", "store"), config.responses.store, *CONVERSATIONS)
        check_records(config, self._report)
        self._bounds(config)
        self._unused(config)
        check_teams(config, self._report)
        check_tags(config, self._report)
        check_strategies(self._report.problem, config)
        self._addresses(config)
        self._development_key(config)
        self._demo(config)
        if (
            isinstance(config.server, Server)
            and isinstance(config.server.workers, int)
            and config.server.workers > 1
        ):
            for path, text in not_shared(config):
                self._report.warning(path, text)

    def _demo(self, config: Config) -> None:
        """The page at /demo asks for tokens in the name of a key, which must be able to mint them."""
        name = config.server.demo if isinstance(config.server, Server) else None
        if not isinstance(name, str) or not isinstance(config.keys, tuple):
            return
        key = next((key for key in config.keys if isinstance(key, Key) and key.id == name), None)
        at = ("server", "demo")
        if key is None:
            self._report.problem(at, f'no key has the id "{name}"')
        elif not key.origins or config.tokens is None:
            self._report.problem(
                at, "needs `tokens.secret`, and `origins` of its key: the page chats with a browser token"
            )

    def _bounds(self, config: Config) -> None:
        for name, declared in (("upstreams", self._upstreams), ("aliases", self._aliases)):
            if not declared and isinstance(getattr(config, name), dict):
                self._report.problem((name,), "needs at least one")

    def _addresses(self, config: Config) -> None:
        if not isinstance(config.limits, Limits) or not isinstance(config.server, Server):
            return
        if config.limits.address is not None and not config.server.trusted_proxies:
            text = "server.trusted_proxies is empty: behind a proxy or load balancer all callers count as one address"
            self._report.warning(("limits", "address"), text)

    def _development_key(self, config: Config) -> None:
        """The key that everybody knows lets in everybody who can reach the gateway."""
        server = config.server
        if not isinstance(server, Server):
            return
        if all(
            _on_loopback(listen) for listen in (server.listen, server.admin_listen) if isinstance(listen, str)
        ):
            return
        text = "this is the digest of the development key, which everybody knows: use it on 127.0.0.1 only (`sluice keys new`)"
        for index, key in enumerate(config.keys):
            if isinstance(key, Key) and key.digest in DEVELOPMENT_KEYS:
                self._report.problem(("keys", index, "digest"), text)
        if not isinstance(config.admin, Admin):
            return
        if config.admin.digest in DEVELOPMENT_KEYS:
            self._report.problem(("admin", "digest"), text)
        for index, one in enumerate(config.admin.keys):
            if isinstance(one, AdminKey) and one.digest in DEVELOPMENT_KEYS:
                self._report.problem(("admin", "keys", index, "digest"), text)

    def _unused(self, config: Config) -> None:
        for name in sorted(self._upstreams - self._used):
            self._report.warning(("upstreams", name), "no alias uses this upstream")
        if isinstance(config.admin, Admin) and config.admin.usable:  # keys can be made later
            return
        callers: list[Key | Issuer] = [
            caller for caller in (*config.keys, *config.jwt) if isinstance(caller, Key | Issuer)
        ]
        if not config.keys and not config.jwt:
            self._report.warning((), "no keys and no jwt: nobody can call this gateway (`sluice keys new`)")
            return
        if not config.jwt:  # an issuer's tokens name theirs
            owners = {key.owner for key in config.keys if isinstance(key, Key)}
            for name in sorted(set(config.tenants) - owners if isinstance(config.tenants, dict) else ()):
                self._report.warning(("tenants", name), f"no key has this tenant{suggestion(name, owners)}")
        allowed = {name for caller in callers for name in caller.aliases if _is_text(name)}
        unnamed = {name for name in self._aliases - allowed if not covering(allowed, name)}
        unnamed -= {covering(self._aliases, name) for name in allowed}
        for name in sorted(unnamed if "*" not in allowed else ()):
            self._report.warning(("aliases", name), "no key may use this alias")
        if config.tokens is not None and not any(key.origins for key in config.keys if isinstance(key, Key)):
            self._report.warning(("tokens",), "no key has origins, so none can mint a token")


def not_shared(config: Config) -> Iterator[tuple[Path, str]]:
    """Yields the options that several workers would not share: their place, and the consequence."""
    state = config.state.reveal() if isinstance(config.state, Secret) else ""
    if state == "memory":
        yield (
            ("state",),
            "each worker keeps its own conversations: a turn that another worker answers does not know them",
        )
    elif state.startswith("sqlite:"):
        yield ("state",), "turns of one session at two workers at once are not put in order"
    aliases = config.aliases.values() if isinstance(config.aliases, dict) else ()
    resumable = [alias for alias in aliases if isinstance(alias, Alias) and alias.resumable]
    if resumable and isinstance(config.resume, Secret) and config.resume.reveal() == "memory":
        yield ("resume",), "a stream can only be resumed at the worker that began it: use a redis:// URL"
    if isinstance(config.responses, Responses) and config.responses.store == "memory":
        yield (
            ("responses", "store"),
            "each worker keeps its own responses: use sqlite:PATH, redis:// or postgresql://",
        )


def _on_loopback(listen: str) -> bool:
    """Returns whether only this machine can reach a listener; an address that cannot be read has its own
    problem."""
    if listen.startswith("unix:"):
        return True
    try:
        host, _ = address(listen)
    except ValueError:
        return True
    return host.lower() in ("localhost", "::1") or host.startswith("127.")


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


def _origin(text: str) -> None:
    scheme, separator, host = text.partition("://")
    if (
        not separator
        or not scheme.isalnum()
        or not host
        or any(c in "/?#*@ " for c in host)
        or text != text.lower()
    ):
        raise ValueError("expected an exact origin in lower case, such as https://app.example.com")


def _overlap(one: str, other: str) -> bool:
    """Returns whether two names of aliases, each perhaps with * at its end, have a name in common."""
    return one == other or bool(covering([one], other) or covering([other], one))


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _unwanted(target: object) -> bool:
    return isinstance(target, Target) and target.weight == 0 and target.canary is None

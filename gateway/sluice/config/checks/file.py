"""Checks that need the whole file: declared but unused names, options that let in more people than intended,
and options that several workers would not share."""

from collections.abc import Iterator, Set

from sluice.config.listening import on_loopback
from sluice.config.problems import Path, Report, suggestion
from sluice.config.types import (
    Admin,
    AdminKey,
    Alias,
    Config,
    Issuer,
    Key,
    Limits,
    Responses,
    Server,
    covering,
)
from sluice.config.units import Secret

DEVELOPMENT_KEYS = frozenset({"sha256:f54ca937b7efefe972b761a7b8dc7dd477c073770dec53b33fe59a66f6ef9a9f"})
"""The digest of sk-sluice-dev, the key of config/gateway.dev.yaml. The key is public, so the comparison
reveals nothing."""


def check_demo(config: Config, report: Report) -> None:
    """Checks the key of the page at /demo, which must be able to make browser tokens."""
    name = config.server.demo if isinstance(config.server, Server) else None
    if not isinstance(name, str) or not isinstance(config.keys, tuple):
        return
    key = next((key for key in config.keys if isinstance(key, Key) and key.id == name), None)
    at = ("server", "demo")
    if key is None:
        report.problem(at, f'no key has the id "{name}"')
    elif not key.origins or config.tokens is None:
        report.problem(
            at, "needs `tokens.secret`, and `origins` of its key: the page chats with a browser token"
        )


def check_address_limit(config: Config, report: Report) -> None:
    """Warns of a limit by address if all callers would have the address of one proxy."""
    if not isinstance(config.limits, Limits) or not isinstance(config.server, Server):
        return
    if config.limits.address is not None and not config.server.trusted_proxies:
        text = "server.trusted_proxies is empty: behind a proxy or load balancer all callers count as one address"
        report.warning(("limits", "address"), text)


def check_development_key(config: Config, report: Report) -> None:
    """Warns of the development key: it is public, so it lets in everybody who can reach the gateway."""
    server = config.server
    if not isinstance(server, Server):
        return
    if all(on_loopback(listen) for listen in (server.listen, server.admin_listen) if isinstance(listen, str)):
        return
    text = "this is the digest of the development key, which everybody knows: use it on 127.0.0.1 only (`sluice keys new`)"
    for index, key in enumerate(config.keys):
        if isinstance(key, Key) and key.digest in DEVELOPMENT_KEYS:
            report.problem(("keys", index, "digest"), text)
    if not isinstance(config.admin, Admin):
        return
    if config.admin.digest in DEVELOPMENT_KEYS:
        report.problem(("admin", "digest"), text)
    for index, admin_key in enumerate(config.admin.keys):
        if isinstance(admin_key, AdminKey) and admin_key.digest in DEVELOPMENT_KEYS:
            report.problem(("admin", "keys", index, "digest"), text)


def check_unused(config: Config, report: Report, *, aliases: Set[str]) -> None:
    """Warns of aliases and tenants that no key leads to, and of a file that lets nobody in."""
    if isinstance(config.admin, Admin) and config.admin.usable:  # keys can be made later
        return
    callers: list[Key | Issuer] = [
        caller for caller in (*config.keys, *config.jwt) if isinstance(caller, Key | Issuer)
    ]
    if not config.keys and not config.jwt:
        report.warning((), "no keys and no jwt: nobody can call this gateway (`sluice keys new`)")
        return
    if not config.jwt:  # an issuer's tokens name theirs
        owners = {key.owner for key in config.keys if isinstance(key, Key)}
        for name in sorted(set(config.tenants) - owners if isinstance(config.tenants, dict) else ()):
            report.warning(("tenants", name), f"no key has this tenant{suggestion(name, owners)}")
    allowed = {name for caller in callers for name in caller.aliases if isinstance(name, str)}
    unnamed = {name for name in aliases - allowed if not covering(allowed, name)}
    unnamed -= {covering(aliases, name) for name in allowed}
    for name in sorted(unnamed if "*" not in allowed else ()):
        report.warning(("aliases", name), "no key may use this alias")
    if config.tokens is not None and not any(key.origins for key in config.keys if isinstance(key, Key)):
        report.warning(("tokens",), "no key has origins, so none can mint a token")


def not_shared(config: Config) -> Iterator[tuple[Path, str]]:
    """Yields the options that several workers would not share: their path, and the consequence."""
    state = config.state.reveal() if isinstance(config.state, Secret) else ""
    if state == "memory":
        yield (
            ("state",),
            "each worker keeps its own conversations: a turn that another worker answers does not know them",
        )
    aliases = config.aliases.values() if isinstance(config.aliases, dict) else ()
    resumable = [alias for alias in aliases if isinstance(alias, Alias) and alias.resumable]
    if resumable and isinstance(config.resume, Secret) and config.resume.reveal() == "memory":
        yield ("resume",), "a stream can only be resumed at the worker that began it: use a redis:// URL"
    if isinstance(config.responses, Responses) and config.responses.store == "memory":
        yield (
            ("responses", "store"),
            "each worker keeps its own responses: use sqlite:PATH, redis:// or postgresql://",
        )

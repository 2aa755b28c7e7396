"""Checks who may call: keys, issuers of JWTs, browser tokens."""

import time
from collections.abc import Collection

from sluice.config.checks.admin import discoverable
from sluice.config.problems import Path, Report, suggestion
from sluice.config.types import BrowserTokens, Issuer, Key, KeyLimits, NamedGrant, covering
from sluice.config.validation import INVALID
from sluice.identity.browser import MIN_SECRET_BYTES
from sluice.identity.jwks import check_url, is_remote, issuer_keys, unfit, unusable
from sluice.identity.keys import timestamp


class CallerChecks:
    """Checks callers. `aliases` are the names that the file declares. Ids, digests and issuers must be unique
    over all sections."""

    def __init__(self, report: Report, aliases: Collection[str]) -> None:
        self._report = report
        self._aliases = aliases
        self._first: dict[tuple[str, str], Path] = {}

    def key(self, path: Path, key: NamedGrant) -> None:
        self._once("id", key.id, (*path, "id"))
        if isinstance(key, Key):
            self._once("digest", key.digest, (*path, "digest"))
        self._caller(path, key)
        if key.expires is not None:
            self._expiry((*path, "expires"), key.expires)

    def issuer(self, path: Path, issuer: Issuer) -> None:
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
            self._report.attempt((*path, "jwks_url"), check_url, issuer.jwks_url)
        if issuer.discovery:
            self._report.attempt((*path, "issuer"), discoverable, issuer.issuer)
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

    def tokens(self, path: Path, tokens: BrowserTokens) -> None:
        if tokens.secret is not INVALID and len(tokens.secret.reveal().encode()) < MIN_SECRET_BYTES:
            self._report.problem((*path, "secret"), f"is too short: at least {MIN_SECRET_BYTES} bytes")
        if tokens.longest < 1:
            self._report.problem((*path, "longest"), "must be at least 1s")

    def _caller(self, path: Path, caller: NamedGrant | Issuer) -> None:
        """Checks the common part of keys and issuers: the aliases and the origins that they allow."""
        for index, name in enumerate(caller.aliases):
            if isinstance(name, str) and name != "*":
                self._known_alias((*path, "aliases", index), name)
        if caller.default_alias is not None:
            self._default_alias((*path, "default_alias"), caller.default_alias, caller.aliases)
        for index, origin in enumerate(caller.origins):
            self._report.attempt((*path, "origins", index), _origin, origin)
        self._single_aliases((*path, "limits"), caller.limits, caller.aliases)

    def _single_aliases(self, path: Path, limits: KeyLimits, allowed: tuple[str, ...]) -> None:
        """Checks the aliases for which a caller has limits of its own: they must exist, and the caller must
        be allowed to use them."""
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

    def _expiry(self, path: Path, text: str) -> None:
        try:
            if timestamp(text) <= time.time():
                self._report.warning(path, "this key has expired")
        except ValueError as error:
            self._report.problem(path, str(error))

    def _once(self, kind: str, value: object, path: Path) -> None:
        if not isinstance(value, str):
            return
        if (first := self._first.setdefault((kind, value), path)) != path:
            where = self._report.line_of(first)
            self._report.problem(path, f"the same {kind} stands in line {where} already")


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

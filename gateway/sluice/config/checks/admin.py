"""Checks of the admin API's options beyond their types: distinct keys, and a usable OpenID provider."""

from urllib.parse import urlsplit

from sluice.config.problems import Path, Report
from sluice.config.types import Admin, AdminKey, Oidc, OidcRoles
from sluice.config.validation import INVALID
from sluice.identity.jwks import check_url, unfit

CALLBACK = "/ui/oidc/callback"
"""The end of the path of `redirect_uri`."""


def check_admin(report: Report, path: Path, admin: Admin) -> None:
    """Reports the problems of a section `admin`, except for its store."""
    if isinstance(admin.keys, tuple):
        _keys(report, (*path, "keys"), admin)
    if isinstance(admin.oidc, Oidc):
        _oidc(report, (*path, "oidc"), admin.oidc)
        if not admin.ui:
            report.warning((*path, "oidc"), "nobody can sign in: there are no pages without `ui: true`")


def discoverable(text: str) -> None:
    """Raises ValueError if this issuer cannot have a discovery document (OpenID Connect Discovery 1.0 section
    4)."""
    check_url(text)
    if "?" in text:
        raise ValueError("has a query, so nothing can be discovered below it")


def _keys(report: Report, path: Path, admin: Admin) -> None:
    ids: set[str] = {"admin"} if isinstance(admin.digest, str) else set()
    digests = {admin.digest} if isinstance(admin.digest, str) else set()
    for index, key in enumerate(admin.keys):
        if not isinstance(key, AdminKey):
            continue
        if isinstance(key.id, str):
            if key.id in ids:
                more = " (it is what admin.digest's is called)" if key.id == "admin" else ""
                report.problem((*path, index, "id"), f'the id "{key.id}" is taken{more}')
            ids.add(key.id)
        if isinstance(key.digest, str):
            if key.digest in digests:
                report.problem((*path, index, "digest"), "is another admin key's, too: each has one role")
            digests.add(key.digest)


def _oidc(report: Report, path: Path, oidc: Oidc) -> None:
    _try(report, (*path, "issuer"), oidc.issuer, discoverable)
    if oidc.client_id == "":
        report.problem((*path, "client_id"), "must not be empty")
    if isinstance(oidc.scopes, tuple) and INVALID not in oidc.scopes:
        if "openid" not in oidc.scopes:
            report.problem((*path, "scopes"), "openid must be among them: without it no ID token is given")
        if any(
            not scope or not scope.isascii() or not scope.isprintable() or " " in scope
            for scope in oidc.scopes
        ):
            report.problem((*path, "scopes"), "each must be one word, such as email")
    known = isinstance(oidc.algorithms, tuple) and INVALID not in oidc.algorithms
    if known and (problem := unfit(oidc.algorithms) if oidc.algorithms else "needs at least one algorithm"):
        report.problem((*path, "algorithms"), problem)
    if oidc.redirect_uri is not None:
        _try(report, (*path, "redirect_uri"), oidc.redirect_uri, _callback)
    if isinstance(oidc.roles, OidcRoles) and oidc.roles.viewer == () and oidc.roles.operator == ():
        report.problem(
            (*path, "roles"),
            "nobody is let in: write roles: { claim: groups, viewer: [NAME], operator: [NAME] }",
        )


def _callback(text: str) -> None:
    check_url(text)
    if not urlsplit(text).path.endswith(CALLBACK) or "?" in text:
        raise ValueError(f"must end with {CALLBACK}, such as https://ops.example.com{CALLBACK}")


def _try(report: Report, path: Path, text: object, check: object) -> None:
    if isinstance(text, str) and callable(check):
        try:
            check(text)
        except ValueError as error:
            report.problem(path, str(error))

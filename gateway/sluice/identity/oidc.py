"""Signing people in by an OpenID provider (OpenID Connect Core 1.0, authorization code flow), without the
network.

The browser is sent to the provider with a state, a nonce and a PKCE challenge (RFC 7636, S256), all made from
one secret in a cookie of its own. It comes back with a code; `sluice.identity.provider` exchanges that for an
ID token, whose claims say who somebody is and in which role. The advice of RFC 9700 (OAuth 2.0 Security Best
Current Practice) is followed throughout.
"""

import base64
import hashlib
import hmac
import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal
from urllib.parse import quote, urlencode

import msgspec

from sluice.config.types import Oidc, OidcRoles, Role
from sluice.errors import Unauthorized
from sluice.identity.jwks import Jwk, check_url
from sluice.identity.jwt import key_of, verify
from sluice.identity.operators import Operator

LEEWAY = 30.0
"""Seconds that clocks may differ by."""
SIGN_IN_SECONDS = 600
"""Seconds that somebody has for signing in at the provider."""
MAX_NAME_LENGTH = 128
MAX_TOKEN_LENGTH = 64 << 10
MAX_CLAIM_VALUES = 10_000
"""Maximum values of a claim: a member of more groups is not recognized by the further ones."""

Reason = Literal["expired", "denied", "provider", "token", "role"]
"""Why somebody was not signed in.

expired    the attempt is not this browser's, or too old
refused    the provider, or the person, refused
provider   the provider cannot be asked, or its answer cannot be used
token      the code is not one of the provider's, or its ID token is not valid
role       the claims give no role
"""

_json = msgspec.json.Encoder().encode


class SignInFailed(Exception):
    """`detail` is for the log: one of the gateway's own words, never anything that was received."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: Reason = reason
        self.detail = detail


class Metadata(msgspec.Struct, frozen=True):
    """The fields used of OpenID Provider Metadata (Discovery 1.0 section 3; RFC 9207 for the last one)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None = None
    end_session_endpoint: str | None = None
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)
    authorization_response_iss_parameter_supported: bool = False


def metadata_of(data: bytes, issuer: str) -> Metadata:
    """Parses the provider's document. Raises ValueError if it is not this issuer's, or names addresses that
    are not protected."""
    try:
        found = msgspec.json.decode(data, type=Metadata)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("not_metadata") from None
    if found.issuer != issuer:
        raise ValueError("wrong_issuer")
    required = (found.authorization_endpoint, found.token_endpoint, found.jwks_uri)
    for url in (*required, found.userinfo_endpoint, found.end_session_endpoint):
        if url is None:
            continue
        check_url(url)
        if issuer.startswith("https:") and not url.startswith("https:"):
            raise ValueError("not_https")
    return found


class Flow(msgspec.Struct, frozen=True):
    """One attempt to sign in, as both sides know it. `ticket`: the value of the browser's cookie."""

    ticket: str
    state: str
    nonce: str
    verifier: str
    redirect_uri: str

    @property
    def challenge(self) -> str:
        """RFC 7636 section 4.2, S256."""
        return _text(hashlib.sha256(self.verifier.encode()).digest())


class _Ticket(msgspec.Struct, frozen=True, array_like=True):
    secret: str
    expires: int
    redirect_uri: str


_ticket = msgspec.json.Decoder(_Ticket).decode


class Flows:
    """Begins attempts, and recognizes them by the browser's cookie, so that no process has to keep them.

    `seed` is secret, and the same in all processes (and replicas) of a gateway; `wall` gives seconds since
    the epoch.
    """

    def __init__(self, seed: bytes, oidc: Oidc, wall: Callable[[], float]) -> None:
        self._secret = hmac.digest(seed, _json(["sluice oidc", oidc.issuer, oidc.client_id]), "sha256")
        self._wall = wall

    def begin(self, redirect_uri: str) -> Flow:
        return self._of(_Ticket(secrets.token_urlsafe(32), int(self._wall()) + SIGN_IN_SECONDS, redirect_uri))

    def back(self, ticket: str, state: str) -> Flow:
        """Returns the attempt of a browser with this cookie that comes back with this state. Raises
        SignInFailed("expired")."""
        content, _, _ = ticket.partition(".")
        try:
            found = _ticket(
                base64.b64decode(content + "=" * (-len(content) % 4), altchars=b"-_", validate=True)
            )
        except (ValueError, msgspec.DecodeError):
            raise SignInFailed("expired", "no_ticket") from None
        flow = self._of(found)
        if not hmac.compare_digest(flow.ticket.encode(), ticket.encode("utf-8", "replace")):
            raise SignInFailed("expired", "forged_ticket")
        if not hmac.compare_digest(flow.state.encode(), state.encode("utf-8", "replace")):
            raise SignInFailed("expired", "wrong_state")
        if self._wall() >= found.expires:
            raise SignInFailed("expired", "late")
        return flow

    def _of(self, ticket: _Ticket) -> Flow:
        content = _text(_json(ticket))
        made = {name: self._made(name, ticket.secret) for name in ("state", "nonce", "verifier")}
        return Flow(f"{content}.{self._made('ticket', content)}", redirect_uri=ticket.redirect_uri, **made)

    def _made(self, purpose: str, text: str) -> str:
        return _text(hmac.digest(self._secret, f"{purpose} {text}".encode(), "sha256"))


def authorization_url(metadata: Metadata, oidc: Oidc, flow: Flow) -> str:
    """Returns the URL that the browser is sent to (Core 1.0 section 3.1.2.1)."""
    query = {
        "response_type": "code",
        "client_id": oidc.client_id,
        "redirect_uri": flow.redirect_uri,
        "scope": " ".join(oidc.scopes),
        "state": flow.state,
        "nonce": flow.nonce,
        "code_challenge": flow.challenge,
        "code_challenge_method": "S256",
    }
    url = metadata.authorization_endpoint
    return f"{url}{'&' if '?' in url else '?'}{urlencode(query, quote_via=quote)}"


def leaving_url(metadata: Metadata, oidc: Oidc) -> str | None:
    """Returns the provider's URL for signing out (RP-Initiated Logout 1.0); None if it has none."""
    url = metadata.end_session_endpoint
    return (
        None
        if url is None
        else f"{url}{'&' if '?' in url else '?'}{urlencode({'client_id': oidc.client_id})}"
    )


def check_issuer(metadata: Metadata, given: str | None) -> None:
    """Raises SignInFailed("provider") if the answer is not this provider's (RFC 9207 section 2.4).

    `given` is its parameter `iss`; None if there is none, which is refused where the metadata promises it.
    """
    if given is None and not metadata.authorization_response_iss_parameter_supported:
        return
    if given != metadata.issuer:
        raise SignInFailed("provider", "wrong_iss")


class _Claims(msgspec.Struct, frozen=True):
    iss: str
    sub: str
    aud: str | list[str]
    exp: float
    iat: float
    nonce: str | None = None
    azp: str | None = None
    nbf: float = float("-inf")


def claims_of(token: str, keys: Sequence[Jwk], oidc: Oidc, *, nonce: str, now: float) -> Mapping[str, Any]:
    """Returns the claims of an ID token after validating it as in Core 1.0 section 3.1.3.7. Raises
    SignInFailed("token")."""
    try:
        if len(token) > MAX_TOKEN_LENGTH:
            raise Unauthorized("bad_signature")
        payload = verify(token, key_of(token, keys), oidc.algorithms)
        claims = msgspec.json.decode(payload, type=_Claims)
        every: dict[str, Any] = msgspec.json.decode(payload, type=dict[str, Any])
    except Unauthorized as error:
        raise SignInFailed("token", error.reason) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise SignInFailed("token", "bad_claims") from None
    audience = [claims.aud] if isinstance(claims.aud, str) else claims.aud
    if claims.iss != oidc.issuer:
        raise SignInFailed("token", "wrong_issuer")
    if oidc.client_id not in audience or (len(audience) > 1 and claims.azp is None):
        raise SignInFailed("token", "wrong_audience")
    if claims.azp is not None and claims.azp != oidc.client_id:
        raise SignInFailed("token", "wrong_audience")
    if not all(map(math.isfinite, (claims.exp, claims.iat))) or claims.exp + LEEWAY <= now:
        raise SignInFailed("token", "expired")
    if max(claims.iat, claims.nbf) - LEEWAY > now:
        raise SignInFailed("token", "not_yet_valid")
    if claims.nonce is None or not hmac.compare_digest(
        claims.nonce.encode("utf-8", "replace"), nonce.encode()
    ):
        raise SignInFailed("token", "wrong_nonce")
    if not claims.sub:
        raise SignInFailed("token", "no_subject")
    return every


def operator_of(claims: Mapping[str, Any], roles: OidcRoles) -> Operator:
    """Returns the person with these claims. Raises SignInFailed("role") if the claims give no role.

    The claim `email` gives one only if `email_verified` is there and true (Core 1.0 section 5.1): elsewhere
    people may write any address into their profile, also an operator's (section 5.7).
    """
    unverified = roles.claim == "email" and "email" in claims and not _is_verified(claims)
    given = frozenset[str]() if unverified else _values(claims, roles.claim)
    role = next((role for role in _ROLES if _has(given, getattr(roles, role))), None)
    if role is None:
        raise SignInFailed("role", "email_not_verified" if unverified else "no_role")
    return Operator(_name(claims), role)


def has_claim(claims: Mapping[str, Any], name: str) -> bool:
    """Returns whether the claim that determines roles is present."""
    return _found(claims, name) is not None


_ROLES: tuple[Role, ...] = ("operator", "viewer")
"""The roles, the more powerful one first."""


def _has(given: frozenset[str], wanted: tuple[str, ...]) -> bool:
    return "*" in wanted or not given.isdisjoint(wanted)


def _values(claims: Mapping[str, Any], name: str) -> frozenset[str]:
    found = _found(claims, name)
    if isinstance(found, str):
        return frozenset((found,))
    return (
        frozenset(one for one in found[:MAX_CLAIM_VALUES] if isinstance(one, str))
        if isinstance(found, list)
        else frozenset()
    )


def _found(claims: Mapping[str, Any], name: str) -> Any:
    """Returns a claim by its name, which may contain dots (https://example.com/groups); otherwise by the path
    of names into objects."""
    if name in claims:
        return claims[name]
    found: Any = claims
    for piece in name.split("."):
        found = found.get(piece) if isinstance(found, dict) else None
    return found


def _name(claims: Mapping[str, Any]) -> str:
    """A user's name in the log: the e-mail address if the provider has verified it, else the subject."""
    email = claims.get("email")
    name = email if isinstance(email, str) and _is_verified(claims) else claims["sub"]
    return "".join(letter if letter.isprintable() else "?" for letter in str(name)[:MAX_NAME_LENGTH])


def _is_verified(claims: Mapping[str, Any]) -> bool:
    """Returns whether the provider says that it has verified the address. Userinfo of Amazon Cognito says it
    as text."""
    verified = claims.get("email_verified")
    return verified is True or verified == "true"


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")

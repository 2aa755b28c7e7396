"""Who may call: keys, issuers of JWTs, and browser tokens of web pages."""

from sluice.config.types.limits import KeyLimits
from sluice.config.types.values import Content, Digest, Name, Section
from sluice.config.units import Seconds, Secret


class Grant(Section, frozen=True):
    """The permissions and limits of a key, and when it expires."""

    aliases: tuple[str, ...] = ("*",)  # aliases that the caller may use; "*": all
    default_alias: str | None = None  # the alias of requests that name no model
    limits: KeyLimits = KeyLimits()  # limits of the caller
    origins: tuple[str, ...] = ()  # browser origins that may use the key, exact ("https://app.example.com")
    expires: str | None = None  # the time when it expires, in RFC 3339
    enabled: bool = True  # whether it is accepted
    log_content: Content | None = (
        None  # the most that call records and pages contain of its calls' texts; null: as the alias allows
    )


class NamedGrant(Grant, frozen=True, kw_only=True):
    """A key without the secret. `tenant` null: the key's id."""

    id: Name  # its name, in logs and reports
    tenant: Name | None = None  # the tenant that it belongs to; default: its id

    @property
    def owner(self) -> str:
        """The tenant that history and usage belong to."""
        return self.tenant or self.id


class Key(NamedGrant, frozen=True, kw_only=True):
    """A caller's key. The file has only its digest; `sluice keys new` prints both."""

    digest: Digest  # sha256:… of the key, as `sluice keys hash` prints it


class Claims(Section, frozen=True):
    """Names of claims. `aliases`: a list or a space-separated text; if a token lacks it, the issuer's
    aliases.

    `plan`: one of the issuer's `plans`; if a token lacks it or names another, the issuer's `limits` apply.
    `user`: the end user for `limits.end_users` with the source `token`.
    """

    tenant: str = "sub"  # the claim with the tenant
    aliases: str = "aliases"  # the claim with the aliases; null: none
    plan: str = "plan"  # the claim with the plan; null: none
    user: str = "sub"  # the claim with the end user


class Issuer(Section, frozen=True):
    """An issuer whose JWTs are accepted (RFC 7519). Exactly one of `secret`, `jwks_file`, `jwks_url` (RFC
    7517) and `discovery`.

    `discovery`: the address of the keys is read from the issuer's /.well-known/openid-configuration (OpenID
    Connect Discovery).

    The tenant of a token is `tenant_prefix` and the claim. The default prefix is the issuer and "|", so that
    an issuer cannot name tenants of keys or of other issuers; use "" if its tenants are meant to be the same
    as those of keys.
    """

    issuer: str  # the `iss` of its tokens
    audience: str  # the `aud` of its tokens
    algorithms: tuple[str, ...]  # accepted signature algorithms, such as RS256
    secret: Secret | None = None  # the secret of HS algorithms
    jwks_file: str | None = None  # a file with its keys (RFC 7517)
    jwks_url: str | None = None  # the URL of its keys
    discovery: bool = False  # whether its keys are found by OpenID Connect Discovery
    leeway: Seconds = Seconds(30)  # tolerated difference between clocks
    tenant_prefix: str | None = None  # prefix of tenants of its tokens; default: the issuer and |
    claims: Claims = Claims()  # names of the claims that are read
    aliases: tuple[str, ...] = ("*",)  # aliases that its tokens may use; "*": all
    default_alias: str | None = None  # the alias of requests that name no model
    limits: KeyLimits = KeyLimits()  # limits of a token without a plan
    plans: dict[Name, KeyLimits] = {}  # limits by the plan that a token names
    origins: tuple[str, ...] = ()  # browser origins that may use its tokens


class BrowserTokens(Section, frozen=True):
    """Browser tokens: a key with `origins` gets short-lived tokens for web pages from POST /v1/tokens. Each
    is bound to an origin, an alias and a session prefix.

    `longest`: the longest lifetime of a token. `renewable`: how long after its first token a page may get new
    ones; null: never.
    """

    secret: Secret  # the secret that signs tokens: 32 bytes or more
    longest: Seconds = Seconds(900)  # the longest lifetime of a token
    renewable: Seconds | None = Seconds(
        86400
    )  # how long after its first token a page may renew it; null: never

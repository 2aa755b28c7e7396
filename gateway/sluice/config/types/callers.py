"""The callers: keys, the issuers of JWTs, tokens of web pages."""

from sluice.config.types.limits import KeyLimits
from sluice.config.types.values import Content, Digest, Name, Section
from sluice.config.units import Seconds, Secret


class Grant(Section, frozen=True):
    """The permissions of a key, and when they end."""

    aliases: tuple[str, ...] = ("*",)  # aliases that may be used; "*": all
    default_alias: str | None = None  # the alias of requests that name none
    limits: KeyLimits = KeyLimits()  # what may be taken
    origins: tuple[str, ...] = ()  # browser origins that may use it, exact ("https://app.example.com")
    expires: str | None = None  # RFC 3339
    enabled: bool = True  # false: it is refused
    log_content: Content | None = (
        None  # what call records and pages may have of its calls' texts at most; null: what the alias's may
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


class Claims(Section, frozen=True):
    """Names of claims: `tenant` (default: sub), `aliases` (a list or a space-separated text; absent: the
    issuer's).

    `plan` names one of the issuer's `plans`; absent, or another: the issuer's `limits`. `user` is who
    `limits.end_users` are told apart by, with the source `token`.
    """

    tenant: str = "sub"  # the claim of the tenant
    aliases: str = "aliases"  # the claim of the aliases; null: none
    plan: str = "plan"  # the claim of the plan; null: none
    user: str = "sub"  # the claim of the end user


class Issuer(Section, frozen=True):
    """An issuer whose JWTs are accepted (RFC 7519). Exactly one of `secret`, `jwks_file`, `jwks_url` (RFC
    7517) and `discovery`.

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


class BrowserTokens(Section, frozen=True):
    """POST /v1/tokens: a key with `origins` mints tokens for pages, bound to an origin, an alias and a
    session prefix.

    `longest`: how long one can live. `renewable`: for how long after it was minted a page can renew it; null:
    never.
    """

    secret: Secret  # what tokens are signed with: 32 bytes or more
    longest: Seconds = Seconds(900)  # the longest life of a token
    renewable: Seconds | None = Seconds(86400)  # how long after its first token a page may renew

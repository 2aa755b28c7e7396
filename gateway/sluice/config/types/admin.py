"""Access to the admin API and its pages."""

from typing import Literal

from sluice.config.types.values import Digest, Name, Section
from sluice.config.units import Secret, SessionKey

Role = Literal["viewer", "operator"]
"""What somebody may do by the admin API: look (but at nobody's conversations), or everything."""


class AdminKey(Section, frozen=True):
    """A further key of the admin API, sent as x-admin-api-key. A viewer reads, but no conversations; an
    operator does all."""

    id: Name  # what the log calls it
    digest: Digest  # sha256:… of the key, as `sluice keys hash` prints it
    role: Role  # viewer or operator


class OidcRoles(Section, frozen=True):
    """Roles of people who sign in, by a claim of the ID token (or of userinfo): a value, or one of a list.
    Nobody else is let in.

    `claim` may lead into an object: realm_access.roles. `email` counts only with `email_verified` true. "*"
    among the values is anybody whom the provider signs in.
    """

    claim: str = "groups"  # the claim, or a path to it such as realm_access.roles
    viewer: tuple[str, ...] = ()  # values of the claim that make a viewer; "*": anybody who signs in
    operator: tuple[str, ...] = ()  # values of the claim that make an operator; "*": anybody who signs in


class Oidc(Section, frozen=True):
    """Signing in to the pages by an OpenID provider: authorization code with PKCE (OpenID Connect Core 1.0,
    RFC 7636).

    To be registered there: the pages' address and /ui/oidc/callback, such as
    https://ops.example.com/ui/oidc/callback.
    """

    issuer: str  # the provider's issuer, whose /.well-known/openid-configuration is read
    client_id: str  # what the provider calls this gateway
    client_secret: Secret | None = (
        None  # the client's secret; null: a public client, which PKCE alone protects
    )
    scopes: tuple[str, ...] = (
        "openid",
        "profile",
        "email",
    )  # scopes that are asked for; openid must be among them
    algorithms: tuple[str, ...] = ("RS256",)  # signatures of ID tokens that are accepted
    redirect_uri: str | None = (
        None  # the callback's address as browsers see it; null: by the address of the page
    )
    name: str | None = None  # what the button to sign in calls the provider; null: its host
    roles: OidcRoles = OidcRoles()  # who is let in, and in which role


class Admin(Section, frozen=True):
    """Access to /v1/admin and /admin: the digest of the key sent as x-admin-api-key. Without it those routes
    answer 401.

    `keys`: further keys, each with its role. `store`: where dynamic keys and usage are kept: "memory",
    "sqlite:PATH", a URL of Redis or a postgresql:// one; null: as `state`. `pepper`: dynamic keys are kept as
    HMAC-SHA-256 under it, else as SHA-256; another pepper invalidates all of them. `ui`: pages for operators
    on the admin port, under /ui/. `edit`: operators may read and write the configuration's file there.
    `session_key`: what their sessions are signed with, so that they hold at all replicas that have it and over
    restarts; null: they end with the gateway.
    """

    digest: Digest | None = None  # sha256:… of an operator's key; null: see keys, oidc
    keys: tuple[AdminKey, ...] = ()  # further keys, of viewers and operators
    store: Secret | None = None  # where dynamic keys and usage are kept; default: as state
    pepper: Secret | None = None  # a secret that dynamic keys' digests are made with
    ui: bool = False  # pages on the admin port, under /ui/; people sign in with an admin key, or by oidc
    edit: bool = False  # operators may read and write this file by /admin/config/file and its page
    oidc: Oidc | None = None  # signing in to the pages by an OpenID provider
    session_key: SessionKey | None = None  # 32 random bytes in base64, for all replicas; null: drawn by lot

    @property
    def usable(self) -> bool:
        """Whether anybody at all may use the admin API."""
        return self.digest is not None or bool(self.keys) or self.oidc is not None

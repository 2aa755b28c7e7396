"""Access to the admin API and its pages."""

from typing import Literal

from sluice.config.types.values import Digest, Name, Section
from sluice.config.units import Secret, SessionKey

Role = Literal["viewer", "operator"]
"""What somebody may do by the admin API: a viewer may read, except conversations; an operator may do
everything."""


class AdminKey(Section, frozen=True):
    """A further key of the admin API, sent as x-admin-api-key. A viewer may read everything but
    conversations; an operator may do everything."""

    id: Name  # its name in the log
    digest: Digest  # sha256:… of the key, as `sluice keys hash` prints it
    role: Role  # viewer or operator


class OidcRoles(Section, frozen=True):
    """Roles of people who sign in, by a claim of the ID token (or of userinfo), which is a value or a list of
    values. People without any of these values are refused.

    `claim` may lead into an object: realm_access.roles. `email` counts only with `email_verified` true. The
    value "*" matches everybody who signs in at the provider.
    """

    claim: str = "groups"  # the claim, or a path to it such as realm_access.roles
    viewer: tuple[str, ...] = ()  # values of the claim that make a viewer; "*": anybody who signs in
    operator: tuple[str, ...] = ()  # values of the claim that make an operator; "*": anybody who signs in


class Oidc(Section, frozen=True):
    """Signing in to the pages by an OpenID provider: authorization code with PKCE (OpenID Connect Core 1.0,
    RFC 7636).

    Register this callback URL at the provider: the pages' address and /ui/oidc/callback, such as
    https://ops.example.com/ui/oidc/callback.
    """

    issuer: str  # the provider's issuer, whose /.well-known/openid-configuration is read
    client_id: str  # the id of this gateway at the provider
    client_secret: Secret | None = (
        None  # the secret of client_id; null: a public client, protected by PKCE alone
    )
    scopes: tuple[str, ...] = (
        "openid",
        "profile",
        "email",
    )  # scopes that are requested; openid must be among them
    algorithms: tuple[str, ...] = ("RS256",)  # accepted signature algorithms of ID tokens
    redirect_uri: str | None = (
        None  # the callback's URL as browsers see it; null: derived from the page's address
    )
    name: str | None = None  # the provider's name on the sign-in button; null: its host
    roles: OidcRoles = OidcRoles()  # who may sign in, and in which role


class Admin(Section, frozen=True):
    """Access to /v1/admin and /admin. `digest`: of the key that is sent as x-admin-api-key. If neither
    `digest`, `keys` nor `oidc` is set, these routes answer 401.

    `keys`: further keys, each with its role. `store`: where dynamic keys and usage are kept: "memory",
    "sqlite:PATH", a URL of Redis or a postgresql:// one; null: as `state`. `pepper`: dynamic keys are stored
    as HMAC-SHA-256 with this key, else as SHA-256; changing it invalidates all of them. `ui`: pages for
    operators on the admin port, under /ui/. `edit`: operators may read and write the configuration's file
    there. `session_key`: the key that signs sessions of the pages, so that they are valid at all replicas
    with the same key and after restarts; null: sessions end when the gateway is restarted.
    """

    digest: Digest | None = None  # sha256:… of an operator's key; null: see keys, oidc
    keys: tuple[AdminKey, ...] = ()  # further keys, of viewers and operators
    store: Secret | None = None  # where dynamic keys and usage are kept; default: as state
    pepper: Secret | None = None  # a secret key for the digests of dynamic keys
    ui: bool = False  # pages on the admin port, under /ui/; people sign in with an admin key, or by oidc
    edit: bool = False  # operators may read and write this file by /admin/config/file and its page
    oidc: Oidc | None = None  # signing in to the pages by an OpenID provider
    session_key: SessionKey | None = (
        None  # 32 random bytes in base64, for all replicas; null: random, until a restart
    )

    @property
    def usable(self) -> bool:
        """Whether anybody at all may use the admin API."""
        return self.digest is not None or bool(self.keys) or self.oidc is not None

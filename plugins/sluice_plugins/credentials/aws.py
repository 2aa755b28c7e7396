"""AWS credentials: sign each request (Signature Version 4) with access keys from the sources that AWS's own
SDKs use.

`source: auto` tries the sources in the SDKs' order: keys in the options, the environment (unless a profile is
named), web identity, the profile's files, the container's endpoint (ECS, EKS Pod Identity), the endpoint of
the EC2 instance (IMDSv2). A profile that assumes a role, runs a process or signs in by SSO is not supported
and refused with an error: use another source, or credentials of the kind `exec`.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import ClassVar, Literal

import msgspec

from sluice.backends.credentials import CredentialFailed, Setting, lines_of
from sluice.backends.transport import UpstreamRequest
from sluice.config.types import Secret
from sluice.wire.sigv4 import AwsKeys, Signer
from sluice_plugins.credentials.aws_sources import AwsSources
from sluice_plugins.credentials.refreshing import Fresh, Refreshed

Source = Literal["auto", "environment", "web_identity", "profile", "container", "instance"]

_REGION = re.compile(r"[.-](?P<region>[a-z]{2}(?:-[a-z]{2,12}){1,3}-[0-9]{1,2})\.")
_NAME = re.compile(r"[a-z0-9-]+")


class Aws(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Access keys of AWS."""

    region: str | None = None  # the region in signatures; null: that of base_url, else AWS_REGION
    service: str | None = None  # the service in signatures; null: the backend's (bedrock)
    source: Source = (
        "auto"  # where keys come from: auto, environment, web_identity, profile, container or instance
    )
    profile: str | None = None  # the profile of ~/.aws; null: AWS_PROFILE, else default
    access_key_id: Secret | None = None  # an access key in the configuration, as ${VAR} or ${file:/path}
    secret_access_key: Secret | None = None  # the secret of access_key_id
    session_token: Secret | None = None  # the session token of access_key_id, for temporary keys

    SERVICE: ClassVar[str] = "bedrock"

    def __post_init__(self) -> None:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("access_key_id and secret_access_key go together")
        if self.session_token is not None and self.access_key_id is None:
            raise ValueError("session_token needs access_key_id and secret_access_key")
        for name in (self.region, self.service):
            if name is not None and not _NAME.fullmatch(name):
                raise ValueError(
                    "region and service are letters, digits and hyphens, such as us-east-1 and bedrock"
                )

    def check(self, backend: object, environ: Mapping[str, str]) -> None:
        region_of(self, backend, environ)
        if self.source == "profile" or (self.profile is not None and self.access_key_id is None):
            try:
                AwsSources(self.profile, "us-east-1", environ, None).of_profile()
            except CredentialFailed as error:
                raise ValueError(str(error)) from None

    def open(self, setting: Setting) -> "Signed":
        region = region_of(self, setting.backend, setting.environ)
        service = self.service or str(getattr(setting.backend, "aws_service", self.SERVICE))
        return Signed(Signer(region, service), Refreshed(self._fetch_of(region, setting), setting), setting)

    def _fetch_of(self, region: str, setting: Setting) -> Callable[[], Awaitable[Fresh[AwsKeys]]]:
        sources = AwsSources(self.profile, region, setting.environ, setting.fetch)
        if self.access_key_id is None or self.secret_access_key is None:
            return lambda: sources.keys(self.source)
        token = self.session_token.reveal() if self.session_token is not None else ""
        keys = AwsKeys(self.access_key_id.reveal(), self.secret_access_key.reveal(), token)

        async def own() -> Fresh[AwsKeys]:
            return Fresh(keys)

        return own


def region_of(options: Aws, backend: object, environ: Mapping[str, str]) -> str:
    """Returns the region to sign for. Raises ValueError if none is configured."""
    found = _REGION.search(getattr(backend, "base_url", "") or "")
    region = options.region or (found["region"] if found else "") or getattr(backend, "region", None)
    region = region or environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    if not region or not _NAME.fullmatch(str(region)):
        raise ValueError("no region: write region, or set AWS_REGION")
    return str(region)


def _check_sendable(keys: AwsKeys) -> None:
    """Raise ValueError for keys with characters that a header must not contain."""
    lines_of((("x-amz-security-token", keys.token), ("authorization", keys.access_key)))


class Signed:
    """Signs each request with the current keys."""

    fields = frozenset({"authorization", "x-amz-date", "x-amz-security-token"})

    def __init__(self, signer: Signer, keys: Refreshed[AwsKeys], setting: Setting) -> None:
        self._signer = signer
        self._keys = keys
        self._wall = setting.wall
        keys.check = _check_sendable
        keys.start()

    def sign_now(self, request: UpstreamRequest) -> bytes | None:
        keys = self._keys.now()
        if keys is None:
            return None
        content_type = next((value for name, value in request.headers if name.lower() == "content-type"), "")
        body = request.body if request.pieces is None else b"".join(request.pieces)
        headers = self._signer.headers(
            keys, request.method, request.url, body, at=self._wall(), content_type=content_type
        )
        return "".join([f"{name}: {value}\r\n" for name, value in headers]).encode("latin-1")

    async def ready(self) -> None:
        await self._keys.ready()

    async def renewed(self, lines: bytes) -> bool:
        refused = self._keys.held()
        if refused is not None and refused.access_key.encode() not in lines:
            return True
        await self._keys.renewed(refused)
        now = self._keys.now()
        return now is not None and now != refused

    def secrets(self) -> tuple[str, ...]:
        keys = self._keys.held()
        return () if keys is None else tuple(filter(None, (keys.access_key, keys.secret_key, keys.token)))

    async def close(self) -> None:
        await self._keys.close()

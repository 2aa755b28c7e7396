"""Reads AWS access keys from the sources that AWS's SDKs use.

    environment    AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN
    web identity   AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN, exchanged at STS
    profile        ~/.aws/credentials and ~/.aws/config (AWS_PROFILE, AWS_SHARED_CREDENTIALS_FILE, AWS_CONFIG_FILE)
    container      AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or _FULL_URI: ECS, EKS Pod Identity
    instance       IMDSv2 of an EC2 instance

https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html
"""

import asyncio
import configparser
import ipaddress
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import msgspec

from sluice.backends.credentials import CredentialFailed, Fetch
from sluice.backends.transport import Headers, UpstreamRequest
from sluice.wire.sigv4 import AwsKeys
from sluice_plugins.credentials.refreshing import Fresh

ECS = "http://169.254.170.2"
IMDS = "http://169.254.169.254"
SESSION = 21_600
"""Seconds that a session with IMDS lasts."""
MAX_FILE_BYTES = 1 << 20
"""Most bytes of a credentials file."""


class _Given(msgspec.Struct):
    """Access keys as the container's and the instance's endpoints return them."""

    access_key: str = msgspec.field(name="AccessKeyId", default="")
    secret_key: str = msgspec.field(name="SecretAccessKey", default="")
    token: str = msgspec.field(name="Token", default="")
    expiration: str = msgspec.field(name="Expiration", default="")


class AwsSources:
    """Reads access keys. `profile`: the configured name. `fetch`: sends requests; None: only sources on this
    machine are used."""

    def __init__(
        self, profile: str | None, region: str, environ: Mapping[str, str], fetch: Fetch | None
    ) -> None:
        self._profile = profile
        self._region = region
        self._environ = environ
        self._fetch = fetch

    async def keys(self, source: str) -> Fresh[AwsKeys]:
        """Returns keys of one source, or for "auto" of the first source that has any. Raises
        CredentialFailed."""
        match source:
            case "environment":
                return self.of_environment()
            case "web_identity":
                return await self.of_web_identity()
            case "profile":
                return await asyncio.to_thread(self.of_profile)
            case "container":
                return await self.of_container()
            case "instance":
                return await self.of_instance()
        return await self._first()

    async def _first(self) -> Fresh[AwsKeys]:
        environ = self._environ
        if self._profile is None and "AWS_ACCESS_KEY_ID" in environ:
            return self.of_environment()
        if self._profile is None and "AWS_WEB_IDENTITY_TOKEN_FILE" in environ:
            return await self.of_web_identity()
        try:
            return await asyncio.to_thread(self.of_profile)
        except CredentialFailed:
            if self._profile is not None or "AWS_PROFILE" in environ:
                raise
        if (
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI" in environ
            or "AWS_CONTAINER_CREDENTIALS_FULL_URI" in environ
        ):
            return await self.of_container()
        return await self.of_instance()

    # --- on this machine

    def of_environment(self) -> Fresh[AwsKeys]:
        environ = self._environ
        key, secret = environ.get("AWS_ACCESS_KEY_ID", ""), environ.get("AWS_SECRET_ACCESS_KEY", "")
        if not key or not secret:
            raise CredentialFailed("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set")
        return Fresh(AwsKeys(key, secret, environ.get("AWS_SESSION_TOKEN", "")))

    def of_profile(self) -> Fresh[AwsKeys]:
        """Reads both files of AWS's tools, blocking: call it in a thread."""
        name = self._profile or self._environ.get("AWS_PROFILE") or "default"
        config = self._section("AWS_CONFIG_FILE", "config", name if name == "default" else f"profile {name}")
        found = {**config, **self._section("AWS_SHARED_CREDENTIALS_FILE", "credentials", name)}
        key, secret = found.get("aws_access_key_id", ""), found.get("aws_secret_access_key", "")
        if "role_arn" in found and "web_identity_token_file" not in found:
            raise CredentialFailed(f'the profile "{name}" assumes a role, which is not supported here')
        if not key or not secret:
            other = next(
                (
                    option
                    for option in ("credential_process", "sso_session", "sso_start_url")
                    if option in found
                ),
                "",
            )
            why = f"uses {other}, which is not supported here" if other else "has no access key"
            raise CredentialFailed(f'the profile "{name}" {why}')
        return Fresh(AwsKeys(key, secret, found.get("aws_session_token", "")), None)

    def _section(self, variable: str, file: str, name: str) -> Mapping[str, str]:
        path = Path(self._environ.get(variable) or Path(self._environ.get("HOME") or "/root", ".aws", file))
        parser = configparser.RawConfigParser()
        try:
            parser.read_string(_text(path))
        except OSError:
            return {}
        except (configparser.Error, UnicodeDecodeError):
            raise CredentialFailed(f"{path} cannot be understood") from None
        return dict(parser.items(name)) if parser.has_section(name) else {}

    # --- over the network

    async def of_web_identity(self) -> Fresh[AwsKeys]:
        environ = self._environ
        role, path = environ.get("AWS_ROLE_ARN", ""), environ.get("AWS_WEB_IDENTITY_TOKEN_FILE", "")
        if not role or not path:
            raise CredentialFailed("AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE are not set")
        try:
            token = (await asyncio.to_thread(_text, Path(path))).strip()
        except (OSError, UnicodeDecodeError):
            raise CredentialFailed(f"cannot read {path}") from None
        form = {
            "Action": "AssumeRoleWithWebIdentity",
            "Version": "2011-06-15",
            "RoleArn": role,
            "RoleSessionName": environ.get("AWS_ROLE_SESSION_NAME") or "sluice",
            "WebIdentityToken": token,
        }
        headers = (("content-type", "application/x-www-form-urlencoded"), ("accept", "text/xml"))
        body = await self._fetched("POST", self._sts(), headers, urlencode(form).encode())
        text = body.decode("utf-8", "replace")
        found = {
            name: _element(text, name)
            for name in ("AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration")
        }
        given = _Given(
            found["AccessKeyId"], found["SecretAccessKey"], found["SessionToken"], found["Expiration"]
        )
        return _keys(given, "STS")

    def _sts(self) -> str:
        environ = self._environ
        own = environ.get("AWS_ENDPOINT_URL_STS") or environ.get("AWS_ENDPOINT_URL")
        suffix = "amazonaws.com.cn" if self._region.startswith("cn-") else "amazonaws.com"
        return f"{(own or f'https://sts.{self._region}.{suffix}').removesuffix('/')}/"

    async def of_container(self) -> Fresh[AwsKeys]:
        environ = self._environ
        relative = environ.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "")
        url = ECS + relative if relative else environ.get("AWS_CONTAINER_CREDENTIALS_FULL_URI", "")
        if not url:
            raise CredentialFailed("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI and _FULL_URI are not set")
        if not relative:
            _check_container(url)
        token = environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN", "")
        if path := environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", ""):
            try:
                token = (await asyncio.to_thread(_text, Path(path))).strip()
            except (OSError, UnicodeDecodeError):
                raise CredentialFailed(f"cannot read {path}") from None
        headers = (("accept", "application/json"), *((("authorization", token),) if token else ()))
        return _keys(_decoded(await self._fetched("GET", url, headers)), "the container's endpoint")

    async def of_instance(self) -> Fresh[AwsKeys]:
        if self._environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
            raise CredentialFailed("no source has AWS access keys, and AWS_EC2_METADATA_DISABLED is set")
        base = self._environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", "").removesuffix("/") or IMDS
        lasts = (("x-aws-ec2-metadata-token-ttl-seconds", str(SESSION)),)
        session = (
            (await self._fetched("PUT", f"{base}/latest/api/token", lasts)).decode("ascii", "replace").strip()
        )
        headers = (("x-aws-ec2-metadata-token", session),)
        at = f"{base}/latest/meta-data/iam/security-credentials/"
        role = (await self._fetched("GET", at, headers)).decode("ascii", "replace").split("\n")[0].strip()
        if not re.fullmatch(r"[\w+=,.@-]{1,128}", role):
            raise CredentialFailed("the instance has no role")
        return _keys(_decoded(await self._fetched("GET", at + role, headers)), "the instance's metadata")

    async def _fetched(self, method: str, url: str, headers: Headers, body: bytes = b"") -> bytes:
        if self._fetch is None:
            raise CredentialFailed("nothing is asked over the network")
        answer = await self._fetch(UpstreamRequest(url, headers, body, method))
        if answer.status != 200:
            code = _element(answer.body.decode("utf-8", "replace"), "Code")
            raise CredentialFailed(
                f"{urlsplit(url).hostname} answered {answer.status}{f' ({code})' if code else ''}"
            )
        return answer.body


def _check_container(url: str) -> None:
    """Raise CredentialFailed for HTTP without TLS to any host except this machine and the fixed addresses of
    ECS and EKS."""
    parts = urlsplit(url)
    if parts.scheme == "https" or parts.hostname == "localhost":
        return
    try:
        address = ipaddress.ip_address(parts.hostname or "")
    except ValueError:
        address = None
    known = {"169.254.170.2", "169.254.170.23", "fd00:ec2::23"}
    if address is None or not (address.is_loopback or str(address) in known):
        raise CredentialFailed(
            "AWS_CONTAINER_CREDENTIALS_FULL_URI must be https, or http to the container's own endpoint"
        )


def _decoded(body: bytes) -> _Given:
    try:
        return msgspec.json.decode(body, type=_Given)
    except msgspec.DecodeError:
        raise CredentialFailed("an answer with AWS access keys cannot be understood") from None


def _keys(given: _Given, source: str) -> Fresh[AwsKeys]:
    if not given.access_key or not given.secret_key:
        raise CredentialFailed(f"{source} gave no access key")
    expires = None
    if given.expiration:
        try:
            expires = datetime.fromisoformat(given.expiration).timestamp()
        except ValueError:
            raise CredentialFailed(f"{source} gave an expiration that cannot be understood") from None
    return Fresh(AwsKeys(given.access_key, given.secret_key, given.token), expires)


def _element(xml: str, name: str) -> str:
    """Returns the text of the first element of this name; "" if there is none. Keys and codes have no
    entities."""
    found = re.search(rf"<{name}>\s*([\w+/=.:-]{{1,4096}})\s*</{name}>", xml)
    return found[1] if found else ""


def _text(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(MAX_FILE_BYTES).decode()

"""Google Cloud credentials: OAuth access tokens by Application Default Credentials (AIP-4110), for Vertex AI.

The option `file` (else GOOGLE_APPLICATION_CREDENTIALS, else the file of `gcloud auth application-default
login`) names a file with a service account's key, a user's refresh token, or the configuration of workload
identity federation, whose subject token is in a file or at a URL. Without any file the token comes from the
metadata server of a Google Cloud machine. For an API key (also in express mode) use the kind `static`.

https://google.aip.dev/auth/4110 and the pages beside it
"""

import asyncio
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from sluice.backends.credentials import BEARER, CredentialFailed, Setting
from sluice.backends.transport import UpstreamRequest
from sluice_plugins.credentials.oauth import check_endpoint, text_of, token_for, token_of
from sluice_plugins.credentials.refreshing import Fresh, Refreshed, Token

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
TOKEN_URI = "https://oauth2.googleapis.com/token"  # noqa: S105
LIFETIME = 3600
"""Lifetime in seconds of an assertion (Google's maximum) and of a token for an impersonated account."""


class _File(msgspec.Struct):
    """The fields of a credentials file, of all its types."""

    type: str
    client_email: str = ""
    private_key: str = ""
    private_key_id: str = ""
    token_uri: str = TOKEN_URI
    client_id: str = ""
    client_secret: str = ""
    refresh_token: str = ""
    audience: str = ""
    subject_token_type: str = ""
    token_url: str = ""
    credential_source: dict[str, Any] = {}
    service_account_impersonation_url: str = ""

    __repr__ = object.__repr__


class _Impersonated(msgspec.Struct):
    token: str = msgspec.field(name="accessToken")
    expires: str = msgspec.field(name="expireTime")


class Google(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Access tokens of Google Cloud."""

    file: str | None = (
        None  # the credentials file; null: GOOGLE_APPLICATION_CREDENTIALS, gcloud's, else the metadata server
    )
    scope: str = SCOPE  # the OAuth scope of the token

    def check(self, backend: object, environ: Mapping[str, str]) -> None:
        try:
            path = file_of(self.file, environ)
            if path:
                file = _decoded(text_of(path), path)
                _check(file, path)
        except CredentialFailed as error:
            raise ValueError(str(error)) from None

    def open(self, setting: Setting) -> Token:
        path = file_of(self.file, setting.environ)
        tokens = Tokens(path, self.scope, setting)
        return Token(Refreshed(tokens.token, setting), BEARER.line)


def file_of(configured: str | None, environ: Mapping[str, str]) -> str:
    """Returns the path of the credentials file; "" if there is none, and the metadata server is used."""
    path = configured or environ.get("GOOGLE_APPLICATION_CREDENTIALS", "")
    if path:
        return path
    folder = environ.get("CLOUDSDK_CONFIG") or Path(environ.get("HOME") or "/root", ".config", "gcloud")
    own = Path(folder, "application_default_credentials.json")
    return str(own) if own.is_file() else ""


def _decoded(text: str, path: str) -> _File:
    try:
        return msgspec.json.decode(text, type=_File)
    except msgspec.DecodeError:
        raise CredentialFailed(f"{path} is no credentials file of Google's") from None


def _check(file: _File, path: str) -> None:
    """Raise CredentialFailed if a field is missing for the file's type."""
    needed = {
        "service_account": ("client_email", "private_key"),
        "authorized_user": ("client_id", "client_secret", "refresh_token"),
        "external_account": ("audience", "subject_token_type", "token_url", "credential_source"),
    }.get(file.type)
    if needed is None:
        raise CredentialFailed(f"{path} is of a type that is not supported here")
    if missing := [name for name in needed if not getattr(file, name)]:
        raise CredentialFailed(f"{path} has no {' and no '.join(missing)}")
    if file.type == "external_account" and not {"file", "url"} & file.credential_source.keys():
        raise CredentialFailed(f"{path} has a credential_source that is neither a file nor a URL")


class Tokens:
    """Fetches access tokens. The credentials file is read again for each."""

    def __init__(self, path: str, scope: str, setting: Setting) -> None:
        self._path = path
        self._scope = scope
        self._setting = setting

    async def token(self) -> Fresh[str]:
        if not self._path:
            return await self._of_metadata()
        file = _decoded(await asyncio.to_thread(text_of, self._path), self._path)
        _check(file, self._path)
        match file.type:
            case "service_account":
                form = {
                    "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
                    "assertion": self.assertion(file),
                }
                return await token_of(self._setting, file.token_uri, form)
            case "authorized_user":
                form = {"grant_type": "refresh_token", "refresh_token": file.refresh_token}
                form |= {"client_id": file.client_id, "client_secret": file.client_secret}
                return await token_of(self._setting, file.token_uri, form)
        return await self._of_federation(file)

    def assertion(self, file: _File) -> str:
        """Returns the JWT with which a service account requests a token (RFC 7523 3), signed with RS256."""
        import jwt

        now = int(self._setting.wall())
        claims = {
            "iss": file.client_email,
            "scope": self._scope,
            "aud": file.token_uri,
            "iat": now,
            "exp": now + LIFETIME,
        }
        headers = {"kid": file.private_key_id} if file.private_key_id else None
        try:
            return jwt.encode(claims, file.private_key, algorithm="RS256", headers=headers)
        except (ValueError, TypeError, jwt.PyJWTError):
            raise CredentialFailed(f"{self._path} has a private_key that cannot be used") from None

    async def _of_federation(self, file: _File) -> Fresh[str]:
        """Exchange the subject's token:
        https://docs.cloud.google.com/iam/docs/reference/sts/rest/v1/TopLevel/token"""
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "audience": file.audience,
            "scope": SCOPE if file.service_account_impersonation_url else self._scope,
            "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "subject_token": await self._subject(file.credential_source),
            "subject_token_type": file.subject_token_type,
        }
        token = await token_of(self._setting, file.token_url, form)
        if not file.service_account_impersonation_url:
            return token
        return await self._as_account(file.service_account_impersonation_url, token.value)

    async def _subject(self, source: Mapping[str, Any]) -> str:
        """Returns the subject's token from a file or a URL, which has it as text or as a field of a JSON
        object."""
        match source:
            case {"file": str(path)}:
                text = await asyncio.to_thread(text_of, path)
            case {"url": str(url), **rest}:
                given = rest.get("headers")
                headers = (
                    tuple((str(name), str(value)) for name, value in given.items())
                    if isinstance(given, dict)
                    else ()
                )
                answer = await self._setting.fetch(UpstreamRequest(url, headers, b"", "GET"))
                if answer.status != 200:
                    raise CredentialFailed(f"the subject's token: its URL answered {answer.status}")
                text = answer.body.decode("utf-8", "replace").strip()
            case _:
                raise CredentialFailed("the credential_source is neither a file nor a URL")
        match source.get("format"):
            case {"type": "json", "subject_token_field_name": str(name)}:
                try:
                    text = msgspec.json.decode(text, type=dict[str, Any])[name]
                except (msgspec.DecodeError, KeyError):
                    raise CredentialFailed(
                        "the subject's token is not where the credentials file says"
                    ) from None
        if not isinstance(text, str) or not text:
            raise CredentialFailed("the subject's token is empty")
        return text

    async def _as_account(self, url: str, token: str) -> Fresh[str]:
        """Returns a token of the service account that the workload impersonates."""
        check_endpoint(url)
        body = msgspec.json.encode({"scope": [self._scope], "lifetime": f"{LIFETIME}s"})
        headers = (("content-type", "application/json"), BEARER.header(token))
        answer = await self._setting.fetch(UpstreamRequest(url, headers, body))
        if answer.status != 200:
            raise CredentialFailed(f"the service account cannot be acted as: {answer.status}")
        try:
            given = msgspec.json.decode(answer.body, type=_Impersonated)
            return Fresh(given.token, datetime.fromisoformat(given.expires).timestamp())
        except (msgspec.DecodeError, ValueError):
            raise CredentialFailed("the service account's token cannot be understood") from None

    async def _of_metadata(self) -> Fresh[str]:
        host = self._setting.environ.get("GCE_METADATA_HOST") or "metadata.google.internal"
        url = f"http://{host}/computeMetadata/v1/instance/service-accounts/default/token"
        return await token_for(
            self._setting, UpstreamRequest(url, (("metadata-flavor", "Google"),), b"", "GET")
        )

"""Microsoft Entra credentials: access tokens for Azure OpenAI and Foundry. (For an API key use the kind
`static`, with `header: api-key`.)

`source: auto` uses the first one that is configured: a client secret, a workload identity
(AZURE_FEDERATED_TOKEN_FILE, as AKS sets it), else the managed identity of the machine (App Service's
endpoint, or IMDS).

https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow
https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token
"""

import asyncio
import re
from collections.abc import Mapping
from typing import Literal
from urllib.parse import quote, urlencode

import msgspec

from sluice.backends.credentials import BEARER, CredentialFailed, Setting
from sluice.backends.transport import UpstreamRequest
from sluice.config.types import Secret
from sluice_plugins.credentials.oauth import check_endpoint, text_of, token_for, token_of
from sluice_plugins.credentials.refreshing import Fresh, Refreshed, Token

SCOPE = "https://cognitiveservices.azure.com/.default"
AUTHORITY = "https://login.microsoftonline.com"
IMDS = "http://169.254.169.254"

Source = Literal["auto", "client_secret", "workload_identity", "managed_identity"]

_TENANT = re.compile(r"[A-Za-z0-9.-]{1,255}")


class Azure(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Access tokens of Microsoft Entra."""

    source: Source = (
        "auto"  # where tokens come from: auto, client_secret, workload_identity or managed_identity
    )
    tenant_id: str | None = None  # the tenant in Entra; null: AZURE_TENANT_ID
    client_id: str | None = None  # the application, or the managed identity to use; null: AZURE_CLIENT_ID
    client_secret: Secret | None = (
        None  # the application's secret, as ${VAR} or ${file:/path}; null: AZURE_CLIENT_SECRET
    )
    token_file: str | None = None  # file of the workload's token; null: AZURE_FEDERATED_TOKEN_FILE
    scope: str = SCOPE  # the OAuth scope of the token
    authority: str | None = (
        None  # the address that issues tokens; null: AZURE_AUTHORITY_HOST, else login.microsoftonline.com
    )

    def check(self, backend: object, environ: Mapping[str, str]) -> None:
        try:
            Identity(self, environ).source()
        except CredentialFailed as error:
            raise ValueError(str(error)) from None

    def open(self, setting: Setting) -> Token:
        identity = Identity(self, setting.environ)
        return Token(Refreshed(lambda: identity.token(setting), setting), BEARER.line)


class Identity:
    """The options, with values of the environment for those that are not set."""

    def __init__(self, options: Azure, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._wanted = options.source
        self._scope = options.scope
        self._tenant = options.tenant_id or environ.get("AZURE_TENANT_ID", "")
        self._client = options.client_id or environ.get("AZURE_CLIENT_ID", "")
        secret = options.client_secret
        self._secret = secret.reveal() if secret is not None else environ.get("AZURE_CLIENT_SECRET", "")
        self._file = options.token_file or environ.get("AZURE_FEDERATED_TOKEN_FILE", "")
        authority = options.authority or environ.get("AZURE_AUTHORITY_HOST") or AUTHORITY
        self._authority = authority.removesuffix("/")

    __repr__ = object.__repr__

    def source(self) -> Source:
        """Returns the source to use. Raises CredentialFailed if a setting that the source needs is
        missing."""
        source = self._wanted
        if source == "auto":
            named = bool(self._tenant and self._client)
            source = "managed_identity"
            if named and (self._secret or self._file):
                source = "client_secret" if self._secret else "workload_identity"
        if source == "managed_identity":
            return source
        proof = ("client_secret", self._secret) if source == "client_secret" else ("token_file", self._file)
        needed = {"tenant_id": self._tenant, "client_id": self._client, proof[0]: proof[1]}
        if missing := [name for name, value in needed.items() if not value]:
            variables = {"token_file": "AZURE_FEDERATED_TOKEN_FILE"}
            names = " and ".join(
                f"{name} (or {variables.get(name, f'AZURE_{name.upper()}')})" for name in missing
            )
            raise CredentialFailed(f"{source} needs {names}")
        if not _TENANT.fullmatch(self._tenant):
            raise CredentialFailed("tenant_id must be a tenant's id or domain")
        check_endpoint(self._authority)
        return source

    async def token(self, setting: Setting) -> Fresh[str]:
        source = self.source()
        if source == "managed_identity":
            return await self._of_machine(setting)
        form = {"grant_type": "client_credentials", "client_id": self._client, "scope": self._scope}
        if source == "client_secret":
            form["client_secret"] = self._secret
        else:
            form["client_assertion_type"] = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
            form["client_assertion"] = await asyncio.to_thread(text_of, self._file)
        return await token_of(setting, f"{self._authority}/{quote(self._tenant)}/oauth2/v2.0/token", form)

    async def _of_machine(self, setting: Setting) -> Fresh[str]:
        query = {"resource": self._scope.removesuffix("/.default")}
        if self._client:
            query["client_id"] = self._client
        environ = self._environ
        endpoint, secret = environ.get("IDENTITY_ENDPOINT", ""), environ.get("IDENTITY_HEADER", "")
        if endpoint and secret:
            url = f"{endpoint}?{urlencode({'api-version': '2019-08-01', **query})}"
            return await token_for(
                setting, UpstreamRequest(url, (("x-identity-header", secret),), b"", "GET")
            )
        base = (environ.get("AZURE_POD_IDENTITY_AUTHORITY_HOST") or IMDS).removesuffix("/")
        url = f"{base}/metadata/identity/oauth2/token?{urlencode({'api-version': '2018-02-01', **query})}"
        return await token_for(setting, UpstreamRequest(url, (("metadata", "true"),), b"", "GET"))

"""Microsoft Entra's tokens: a client's secret, a workload's own token, the machine's identity."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from sluice.backends.credentials import CredentialFailed, FetchedAnswer
from sluice.config.types import Secret
from sluice.upstream.fetching import fetch
from sluice_plugins.credentials.azure import SCOPE, Azure, Identity
from sluice_plugins.openai.backend import OpenAI
from tests.fakes.rawserver import Peer, RawServer, Request, sized
from tests.plugins.credentials.settings import REQUEST, World

APPLICATION = {"AZURE_TENANT_ID": "tenant-1", "AZURE_CLIENT_ID": "client-1"}


async def given(options: Azure, environ: dict[str, str], **fields: Any) -> World:
    """The world in which a token was fetched, which lived for an hour."""
    world = World(environ)
    fields = fields or {"token_type": "Bearer", "expires_in": 3600}
    world.answers = [FetchedAnswer(200, {}, json.dumps({"access_token": "eyJ.entra", **fields}).encode())]
    fresh = await Identity(options, environ).token(world.setting)
    assert (fresh.value, fresh.expires) == ("eyJ.entra", world.now + 3600)
    return world


def form_of(world: World) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(world.requests[0].body.decode()).items()}


async def test_of_a_clients_secret() -> None:
    for options, environ in (
        (Azure(), {**APPLICATION, "AZURE_CLIENT_SECRET": "s~1", "AZURE_FEDERATED_TOKEN_FILE": "/nowhere"}),
        (Azure(tenant_id="tenant-1", client_id="client-1", client_secret=Secret("s~1")), {}),
    ):
        world = await given(options, environ)
        assert world.requests[0].url == "https://login.microsoftonline.com/tenant-1/oauth2/v2.0/token"
        assert form_of(world) == {
            "grant_type": "client_credentials", "client_id": "client-1", "client_secret": "s~1", "scope": SCOPE,
        }  # fmt: skip


async def test_of_a_workloads_own_token_which_is_read_each_time(tmp_path: Path) -> None:
    path = tmp_path / "token"
    environ = {
        **APPLICATION,
        "AZURE_FEDERATED_TOKEN_FILE": str(path),
        "AZURE_AUTHORITY_HOST": "https://login.example/",
    }
    for text in ("jwt-1", "jwt-2"):
        path.write_text(text + "\n")
        world = await given(Azure(), environ)
        assert world.requests[0].url == "https://login.example/tenant-1/oauth2/v2.0/token"
        assert form_of(world) == {
            "grant_type": "client_credentials", "client_id": "client-1", "scope": SCOPE, "client_assertion": text,
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        }  # fmt: skip


async def test_of_the_machine() -> None:
    """IMDS writes its numbers as text."""
    world = await given(Azure(), {}, expires_in="3599", expires_on="1800003600")
    url = urlsplit(world.requests[0].url)
    assert (url.scheme, url.netloc, url.path) == (
        "http",
        "169.254.169.254",
        "/metadata/identity/oauth2/token",
    )
    assert parse_qs(url.query) == {
        "api-version": ["2018-02-01"],
        "resource": ["https://cognitiveservices.azure.com"],
    }
    assert (world.requests[0].method, world.requests[0].headers) == ("GET", (("metadata", "true"),))


async def test_of_the_machine_as_app_service_has_it() -> None:
    environ = {
        "IDENTITY_ENDPOINT": "http://127.0.0.1:41/msi/token",
        "IDENTITY_HEADER": "h",
        "AZURE_CLIENT_ID": "mine",
    }
    world = await given(Azure(source="managed_identity"), environ, expires_on="1800003600")
    url = urlsplit(world.requests[0].url)
    assert (url.netloc, url.path) == ("127.0.0.1:41", "/msi/token")
    assert parse_qs(url.query)["client_id"] == ["mine"]
    assert world.requests[0].headers == (("x-identity-header", "h"),)


async def test_over_a_real_connection() -> None:
    async def imds(request: Request, peer: Peer) -> None:
        assert request.headers["metadata"] == "true"
        peer.send(sized(b'{"access_token": "of-machine", "expires_on": "1800003600"}'))

    async with RawServer(imds) as server:
        environ = {"AZURE_POD_IDENTITY_AUTHORITY_HOST": server.url}
        world = World(environ)
        setting = world.setting.__class__(
            **{
                name: getattr(world.setting, name)
                for name in world.setting.__struct_fields__
                if name != "fetch"
            },
            fetch=fetch,
        )
        assert (await Identity(Azure(), environ).token(setting)).value == "of-machine"
    with pytest.raises(CredentialFailed, match=r"127\.0\.0\.1"):
        await Identity(Azure(), environ).token(setting)


@pytest.mark.parametrize(
    ("options", "environ", "why"),
    [
        (
            Azure(source="client_secret"),
            {},
            r"client_secret needs tenant_id \(or AZURE_TENANT_ID\) and client_id",
        ),
        (
            Azure(source="workload_identity"),
            APPLICATION,
            r"needs token_file \(or AZURE_FEDERATED_TOKEN_FILE\)",
        ),
        (
            Azure(tenant_id="a/b", client_id="c", client_secret=Secret("s")),
            {},
            "must be a tenant's id or domain",
        ),
        (
            Azure(client_secret=Secret("s"), authority="http://login.example"),
            APPLICATION,
            "must be an https:// URL",
        ),
    ],
)
def test_check_says_what_is_missing(options: Azure, environ: dict[str, str], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        options.check(OpenAI(), environ)


async def test_a_refusal_is_told_by_its_code_alone() -> None:
    environ = {**APPLICATION, "AZURE_CLIENT_SECRET": "s~1"}
    world = World(environ)
    body = {
        "error": "invalid_client",
        "error_description": "AADSTS7000215: secret s~1",
        "error_codes": [7000215],
    }
    world.answers = [FetchedAnswer(401, {}, json.dumps(body).encode())]
    with pytest.raises(CredentialFailed) as raised:
        await Identity(Azure(), environ).token(world.setting)
    assert str(raised.value) == "login.microsoftonline.com answered 401 (invalid_client)"


async def test_a_token_goes_as_a_bearer_and_nothing_is_shown() -> None:
    options = Azure(tenant_id="t", client_id="c", client_secret=Secret("s~1"))
    assert "s~1" not in repr(options)
    world = World(backend=OpenAI())
    world.answers = [FetchedAnswer(200, {}, b'{"access_token": "eyJ", "expires_in": 3600}')]
    options.check(OpenAI(), {})
    credential = options.open(world.setting)
    await credential.ready()
    assert credential.sign_now(REQUEST) == b"authorization: Bearer eyJ\r\n"
    assert credential.secrets() == ("eyJ",)
    await credential.close()

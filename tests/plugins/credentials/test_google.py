"""Google's tokens: by each kind of credentials file and the metadata server, with google-auth as oracle for
the assertion."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from sluice.backends.credentials import CredentialFailed, FetchedAnswer
from sluice_plugins.credentials.google import SCOPE, Google, Tokens, file_of
from sluice_plugins.openai.backend import OpenAI
from tests.plugins.credentials.oracle import ask
from tests.plugins.credentials.settings import REQUEST, World


@lru_cache
def keys() -> tuple[str, str]:
    """A private key and its public one, in PEM."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return private.decode(), public.decode()


def account() -> dict[str, Any]:
    return {
        "type": "service_account", "project_id": "p", "client_email": "me@p.iam.gserviceaccount.com",
        "private_key": keys()[0], "private_key_id": "key-1", "token_uri": "https://oauth2.googleapis.com/token",
    }  # fmt: skip


USER = {
    "type": "authorized_user",
    "client_id": "c",
    "client_secret": "s/1",
    "refresh_token": "r/1",
    "quota_project_id": None,
}
FEDERATED = {
    "type": "external_account", "audience": "//iam.googleapis.com/projects/1/x", "token_url": "https://sts.googleapis.com/v1/token",
    "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
}  # fmt: skip


def answer(status: int = 200, **fields: Any) -> FetchedAnswer:
    return FetchedAnswer(status, {}, json.dumps(fields).encode())


def form_of(body: bytes) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(body.decode()).items()}


def tokens(
    tmp_path: Path, content: dict[str, Any] | None, *answers: FetchedAnswer, **environ: str
) -> tuple[Tokens, World]:
    world = World(environ)
    world.answers = list(answers)
    path = tmp_path / "credentials.json"
    if content is not None:
        path.write_text(json.dumps(content))
    return Tokens(str(path) if content is not None else "", SCOPE, world.setting), world


ORACLE = """
import json, sys
from google.auth import jwt
import google.auth._helpers, datetime
case = json.load(sys.stdin)
jwt._helpers.utcnow = lambda: datetime.datetime.fromtimestamp(case["now"] + 10, datetime.timezone.utc).replace(tzinfo=None)
payload = jwt.decode(case["assertion"], certs={"key-1": case["public"].encode()}, audience=case["audience"])

from google.oauth2 import service_account
import google.oauth2.service_account as module
module._helpers.utcnow = lambda: datetime.datetime.fromtimestamp(case["now"], datetime.timezone.utc).replace(tzinfo=None)
credentials = service_account.Credentials.from_service_account_info(case["account"], scopes=[case["scope"]])
theirs = credentials._make_authorization_grant_assertion().decode()
header, claims, _, _ = jwt._unverified_decode(theirs)
ours = jwt._unverified_decode(case["assertion"])
print(json.dumps([payload, claims, header, ours[0]]))
"""


async def test_a_service_account_asserts_what_googles_own_library_does(tmp_path: Path) -> None:
    source, world = tokens(tmp_path, account(), answer(access_token="ya29.x", expires_in=3599))
    fresh = await source.token()
    assert (fresh.value, fresh.expires) == ("ya29.x", world.now + 3599)
    [request] = world.requests
    assert (request.method, request.url) == ("POST", "https://oauth2.googleapis.com/token")
    form = form_of(request.body)
    assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    question = {
        "assertion": form["assertion"], "public": keys()[1], "audience": "https://oauth2.googleapis.com/token",
        "now": world.now, "account": account(), "scope": SCOPE,
    }  # fmt: skip
    verified, theirs, header, ours = ask("google.auth", ORACLE, question)
    assert verified == theirs
    assert header == ours


async def test_a_user_refreshes(tmp_path: Path) -> None:
    source, world = tokens(tmp_path, USER, answer(access_token="ya29.y", expires_in=100))
    assert (await source.token()).value == "ya29.y"
    assert form_of(world.requests[0].body) == {
        "grant_type": "refresh_token", "refresh_token": "r/1", "client_id": "c", "client_secret": "s/1",
    }  # fmt: skip


@pytest.mark.parametrize("where", ["file", "json file", "url"])
async def test_a_workload_is_federated(tmp_path: Path, where: str) -> None:
    token = tmp_path / "token"
    token.write_text(json.dumps({"id_token": "subject-1"}) if where == "json file" else "subject-1\n")
    source: dict[str, Any] = {"file": str(token)}
    answers = [answer(access_token="federated", expires_in=3600)]
    if where == "json file":
        source["format"] = {"type": "json", "subject_token_field_name": "id_token"}
    elif where == "url":
        source = {
            "url": "http://169.254.169.254/token",
            "headers": {"Metadata": "True"},
            "format": {"type": "text"},
        }
        answers.insert(0, FetchedAnswer(200, {}, b"subject-1"))
    tokens_, world = tokens(tmp_path, {**FEDERATED, "credential_source": source}, *answers)
    assert (await tokens_.token()).value == "federated"
    if where == "url":
        assert (world.requests[0].method, world.requests[0].headers) == ("GET", (("Metadata", "True"),))
    assert form_of(world.requests[-1].body) == {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "audience": "//iam.googleapis.com/projects/1/x",
        "scope": SCOPE,
        "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "subject_token": "subject-1",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
    }


async def test_a_federated_workload_acts_as_a_service_account(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("subject-1")
    url = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/me@p:generateAccessToken"
    content = {
        **FEDERATED,
        "credential_source": {"file": f"{tmp_path}/token"},
        "service_account_impersonation_url": url,
    }
    answers = (
        answer(access_token="federated", expires_in=60),
        answer(accessToken="acting", expireTime="2027-01-15T09:00:00Z"),
    )
    source, world = tokens(tmp_path, content, *answers)
    fresh = await source.token()
    assert (fresh.value, fresh.expires) == ("acting", 1_800_003_600.0)
    assert world.requests[1].url == url
    assert ("authorization", "Bearer federated") in world.requests[1].headers
    assert json.loads(world.requests[1].body) == {"scope": [SCOPE], "lifetime": "3600s"}


async def test_the_metadata_server_is_asked_where_there_is_no_file(tmp_path: Path) -> None:
    source, world = tokens(
        tmp_path, None, answer(access_token="of-machine", expires_in=1000), GCE_METADATA_HOST="127.0.0.1:1"
    )
    assert (await source.token()).value == "of-machine"
    [request] = world.requests
    assert request.url == "http://127.0.0.1:1/computeMetadata/v1/instance/service-accounts/default/token"
    assert (request.method, request.headers) == ("GET", (("metadata-flavor", "Google"),))


@pytest.mark.parametrize(
    ("answered", "why"),
    [
        (
            answer(400, error="invalid_grant", error_description="secret"),
            "oauth2.googleapis.com answered 400 (invalid_grant)",
        ),
        (answer(400, error="a secret thing", x=1), "oauth2.googleapis.com answered 400"),
        (answer(200, error={"code": 1}), "oauth2.googleapis.com answered 200"),
        (FetchedAnswer(502, {}, b"<html>secret"), "oauth2.googleapis.com answered 502"),
    ],
)
async def test_a_refusal_is_told_by_its_code_alone(tmp_path: Path, answered: FetchedAnswer, why: str) -> None:
    source, _ = tokens(tmp_path, USER, answered)
    with pytest.raises(CredentialFailed) as raised:
        await source.token()
    assert str(raised.value) == why


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({"type": "service_account", "client_email": "x"}, "has no private_key"),
        ({"type": "gdch_service_account"}, "of a type that is not supported"),
        ({**FEDERATED, "credential_source": {"environment_id": "aws1"}}, "neither a file nor a URL"),
        ([], "no credentials file of Google's"),
    ],
)
def test_check_says_what_is_wrong(tmp_path: Path, content: Any, why: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=why):
        Google(file=str(path)).check(OpenAI(), {})
    with pytest.raises(ValueError, match="cannot read /nowhere: no such file"):
        Google().check(OpenAI(), {"GOOGLE_APPLICATION_CREDENTIALS": "/nowhere"})


async def test_tokens_do_not_go_over_plain_http(tmp_path: Path) -> None:
    source, world = tokens(tmp_path, {**USER, "token_uri": "http://oauth2.example/token"})
    with pytest.raises(CredentialFailed, match="must be an https:// URL"):
        await source.token()
    assert world.requests == []


async def test_a_private_key_that_is_none_is_not_shown(tmp_path: Path) -> None:
    source, _ = tokens(tmp_path, {**account(), "private_key": "secret-words"})
    with pytest.raises(CredentialFailed) as raised:
        await source.token()
    assert "secret" not in str(raised.value)


async def test_a_token_goes_as_a_bearer_whatever_the_backend(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps(USER))
    world = World({"GOOGLE_APPLICATION_CREDENTIALS": str(path)}, backend=OpenAI())
    world.answers = [answer(access_token="ya29.z", expires_in=3600)]
    Google().check(OpenAI(), world.setting.environ)
    credential = Google().open(world.setting)
    await credential.ready()
    assert credential.sign_now(REQUEST) == b"authorization: Bearer ya29.z\r\n"
    await credential.close()


def test_gclouds_own_file_is_found(tmp_path: Path) -> None:
    assert file_of(None, {"HOME": str(tmp_path)}) == ""
    own = tmp_path / ".config" / "gcloud" / "application_default_credentials.json"
    own.parent.mkdir(parents=True)
    own.write_text("{}")
    assert file_of(None, {"HOME": str(tmp_path)}) == str(own)
    assert file_of("/x", {"HOME": str(tmp_path)}) == "/x"

"""Where AWS's access keys come from: each source, the order of them, and what is said where there are
none."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from sluice.backends.credentials import CredentialFailed, FetchedAnswer
from sluice.config.types import Secret
from sluice.upstream.fetching import fetch
from sluice.wire.sigv4 import AwsKeys
from sluice_plugins.credentials.aws import Aws
from sluice_plugins.credentials.aws_sources import AwsSources
from sluice_plugins.openai.backend import OpenAI
from tests.fakes.rawserver import Peer, RawServer, Request, sized
from tests.plugins.credentials.settings import REQUEST, World

GIVEN = {
    "Code": "Success", "AccessKeyId": "ASIAGIVEN", "SecretAccessKey": "given/secret", "Token": "given-token",
    "Expiration": "2027-01-15T09:00:00Z",
}  # fmt: skip
KEYS = AwsKeys("ASIAGIVEN", "given/secret", "given-token")
EXPIRES = 1_800_003_600.0
STS = """<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
  <AssumeRoleWithWebIdentityResult><Credentials>
    <AccessKeyId>ASIAGIVEN</AccessKeyId><SecretAccessKey>given/secret</SecretAccessKey>
    <SessionToken>given-token</SessionToken><Expiration>2027-01-15T09:00:00Z</Expiration>
  </Credentials></AssumeRoleWithWebIdentityResult>
</AssumeRoleWithWebIdentityResponse>"""


def equal(keys: AwsKeys, other: AwsKeys) -> bool:
    return (keys.access_key, keys.secret_key, keys.token) == (other.access_key, other.secret_key, other.token)


class Cloud:
    """STS, the container's endpoint and IMDSv2 on one port of loopback."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.refuse = 0

    async def answer(self, request: Request, peer: Peer) -> None:
        self.requests.append(request)
        at = (request.method, request.path)
        if self.refuse:
            peer.send(
                sized(b"<Error><Code>AccessDenied</Code><Message>secret words</Message></Error>", self.refuse)
            )
        elif at == ("PUT", "/latest/api/token"):
            peer.send(sized(b"imds-session"))
        elif at == ("GET", "/latest/meta-data/iam/security-credentials/"):
            peer.send(sized(b"my-role\n"))
        elif at in (
            ("GET", "/latest/meta-data/iam/security-credentials/my-role"),
            ("GET", "/v1/credentials"),
        ):
            peer.send(sized(json.dumps(GIVEN).encode()))
        elif at == ("POST", "/"):
            peer.send(sized(STS.encode()))
        else:
            peer.send(sized(b"", 404))


async def keys_of(
    environ: Mapping[str, str], source: str, cloud: Cloud, profile: str | None = None
) -> AwsKeys:
    """What a source gives; what expires has to say when."""
    async with RawServer(cloud.answer) as server:
        environ = {name: value.replace("CLOUD", server.url) for name, value in environ.items()}
        fresh = await AwsSources(profile, "eu-central-1", environ, fetch).keys(source)
    assert fresh.expires in (None, EXPIRES)
    return fresh.value


async def test_of_the_environment() -> None:
    environ = {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "s", "AWS_SESSION_TOKEN": "t"}
    assert equal(await keys_of(environ, "auto", Cloud()), AwsKeys("AKIA", "s", "t"))


async def test_of_web_identity(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("jwt-of-kubernetes\n")
    environ = {
        "AWS_WEB_IDENTITY_TOKEN_FILE": f"{tmp_path}/token",
        "AWS_ROLE_ARN": "arn:aws:iam::1:role/r",
        "AWS_ENDPOINT_URL_STS": "CLOUD",
    }
    for source in ("auto", "web_identity"):
        cloud = Cloud()
        assert equal(await keys_of(environ, source, cloud), KEYS)
        form = parse_qs(cloud.requests[0].body.decode())
        assert form["Action"] == ["AssumeRoleWithWebIdentity"]
        assert form["RoleArn"] == ["arn:aws:iam::1:role/r"]
        assert form["WebIdentityToken"] == ["jwt-of-kubernetes"]
        assert "authorization" not in cloud.requests[0].headers


@pytest.mark.parametrize("source", ["auto", "container"])
async def test_of_the_containers_endpoint(source: str, tmp_path: Path) -> None:
    """EKS Pod Identity gives the token in a file that changes."""
    (tmp_path / "token").write_text("pod-token")
    environ = {
        "HOME": str(tmp_path),
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": "CLOUD/v1/credentials",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": f"{tmp_path}/token",
    }
    cloud = Cloud()
    assert equal(await keys_of(environ, source, cloud), KEYS)
    assert cloud.requests[0].headers["authorization"] == "pod-token"


@pytest.mark.parametrize("source", ["auto", "instance"])
async def test_of_the_instance(source: str, tmp_path: Path) -> None:
    cloud = Cloud()
    environ = {"HOME": str(tmp_path), "AWS_EC2_METADATA_SERVICE_ENDPOINT": "CLOUD"}
    assert equal(await keys_of(environ, source, cloud), KEYS)
    assert [request.headers.get("x-aws-ec2-metadata-token") for request in cloud.requests] == [
        None,
        *["imds-session"] * 2,
    ]
    assert cloud.requests[0].headers["x-aws-ec2-metadata-token-ttl-seconds"] == "21600"


PROFILES = "[default]\naws_access_key_id = AKIADEFAULT\naws_secret_access_key = d\n[other]\naws_access_key_id=AKIAOTHER\n"


async def test_of_a_profile_whose_two_files_are_read_together(tmp_path: Path) -> None:
    folder = tmp_path / ".aws"
    folder.mkdir()
    (folder / "credentials").write_text(PROFILES)
    (folder / "config").write_text(
        "[profile other]\naws_secret_access_key = o%x\naws_session_token = t\n[profile sso]\nsso_session=s\n"
    )
    home = {"HOME": str(tmp_path)}
    assert equal(await keys_of(home, "auto", Cloud()), AwsKeys("AKIADEFAULT", "d"))
    assert equal(
        await keys_of({**home, "AWS_PROFILE": "other"}, "profile", Cloud()), AwsKeys("AKIAOTHER", "o%x", "t")
    )
    environment = {**home, "AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": "e"}
    assert equal(await keys_of(environment, "auto", Cloud(), "other"), AwsKeys("AKIAOTHER", "o%x", "t"))
    assert equal(await keys_of(environment, "auto", Cloud()), AwsKeys("AKIAENV", "e"))
    for profile, why in (("sso", "uses sso_session"), ("none", "has no access key")):
        with pytest.raises(CredentialFailed, match=why):
            await keys_of(home, "auto", Cloud(), profile)


async def test_elsewhere_by_variables(tmp_path: Path) -> None:
    (tmp_path / "c").write_text(PROFILES)
    environ = {"AWS_SHARED_CREDENTIALS_FILE": f"{tmp_path}/c", "AWS_CONFIG_FILE": f"{tmp_path}/none"}
    assert equal(await keys_of(environ, "profile", Cloud()), AwsKeys("AKIADEFAULT", "d"))


@pytest.mark.parametrize(
    ("environ", "source", "why"),
    [
        ({}, "environment", "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set"),
        ({}, "web_identity", "are not set"),
        ({}, "container", "are not set"),
        ({"AWS_EC2_METADATA_DISABLED": "true"}, "auto", "no source has AWS access keys"),
        ({"AWS_WEB_IDENTITY_TOKEN_FILE": "/nowhere", "AWS_ROLE_ARN": "r"}, "auto", "cannot read /nowhere"),
        ({"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://10.0.0.1/x"}, "auto", "must be https"),
        ({"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://evil.example/x"}, "auto", "must be https"),
    ],
)
async def test_what_is_said_where_there_are_none(environ: dict[str, str], source: str, why: str) -> None:
    with pytest.raises(CredentialFailed, match=why):
        await keys_of({"HOME": "/nowhere", **environ}, source, Cloud())


async def test_a_refusal_is_told_by_its_code_and_nothing_else() -> None:
    cloud = Cloud()
    cloud.refuse = 403
    with pytest.raises(CredentialFailed) as raised:
        await keys_of({"HOME": "/nowhere", "AWS_EC2_METADATA_SERVICE_ENDPOINT": "CLOUD"}, "instance", cloud)
    assert str(raised.value) == "127.0.0.1 answered 403 (AccessDenied)"


async def test_each_request_is_signed_with_the_keys_of_now() -> None:
    backend = OpenAI(base_url="https://bedrock-runtime.eu-central-1.amazonaws.com/openai/v1")
    world = World(
        {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/creds", "HOME": "/nowhere"}, backend=backend
    )
    world.now = 1_800_000_000.0
    other = {**GIVEN, "AccessKeyId": "ASIAOTHER"}
    world.answers = [FetchedAnswer(200, {}, json.dumps(given).encode()) for given in (GIVEN, other)]
    credential = Aws(source="container").open(world.setting)
    assert credential.sign_now(REQUEST) is None
    await credential.ready()
    assert world.requests[0].url == "http://169.254.170.2/v2/creds"
    lines = (credential.sign_now(REQUEST) or b"").decode()
    assert "x-amz-date: 20270115T080000Z\r\nx-amz-security-token: given-token\r\n" in lines
    assert "Credential=ASIAGIVEN/20270115/eu-central-1/bedrock/aws4_request" in lines
    assert "SignedHeaders=content-type;host;x-amz-date;x-amz-security-token," in lines
    assert set(credential.secrets()) == {"ASIAGIVEN", "given/secret", "given-token"}
    assert not await credential.renewed(lines.encode())  # fetched a moment ago
    world.now += 60
    assert await asyncio.gather(*(credential.renewed(lines.encode()) for _ in range(3))) == [True] * 3
    assert b"Credential=ASIAOTHER/" in (credential.sign_now(REQUEST) or b"")
    await credential.close()


async def test_a_key_of_the_options_and_a_region_of_the_environment() -> None:
    world = World({"AWS_REGION": "us-west-2"}, backend=OpenAI())
    credential = Aws(
        access_key_id=Secret("AKIA1"), secret_access_key=Secret("s"), service="execute-api"
    ).open(world.setting)
    await credential.ready()
    assert b"Credential=AKIA1/20270115/us-west-2/execute-api/aws4_request" in (
        credential.sign_now(REQUEST) or b""
    )
    await credential.close()


def test_check_says_what_is_missing() -> None:
    with pytest.raises(ValueError, match="no region: write region, or set AWS_REGION"):
        Aws().check(OpenAI(), {})
    with pytest.raises(ValueError, match="go together"):
        Aws(access_key_id=Secret("AKIA"))
    with pytest.raises(ValueError, match="such as us-east-1"):
        Aws(region="a/b")
    with pytest.raises(ValueError, match='the profile "p" has no access key'):
        Aws(region="us-east-1", profile="p").check(OpenAI(), {"HOME": "/nowhere"})
    Aws().check(OpenAI(base_url="https://bedrock-runtime.us-gov-west-1.amazonaws.com/openai/v1"), {})

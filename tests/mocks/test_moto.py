"""AWS as moto mocks it: keys from its STS by web identity, and records in its S3."""

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from sluice.upstream.fetching import fetch
from sluice_plugins.credentials.aws_sources import AwsSources
from tests.e2e.gateways import HEAD, KEY, gateway
from tests.mocks.servers import mock

SOMEBODY = (
    "AWS4-HMAC-SHA256 Credential=AKIA1/20261130/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
)
"""Reads what is not public; moto takes any signature."""


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    with mock("moto") as url:
        yield url


async def test_keys_come_from_sts_by_web_identity(moto: str, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("a.b.c\n")
    environ = {
        "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/gateway",
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(token),
        "AWS_ENDPOINT_URL_STS": moto,
    }
    found = await AwsSources(None, "eu-central-1", environ, fetch).keys("web_identity")
    assert re.fullmatch(r"ASIA\w{16}", found.value.access_key)
    assert found.value.secret_key
    assert found.value.token
    assert found.expires is not None


async def test_records_are_put_into_a_bucket(moto: str) -> None:
    sink = f"{{name: kept, s3: {{bucket: calls, endpoint: '{moto}', access_key: AKIA1, secret_key: s}}}}"
    config = f"""{HEAD}
upstreams: {{local: {{backend: echo}}}}
aliases: {{chat: {{tiers: [[{{upstream: local, model: echo}}]]}}}}
records: [{sink}]
"""
    async with aiohttp.ClientSession(moto) as bucket:
        async with bucket.put("/calls") as made:
            assert made.status == 200
        async with gateway(config) as g, aiohttp.ClientSession(g.url) as client:
            body = {"messages": [{"role": "user", "content": "Hi"}]}
            async with client.post("/v1/chat", json=body, headers={"x-api-key": KEY}) as response:
                assert response.status == 200
        async with bucket.get("/calls?list-type=2") as listed:
            [key] = re.findall(r"<Key>(.*?)</Key>", await listed.text())
        async with bucket.get(f"/calls/{key}", headers={"authorization": SOMEBODY}) as kept:
            data = await kept.read()
    lines = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).splitlines()
    assert [json.loads(line)["alias"] for line in lines] == ["chat"]

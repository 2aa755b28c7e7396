"""Who may call: keys, JSON Web Tokens, tenants, origins, limits and client addresses, over HTTP."""

import asyncio
import base64
import hmac
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from multidict import CIMultiDict

from sluice.identity.keys import digest_of
from tests.e2e.gateways import Running, gateway

STREAM, WHOLE, OPENAI = "/v1/chat/stream", "/v1/chat", "/v1/chat/completions"
ONE, TWO, OLD, OFF, SHOP, FEW, ADMIN = (
    f"sk-sluice-{name}" for name in ("one", "two", "old", "off", "shop", "few", "admin")
)
SECRET = "a secret that is long enough for HS256"
SHOP_PAGE, OTHER_PAGE, STRANGE_PAGE = "https://shop.example", "https://other.example", "https://evil.example"
ASK = {"sessionId": "s", "message": "hi"}

CONFIG = f"""
server: {{listen: "127.0.0.1:0", admin_listen: "127.0.0.1:0", drain_delay: 0, trusted_proxies: [PROXIES]}}
limits: {{address: ADDRESS}}
admin: {{digest: "{digest_of(ADMIN)}"}}
upstreams: {{echo: {{backend: echo}}}}
aliases:
  chat: {{tiers: [[{{upstream: echo, model: m}}]]}}
  code: {{tiers: [[{{upstream: echo, model: m}}]]}}
  spare: {{tiers: [[{{upstream: echo, model: m}}]]}}
keys:
  - {{id: one, digest: "{digest_of(ONE)}", default_alias: chat}}
  - {{id: two, digest: "{digest_of(TWO)}", aliases: [chat, code], default_alias: chat}}
  - {{id: old, digest: "{digest_of(OLD)}", expires: "2020-01-01T00:00:00Z"}}
  - {{id: off, digest: "{digest_of(OFF)}", enabled: false}}
  - {{id: shop, digest: "{digest_of(SHOP)}", default_alias: chat, origins: ["{SHOP_PAGE}"]}}
  - {{id: other, digest: "{digest_of("unused")}", origins: ["{OTHER_PAGE}"]}}
  - {{id: few, digest: "{digest_of(FEW)}", default_alias: chat, limits: {{requests: {{rate: 6/min, burst: 3}}}}}}
"""


@asynccontextmanager
async def serving(
    more: str = "", *, address: str = "null", proxies: str = ""
) -> AsyncIterator[tuple[Running, aiohttp.ClientSession]]:
    text = CONFIG.replace("ADDRESS", address).replace("PROXIES", proxies) + more
    async with gateway(text) as running, aiohttp.ClientSession(running.url) as client:
        yield running, client


async def status(client: aiohttp.ClientSession, headers: Any, path: str = WHOLE, **fields: Any) -> int:
    async with client.post(path, json={**ASK, **fields}, headers=headers) as response:
        await response.read()
        return response.status


async def said(client: aiohttp.ClientSession, headers: dict[str, str], **fields: Any) -> str:
    async with client.post(WHOLE, json={**ASK, **fields}, headers=headers) as response:
        assert response.status == 200
        answer: dict[str, str] = await response.json()
        return answer["message"]


def bearer(credential: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {credential}"}


# keys

CREDENTIALS: list[tuple[str, list[tuple[str, str]], int]] = [
    ("x-api-key", [("x-api-key", ONE)], 200),
    ("older spelling", [("x-widget-api-key", ONE)], 200),
    ("bearer", [("Authorization", f"Bearer {ONE}")], 200),
    ("bearer in lower case", [("authorization", f"bearer {ONE}")], 200),
    (
        "the same in all three",
        [("x-api-key", ONE), ("x-widget-api-key", ONE), ("Authorization", f"Bearer {ONE}")],
        200,
    ),
    ("an empty one beside it", [("x-api-key", ""), ("x-widget-api-key", ONE)], 200),
    ("none", [], 401),
    ("unknown", [("x-api-key", "sk-sluice-nobody")], 401),
    ("its digest", [("x-api-key", digest_of(ONE))], 401),
    ("doubled", [("x-api-key", ONE), ("x-api-key", ONE)], 401),
    ("doubled bearer", [("Authorization", f"Bearer {ONE}"), ("Authorization", f"Bearer {ONE}")], 401),
    ("two keys", [("x-api-key", ONE), ("x-widget-api-key", TWO)], 401),
    ("two keys, one of them nobody's", [("x-api-key", ONE), ("Authorization", "Bearer nobody")], 401),
    ("basic beside it", [("x-api-key", ONE), ("Authorization", "Basic dTpw")], 401),
    ("expired", [("x-api-key", OLD)], 401),
    ("disabled", [("x-api-key", OFF)], 401),
    ("the admin's", [("x-api-key", ADMIN)], 401),
    ("as a query", [], 401),
]
REASONS = {
    "none": "missing",
    "doubled": "ambiguous",
    "two keys": "ambiguous",
    "expired": "expired",
    "disabled": "revoked",
}


@pytest.mark.parametrize(("name", "headers", "expected"), CREDENTIALS, ids=[name for name, *_ in CREDENTIALS])
async def test_a_credential_is_taken_or_refused_in_every_dialect(
    name: str, headers: list[tuple[str, str]], expected: int
) -> None:
    async with serving() as (running, client):
        for path in (STREAM, "/chat", WHOLE, OPENAI):
            body = (
                {"model": "chat", "messages": [{"role": "user", "content": "hi"}]} if path == OPENAI else ASK
            )
            query = f"?api_key={ONE}" if name == "as a query" else ""
            async with client.post(path + query, json=body, headers=CIMultiDict(headers)) as response:
                text = await response.text()
                assert response.status == expected
                assert ("WWW-Authenticate" in response.headers) == (expected == 401)
            if expected == 401 and path == OPENAI:
                assert json.loads(text)["error"]["code"] == "invalid_api_key"
        async with client.get("/v1/models", headers=CIMultiDict(headers)) as response:
            assert response.status == expected
        if expected == 401:
            reason = REASONS.get(name, running.requests[0]["reason"])
            assert running.metric(f'sluice_auth_failures_total{{reason="{reason}"}}') == 5
            assert [line["key"] for line in running.requests] == [None] * 5
        assert ONE not in running.log_bytes.getvalue().decode()


async def test_a_key_sees_and_uses_its_own_aliases() -> None:
    async with serving() as (_, client):
        for key, names in ((ONE, ["chat", "code", "spare"]), (TWO, ["chat", "code"])):
            async with client.get("/v1/models", headers=bearer(key)) as response:
                assert [model["id"] for model in (await response.json())["data"]] == names
        async with (
            client.get("/v1/models/spare", headers=bearer(TWO)) as hidden,
            client.get("/v1/models/nope", headers=bearer(TWO)) as absent,
        ):
            assert (hidden.status, await hidden.json()) == (404, await absent.json())
        assert await status(client, bearer(TWO), model="code") == 200
        assert await status(client, bearer(TWO), model="spare") == 404
        assert await status(client, bearer(ONE), model="spare") == 200


async def test_tenants_with_the_same_session_share_no_history() -> None:
    async with serving() as (running, client):
        assert await said(client, bearer(ONE)) == "You said: hi"
        assert await said(client, bearer(TWO)) == "You said: hi"
        assert await said(client, bearer(ONE)) == "Turn 2, you said: hi"
        listed, total = await running.runtime.conversations.newest(10)
        assert total == 2
        assert len({conversation.id for conversation in listed}) == 2


async def test_conversations_are_for_the_admins_key_alone() -> None:
    async with serving() as (running, client):
        await said(client, bearer(ONE))
        for base in (running.url, running.admin_url):
            for headers in (
                {},
                {"x-admin-api-key": ""},
                {"x-admin-api-key": ONE},
                {"x-api-key": ADMIN},
                bearer(ADMIN),
            ):
                for path in ("/v1/admin/conversations", "/v1/admin/conversations/x"):
                    async with client.get(base + path, headers=headers) as response:
                        assert response.status == 401
            admin = {"x-admin-api-key": ADMIN}
            async with client.get(base + "/v1/admin/conversations", headers=admin) as response:
                assert (await response.json())["total"] == 1
            async with client.get(base + "/v1/admin/conversations/x", headers=admin) as response:
                assert (response.status, (await response.json())["error"]) == (404, "Conversation not found")
            for limit in ("0", "201", "-1", "x", "1e1", "", "٣"):
                async with client.get(
                    base + "/v1/admin/conversations", params={"limit": limit}, headers=admin
                ) as response:
                    assert response.status == 400
        doubled = CIMultiDict([("x-admin-api-key", ADMIN), ("x-admin-api-key", "nobody")])
        for headers in (doubled, {"x-admin-api-key": "\udcff"}):
            async with client.get("/v1/admin/conversations", headers=headers) as response:
                assert response.status == 401


# tokens


def issuers(folder: Path, public: Any) -> str:
    numbers = public.public_numbers()
    key = {
        "kty": "RSA",
        "kid": "k1",
        "use": "sig",
        "alg": "RS256",
        "n": _number(numbers.n),
        "e": _number(numbers.e),
    }
    (folder / "jwks.json").write_text(json.dumps({"keys": [key]}))
    return f"""
jwt:
  - {{issuer: secret.example, audience: sluice, algorithms: [HS256], secret: "{SECRET}", default_alias: chat,
      aliases: [chat, code], leeway: 0}}
  - {{issuer: rsa.example, audience: sluice, algorithms: [RS256], jwks_file: "{folder}/jwks.json", default_alias: chat,
      claims: {{tenant: org, aliases: models}}}}
"""


def _number(value: int) -> str:
    return (
        base64.urlsafe_b64encode(value.to_bytes((value.bit_length() + 7) // 8, "big")).rstrip(b"=").decode()
    )


def token(**claims: Any) -> str:
    usual = {"iss": "secret.example", "aud": "sluice", "sub": "u", "exp": time.time() + 60}
    return jwt.encode(
        {name: value for name, value in (usual | claims).items() if value is not None}, SECRET, "HS256"
    )


def by_hmac(claims: dict[str, Any], secret: bytes) -> str:
    """An HS256 token by any bytes: PyJWT itself refuses to make one by a public key."""
    pieces = [
        base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=")
        for p in ({"alg": "HS256", "kid": "k1"}, claims)
    ]
    signature = hmac.digest(secret, b".".join(pieces), "sha256")
    return b".".join([*pieces, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


@pytest.fixture(scope="module")
def private() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def rsa_token(private: rsa.RSAPrivateKey, kid: str = "k1", **claims: Any) -> str:
    usual = {"iss": "rsa.example", "aud": ["x", "sluice"], "org": "acme", "exp": time.time() + 60}
    return jwt.encode(usual | claims, private, "RS256", {"kid": kid})


async def test_a_token_says_tenant_and_aliases(tmp_path: Path, private: rsa.RSAPrivateKey) -> None:
    async with serving(issuers(tmp_path, private.public_key())) as (running, client):
        one, two = token(sub="u1"), token(sub="u2", aliases=["code", "spare"])
        acme = rsa_token(private, models="chat spare")
        assert await said(client, bearer(one)) == "You said: hi"
        assert await said(client, bearer(token(sub="u1", iat=1))) == "Turn 2, you said: hi"
        assert await said(client, bearer(two), model="code") == "You said: hi"
        assert await said(client, bearer(acme)) == "You said: hi"
        assert await said(client, bearer(ONE)) == "You said: hi"
        models = {
            one: ["chat", "code"],
            two: ["code"],
            acme: ["chat", "spare"],
            token(aliases="*"): ["chat", "code"],
        }
        for credential, names in models.items():
            async with client.get("/v1/models", headers=bearer(credential)) as response:
                assert [model["id"] for model in (await response.json())["data"]] == names
        assert await status(client, bearer(two), model="chat") == 404
        assert {line["key"] for line in running.requests} == {"jwt:secret.example", "jwt:rsa.example", "one"}


async def test_a_tenant_of_a_token_is_never_a_keys_tenant(tmp_path: Path, private: rsa.RSAPrivateKey) -> None:
    async with serving(issuers(tmp_path, private.public_key())) as (_, client):
        await said(client, bearer(ONE))
        assert await said(client, bearer(token(sub="one"))) == "You said: hi"
        assert await said(client, bearer(rsa_token(private, org="one"))) == "You said: hi"


async def test_a_token_that_is_not_right_is_refused(tmp_path: Path, private: rsa.RSAPrivateKey) -> None:
    stranger = rsa.generate_private_key(65537, 2048)
    public = tmp_path / "jwks.json"
    config = issuers(tmp_path, private.public_key())
    head, body, signature = token().split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    wrong = {
        "expired": token(exp=time.time() - 60),
        "not yet": token(nbf=time.time() + 60),
        "no expiry": token(exp=None),
        "another audience": token(aud="other"),
        "no audience": token(aud=None),
        "another issuer": token(iss="nobody.example"),
        "no tenant": token(sub=None),
        "unsigned": f"{head}.{body}.",
        "none": f"{none}.{body}.",
        "changed": f"{head}.{body[:-2]}xx.{signature}",
        "another secret": jwt.encode(
            {"iss": "secret.example", "aud": "sluice", "sub": "u", "exp": time.time() + 60}, "x" * 32
        ),
        "another's issuer": token(iss="rsa.example", org="acme"),
        "public key as a secret": by_hmac(
            {"iss": "rsa.example", "aud": "sluice", "org": "a", "exp": 9e9}, public.read_bytes()
        ),
        "a stranger's key": rsa_token(stranger),
        "a key of another name": rsa_token(private, "k2"),
    }
    async with serving(config) as (running, client):
        for name, credential in wrong.items():
            assert await status(client, bearer(credential)) == 401, name
        assert await status(client, {"x-api-key": token()}) == 401
        assert await status(client, {**bearer(token()), "x-api-key": ONE}) == 401
        assert await status(client, bearer(token())) == 200
        log = running.log_bytes.getvalue().decode()
        assert not [
            name for name, credential in wrong.items() if credential in log or credential.split(".")[1] in log
        ]


# origins


async def preflight(client: aiohttp.ClientSession, origin: str, path: str = STREAM) -> tuple[int, Any]:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "x-api-key",
    }
    async with client.options(path, headers=headers) as response:
        return response.status, response.headers


async def test_a_preflight_is_answered_for_origins_that_some_key_has() -> None:
    async with serving() as (_, client):
        for path in (STREAM, "/chat", WHOLE, OPENAI):
            for origin in (SHOP_PAGE, OTHER_PAGE):
                code, headers = await preflight(client, origin, path)
                assert code == 204
                assert headers["Access-Control-Allow-Origin"] == origin
                assert "POST" in headers["Access-Control-Allow-Methods"]
                allowed = headers["Access-Control-Allow-Headers"].split(", ")
                assert {"authorization", "content-type", "x-api-key", "x-widget-api-key"} <= set(allowed)
                assert "Origin" in headers["Vary"]
                assert "Access-Control-Allow-Credentials" not in headers
            for origin in (
                STRANGE_PAGE,
                "null",
                SHOP_PAGE + ".evil.example",
                SHOP_PAGE.upper(),
                "http://shop.example",
            ):
                code, headers = await preflight(client, origin, path)
                assert code == 204
                assert not [name for name in headers if name.startswith("Access-Control")]


ACTUAL = [  # key, origin, status, is the page told that it may read the answer
    (SHOP, SHOP_PAGE, 200, True),
    (SHOP, None, 200, False),
    (SHOP, OTHER_PAGE, 403, True),
    (SHOP, STRANGE_PAGE, 403, False),
    (ONE, SHOP_PAGE, 200, True),
    (ONE, STRANGE_PAGE, 200, False),
    ("nobody", SHOP_PAGE, 401, True),
    ("nobody", STRANGE_PAGE, 401, False),
]


@pytest.mark.parametrize(("key", "origin", "expected", "told"), ACTUAL)
async def test_a_page_uses_the_keys_of_its_origin(
    key: str, origin: str | None, expected: int, told: bool
) -> None:
    async with serving() as (_, client):
        headers = {"x-api-key": key} | ({"Origin": origin} if origin else {})
        for path in (STREAM, WHOLE):
            async with client.post(path, json=ASK, headers=headers) as response:
                assert response.status == expected
                assert response.headers.get("Access-Control-Allow-Origin") == (origin if told else None)
                assert ("x-request-id" in response.headers.get("Access-Control-Expose-Headers", "")) is told
                assert "*" not in response.headers.get("Access-Control-Allow-Origin", "")


# limits


async def test_a_key_that_asked_too_often_is_told_when_to_come_back() -> None:
    async with serving() as (running, client):
        for left in (2, 1, 0):
            async with client.post(STREAM, json=ASK, headers=bearer(FEW)) as response:
                assert response.status == 200
                assert response.headers["x-ratelimit-limit-requests"] == "3"
                assert response.headers["x-ratelimit-remaining-requests"] == str(left)
        for path in (STREAM, WHOLE, OPENAI):
            body = (
                {"model": "chat", "messages": [{"role": "user", "content": "hi"}]} if path == OPENAI else ASK
            )
            async with client.post(path, json=body, headers=bearer(FEW)) as response:
                answer = await response.json()
                assert response.status == 429
                after, exact = int(response.headers["Retry-After"]), int(response.headers["retry-after-ms"])
                assert exact <= after * 1000 < exact + 1000
                assert 0 < after <= 10
                assert response.headers["x-ratelimit-remaining-requests"] == "0"
                assert response.headers["x-ratelimit-reset-requests"].endswith("s")
            if path == OPENAI:
                assert answer["error"]["code"] == "rate_limit_exceeded"
            else:
                assert answer["error"] == "Too many requests"
        assert await status(client, bearer(ONE)) == 200
        assert (
            running.metric(
                'sluice_ratelimit_decisions_total{decision="refused",resource="requests",scope="key"}'
            )
            == 3
        )
        _, total = await running.runtime.conversations.newest(10)
        assert total == 2


async def test_what_is_refused_takes_nothing() -> None:
    async with serving() as (_, client):
        for _ in range(10):
            assert await status(client, bearer(FEW), message="") == 400
            assert await status(client, bearer(FEW), model="nope") == 404
        for _ in range(3):
            assert await status(client, bearer(FEW)) == 200
        async with client.post(WHOLE, json=ASK, headers=bearer(FEW)) as response:
            first = int(response.headers["retry-after-ms"])
        for _ in range(10):
            assert await status(client, bearer(FEW)) == 429
        async with client.post(WHOLE, json=ASK, headers=bearer(FEW)) as response:
            assert int(response.headers["retry-after-ms"]) <= first


async def test_a_burst_is_admitted_exactly() -> None:
    async with serving() as (_, client):
        answers = await asyncio.gather(*(status(client, bearer(FEW), sessionId=f"s{n}") for n in range(20)))
        assert sorted(answers) == [200] * 3 + [429] * 17


async def test_a_tokens_subject_has_a_bucket_of_its_own() -> None:
    more = f"""
jwt: [{{issuer: secret.example, audience: sluice, algorithms: [HS256], secret: "{SECRET}", default_alias: chat,
       limits: {{requests: {{rate: 1/min, burst: 1}}}}}}]
"""
    async with serving(more) as (_, client):
        assert [await status(client, bearer(token(sub=sub))) for sub in ("a", "a", "b", "b")] == [
            200,
            429,
            200,
            429,
        ]


FEW_A_MINUTE = "{rate: 1/min, burst: 2}"


async def test_an_addresss_limit_stands_before_authentication() -> None:
    async with serving(address=FEW_A_MINUTE) as (running, client):
        assert [await status(client, bearer(key)) for key in ("nobody", "nobody", "nobody", ONE)] == [
            401,
            401,
            429,
            429,
        ]
        async with client.post(WHOLE, json=ASK, headers=bearer(ONE)) as response:
            assert int(response.headers["Retry-After"]) > 0
            assert "limit" in (await response.json())["reason"].lower()
        assert running.metric('sluice_auth_failures_total{reason="unknown_key"}') == 2
        async with client.get("/health") as response:
            assert response.status == 200


async def test_an_address_that_a_caller_claims_is_believed_of_trusted_proxies_only() -> None:
    claimed = [{**bearer(ONE), "X-Forwarded-For": f"198.51.100.{n}"} for n in range(4)]
    async with serving(address=FEW_A_MINUTE) as (_, client):
        assert [await status(client, headers) for headers in claimed] == [200, 200, 429, 429]
    async with serving(address=FEW_A_MINUTE, proxies="127.0.0.0/8") as (_, client):
        assert [await status(client, headers) for headers in claimed] == [200] * 4
        same = {**bearer(ONE), "X-Forwarded-For": "203.0.113.9, 198.51.100.77"}
        forged = [{**same, "X-Forwarded-For": f"203.0.113.{n}, 198.51.100.77"} for n in range(2)]
        assert [await status(client, headers) for headers in (same, *forged)] == [200, 200, 429]


async def test_addresses_of_one_ipv6_network_share_a_bucket() -> None:
    async with serving(address=FEW_A_MINUTE, proxies="127.0.0.1/32") as (_, client):
        answers = [
            await status(client, {**bearer(ONE), "X-Forwarded-For": address})
            for address in (
                "2001:db8::1",
                "2001:db8::2",
                "2001:db8::ffff:3",
                "2001:db8:0:1::1",
                "[2001:db8::4]",
            )
        ]
        assert answers == [200, 200, 429, 200, 429]

"""JSON Web Tokens, made here by PyJWT and presented as a caller would."""

import base64
import hmac
import json
from pathlib import Path
from typing import Any

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from sluice.config.types import Claims, Config, Issuer, Key, Seconds, Secret
from sluice.errors import ConfigError, Unauthorized
from sluice.identity import Authenticator
from sluice.identity.jwks import Jwk, parse_jwks
from sluice.identity.jwt import Verifier, verify
from sluice.identity.keys import digest_of

NOW = 1_800_000_000.0
SECRET = "0123456789abcdef0123456789abcdef"
ISSUER = Issuer(
    issuer="https://i",
    audience="sluice",
    algorithms=("HS256",),
    secret=Secret(SECRET),
    leeway=Seconds(30),
    aliases=("a", "b"),
)
CLAIMS: dict[str, Any] = {"iss": "https://i", "aud": "sluice", "exp": NOW + 60, "sub": "tenant-1"}


def token(
    headers: dict[str, Any] | None = None, key: Any = SECRET, algorithm: str = "HS256", **changes: Any
) -> str:
    claims = {name: value for name, value in {**CLAIMS, **changes}.items() if value is not None}
    return jwt.encode(claims, key, algorithm, headers)


def reason(verifier: Verifier, presented: str) -> str:
    with pytest.raises(Unauthorized) as caught:
        verifier.principal(presented)
    return caught.value.reason


def verifier(issuer: Issuer = ISSUER, now: float = NOW) -> Verifier:
    return Verifier([issuer], clock=lambda: now)


def test_a_token_is_its_tenant() -> None:
    principal = verifier().principal(token())
    assert (principal.kind, principal.key_id, principal.tenant) == (
        "jwt",
        "jwt:https://i",
        "https://i|tenant-1",
    )
    assert principal.aliases == {"a", "b"}
    assert principal.bucket == "jwt:https://i|tenant-1"


def test_an_issuers_tenants_can_be_the_same_as_the_keys() -> None:
    assert verifier(msgspec.structs.replace(ISSUER, tenant_prefix="")).principal(token()).tenant == "tenant-1"


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("expired", {"exp": NOW - 30}, "expired"),
    ("no exp", {"exp": None}, "bad_signature"),
    ("exp as text", {"exp": str(NOW + 60)}, "bad_signature"),
    ("not yet", {"nbf": NOW + 31}, "expired"),
    ("another audience", {"aud": "other"}, "wrong_audience"),
    ("other audiences", {"aud": ["other", "sluice2"]}, "wrong_audience"),
    ("no audience", {"aud": None}, "bad_signature"),
    ("another issuer", {"iss": "https://j"}, "unknown_key"),
    ("no issuer", {"iss": None}, "unknown_key"),
    ("another key", {"key": SECRET[::-1]}, "bad_signature"),
    ("another algorithm", {"algorithm": "HS384"}, "bad_signature"),
    ("none", {"key": None, "algorithm": "none"}, "bad_signature"),
    ("critical extension", {"headers": {"crit": ["x"], "x": 1}}, "bad_signature"),
    ("no tenant", {"sub": None}, "unknown_key"),
    ("empty tenant", {"sub": ""}, "unknown_key"),
    ("unprintable tenant", {"sub": "a\nb"}, "unknown_key"),
    ("endless tenant", {"sub": "x" * 300}, "unknown_key"),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("changes", "expected"), [pytest.param(c, r, id=i) for i, c, r in REFUSED])
def test_refuses_with_the_reason(changes: dict[str, Any], expected: str) -> None:
    assert reason(verifier(), token(**changes)) == expected


@pytest.mark.parametrize(
    "changes", [{"exp": NOW - 29}, {"nbf": NOW + 30}, {"aud": ["x", "sluice"]}, {"exp": int(NOW) + 9}]
)
def test_accepts_within_the_leeway_and_any_listed_audience(changes: dict[str, Any]) -> None:
    assert verifier().principal(token(**changes)).tenant == "https://i|tenant-1"


def test_a_token_forged_by_hand_passes_only_with_the_secret() -> None:
    assert verifier().principal(forged({"alg": "HS256"}, SECRET.encode())).tenant == "https://i|tenant-1"
    assert reason(verifier(), forged({"alg": "HS256"}, b"")) == "bad_signature"


def test_any_changed_character_is_refused() -> None:
    good, check = token(), verifier()
    for index in range(len(good)):
        for other in "A_.=":
            if good[index] != other:
                assert reason(check, good[:index] + other + good[index + 1 :]) in (
                    "bad_signature",
                    "unknown_key",
                )


@pytest.mark.parametrize(
    "garbage", ["", ".", "..", "a.b", "a.b.c", "a.b.c.d", "e30.e30.", "....", "\ud800.a.b", "{}.{}.{}"]
)
def test_garbage_is_refused(garbage: str) -> None:
    with pytest.raises(Unauthorized):
        verify(garbage, Jwk("oct", k="x" * 64), ["HS256"])


CLAIMED: list[tuple[Any, tuple[str, ...], set[str]]] = [
    (None, ("a", "b"), {"a", "b"}),
    (["a"], ("a", "b"), {"a"}),
    ("a b", ("a", "b"), {"a", "b"}),
    (["a", "z"], ("a", "b"), {"a"}),
    (["z"], ("a", "b"), set()),
    ([], ("a", "b"), set()),
    (["*"], ("a", "b"), {"a", "b"}),
    (["z"], ("*",), {"z"}),
    (["o/m", "o/n*", "o", "p/m"], ("o/*",), {"o/m", "o/n*"}),
    (["a*"], ("a", "b"), set()),
    (None, ("*",), {"*"}),
    ([1, {"a": 1}], ("*",), set()),
    (7, ("a",), set()),
]


@pytest.mark.parametrize(("claimed", "granted", "aliases"), CLAIMED)
def test_a_token_may_ask_for_less_but_never_for_more(
    claimed: Any, granted: tuple[str, ...], aliases: set[str]
) -> None:
    issuer = Issuer(
        issuer="https://i", audience="sluice", algorithms=("HS256",), secret=Secret(SECRET), aliases=granted,
        claims=Claims(tenant="org", aliases="models"),
    )  # fmt: skip
    principal = verifier(issuer).principal(token(models=claimed, org="o"))
    assert (principal.tenant, principal.aliases) == ("https://i|o", aliases)


def test_a_verified_token_is_remembered_until_it_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    times = [NOW]
    check = Verifier([ISSUER], clock=lambda: times[0], cache_size=2)
    first = check.principal(token())
    calls: list[str] = []
    monkeypatch.setattr(
        "sluice.identity.jwt.verify", lambda presented, key, algorithms: calls.append(presented) or b""
    )
    assert check.principal(token()) is first
    assert not calls
    times[0] = NOW + 90
    assert reason(check, token()) == "bad_signature"  # asked again
    assert calls


def test_what_is_remembered_is_bounded() -> None:
    check = Verifier([ISSUER], clock=lambda: NOW, cache_size=2)
    for number in range(5):
        check.principal(token(jti=str(number)))
    assert len(check._cache) == 2


def jwks(tmp_path: Path, *keys: dict[str, Any]) -> str:
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": list(keys)}))
    return str(path)


def public(key: Any, algorithm: Any, **members: Any) -> dict[str, Any]:
    return {**algorithm.to_jwk(key.public_key(), as_dict=True), **members}


def forged(header: dict[str, Any], secret: bytes) -> str:
    """Signed by hand: PyJWT itself refuses to use public keys in this way."""
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, CLAIMS)]
    signature = hmac.digest(secret, b".".join(parts), "sha256")
    return b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


RSA = rsa.generate_private_key(65537, 2048)
SMALL_RSA = rsa.generate_private_key(65537, 1024)
P256, P384, P521 = (
    ec.generate_private_key(curve) for curve in (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1())
)
ED = ed25519.Ed25519PrivateKey.generate()
SETS = [
    ("RS256", RSA, RSAAlgorithm), ("PS384", RSA, RSAAlgorithm), ("RS512", RSA, RSAAlgorithm), ("ES256", P256, ECAlgorithm),
    ("ES384", P384, ECAlgorithm), ("ES512", P521, ECAlgorithm), ("EdDSA", ED, OKPAlgorithm),
]  # fmt: skip


def by_set(path: str, *algorithms: str) -> Issuer:
    return Issuer(issuer="https://i", audience="sluice", algorithms=algorithms, jwks_file=path)


@pytest.mark.parametrize(("algorithm", "key", "kind"), SETS, ids=[row[0] for row in SETS])
def test_verifies_by_public_keys(tmp_path: Path, algorithm: str, key: Any, kind: Any) -> None:
    other = {"kty": "XYZ", "kid": "unknown kinds are left out"}
    check = verifier(by_set(jwks(tmp_path, other, public(key, kind, kid="k1")), algorithm))
    assert check.principal(token({"kid": "k1"}, key, algorithm)).tenant == "https://i|tenant-1"
    assert check.principal(token(None, key, algorithm)).tenant == "https://i|tenant-1"
    assert reason(check, token({"kid": "k2"}, key, algorithm)) == "unknown_key"
    good = token({"kid": "k1"}, key, algorithm)
    assert reason(check, good[:-8] + "AAAAAAAA") == "bad_signature"


def test_a_public_key_is_never_a_shared_secret(tmp_path: Path) -> None:
    """RFC 8725 section 2.1: alg changed to HS256, signed with what everyone knows."""
    key = public(RSA, RSAAlgorithm, kid="k1")
    check = verifier(by_set(jwks(tmp_path, key), "RS256"))
    for secret in (json.dumps(key).encode(), base64.urlsafe_b64decode(key["n"] + "=="), key["n"].encode()):
        assert reason(check, forged({"alg": "HS256", "kid": "k1"}, secret)) == "unknown_key"
        assert reason(check, forged({"alg": "HS256"}, secret)) == "bad_signature"


def test_chooses_by_kid(tmp_path: Path) -> None:
    other = rsa.generate_private_key(65537, 2048)
    path = jwks(tmp_path, public(RSA, RSAAlgorithm, kid="one"), public(other, RSAAlgorithm, kid="two"))
    check = verifier(by_set(path, "RS256"))
    assert check.principal(token({"kid": "two"}, other, "RS256")).tenant == "https://i|tenant-1"
    assert reason(check, token({"kid": "one"}, other, "RS256")) == "bad_signature"


UNUSABLE: list[tuple[str, Any, dict[str, Any]]] = [
    ("for encryption", RSA, {"use": "enc"}),
    ("may not verify", RSA, {"key_ops": ["encrypt"]}),
    ("for another algorithm", RSA, {"alg": "PS256"}),
    ("too short", SMALL_RSA, {}),
]


@pytest.mark.parametrize(("key", "members"), [pytest.param(k, m, id=i) for i, k, m in UNUSABLE])
def test_a_set_without_a_usable_key_is_refused_at_start(
    tmp_path: Path, key: Any, members: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match="no key of jwks_file may verify RS256"):
        verifier(by_set(jwks(tmp_path, public(key, RSAAlgorithm, **members)), "RS256"))


@pytest.mark.parametrize(("size", "algorithm"), [(31, "HS256"), (47, "HS384"), (63, "HS512")])
def test_a_short_secret_is_refused_at_start(size: int, algorithm: str) -> None:
    issuer = Issuer(issuer="i", audience="a", algorithms=(algorithm,), secret=Secret("s" * size))
    with pytest.raises(ConfigError, match="too short"):
        verifier(issuer)
    verifier(Issuer(issuer="i", audience="a", algorithms=(algorithm,), secret=Secret("s" * (size + 1))))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys": 1}',
        b'{"keys": [1]}',
        b'{"keys": [{"kty": 1}]}',
        b"\xff",
        b'{"keys": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    ],
    ids=range(8),
)
def test_what_is_no_key_set_says_so(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a JSON Web Key Set"):
        parse_jwks(data)


@pytest.mark.parametrize("odd", [1, None, {}, {"kty": None}, {"kty": []}, {"kty": "RSA", "n": 5}, "x"])
def test_one_odd_key_of_a_set_hides_no_other(odd: Any) -> None:
    known = {"kty": "oct", "k": "c2VjcmV0", "kid": "k1"}
    assert [key.kid for key in parse_jwks(json.dumps({"keys": [odd, known]}).encode())] == ["k1"]


def test_keys_do_not_show_themselves() -> None:
    assert "sekret" not in repr(Jwk("oct", k="sekret"))


def test_only_a_bearer_is_a_token_and_a_known_key_comes_first() -> None:
    presented = token(exp=4_000_000_000)
    config = Config(upstreams={}, aliases={}, jwt=(ISSUER,))
    authenticator = Authenticator(config)
    assert authenticator.identify_now([(b"authorization", f"Bearer {presented}".encode())]).kind == "jwt"
    with pytest.raises(Unauthorized) as caught:
        authenticator.identify_now([(b"x-api-key", presented.encode())])
    assert caught.value.reason == "unknown_key"
    with pytest.raises(Unauthorized) as caught:
        authenticator.identify_now([(b"authorization", b"Bearer not-a-token")])
    assert caught.value.reason == "unknown_key"
    with_key = Config(
        upstreams={}, aliases={}, jwt=(ISSUER,), keys=(Key(id="k", digest=digest_of(presented)),)
    )
    assert (
        Authenticator(with_key).identify_now([(b"authorization", f"Bearer {presented}".encode())]).kind
        == "key"
    )

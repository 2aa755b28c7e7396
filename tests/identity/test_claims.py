"""Tokens with a valid signature and wrong contents, and what else is tried with headers: one row each, one
reason each.

All are signed by the issuer's own key (ES256) unless the row says otherwise. RFC 7515, RFC 7519, RFC 8725.
"""

import base64
import json
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from sluice.config.types import Issuer, Seconds
from sluice.errors import Unauthorized
from sluice.identity.jwks import ConfiguredKeys, parse_jwks
from sluice.identity.jwt import Verifier
from tests.identity.provider import private, provider, public

NOW = 1_800_000_000
ISSUER = Issuer(
    issuer="https://i",
    audience="sluice",
    algorithms=("ES256",),
    jwks_url="https://i/jwks",
    leeway=Seconds(30),
)
HEADER: dict[str, Any] = {"alg": "ES256", "kid": "k1"}
CLAIMS: dict[str, Any] = {"iss": "https://i", "aud": "sluice", "exp": NOW + 60, "sub": "u"}
ABSENT = object()


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def changed(usual: dict[str, Any], changes: dict[str, Any] | bytes) -> bytes:
    if isinstance(changes, bytes):
        return changes
    return json.dumps(
        {name: value for name, value in {**usual, **changes}.items() if value is not ABSENT}
    ).encode()


def signature(signed: str, kid: str = "k1") -> bytes:
    numbers = decode_dss_signature(private(kid).sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
    return b"".join(number.to_bytes(32, "big") for number in numbers)


def token(
    claims: dict[str, Any] | bytes = b"", header: dict[str, Any] | bytes | None = None, kid: str = "k1"
) -> str:
    signed = f"{encoded(changed(HEADER, header or {}))}.{encoded(changed(CLAIMS, claims or {}))}"
    return f"{signed}.{encoded(signature(signed, kid))}"


def verifier() -> Verifier:
    keys = ConfiguredKeys(parse_jwks(msgspec.json.encode({"keys": [public("k1")]})))
    return Verifier([ISSUER], clock=lambda: NOW, fetched={ISSUER.issuer: keys})


def outcome(presented: str) -> str:
    try:
        verifier().principal(presented)
    except Unauthorized as refused:
        return refused.reason
    return "accepted"


def object_with(pairs: str) -> bytes:
    """The usual claims, with more text before the closing brace."""
    return (json.dumps(CLAIMS)[:-1] + f", {pairs}}}").encode()


DEEP = b'{"iss": "https://i", "x": ' + b"[" * 5000 + b"]" * 5000 + b"}"

CONTENTS: list[tuple[str, dict[str, Any] | bytes, str]] = [
    ("exp missing", {"exp": ABSENT}, "bad_signature"),
    ("exp null", {"exp": None}, "bad_signature"),
    ("exp as text", {"exp": str(NOW + 60)}, "bad_signature"),
    ("exp true", {"exp": True}, "bad_signature"),
    ("exp a list", {"exp": [NOW + 60]}, "bad_signature"),
    ("exp NaN", object_with('"exp": NaN'), "unknown_key"),
    ("exp Infinity", object_with('"exp": Infinity'), "unknown_key"),
    ("exp beyond a double", object_with('"exp": 1e400'), "bad_signature"),
    ("exp negative", {"exp": -1}, "expired"),
    ("exp at the end of the leeway", {"exp": NOW - 30}, "expired"),
    ("exp within the leeway", {"exp": NOW - 29.5}, "accepted"),
    ("nbf beyond the leeway", {"nbf": NOW + 30.5}, "expired"),
    ("nbf within the leeway", {"nbf": NOW + 30}, "accepted"),
    ("nbf as text", {"nbf": "0"}, "bad_signature"),
    ("nbf null", {"nbf": None}, "bad_signature"),
    ("iss missing", {"iss": ABSENT}, "unknown_key"),
    ("iss a number", {"iss": 1}, "unknown_key"),
    ("iss a list", {"iss": ["https://i"]}, "unknown_key"),
    ("iss in another case", {"iss": "HTTPS://i"}, "unknown_key"),
    ("iss with a slash more", {"iss": "https://i/"}, "unknown_key"),
    ("aud missing", {"aud": ABSENT}, "bad_signature"),
    ("aud null", {"aud": None}, "bad_signature"),
    ("aud empty", {"aud": ""}, "wrong_audience"),
    ("aud of nobody", {"aud": []}, "wrong_audience"),
    ("aud beginning like ours", {"aud": "sluice2"}, "wrong_audience"),
    ("aud holding ours", {"aud": "other sluice"}, "wrong_audience"),
    ("aud in another case", {"aud": "Sluice"}, "wrong_audience"),
    ("aud among others", {"aud": ["other", "sluice"]}, "accepted"),
    ("aud beside a number", {"aud": ["sluice", 1]}, "bad_signature"),
    ("aud nested", {"aud": [["sluice"]]}, "bad_signature"),
    ("aud an object", {"aud": {"sluice": True}}, "bad_signature"),
    ("sub missing", {"sub": ABSENT}, "unknown_key"),
    ("sub a number", {"sub": 17}, "unknown_key"),
    ("sub an object", {"sub": {"$ne": ""}}, "unknown_key"),
    ("sub with a line break", {"sub": "u\nx"}, "unknown_key"),
    ("exp twice, good then bad", object_with('"exp": 1'), "expired"),  # the last counts: RFC 7519 section 4
    ("iss twice, good then bad", object_with('"iss": "https://j"'), "unknown_key"),
    ("aud twice, good then bad", object_with('"aud": "other"'), "wrong_audience"),
    ("sub twice", object_with('"sub": ""'), "unknown_key"),
    ("unknown claims", {"x": {"y": [1, None]}, "jti": 5, "iat": "then"}, "accepted"),
    ("a list", b"[]", "unknown_key"),
    ("a text", b'"https://i"', "unknown_key"),
    ("a token in a token", encoded(b"{}").encode() + b".e30.", "unknown_key"),
    ("not UTF-8", b'{"iss": "https://i", "x": "\xff"}', "bad_signature"),
    ("UTF-16", json.dumps(CLAIMS).encode("utf-16"), "unknown_key"),
    ("a byte order mark", b"\xef\xbb\xbf" + json.dumps(CLAIMS).encode(), "unknown_key"),
    ("something after it", json.dumps(CLAIMS).encode() + b"{}", "unknown_key"),
    ("nested without end", DEEP, "unknown_key"),
    ("a number without end", object_with('"x": ' + "9" * 8000), "bad_signature"),
]


@pytest.mark.parametrize(("claims", "expected"), [pytest.param(c, e, id=i) for i, c, e in CONTENTS])
def test_a_signature_is_not_enough(claims: dict[str, Any] | bytes, expected: str) -> None:
    assert outcome(token(claims)) == expected


HEADERS: list[tuple[str, dict[str, Any] | bytes, str]] = [
    ("alg none", {"alg": "none"}, "unknown_key"),
    ("alg none without kid", {"alg": "none", "kid": ABSENT}, "bad_signature"),
    ("alg nOnE", {"alg": "nOnE", "kid": ABSENT}, "bad_signature"),
    ("alg empty", {"alg": "", "kid": ABSENT}, "bad_signature"),
    ("alg missing", {"alg": ABSENT}, "bad_signature"),
    ("alg a list", {"alg": ["ES256"]}, "bad_signature"),
    ("alg in lower case", {"alg": "es256", "kid": ABSENT}, "bad_signature"),
    ("alg of another curve", {"alg": "ES384", "kid": ABSENT}, "bad_signature"),
    ("alg symmetric", {"alg": "HS256", "kid": ABSENT}, "bad_signature"),
    ("alg twice, good then none", b'{"alg": "ES256", "alg": "none"}', "bad_signature"),
    ("crit of something unknown", {"crit": ["exp"], "exp": 1}, "bad_signature"),
    ("crit empty", {"crit": []}, "bad_signature"),
    ("crit b64", {"crit": ["b64"], "b64": True}, "bad_signature"),
    ("b64 false", {"b64": False}, "bad_signature"),
    ("b64 as text", {"b64": "false"}, "bad_signature"),
    ("kid a path", {"kid": "../../../../dev/null"}, "unknown_key"),
    ("kid a query", {"kid": "k1' OR '1'='1"}, "unknown_key"),
    ("kid with a null byte", {"kid": "k1\0"}, "unknown_key"),
    ("kid empty", {"kid": ""}, "unknown_key"),
    ("kid a number", {"kid": 1}, "bad_signature"),
    ("kid in another case", {"kid": "K1"}, "unknown_key"),
    ("kid without end", {"kid": "k" * 8000}, "unknown_key"),
    ("no kid", {"kid": ABSENT}, "accepted"),
    ("typ of an access token", {"typ": "at+jwt"}, "accepted"),
    ("unknown members", {"x": [1], "zip": "DEF"}, "accepted"),
    ("a list", b"[]", "bad_signature"),
    ("nothing", b" ", "bad_signature"),
    ("not UTF-8", b'{"alg": "ES256", "x": "\xff"}', "bad_signature"),
    ("nested without end", b'{"alg": "ES256", "x": ' + b"[" * 5000 + b"]" * 5000 + b"}", "bad_signature"),
]


@pytest.mark.parametrize(("header", "expected"), [pytest.param(h, e, id=i) for i, h, e in HEADERS])
def test_a_header_chooses_nothing_that_the_configuration_does_not_allow(header: Any, expected: str) -> None:
    assert outcome(token(header=header)) == expected


async def test_keys_that_a_token_brings_or_points_to_are_neither_used_nor_fetched() -> None:
    """RFC 8725 section 3.10: a stranger signs, and says where his key is."""
    async with provider() as idp:
        idp.publish("stranger")
        url = f"{idp.url}/jwks.json"
        brought: list[dict[str, Any]] = [
            {"jwk": public("stranger")}, {"jku": url}, {"x5u": url}, {"x5c": [encoded(b"x")]}, {"kid": url},
            {"jwk": public("stranger"), "kid": "stranger"}, {"jku": "file:///dev/null"},
        ]  # fmt: skip
        for header in brought:
            assert outcome(token(header=header, kid="stranger")) in ("bad_signature", "unknown_key")
            assert outcome(token(header={**header, "kid": "k1"})) == "accepted"
        assert (idp.fetches, idp.discoveries) == (0, 0)


def test_a_signature_has_one_form() -> None:
    good = token()
    signed, _, signed_by = good.rpartition(".")
    raw = signature(signed)
    der = private("k1").sign(signed.encode(), ec.ECDSA(hashes.SHA256()))
    bad = {
        "none": f"{signed}.",
        "zeros": f"{signed}.{encoded(bytes(64))}",  # CVE-2022-21449
        "DER": f"{signed}.{encoded(der)}",
        "longer": f"{signed}.{encoded(raw + bytes(1))}",
        "shorter": f"{signed}.{encoded(raw[:-1])}",
        "of another token": f"{signed}.{encoded(signature(signed + 'A'))}",
        "padded": good + "==",
        "four parts": good + ".",
        "five parts": f"{good}.e30.e30",
        "a space before": " " + good,
        "a line break after": good + "\n",
        "standard base64": f"{signed}.+/{signed_by[2:]}",
    }
    assert outcome(good) == "accepted"
    assert [
        name for name, presented in bad.items() if outcome(presented) not in ("bad_signature", "unknown_key")
    ] == []

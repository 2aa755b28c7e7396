"""Project Wycheproof's JSON Web Signature vectors, read from ../shared: invalid ones must be refused.

Six of the 401 contradict others of them, or the RFCs; they are named here with the reason, and nothing else
is excused.
"""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sluice.errors import Unauthorized
from sluice.identity.jwks import ALGORITHMS, Jwk, parse_jwks
from sluice.identity.jwt import verify

VECTORS = (
    Path(__file__).parents[2].parent
    / "shared/security/wycheproof/testvectors_v1/json_web_signature_test.json"
)
EVERY = [name for names in ALGORITHMS.values() for name in names]

REFUSED_THOUGH_VALID = {
    346: "the key says alg PS256, the token PS384: RFC 7517 section 4.4, and vectors 331 to 340 want it refused",
    350: "as 346",
    372: "a question mark in the header is not base64url: RFC 7515 section 2",
    373: "a question mark in the payload is not base64url",
}

SAME_BYTES_AS_A_VALID_ONE = {367: 357, 370: 357}
"""Their padding was lost in the making: token and key are those of a vector that must be accepted."""


def vectors() -> list[tuple[int, str, Jwk, str]]:
    if not VECTORS.exists():
        return []
    groups = json.loads(VECTORS.read_text())["testGroups"]
    return [
        (test["tcId"], test["result"], _key(group), test["jws"])
        for group in groups
        for test in group["tests"]
    ]


def _key(group: dict[str, Any]) -> Jwk:
    (key,) = parse_jwks(msgspec.json.encode({"keys": [group.get("public") or group["private"]]}))
    return key


def accepted(token: str, key: Jwk) -> bool:
    try:
        verify(token, key, EVERY)
    except Unauthorized:
        return False
    return True


@pytest.mark.skipif(
    not VECTORS.exists(), reason=f"{VECTORS.name} is not beside this checkout (../shared/security)"
)
def test_every_invalid_signature_is_refused_and_valid_ones_are_accepted() -> None:
    rows = {number: (result, key, token) for number, result, key, token in vectors()}
    outcomes = {number: (result, accepted(token, key)) for number, (result, key, token) in rows.items()}
    taken = [number for number, outcome in outcomes.items() if outcome == ("invalid", True)]
    assert taken == sorted(SAME_BYTES_AS_A_VALID_ONE)
    assert all(rows[one][1:] == rows[other][1:] for one, other in SAME_BYTES_AS_A_VALID_ONE.items())
    refused = [number for number, outcome in outcomes.items() if outcome == ("valid", False)]
    assert refused == sorted(REFUSED_THOUGH_VALID)
    assert [sum(1 for result, _ in outcomes.values() if result == kind) for kind in ("invalid", "valid")] == [
        355,
        46,
    ]

"""Keys by their digests: which are let in, and until when."""

import pytest

from sluice.config.types import Key
from sluice.errors import Unauthorized
from sluice.identity.keys import Keyring, digest_of, new_key, timestamp


def key(id: str, secret: str, **fields: object) -> Key:
    return Key(id=id, digest=digest_of(secret), aliases=("chat",), **fields)  # type: ignore[arg-type]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_key_is_found_by_its_secret_alone() -> None:
    ring = Keyring([key("a", "one"), key("b", "two")], Clock())
    found = ring.find("one")
    assert found is not None
    assert (found.key_id, found.bucket) == ("a", "a")
    assert ring.find("three") is None
    assert ring.find("") is None
    assert Keyring([]).find("one") is None


@pytest.mark.parametrize(
    ("fields", "reason"), [({"enabled": False}, "revoked"), ({"expires": "1970-01-01T00:16:40Z"}, "expired")]
)
def test_a_key_that_may_not_be_used_any_more_says_why(fields: dict[str, object], reason: str) -> None:
    ring = Keyring([key("a", "one", **fields)], Clock())
    with pytest.raises(Unauthorized) as refused:
        ring.find("one")
    assert refused.value.reason == reason
    assert ring.named("a") is None


def test_a_rotated_key_works_until_its_time() -> None:
    clock = Clock()
    ring = Keyring([], clock, digest=lambda secret: secret)
    ring.put(key("a", "unused"), {b"new": float("inf"), b"old": 1010.0})
    assert ring.find("old") is not None
    clock.now = 1010.0
    with pytest.raises(Unauthorized):
        ring.find("old")
    assert ring.find("new") is not None
    ring.put(key("a", "unused"), {b"newer": float("inf")})
    assert (ring.find("new"), ring.find("old"), len(ring)) == (None, None, 1)
    ring.drop("a")
    assert (ring.find("newer"), ring.named("a"), len(ring)) == (None, None, 0)


def test_new_keys_are_random_and_digests_are_of_all_of_them() -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert len({digest_of(one) for one in keys}) == 100
    assert min(map(len, keys)) >= 43


@pytest.mark.parametrize(
    "text", ["", "tomorrow", "2027-01-31", "2027-01-31T00:00:00", "2027-13-01T00:00:00Z"]
)
def test_a_time_without_an_offset_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="RFC 3339"):
        timestamp(text)


def test_offsets_count() -> None:
    assert timestamp("1970-01-01T01:00:00+01:00") == 0.0

"""The keys in memory: who is let in, until when, and what a look-up costs."""

import hashlib
from typing import Any

import pytest

from sluice.config.types import Budget, KeyLimits
from sluice.errors import Unauthorized
from sluice.keystore import KeyEntry, Superseded
from sluice.keystore.table import KeyTable
from tests.keystore.keys import stored

NOW = 1_900_000_000.0


class Lab:
    """A table with a clock, and keys whose secrets are their ids."""

    def __init__(self, **options: Any) -> None:
        self.now = NOW
        self.table = KeyTable(clock=lambda: self.now, **options)

    def put(self, id: str, secret: str = "", old: tuple[str, float] | None = None, **fields: Any) -> None:
        digest = self.table.digest
        superseded = Superseded(digest(old[0]), old[1]) if old is not None else None
        self.table.put(KeyEntry(id, 1, stored(id, digest=digest(secret or id), old=superseded, **fields)))

    def found(self, secret: str) -> str | None:
        try:
            principal = self.table.keyring.find(secret)
        except Unauthorized as refused:
            return refused.reason
        return principal.key_id if principal is not None else None


def test_a_key_is_let_in_with_what_it_may_do() -> None:
    lab = Lab()
    lab.put("a", tenant="t", aliases=("chat",), origins=("https://x.example",))
    principal = lab.table.keyring.find("a")
    assert principal is not None
    assert (principal.key_id, principal.tenant, principal.bucket, principal.kind) == ("a", "t", "a", "key")
    assert (principal.aliases, principal.default_alias, principal.origins) == (
        {"chat"},
        "chat",
        ("https://x.example",),
    )
    assert lab.table.keyring.named("a") == principal
    assert (lab.found("b"), lab.table.keyring.named("b")) == (None, None)


def test_a_key_that_is_disabled_expired_or_gone_is_not() -> None:
    lab = Lab()
    lab.put("a", expires="2030-03-17T17:46:41Z")  # one second from now
    assert lab.found("a") == "a"
    lab.now += 1
    assert (lab.found("a"), lab.table.keyring.named("a")) == ("expired", None)
    lab.put("a", enabled=False)
    assert (lab.found("a"), lab.table.keyring.named("a")) == ("revoked", None)
    lab.put("a")
    assert lab.found("a") == "a"
    lab.table.drop("a")
    assert (lab.found("a"), lab.table.keyring.named("a"), len(lab.table)) == (None, None, 0)


def test_a_key_that_was_rotated_works_until_its_overlap_ends() -> None:
    lab = Lab()
    lab.put("a", "first")
    lab.put("a", "second", old=("first", NOW + 10))
    assert (lab.found("first"), lab.found("second")) == ("a", "a")
    lab.now += 10
    assert (lab.found("first"), lab.found("second")) == ("expired", "a")
    assert lab.table.keyring.named("a") is not None
    lab.put("a", "third", old=("second", NOW + 20))
    assert (lab.found("first"), lab.found("second"), lab.found("third")) == (None, "a", "a")
    lab.put("a", "third", old=("second", NOW + 20), enabled=False)
    assert (lab.found("second"), lab.found("third")) == ("revoked", "revoked")


def test_digests_of_another_pepper_let_nobody_in() -> None:
    salted, other = Lab(pepper=b"salt"), Lab(pepper=b"pepper")
    plain = Lab()
    for lab in (plain, salted, other):
        for kept in (plain, salted, other):
            lab.table.put(KeyEntry("a", 1, stored("a", digest=kept.table.digest("secret"))))
            assert (lab.found("secret") == "a") is (lab is kept)
    assert plain.table.digest("secret") == "sha256:" + hashlib.sha256(b"secret").hexdigest()
    assert salted.table.digest("secret").startswith("hmac-sha256:")


def test_an_id_of_the_configuration_is_the_configured_keys() -> None:
    lab = Lab(configured=frozenset({"a"}))
    lab.put("a", origins=("https://x.example",))
    assert (lab.found("a"), lab.table.keyring.named("a"), dict(lab.table.origins)) == (None, None, {})
    lab.table.drop("a")
    assert len(lab.table) == 0


@pytest.mark.parametrize("fields", [{"digest": "sha256:xyz"}, {"digest": ""}, {"expires": "soon"}])
def test_a_key_that_was_tampered_with_lets_nobody_in_and_breaks_nothing(fields: dict[str, str]) -> None:
    lab = Lab()
    lab.put("a")
    lab.table.put(KeyEntry("a", 2, stored("a", **{"digest": lab.table.digest("a")} | fields)))
    assert (lab.found("a"), len(lab.table)) == (None, 1)
    lab.table.put(KeyEntry("a", 3, None))
    assert (lab.found("a"), len(lab.table)) == (None, 1)


def test_origins_are_those_of_all_keys() -> None:
    lab = Lab()
    one, two = "https://one.example", "https://two.example"
    lab.put("a", origins=(one, two))
    lab.put("b", origins=(one,))
    lab.put("a", origins=())
    assert (one in lab.table.origins, two in lab.table.origins) == (True, False)
    lab.table.drop("b")
    assert one not in lab.table.origins


def test_ids_come_in_the_order_of_the_alphabet() -> None:
    lab = Lab()
    for id in ("b", "a", "d", "C", "a/1"):
        lab.put(id)
    assert lab.table.ids_after("", 10) == ["C", "a", "a/1", "b", "d"]
    assert lab.table.ids_after("a", 2) == ["a/1", "b"]
    assert lab.table.ids_after("d", 2) == []


class Counted(dict[bytes, Any]):
    """A dict that must not be walked through, and counts how often it is looked into."""

    looks = 0

    def get(self, key: bytes, default: Any = None) -> Any:
        self.looks += 1
        return super().get(key, default)

    def __iter__(self) -> Any:
        raise AssertionError("a scan")

    items = values = keys = __iter__


def test_ten_thousand_keys_are_one_look_into_a_dict() -> None:
    lab = Lab()
    for number in range(10_000):
        lab.put(f"k{number}")
    keyring = lab.table.keyring
    counted = keyring._entries = Counted(keyring._entries)
    assert [lab.found(secret) for secret in ("k0", "k5000", "k9999", "nobody")] == [
        "k0",
        "k5000",
        "k9999",
        None,
    ]
    assert counted.looks == 4


def test_ids_that_the_configuration_takes_or_gives_up_change_who_is_let_in() -> None:
    lab = Lab(configured=frozenset("a"))
    for id in "ab":
        lab.put(id, origins=(f"https://{id}.example",), limits=KeyLimits(budget=Budget(day=1.0)))
    assert [lab.found(id) for id in "ab"] == [None, "b"]
    assert set(lab.table.budgets_beside(frozenset("b"))) == {"a"}
    lab.table.configure(frozenset("bc"))
    assert [lab.found(id) for id in "ab"] == ["a", None]
    assert set(lab.table.budgets) == {"a"}
    assert dict(lab.table.origins) == {"https://a.example": 1}
    lab.table.configure(frozenset())
    assert [lab.found(id) for id in "ab"] == ["a", "b"]
    assert len(lab.table) == 2

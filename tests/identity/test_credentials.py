"""What counts as a credential in a request, and whose key it is."""

import hashlib
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.config.types import Config, Key, KeyLimits, Limit, Rate
from sluice.errors import Unauthorized
from sluice.identity import Authenticator
from sluice.identity.keys import HEADERS, Keyring, credentials_of, digest_of, new_key, only_secret, timestamp

OTHERS = frozenset(("x-widget-api-key",))
"""What a client dialect adds."""
WITH_OTHERS = HEADERS.union(name.encode() for name in OTHERS)

Headers = Sequence[tuple[bytes, bytes]]

READ: list[tuple[str, Headers, str | None]] = [
    ("none", [(b"Host", b"x"), (b"Accept", b"y")], None),
    ("x-api-key", [(b"x-api-key", b"k1")], "k1"),
    ("any case", [(b"X-API-Key", b"k1")], "k1"),
    ("older spelling", [(b"X-Widget-Api-Key", b"k1")], "k1"),
    ("bearer", [(b"Authorization", b"Bearer k1")], "k1"),
    ("bearer in any case", [(b"authorization", b"bEARER   k1")], "k1"),
    ("white space around", [(b"x-api-key", b" \tk1 ")], "k1"),
    ("the same twice in two headers", [(b"x-api-key", b"k1"), (b"x-widget-api-key", b"k1")], "k1"),
    (
        "the same in three",
        [(b"x-api-key", b"k1"), (b"x-widget-api-key", b"k1"), (b"authorization", b"Bearer k1")],
        "k1",
    ),
    ("an empty one is absent", [(b"x-api-key", b""), (b"x-widget-api-key", b"k1")], "k1"),
    ("empty authorization", [(b"authorization", b" ")], None),
    ("another header of that length", [(b"x-api-kez", b"k1"), (b"x_api_key", b"k2")], None),
]


@pytest.mark.parametrize(("headers", "secret"), [pytest.param(h, s, id=i) for i, h, s in READ])
def test_reads_the_one_credential(headers: Headers, secret: str | None) -> None:
    credential = credentials_of(headers, WITH_OTHERS)
    assert (credential and credential.secret) == secret


REFUSED: list[tuple[str, Headers, str]] = [
    ("doubled", [(b"x-api-key", b"k1"), (b"x-api-key", b"k1")], "ambiguous"),
    ("doubled in another case", [(b"x-api-key", b"k1"), (b"X-API-KEY", b"k1")], "ambiguous"),
    ("doubled, one empty", [(b"x-api-key", b"k1"), (b"x-api-key", b"")], "ambiguous"),
    (
        "doubled authorization",
        [(b"authorization", b"Bearer k1"), (b"authorization", b"Bearer k1")],
        "ambiguous",
    ),
    ("two different", [(b"x-api-key", b"k1"), (b"x-widget-api-key", b"k2")], "ambiguous"),
    ("two different kinds", [(b"x-api-key", b"k1"), (b"authorization", b"Bearer k2")], "ambiguous"),
    ("basic", [(b"authorization", b"Basic dTpw")], "unknown_key"),
    ("basic beside a key", [(b"x-api-key", b"k1"), (b"authorization", b"Basic dTpw")], "unknown_key"),
    ("no scheme", [(b"authorization", b"k1")], "unknown_key"),
    ("no token", [(b"authorization", b"Bearer")], "unknown_key"),
    ("two tokens", [(b"authorization", b"Bearer k1 k2")], "unknown_key"),
    ("joined by a proxy", [(b"authorization", b"Bearer k1, Bearer k2")], "unknown_key"),
    ("tab", [(b"authorization", b"Bearer\tk1")], "unknown_key"),
    ("space inside", [(b"x-api-key", b"k 1")], "unknown_key"),
    ("control character", [(b"x-api-key", b"k\x001")], "unknown_key"),
    ("line break", [(b"x-api-key", b"k1\n")], "unknown_key"),
    ("delete", [(b"x-api-key", b"k\x7f")], "unknown_key"),
    ("not ascii", [(b"x-api-key", "schlüssel".encode())], "unknown_key"),
    ("endless", [(b"x-api-key", b"k" * 20_000)], "unknown_key"),
]


@pytest.mark.parametrize(("headers", "reason"), [pytest.param(h, r, id=i) for i, h, r in REFUSED])
def test_refuses_what_is_ambiguous_or_cannot_be_a_credential(headers: Headers, reason: str) -> None:
    for order in (headers, list(reversed(headers))):
        with pytest.raises(Unauthorized) as caught:
            credentials_of(order, WITH_OTHERS)
        assert caught.value.reason == reason
        assert caught.value.__context__ is None
        assert all(value.decode("latin-1") not in str(caught.value) for _, value in headers if value)


def by_name(headers: Headers) -> dict[str, str]:
    """As the server joins them."""
    fields: dict[str, str] = {}
    for name, value in headers:
        key, text = name.decode().lower(), value.strip(b" \t").decode("latin-1")
        fields[key] = f"{fields[key]}, {text}" if key in fields else text
    return fields


PIECES = st.sampled_from(
    [b"", b"k1", b"k2", b"Bearer k1", b"bearer k1", b"Bearer  k1", b"Basic k1", b"Bearer", b"k\x80", b"a,b"]
)
NAMES = st.sampled_from(
    [b"x-api-key", b"X-Api-Key", b"x-widget-api-key", b"authorization", b"Authorization", b"host"]
)


@given(st.lists(st.tuples(NAMES, PIECES), max_size=4))
def test_the_short_way_finds_what_the_long_one_finds_or_nothing(headers: Headers) -> None:
    secret = only_secret(by_name(headers), OTHERS)
    if secret:
        assert secret == credentials_of(headers, WITH_OTHERS).secret  # type: ignore[union-attr]


def test_the_short_way_is_gone_by_those_who_send_one_credential() -> None:
    assert only_secret({"x-api-key": "k1", "host": "x"}) == "k1"
    assert only_secret({"authorization": "Bearer k1"}) == "k1"


def test_a_credential_does_not_show_itself() -> None:
    assert "k1" not in repr(credentials_of([(b"x-api-key", b"k1")]))


def config(*keys: Key) -> Config:
    return Config(upstreams={}, aliases={}, keys=keys)


def test_a_known_key_is_its_principal() -> None:
    limits = KeyLimits(requests=Limit(rate=Rate(1)))
    secret = new_key()
    keys = [Key(id=f"k{n}", digest=digest_of(new_key())) for n in range(20)]
    mine = Key(
        id="mine",
        digest=digest_of(secret),
        tenant="t",
        aliases=("a", "b"),
        default_alias="b",
        limits=limits,
        origins=("o",),
    )
    principal = Authenticator(config(*keys, mine)).identify_now([(b"x-api-key", secret.encode())])
    assert (principal.key_id, principal.tenant, principal.bucket, principal.kind) == (
        "mine",
        "t",
        "mine",
        "key",
    )
    assert (principal.default_alias, principal.limits, principal.origins) == ("b", limits, ("o",))
    assert [principal.may(name) for name in ("a", "b", "c")] == [True, True, False]
    assert secret not in repr(principal)


@pytest.mark.parametrize(
    ("aliases", "configured", "default"),
    [
        (("*",), None, None),
        (("*",), "x", "x"),
        (("a",), None, "a"),
        (("a", "b"), None, None),
        (("a", "b"), "b", "b"),
    ],
)
def test_the_only_alias_is_the_default(
    aliases: tuple[str, ...], configured: str | None, default: str | None
) -> None:
    ring = Keyring([Key(id="k", digest=digest_of("s"), aliases=aliases, default_alias=configured)])
    principal = ring.find("s")
    assert principal is not None
    assert principal.tenant == "k"
    assert principal.default_alias == default
    assert principal.may("anything") is (aliases == ("*",))


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ([], "missing"),
        ([(b"x-api-key", b"")], "missing"),
        ([(b"x-api-key", b"stranger")], "unknown_key"),
        ([(b"authorization", b"Bearer a.b.c")], "unknown_key"),
        ([(b"x-api-key", b"off")], "revoked"),
        ([(b"x-api-key", b"old")], "expired"),
    ],
)
def test_refuses_with_the_reason_that_metrics_name(headers: Headers, reason: str) -> None:
    off = Key(id="off", digest=digest_of("off"), enabled=False, expires="2020-01-01T00:00:00Z")
    old = Key(id="old", digest=digest_of("old"), expires="2027-01-31T12:00:00+02:00")
    authenticator = Authenticator(config(off, old), clock=lambda: timestamp("2027-01-31T10:00:00Z"))
    with pytest.raises(Unauthorized) as caught:
        authenticator.identify_now(headers)
    assert caught.value.reason == reason


def test_a_key_works_until_it_expires() -> None:
    now = timestamp("2027-01-31T09:59:59.999Z")
    ring = Keyring([Key(id="k", digest=digest_of("s"), expires="2027-01-31T10:00:00Z")], clock=lambda: now)
    assert ring.find("s") is not None


def test_a_digest_is_no_key() -> None:
    ring = Keyring([Key(id="k", digest=digest_of("s"))])
    assert ring.find(digest_of("s")) is None
    assert ring.find(hashlib.sha256(b"s").hexdigest()) is None


def test_new_keys_are_long_and_different() -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert {len(key) for key in keys} == {len("sk-sluice-") + 43}
    assert msgspec.convert(digest_of(keys.pop()), type=Key.__annotations__["digest"])


@pytest.mark.parametrize(
    "text", ["", "2027-01-31", "2027-01-31T00:00:00", "2027-02-30T00:00:00Z", "soon", "1769817600"]
)
def test_a_date_without_offset_is_no_moment(text: str) -> None:
    with pytest.raises(ValueError, match="RFC 3339"):
        timestamp(text)

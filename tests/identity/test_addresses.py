"""Whose address a request counts as: every form that proxies write, and what strangers make of it."""

from collections.abc import Mapping

import pytest

from sluice.identity.addresses import client_addresses, forwarded_for

XFF, RFC = "x-forwarded-for", "forwarded"
PROXY, CALLER, SIX = "10.0.0.1", "203.0.113.9", "2001:db8:0:7::/64"


class Told:
    """What a function for addresses says besides them."""

    def __init__(self, *trusted: str) -> None:
        self.unreadable: list[str] = []
        self.unheeded: list[str] = []
        self.of = client_addresses(trusted, self.unreadable.append, self.unheeded.append)

    def __call__(self, headers: Mapping[str, str], peer: str = PROXY) -> str:
        return self.of(peer, headers)


READ = [
    (CALLER, CALLER),
    (f"{CALLER}:51812", CALLER),
    (f" \t{CALLER} ", CALLER),
    (f"[{CALLER}]", CALLER),
    ("2001:db8:0:7::1", SIX),
    ("2001:DB8:0:7::1", SIX),
    ("[2001:db8:0:7::1]", SIX),
    ("[2001:db8:0:7::1]:443", SIX),
    ("2001:db8:0:7::1%eth0", SIX),
    ("[2001:db8:0:7::1%eth0]", SIX),
    ("[2001:db8:0:7::1%25eth0]:443", SIX),
    (f"::ffff:{CALLER}", CALLER),
    (f"[::ffff:{CALLER}]:8080", CALLER),
    (f"{CALLER}, 10.0.0.7", CALLER),
    (f"{CALLER}:1, 10.0.0.7:2, [::ffff:10.0.0.8]:3", CALLER),
    (f"198.51.100.1, {CALLER}", CALLER),
    (f"not an address, {CALLER}", CALLER),
    (f",, {CALLER} ,, 10.0.0.7,", CALLER),
    ("10.0.0.7, 10.0.0.8", "10.0.0.7"),
    ("", PROXY),
    (" , ", PROXY),
]
UNREADABLE = [
    "unknown",
    "localhost",
    "example.com:80",
    "203.0.113",
    "203.0.113.256",
    "0203.0.113.9",
    f"{CALLER}:",
    f"{CALLER}:123456",
    f"{CALLER}/24",
    f"{CALLER} 1",
    f"[{CALLER}",
    "2001:db8::1]:443",
    "[2001:db8::1]443",
    "[]",
    "2001:db8:::1",
    "fe80::1%",
    "_hidden",
    "12345",
    "\u0662\u0660\u0663.0.113.9",
    "1" * 5000,
    "%" * 500,
]


@pytest.mark.parametrize(("text", "address"), READ)
def test_x_forwarded_for_is_read_in_every_form(text: str, address: str) -> None:
    told = Told("10.0.0.0/8")
    assert told({XFF: text}) == address
    assert told.unreadable == []


@pytest.mark.parametrize("text", UNREADABLE)
@pytest.mark.parametrize("behind", ["", ", 10.0.0.7"])
def test_what_cannot_be_read_is_the_connections_own_address_and_told_each_time(
    text: str, behind: str
) -> None:
    told = Told("10.0.0.0/8")
    assert [told({XFF: text + behind}) for _ in range(2)] == [PROXY, PROXY]
    assert told.unreadable == [XFF, XFF]


ELEMENTS = [
    (f"for={CALLER}", [CALLER]),
    (f"For={CALLER};Proto=https;BY=203.0.113.43", [CALLER]),
    (f'proto=http; for="{CALLER}:47011" ;host="a, b;c=d"', [f"{CALLER}:47011"]),
    ('for="[2001:db8:0:7::1]:4711"', ["[2001:db8:0:7::1]:4711"]),
    ('for="[2001:db8:0:7::1%25eth0]"', ["[2001:db8:0:7::1%25eth0]"]),
    (f"for={CALLER}:80", [f"{CALLER}:80"]),
    (f'for=192.0.2.43, for="{CALLER}"', ["192.0.2.43", CALLER]),
    (f"for=_a;;proto=http; ,, for={CALLER};", ["_a", CALLER]),
    (r'for="20\3.0.113.9"', [CALLER]),
    ("proto=https", [""]),
    ("for=1.1.1.1;for=2.2.2.2", [""]),
    (f'for="evil, for={CALLER}', [""]),
    (f"for={CALLER} x", [""]),
    ("for", [""]),
    ("=;", [""]),
    ("for=", [""]),
    ("", []),
]


@pytest.mark.parametrize(("text", "hops"), ELEMENTS)
def test_the_elements_of_forwarded(text: str, hops: list[str]) -> None:
    assert forwarded_for(text) == hops


FORWARDED = [
    (f"for={CALLER}", CALLER),
    (f'for="{CALLER}:_port"', CALLER),
    ('for="[2001:db8:0:7::1]:4711";proto=https', SIX),
    (f"for=198.51.100.1, for={CALLER}, for=10.0.0.7", CALLER),
]


@pytest.mark.parametrize(("text", "address"), FORWARDED)
def test_forwarded_is_read_as_x_forwarded_for_is(text: str, address: str) -> None:
    told = Told("10.0.0.0/8")
    assert told({RFC: text}) == address
    assert told({RFC: text, XFF: address.replace("::/64", "::9")}) == address
    assert told.unreadable == []


@pytest.mark.parametrize(
    "text", ["for=unknown", "for=_hidden", "proto=https", 'for="', f"for={CALLER};for={CALLER}", "nonsense"]
)
def test_what_cannot_be_read_of_forwarded_is_the_connections_own_address(text: str) -> None:
    told = Told("10.0.0.0/8")
    assert told({RFC: text}) == PROXY
    assert told.unreadable == [RFC]


def test_where_the_two_headers_differ_one_is_the_callers_own_and_neither_is_believed() -> None:
    told = Told("10.0.0.0/8")
    assert told({RFC: "for=1.2.3.4", XFF: CALLER}) == PROXY
    assert told({RFC: "nonsense", XFF: CALLER}) == PROXY
    assert told.unreadable == ["both", "both"]


def test_who_is_no_proxy_cannot_name_an_address() -> None:
    told = Told("10.0.0.0/8")
    for headers in ({XFF: "1.2.3.4"}, {RFC: "for=1.2.3.4"}, {XFF: "nonsense"}):
        assert told(headers, peer=CALLER) == CALLER
    assert (told.unreadable, told.unheeded) == ([], [])


def test_a_peer_may_have_a_zone_or_be_a_socket_without_an_address() -> None:
    told = Told("fe80::/10")
    assert told({XFF: CALLER}, peer="fe80::1%eth0") == CALLER
    assert told({XFF: CALLER}, peer="") == CALLER
    assert told({}, peer="") == "unknown"
    assert Told()({XFF: CALLER}, peer="") == "unknown"


def test_a_proxy_that_nobody_configured_is_told_once() -> None:
    told = Told()
    assert [told(headers) for headers in ({}, {RFC: "for=1.2.3.4"}, {XFF: "1.2.3.4"}, {XFF: "x"})] == [
        PROXY
    ] * 4
    assert told.unheeded == [RFC]
    assert told.unreadable == []


def test_of_very_many_hops_the_nearest_are_read() -> None:
    told = Told("10.0.0.0/8")
    assert told({XFF: ", ".join([CALLER, *["10.0.0.7"] * 10_000])}) == "10.0.0.7"

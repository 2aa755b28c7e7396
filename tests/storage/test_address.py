"""Addresses of stores: what is read, and what is refused without being quoted."""

import re

import pytest

from sluice.storage.address import Kind, Local, RedisAddress, address_of, is_redis, store_of

SECRET = "geheim"

GOOD = [
    ("redis://a", RedisAddress((("a", 6379),))),
    ("redis://a:1/", RedisAddress((("a", 1),))),
    ("redis://a_b-c.d:65535/15", RedisAddress((("a_b-c.d", 65535),), db=15)),
    ("redis://[::1]:7/3", RedisAddress((("::1", 7),), db=3)),
    ("valkey://a", RedisAddress((("a", 6379),))),
    ("rediss://a", RedisAddress((("a", 6379),), tls={})),
    ("valkeys://a?ssl_cert_reqs=none", RedisAddress((("a", 6379),), tls={"ssl_cert_reqs": "none"})),
    ("rediss://a?ssl_ca_certs=/x%20y.pem&ssl_check_hostname=false",
     RedisAddress((("a", 6379),), tls={"ssl_ca_certs": "/x y.pem", "ssl_check_hostname": False})),
    ("redis://:p@a", RedisAddress((("a", 6379),), password="p")),
    ("redis://u:p%40%23%2F%3F%25@a", RedisAddress((("a", 6379),), username="u", password="p@#/?%")),
    ("redis://u:p@:q@a", RedisAddress((("a", 6379),), username="u", password="p@:q")),
    ("redis://a?db=4", RedisAddress((("a", 6379),), db=4)),
    ("redis://a?timeout=250ms&connect_timeout=2", RedisAddress((("a", 6379),), timeout=0.25, connect_timeout=2.0)),
    ("redis://a?timeout=0.3", RedisAddress((("a", 6379),), timeout=0.3)),
    ("redis://a?health_check_interval=30", RedisAddress((("a", 6379),), health_check_interval=30.0)),
    ("unix:///run/redis.sock", RedisAddress(path="/run/redis.sock")),
    ("unix:///run/a@b/redis%20.sock?db=2", RedisAddress(path="/run/a@b/redis .sock", db=2)),
    ("unix://u:p@/run/redis.sock", RedisAddress(path="/run/redis.sock", username="u", password="p")),
    ("redis+sentinel://a:1,b/main", RedisAddress((("a", 1), ("b", 26379)), "main")),
    ("redis+sentinel://[::1]:7/main/3", RedisAddress((("::1", 7),), "main", db=3)),
    ("redis+sentinel://u:p%40@a/m?sentinel_password=x",
     RedisAddress((("a", 26379),), "m", username="u", password="p@", sentinel_password="x")),
    ("redis+sentinel://:p@a/m/?sentinel_username=s&sentinel_password=x@y",
     RedisAddress((("a", 26379),), "m", password="p", sentinel_username="s", sentinel_password="x@y")),
    ("valkey+sentinel://a/m%20n?timeout=1s", RedisAddress((("a", 26379),), "m n", timeout=1.0)),
    ("rediss+sentinel://a/m", RedisAddress((("a", 26379),), "m", tls={})),
    ("redis+cluster://a", RedisAddress((("a", 6379),), cluster=True)),
    ("redis+cluster://a:1,b,[::1]:7", RedisAddress((("a", 1), ("b", 6379), ("::1", 7)), cluster=True)),
    ("redis-cluster://a:1,b:2/0?timeout=1s", RedisAddress((("a", 1), ("b", 2)), cluster=True, timeout=1.0)),
    ("valkeys+cluster://u:p%40@a/?ssl_cert_reqs=none",
     RedisAddress((("a", 6379),), cluster=True, username="u", password="p@", tls={"ssl_cert_reqs": "none"})),
    ("rediss-cluster://:p@a,b", RedisAddress((("a", 6379), ("b", 6379)), cluster=True, password="p", tls={})),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), GOOD, ids=[text for text, _ in GOOD])
def test_an_address_is_read_whole(text: str, expected: RedisAddress) -> None:
    assert is_redis(text)
    assert address_of(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("memory", Local("memory")),
        ("shared:/dev/shm/x", Local("shared", "/dev/shm/x")),
        ("sqlite:data/x.db", Local("sqlite", "data/x.db")),
        ("sqlite:redis://a", Local("sqlite", "redis://a")),
        ("redis://a", RedisAddress((("a", 6379),))),
    ],
)
def test_a_store_is_of_its_kind(text: str, expected: Local | RedisAddress) -> None:
    assert store_of(text) == expected
    assert store_of(text, expected.kind, "memory") == expected


@pytest.mark.parametrize(
    ("text", "kinds", "expected"),
    [
        ("postgres", ("memory", "sqlite"), "expected memory or sqlite:PATH"),
        ("memory:", ("memory", "sqlite"), "expected memory or sqlite:PATH"),
        ("sqlite:", ("memory", "sqlite"), "expected memory or sqlite:PATH"),
        ("shared:x", ("memory", "sqlite"), "expected memory or sqlite:PATH"),
        ("redis://a", ("memory", "sqlite"), "expected memory or sqlite:PATH"),
        (
            "sqlite:x",
            ("memory", "shared", "redis"),
            "expected memory, shared:PATH or a redis://, rediss:// or unix:// URL",
        ),
        (f"redis://{SECRET}", ("memory", "sqlite"), "expected memory or sqlite:PATH"),
        (
            "redis://a:x",
            ("memory", "redis"),
            "character 11: expected a port from 1 to 65535 (a password ends in @)",
        ),
    ],
)
def test_a_store_of_another_kind_is_refused(text: str, kinds: tuple[Kind, ...], expected: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        store_of(text, *kinds)


BAD = [
    ("memory", "expected a redis://"),
    ("redis:/a", "expected a redis://"),
    ("http://a", "expected a redis://"),
    (f"redis://:{SECRET}#x@a", 'character 16: "#" must be written as %23'),
    (f"redis://:{SECRET}/x@a/0", 'character 16: "/" in a user or password must be written as %2F'),
    (f"redis://:{SECRET}?x@a/0", 'character 16: "?" in a password must be written as %3F'),
    (f"redis://:{SECRET}%x@a/0", 'character 16: "%" must be written as %25'),
    (f"redis://:{SECRET}%ff@a/0", "character 10: its percent escapes are not UTF-8"),
    (f"redis://:{SECRET} x@a/0", "character 16: white space or a control character"),
    (f"redis://:{SECRET}\u200bx@a/0", "character 16: white space or a control character"),
    (f"redis://{SECRET}@a", 'a password is written as ":password@"'),
    (f"redis://a:{SECRET}", "character 11: expected a port"),
    ("redis://a:0", "character 11: expected a port"),
    ("redis://a:65536", "character 11: expected a port"),
    ("redis://a:", "character 11: expected a port"),
    ("redis://", "character 9: expected host"),
    ("redis:///0", "character 9: expected host"),
    ("redis://::1", "character 9: expected host"),
    ("redis://a$", "character 9: not the name of a host"),
    ("redis://a,b", "character 10: several hosts are for redis+sentinel:// and redis+cluster://"),
    ("redis+clusters://a", "expected a redis://"),
    ("redis+://a", "expected a redis://"),
    ("redis-cluster+cluster://a", "expected a redis://"),
    ("redis-sentinel://a/m", "expected a redis://"),
    ("redis+cluster://", "character 17: expected host"),
    ("redis+cluster://a,", "character 19: expected host"),
    ("redis+cluster://a/1", "a cluster has the database 0 only"),
    ("redis+cluster://a?db=2", "a cluster has the database 0 only"),
    ("redis+cluster://a/main", "character 19: expected the number of a database"),
    ("redis+cluster://a?ssl_cert_reqs=none", "ssl_cert_reqs is of no use in a redis+cluster:// address"),
    ("redis+cluster://a?sentinel_password=x", "sentinel_password is of no use in a redis+cluster:// address"),
    ("redis://a/x", "character 11: expected the number of a database"),
    ("redis://a/-1", "character 11: expected the number of a database"),
    ("redis://a/99999999999", "character 11: expected the number of a database"),
    ("redis://a/0/1", "character 11: expected the number of a database"),
    ("redis://a/0?db=1", "named twice"),
    ("redis://a?nonsense=1", "character 11: unknown option; there are timeout"),
    ("redis://a?timeout=1s&nonsense=1", "character 22: unknown option"),
    ("redis://a?timeout", "character 11: unknown option"),
    ("redis://a?timeout=1&timeout=2", "character 21: the option timeout stands there twice"),
    ("redis://a?timeout=0", "character 19: timeout: expected more than 0"),
    ("redis://a?timeout=-1", "character 19: timeout: expected a duration"),
    ("redis://a?timeout=1e9", "timeout: expected a duration"),
    ("redis://a?timeout=1h", "timeout: expected more than 0 and at most 60s"),
    ("redis://a?timeout=nan", "timeout: expected a duration"),
    ("redis://a?db=x", "db: expected the number of a database"),
    ("redis://a?ssl_cert_reqs=none", "ssl_cert_reqs is of no use in a redis:// address"),
    ("redis://a?sentinel_password=x", "sentinel_password is of no use in a redis:// address"),
    ("rediss://a?ssl_cert_reqs=perhaps", "expected required, optional or none"),
    ("rediss://a?ssl_check_hostname=no", "expected true or false"),
    ("unix://", "expected the path of a socket"),
    ("unix://run/redis.sock", "expected the path of a socket"),
    ("unix:///", "expected the path of a socket"),
    ("redis+sentinel://a", "expected the name of the service"),
    ("redis+sentinel:///m", "character 18: expected host"),
    ("redis+sentinel://a,/m", "character 20: expected host"),
    ("redis+sentinel://a:b/m", "character 20: expected a port"),
    (f"redis+sentinel://:{SECRET}@a/m/n", "expected the number of a database"),
    (f"redis+sentinel://a/m?sentinel_password=%{SECRET}", 'character 40: "%" must be written as %25'),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), BAD, ids=[text for text, _ in BAD])
def test_an_address_that_makes_no_sense_is_refused_with_the_place_and_not_quoted(
    text: str, expected: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(expected)) as refused:
        address_of(text)
    assert SECRET not in str(refused.value)
    assert SECRET not in repr(refused.value.__context__)


@pytest.mark.parametrize("text", [text for text, _ in GOOD])
def test_whatever_is_wrong_with_an_address_is_a_value_error(text: str) -> None:
    for character in "#/?@:%&=,[] \0é+":
        for at in range(len(text) + 1):
            for changed in (
                text[:at] + character + text[at:],
                text[:at] + character + text[at + 1 :],
                text[:at],
            ):
                try:
                    address_of(changed)
                except ValueError:
                    continue

"""Which proxy leads to an upstream: a URL, or the environment's."""

import pytest

from sluice.upstream.proxies import check_proxy, proxy_for, proxy_of, spared
from sluice.upstream.request import origin_of


def test_the_port_of_socks_has_a_default() -> None:
    assert proxy_of("socks5://p.example").origin.port == 1080
    assert proxy_of("socks5h://u:p@[::1]").origin.name == "[::1]:1080"
    assert proxy_of("socks5h://u:p@[::1]:9").origin.port == 9
    assert "secret" not in repr(proxy_of("socks5://u:secret@p.example"))
    with pytest.raises(ValueError, match="255 bytes"):
        proxy_of(f"socks5://{'u' * 256}:p@p.example")


ENVIRONMENT = {
    "HTTPS_PROXY": "http://one:1",
    "http_proxy": "two:2",
    "ALL_PROXY": "socks5h://all:3",
    "NO_PROXY": "localhost, .internal.example,10.0.0.0/8 ,::1,192.0.2.1:8443,*.svc",
}


@pytest.mark.parametrize(
    ("environ", "url", "found"),
    [
        (ENVIRONMENT, "https://api.example/v1", "http://one:1"),
        (ENVIRONMENT, "http://api.example/v1", "http://two:2"),
        ({**ENVIRONMENT, "https_proxy": "http://lower:1"}, "https://api.example", "http://lower:1"),
        ({"ALL_PROXY": "socks5h://all:3"}, "https://api.example", "socks5h://all:3"),
        (ENVIRONMENT, "http://localhost:11434", None),
        (ENVIRONMENT, "http://notlocalhost", "http://two:2"),
        (ENVIRONMENT, "https://a.internal.example", None),
        (ENVIRONMENT, "https://internal.example", None),
        (ENVIRONMENT, "https://llm.svc", None),
        (ENVIRONMENT, "https://10.2.3.4", None),
        (ENVIRONMENT, "https://11.2.3.4", "http://one:1"),
        (ENVIRONMENT, "https://[::1]:9", None),
        (ENVIRONMENT, "https://192.0.2.1:8443", None),
        (ENVIRONMENT, "https://192.0.2.1", "http://one:1"),
        ({"HTTPS_PROXY": "http://one:1", "no_proxy": "*"}, "https://api.example", None),
        ({"HTTPS_PROXY": ""}, "https://api.example", None),
        ({}, "https://api.example", None),
    ],
)
def test_env_is_what_the_environment_says(environ: dict[str, str], url: str, found: str | None) -> None:
    assert proxy_for("env", origin_of(url), environ) == found


def test_a_url_is_taken_whatever_the_environment_says() -> None:
    assert proxy_for("http://p:1", origin_of("https://localhost"), ENVIRONMENT) == "http://p:1"


def test_a_proxy_of_the_environment_that_cannot_be_used_is_named_by_its_variable() -> None:
    with pytest.raises(ValueError, match="HTTPS_PROXY") as refused:
        proxy_for("env", origin_of("https://api.example"), {"HTTPS_PROXY": "ftp://u:canary@p"})
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize("text", ["p:1", "ftp://p:1", "http://", "http://u:canary@p:99999"])
def test_what_is_no_proxy_is_refused_without_its_password(text: str) -> None:
    with pytest.raises(ValueError) as refused:
        check_proxy(text)
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize("entry", ["", ",", "%", "[", "10.0.0.0/99", "a:b"])
def test_an_entry_of_no_proxy_that_is_none_spares_nobody(entry: str) -> None:
    assert not spared(entry, origin_of("https://a.example"))

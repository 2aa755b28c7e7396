"""Upstreams by TLS, from the file to the answer, the metrics and the log; and the check of what cannot be."""

import ssl
from pathlib import Path

import aiohttp
import pytest
import trustme

from sluice.config.loader import check
from tests.e2e.answers import ask
from tests.e2e.gateways import HEAD, gateway
from tests.fakes.faulty import Provider, healthy


class TlsProvider(Provider):
    """A provider that speaks TLS."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        super().__init__(healthy)
        self._tls = tls


async def test_a_private_authority_is_believed_and_another_is_named(tmp_path: Path) -> None:
    ca, other = trustme.CA(), trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    other.cert_pem.write_to_path(str(tmp_path / "other.pem"))
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(served)
    async with TlsProvider(served) as provider:
        upstream = f'backend: openai, api_key: sk-canary, base_url: "{provider.url}/v1"'
        text = f"""{HEAD}
upstreams:
  good: {{{upstream}, tls: {{ca: "{tmp_path}/ca.pem", min_version: "1.3"}}}}
  bad: {{{upstream}, tls: {{ca: "{tmp_path}/other.pem"}}}}
aliases:
  chat: {{tiers: [[{{upstream: good, model: m}}]], heartbeat: null}}
  lost: {{tiers: [[{{upstream: bad, model: m}}]], heartbeat: null}}
  saved: {{tiers: [[{{upstream: bad, model: m}}], [{{upstream: good, model: m}}]], heartbeat: null}}
"""
        async with gateway(text) as g, aiohttp.ClientSession(g.url) as client:
            answers = [await ask(client, "openai stream", alias) for alias in ("chat", "lost", "saved")]
            assert [answer.error for answer in answers] == ["", "tls_error", ""]
            line = next(line for line in g.requests if line["alias"] == "lost")
            assert line["tls_error"] == "unknown_ca"
            assert "certificate is not trusted" in line["detail"]
            assert all("tls_error" not in line for line in g.requests if line["alias"] != "lost")
            assert g.metric('sluice_upstream_tls_errors_total{reason="unknown_ca",upstream="bad"}') == 2
            assert (
                g.metric('sluice_upstream_attempts_total{model="m",outcome="tls_error",upstream="bad"}') == 2
            )
            assert "sk-canary" not in g.log_bytes.getvalue().decode()
            ca.cert_pem.write_to_path(
                str(tmp_path / "other.pem")
            )  # and what was wrong is put right, without a reload
            assert (await ask(client, "openai stream", "lost")).error == ""


@pytest.mark.parametrize(
    ("options", "path", "words"),
    [
        (
            "tls: {ca: /nowhere/ca.pem}",
            "upstreams.one.tls",
            "ca: /nowhere/ca.pem cannot be read: no such file",
        ),
        ("tls: {key: /nowhere/key.pem}", "upstreams.one.tls", "belong to a cert"),
        ("tls: {system_store: false}", "upstreams.one.tls.system_store", "no upstream is believed"),
        ('tls: {server_name: "https://x"}', "upstreams.one.tls.server_name", "host"),
        ('tls: {server_name: "a.example:443"}', "upstreams.one.tls.server_name", "expected a host's name"),
        ('tls: {min_version: "1.1"}', "upstreams.one.tls.min_version", "expected one of 1.2, 1.3"),
        (
            'base_url: "http://h/v1", tls: {min_version: "1.3"}',
            "upstreams.one.tls",
            "nothing is spoken in TLS",
        ),
        ("proxy: socks4://p", "upstreams.one.proxy", "socks5h://"),
        ("max_connection_age: 0", "upstreams.one.max_connection_age", "must be more than 0"),
    ],
)
def test_what_cannot_be_is_found_by_the_check(options: str, path: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(f"""
upstreams: {{one: {{backend: openai, api_key: k, {options}}}}}
aliases: {{chat: {{tiers: [[{{upstream: one, model: m}}]]}}}}
""")
    problems = [str(problem) for problem in check(str(file)).problems]
    assert len(problems) == 1
    assert f": {path}: " in problems[0]
    assert words in problems[0]


@pytest.mark.parametrize(
    "options", ["proxy: env", "tls: {server_name: a.example}", "max_connection_age: null", "tls: {}"]
)
def test_what_can_be_is_not(options: str, tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(f"""
upstreams: {{one: {{backend: openai, api_key: k, {options}}}}}
aliases: {{chat: {{tiers: [[{{upstream: one, model: m}}]]}}}}
""")
    assert not check(str(file)).problems

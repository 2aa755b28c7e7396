"""The API's port with TLS, from the file to the answer, the metrics and the log; with workers, as curl sees
it."""

import asyncio
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
import trustme

from sluice.config.loader import check
from tests.e2e.answers import MODES, ask
from tests.e2e.gateway_process import serving
from tests.e2e.gateways import DIGEST, gateway
from tests.server.test_tls import Pki

REST = f"""
keys: [{{id: test, digest: "{DIGEST}", aliases: ["*"], default_alias: chat}}]
admin: {{digest: "{DIGEST}"}}
limits: {{address: null}}
upstreams: {{echo: {{backend: echo}}}}
aliases: {{chat: {{tiers: [[{{upstream: echo, model: m}}]]}}}}
"""


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path)


def section(pki: Pki, issued: trustme.LeafCert | None = None) -> str:
    options = pki.options(issued)
    return f'{{cert: "{options.cert}", key: "{options.key}"}}'


def server(tls: str) -> str:
    return (
        f'server: {{listen: "127.0.0.1:0", admin_listen: "127.0.0.1:0", drain_delay: 0, tls: {tls}}}\n{REST}'
    )


async def test_calls_are_answered_and_new_files_are_followed(pki: Pki) -> None:
    async with gateway(server(section(pki))) as g:
        ends = g.metric("sluice_tls_certificate_end_timestamp_seconds")
        tls = aiohttp.TCPConnector(ssl=pki.client())
        async with aiohttp.ClientSession(f"https://localhost:{g.address[1]}", connector=tls) as client:
            for mode in MODES:
                assert (await ask(client, mode, "chat")).complete
            async with aiohttp.ClientSession(g.admin_url) as operators, operators.get("/readyz") as ready:
                assert ready.status == 200, "the admin port has no TLS"
            pki.options(pki.issue(not_after=datetime.now(UTC) + timedelta(days=3)))
            async with asyncio.timeout(60):  # it looks once a second
                while g.metric('sluice_tls_files_replaced_total{result="ok"}') != 1:
                    await asyncio.sleep(0.05)
            assert (await ask(client, "openai stream", "chat")).complete
        async with aiohttp.ClientSession(f"http://127.0.0.1:{g.address[1]}") as plain:
            with pytest.raises(aiohttp.ClientError):
                await plain.get("/")
        assert 1e9 < g.metric("sluice_tls_certificate_end_timestamp_seconds") < ends
        assert g.metric('sluice_tls_handshake_errors_total{reason="no_tls"}') >= 1
        events = [line["event"] for line in g.log_lines]
        assert [
            events.count(name)
            for name in ("certificate_replaced", "certificate_ends_soon", "tls_handshake_failed")
        ] == [1] * 3


async def test_files_of_no_use_leave_what_was_shown_and_are_said(pki: Pki, tmp_path: Path) -> None:
    async with gateway(server(section(pki))) as g:
        tls = aiohttp.TCPConnector(ssl=pki.client(), force_close=True)
        async with aiohttp.ClientSession(f"https://localhost:{g.address[1]}", connector=tls) as client:
            (tmp_path / "tls.key").write_text("nonsense")
            async with asyncio.timeout(60):
                while g.metric('sluice_tls_files_replaced_total{result="failed"}') != 1:
                    await asyncio.sleep(0.05)
            assert (await ask(client, "openai stream", "chat")).complete
            section(pki)
            async with asyncio.timeout(60):
                while g.metric('sluice_tls_files_replaced_total{result="ok"}') != 1:
                    await asyncio.sleep(0.05)
            assert (await ask(client, "openai stream", "chat")).complete
        lines = {line["event"]: line for line in g.log_lines}
        assert "hold no certificate with its key" in lines["certificate_unusable"]["reason"]
        assert "certificate_usable" in lines


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl is installed")
@pytest.mark.parametrize("workers", [1, 2])
def test_curl_is_answered_by_every_worker(workers: int, pki: Pki) -> None:
    head = "listen: '127.0.0.1:${API_PORT}', admin_listen: '127.0.0.1:${ADMIN_PORT}', drain_delay: 0s"
    ca = pki.write("ca.pem", pki.ca.cert_pem.bytes())
    with serving(f"server: {{{head}, workers: {workers}, tls: {section(pki)}}}\n{REST}") as running:
        url = f"https://localhost:{running.port}/health"
        for _ in range(8):
            done = subprocess.run(
                ["curl", "-sS", "--noproxy", "*", "--http1.1", "--cacert", ca, "-w", "%{http_code} %{ssl_verify_result}", url],
                capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            assert done.stdout.endswith("200 0"), done.stderr


@pytest.mark.parametrize(
    ("tls", "path", "words"),
    [
        ("{cert: /nowhere/tls.crt}", "server.tls", "cert: /nowhere/tls.crt cannot be read: no such file"),
        ("{key: /nowhere/tls.key}", "server.tls", 'missing key "cert"'),
        ('{cert: a, min_version: "1.1"}', "server.tls.min_version", "expected one of 1.2, 1.3"),
        ("true", "server.tls", "{ cert: tls.crt, key: tls.key }"),
    ],
)
def test_what_cannot_be_is_found_by_the_check(tls: str, path: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(server(tls))
    problems = [str(problem) for problem in check(str(file)).problems]
    assert [problem for problem in problems if f": {path}: " in problem and words in problem], problems


def test_a_certificate_that_was_replaced_needs_no_restart_and_other_paths_do(pki: Pki) -> None:
    from sluice.config.loader import load
    from sluice.runtime.restart import needs_restart

    first, second = pki.path / "first.yaml", pki.path / "second.yaml"
    first.write_text(server(section(pki)))
    second.write_text(server(f'{{cert: "{pki.options().cert}", key: "{pki.path}/./tls.key"}}'))
    assert needs_restart(load(str(first)).config, load(str(first)).config) == []
    assert needs_restart(load(str(first)).config, load(str(second)).config) == ["server.tls"]

"""HTTP/2 on the API's port, as curl speaks it: with prior knowledge, and where TLS agrees on it."""

import shutil
import subprocess
from pathlib import Path

import pytest

from sluice.config import checks
from sluice.config.loader import check
from tests.e2e.gateway_process import DIGEST, KEY, GatewayProcess, serving
from tests.server.test_tls import Pki

REST = f"""
keys: [{{id: test, digest: "{DIGEST}", default_alias: chat}}]
limits: {{address: null}}
upstreams: {{echo: {{backend: echo, tokens: 20}}}}
aliases: {{chat: {{tiers: [[{{upstream: echo, model: echo}}]]}}}}
"""
HEAD = "listen: '127.0.0.1:${API_PORT}', admin_listen: '127.0.0.1:${ADMIN_PORT}', drain_delay: 0s"
BODY = '{"model": "chat", "stream": true, "messages": [{"role": "user", "content": "hi"}]}'


def curl(*arguments: str) -> str:
    """What curl has got: the body, then the protocol's version and the status."""
    done = subprocess.run(
        ["curl", "-sS", "--noproxy", "*", "--max-time", "60", "-w", "\n%{http_version} %{http_code}", *arguments],
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def calls(running: GatewayProcess, scheme: str, *options: str) -> list[str]:
    """A stream, and a whole answer; then, where curl can do that, two streams on one connection."""
    at = f"{scheme}://localhost:{running.port}"
    chat = [
        at + "/v1/chat/completions",
        "-H",
        f"authorization: Bearer {KEY}",
        "-H",
        "content-type: application/json",
        "-d",
        BODY,
    ]
    found = [curl(*options, *chat), curl(*options, at + "/health")]
    if (
        "--http2-prior-knowledge" in options
    ):  # curl 7.88 fails at the second one, also at h2's own example server
        return [*found, curl(*options, *chat) + curl(*options, *chat)]
    return [*found, curl(*options, *chat, "--next", *options, *chat)]


def speaks_http2() -> bool:
    found = shutil.which("curl")
    return (
        found is not None
        and "HTTP2" in subprocess.run([found, "-V"], capture_output=True, text=True, check=False).stdout
    )


pytestmark = pytest.mark.skipif(
    not speaks_http2(),
    reason="no curl with HTTP/2 is installed",
)


@pytest.mark.parametrize("workers", [1, 2])
def test_by_prior_knowledge(workers: int) -> None:
    with serving(f"server: {{{HEAD}, http2: true, workers: {workers}}}\n{REST}") as running:
        for version, options in (
            ("2", ["--http2-prior-knowledge"]),
            ("1.1", ["--http1.1"]),
            ("1.1", ["--http2"]),
        ):
            stream, health, both = calls(running, "http", *options)
            assert stream.endswith(f"\n{version} 200")
            assert stream.count("data: [DONE]") == 1
            assert health.endswith(f"\n{version} 200")
            assert both.count("data: [DONE]") == 2
        running.wait_for(lambda _: len(running.records("request")) >= 9)
        assert {record["end"] for record in running.records("request") if record["stream"]} == {"done"}


def test_where_tls_agrees_on_it(tmp_path: Path) -> None:
    pki = Pki(tmp_path)
    options, ca = pki.options(), pki.write("ca.pem", pki.ca.cert_pem.bytes())
    tls = f'{{cert: "{options.cert}", key: "{options.key}"}}'
    with serving(f"server: {{{HEAD}, http2: true, tls: {tls}}}\n{REST}") as running:
        for version, wanted in (("2", "--http2"), ("1.1", "--http1.1")):
            stream, health, both = calls(running, "https", wanted, "--cacert", ca)
            assert stream.endswith(f"\n{version} 200")
            assert health.endswith(f"\n{version} 200")
            assert both.count("data: [DONE]") == 2


def test_without_the_library_the_check_says_how_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    file = tmp_path / "gateway.yaml"
    file.write_text(f"server: {{http2: true}}\n{REST}")
    (problem,) = map(str, check(str(file)).problems)
    assert "server.http2: h2 is not installed: pip install 'sluice-gateway[http2]'" in problem

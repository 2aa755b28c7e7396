"""The gateway for other people's tests, and its pytest plugin, as a user's test file uses them."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import aiohttp
import pytest

from sluice.errors import ConfigError
from sluice.testing import RunningGateway, gateway
from tests.docs.blocks import blocks

ROOT = Path(__file__).resolve().parents[2]


def ask(gw: RunningGateway, model: str, **fields: Any) -> tuple[int, str]:
    """A blocking client, in the thread of the test."""
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], **fields}
    headers = {"Authorization": f"Bearer {gw.key}", "Content-Type": "application/json"}
    request = Request(gw.url + "/v1/chat/completions", json.dumps(body).encode(), headers)
    try:
        with build_opener(ProxyHandler({})).open(request, timeout=60) as response:
            return response.status, response.read().decode()
    except HTTPError as refused:
        return refused.code, refused.read().decode()


def content(answer: tuple[int, str]) -> str:
    status, text = answer
    assert status == 200, text
    said: str = json.loads(text)["choices"][0]["message"]["content"]
    return said


def test_the_echo_model_answers_and_is_counted() -> None:
    with gateway() as gw:
        assert content(ask(gw, "echo")) == "You said: hi"
        assert gw.metric("sluice_requests_total", alias="echo", code="2xx") == 1
        assert gw.metric("sluice_requests_total", alias="scripted") == 0
        assert "sluice_build_info" in gw.metrics()


@pytest.mark.parametrize("stream", [False, True])
def test_the_scripted_model_answers_fails_and_breaks_in_turn(stream: bool) -> None:
    with gateway(
        {
            "aliases": {
                "scripted": {"tiers": [[{"upstream": "scripted", "model": "m"}]], "retry": {"same_target": 0}}
            }
        }
    ) as gw:
        gw.upstream.answers("One", " two", delay=0.001)
        gw.upstream.fails(429, "Slow down", retry_after=3)
        gw.upstream.breaks("One")
        status, text = ask(gw, "scripted", stream=stream)
        assert (status, '"One' in text) == (200, True)
        status, text = ask(gw, "scripted", stream=stream)
        assert (status, "Slow down" in text) == (429, True)
        _, text = ask(gw, "scripted", stream=stream)
        assert '"error"' in text
        assert "script" in ask(gw, "scripted", stream=stream)[1], "what it says where it was told nothing"
        assert [request["model"] for request in gw.upstream.requests] == ["m"] * 4


def test_a_target_that_stalls_is_left_for_the_next_one() -> None:
    brief = {"backend": "openai", "timeouts": {"first_token": "200ms", "headers": "200ms", "whole": "200ms"}}
    with gateway() as slow:
        slow.upstream.stalls()
        tiers = [[{"upstream": "slow", "model": "m"}], [{"upstream": "echo", "model": "echo"}]]
        config = {
            "upstreams": {"slow": brief | {"base_url": slow.upstream.url}},
            "aliases": {"both": {"tiers": tiers}},
        }
        with gateway(config) as gw:
            assert "said" in ask(gw, "both", stream=True)[1]
            assert gw.metric("sluice_upstream_attempts_total", upstream="echo", outcome="ok") == 1


async def test_it_may_be_entered_by_a_coroutine() -> None:
    async with gateway() as gw, aiohttp.ClientSession() as client:
        body = {"sessionId": "s", "message": "hi"}
        async with client.post(gw.url + "/v1/chat", json=body, headers={"x-api-key": gw.key}) as response:
            assert (await response.json())["message"] == "You said: hi"


def test_what_is_wrong_with_a_configuration_is_raised() -> None:
    with pytest.raises(ConfigError, match="aliasses"), gateway({"aliasses": {}}):
        pass


# --- the plugin

USERS = """
import sys
import urllib.request

def test_that_asks_for_nothing():
    assert not [name for name in sys.modules if name.startswith(("sluice.", "aiohttp")) and name != "sluice.pytest_plugin"]

def test_that_asks_for_a_gateway(sluice_gateway, caplog):
    caplog.set_level("INFO", "sluice")
    request = urllib.request.Request(sluice_gateway.url + "/v1/models", headers={"x-api-key": sluice_gateway.key})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as response:
        assert b"echo" in response.read()
"""
OTHERS = """
import pytest

@pytest.fixture
def sluice_config():
    return {"aliases": {"mine": {"tiers": [[{"upstream": "scripted", "model": "m"}]]}}}

def test_that_has_an_alias_of_its_own(sluice_gateway):
    assert sluice_gateway.metric("sluice_streams_in_flight", alias="mine") == 0
"""


OPENAI = """
import json
import urllib.request

class OpenAI:
    def __init__(self, base_url, api_key):
        self.url, self.key = base_url, api_key

    def chat(self, model):
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
        headers = {"authorization": "Bearer " + self.key, "content-type": "application/json"}
        request = urllib.request.Request(self.url + "/chat/completions", json.dumps(body).encode(), headers)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as response:
            return json.load(response)["choices"][0]["message"]["content"]
"""
"""Stands for the package of that name, which our environment has not."""
MY_CODE = """

def my_code(client, model):
    return client.chat(model)
"""
WITH_PAGES_CONFIG = """

def test_that_the_alias_fails_over(sluice_gateway):
    sluice_gateway.upstream.fails(503, "down")
    sluice_gateway.upstream.fails(503, "down")
    from openai import OpenAI
    assert OpenAI(sluice_gateway.url + "/v1", sluice_gateway.key).chat("chat") == "You said: hi"
"""


def test_a_users_tests_find_the_fixture_and_pay_nothing_for_it_unasked(tmp_path: Path) -> None:
    """Those of docs/testing.md, too. The entry point is read from pyproject.toml, for an environment may have
    been made before it was written there."""
    entries = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]
    info = tmp_path / "installed" / "sluice_entry-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sluice-entry\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[pytest11]\n" + "".join(f"{name} = {at}\n" for name, at in entries.items())
    )
    (tmp_path / "test_users.py").write_text(USERS)
    (tmp_path / "test_others.py").write_text(OTHERS)
    test, config = [block.text for block in blocks("python") if block.page == "docs/testing.md"]
    (tmp_path / "openai.py").write_text(OPENAI)
    (tmp_path / "test_page.py").write_text(test + MY_CODE)
    (tmp_path / "test_page_config.py").write_text(config + WITH_PAGES_CONFIG)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    files = ["test_users.py", "test_others.py", "test_page.py", "test_page_config.py"]
    without = ["-pno:aiohttp", "-pno:xdist", "-pno:hypothesispytest"]  # ours, of the environment
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *without, *files],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{info.parent}:{ROOT / 'gateway'}:{ROOT / 'plugins'}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 passed" in done.stdout

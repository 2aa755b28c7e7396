"""`sluice init` and `sluice import litellm`: what they write passes `check`; nothing of a foreign file is
silently lost."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from sluice.commands.first_config import InitOptions, chosen, written
from sluice.commands.litellm import imported
from sluice.commands.litellm_source import Unreadable
from sluice.commands.terminal import harmless, text_of
from sluice.config.loader import check_text, load
from sluice.config.price_file import bundled_prices
from sluice.config.rule_file import bundled_table
from sluice.identity.keys import digest_of
from sluice.pricing.prices import PriceTable
from tests.test_cli import sluice


@pytest.mark.parametrize(
    "providers", [["openai"], ["anthropic", "groq=m/x:y"], ["ollama", "echo"], ["vllm=qwen"], ["gemini"]]
)
def test_a_first_configuration_passes_check_and_lets_its_keys_in(
    providers: list[str], tmp_path: Path
) -> None:
    first = written(InitOptions(tuple(map(chosen, providers)), "support-chat", "web", "127.0.0.1:9000", True))
    assert check_text(first.text.encode()).problems == ()
    file = tmp_path / "gateway.yaml"
    file.write_text(first.text)
    environ = {variable: "sk-0123456789abcdef" for variable in first.variables}
    config = load(str(file), environ=environ).config
    assert config.keys[0].digest == digest_of(first.key)
    assert config.admin.digest == digest_of(first.admin_key)
    assert [tier[0].upstream for tier in config.aliases["support-chat"].tiers] == [
        one.partition("=")[0] for one in providers
    ]  # type: ignore[index]
    assert config.server.admin_listen == "127.0.0.1:9001"
    assert first.key not in first.text


@pytest.mark.parametrize("provider", ["openai", "anthropic", "gemini"])
def test_a_model_that_init_takes_where_none_is_named_stands_in_the_tables(provider: str) -> None:
    model = chosen(provider).model
    assert PriceTable({}, bundled_prices).prices_of(provider, model)
    assert model in bundled_table().models


def test_init_writes_once_and_says_what_to_do(tmp_path: Path) -> None:
    done = sluice("init", "--provider", "echo", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "admin key" in done.stdout
    assert sluice("check", "gateway.yaml", cwd=tmp_path).returncode == 0
    again = sluice("init", "--provider", "echo", cwd=tmp_path)
    assert (again.returncode, "there already" in again.stderr) == (1, True)
    for arguments, said in (
        (["--provider", "nobody"], "no such provider; there are 302ai, "),
        (["--provider", "antropic"], 'no such provider; did you mean "anthropic"?'),
        (["--provider", "groq"], "say which model"),
        ([], "nobody can be asked"),
        (["--provider", "echo", "--listen", "x"], "HOST:PORT"),
        (["--provider", "echo", "--alias", "a b"], "a name"),
    ):
        done = sluice("init", "--output", "other.yaml", *arguments, cwd=tmp_path)
        assert (done.returncode, said in done.stderr) == (1, True), done.stderr


LITELLM = """\
model_list:
  - model_name: support chat
    litellm_params:
      model: openai/gpt-x
      api_key: os.environ/OPENAI_KEY
      rpm: 600
      weight: 3
      temperature: 0.2
      timeout: 30
  - model_name: support chat
    litellm_params:
      model: azure/dep1
      api_base: https://res.openai.azure.com/
      api_version: "2024-06-01"
      api_key: os.environ/AZ
      weight: 1
  - model_name: backup
    litellm_params:
      model: anthropic/claude-x
      api_key: sk-literal-secret-1
      stream_timeout: 8
      input_cost_per_token: 0.000003
    model_info:
      max_input_tokens: 200000
      mode: chat
  - model_name: local
    litellm_params: {model: ollama_chat/llama3.2, api_base: "http://localhost:11434"}
  - model_name: strange
    litellm_params: {model: nobody/x}
  - model_name: "*"
    litellm_params: {model: "openai/*"}
router_settings:
  routing_strategy: least-busy
  num_retries: 2
  allowed_fails: 3
  cooldown_time: 30
  fallbacks: [{"support chat": [backup]}, {backup: [gone]}]
  model_group_alias: {gpt-4: backup}
  redis_host: redis.internal
  redis_port: 6380
  redis_password: os.environ/REDIS_PW
litellm_settings:
  drop_params: true
  success_callback: [langfuse]
general_settings:
  master_key: sk-1234567890
  database_url: os.environ/DB
  unheard_of: 1
"""


def test_litellms_configuration_is_carried_over() -> None:
    found = imported(LITELLM.encode())
    assert check_text(found.text.encode()).problems == ()
    config: dict[str, Any] = yaml.safe_load(found.text)
    [first, second] = config["aliases"]["support-chat"]["tiers"]
    assert first["strategy"] == "least_in_flight"
    assert [target["weight"] for target in first["targets"]] == [3, 1]
    assert first["targets"][0]["default"] == {"temperature": 0.2}
    assert second[0]["model"] == "claude-x"
    assert config["aliases"]["gpt-4"] == config["aliases"]["backup"]
    upstreams = config["upstreams"]
    assert upstreams["openai"]["api_key"] == "${OPENAI_KEY}"
    assert upstreams["openai"]["limits"]["requests"]["rate"] == "600/min"
    assert upstreams["azure"]["base_url"] == "https://res.openai.azure.com/openai?api-version=2024-06-01"
    assert config["prices"]["models"]["anthropic/claude-x"]["input"] == 3.0
    assert config["limits"]["store"] == "redis://:${REDIS_PW}@redis.internal:6380"
    assert config["keys"][0]["digest"] == digest_of("sk-1234567890")
    assert "literal-secret" not in found.text + "".join(found.notes)


def test_what_is_not_carried_over_is_named_with_its_line() -> None:
    notes = imported(LITELLM.encode()).notes
    for named in (
        "mode",
        "nobody",
        "an alias for all names",
        "gone|not in model_list",
        "drop_params",
        "success_callback",
        "database_url",
        "unheard_of",
    ):
        assert any(re.search(named, note) for note in notes), named
    lines = LITELLM.splitlines()
    for note in notes:
        number, path, _ = note.split(": ", 2)
        key = path.split(".")[-1]
        assert key.isdigit() or key in lines[int(number) - 1], note


def test_every_value_is_carried_over_or_named() -> None:
    """Each leaf, by itself: taking any of them away changes the result, or the notes."""
    whole = imported(LITELLM.encode())
    leaves = [
        line
        for line in LITELLM.splitlines()
        if re.match(r"\s+\w+: [^\[{]", line) and "model:" not in line and "master" not in line
    ]
    assert len(leaves) > 20
    for line in leaves:
        less = imported(LITELLM.replace(line + "\n", "", 1).encode())
        assert (less.text, len(less.notes)) != (whole.text, len(whole.notes)), line


@pytest.mark.parametrize(
    "data",
    [b"", b"a: [", b"- 1", b"model_list: []", b"model_list: 3", b"\xff\xfe", b"a: &a [*a]", b"x: " + b"[" * 5000,
     b"!!python/object:os.system {}"],
)  # fmt: skip
def test_what_is_none_is_said(data: bytes) -> None:
    with pytest.raises(Unreadable):
        imported(data)


@pytest.mark.parametrize(
    "text", ["x: " + "[" * 5000 + "]" * 5000, "\n".join(" " * n + "a:" for n in range(1500))]
)
def test_a_file_that_nests_too_deeply_is_called_so(text: str) -> None:
    with pytest.raises(Unreadable, match="nested too deeply"):
        imported(text.encode())


def within_a_gigabyte(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a command with 1 GiB of address space and an endless standard input."""
    program = (
        "import resource as r; r.setrlimit(r.RLIMIT_AS, (1 << 30,) * 2); from sluice.cli import main; main()"
    )
    with open("/dev/zero", "rb") as zeros:
        return subprocess.run(
            [sys.executable, "-c", program, *arguments],
            stdin=zeros,
            capture_output=True,
            text=True,
            check=False,
        )


def test_no_command_reads_a_file_to_its_end_however_large(tmp_path: Path) -> None:
    config, endless = tmp_path / "gateway.yaml", "/dev/zero"
    config.write_text(
        "upstreams: {e: {backend: echo}}\naliases: {chat: {tiers: [[{upstream: e, model: m}]]}}\n"
    )
    for arguments, problem in (
        (("import", "litellm", endless), "larger than 4 MiB"),
        (("models", "update", endless, "--to", str(tmp_path / "models.yaml")), "larger than 4 MiB"),
        (("models", "list", "--to", endless), "larger than 4 MiB"),
        (("check", endless), "larger than 16 MiB"),
        (("explain", "--config", str(config), "--alias", "chat", "--request", endless), "larger than 64 MiB"),
        (("simulate", "--config", str(config), endless), "a line is longer than 1 MiB"),
        (("simulate", "--config", str(config), "even", "--scenario", endless), "larger than 4 MiB"),
    ):
        refused = within_a_gigabyte(*arguments)
        assert (refused.returncode, problem in refused.stderr) == (1, True), refused.stderr
    assert within_a_gigabyte("chat", "--model", "m").stderr == "sluice: standard input: larger than 16 MiB\n"


def test_import_is_a_command(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(LITELLM)
    done = sluice("import", "litellm", str(file), "--output", str(tmp_path / "out.yaml"))
    assert done.returncode == 0, done.stderr
    assert f"{file}:" in done.stderr
    assert sluice("check", "--no-env", str(tmp_path / "out.yaml")).returncode == 0
    assert sluice("import", "litellm", str(file), "--strict").returncode == 1


def test_deployments_with_an_order_are_tiers() -> None:
    found = imported(b"""
model_list:
  - {model_name: chat, litellm_params: {model: openai/last}}
  - {model_name: chat, litellm_params: {model: openai/second, order: 2}}
  - {model_name: chat, litellm_params: {model: openai/first, order: 1}}
  - {model_name: chat, litellm_params: {model: openai/first-too, order: 1}}
  - {model_name: other, litellm_params: {model: openai/other}}
router_settings: {routing_strategy: least-busy, fallbacks: [{other: [chat]}]}
""")
    assert found.notes == ()
    aliases = yaml.safe_load(found.text)["aliases"]
    models = [
        [target["model"] for target in (tier["targets"] if isinstance(tier, dict) else tier)]
        for tier in aliases["chat"]["tiers"]
    ]
    assert models == [["first", "first-too"], ["second"], ["last"]]
    assert aliases["chat"]["tiers"][0]["strategy"] == "least_in_flight"
    assert [tier[0]["model"] for tier in aliases["other"]["tiers"]] == ["other", "first", "second", "last"]
    assert check_text(found.text.encode()).problems == ()


def test_a_list_of_which_nothing_can_be_carried_over_says_why() -> None:
    with pytest.raises(Unreadable, match=r'line 1: an alias for all names: .* "openai/\*"'):
        imported(b'model_list: [{model_name: "*", litellm_params: {model: "openai/*"}}]')
    with pytest.raises(Unreadable, match="GET /model/info"):
        imported(b"model_list: []")


def test_what_a_terminal_would_obey_is_left_out() -> None:
    assert harmless("a\x1b[2Jb\x07\r\n\tc\x9bd") == "a[2Jb\n\tcd"
    assert text_of(b'data: {"choices": [{"delta": {"content": "hi"}}]}\n') == ("hi", "")
    assert text_of(b'data: {"error": {"message": "no"}}\n') == ("", "no")
    for line in (
        b"data: [DONE]\n",
        b": ping\n",
        b"data: 1\n",
        b'data: {"choices": [1]}\n',
        b'data: {"choices": {}}\n',
        b"\n",
    ):
        assert text_of(line) == ("", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script(shell: str) -> None:
    done = sluice("completion", shell)
    assert done.returncode == 0, done.stderr
    assert "_SLUICE_COMPLETE" in done.stdout


def test_the_version_is_an_option_too() -> None:
    assert sluice("--version").stdout == sluice("version").stdout

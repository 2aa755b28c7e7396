"""`sluice import litellm` on files as public repositories have them: each value is carried over, or named
with its line.

The files were written for these tests, after what configurations in public repositories look like (November
2026).
"""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from sluice.commands.litellm import grouped, imported
from sluice.commands.litellm_reasons import REASONS, UNKNOWN
from sluice.commands.litellm_source import LiteLLMFile, Unreadable
from sluice.config.loader import check, check_text

FILES = sorted((Path(__file__).parent / "litellm").glob("*.yaml"))
GOOGLE_KEY = '{"type": "authorized_user", "client_id": "i", "client_secret": "s", "refresh_token": "r"}'


def config(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(
        imported((Path(__file__).parent / "litellm" / f"{name}.yaml").read_bytes()).text
    )
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_result_passes_check_and_says_why_of_each_value_that_is_not_in_it(
    file: Path, tmp_path: Path
) -> None:
    found = imported(file.read_bytes())
    assert check_text(found.text.encode()).problems == ()
    written = tmp_path / "gateway.yaml"
    (key := tmp_path / "gcp.json").write_text(GOOGLE_KEY)
    written.write_text(found.text.replace("/etc/keys/gcp.json", str(key)))
    names = re.findall(r"\$\{(\w+)\}", found.text)
    environ = {
        name: "sha256:" + "0" * 64 if name.endswith("_DIGEST") else "6379" if "PORT" in name else "x" * 20
        for name in names
    }
    environ |= {name: "https://res.openai.azure.com" for name in names if "ENDPOINT" in name}
    environ |= {name: "http://localhost:1234/v1" for name in names if name.endswith("_URL")}
    assert [str(problem) for problem in check(str(written), environ=environ).problems] == []
    lines = file.read_text().splitlines()
    for note in found.notes:
        number, path, _ = note.split(": ", 2)
        keys = [key for key in path.split(".") if not key.isdigit()]
        assert (
            any(key in lines[int(number) - 1] for key in keys)
            or not keys
            or lines[int(number) - 1].strip().startswith("-")
        ), note
    assert found.carried + len(found.notes) > 10


def test_most_of_what_is_not_carried_over_has_a_reason_of_its_own() -> None:
    notes = [note for file in FILES for note in imported(file.read_bytes()).notes]
    unknown = [note for note in notes if note.endswith(UNKNOWN)]
    assert len(unknown) < len(notes) / 8, unknown
    assert all(len(reason) < 110 for reason in REASONS.values())


def test_no_secret_of_the_file_is_in_the_result() -> None:
    for file in FILES:
        found = imported(file.read_bytes())
        for secret in (
            "lm-studio",
            "a-literal-secret",
            "sk-1234",
            "sk-litellm-master-dev",
            "somebody:secret",
        ):
            assert secret not in found.text + "".join(found.notes), (file, secret)


SECRETS = b"""
model_list:
  - model_name: one
    litellm_params:
      model: openai/m
      api_base: "https://someone:hidden1@gw.example.com/v1/sk-hidden2345678/x?api-version=1&code=hidden3&sig=hidden4"
      extra_headers: {X-Upstream: hidden5, Authorization: "Bearer hidden6", anthropic-beta: "a,b", X-Var: os.environ/V}
      extra_body:
        top_k: 20
        auth: {client_secret: hidden7, parts: {password: hidden8}, cookie: [hidden9]}
        note: "see sk-proj-hidden0AAAAAAAAAA1"
        prefix: "$$ 5"
        from: os.environ/W
      user: "a${b"
  - model_name: two
    litellm_params:
      model: azure/m
      api_base: "https://res.openai.azure.com/?code=hidden3&api-version=2024-06-01"
      headers: {X-Upstream: hidden5}
router_settings: {redis_host: "someone:hiddenA@redis.example.com"}
"""


def test_secrets_of_headers_bodies_and_addresses_are_not_copied_and_named() -> None:
    found = imported(SECRETS)
    assert check_text(found.text.encode()).problems == ()
    assert "hidden" not in found.text + "".join(found.notes)
    assert "someone" not in found.text + "".join(found.notes)
    config = yaml.safe_load(found.text)
    one, two = config["upstreams"]["openai"], config["upstreams"]["azure"]
    assert one["base_url"] == (
        "https://gw.example.com/v1/${OPENAI_API_BASE}/x?api-version=1&code=${OPENAI_API_BASE_CODE}&sig=${OPENAI_API_BASE_SIG}"
    )
    assert one["headers"] == {
        "X-Upstream": "${OPENAI_X_UPSTREAM}", "Authorization": "${OPENAI_AUTHORIZATION}", "anthropic-beta": "a,b",
        "X-Var": "${V}",
    }  # fmt: skip
    [[target]] = config["aliases"]["one"]["tiers"]
    assert target["force"] == {
        "top_k": 20,
        "auth": {
            "client_secret": "${OPENAI_AUTH_CLIENT_SECRET}",
            "parts": {"password": "${OPENAI_AUTH_PARTS_PASSWORD}"},
            "cookie": ["${OPENAI_AUTH_COOKIE}"],
        },
        "note": "${OPENAI_NOTE}",
        "prefix": "$$$$ 5",
        "from": "${W}",
    }
    assert target["default"] == {"user": "a$${b"}
    # the same secret has the same variable
    assert two["headers"] == {"X-Upstream": "${OPENAI_X_UPSTREAM}"}
    assert two["base_url"].startswith("https://res.openai.azure.com/openai?")
    assert "code=${OPENAI_API_BASE_CODE}" in two["base_url"]
    assert config["limits"]["store"] == "redis://redis.example.com:6379"
    for name in re.findall(r"\$\{(OPENAI_\w+)\}", found.text):
        assert any(name in note for note in found.notes), name


def test_a_wildcard_becomes_a_wildcard() -> None:
    aliases = config("wildcards")["aliases"]
    assert aliases["openai/*"]["tiers"] == [[{"upstream": "openai", "model": "*"}]]
    assert sorted(aliases) == ["anthropic/*", "openai/*"]
    assert config("wildcards")["upstreams"]["openai"]["organization"] == "${OPENAI_ORGANIZATION}"


def test_a_master_key_in_the_environment_is_its_digest_there() -> None:
    found = imported((Path(__file__).parent / "litellm" / "wildcards.yaml").read_bytes())
    assert (
        'export LITELLM_MASTER_KEY_DIGEST="$(printf %s "$LITELLM_MASTER_KEY" | sluice keys hash)"'
        in found.text
    )
    assert yaml.safe_load(found.text)["keys"] == [{"id": "master", "digest": "${LITELLM_MASTER_KEY_DIGEST}"}]


def test_each_provider_gets_the_backend_that_speaks_with_it() -> None:
    found = config("vertex_and_azure")
    upstreams = found["upstreams"]

    def of(alias: str) -> dict[str, Any]:
        section: dict[str, Any] = upstreams[found["aliases"][alias]["tiers"][0][0]["upstream"]]
        return section

    assert of("Claude-Haiku") == {
        "backend": "vertex-anthropic", "project": "my-project", "location": "europe-west1", "credentials": {"kind": "google"},
    }  # fmt: skip
    assert of("gemini-pro")["backend"] == of("gemini-flash")["backend"] == "gemini"
    assert of("gemini-flash")["credentials"] == {"kind": "google", "file": "/etc/keys/gcp.json"}
    assert of("gpt-5")["base_url"] == "${AZURE_ENDPOINT}/openai/v1"
    assert of("gpt-5")["backend"] == "responses"
    assert of("gpt-5-mini")["base_url"] == "${AZURE_ENDPOINT}/openai?api-version=${AZURE_VERSION}"
    assert of("embeddings")["base_url"] == "https://res.openai.azure.com/openai?api-version=2024-06-01"


def test_azure_by_microsoft_entra_keeps_its_credentials() -> None:
    found = config("azure_entra")

    def of(alias: str) -> dict[str, Any]:
        section: dict[str, Any] = found["upstreams"][found["aliases"][alias]["tiers"][0][0]["upstream"]]
        return section

    tenant = {"tenant_id": "${AZ_TENANT}", "client_id": "${AZ_CLIENT}", "client_secret": "${AZ_SECRET}"}
    assert of("gpt-5")["credentials"] == {"kind": "azure", **tenant}
    assert of("gpt-5") == of("gpt-5-mini")
    assert of("by-secret")["credentials"] == {
        "kind": "azure", "tenant_id": "contoso.example", "client_id": "11111111-2222-3333-4444-555555555555",
        "scope": "https://ai.azure.com/.default", "client_secret": "${AZURE_CLIENT_SECRET}",
    }  # fmt: skip
    assert of("by-token")["credentials"] == {"kind": "static", "api_key": "${AZ_TOKEN}"}
    assert of("by-identity")["credentials"] == {"kind": "azure"}
    assert "credentials" not in of("by-key")
    text = (Path(__file__).parent / "litellm" / "azure_entra.yaml").read_bytes()
    assert "hidden-Zk3" not in imported(text).text
    assert any("set AZURE_CLIENT_SECRET to it" in note for note in imported(text).notes)
    assert "speech" not in found["aliases"]  # that service has a dialect of its own
    assert any('no backend for "azure/speech"' in note for note in imported(text).notes)


def test_azure_without_an_address_and_a_key_goes_by_the_variables_that_litellm_reads() -> None:
    found = imported(b"model_list: [{model_name: a, litellm_params: {model: azure/gpt-5}}]")
    assert yaml.safe_load(found.text)["upstreams"]["azure"] == {
        "backend": "azure-deployments",
        "base_url": "${AZURE_API_BASE}/openai?api-version=2024-10-21",
        "api_key": "${AZURE_API_KEY}",
    }


def test_bedrock_has_a_region_and_its_own_credentials() -> None:
    found = config("bedrock")
    assert found["upstreams"]["bedrock"] == {
        "backend": "bedrock",
        "region": "${AWS_REGION:-us-west-2}",
        "credentials": {"kind": "aws"},
    }
    assert found["upstreams"]["bedrock-2"]["credentials"] == {
        "kind": "aws", "access_key_id": "${AWS_KEY_ID}", "secret_access_key": "${AWS_KEY}",
    }  # fmt: skip
    assert (
        found["aliases"]["claude"]["tiers"][0][0]["model"] == "eu.anthropic.claude-sonnet-4-5-20250929-v1:0"
    )
    assert found["upstreams"]["bedrock-3"]["region"] == "us-west-2"
    assert found["aliases"]["llama"]["tiers"][0][0]["model"] == "meta.llama3-1-70b-instruct-v1:0"


def test_a_key_that_stands_in_the_file_gets_a_variable_that_no_other_key_has() -> None:
    found = config("local_models")
    keys = {name: section.get("api_key") for name, section in found["upstreams"].items()}
    assert (
        keys["openai"] == keys["openai-2"] == "${OPENAI_API_KEY_2}"
    )  # not the variable that the real one uses
    assert keys["openai-3"] == "${OPENAI_API_KEY}"
    assert found["upstreams"]["openai-2"]["limits"] == {"requests": {"rate": "30/min"}}
    assert found["aliases"]["large"]["tiers"][0][0]["force"] == {"top_k": 20}
    assert found["prices"]["models"]["ollama_chat/llama3.2"] == {
        "input": 20.0,
        "output": 40.0,
        "cached_input": 5.0,
        "written_input": 10.0,
    }


LONG = b"""
model_list:
  - model_name: chat
    litellm_params: {model: anthropic/m, api_key: os.environ/K, input_cost_per_token: 1.0e-06, output_cost_per_token: 5.0e-06,
      input_cost_per_token_above_200k_tokens: 2.0e-06, cache_creation_input_token_cost_above_1hr: 3.0e-06}
    model_info: {output_cost_per_token_above_200k_tokens: 7.0e-06, input_cost_per_token_above_128k_tokens: 1.5e-06,
      cache_creation_input_token_cost_above_1hr_above_200k_tokens: 4.0e-06, input_cost_per_character_above_128k_tokens: 1.0e-06}
"""


def test_prices_of_long_prompts_and_of_an_hour_in_the_cache_are_carried_over() -> None:
    found = imported(LONG)
    assert check_text(found.text.encode()).problems == ()
    [note] = found.notes
    assert "input_cost_per_character_above_128k_tokens" in note
    usual = {"input": 1.0, "output": 5.0, "written_input_1h": 3.0}
    assert yaml.safe_load(found.text)["prices"]["models"] == {
        "anthropic/m": {
            **usual,
            "long_prompts": [
                {**usual, "above": 128_000, "input": 1.5},
                {**usual, "above": 200_000, "input": 2.0, "output": 7.0, "written_input_1h": 4.0},
            ],
        }
    }


LARGE = b"""
model_list:
  - model_name: chat
    litellm_params: {model: openai/m, api_key: os.environ/K, tpm: 20000000, rpm: 1500000, timeout: 2000000,
      stream_timeout: 1234567.5}
router_settings: {timeout: 3000000, cooldown_time: 4000000, num_retries: 0, allowed_fails: 3}
"""


def test_large_figures_are_written_in_full() -> None:
    found = imported(LARGE)
    assert check_text(found.text.encode()).problems == ()
    config = yaml.safe_load(found.text)
    assert config["upstreams"]["openai"]["limits"] == {
        "requests": {"rate": "1500000/min"},
        "tokens": {"rate": "20000000/min"},
    }
    [[target]] = config["aliases"]["chat"]["tiers"]
    assert target["timeouts"] == {"total": "2000000s", "first_token": "1234567.5s"}
    assert config["aliases"]["chat"]["timeout"] == "3000000s"
    assert config["upstreams"]["openai"]["breaker"]["open_for"] == "4000000s"


def test_budgets_credentials_and_fallbacks_are_carried_over() -> None:
    assert config("budgets")["limits"]["overall"] == {"budget": {"day": 2.0}}
    assert len(config("budgets")["aliases"]["smart"]["tiers"]) == 2
    shared = config("keys_of_users")
    assert shared["upstreams"]["openai-3"] == {
        "backend": "openai", "base_url": "https://eu.api.openai.com/v1", "api_key": "${SHARED_KEY}",
    }  # fmt: skip
    assert (
        config("redis_router")["limits"]["store"] == "redis://:${REDIS_PASSWORD}@${REDIS_HOST}:${REDIS_PORT}"
    )
    templates = config("templates")
    assert templates["upstreams"]["openai"]["api_key"] == "${OPENAI_API_KEY}"
    assert templates["aliases"]["gpt-4o"]["tiers"][1][0]["model"] == "claude-sonnet-4-5"
    assert templates["aliases"]["hidden"] == templates["aliases"]["sonnet"]


def test_what_has_no_models_or_no_end_is_said() -> None:
    with pytest.raises(Unreadable, match="GET /model/info"):
        imported(b"model_list: []\nlitellm_settings: {}")
    repeated = "".join(
        f"{name}: &{name} [{', '.join([f'*{before}'] * 8)}]\n"
        for before, name in zip("abcde", "bcdef", strict=True)
    )
    with pytest.raises(Unreadable, match="more than 200000 values"):
        imported(f"a: &a [x, x, x, x, x, x, x, x]\n{repeated}".encode())


def test_the_same_of_many_places_is_told_once_with_its_lines() -> None:
    notes = (
        "3: model_list.0.model_info.mode: why",
        "9: model_list.1.model_info.mode: why",
        "9: a.b: why",
        "12: a.b: other",
    )
    assert grouped(notes) == [
        "3: model_list.0.model_info.mode: why (also lines 9)",
        "9: a.b: why",
        "12: a.b: other",
    ]


def test_a_value_is_taken_without_a_look_at_all_others() -> None:
    """3,000 models took 34 s of processor time when each was."""

    class Unread(dict[Any, int]):
        def __iter__(self) -> Any:
            raise AssertionError("all values are looked at")

    source = LiteLLMFile(b"model_list: [{model_name: a, litellm_params: {model: b, rpm: 1}}]")
    source.lines = Unread(source.lines)
    assert source.number("model_list", 0, "litellm_params", "rpm") == 1
    assert source.take("model_list", 0, "model_name") == "a"
    source.leave("why", "model_list", 0, "litellm_params")
    assert source.reasons == {("model_list", 0, "litellm_params", name): "why" for name in ("model", "rpm")}
    assert source.taken == {("model_list", 0, "model_name")}

"""`sluice explain` says what targets take, and what of a request would be refused or left out."""

import json
from pathlib import Path
from typing import Any

import pytest

from sluice.config.loader import Loaded, load
from sluice.routing.explain import explain, request_of
from sluice.runtime.abilities import abilities
from tests.e2e.gateways import HEAD

CONFIG = f"""{HEAD}
upstreams:
  cohere: {{backend: cohere, api_key: sk-one}}
  own: {{backend: openai, base_url: "http://127.0.0.1:1/v1"}}
  mistral: {{backend: mistral, api_key: sk-one, drop: [logit_bias]}}
  test: {{backend: echo}}
aliases:
  chat: {{tiers: [[{{upstream: cohere, model: command-a-03-2025}}], [{{upstream: own, model: m}}]]}}
  strict: {{tiers: [[{{upstream: mistral, model: m}}], [{{upstream: cohere, model: m}}]], unsupported: refuse}}
  lax: {{tiers: [[{{upstream: cohere, model: m}}]], unsupported: drop}}
  any: {{tiers: [[{{upstream: test, model: m}}]]}}
"""
MESSAGES = [{"role": "user", "content": "Hi"}]


@pytest.fixture
def loaded(tmp_path: Path) -> Loaded:
    file = tmp_path / "gateway.yaml"
    file.write_text(CONFIG)
    return load(str(file))


def told(loaded: Loaded, alias: str, **request: Any) -> list[list[str]]:
    """Of each target: what it can do."""
    chat = request_of(json.dumps({"messages": MESSAGES, **request}).encode()) if request else None
    config = loaded.config
    targets = [target for tier in config.aliases[alias].tiers for target in tier]  # type: ignore[union-attr]
    return [abilities(loaded, config.aliases[alias], target, chat) for target in targets]


def test_of_any_request(loaded: Loaded) -> None:
    cohere, own = told(loaded, "chat")
    text = "\n".join(cohere)
    assert "of requests it takes: images by URL" in text
    assert "refused (400, or another target is asked): " in text
    assert "log probabilities" in cohere[1]
    assert "service tier" in cohere[2]
    assert cohere[2].startswith("left out: ")
    assert any(line.startswith("its model's rules leave out: ") for line in cohere)
    assert own[0] == "requests of openai's dialect are passed on with all their fields"
    assert told(loaded, "any") == [[]]


def test_of_one_request(loaded: Loaded) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    cohere, own = told(loaded, "chat", response_format=schema, logprobs=True, user="u", seed=1)
    assert cohere[:2] == [
        "refused (400, or another target is asked): logprobs (log probabilities)",
        "left out: user (the user's name)",
    ]
    assert own == ["it takes all fields of this request"]
    [lax] = told(loaded, "lax", logprobs=True)
    assert lax[0] == "left out: logprobs (log probabilities)"
    assert told(loaded, "chat", seed=1)[0] == ["it takes all features of this request"]


def test_rules_of_models_refuse_where_the_alias_does(loaded: Loaded) -> None:
    mistral, cohere = told(loaded, "strict", logprobs=True, logit_bias={"1": 1})
    assert mistral == [
        "it takes all fields of this request",
        "refused by its model's rules: logprobs",
        "left out by its model's rules: logit_bias",
    ]
    assert "logit_bias (logit bias)" in cohere[0]


def test_the_explanation_has_them_beneath_each_target(loaded: Loaded) -> None:
    config = loaded.config
    lines = [*explain(config, "any", None, lambda target: [f"of {target.model}"])]
    assert "     of m" in lines

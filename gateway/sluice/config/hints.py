"""Hints for common mistakes in the file: options in the form of other gateways, and misspelt names.

Each message shows what to write. No hint repeats a value of the file, which may be a secret in the wrong
place.
"""

from collections.abc import Mapping as Table
from collections.abc import Sequence

import msgspec

from sluice.config.types import (
    Alias,
    Budget,
    Config,
    Issuer,
    Key,
    Limit,
    Queue,
    Records,
    ServerTls,
    Target,
    Tier,
    Timeouts,
    Upstream,
)
from sluice.config.yamltext import Mapping, Node, Scalar

EXAMPLES: Table[type, str] = {
    Limit: "{ rate: 10/s, burst: 20 }",
    Alias: "{ tiers: [[{ upstream: NAME, model: NAME }]] }",
    Tier: "[{ upstream: NAME, model: NAME }]",
    Target: "{ upstream: NAME, model: NAME }",
    Key: "{ id: NAME, digest: sha256:… }",
    Issuer: "{ issuer: https://…, audience: NAME, algorithms: [RS256], discovery: true }",
    Upstream: '{ backend: openai, api_key: "${OPENAI_API_KEY}" }',
    Timeouts: "{ first_token: 30s }",
    ServerTls: "{ cert: tls.crt, key: tls.key }",
    Budget: "{ month: 500 }",
    Queue: "{ size: 100, timeout: 10s }",
    Records: "{ name: NAME, file: { path: calls.jsonl } }",
}
"""An example of each section, by its type."""

MAX_NAMED_KEYS = 8
"""Maximum keys of a section that are all listed if one is unknown."""

UNKNOWN: Table[str, str] = {
    "model_list": "that is LiteLLM's: here providers stand under upstreams, and the names that callers use under aliases",
    "litellm_params": "that is LiteLLM's: here a target is { upstream: NAME, model: NAME }",
    "litellm_settings": "that is LiteLLM's: see docs and config/gateway.example.yaml for what stands where here",
    "router_settings": "that is LiteLLM's: here each alias has its tiers, strategy and retry",
    "general_settings": "that is LiteLLM's: here see server, admin and keys",
    "fallbacks": "further tiers of the alias are its fallbacks: tiers: [[FIRST], [SECOND]]",
    "fallback": "further tiers of the alias are its fallbacks: tiers: [[FIRST], [SECOND]]",
    "targets": "targets stand in tiers: tiers: [[{ upstream: NAME, model: NAME }]]",
    "providers": "providers stand under upstreams",
    "models": "the names that callers use stand under aliases",
    "routes": "the names that callers use stand under aliases",
    "api_base": "write base_url",
    "url": "write base_url",
    "key": "keys stand here as digests: digest: sha256:…, which `sluice keys hash` prints for a key",
    "api_keys": "write keys, each with its id and digest (`sluice keys new` prints both)",
    "virtual_keys": "write keys, each with its id and digest (`sluice keys new` prints both)",
    "port": 'write listen: "127.0.0.1:8080"',
    "host": 'write listen: "127.0.0.1:8080"',
    "rpm": "write limits: { requests: { rate: 500/min } }",
    "tpm": "write limits: { tokens: { rate: 100000/min } }",
    "max_parallel_requests": "write limits: { streams: 20 }",
    "max_budget": "write limits: { budget: { month: 500 } }",
}
"""Keys of other gateways, and their names here."""


def about_unknown(key: str) -> str:
    """Returns a suggestion in place of an unknown key; "" if there is none."""
    hint = UNKNOWN.get(key, "")
    return f": {hint}" if hint else ""


def about_section(kind: type) -> str:
    """Returns an example of a section of this type."""
    if kind is Config:
        return "expected sections (upstreams:, aliases:, keys: …), as `sluice init` writes them"
    example = EXAMPLES.get(kind)
    return (
        f"expected a section such as {example}" if example else f"expected a section, with {_some_keys(kind)}"
    )


def about_keys(names: Sequence[str]) -> str:
    """Returns the keys of a section that has few; "" if it has many."""
    return f"; there are {', '.join(names)}" if len(names) <= MAX_NAMED_KEYS else ""


def _some_keys(kind: type) -> str:
    names = [field.encode_name for field in msgspec.structs.fields(kind)]
    return f"keys such as {', '.join(names[:4])}" if len(names) > 1 else f"the key {names[0]}"


def about_names(kind: type) -> str:
    """Returns an example of a section of named sections of this type."""
    example = EXAMPLES.get(kind)
    return (
        f"expected names, each with a section: {{ NAME: {example} }}"
        if example
        else "expected a section (key: value)"
    )


def about_list(node: Node, kind: type) -> str:
    """Returns the suggestion for another kind of value in place of a list of values of this type."""
    if example := EXAMPLES.get(kind):
        return f"expected a list: [{example}]"
    return "expected a list: put it in [ ]" if isinstance(node, Scalar) else "expected a list"


def about_value(*, secret: bool) -> str:
    """Returns the suggestion for a section or a list in place of a single value."""
    return (
        'expected text: "${NAME}" is a variable of the environment' if secret else "expected a single value"
    )


def flat_tier(kind: type, node: Node) -> bool:
    """Returns whether there is a target where a tier is expected."""
    return (
        kind is Tier
        and isinstance(node, Mapping)
        and "upstream" in node.entries
        and "targets" not in node.entries
    )


FLAT_TIER = "a target stands where a tier (a list of targets) is expected: write tiers: [[{ upstream: NAME, model: NAME }]]"

"""The gateway's own configuration for the bench: the defaults, with limits so high that nothing is
refused."""

import base64
import hashlib
import hmac
import json

KEY = "sk-bench"
SECRET = "bench-bench-bench-bench-bench-bench"
PLENTY = "{ rate: 1000000/s, burst: 1000000 }"
SLOWLY = "{ rate: 100000000/min }"
LOTS = "{ rate: 100000000/s, burst: 1000000000 }"

UPSTREAMS = {
    "openai": "backend: openai, base_url: 'http://127.0.0.1:$mock/v1'",
    "anthropic": "backend: anthropic, base_url: 'http://127.0.0.1:$mock'",
    "ollama": "backend: ollama, base_url: 'http://127.0.0.1:$mock'",
    "responses": "backend: responses, base_url: 'http://127.0.0.1:$mock/v1'",
    "gemini": "backend: gemini, base_url: 'http://127.0.0.1:$mock'",
    "cohere": "backend: cohere, base_url: 'http://127.0.0.1:$mock'",
    "bedrock": "backend: bedrock, base_url: 'http://127.0.0.1:$mock', region: eu-central-1",
}


def config(
    *,
    upstream: str = "openai",
    log: str = "info",
    limited: bool = True,
    store: str = "memory",
    state: str = "memory",
    jwt: bool = False,
    key_label: bool = False,
    keys: int = 1,
    aliases: int = 1,
    report_model: str = "target",
    whole_policy: bool = False,
    pages: bool = False,
) -> str:
    """A gateway.yaml. `keys` and `aliases` count those that stand in it; the first of each is the one that is
    used.

    `whole_policy`: requests in two windows, tokens, money, streams and a budget of the key, and tokens of
    tenant and alias. `pages`: those for operators are on.
    """
    lines = [
        "server: { listen: '127.0.0.1:$port', admin_listen: '127.0.0.1:$admin', drain_delay: 0s, drain_timeout: 1s }",
        f"log: {{ level: {log} }}",
        f"metrics: {{ key_label: {str(key_label).lower()} }}",
        f"limits: {{ store: '{store}', address: {PLENTY if limited else 'null'} }}",
        f"state: '{state}'",
        f"upstreams: {{ mock: {{ {UPSTREAMS[upstream]}, api_key: sk-upstream, max_connections: 20000 }} }}",
        "aliases:",
    ]
    for number in range(aliases):
        name = "gpt-4o-mini" if number == 0 else f"alias-{number}"
        lines.append(
            f"  {name}: {{ tiers: [[{{ upstream: mock, model: gpt-4o-mini }}]], report_model: {report_model},"
        )
        lines.append(f"    limits: {{ tokens: {LOTS} }}," if whole_policy else "")
        lines.append("    system: You are a helpful assistant. }")
    limits = f"limits: {{ requests: {PLENTY} }}" if limited else "limits: {}"
    if whole_policy:
        of_key = f"requests: [{PLENTY}, {SLOWLY}], tokens: {LOTS}, money: {LOTS}, streams: 100000, budget: {{ month: 1000000 }}"
        limits = f"limits: {{ {of_key} }}"
        lines.append(f"tenants: {{ key-0: {{ limits: {{ tokens: {LOTS} }} }} }}")
        lines.append("prices: { models: { gpt-4o-mini: { input: 0.15, output: 0.6 } } }")
    lines.append("keys:")
    for number in range(keys):
        digest = hashlib.sha256((KEY if number == 0 else f"sk-{number}").encode()).hexdigest()
        lines.append(
            f"  - {{ id: key-{number}, digest: 'sha256:{digest}', default_alias: gpt-4o-mini, {limits} }}"
        )
    if pages:
        lines.append(f"admin: {{ digest: 'sha256:{hashlib.sha256(b'sk-admin').hexdigest()}', ui: true }}")
    if jwt:
        lines.append("jwt:")
        lines.append(
            f"  - {{ issuer: bench, audience: sluice, algorithms: [HS256], secret: {SECRET}, {limits} }}"
        )
    return "\n".join(lines) + "\n"


def token() -> str:
    """A JWT of the issuer above (RFC 7515, HS256), good until 2100."""
    claims = {"iss": "bench", "aud": "sluice", "sub": "bench", "exp": 4_102_444_800}
    signed = ".".join(
        _base64url(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims)
    )
    return signed + "." + _base64url(hmac.digest(SECRET.encode(), signed.encode(), "sha256"))


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

"""The gateway between a client and an upstream of any two dialects, without sockets: its parts as the
pipeline joins them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from sluice.backends.protocol import Backend, with_rules
from sluice.config.rule_file import bundled_rules
from sluice.frontends import Answer, CallRoute, Frontend, Head
from sluice.frontends.anthropic.dialect import Anthropic as AnthropicFrontend
from sluice.frontends.gemini.dialect import Gemini as GeminiFrontend
from sluice.frontends.ollama.dialect import Ollama as OllamaFrontend
from sluice.frontends.openai.dialect import OpenAI as OpenAIFrontend
from sluice.frontends.responses.dialect import Responses as ResponsesFrontend
from sluice.frontends.widget.dialect import Widget
from sluice.model.chat import ChatRequest, call_ids
from sluice.model.rules import rules_of
from sluice.proxy.fitting import Fitting
from sluice.proxy.relay import Relay
from sluice_plugins.anthropic.backend import Anthropic
from sluice_plugins.bedrock.backend import Bedrock
from sluice_plugins.cohere.backend import Cohere
from sluice_plugins.gemini.backend import Gemini
from sluice_plugins.ollama.backend import Ollama
from sluice_plugins.openai.backend import OpenAI
from sluice_plugins.responses.backend import Responses

CLIENTS: Mapping[str, Frontend] = {
    "openai": OpenAIFrontend(), "anthropic": AnthropicFrontend(), "responses": ResponsesFrontend(), "ollama": OllamaFrontend(),
    "gemini": GeminiFrontend(), "widget": Widget(),
}  # fmt: skip
PATHS: Mapping[str, str] = {
    "openai": "/v1/chat/completions", "anthropic": "/v1/messages", "responses": "/v1/responses", "ollama": "/api/chat",
}  # fmt: skip


class Upstream(msgspec.Struct, frozen=True):
    """`backend` has the rules that config/models.yaml has for `model`."""

    backend: Backend
    model: str
    fit: Fitting


def _upstream(backend: Any, host: str, model: str) -> Upstream:
    name = type(backend).__name__.lower()
    rules = rules_of(bundled_rules(), (), name, host, model)
    return Upstream(with_rules(backend, rules), model, Fitting(rules, dialect=backend.dialect))


UPSTREAMS: Mapping[str, Upstream] = {
    "openai": _upstream(OpenAI(base_url="http://vllm.test/v1"), "vllm.test", "qwen3"),
    "anthropic": _upstream(Anthropic(), "api.anthropic.com", "claude-sonnet-4-5-20250929"),
    "gemini": _upstream(Gemini(), "generativelanguage.googleapis.com", "gemini-2.5-flash"),
    "ollama": _upstream(Ollama(), "localhost", "qwen3"),
    "bedrock": _upstream(
        Bedrock(region="eu-central-1"),
        "bedrock-runtime.eu-central-1.amazonaws.com",
        "anthropic.claude-sonnet-4-5-20250929-v1:0",
    ),
    "cohere": _upstream(Cohere(), "api.cohere.com", "command-a-reasoning-08-2025"),
    "responses": _upstream(Responses(), "api.openai.com", "model"),
}
GEMINI_3 = _upstream(Gemini(), "generativelanguage.googleapis.com", "gemini-3-pro-preview")


def parsed(client: str, body: bytes, *, stream: bool) -> ChatRequest:
    """The request as its frontend reads it."""
    path = PATHS.get(client, "")
    head = Head()
    if client == "gemini":
        path = f"/v1beta/models/{{+model}}:{'streamGenerateContent' if stream else 'generateContent'}"
        head = Head(query={"alt": "sse"} if stream else {}, parameters={"model": "chat"})
    if client == "widget":
        path = "/v1/chat/stream" if stream else "/v1/chat"
        head = Head({"accept": "application/x-ndjson; profile=full"})
    [route] = [
        route for route in CLIENTS[client].routes() if isinstance(route, CallRoute) and route.path == path
    ]
    chat = route.parse(body, head)
    assert isinstance(chat, ChatRequest)
    return chat


def sent(upstream: Upstream, chat: ChatRequest) -> dict[str, Any]:
    """What the upstream is sent: strict JSON."""
    body = upstream.backend.request(upstream.fit(chat), upstream.model).body
    return dict(json.loads(body.decode(), object_pairs_hook=_once))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    assert len(found) == len(pairs), "a name that stands twice"
    return found


def answered(client: str, upstream: str, chat: ChatRequest, reads: Sequence[bytes]) -> bytes:
    """The client's bytes for an upstream's reads; frames are passed on where both speak one dialect."""
    relay, found = relay_of(client, upstream, chat)
    return found + b"".join([relay.feed(read, 1.0) for read in reads]) + relay.close(1.0)


def relay_of(client: str, upstream: str, chat: ChatRequest) -> tuple[Relay, bytes]:
    """The relay of one answer, and what the client is sent before it."""
    frontend, backend = CLIENTS[client], UPSTREAMS[upstream].backend
    verbatim = bool(frontend.dialect) and frontend.dialect == backend.dialect
    encoder = frontend.encoder(chat, Answer("r1", "chat", 1), verbatim=verbatim)
    decoder = backend.decoder(verbatim=verbatim)
    decoder.distinguish(call_ids(chat.messages))
    return Relay(decoder, encoder, not chat.stream, False), encoder.start()

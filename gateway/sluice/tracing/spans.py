"""Makes the spans of a finished call: one for the call, and one for each attempt. Pure.

Names and attributes are those of OpenTelemetry's conventions for generative AI
(https://github.com/open-telemetry/semantic-conventions/blob/main/docs/gen-ai/gen-ai-spans.md), of the
configured version; facts for which they have no name have one that begins with `sluice.`. Spans contain no
content of requests or answers.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Literal
from urllib.parse import urlsplit

from sluice.errors import NoCapacity, RateLimited
from sluice.model.chat import ChatRequest
from sluice.model.events import Usage
from sluice.proxy.attempt import NO_USAGE, Attempt
from sluice.proxy.call import Call
from sluice.tracing.context import TraceContext
from sluice.tracing.otlp import CLIENT, SERVER, Span, SpanEvent, Value

Semconv = Literal["1.36", "1.37", "1.41"]
SCHEMA = "https://opentelemetry.io/schemas/{}.0"

COMMON: Mapping[str, str] = {
    "operation": "gen_ai.operation.name", "request_model": "gen_ai.request.model",
    "response_model": "gen_ai.response.model", "response_id": "gen_ai.response.id",
    "finish_reasons": "gen_ai.response.finish_reasons", "input": "gen_ai.usage.input_tokens",
    "output": "gen_ai.usage.output_tokens", "max_tokens": "gen_ai.request.max_tokens",
    "temperature": "gen_ai.request.temperature", "top_p": "gen_ai.request.top_p", "top_k": "gen_ai.request.top_k",
    "stop": "gen_ai.request.stop_sequences", "seed": "gen_ai.request.seed",
    "frequency_penalty": "gen_ai.request.frequency_penalty", "presence_penalty": "gen_ai.request.presence_penalty",
    "n": "gen_ai.request.choice.count", "error": "error.type", "address": "server.address", "port": "server.port",
}  # fmt: skip
NAMES: Mapping[Semconv, Mapping[str, str]] = {
    "1.36": {**COMMON, "provider": "gen_ai.system"},
    "1.37": {**COMMON, "provider": "gen_ai.provider.name"},
    "1.41": {
        **COMMON,
        "provider": "gen_ai.provider.name",
        "cached_input": "gen_ai.usage.cache_read.input_tokens",
        "written_input": "gen_ai.usage.cache_creation.input_tokens",
        "reasoning": "gen_ai.usage.reasoning.output_tokens",
        "first_token": "gen_ai.response.time_to_first_chunk",
        "stream": "gen_ai.request.stream",
    },
}
"""The name of each fact, by the version of the conventions; a fact without a name gets one that begins with
`sluice.`."""
PROVIDERS: Mapping[str, str] = {
    "azure": "azure.ai.openai", "bedrock": "aws.bedrock", "gemini": "gcp.gemini", "mistral": "mistral_ai",
    "responses": "openai", "vertex": "gcp.vertex_ai", "watsonx": "ibm.watsonx.ai", "xai": "x_ai",
}  # fmt: skip
"""The conventions' names of providers whose names here differ."""
SAMPLING = ("max_tokens", "temperature", "top_p", "top_k", "seed", "frequency_penalty", "presence_penalty")


class FactNames(dict[str, str]):
    """The names of facts; a fact for which the conventions have no name gets one that begins with `sluice.`."""

    def __missing__(self, fact: str) -> str:
        name = self[fact] = f"sluice.{fact}"
        return name


class SpanMaker:
    """Makes spans. `wall` gives seconds since the epoch, `clock` those of calls; `vendors`: upstream -> its
    vendor."""

    def __init__(
        self,
        semconv: Semconv,
        vendors: Callable[[str], str],
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._names = FactNames(NAMES[semconv])
        self._vendors = vendors
        self._clock = clock
        self._wall = wall

    def spans(self, call: Call, context: TraceContext, duration: float) -> list[Span]:
        """Returns the spans of a call that lasted for `duration` seconds."""
        offset = self._wall() - self._clock()  # the clocks may have drifted apart since the start

        def nanos(moment: float) -> int:
            return int((moment + offset) * 1e9)

        attempts = zip(call.attempts, context.attempts, strict=False)
        return [
            self._call(call, context, duration, nanos),
            *[self._attempt(call, context, *pair, nanos) for pair in attempts],
        ]

    def _call(
        self, call: Call, context: TraceContext, duration: float, nanos: Callable[[float], int]
    ) -> Span:
        facts: dict[str, Value | None] = {
            "operation": _operation(call.chat),
            "request_model": call.route.name,
            "stream": call.chat.stream,
            "first_token": call.ttft,
            "error": _failure(call),
            "cost_usd": call.cost,
            "alias": call.route.name,
            "frontend": call.frontend.name,
            "key": call.principal.key_id,
            "tenant": call.principal.tenant or None,
            "end": call.end,
            "request_id": call.id,
            "attempts": len(call.attempts),
        }
        answered = call.answered
        if answered is not None:
            facts |= {
                "response_model": answered.model or answered.target.model,
                "target": answered.target.label,
            }
            facts |= _usage(answered.used)
        events = self._events(call, context, duration, nanos)
        return Span(
            context.trace, context.span, context.parent, f"{_operation(call.chat)} {call.route.name}", SERVER,
            nanos(call.received), nanos(call.received + duration), self._named(facts), events,
            _failure(call) or "", context.state,
        )  # fmt: skip

    def _events(
        self, call: Call, context: TraceContext, duration: float, nanos: Callable[[float], int]
    ) -> list[SpanEvent]:
        """Returns the events of the call, in order of time."""
        ended = call.received + duration
        context.waited()  # its client left while it waited
        found = [
            SpanEvent(
                note.name, nanos(note.at), {f"sluice.{fact}": value for fact, value in note.facts.items()}
            )
            for note in context.notes
        ]
        if call.ttft is not None:
            found.append(SpanEvent("first_token", nanos(call.received + call.ttft)))
        if isinstance(call.error, RateLimited | NoCapacity):
            facts = {"sluice.scope": call.error.scope, "sluice.resource": call.error.resource}
            found.append(SpanEvent("limited", nanos(ended), facts))
        if call.end == "client_gone":
            found.append(SpanEvent("client_gone", nanos(ended)))
        return sorted(found, key=_at)

    def _attempt(
        self, call: Call, context: TraceContext, attempt: Attempt, span: str, nanos: Callable[[float], int]
    ) -> Span:
        target, chat, sampling = attempt.target, call.chat, call.chat.sampling
        vendor = self._vendors(target.upstream)
        error = attempt.outcome if attempt.outcome not in ("ok", "abandoned") else None
        host, port = _address(getattr(target.backend, "base_url", ""))
        facts: dict[str, Value | None] = {
            "operation": _operation(chat),
            "provider": PROVIDERS.get(vendor, vendor),
            "request_model": target.model,
            "response_model": attempt.model or None,
            "response_id": attempt.provider_id or None,
            "finish_reasons": (attempt.finish,) if attempt.finish else None,
            **{name: getattr(sampling, name) for name in SAMPLING},
            "stop": sampling.stop or None,
            "n": chat.n if chat.n > 1 else None,
            "stream": chat.stream,
            "first_token": attempt.first_token,
            "error": error,
            "address": host,
            "port": port,
            "cost_usd": attempt.cost,
            "upstream": target.upstream,
            "outcome": attempt.outcome,
            **_usage(attempt.used),
        }
        started, ended = attempt.started, attempt.ended or attempt.started
        events = (
            [SpanEvent("first_token", nanos(started + attempt.first_token))]
            if attempt.first_token is not None
            else []
        )
        return Span(
            context.trace, span, context.span, f"{_operation(chat)} {target.model}", CLIENT, nanos(started), nanos(ended),
            self._named(facts), events, error or "", context.state,
        )  # fmt: skip

    def _named(self, facts: Mapping[str, Value | None]) -> dict[str, Value]:
        names = self._names
        return {names[fact]: value for fact, value in facts.items() if value is not None}


def _at(event: SpanEvent) -> int:
    return event.at


def _operation(chat: ChatRequest) -> str:
    operation: str = getattr(chat, "operation", "")
    return operation or "chat"


def _failure(call: Call) -> str | None:
    return call.error.code if call.error is not None else None


def _usage(used: Usage) -> dict[str, Value | None]:
    if used is NO_USAGE:
        return {}
    parts = {
        "cached_input": used.cached_input,
        "written_input": used.written_input,
        "reasoning": used.reasoning,
    }
    return {
        "input": used.input,
        "output": used.output,
        **{name: count or None for name, count in parts.items()},
    }


@lru_cache(1024)
def _address(base_url: str) -> tuple[str | None, int | None]:
    """Returns the host and port of an upstream."""
    where = urlsplit(base_url)
    if not where.hostname:
        return None, None
    return where.hostname, where.port or (443 if where.scheme == "https" else 80)

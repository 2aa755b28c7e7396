"""What tracing costs a call, in microseconds: ids for each call, and spans and their bytes for each that is sent.

    python bench/tracing.py

The least of many short runs, so that it says the same on a busy machine. One attempt, streamed; ids and tokens differ
from call to call, as they do in truth.
"""

import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

from sluice.model.chat import Sampling
from sluice.model.events import Usage
from sluice.proxy.attempt import Attempt
from sluice.tracing.context import TraceContext, context_of
from sluice.tracing.otlp import Span, traces
from sluice.tracing.spans import SCHEMA, SpanMaker

RUNS, CALLS = 1000, 16
SHARE = 0.01
BITS = random.Random(1).getrandbits
MAKER = SpanMaker("1.41", lambda upstream: "openai", lambda: 200.0, lambda: 1.8e9)
RESOURCE = {"service.name": "sluice", "service.version": "1", "service.instance.id": "host:1"}


def begun() -> TraceContext:
    """What each call costs."""
    context = context_of({"host": "gateway"}, SHARE, BITS, lambda: 0.0)
    context.attempt_lines()
    return context


def call(number: int) -> Any:
    chat = SimpleNamespace(sampling=Sampling(max_tokens=256, temperature=0.7), stream=True, n=1, operation="")
    target: Any = SimpleNamespace(
        upstream="openai", model="gpt-5-mini", label="openai/gpt-5-mini", pod=None,
        backend=SimpleNamespace(base_url="https://api.openai.com/v1"),
    )  # fmt: skip
    usage = Usage(input=number % 3000, output=number // 3000 % 700)
    attempt = Attempt(
        target, 100.0, 102.0, "ok", 0.4, usage, usage, 900, "gpt-5-mini-2026-01-01", "stop", number / 1e9,
        provider_id=f"chatcmpl-{number:x}",
    )  # fmt: skip
    return SimpleNamespace(
        id=f"req_{number:x}", received=99.9, chat=chat, route=SimpleNamespace(name="chat"), ttft=0.5, end="done",
        frontend=SimpleNamespace(name="openai"), principal=SimpleNamespace(key_id="shop", tenant="acme"),
        attempts=[attempt], answered=attempt, cost=number / 1e9, error=None,
    )  # fmt: skip


def spans(calls: Sequence[tuple[Any, TraceContext]]) -> list[Span]:
    return [span for one, context in calls for span in MAKER.spans(one, context, 2.2)]


def encoded(batch: Sequence[Span]) -> bytes:
    return traces(batch, RESOURCE, scope="sluice", version="1", schema=SCHEMA.format("1.41"))


def seconds(measured: Callable[[], object]) -> float:
    began = time.perf_counter()
    measured()
    return time.perf_counter() - began


def main() -> None:
    rounds = []
    for _ in range(RUNS):
        calls = [(call(BITS(31)), begun()) for _ in range(CALLS)]
        batch = spans(calls)
        parts = (lambda: [begun() for _ in range(CALLS)], partial(spans, calls), partial(encoded, batch))
        rounds.append([seconds(part) / CALLS * 1e6 for part in parts])
    ids, made, written = map(min, zip(*rounds, strict=True))
    print(f"ids {ids:.2f}, spans {made:.1f}, their bytes {written:.1f} µs a call")
    print(f"with {SHARE:.0%} sent: {ids + SHARE * (made + written):.2f} µs a call")


if __name__ == "__main__":
    main()

"""What becomes of spans when the process ends. No sockets."""

import asyncio
from collections import Counter
from types import TracebackType
from typing import Self

import pytest

from sluice.config.types import Tracing
from sluice.otlp.receiver import Exported, OtlpReceiver
from sluice.tracing import exporter
from sluice.tracing.exporter import BATCH, Exporter
from sluice.tracing.otlp import Span

HANG = 30.0


class SilentReceiver:
    """Never answers; `asked` is set when it was sent something."""

    largest = 1 << 20

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        pass

    async def export(self, body: bytes) -> Exported:
        self.asked.set()
        await asyncio.Event().wait()
        raise AssertionError


async def test_spans_that_are_on_their_way_at_the_end_count_as_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    receiver = SilentReceiver()

    def made(config: object, signal: object, deadline: float) -> OtlpReceiver:
        return receiver

    monkeypatch.setattr(exporter, "receiver_of", made)
    monkeypatch.setattr(exporter, "DEADLINE", 0.01)
    counted: Counter[str] = Counter()

    def count(result: str, spans: int) -> None:
        counted[result] += spans

    sending = Exporter(Tracing(endpoint="http://127.0.0.1:9"), lambda spans: b"", count)
    spans = [Span("b" * 32, "c" * 16, "", "call", 1, 1, 2, {})] * (2 * BATCH + 1)
    sending.add(spans)
    task = asyncio.create_task(sending.run())
    async with asyncio.timeout(HANG):
        await receiver.asked.wait()
        task.cancel()
        await asyncio.wait([task])
    assert counted == {"failed": len(spans)}

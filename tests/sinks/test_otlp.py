"""Call records as requests to an OTLP receiver: as few as it takes, and what becomes of a batch."""

import json
from types import TracebackType
from typing import Any, Self

import pytest

from sluice.config.types import RecordOtlp
from sluice.otlp.receiver import Exported
from sluice.sinks.delivery import Delivered, RecordBatch
from sluice.sinks.otlp import OtlpLogs

pb = pytest.importorskip(
    "opentelemetry.proto.collector.logs.v1.logs_service_pb2", reason="opentelemetry-proto is not installed"
)


class Receiver:
    def __init__(self, largest: int, *answers: Exported) -> None:
        self.largest = largest
        self.answers = [*answers]
        self.bodies: list[bytes] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...

    async def export(self, body: bytes) -> Exported:
        self.bodies.append(body)
        return self.answers.pop(0) if self.answers else Exported("accepted")

    @property
    def requests(self) -> list[list[str]]:
        return [
            [
                next(pair.value.string_value for pair in log.attributes if pair.key == "sluice.request_id")
                for log in pb.ExportLogsServiceRequest.FromString(body)
                .resource_logs[0]
                .scope_logs[0]
                .log_records
            ]
            for body in self.bodies
        ]


async def delivered(monkeypatch: pytest.MonkeyPatch, receiver: Receiver, *sizes: int) -> Delivered:
    monkeypatch.setattr("sluice.sinks.otlp.receiver_of", lambda *_: receiver)
    records: list[dict[str, Any]] = [
        {"request_id": str(number), "answer": "x" * size} for number, size in enumerate(sizes)
    ]
    batch = RecordBatch("name", 0.0, [json.dumps(record).encode() for record in records])
    async with OtlpLogs(RecordOtlp(endpoint="http://c"), "here") as sink:
        return await sink.deliver(batch)


async def test_a_batch_is_sent_in_requests_of_the_receivers_size(monkeypatch: pytest.MonkeyPatch) -> None:
    receiver = Receiver(2000)
    assert await delivered(monkeypatch, receiver, 10, 10, 900, 900, 5000) == Delivered("delivered")
    assert receiver.requests == [["0", "1"], ["2"], ["3"], ["4"]]


async def test_what_is_refused_of_a_batch_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    receiver = Receiver(2000, Exported("accepted", rejected=1), Exported("refused", "status 413"))
    assert await delivered(monkeypatch, receiver, 10, 2500) == Delivered("delivered", "status 413", 2)


@pytest.mark.parametrize("result", ["again", "failed"])
async def test_a_batch_that_was_not_taken_whole_is_sent_again(
    monkeypatch: pytest.MonkeyPatch, result: Any
) -> None:
    receiver = Receiver(2000, Exported("accepted"), Exported(result, "status 503", wait=7.0))
    assert await delivered(monkeypatch, receiver, 10, 2500) == Delivered("again", "status 503", wait=7.0)

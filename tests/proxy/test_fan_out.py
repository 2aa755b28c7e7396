"""One call that its upstream takes in several requests."""

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from sluice.backends.read_response import ReadResponse
from sluice.backends.transport import UpstreamRequest
from sluice.errors import UpstreamError, UpstreamGarbled
from sluice.proxy import fan_out
from sluice.proxy.fan_out import MAX_CONCURRENT_REQUESTS, FanOutTransport


class Transport:
    """Answers each body with itself, once it may."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.running = self.most = self.left = 0
        self.statuses: dict[bytes, int] = {}
        self.may = asyncio.Event()
        self.may.set()

    @asynccontextmanager
    async def send(self, request: UpstreamRequest, **_: Any) -> Any:
        self.sent.append(bytes(request.body))
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if request.body not in self.statuses:
                await self.may.wait()
            yield ReadResponse(self.statuses.get(request.body, 200), {}, request.body)
        finally:
            self.running -= 1
            self.left += 1


def several(transport: Transport, count: int, headers: float = 60.0) -> Any:
    operation: Any = SimpleNamespace(
        joined=lambda answers: ReadResponse(200, {}, b"+".join(answer.body for answer in answers))
    )
    bodies = [b"%d" % number for number in range(count)]
    request = UpstreamRequest("http://up.example/embed", (), bodies[0], beside=tuple(bodies[1:]))
    sending: Any = FanOutTransport(transport, operation).send(request, connect=1.0, headers=headers)
    return sending


async def test_answers_are_joined_in_the_order_of_the_requests() -> None:
    transport = Transport()
    async with several(transport, 9) as response:
        assert await response.read(100) == b"0+1+2+3+4+5+6+7+8"
    assert transport.most <= MAX_CONCURRENT_REQUESTS
    assert transport.left == 9


async def test_the_first_refusal_is_the_answer_and_the_others_are_cancelled() -> None:
    transport = Transport()
    transport.may.clear()
    transport.statuses[b"1"] = 429
    async with several(transport, 50) as response:
        assert response.status == 429
    assert len(transport.sent) <= MAX_CONCURRENT_REQUESTS
    assert transport.running == 0


async def test_all_requests_together_have_one_deadline() -> None:
    transport = Transport()
    transport.may.clear()
    with pytest.raises(UpstreamError) as caught:
        async with several(transport, 2, headers=0.0):
            pass
    assert caught.value.kind == "headers_timeout"
    assert transport.running == 0


async def test_an_answer_without_a_bound_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fan_out, "MAX_ANSWER_BYTES", 1)
    with pytest.raises(UpstreamGarbled):
        async with several(Transport(), 2):
            pass

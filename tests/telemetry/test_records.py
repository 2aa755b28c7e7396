"""What is counted and logged of requests, calls and faults: one line and one count each, and never
content."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import structlog

from sluice.aio.deferred import NOW
from sluice.errors import GatewayError, ModelNotFound, NoCapacity, RateLimited, Unauthorized, UpstreamError
from sluice.identity.principal import Principal
from sluice.model.events import Usage
from sluice.proxy.attempt import Attempt
from sluice.proxy.call import Call
from sluice.telemetry.metrics import Metrics
from sluice.telemetry.records import OTHER, CallLine, DetachedLine, Records, RequestLine
from sluice.telemetry.series import Value
from tests.proxy.scripts import Scene

PRINCIPAL = Principal("k", "k", "k", frozenset("*"))


class Exchange:
    path = "/v1/chat/completions/"
    caller = "k"
    bytes_in, bytes_out = 70, 900
    last_write = 0.0

    def __init__(self, status: int, received: float = 99.0) -> None:
        self.status = status
        self.received = received


class Desk:
    """Records at the time 100; what is put off is done by `flush`."""

    def __init__(self) -> None:
        self.metrics = Metrics("test")
        self.lines: list[CallLine] = []
        self.logged: list[dict[str, Any]] = []
        self.used: list[tuple[Call, bool]] = []
        self.waiting: list[tuple[Callable[..., object], tuple[Any, ...], int]] = []

        def keep(_: object, level: str, event: dict[str, Any]) -> dict[str, Any]:
            self.logged.append({"level": level, **event})
            raise structlog.DropEvent

        self.records = Records(
            self.metrics,
            structlog.wrap_logger(None, processors=[keep]),
            self.lines.append,
            lambda: 100.0,
            aliases=["chat"],
            conversations="memory",
            keys=["k"],
            frontends=["widget", "openai"],
            used=lambda call, failed: self.used.append((call, failed)),
            later=lambda work, *args, size=0: self.waiting.append((work, args, size)),
        )

    def call(self, *attempts: Attempt) -> Call:
        call = Scene([]).call("openai")
        call.series = self.records.series["openai", "chat"]
        call.attempts = [*attempts]
        call.answered = attempts[-1] if attempts else None
        call.end = "done"
        call.ttft = 0.25
        call.size = 7
        return call

    def finished(
        self,
        status: int,
        call: Call | None,
        error: GatewayError | None = None,
        principal: Principal | None = PRINCIPAL,
    ) -> dict[str, Any]:
        """The line of a request that has ended, as it is written."""
        self.records.finished(
            Exchange(status),
            call,
            error,
            request_id="r",
            frontend="openai",
            principal=principal,
            address="192.0.2.1",
        )
        self.flush()
        line = msgspec.to_builtins(self.lines[-1])
        assert isinstance(line, dict)
        line.pop("timestamp", None)
        return line

    def flush(self) -> None:
        waiting, self.waiting = self.waiting, []
        for work, args, _ in waiting:
            work(*args)

    def metric(self, line: str) -> float:
        for found in self.metrics.exposition().decode().splitlines():
            if found.startswith(line + " "):
                return float(found.rpartition(" ")[2])
        return 0.0


def attempt(name: str = "one", **fields: Any) -> Attempt:
    target = next(target for target in Scene([]).targets if target.label == name)
    return Attempt(msgspec.structs.replace(target, answered=Value()), 99.5, **fields)


def test_an_answered_call_is_one_line_and_one_count() -> None:
    desk = Desk()
    call = desk.call(attempt(outcome="ok", usage=Usage(5, 2), used=Usage(5, 2), cost=0.25))
    assert desk.finished(200, call) == {
        "event": "request", "level": "info", "request_id": "r", "route": "/v1/chat/completions", "frontend": "openai",
        "key": "k", "status": 200, "duration": 1.0, "bytes_in": 70, "bytes_out": 900,
        "error": None, "reason": None, "alias": "chat", "target": "one",
        "attempts": ["one ok"], "stream": True, "end": "done", "ttft": 0.25, "tokens_in": 5, "tokens_out": 2,
        "cost_usd": 0.25, "detail": None, "upstream_status": None,
    }  # fmt: skip
    assert desk.used == [(call, False)]
    assert desk.metric('sluice_requests_total{alias="chat",code="2xx",frontend="openai"}') == 1
    assert desk.metric('sluice_key_requests_total{code="2xx",key="k"}') == 1
    assert desk.metric('sluice_request_duration_seconds_count{alias="chat",frontend="openai"}') == 1
    answered = call.attempts[0].target.answered
    assert answered is not None
    assert answered.value == 1


def test_what_ended_well_may_wait_and_errors_do_not() -> None:
    desk = Desk()
    for error, size in ((None, 7), (UpstreamError("server_error"), NOW)):
        call = desk.call(attempt())
        call.error = error
        desk.records.finished(
            Exchange(200), call, None, request_id="r", frontend="openai", principal=PRINCIPAL
        )
        assert [waiting[2] for waiting in desk.waiting] == [size]
        assert not desk.lines
        desk.waiting.clear()


def test_a_request_that_became_no_call_is_counted_under_other() -> None:
    desk = Desk()
    line = desk.finished(404, None, ModelNotFound("no"), None)
    assert (line["end"], line["error"], line["key"], line["status"]) == (
        "refused",
        "model_not_found",
        None,
        404,
    )
    assert "alias" not in line
    assert not desk.used
    assert desk.metric(f'sluice_requests_total{{alias="{OTHER}",code="4xx",frontend="openai"}}') == 1


def test_a_request_whose_answer_never_began_has_no_status_and_no_count() -> None:
    desk = Desk()
    call = desk.call()
    call.end = "client_gone"
    line = desk.finished(0, call)
    assert (line["status"], line["end"], line["target"], line["tokens_in"]) == (
        None,
        "client_gone",
        None,
        None,
    )
    assert desk.metric('sluice_requests_total{alias="chat",code="2xx",frontend="openai"}') == 0


@pytest.mark.parametrize(
    ("status", "error", "level", "more"),
    [
        (
            429,
            RateLimited(1.0, scope="key", resource="tokens"),
            "info",
            {"scope": "key", "resource": "tokens"},
        ),
        (503, NoCapacity(1.0, "streams"), "warning", {"scope": "upstream", "resource": "streams"}),
        (401, Unauthorized("unknown_key"), "info", {"address": "192.0.2.1", "reason": "unknown_key"}),
        (502, UpstreamError("server_error"), "warning", {}),
        (200, UpstreamError("truncated"), "warning", {"error": "truncated"}),
        (400, ModelNotFound("no"), "info", {}),
    ],
)
def test_a_line_tells_which_limit_refused_and_how_loud_an_error_is(
    status: int, error: GatewayError, level: str, more: dict[str, str]
) -> None:
    line = Desk().finished(status, None, error)
    assert line["level"] == level
    assert more.items() <= line.items()


def test_an_error_within_an_answer_is_the_line_s() -> None:
    desk = Desk()
    call = desk.call(attempt(outcome="truncated"))
    error = call.error = UpstreamError("reset", "connection to 10.0.0.1 lost", status=0)
    call.end = "upstream_error"
    line = desk.finished(200, call)
    assert (line["error"], line["detail"], line["end"]) == (
        error.code,
        "connection to 10.0.0.1 lost",
        "upstream_error",
    )
    assert desk.used == [(call, True)]


def test_several_attempts_are_summed_and_told_one_by_one() -> None:
    desk = Desk()
    call = desk.call(
        attempt("one", outcome="truncated", used=Usage(5, 3), cost=0.5, ended=99.75),
        attempt("two", outcome="ok", usage=Usage(5, 4), used=Usage(5, 4), cost=None, ended=101.5),
    )
    call.received = 99.25
    line = desk.finished(200, call)
    assert line["attempts"] == ["one truncated", "two ok"]
    assert line["attempt_times"] == [(0.25, 0.25), (0.25, 2.0)]
    assert line["attempt_costs"] == [0.5, None]
    assert (line["target"], line["tokens_in"], line["tokens_out"], line["cost_usd"]) == ("two", 10, 7, 0.5)
    assert "estimated" not in line


@pytest.mark.parametrize(("received", "waited"), [(99.4996, None), (99.499, 0.001), (97.0, 2.5)])
def test_a_line_tells_how_long_a_call_waited_for_its_first_attempt(
    received: float, waited: float | None
) -> None:
    desk = Desk()
    call = desk.call(attempt(outcome="ok"))
    call.received = received
    assert desk.finished(200, call).get("waited") == waited


@pytest.mark.parametrize(("wrote", "last_byte"), [(0.0, None), (99.9996, None), (99.5, 0.5), (99.999, 0.999)])
def test_a_line_tells_the_bytes_and_when_the_last_came_long_before_the_end(
    wrote: float, last_byte: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Exchange, "last_write", wrote)
    desk = Desk()
    line = desk.finished(200, desk.call(attempt(outcome="ok")))
    assert (line["bytes_in"], line["bytes_out"], line.get("last_byte")) == (70, 900, last_byte)


def test_an_answer_whose_provider_reports_nothing_is_an_estimate() -> None:
    line = Desk().finished(200, Desk().call(attempt(outcome="ok", used=Usage(5, 3))))
    assert (line["estimated"], line["tokens_out"]) == (True, 3)


def test_a_call_without_an_attempt_that_answered_names_the_last_one() -> None:
    desk = Desk()
    call = desk.call(attempt("one", outcome="connect_error"), attempt("two", outcome="server_error"))
    call.answered = None
    assert desk.finished(502, call, UpstreamError("server_error"))["target"] == "two"


def test_a_call_that_goes_on_is_told_when_it_ends() -> None:
    desk = Desk()
    call = desk.call(attempt(outcome="ok", used=Usage(5, 3)))
    call.detached = True
    line = desk.finished(0, call)
    assert "alias" not in line
    assert not desk.used
    desk.records.detached(call, None)
    told = desk.lines[-1]
    assert isinstance(told, DetachedLine)
    assert (told.alias, told.end, told.error, told.level) == ("chat", "done", None, "info")
    assert desk.used == [(call, False)]
    desk.records.detached(call, TimeoutError())
    assert desk.used[-1] == (call, True)


def test_what_is_no_chat_is_logged_with_its_route() -> None:
    desk = Desk()
    desk.records.other(Exchange(500), request_id="r", frontend="widget", route="/v1/models")
    desk.records.other(
        Exchange(401),
        Unauthorized("expired"),
        request_id="r",
        frontend="openai",
        route="other",
        address="192.0.2.1",
    )
    assert [(line["level"], line["route"], line["status"]) for line in desk.logged] == [
        ("warning", "/v1/models", 500),
        ("info", "other", 401),
    ]
    assert desk.logged[1]["address"] == "192.0.2.1"
    assert desk.metric(f'sluice_requests_total{{alias="{OTHER}",code="5xx",frontend="widget"}}') == 1


def test_a_resumed_stream_is_logged_and_not_counted_again() -> None:
    desk = Desk()
    desk.records.resumed(Exchange(200), "r", PRINCIPAL, "stream-1")
    assert desk.logged[0]["resumed"] == "stream-1"
    assert desk.metric(f'sluice_requests_total{{alias="{OTHER}",code="2xx",frontend="widget"}}') == 0


def test_a_fault_is_logged_where_it_happened_and_without_its_values() -> None:
    desk = Desk()
    try:
        raise KeyError("what the caller sent")
    except KeyError as crash:
        desk.records.crashed(crash, "r")
    [line] = desk.logged
    assert (line["event"], line["error"], line["request_id"]) == ("crash", "KeyError", "r")
    assert "caller" not in str(line["at"])
    assert __file__ in line["at"][-1]


def test_what_would_be_said_again_and_again_is_said_once() -> None:
    desk = Desk()
    for _ in range(3):
        desk.records.address_unreadable("x-forwarded-for")
        desk.records.keys_fetched("issuer", "ok", 2)
    desk.records.keys_fetched("issuer", "timeout", 2)
    assert [line["event"] for line in desk.logged] == ["client_address_unreadable", "jwks", "jwks"]
    assert desk.metric('sluice_client_address_unreadable_total{header="x-forwarded-for"}') == 3


def test_a_line_of_a_request_names_itself() -> None:
    assert RequestLine.__struct_fields__[-1] == "event"

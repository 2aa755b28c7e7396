"""Deadlines of an attempt whose answer is being read."""

from types import SimpleNamespace
from typing import Any

import pytest

from sluice.errors import UpstreamError
from sluice.proxy.deadlines import MAX_LINGER_SECONDS, BodyLingers, end_if_late


class Answer:
    """An attempt that began at 100, whose head has come."""

    def __init__(
        self, *, content: float = 0.0, complete: float = 0.0, whole: bool = False, **more: Any
    ) -> None:
        timeouts = {"first_token": 10.0, "idle": 5.0, "whole": 60.0, "total": None, **more}
        self.aborted: list[Exception] = []
        self.complete_at = complete
        self.relay = SimpleNamespace(first_content_at=content, alive_at=content or 101.0)
        self.response = SimpleNamespace(status=200, headers={}, abort=self.aborted.append)
        self.attempt = SimpleNamespace(
            started=100.0,
            whole=object() if whole else None,
            target=SimpleNamespace(timeouts=SimpleNamespace(**timeouts)),
        )

    def at(self, now: float) -> tuple[float, str]:
        due = end_if_late(self, now)  # type: ignore[arg-type]
        kinds = [
            error.kind if isinstance(error, UpstreamError) else type(error).__name__ for error in self.aborted
        ]
        return due, " ".join(kinds)


@pytest.mark.parametrize(
    ("answer", "due", "kind"),
    [
        (Answer(), 111.0, "first_token_timeout"),
        (Answer(content=104.0), 109.0, "idle_timeout"),
        (Answer(whole=True), 160.0, "total_timeout"),
        (Answer(total=3.0), 103.0, "total_timeout"),
        (Answer(content=104.0, total=30.0), 109.0, "idle_timeout"),
        (Answer(content=104.0, total=9.0), 109.0, "total_timeout"),
        (Answer(content=104.0, complete=105.0), 105.0 + MAX_LINGER_SECONDS, BodyLingers.__name__),
    ],
    ids=["first token", "idle", "whole", "total first", "idle first", "equal: total", "complete"],
)
def test_the_earliest_deadline_of_the_phase_applies(answer: Answer, due: float, kind: str) -> None:
    assert answer.at(due) == (due, "")
    assert answer.at(due + 0.001) == (due, kind)


def test_a_stream_in_place_of_a_whole_answer_has_a_streams_deadlines() -> None:
    answer = Answer(whole=True)
    answer.response.headers = {"content-type": "text/event-stream; charset=utf-8"}
    assert answer.at(112.0) == (111.0, "first_token_timeout")


def test_an_error_response_to_a_whole_request_has_a_streams_deadlines() -> None:
    answer = Answer(whole=True)
    answer.response.status = 500
    assert answer.at(112.0) == (111.0, "first_token_timeout")

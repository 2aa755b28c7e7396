"""Azure OpenAI: what its filters say before, in and behind an answer, and in place of one."""

import json
from typing import Any

import pytest

from sluice.errors import UpstreamError, UpstreamErrorKind
from sluice.model.events import Finished, Started, StreamEvent, TextDelta
from sluice_plugins.openai.backend import OpenAI
from tests.wire import cuts

SAFE = {"hate": {"filtered": False, "severity": "safe"}, "jailbreak": {"filtered": False, "detected": False}}
REFUSED = "The response was filtered due to the prompt triggering Azure OpenAI's content management policy. Please modify it."


def sse(*chunks: dict[str, Any]) -> bytes:
    return b"".join(b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in chunks) + b"data: [DONE]\n\n"


def chunk(delta: dict[str, Any], reason: str | None = None, **fields: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": reason, **fields}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "gpt-4o",
        "choices": [choice],
    }


FIRST = {"choices": [], "created": 0, "id": "", "model": "", "object": "", "prompt_filter_results": [
    {"prompt_index": 0, "content_filter_results": SAFE}
]}  # fmt: skip
BEHIND = {"choices": [{"index": 0, "finish_reason": None, "content_filter_offsets": {"check_offset": 44},
    "content_filter_results": SAFE}], "created": 0, "id": "", "model": "", "object": ""}  # fmt: skip
"""Of the asynchronous filter: its annotations come without a delta."""
FILTERED = {"hate": {"filtered": True, "severity": "high"}}


def read(reads: list[bytes]) -> list[StreamEvent]:
    decoder = OpenAI().decoder()
    events = [event for data in reads for event in decoder.feed(data)]
    return events + decoder.close()


@pytest.mark.parametrize(
    ("body", "text", "reason"),
    [
        (
            sse(
                FIRST,
                chunk({"role": "assistant", "content": ""}),
                chunk({"content": "Hi"}),
                chunk({}, "stop"),
            ),
            "Hi",
            "stop",
        ),
        (
            sse(
                FIRST,
                chunk({"content": "Hi"}, content_filter_results=SAFE),
                BEHIND,
                chunk({}, "stop"),
                BEHIND,
            ),
            "Hi",
            "stop",
        ),
        (
            sse(
                FIRST, chunk({"content": "Hi"}), chunk({}, "content_filter", content_filter_results=FILTERED)
            ),
            "Hi",
            "content_filter",
        ),
        (sse(FIRST, chunk({}, "content_filter", content_filter_results=FILTERED)), "", "content_filter"),
    ],
    ids=["filtered prompt", "asynchronous filter", "stopped within", "stopped at once"],
)
def test_what_the_filters_say_is_no_answer(body: bytes, text: str, reason: str) -> None:
    for reads in ([body], cuts.bytewise(body), *([body[:at], body[at:]] for at in range(1, len(body)))):
        events = read(reads)
        assert "".join(event.text for event in events if isinstance(event, TextDelta)) == text
        [finished] = [event for event in events if isinstance(event, Finished)]
        assert finished.reason == reason
        assert all(event.model in ("", "gpt-4o") for event in events if isinstance(event, Started))


INNER = {
    "code": "ResponsibleAIPolicyViolation",
    "content_filter_result": {"jailbreak": {"filtered": True, "detected": True}},
}
ERRORS: list[tuple[str, int, Any, UpstreamErrorKind]] = [
    (
        "microsoft/TinyTroupe#85",
        400,
        {"error": {"message": REFUSED, "type": None, "param": "prompt", "code": "content_filter", "status": 400,
            "innererror": INNER}},
        "content_policy",
    ),
    (
        "browser-use/browser-use#262",
        400,
        {"error": {"inner_error": INNER, "code": "content_filter", "message": REFUSED, "param": "prompt", "type": None}},
        "content_policy",
    ),
    (
        "BerriAI/litellm#16231: a proxy before it",
        400,
        {"error": {"message": f"litellm.BadRequest: AzureException - {REFUSED}", "type": None, "param": None, "code": "400",
            "provider_specific_fields": {"innererror": INNER}}},
        "content_policy",
    ),
    ("an inner code alone", 400, {"error": {"message": "Bad", "code": "400", "innererror": INNER}}, "content_policy"),
    (
        "a wrong deployment",
        404,
        {"error": {"code": "DeploymentNotFound", "message": "The API deployment for this resource does not exist."}},
        "not_found",
    ),
    (
        "a wrong key",
        401,
        {"error": {"code": "401", "message": "Access denied due to invalid subscription key or wrong API endpoint."}},
        "bad_credentials",
    ),
    (
        "its rate",
        429,
        {"error": {"code": "429", "message": "Requests to the ChatCompletions_Create Operation have exceeded token rate limit "
            "of your current OpenAI S0 pricing tier. Please retry after 6 seconds."}},
        "rate_limited",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("source", "status", "body", "kind"), ERRORS, ids=[error[0] for error in ERRORS])
def test_its_errors_mean_what_they_say(source: str, status: int, body: Any, kind: UpstreamErrorKind) -> None:
    error = OpenAI().error(status, {}, json.dumps(body).encode())
    assert error.kind == kind


def test_a_refusal_in_place_of_a_stream_is_one() -> None:
    """Oaklight/argo-proxy#91: status 200, and one event."""
    words = f"Error code: 400 - {{'error': {{'message': \"{REFUSED}\", 'code': 'content_filter', 'innererror': {INNER}}}}}"
    with pytest.raises(UpstreamError) as caught:
        read([sse({"error": {"message": words}})])
    assert caught.value.kind == "content_policy"

"""ConverseStream's grammar: tables of (bytes, events), whole, under every single cut and byte by byte."""

import base64
import json
from typing import Any

import pytest

from sluice.errors import UpstreamError, UpstreamErrorKind
from sluice.model.events import (
    Cited,
    Finished,
    ReasoningBlock,
    ReasoningDelta,
    Started,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
    Working,
)
from sluice.wire.seals import BEDROCKS
from sluice_plugins.bedrock.backend import Bedrock
from sluice_plugins.bedrock.stream import ConverseDecoder
from tests.fakes.eventstreams import event, events, exception, header, message
from tests.wire import cuts

START = ("messageStart", {"role": "assistant", "p": "abc"})
USAGE = {"inputTokens": 5, "outputTokens": 7, "totalTokens": 12}
METADATA = ("metadata", {"usage": USAGE, "metrics": {"latencyMs": 9}, "p": "abcdefgh"})
USED = Usage(5, 7)


def start(index: int, **begun: Any) -> tuple[str, Any]:
    return "contentBlockStart", {"contentBlockIndex": index, "start": begun}


def delta(index: int, **piece: Any) -> tuple[str, Any]:
    return "contentBlockDelta", {"contentBlockIndex": index, "delta": piece, "p": "ab"}


def stop(index: int) -> tuple[str, Any]:
    return "contentBlockStop", {"contentBlockIndex": index}


def end(reason: str = "end_turn", **fields: Any) -> tuple[str, Any]:
    return "messageStop", {"stopReason": reason, **fields}


def thought(index: int, **piece: Any) -> tuple[str, Any]:
    return delta(index, reasoningContent=piece)


CALL = {"toolUseId": "tooluse_1", "name": "f"}
REDACTED = b"EtkECkgIBxABGAIq"
OPENAIS_BLOB = b"gAAAAABo\xff"

GRAMMAR: dict[str, tuple[bytes, list[StreamEvent]]] = {
    "text in two blocks": (
        events(START, delta(0, text="Hello "), stop(0), delta(1, text="\u00e4\U0001f600"), stop(1), end(), METADATA),
        [Started(), TextDelta("Hello "), TextDelta("\u00e4\U0001f600"), Finished("stop", USED, "end_turn")],
    ),
    "no metadata": (events(START, delta(0, text="a"), end()), [Started(), TextDelta("a"), Finished("stop", None, "end_turn")]),
    "a call in pieces, and one without input": (
        events(
            START, start(0, toolUse=CALL), delta(0, toolUse={"input": ""}), delta(0, toolUse={"input": '{"a"'}),
            delta(0, toolUse={"input": ":1}"}), stop(0), start(1, toolUse={"toolUseId": "t2", "name": "g"}), stop(1),
            end("tool_use"), METADATA,
        ),
        [
            Started(), ToolCallStarted(0, "tooluse_1", "f"), ToolCallDelta(0, '{"a"'), ToolCallDelta(0, ":1}"),
            ToolCallStarted(1, "t2", "g"), ToolCallDelta(1, "{}"), Finished("tool_calls", USED, "tool_use"),
        ],
    ),
    "a call's input as the object that it is": (
        events(START, start(0, toolUse=CALL), delta(0, toolUse={"input": {"a": [1]}}), stop(0), end("tool_use")),
        [
            Started(), ToolCallStarted(0, "tooluse_1", "f"), ToolCallDelta(0, '{"a":[1]}'),
            Finished("tool_calls", None, "tool_use"),
        ],
    ),
    "end_turn though tools were called": (
        events(START, start(0, toolUse=CALL), end(), METADATA),
        [
            Started(), ToolCallStarted(0, "tooluse_1", "f"), ToolCallDelta(0, "{}"), Finished("tool_calls", USED, "end_turn"),
        ],
    ),
    "a tool that Bedrock runs": (
        events(
            START, start(0, toolUse={**CALL, "type": "server_tool_use"}), delta(0, toolUse={"input": "{}"}), stop(0),
            start(1, toolResult={"toolUseId": "tooluse_1"}), delta(1, toolResult=[{"json": {"a": 1}}]), stop(1),
            delta(2, text="42"), end(), METADATA,
        ),
        [
            Started(), ToolCallStarted(0, "tooluse_1", "f", "server"), ToolCallDelta(0, "{}"), Working(), Working(),
            TextDelta("42"), Finished("stop", USED, "end_turn"),
        ],
    ),
    "reasoning with its signature": (
        events(START, thought(0, text="Hm"), thought(0, text="."), thought(0, signature="si"), thought(0, signature="g"),
               stop(0), delta(1, text="a"), end(), METADATA),
        [
            Started(), ReasoningDelta("Hm"), ReasoningDelta("."), Working(), Working(), ReasoningBlock(0, "Hm.", "sig"),
            TextDelta("a"), Finished("stop", USED, "end_turn"),
        ],
    ),
    "redacted reasoning, Claude's in two pieces and another's": (
        events(
            START, thought(0, redactedContent=base64.b64encode(REDACTED[:5]).decode()),
            thought(0, redactedContent=base64.b64encode(REDACTED[5:]).decode()), stop(0),
            thought(1, redactedContent=base64.b64encode(OPENAIS_BLOB).decode()), end(), METADATA,
        ),
        [
            Started(), Working(), Working(), ReasoningBlock(0, redacted=REDACTED.decode()), Working(),
            ReasoningBlock(1, redacted=BEDROCKS + base64.b64encode(OPENAIS_BLOB).decode()),
            Finished("stop", USED, "end_turn"),
        ],
    ),
    "citations": (
        events(
            START, delta(0, text="a"),
            delta(0, citation={"title": "T", "location": {"web": {"url": "https://e.com/"}}, "sourceContent": [{"text": "q"}]}),
            delta(0, citation={"source": "doc", "location": {"documentChar": {"start": 1, "end": 2}}}), stop(0), end(),
            METADATA,
        ),
        [
            Started(), TextDelta("a"), Cited("https://e.com/", "T", quote="q"), Cited("", "doc"),
            Finished("stop", USED, "end_turn"),
        ],
    ),
    "an image": (
        events(START, start(0, image={"format": "png"}), delta(0, image={"source": {"bytes": "aGk="}}), end(), METADATA),
        [Started(), Working(), Working(), Finished("stop", USED, "end_turn")],
    ),
    "cached input": (
        events(START, delta(0, text="a"), end(), ("metadata", {"usage": {**USAGE, "cacheReadInputTokens": 100,
                                                                         "cacheWriteInputTokens": 20}})),
        [Started(), TextDelta("a"), Finished("stop", Usage(125, 7, 100, written_input=20), "end_turn")],
    ),
    "cached input by how long it is kept": (
        events(START, delta(0, text="a"), end(), ("metadata", {"usage": {
            **USAGE, "cacheWriteInputTokens": 20,
            "cacheDetails": [None, {"ttl": "1h", "inputTokens": 15}, {"ttl": "5m", "inputTokens": 5}],
        }})),
        [Started(), TextDelta("a"),
         Finished("stop", Usage(25, 7, written_input=20, written_input_1h=15), "end_turn")],
    ),
    "cached input by how long it is kept, in no form": (
        events(START, delta(0, text="a"), end(), ("metadata", {"usage": {
            **USAGE, "cacheWriteInputTokens": 20, "cacheDetails": {"ttl": "1h", "inputTokens": 15},
        }})),
        [Started(), TextDelta("a"), Finished("stop", Usage(25, 7, written_input=20), "end_turn")],
    ),
    "a stop sequence": (
        events(START, delta(0, text="a"), end("stop_sequence", additionalModelResponseFields={"delta": {"stop_sequence": "X"}}),
               METADATA),
        [Started(), TextDelta("a"), Finished("stop", USED, "stop_sequence", stop_sequence="X")],
    ),
    "initial-response": (
        message({":event-type": "initial-response", ":message-type": "event"}, b"{}") + events(START, end(), METADATA),
        [Started(), Finished("stop", USED, "end_turn")],
    ),
    "no messageStart": (events(delta(0, text="a"), end()), [Started(), TextDelta("a"), Finished("stop", None, "end_turn")]),
    "fields of other types": (
        events(("messageStart", {"role": 7}), ("contentBlockDelta", {"contentBlockIndex": "0", "delta": {"text": ["a", 1]}}),
               ("messageStop", {"stopReason": "end_turn", "additionalModelResponseFields": []}),
               ("metadata", {"usage": {"inputTokens": "5", "outputTokens": 7.0, "totalTokens": {}}})),
        [Started(), TextDelta("a1"), Finished("stop", USED, "end_turn")],
    ),
}  # fmt: skip


def decoder(**options: Any) -> ConverseDecoder:
    return Bedrock(region="eu-central-1", **options).decoder()


def told(reads: list[bytes], **options: Any) -> list[StreamEvent]:
    made = decoder(**options)
    return [event for read in reads for event in made.feed(read)] + made.close()


@pytest.mark.parametrize("name", GRAMMAR)
def test_a_stream_is_told_however_its_bytes_are_cut(name: str) -> None:
    body, expected = GRAMMAR[name]
    for reads in cuts.exhaustive(body):
        assert told(reads) == expected


REASONS = {
    "end_turn": "stop", "stop_sequence": "stop", "tool_use": "tool_calls", "max_tokens": "length",
    "model_context_window_exceeded": "length", "guardrail_intervened": "content_filter", "content_filtered": "content_filter",
    "something_new": "stop",
}  # fmt: skip


@pytest.mark.parametrize("native", REASONS)
def test_every_stop_reason_has_its_word(native: str) -> None:
    finished = told([events(START, delta(0, text="a"), end(native), METADATA)])[-1]
    assert finished == Finished(REASONS[native], USED, native)  # type: ignore[arg-type]


@pytest.mark.parametrize("native", ["malformed_model_output", "malformed_tool_use"])
def test_a_stop_reason_that_means_failure_is_an_error(native: str) -> None:
    made = decoder()
    assert made.feed(events(START, delta(0, text="a"), end(native), METADATA)) == [Started(), TextDelta("a")]
    with pytest.raises(UpstreamError) as failed:
        made.close()
    assert failed.value.kind == "stream_error"


EXCEPTIONS: list[tuple[str, dict[str, Any], UpstreamErrorKind]] = [
    ("throttlingException", {"message": "Too many tokens, please wait before trying again."}, "rate_limited"),
    ("throttlingException", {"message": "Rate exceeded"}, "rate_limited"),
    ("modelStreamErrorException", {"message": "The model failed", "originalStatusCode": 500, "originalMessage": "x"},
     "server_error"),
    ("modelStreamErrorException", {"message": "The system encountered an unexpected error during processing."}, "stream_error"),
    ("validationException", {"message": "The model returned errors: messages: roles must alternate"}, "bad_request"),
    ("validationException", {"message": "Input is too long for requested model."}, "context_length"),
    ("serviceUnavailableException", {"message": "Bedrock is unable to process your request."}, "overloaded"),
    ("internalServerException", {"message": "The system encountered an unexpected error"}, "server_error"),
    ("modelTimeoutException", {"message": "The model timed out."}, "server_error"),
    ("somethingNewException", {"Message": "No."}, "stream_error"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "kind"), EXCEPTIONS)
def test_an_exception_in_the_stream_has_its_kind_and_comes_behind_the_text_before_it(
    name: str, value: dict[str, Any], kind: UpstreamErrorKind
) -> None:
    for failure in (exception(name, value), event(name, value)):
        body = events(START, delta(0, text="a")) + failure
        for reads in ([body], cuts.bytewise(body)):
            made = decoder()
            found: list[StreamEvent] = []
            with pytest.raises(UpstreamError) as failed:  # noqa: PT012
                for read in reads:
                    found += made.feed(read)
                made.close()
            assert found == [Started(), TextDelta("a")]
            assert (failed.value.kind, failed.value.status, failed.value.provider_code) == (kind, 200, name)
            assert failed.value.message in (
                value.get("originalMessage"),
                value.get("message"),
                value.get("Message"),
            )


def test_an_error_of_the_protocol_is_told() -> None:
    headers = {
        ":message-type": "error",
        ":error-code": "InternalFailure",
        ":error-message": "Something broke in there",
    }
    with pytest.raises(UpstreamError) as failed:
        decoder().feed(message(headers))
    assert failed.value.message == "Something broke in there"
    with pytest.raises(UpstreamError):
        decoder().feed(exception("throttlingException", b"\xff not JSON"))


def test_what_is_unknown_is_skipped_and_counted() -> None:
    body = (
        events(START, ("contentBlockAudio", {"a": 1}))
        + message({":message-type": "event"}, b"{}")
        + message(header(":message-type", 7), b"{}")
        + message({":message-type": "event", ":event-type": "contentBlockDelta", "x-new": True}, b"no JSON")
        + events(delta(0, somethingNew={"a": 1}), delta(0, text="a"), end(), METADATA)
    )
    made = decoder()
    assert made.feed(body) == [Started(), TextDelta("a"), Finished("stop", USED, "end_turn")]
    assert made.skipped == 4
    with pytest.raises(UpstreamError) as failed:
        told([body], strict=True)
    assert failed.value.kind == "garbled"


@pytest.mark.parametrize(
    "cut", [b"", events(START), events(START, delta(0, text="a")), events(START, end())[:-40]]
)
def test_an_end_without_a_stop_reason_is_a_cut(cut: bytes) -> None:
    with pytest.raises(UpstreamError) as failed:
        told([cut])
    assert failed.value.kind == "truncated"


def test_metadata_that_is_cut_off_costs_the_usage_alone() -> None:
    assert told([events(START, delta(0, text="a"), end(), METADATA)[:-5]])[-1] == Finished(
        "stop", None, "end_turn"
    )


def test_a_wrong_checksum_is_told_behind_the_text_before_it() -> None:
    wrong = bytearray(events(delta(0, text="b")))
    wrong[-1] ^= 1
    made = decoder()
    assert made.feed(events(START, delta(0, text="a")) + wrong) == [Started(), TextDelta("a")]
    with pytest.raises(UpstreamError) as failed:
        made.close()
    assert failed.value.kind == "garbled"


def test_an_event_beyond_max_event_is_refused() -> None:
    with pytest.raises(UpstreamError) as failed:
        told([events(delta(0, text="a" * 3000))], max_event=2000)
    assert failed.value.kind == "garbled"


WHOLE = {
    "output": {
        "message": {
            "role": "assistant",
            "content": [
                {"reasoningContent": {"reasoningText": {"text": "Hm", "signature": "sig"}}},
                {"text": "Hi"},
                {"toolUse": {"toolUseId": "t", "name": "f", "input": {"a": 1}}},
                7,
            ],
        }
    },
    "stopReason": "tool_use",
    "usage": USAGE,
}


def test_a_whole_answer_in_place_of_a_stream_is_the_answer() -> None:
    body = json.dumps(WHOLE).encode()
    for reads in ([body], cuts.bytewise(b" " + body)):
        assert told(reads) == [
            Started(), ReasoningDelta("Hm"), ReasoningBlock(0, "Hm", "sig"), TextDelta("Hi"), ToolCallStarted(0, "t", "f"),
            ToolCallDelta(0, '{"a":1}'), Finished("tool_calls", USED, "tool_use"),
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"message":"Too many requests, please wait before trying again."}', "rate_limited"),
        (b'{"__type":"ThrottlingException","message":"x"}', "rate_limited"),
        (b'{"output":{"mess', "truncated"),
        (b"<html>502</html>", "truncated"),
        (b'{"output":{}}', "garbled"),
        (b'{"output":{"message":{"content":[{"text":"a"}]}}}', None),
    ],
)
def test_other_documents_in_place_of_a_stream(body: bytes, kind: str | None) -> None:
    if kind is None:
        assert told([body])[-1] == Finished("stop", None, "")
        return
    with pytest.raises(UpstreamError) as failed:
        told([body])
    assert failed.value.kind == kind


def test_usage_is_reported_once_it_was_told_and_call_ids_stay_unique() -> None:
    made = decoder()
    made.distinguish(frozenset({"tooluse_1"}))
    assert made.feed(events(START, start(0, toolUse=CALL)))[1] == ToolCallStarted(0, "", "f")
    assert made.reported is None
    made.feed(events(METADATA))
    assert made.reported == USED
    assert made.feed(events(end())) == []
    assert made.close()[-1] == Finished("tool_calls", USED, "end_turn")


def test_keep_stop_passes_the_reason_on() -> None:
    assert told([events(START, start(0, toolUse=CALL), end(), METADATA)], keep_stop=True)[-1] == Finished(
        "stop", USED, "end_turn"
    )


def test_reasoning_beyond_its_bound_is_told_without_its_block() -> None:
    long = events(
        *(thought(0, text="x" * 1_000_000) for _ in range(5)),
        thought(0, signature="s"),
        stop(0),
        end(),
        METADATA,
    )
    found = told([events(START) + long])
    assert sum(isinstance(event, ReasoningDelta) for event in found) == 5
    assert not any(isinstance(event, ReasoningBlock) for event in found)


HTTP: list[tuple[int, dict[str, str], bytes, UpstreamErrorKind]] = [
    (400, {"x-amzn-errortype": "ValidationException:http://internal.amazon.com/"}, b'{"message":"bad"}', "bad_request"),
    (400, {"x-amzn-errortype": "ValidationException"}, b'{"message":"The provided model identifier is invalid."}', "not_found"),
    (400, {}, b'{"message":"Input is too long for requested model."}', "context_length"),
    (403, {"x-amzn-errortype": "AccessDeniedException"}, b'{"message":"You have no access to the model"}', "not_found"),
    (403, {"x-amzn-errortype": "UnrecognizedClientException"}, b"{}", "bad_credentials"),
    (403, {"x-amzn-errortype": "ExpiredTokenException"}, b"{}", "bad_credentials"),
    (404, {"x-amzn-errortype": "ResourceNotFoundException"}, b'{"message":"no"}', "not_found"),
    (408, {"x-amzn-errortype": "ModelTimeoutException"}, b'{"message":"late"}', "headers_timeout"),
    (424, {"x-amzn-errortype": "ModelErrorException"}, b'{"message":"x","originalStatusCode":500}', "server_error"),
    (424, {}, b'{"message":"x"}', "server_error"),
    (429, {"x-amzn-errortype": "ThrottlingException"}, b'{"message":"Too many requests"}', "rate_limited"),
    (429, {"x-amzn-errortype": "ModelNotReadyException"}, b'{"message":"x"}', "rate_limited"),
    (500, {"x-amzn-errortype": "InternalServerException"}, b"{}", "server_error"),
    (503, {"x-amzn-errortype": "ServiceUnavailableException", "retry-after": "3"}, b"{}", "overloaded"),
    (503, {}, b'{"message":"Too many connections, please wait before trying again."}', "overloaded"),
    (429, {}, b'{"message":"Too many requests, please wait before trying again."}', "rate_limited"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "headers", "body", "kind"), HTTP)
def test_http_errors_have_their_kinds(
    status: int, headers: dict[str, str], body: bytes, kind: UpstreamErrorKind
) -> None:
    error = Bedrock(region="eu-central-1").error(status, headers, body)
    assert error.kind == kind
    assert error.retry_after == (3 if "retry-after" in headers else None)

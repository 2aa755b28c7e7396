"""Claude on Bedrock and Vertex AI: what is sent is what Anthropic's SDK sends, and chunks are Anthropic's
events."""

import json
from typing import Any

import pytest

from sluice.backends.protocol import with_rules
from sluice.config.rule_file import bundled_rules
from sluice.errors import UpstreamError, UpstreamErrorKind
from sluice.model.chat import ChatRequest, Message, Reasoning, Sampling, Text, Tool
from sluice.model.events import (
    Finished,
    ReasoningBlock,
    ReasoningDelta,
    Started,
    StreamEvent,
    TextDelta,
    Usage,
    Verbatim,
)
from sluice.model.rules import rules_of
from sluice_plugins.anthropic.backend import Anthropic
from sluice_plugins.anthropic.vertex import VertexAnthropic
from sluice_plugins.bedrock.invoke import BedrockAnthropic
from tests import corpus
from tests.fakes.eventstreams import chunk, event, exception, message
from tests.plugins.bedrock.test_corpus import check, decoded, ways
from tests.plugins.credentials.oracle import ask
from tests.wire import cuts

MODEL = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0"
HI = Message("user", (Text("Hi"),))


def claude(*said: dict[str, Any]) -> bytes:
    return b"".join(map(chunk, said))


START = {
    "type": "message_start",
    "message": {
        "id": "msg_1",
        "model": "claude",
        "content": [],
        "usage": {"input_tokens": 5, "output_tokens": 1},
    },
}
TEXT = {
    "type": "content_block_delta",
    "index": 1,
    "delta": {"type": "text_delta", "text": "\u00e4 \U0001f600"},
}
THOUGHT = {
    "type": "content_block_start",
    "index": 0,
    "content_block": {"type": "thinking", "thinking": "Hm", "signature": "s"},
}
END = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}}
STOP = {
    "type": "message_stop",
    "amazon-bedrock-invocationMetrics": {"inputTokenCount": 5, "outputTokenCount": 7},
}
SAID: list[dict[str, Any]] = [
    START, THOUGHT, {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}}, TEXT,
    {"type": "content_block_stop", "index": 1}, {"type": "ping"}, END, STOP,
]  # fmt: skip
ANSWER = claude(*SAID)
TOLD: list[StreamEvent] = [
    Started("msg_1", "claude", Usage(5, 1)), ReasoningDelta("Hm"), ReasoningBlock(0, "Hm", "s"), TextDelta("\u00e4 \U0001f600"),
    Finished("stop", Usage(5, 7), "end_turn"),
]  # fmt: skip


def told(reads: list[bytes], **options: Any) -> list[StreamEvent]:
    decoder = BedrockAnthropic(region="eu-central-1", **options).decoder()
    return [event for read in reads for event in decoder.feed(read)] + decoder.close()


def test_chunks_are_anthropics_events_however_the_bytes_are_cut() -> None:
    for reads in cuts.exhaustive(ANSWER):
        assert told(reads) == TOLD
    assert told([event("initial-response", {}) + ANSWER]) == TOLD


@pytest.mark.parametrize("recorded", corpus.params("bedrock-invoke"))
def test_every_recorded_stream_says_what_its_manifest_says(recorded: corpus.Recorded) -> None:
    for reads in ways(recorded.body):
        check(recorded, *decoded(BedrockAnthropic(region="us-east-1").decoder(), reads))


NATIVE: list[tuple[bytes, list[StreamEvent]]] = [
    (
        chunk({"generation": "Hel", "prompt_token_count": 4, "generation_token_count": 1})
        + chunk({"generation": "lo", "generation_token_count": 2, "stop_reason": "length"}),
        [Started(), TextDelta("Hel"), TextDelta("lo"), Finished("length", Usage(4, 2), "length")],
    ),
    (
        chunk({"outputs": [{"text": "Hi", "stop_reason": None}]})
        + chunk(
            {
                "outputs": [{"text": "", "stop_reason": "stop"}],
                "amazon-bedrock-invocationMetrics": {"inputTokenCount": 4},
            }
        ),
        [Started(), TextDelta("Hi"), Finished("stop", Usage(4, 0), "stop")],
    ),
    (
        chunk({"messageStart": {"role": "assistant"}})
        + chunk({"contentBlockStart": {"contentBlockIndex": 0, "start": {}}})
        + chunk({"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"text": "Hi"}}})
        + chunk({"something": 1})
        + chunk({"messageStop": {"stopReason": "end_turn"}}),
        [Started(), TextDelta("Hi"), Finished("stop", None, "end_turn")],
    ),
]


@pytest.mark.parametrize(("body", "expected"), NATIVE)
def test_other_models_answer_in_their_own_formats(body: bytes, expected: list[StreamEvent]) -> None:
    for reads in ([body], cuts.bytewise(body)):
        assert told(reads) == expected


FAILED: list[tuple[bytes, UpstreamErrorKind]] = [
    (exception("throttlingException", {"message": "Rate exceeded"}), "rate_limited"),
    (event("modelTimeoutException", {"message": "late"}), "server_error"),
    (claude({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}), "overloaded"),
    (b"", "truncated"),
    (b"\x00" * 12, "garbled"),
]


@pytest.mark.parametrize(("failure", "kind"), FAILED)
def test_a_failure_comes_behind_what_was_said(failure: bytes, kind: UpstreamErrorKind) -> None:
    body = claude(START, TEXT) + failure
    for reads in ([body], cuts.bytewise(body)):
        decoder = BedrockAnthropic(region="eu-central-1").decoder()
        found: list[StreamEvent] = []
        with pytest.raises(UpstreamError) as failed:  # noqa: PT012
            for read in reads:
                found += decoder.feed(read)
            decoder.close()
        assert failed.value.kind == kind
        assert found == [TOLD[0], TOLD[3]]


def test_what_is_no_chunk_is_skipped_and_counted() -> None:
    odd = event("other", {}) + event("chunk", b"no JSON") + event("chunk", {"bytes": "?"}) + message({}, b"")
    decoder = BedrockAnthropic(region="eu-central-1").decoder()
    assert decoder.feed(odd + ANSWER) == TOLD
    assert decoder.skipped == 4
    assert decoder.reported == Usage(5, 7)
    assert (decoder.skipped_fields, decoder.finish_missing) == (0, 0)


def test_lines_ends_in_an_event_and_one_that_is_no_base64_do_no_harm() -> None:
    spread = b"".join(
        chunk(json.dumps(said, indent=1).replace("\n", "\r\n").encode()) for said in (START, TEXT, END, STOP)
    )
    assert told([spread]) == [TOLD[0], TOLD[3], TOLD[4]]
    plain = b"".join(event("chunk", {"bytes": said}) for said in (START, TEXT, END, STOP))
    assert told([plain]) == [TOLD[0], TOLD[3], TOLD[4]]


def test_a_document_in_place_of_a_stream_is_an_answer_or_an_error() -> None:
    whole = {
        "type": "message",
        "id": "msg_1",
        "content": [{"type": "text", "text": "Hi"}],
        "stop_reason": "end_turn",
    }
    assert told([json.dumps(whole).encode()])[1:] == [TextDelta("Hi"), Finished("stop", None, "end_turn")]
    with pytest.raises(UpstreamError) as failed:
        told([b'{"message":"Too many requests, please wait before trying again."}'])
    assert failed.value.kind == "rate_limited"


# ---- what is sent

SDK = """
import json, sys
from anthropic import AnthropicBedrock, AnthropicVertex
from anthropic._models import FinalRequestOptions
clients = {
    "bedrock": AnthropicBedrock(aws_region="eu-central-1", aws_access_key="a", aws_secret_key="b"),
    "vertex": AnthropicVertex(region="global", project_id="my-project", access_token="t"),
    "vertex-region": AnthropicVertex(region="europe-west1", project_id="my-project", access_token="t"),
}
found = []
for name, body, betas in json.load(sys.stdin):
    headers = {"anthropic-beta": betas} if betas else {}
    options = FinalRequestOptions(method="post", url="/v1/messages", json_data=body, headers=headers)
    request = clients[name]._build_request(clients[name]._prepare_options(options))
    found.append([str(request.url), json.loads(request.content), request.headers.get("anthropic-beta")])
print(json.dumps(found))
"""

PLATFORMS: dict[str, Any] = {
    "bedrock": BedrockAnthropic(region="eu-central-1", beta=("b1", "b2")),
    "vertex": VertexAnthropic(project="my-project", beta=("b1", "b2")),
    "vertex-region": VertexAnthropic(project="my-project", location="europe-west1"),
}
MODELS = {
    "bedrock": MODEL,
    "vertex": "claude-sonnet-4-5@20250929",
    "vertex-region": "claude-opus-4-1@20250805",
}


def chats() -> list[ChatRequest]:
    tools = (Tool("f", "Does it", {"type": "object", "properties": {}}),)
    return [
        ChatRequest("openai", None, (HI,)),
        ChatRequest(
            "openai", None, (Message("system", (Text("s"),)), HI), sampling=Sampling(5000, 0.5), tools=tools
        ),
        ChatRequest("openai", None, (HI,), reasoning=Reasoning("low"), tool_choice="auto", tools=tools),
    ]


def test_anthropics_sdk_sends_the_same_to_the_platforms() -> None:
    questions, ours = [], []
    for name, plain in PLATFORMS.items():
        backend = with_rules(plain, rules_of(bundled_rules(), [], f"{name}-anthropic", "h", MODELS[name]))
        own = with_rules(Anthropic(), rules_of(bundled_rules(), [], "anthropic", "h", MODELS[name]))
        for chat in chats():
            questions.append([name, own.body(chat, MODELS[name]), ",".join(backend.beta)])
            request = backend.request(chat, MODELS[name])
            ours.append([request.url, json.loads(request.body), dict(request.headers).get("anthropic-beta")])
    theirs = ask("anthropic", SDK, json.loads(json.dumps(questions)))
    for sent, wanted in zip(ours, theirs, strict=True):
        url, body, betas = wanted
        assert sent[0] == url.replace(":0/", "%3A0/")  # as botocore has it
        assert body.pop(
            "anthropic_version"
        )  # newer SDKs send the API's, which the platforms' own pages do not
        assert sent[1].pop("anthropic_version") == (
            "bedrock-2023-05-31" if "bedrock" in url else "vertex-2023-10-16"
        )
        assert sent[1] == body
        if "bedrock" in url:
            assert (sent[2], body["anthropic_beta"]) == (None, ["b1", "b2"])
        else:
            assert sent[2] == betas


def test_a_body_without_stream_asks_for_a_whole_answer() -> None:
    body = b'{"model":"m","max_tokens":5,"anthropic_version":"own","messages":[],"stream":false}'
    headers = (("anthropic-version", "2023-06-01"), ("x-own", "a"))
    bedrock = PLATFORMS["bedrock"].sent("arn:aws:bedrock:x/y", headers, body)
    assert (
        bedrock.url
        == "https://bedrock-runtime.eu-central-1.amazonaws.com/model/arn%3Aaws%3Abedrock%3Ax%2Fy/invoke"
    )
    assert json.loads(bedrock.body) == {"max_tokens": 5, "anthropic_version": "own", "messages": []}
    assert bedrock.headers == (("x-own", "a"),)
    vertex = PLATFORMS["vertex"].sent("m", headers, body)
    assert vertex.url.endswith("/locations/global/publishers/anthropic/models/m:rawPredict")
    assert json.loads(vertex.body)["stream"] is False


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"project": "", "location": "?"}, "location"),
        ({"project": "a/b"}, "project"),
        ({"project": "p", "base_url": "x"}, "http"),
    ],
)
def test_places_are_checked(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        VertexAnthropic(**options)
    with pytest.raises(ValueError, match="region"):
        BedrockAnthropic()


def test_addresses_of_ones_own_keep_their_paths_and_queries() -> None:
    vertex = VertexAnthropic(project="p", location="us", base_url="https://e.com/x/v1?a=b")
    assert vertex.sent("m", (), b"{}").url == (
        "https://e.com/x/v1/projects/p/locations/us/publishers/anthropic/models/m:rawPredict?a=b"
    )
    bedrock = BedrockAnthropic(base_url="https://e.com/x?a=b")
    assert (
        bedrock.sent("m", (), b'{"stream":true}').url
        == "https://e.com/x/model/m/invoke-with-response-stream?a=b"
    )


def test_keys_are_bearer_tokens() -> None:
    for platform in PLATFORMS.values():
        assert platform.credentials() == ()
        assert platform.key_field.line("k") == b"authorization: Bearer k\r\n"


def test_betas_of_callers_stand_in_the_body_beside_its_own() -> None:
    backend = BedrockAnthropic(region="eu-central-1", beta=("own-2026-01-01",))
    request = backend.request(ChatRequest("widget", None, (Message("user", (Text("x"),)),)), "claude")
    backend.tell(request, (("anthropic-beta", "context-1m-2025-08-07,own-2026-01-01"), ("x-team", "a")))
    assert json.loads(request.body)["anthropic_beta"] == ["own-2026-01-01", "context-1m-2025-08-07"]
    assert ("x-team", "a") in request.headers
    assert set(backend.forwards) == {"anthropic-beta"}


def test_clients_of_anthropics_dialect_get_the_events_as_anthropic_writes_them() -> None:
    decoder = BedrockAnthropic(region="eu-central-1").decoder(verbatim=True)
    events = [event for read in cuts.random(ANSWER, 1, 60) for event in decoder.feed(read)] + decoder.close()
    passed_on = b"".join(event.data for event in events if isinstance(event, Verbatim))
    frames = [frame.split("\n") for frame in passed_on.decode().split("\n\n") if frame]
    assert [kind for kind, _ in frames] == [f"event: {one['type']}" for one in SAID]
    assert [json.loads(data.removeprefix("data: ")) for _, data in frames] == SAID
    assert [event for event in events if not isinstance(event, Verbatim)] == TOLD


def test_a_whole_answer_is_asked_for_and_passed_on() -> None:
    wire = {"model": "chat", "max_tokens": 5, "messages": [{"role": "user", "content": "Hi"}], "top_k": 3}
    chat = ChatRequest("anthropic", "chat", (HI,), stream=False, wire=wire)
    whole = {
        "type": "message",
        "id": "msg_1",
        "content": [{"type": "text", "text": "Hi"}],
        "stop_reason": "end_turn",
        "x": 1,
    }
    for platform, verb in ((PLATFORMS["bedrock"], "/invoke"), (PLATFORMS["vertex"], ":rawPredict")):
        request = platform.whole_request(chat, "claude-3-haiku")
        assert request.url.endswith(verb)
        assert json.loads(request.body)["top_k"] == 3
        decoder = platform.whole_decoder()
        last = (decoder.feed(json.dumps(whole).encode()) + decoder.close())[-1]
        assert isinstance(last, Verbatim)
        assert json.loads(last.data) == whole


def test_vertex_counts_tokens_where_it_is_told_to() -> None:
    assert PLATFORMS["vertex"].operation("count_tokens", "anthropic") is None
    assert (
        BedrockAnthropic(region="eu-central-1", count_tokens=True).operation("count_tokens", "anthropic")
        is None
    )
    vertex = VertexAnthropic(project="p", location="us-east5", count_tokens=True)
    counting = vertex.operation("count_tokens", "anthropic")
    assert counting is not None
    request = counting.whole_request(
        ChatRequest("anthropic", "chat", (HI,), wire={"model": "chat", "messages": []}), "claude"
    )
    assert request.url == (
        "https://us-east5-aiplatform.googleapis.com/v1/projects/p/locations/us-east5/publishers/anthropic/models/"
        "count-tokens:rawPredict"
    )
    assert json.loads(request.body)["model"] == "claude"
    assert "anthropic-version" not in dict(request.headers)

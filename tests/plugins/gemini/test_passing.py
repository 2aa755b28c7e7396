"""Callers of Gemini's own dialect: what of their requests changes on the way, and what of the answers."""

import json
import re
from typing import Any

import msgspec
import pytest

from sluice.backends.protocol import Decoder
from sluice.errors import UpstreamError
from sluice.frontends import Answer
from sluice.frontends.gemini.dialect import Gemini as Frontend
from sluice.frontends.gemini.request import streamed, whole
from sluice.model.chat import ChatRequest
from sluice.model.rules import ModelRules
from sluice.proxy.fitting import Fitting
from sluice.proxy.relay import Relay
from sluice_plugins.gemini.backend import Gemini
from sluice_plugins.gemini.wire import UNSIGNED
from tests.wire import cuts

CONTENTS = [{"role": "user", "parts": [{"text": "?"}]}]


class Head(msgspec.Struct):
    headers: dict[str, str]
    query: dict[str, str]
    parameters: dict[str, str]


def head(**query: str) -> Head:
    return Head({}, query, {"model": "chat"})


def parsed(*, stream: bool = True, **fields: Any) -> ChatRequest:
    body = json.dumps({"contents": CONTENTS, **fields}).encode()
    return streamed(body, head(alt="sse")) if stream else whole(body, head())


def sent(backend: Gemini | None = None, model: str = "gemini-2.5-flash", **fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((backend or Gemini()).request(parsed(**fields), model).body)
    return found


# ---- requests


def test_a_body_is_sent_as_it_came_and_the_model_stands_in_the_url() -> None:
    body = b'{ "contents":[{"parts":[{"text":"\\u00e4"}]}], "tools":[{"googleSearch":{}}], "cachedContent":"cachedContents/1" }'
    request = Gemini().request(streamed(body, head(alt="sse")), "gemini-2.5-pro")
    assert request.body == body
    assert request.url.endswith("/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse")
    request = Gemini(base_url="http://h/v1?a=b").whole_request(whole(body, head()), "m")
    assert (request.body, request.url) == (body, "http://h/v1/models/m:generateContent?a=b")
    assert ("accept", "application/json") in request.headers


def test_names_of_the_other_spelling_are_sent_in_googles_own() -> None:
    given = {
        "generation_config": {"candidate_count": 2, "response_logprobs": True},
        "tools": {"url_context": {}},
    }
    assert sent(**given) == {
        "contents": CONTENTS,
        "generationConfig": {"candidateCount": 2, "responseLogprobs": True},
        "tools": [{"urlContext": {}}],
    }


THINKING: list[tuple[str, Any, Any]] = [
    ("gemini-2.5-flash", {"thinkingBudget": -1}, {"thinkingBudget": -1}),
    (
        "gemini-2.5-flash",
        {"thinkingBudget": 300, "includeThoughts": False},
        {"thinkingBudget": 300, "includeThoughts": False},
    ),
    ("gemini-2.5-flash", {"thinkingLevel": "HIGH"}, {"thinkingBudget": 24576}),
    ("gemini-2.5-pro", {"thinkingBudget": 0}, {"thinkingBudget": 128}),
    ("gemini-3.8-flash", {"thinkingLevel": "MINIMAL"}, {"thinkingLevel": "low"}),
    (
        "gemini-4-argon",
        {"thinkingBudget": 100, "includeThoughts": True},
        {"thinkingLevel": "low", "includeThoughts": True},
    ),
    ("gemini-3.8-flash", {"thinkingLevel": "MEDIUM"}, {"thinkingLevel": "MEDIUM"}),
    ("gemini-2.0-flash", {"includeThoughts": True}, None),
    ("projects/p/locations/l/endpoints/1", {"thinkingBudget": 5}, {"thinkingBudget": 5}),
]


@pytest.mark.parametrize(("model", "given", "expected"), THINKING)
def test_thinking_becomes_what_the_model_has(model: str, given: Any, expected: Any) -> None:
    config = sent(model=model, generationConfig={"topK": 3, "thinkingConfig": given})["generationConfig"]
    assert config == {"topK": 3} | ({"thinkingConfig": expected} if expected is not None else {})


def test_other_vendors_signatures_stay_away() -> None:
    call = {"functionCall": {"name": "f", "args": {}}}
    turn = {"role": "model", "parts": [{"text": "a", "thoughtSignature": "c2x1aWNlOlsi"}, {"text": "", "thoughtSignature":
            "c2x1aWNlOlsi"}, call, {**call, "thoughtSignature": "R29vZ2xl"}]}  # fmt: skip
    signed = {**call, "thoughtSignature": "R29vZ2xl"}
    turns = sent(contents=[*CONTENTS, turn])["contents"]
    assert turns[1] == {"role": "model", "parts": [{"text": "a"}, call, signed]}
    turns = sent(model="gemini-3-pro-preview", contents=[*CONTENTS, turn])["contents"]
    assert turns[1]["parts"] == [{"text": "a"}, {**call, "thoughtSignature": UNSIGNED}, signed]


def test_options_of_the_upstream_are_put_beside_the_callers_fields() -> None:
    backend = Gemini(
        safety_settings={"HARM_CATEGORY_A": "BLOCK_NONE", "HARM_CATEGORY_B": "OFF"},
        extra_body={"labels": {"a": "b"}, "generationConfig": {"seed": 1}},
        thoughts=True,
    )
    own = {"category": "HARM_CATEGORY_B", "threshold": "BLOCK_LOW_AND_ABOVE"}
    assert sent(backend, generationConfig={"topK": 3}, safetySettings=[own], model="gemini-2.5-flash") == {
        "contents": CONTENTS,
        "generationConfig": {"topK": 3, "thinkingConfig": {"includeThoughts": True}, "seed": 1},
        "safetySettings": [own, {"category": "HARM_CATEGORY_A", "threshold": "BLOCK_NONE"}],
        "labels": {"a": "b"},
    }


def test_rules_of_a_model_are_written_into_the_callers_object() -> None:
    rules = ModelRules(
        drop=("top_k", "store", "reasoning_effort"), cap={"temperature": 1.0, "max_tokens": 10}
    )
    config = {
        "topK": 3,
        "temperature": 2,
        "maxOutputTokens": 50,
        "thinkingConfig": {"thinkingBudget": 7},
        "topP": 0.5,
    }
    chat = Fitting(rules, dialect="gemini")(parsed(generationConfig=config, labels={"a": "b"}, store=False))
    assert json.loads(Gemini().request(chat, "gemini-2.5-flash").body) == {
        "contents": CONTENTS,
        "generationConfig": {"temperature": 1.0, "maxOutputTokens": 10, "topP": 0.5},
        "labels": {"a": "b"},
        "store": False,
    }


# ---- answers


def frames(*chunks: Any, end: bytes = b"\r\n\r\n") -> bytes:
    return b"".join([b"data: %b%b" % (json.dumps(chunk).encode(), end) for chunk in chunks])


def told(*parts: Any, **more: Any) -> dict[str, Any]:
    return {
        "candidates": [{"content": {"parts": list(parts), "role": "model"}, "index": 0, **more}],
        "modelVersion": "g",
    }


STREAM = [
    told({"text": "thinking", "thought": True}),
    told({"executableCode": {"language": "PYTHON", "code": "print(1)\n"}}),
    told({"text": "a\n\nü"}),
    {"candidates": [{"content": {"parts": [{"text": "second"}]}, "index": 1}], "modelVersion": "g"},
    told({"functionCall": {"name": "f", "args": {"x": [1.50]}}}, finishReason="STOP", avgLogprobs=-0.1),
    {
        "usageMetadata": {"promptTokenCount": 3, "totalTokenCount": 4, "trafficType": "ON_DEMAND"},
        "modelVersion": "g",
    },
]


def relayed(
    reads: list[bytes],
    *,
    query: str = "sse",
    stream: bool = True,
    reveal: bool = True,
    decoder: Decoder | None = None,
) -> tuple[bytes, UpstreamError | None]:
    body = json.dumps({"contents": CONTENTS}).encode()
    chat = streamed(body, head(alt=query)) if stream else whole(body, head())
    encoder = Frontend().encoder(chat, Answer("req", "chat", 1, reveal=reveal), verbatim=True)
    relay = Relay(decoder or Gemini().decoder(verbatim=True), encoder, not stream, True)
    out = b""
    try:
        for read in reads:
            out += relay.feed(read, 1.0)
        out += relay.close(1.0)
    except UpstreamError as error:
        return out + (encoder.fail(error) if stream else b""), error
    return out, None


@pytest.mark.parametrize("end", [b"\r\n\r\n", b"\n\n"])
def test_chunks_come_as_they_were_however_they_are_cut(end: bytes) -> None:
    for reads in cuts.exhaustive(frames(*STREAM, end=end)):
        assert relayed(reads) == (frames(*STREAM), None)


def test_a_list_and_a_whole_answer_are_made_of_the_chunks() -> None:
    reads = cuts.bytewise(frames(*STREAM))
    assert json.loads(relayed(reads, query="")[0]) == STREAM
    whole_answer = json.loads(relayed(reads, stream=False)[0])
    first, second = whole_answer["candidates"]
    assert [part.get("text") for part in first["content"]["parts"]] == ["thinking", None, "a\n\nü", None]
    assert (first["finishReason"], first["avgLogprobs"], second["content"]["parts"]) == (
        "STOP",
        -0.1,
        [{"text": "second"}],
    )
    assert whole_answer["usageMetadata"] == STREAM[-1]["usageMetadata"]


def test_a_whole_answer_is_passed_on_as_it_came() -> None:
    body = b'{ "candidates": [ {"content":{"parts":[{"text":"a","x":1.0}]},"finishReason":"STOP"} ],\n "modelVersion":"g" }'
    for reads in ([body], cuts.bytewise(body)):
        assert relayed(reads, stream=False, decoder=Gemini().whole_decoder()) == (body, None)
        hidden = relayed(reads, stream=False, reveal=False, decoder=Gemini().whole_decoder())[0]
        assert hidden == body.replace(b'"g"', b'"chat"')
    assert (
        json.loads(relayed([frames(*STREAM)], stream=False, decoder=Gemini().whole_decoder())[0])[
            "modelVersion"
        ]
        == "g"
    )
    cut = relayed([body[:60]], stream=False, decoder=Gemini().whole_decoder())[1]
    assert cut is not None
    assert cut.kind == "truncated"


def test_the_models_name_is_hidden() -> None:
    odd = {"modelVersion": "g", **told({"text": "a", "modelVersion": "x"}, finishReason="STOP")}
    out = relayed([frames(*STREAM, odd)], reveal=False)[0]
    read = [json.loads(frame[6:]) for frame in out.split(b"\r\n\r\n") if frame]
    assert [chunk["modelVersion"] for chunk in read] == ["chat"] * 7
    assert read[-1]["candidates"] == odd["candidates"]


def test_what_clients_would_misread_is_written_anew() -> None:
    halves = (
        b'data: {"candidates":[{"content":{"parts":[{"text":"\\ud83c"}]}}]}\n\n'
        b'data: {"candidates":[{"content":{"parts":[{"text":"\\udf0d","new":1}]},"finishReason":1}]}\n\n'
    )
    for reads in cuts.exhaustive(halves):
        out = relayed(reads)[0]
        read = [json.loads(frame[6:]) for frame in out.split(b"\r\n\r\n") if frame]
        said = [part["text"] for chunk in read for part in chunk["candidates"][0]["content"]["parts"]]
        assert ("".join(said), read[-1]["candidates"][0]["finishReason"]) == ("🌍", "STOP")
        assert read[-1]["candidates"][0]["content"]["parts"][0]["new"] == 1


CALL = {"functionCall": {"name": "f", "args": {"a_b": {"c_d": 1}}}, "thoughtSignature": "c2ln"}
IMAGE = {"inlineData": {"mimeType": "image/png", "data": "AA=="}}
USAGE = {"promptTokenCount": 3, "candidatesTokenCount": 2, "totalTokenCount": 5}
PLAIN = [told({"text": "a"}), told(CALL), told(IMAGE, finishReason="STOP") | {"usageMetadata": USAGE}]


def in_snake_case(value: Any) -> Any:
    if isinstance(value, list):
        return [in_snake_case(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    return {
        re.sub("([A-Z])", lambda found: "_" + found[1].lower(), name): (
            inner if name == "args" else in_snake_case(inner)
        )
        for name, inner in value.items()
    }


OTHER_NAMES = {
    "snake_case": [in_snake_case(chunk) for chunk in PLAIN],
    "an envelope": [{"response": chunk, "traceId": "t"} for chunk in PLAIN],
    "an envelope and snake_case": [{"response": in_snake_case(chunk)} for chunk in PLAIN],
}


@pytest.mark.parametrize("kind", OTHER_NAMES)
def test_chunks_in_snake_case_or_within_an_envelope_are_read_and_passed_on_in_googles_names(
    kind: str,
) -> None:
    chunks = OTHER_NAMES[kind]
    for reads in ([frames(*chunks)], cuts.bytewise(frames(*chunks)), [json.dumps(chunks).encode()]):
        passed, error = relayed(reads)
        assert error is None
        found = [json.loads(frame[6:]) for frame in passed.split(b"\r\n\r\n") if frame]
        assert found == PLAIN
        compact = [b"data: %b\n\n" % msgspec.json.encode(chunk) for chunk in PLAIN]
        plain, other = [], []
        for stream, events in (compact, plain), (reads, other):
            decoder = Gemini().decoder()
            for read in stream:
                events += decoder.feed(read)
            events += decoder.close()
        assert other == plain
    whole_answer = {**PLAIN[2], "responseId": "r"}
    for written in ({"response": whole_answer}, in_snake_case(whole_answer)):
        reads = [json.dumps(written).encode()]
        found = relayed(reads, stream=False, decoder=Gemini().whole_decoder())
        assert (json.loads(found[0]), found[1]) == (whole_answer, None)


def test_names_that_are_not_googles_are_passed_on_as_they_came() -> None:
    chunk = {"candidates": [{"content": {"parts": [{"text": "a"}]}, "finishReason": "STOP"}], "trace_id": "t"}
    assert relayed([frames(chunk)]) == (frames(chunk), None)


def test_a_cut_and_a_failure_end_in_one_error_behind_what_was_said() -> None:
    for last, kind in (
        (told({"text": "b"}, finishReason="MALFORMED_FUNCTION_CALL"), "stream_error"),
        (None, "truncated"),
    ):
        stream = [told({"text": "a"}), *([last] if last else [told({"text": "b"})])]
        for query in ("sse", ""):
            out, error = relayed([frames(chunk) for chunk in stream], query=query)
            assert error is not None
            assert error.kind == kind
            read = (
                json.loads(out)
                if not query
                else [json.loads(frame[6:]) for frame in out.split(b"\r\n\r\n") if frame]
            )
            said = [
                part["text"] for chunk in read[:-1] for part in chunk["candidates"][0]["content"]["parts"]
            ]
            assert ("".join(said), "error" in read[-1]) == ("ab", True)
            assert not [chunk for chunk in read[:-1] if "finishReason" in chunk["candidates"][0]]

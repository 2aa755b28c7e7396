"""The short way through a stream's ordinary chunks says what the long way says, which takes any chunk."""

from typing import Any, get_args

import pytest

from sluice.errors import UpstreamError
from sluice.frontends.openai.chunks import usage_object
from sluice.model.events import Finished, StreamEvent, Usage
from sluice_plugins.openai.chunk import FinishWord
from sluice_plugins.openai.document import DocumentDecoder
from sluice_plugins.openai.ends import FINISH
from sluice_plugins.openai.stream import ChunkDecoder

HEAD = b'"id":"c","object":"chat.completion.chunk","created":1,"model":"m"'
TEXT = b'{%b,"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}' % HEAD
STOP = b'{%b,"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}' % HEAD
USAGE = b'{%b,"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":1,"total_tokens":10}}' % HEAD

WRITTEN = USAGE.replace(
    b'"total_tokens":10',
    b'"total_tokens":10,"prompt_tokens_details":{"cached_tokens":2,"cache_write_tokens":5}',
)

STREAMS: list[list[bytes]] = [
    [TEXT, STOP, WRITTEN, b"[DONE]"],
    [TEXT, STOP, b"[DONE]"],
    [b'{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}', TEXT, STOP, USAGE, b"[DONE]"],
    [TEXT, b'{"choices":[{"index":0,"delta":{"content":"b"},"finish_reason":"max_tokens"}]}', b"[DONE]"],
    [TEXT, b"[DONE]"],
    [STOP, b"[DONE]"],
    [b"[DONE]"],
    [TEXT, USAGE, USAGE.replace(b"9", b"null"), STOP, b"[DONE]"],
    [
        TEXT,
        b'{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":2}}',
        b"[DONE]",
    ],
    [b'{"choices":[],"prompt_filter_results":[]}', TEXT, STOP, b"[DONE]"],
    [b'{"choices":[],"usage":{"prompt_tokens":1},"base_resp":{"status_code":1008,"status_msg":"no money"}}'],
    [TEXT, b'{"choices":[{"index":0,"delta":{},"finish_reason":"error"}]}', b"[DONE]"],
    [TEXT, b'{"error":{"message":"no"},"choices":[]}'],
    [TEXT, b'{"choices":[{"index":1,"delta":{"content":"b"}}]}', STOP, b"[DONE]"],
    [TEXT, b'{"choices":[{"delta":{"content":"b"}}]}', STOP, b"[DONE]"],
    [TEXT, b'{"choices":[{"index":0,"delta":{"content":"\\ud83d"}}]}', TEXT, STOP, b"[DONE]"],
    [TEXT, b'{"choices":[{"index":0,"delta":{"reasoning":"b"}}]}', TEXT, STOP, b"[DONE]"],
    [
        TEXT,
        b'{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"name":"f"}}]}}]}',
        STOP,
        b"[DONE]",
    ],
    [
        TEXT,
        b'{"choices":[{"index":0,"delta":{"content":"b"}}],"x_groq":{"usage":{"prompt_tokens":3}}}',
        STOP,
        b"[DONE]",
    ],
    [TEXT, b"{}", b"no JSON", STOP, b"[DONE]"],
]


def heard(stream: list[bytes], *, verbatim: bool, ordinary: bool) -> list[Any]:
    decoder = ChunkDecoder(verbatim=verbatim, new_id=lambda: "call_1", _ordinary=ordinary)
    events: list[StreamEvent | str] = []
    try:
        for payload in stream:
            events += decoder.feed(b"data: %b\n\n" % payload)
        events += decoder.close()
    except UpstreamError as error:
        events.append(f"{error.kind}: {error}")
    return [*events, decoder.skipped, decoder.skipped_fields, decoder.finish_missing]


@pytest.mark.parametrize("verbatim", [True, False])
@pytest.mark.parametrize("stream", STREAMS)
def test_an_ordinary_chunk_says_what_any_chunk_says(stream: list[bytes], verbatim: bool) -> None:
    assert heard(stream, verbatim=verbatim, ordinary=True) == heard(stream, verbatim=verbatim, ordinary=False)


def test_every_known_finish_reason_is_an_ordinary_one() -> None:
    assert set(get_args(FinishWord)) == set(FINISH)


MESSAGE = b'{"index":0,"message":{"role":"assistant","content":"a","refusal":null},"finish_reason":"stop"}'
DOCUMENTS: list[bytes] = [
    b'{%b,"choices":[%b],"usage":{"prompt_tokens":9,"completion_tokens":1,"total_tokens":10}}'
    % (HEAD, MESSAGE),
    b'{%b,"choices":[%b]}' % (HEAD, MESSAGE),
    b'{"choices":[%b],"usage":null}' % MESSAGE,
    b'{"choices":[%b],"usage":{"prompt_tokens":9,"completion_tokens":1,"total_tokens":99}}' % MESSAGE,
    b'{"choices":[%b],"usage":{"prompt_tokens":9,"completion_tokens":1}}' % MESSAGE,
    b'{"choices":[%b],"usage":{"prompt_tokens":-9,"completion_tokens":19,"total_tokens":10}}' % MESSAGE,
    b'{"choices":[%b],"usage":{"prompt_tokens":9,"completion_tokens":1,"total_tokens":10,"prompt_tokens_details":'
    b'{"cached_tokens":8},"completion_tokens_details":{"reasoning_tokens":1}}}' % MESSAGE,
    b'{"choices":[%b],"usage":{"prompt_tokens":9,"completion_tokens":1,"total_tokens":10,"cached_tokens":7}}'
    % MESSAGE,
    b'{"choices":[%b],"error":""}' % MESSAGE,
    b'{"choices":[%b],"error":{"message":"no"}}' % MESSAGE,
    b'{"choices":[%b]}' % MESSAGE.replace(b"stop", b"max_tokens"),
    b'{"choices":[%b]}' % MESSAGE.replace(b"stop", b"STOP"),
    b'{"choices":[%b]}' % MESSAGE.replace(b'"a"', b'""'),
    b'{"choices":[%b]}' % MESSAGE.replace(b'"refusal":null', b'"reasoning":"b"'),
    b'{"choices":[%b,%b]}' % (MESSAGE, MESSAGE.replace(b":0", b":1")),
]


@pytest.mark.parametrize("body", DOCUMENTS)
def test_an_ordinary_document_says_what_any_document_says(
    body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = [document_heard(body)]
    monkeypatch.setattr("sluice_plugins.openai.document.ORDINARY", 0)
    heard.append(document_heard(body))
    assert heard[0] == heard[1]


def document_heard(body: bytes) -> list[Any]:
    decoder = DocumentDecoder()
    try:
        return [*decoder.feed(body), *decoder.close(), decoder.skipped_fields, decoder.finish_missing]
    except UpstreamError as error:
        return [f"{error.kind}: {error}"]


@pytest.mark.parametrize(
    "details", ['"cache_creation_tokens":5', '"cache_write_tokens":5,"cache_creation_tokens":5']
)
def test_tokens_written_for_an_hour_are_counted_as_litellm_tells_them(details: str) -> None:
    told = USAGE.replace(
        b'"total_tokens":10',
        b'"total_tokens":10,"prompt_tokens_details":{%b,"cache_creation_token_details":'
        b'{"ephemeral_5m_input_tokens":1,"ephemeral_1h_input_tokens":4}}' % details.encode(),
    )
    for ordinary in (True, False):
        decoder = ChunkDecoder(_ordinary=ordinary)
        events = [
            event
            for payload in (TEXT, STOP, told, b"[DONE]")
            for event in decoder.feed(b"data: %b\n\n" % payload)
        ]
        assert events[-1].usage == Usage(9, 1, written_input=5, written_input_1h=4)  # type: ignore[union-attr]
    whole = told.replace(
        b'"choices":[]',
        b'"choices":[{"index":0,"message":{"role":"assistant","content":"a"},"finish_reason":"stop"}]',
    )
    finished = DocumentDecoder()
    events = [*finished.feed(whole), *finished.close()]
    [last] = [event for event in events if isinstance(event, Finished)]
    assert last.usage == Usage(9, 1, written_input=5, written_input_1h=4)


@pytest.mark.parametrize("ordinary", [True, False])
def test_tokens_written_to_the_cache_are_counted(ordinary: bool) -> None:
    decoder = ChunkDecoder(_ordinary=ordinary)
    events = [
        event
        for payload in (TEXT, STOP, WRITTEN, b"[DONE]")
        for event in decoder.feed(b"data: %b\n\n" % payload)
    ]
    [finished] = [event for event in events if isinstance(event, Finished)]
    assert finished.usage == Usage(9, 1, cached_input=2, written_input=5)
    assert usage_object(finished.usage)["prompt_tokens_details"] == {
        "cached_tokens": 2,
        "cache_write_tokens": 5,
    }

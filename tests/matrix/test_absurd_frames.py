"""No field of a provider's frame, however absurd its value is, makes a decoder or an encoder fail, or reaches a
client in a form that its JSON parser refuses: for each upstream dialect and each client, streamed and whole.

An answer may end in an error of ours (`UpstreamError`) instead.
"""

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.errors import DecoderCrashed, UpstreamError
from sluice.model.events import MAX_TOKENS, Verbatim
from tests.fakes import eventstreams
from tests.matrix import answers
from tests.matrix.answers import Answer
from tests.matrix.lanes import CLIENTS, UPSTREAMS, relay_of
from tests.matrix.talk import Call
from tests.matrix.test_answers import asked
from tests.matrix.test_requests import EXAMPLES, bounded

Path = tuple[str | int, ...]
PLACE = "<here>"
LANES = [(client, stream) for client in CLIENTS for stream in (True, False) if stream or client != "widget"]
TALKS = {lane: asked(lane[0], stream=lane[1]) for lane in LANES}
SAID = (
    Answer(
        "thought", "c2Vh", "said", (Call("1", "f", {"x": 1}), Call("2", "g", {})), "tool_calls", (12, 9, 3, 2)
    ),
    Answer("", "", "said it", (), "stop", (12, 9, 0, 0), 3),
)


def nested(opening: str, closing: str, levels: int) -> str:
    return opening * levels + "1" + closing * levels


ABSURD = {
    "190 arrays": nested("[", "]", 190),
    "300 arrays": nested("[", "]", 300),
    "300 objects": nested('{"a":', "}", 300),
    "900 objects": nested('{"a":', "}", 900),
    "5000 arrays": nested("[", "]", 5000),
    "150,000 arrays": "[" + ",".join(["[]"] * 150_000) + "]",
    "half a pair": '"\\ud800"',
    "the other half": '"a\\udc00"',
    "half a pair as a name": '{"\\ud800":1}',
    "an object in a text": '"{\\ud800}"',
    "a broken object in a text": '"{broken"',
    "a line end": '"\\r\\n\\r\\ndata: [DONE]\\r\\n"',
    "a path": '"$.a[9999][9999].b"',
    "400 digits": "1" + "0" * 400,
    "as text": '"' + "9" * 400 + '"',
} | {
    text: text
    for text in (
        "NaN", "1e999", "-1e999", "1e308", "-1", "-7", "0", "1", "12.5", "-0.0", "1000000", str(2**63), str(2**64),
        "true", "false", "null", "[]", "{}", '""', '"x"', "[null]", "[[]]", "[{}]", '{"a":1}', '{"a":1,"a":2}', '["a"]',
    )
}  # fmt: skip


class Mutation:
    """Stands for the module `json` where frames are written: one value of one of them is another text."""

    def __init__(self) -> None:
        self.written: list[Any] = []
        self.frame = -1
        self.path: Path = ()
        self.text = ""

    def dumps(self, value: Any) -> str:
        number = len(self.written)
        self.written.append(value)
        if number != self.frame:
            return json.dumps(value)
        if not self.path:
            return self.text
        value = copy.deepcopy(value)
        at = value
        for step in self.path[:-1]:
            at = at[step]
        at[self.path[-1]] = PLACE
        return json.dumps(value).replace(f'"{PLACE}"', self.text)


@pytest.fixture
def mutation(monkeypatch: pytest.MonkeyPatch) -> Mutation:
    mutation = Mutation()
    monkeypatch.setattr(answers, "json", mutation)
    monkeypatch.setattr(eventstreams, "json", mutation)
    return mutation


def paths(value: Any, before: Path = ()) -> Iterator[Path]:
    yield before
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in inner:
        yield from paths(one, (*before, name))


def places(mutation: Mutation, upstream: str, answer: Answer) -> list[tuple[int, Path]]:
    mutation.written, mutation.frame = [], -1
    answers.WRITERS[upstream](answer)
    return [
        (number, path)
        for number, value in enumerate(mutation.written)
        if isinstance(value, dict)
        for path in paths(value)
    ]


def body_of(mutation: Mutation, upstream: str, answer: Answer, frame: int, path: Path, text: str) -> bytes:
    mutation.written, mutation.frame, mutation.path, mutation.text = [], frame, path, text
    return answers.WRITERS[upstream](answer)


def heard(client: str, upstream: str, stream: bool, body: bytes) -> bytes:
    """All that the client is sent; checks what is counted."""
    relay, out = relay_of(client, upstream, TALKS[client, stream])
    third = max(1, len(body) // 3)
    try:
        for at in range(0, len(body), third):
            out += relay.feed(body[at : at + third], 1.0)
        out += relay.close(1.0)
    except DecoderCrashed as error:
        raise error.crash from None
    except UpstreamError:
        pass
    if relay.usage is not None:
        counts = (relay.usage.input, relay.usage.output, relay.usage.cached_input, relay.usage.reasoning)
        assert all(type(count) is int and 0 <= count <= 2 * MAX_TOKENS for count in counts)
    return out


def check(out: bytes) -> None:
    """Every JSON text in it is one that clients read."""
    for line in out.decode().split("\n"):
        text = line.strip("\r").removeprefix("data:").strip().lstrip(",[").rstrip("],")
        if line.startswith(("data:", "{")) and text.startswith("{"):
            value = json.loads(line.removeprefix("data:"), parse_constant=refuse)
            json.dumps(value, ensure_ascii=False).encode()


def refuse(name: str) -> Any:
    raise AssertionError(f"{name} is no JSON")


@settings(bounded, max_examples=10 * EXAMPLES)
@given(st.data())
def test_no_value_of_a_frame_breaks_an_answer(data: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as patched:
        mutation = Mutation()
        patched.setattr(answers, "json", mutation)
        patched.setattr(eventstreams, "json", mutation)
        upstream = data.draw(st.sampled_from(sorted(UPSTREAMS)))
        answer = data.draw(st.sampled_from(SAID))
        frame, path = data.draw(st.sampled_from(places(mutation, upstream, answer)))
        text = ABSURD[data.draw(st.sampled_from(sorted(ABSURD)))]
        body = body_of(mutation, upstream, answer, frame, path, text)
    for client, stream in LANES:
        check(heard(client, upstream, stream, body))


FOUND = {
    "gemini": [("role", "300 arrays"), ("role", "150,000 arrays"), ("role", "half a pair")],
    "ollama": [("role", "300 objects"), ("created_at", "900 objects")],
    "anthropic": [("index", "-7"), ("stop_sequence", "300 objects"), ("stop_sequence", "NaN")],
    "responses": [
        ("item_id", "NaN"),
        ("item_id", "half a pair"),
        ("delta", "the other half"),
        ("encrypted_content", "the other half"),
        ("item_id", "5000 arrays"),
        ("id", "half a pair as a name"),
    ],
    "openai": [("created", "900 objects"), ("role", "900 objects"), ("logprobs", "as text")],
}


@pytest.mark.parametrize("upstream", sorted(FOUND))
def test_what_broke_an_answer_once(upstream: str, mutation: Mutation) -> None:
    for name, absurd in FOUND[upstream]:
        for frame, path in places(mutation, upstream, SAID[0]):
            if path and path[-1] == name:
                body = body_of(mutation, upstream, SAID[0], frame, path, ABSURD[absurd])
                for client, stream in LANES:
                    check(heard(client, upstream, stream, body))


def gemini_call(*partial: dict[str, Any]) -> bytes:
    call = {"name": "f", "willContinue": True, "partialArgs": list(partial)}
    parts = [{"functionCall": call}, {"functionCall": {}}]
    chunk = {"candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": "STOP"}]}
    return b"data: " + json.dumps(chunk).encode() + b"\r\n\r\n"


@pytest.mark.parametrize(
    "path", ["", "$", "$.", "x", "$[0]", "$" + ".a" * 5000, "$.a" + "[9999]" * 60, "$" + '["' * 100_000]
)
def test_no_path_of_a_pieced_argument_breaks_an_answer(path: str) -> None:
    """Gemini's calls in pieces: a path must not make a tree that is too deep to write, nor lists without a bound."""
    body = gemini_call(*[{"jsonPath": path, "stringValue": "x"}] * 3)
    for client, stream in LANES:
        check(heard(client, "gemini", stream, body))


def test_lists_that_paths_make_are_counted_as_memory() -> None:
    pieces = [{"jsonPath": f"$.a{at}" + "[9999]" * 40, "stringValue": "x"} for at in range(200)]
    relay, _ = relay_of("openai", "gemini", TALKS["openai", True])
    relay.feed(gemini_call(*pieces), 1.0)
    with pytest.raises(UpstreamError, match="too long"):
        relay.close(1.0)


def test_log_probabilities_of_another_type_are_no_beginning_of_others() -> None:
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    given: list[Any] = ["x", {"content": [{"token": "a"}]}, True, {"content": []}]
    chunks = [
        {**head, "choices": [{"index": 0, "delta": {"content": "a"}, "logprobs": one, "finish_reason": None}]}
        for one in given
    ]
    chunks.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    body = b"".join([b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in chunks]) + b"data: [DONE]\n\n"
    out = heard("openai", "openai", False, body)
    assert json.loads(out)["choices"][0]["message"]["content"] == "aaaa"


WHOLE: dict[str, Any] = {
    "openai": {
        "id": "c", "object": "chat.completion", "created": 1, "model": "m", "system_fingerprint": "f",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "said"}, "finish_reason": "stop"}],
    },
    "anthropic": {
        "id": "m", "type": "message", "role": "assistant", "model": "m", "container": "c", "stop_reason": "end_turn",
        "content": [{"type": "text", "text": "said", "citations": None}], "usage": {"input_tokens": 1, "output_tokens": 1},
    },
    "gemini": {
        "candidates": [{"content": {"role": "model", "parts": [{"text": "said"}]}, "finishReason": "STOP", "avgLogprobs": 1}],
        "modelVersion": "m", "responseId": "r",
    },
    "ollama": {"model": "m", "created_at": "x", "message": {"role": "assistant", "content": "said"}, "done": True},
    "responses": {
        "id": "r", "model": "m", "status": "completed", "instructions": None,
        "output": [{"type": "message", "id": "m", "role": "assistant", "content": [{"type": "output_text", "text": "said"}]}],
    },
}  # fmt: skip


@pytest.mark.parametrize("absurd", sorted(set(ABSURD) - {"150,000 arrays"}))
@pytest.mark.parametrize("upstream", WHOLE)
def test_no_value_of_a_whole_answer_breaks_it_or_its_clients_parser(upstream: str, absurd: str) -> None:
    for path in paths(WHOLE[upstream]):
        mutation = Mutation()
        mutation.frame, mutation.path, mutation.text = 0, path, ABSURD[absurd]
        body = mutation.dumps(WHOLE[upstream]).encode()
        decoder = UPSTREAMS[upstream].backend.whole_decoder()  # type: ignore[attr-defined]
        try:
            events = [*decoder.feed(body[:99]), *decoder.feed(body[99:]), *decoder.close()]
        except UpstreamError:
            continue
        check(b"".join([event.data for event in events if isinstance(event, Verbatim)]))

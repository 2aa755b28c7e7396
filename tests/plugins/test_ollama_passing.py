"""Callers of Ollama's own dialect: what of their requests changes on the way, and what of the answers."""

import json
from pathlib import Path
from typing import Any

import pytest

from sluice.backends.protocol import Decoder
from sluice.errors import UpstreamError
from sluice.frontends import Answer, Head
from sluice.frontends.ollama.dialect import Ollama as Frontend
from sluice.frontends.ollama.request import chat_of, generate_of
from sluice.model.chat import ChatRequest, with_system
from sluice.model.rules import ModelRules
from sluice.proxy.fitting import Fitting
from sluice.proxy.relay import Relay
from sluice_plugins.ollama.backend import Ollama
from tests.wire import cuts

GOLDEN = Path(__file__).parent.parent / "golden" / "ollama"
USER = {"role": "user", "content": "?"}
PNG = "iVBORw0KGgo="


def parsed(**fields: Any) -> ChatRequest:
    return chat_of(json.dumps({"model": "chat", "messages": [USER], **fields}).encode(), Head())


def generated(**fields: Any) -> ChatRequest:
    return generate_of(json.dumps({"model": "chat", "prompt": "?", **fields}).encode(), Head())


def sent(chat: ChatRequest, backend: Ollama | None = None) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((backend or Ollama()).request(chat, "llama3").body)
    return found


# ---- requests


def test_a_body_is_sent_as_it_came_but_for_the_models_name() -> None:
    body = b'{ "messages":[{"role":"user","content":"\\u00e4 \\"model\\""}], "model":"chat", "logprobs":true, "new":[1.0] }'
    request = Ollama().request(chat_of(body, Head()), "llama3")
    assert request.body == body.replace(b'"model":"chat"', b'"model":"llama3"')
    assert request.url.endswith("/api/chat")
    body = b'{"model":"chat","prompt":"a","suffix":"b","raw":true,"context":[1,2],"stream":false}'
    request = Ollama(base_url="http://h/api").whole_request(generate_of(body, Head()), "x")
    assert (request.url, request.body) == ("http://h/api/generate", body.replace(b"chat", b"x"))
    assert ("accept", "application/json") in request.headers


def test_the_machine_is_the_operators() -> None:
    backend = Ollama(model_options={"num_ctx": 9, "min_p": 0.1}, keep_alive="1h", think="low")
    found = sent(
        parsed(options={"num_gpu": 1, "num_ctx": 5, "num_thread": 3, "future": [1]}, keep_alive=0), backend
    )
    assert (found["options"], found["keep_alive"]) == ({"num_ctx": 5, "min_p": 0.1, "future": [1]}, "1h")
    assert found["think"] == "low"
    assert sent(parsed(think=False), backend)["think"] is False
    assert "keep_alive" not in sent(parsed(keep_alive=-1))


def test_the_gateway_says_whether_it_is_streamed() -> None:
    assert "stream" not in sent(parsed())
    assert sent(parsed(stream=False))["stream"] is True
    assert json.loads(Ollama().whole_request(parsed(stream=False), "x").body)["stream"] is False


def test_messages_that_ollama_would_refuse_are_written_anew() -> None:
    call = {"function": {"name": "f", "arguments": '{"a":1}'}}
    messages = [
        {"role": "developer", "content": "Be brief"},
        {**USER, "images": [f"data:image/png;base64,{PNG}"]},
        {"role": "assistant", "content": "", "tool_calls": [call]},
    ]
    found = sent(parsed(messages=messages, truncate=False))
    assert [message["role"] for message in found["messages"]] == ["system", "user", "assistant"]
    assert found["messages"][1]["images"] == [PNG]
    assert found["messages"][2]["tool_calls"][0]["function"]["arguments"] == {"a": 1}
    assert found["truncate"] is False
    assert sent(generated(images=[f"data:image/png;base64,{PNG}", PNG]))["images"] == [PNG, PNG]


def test_rules_of_a_model_are_written_into_the_callers_object() -> None:
    rules = ModelRules(
        drop=("top_k", "logprobs", "reasoning_effort"), cap={"temperature": 1.0, "max_tokens": 10}
    )
    options = {"top_k": 3, "temperature": 2, "num_predict": 50, "top_p": 0.5, "num_ctx": 7}
    chat = Fitting(rules, dialect="ollama")(parsed(options=options, think=True, logprobs=True, keep=1))
    assert sent(chat) == {
        "model": "llama3",
        "messages": [USER],
        "options": {"temperature": 1.0, "num_predict": 10, "top_p": 0.5, "num_ctx": 7},
        "logprobs": True,
        "keep": 1,
    }


# ---- answers


def line(content: str = "", **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": content, **more.pop("message", {})}
    return {
        "model": "llama3",
        "created_at": "2026-11-30T00:00:00Z",
        "message": message,
        "done": False,
        **more,
    }


def lines(*values: dict[str, Any]) -> bytes:
    return b"".join([json.dumps(value, separators=(", ", ":")).encode() + b"\n" for value in values])


END = line(done=True, done_reason="stop", total_duration=9, prompt_eval_count=3, eval_count=4, new_count=5)
TOLD = lines(
    line("One", logprobs=[{"token": "One", "logprob": -0.1}]), line("", message={"thinking": "so"}),
    line("", message={"tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}, "index": 0, "new": 1}}]}),
    line(" two \u00e9", remote_host="https://h", image="aGk="), END,
)  # fmt: skip


def relayed(
    reads: list[bytes], chat: ChatRequest, *, decoder: Decoder | None = None, reveal: bool = True
) -> tuple[bytes, UpstreamError | None]:
    encoder = Frontend().encoder(chat, Answer("r", "chat", 1, reveal=reveal), verbatim=True)
    relay = Relay(decoder or Ollama().decoder(verbatim=True), encoder, not chat.stream, False)
    out = b""
    try:
        for read in reads:
            out += relay.feed(read, 1.0)
        out += relay.close(1.0)
    except UpstreamError as error:
        return out, error
    return out, None


def whole(
    body: bytes, chat: ChatRequest | None = None, *, reveal: bool = True
) -> tuple[bytes, UpstreamError | None]:
    chat = chat or parsed(stream=False)
    return relayed([body], chat, decoder=Ollama().whole_decoder(), reveal=reveal)


def test_lines_are_passed_on_as_they_came_in_any_cut() -> None:
    for reads in cuts.exhaustive(TOLD):
        assert relayed(reads, parsed()) == (TOLD, None)


def test_an_alias_in_place_of_the_model_changes_the_name_only() -> None:
    body = TOLD.replace(b'"remote_host"', b'"remote_model":"gpt", "remote_host"')
    named = body.replace(b'"model":"llama3"', b'"model":"chat"').replace(
        b'"remote_model":"gpt"', b'"remote_model":"chat"'
    )
    for reads in cuts.exhaustive(body):
        assert relayed(reads, parsed(), reveal=False) == (named, None)
    mentions = lines(
        line(
            'the "model"', message={"tool_calls": [{"function": {"name": "f", "arguments": {"model": "m"}}}]}
        ),
        END,
    )
    out, _ = relayed([mentions], parsed(), reveal=False)
    first = json.loads(out.splitlines()[0])
    assert first["message"]["tool_calls"][0]["function"]["arguments"] == {"model": "m"}
    assert (first["model"], first["message"]["content"]) == ("chat", 'the "model"')


def test_recorded_streams_are_passed_on_as_they_came() -> None:
    for name in ("text", "thinking", "tool_calls", "length"):
        body = (GOLDEN / f"{name}.ndjson").read_bytes()
        for reads in ([body], cuts.bytewise(body)):
            assert relayed(reads, parsed()) == (body, None)
    body = (GOLDEN / "no_final_newline.ndjson").read_bytes()
    assert relayed([body], parsed()) == (body + b"\n", None)


@pytest.mark.parametrize("name", ["cut", "cut_in_a_line", "error_after_text"])
def test_what_breaks_is_passed_on_up_to_there(name: str) -> None:
    body = (GOLDEN / f"{name}.ndjson").read_bytes()
    for reads in cuts.exhaustive(body):
        out, error = relayed(reads, parsed())
        assert error is not None
        assert body.startswith(out)
        assert [json.loads(told)["done"] for told in out.splitlines()] == [False] * out.count(b"\n")


def test_an_end_that_means_failure_is_not_passed_on_but_its_text_is() -> None:
    out, error = relayed([lines(line("a"), line("b", done=True, done_reason="error", logprobs=[]))], parsed())
    assert error is not None
    assert error.kind == "stream_error"
    first, last = map(json.loads, out.splitlines())
    assert (first["message"]["content"], last) == ("a", {**line("b"), "logprobs": []})


ODD: list[tuple[bytes, dict[str, Any]]] = [
    (
        b'{"model":1,"message":{"role":"assistant","content":["a"]},"done":false}',
        {"model": "1", "done": False},
    ),
    (
        b'{"message":{"role":"assistant","content":"a","tool_calls":[{"function":{"name":"f","arguments":"{\\"b\\":1}"}}]}}',
        {},
    ),
    (
        b'{"message":{"role":"assistant","content":"a","tool_calls":[{"function":{"name":"f","arguments":[]}},{"x":1}]}}',
        {},
    ),
]


@pytest.mark.parametrize(("odd", "fields"), ODD)
def test_what_a_client_would_misread_is_put_right(odd: bytes, fields: dict[str, Any]) -> None:
    body = odd + b"\n" + lines(END)
    for reads in cuts.exhaustive(body):
        out, error = relayed(reads, parsed())
        told = json.loads(out.splitlines()[0])
        assert error is None
        assert told["message"]["content"] == "a"
        assert told.items() >= fields.items()
        for call in told["message"].get("tool_calls", ()):
            assert type(call["function"]["arguments"]) is dict


def test_a_split_surrogate_pair_is_whole() -> None:
    head = b'{"model":"m","message":{"role":"assistant","content":"%b"},"done":false}\n'
    out, error = relayed([head % b"a\\ud83c" + head % b"\\udf0d" + lines(END)], parsed())
    assert ("".join([json.loads(told)["message"]["content"] for told in out.splitlines()]), error) == (
        "a\N{EARTH GLOBE EUROPE-AFRICA}",
        None,
    )
    generate = b'{"model":"m","response":"%b","done":false}\n'
    end = b'{"model":"m","response":"","done":true,"done_reason":"stop"}\n'
    out, _ = relayed([generate % b"a\\ud83c" + generate % b"\\udf0d" + end], generated())
    assert (
        "".join([json.loads(told)["response"] for told in out.splitlines()])
        == "a\N{EARTH GLOBE EUROPE-AFRICA}"
    )


def test_a_whole_answer_is_passed_on_as_it_came() -> None:
    body = lines(END | {"message": {"role": "assistant", "content": "Hi", "new": 1}}).strip()
    assert whole(body) == (body, None)
    assert whole(body + b"\n") == (body, None)
    assert whole(body, reveal=False) == (body.replace(b"llama3", b"chat"), None)
    spread = json.dumps(json.loads(body), indent=1).encode()
    out, error = whole(spread)
    assert (json.loads(out), error) == (json.loads(body), None)
    for broken in (body[:-1], lines(line("Hi")), b'{"error":"no such model"}'):
        out, error = whole(broken)
        assert (out, error is not None) == (b"", True)


def test_lines_in_place_of_a_whole_answer_are_put_together() -> None:
    out, error = whole(TOLD)
    told = json.loads(out)
    assert error is None
    assert (told["message"]["content"], told["message"]["thinking"]) == ("One two \u00e9", "so")
    assert (told["done"], told["new_count"], told["image"], len(told["logprobs"])) == (True, 5, "aGk=", 1)
    assert told["message"]["tool_calls"][0]["function"]["new"] == 1


# ---- /api/generate

GENERATED = (
    b'{"model":"llama3","response":"","thinking":"so","done":false}\n{"model":"llama3","response":"Hi","done":false}\n'
    b'{"model":"llama3","response":"","done":true,"done_reason":"stop","context":[1,2],"eval_count":4,"prompt_eval_count":2}\n'
)


def test_an_answer_of_generate_is_passed_on_as_it_came() -> None:
    for reads in cuts.exhaustive(GENERATED):
        assert relayed(reads, generated()) == (GENERATED, None)
    body = GENERATED.splitlines()[2].replace(b'"response":""', b'"response":"Hi"')
    assert whole(body, generated(stream=False)) == (body, None)


def test_a_prompt_that_was_written_anew_as_a_chat_is_answered_as_a_prompt() -> None:
    anew = with_system(generated(), "Be brief")
    assert Ollama().request(anew, "x").url.endswith("/api/chat")
    for reads in cuts.exhaustive(lines(line("One"), line(" two"), END)):
        out, error = relayed(reads, anew)
        told = [json.loads(one) for one in out.splitlines()]
        assert ("".join([one["response"] for one in told]), error) == ("One two", None)
        assert [one["done"] for one in told] == [False] * (len(told) - 1) + [True]
    out, error = whole(
        lines(END | {"message": {"role": "assistant", "content": "Hi"}}), generated(stream=False)
    )
    assert (json.loads(out)["response"], error) == ("Hi", None)


@pytest.mark.parametrize("odd", [{}, {"done": None}])
def test_a_last_line_that_does_not_say_that_it_is_the_last_says_so(odd: dict[str, Any]) -> None:
    end = {name: value for name, value in line("").items() if name != "done"} | {"done_reason": "stop", **odd}
    out, error = relayed([lines(line("a"), end)], parsed())
    first, last = map(json.loads, out.splitlines())
    assert (first["done"], last, error) == (False, {**end, "done": True}, None)
    prompt = {"model": "m", "response": "a", "done_reason": "stop", **odd}
    out, error = relayed([lines(prompt)], generated())
    assert (json.loads(out), error) == ({**prompt, "done": True}, None)
    answer = {**end, "message": {"role": "assistant", "content": "a"}}
    body, error = whole(json.dumps(answer).encode())
    assert (json.loads(body), error) == ({**answer, "done": True}, None)

"""Bodies that are passed on as they came: an upstream is asked for the same as where they are written
anew."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.frontends.openai.dialect import OpenAI as Frontend
from sluice.model.chat import ChatRequest, continued, with_system
from sluice_plugins.openai.backend import OpenAI

MESSAGES = '"messages":[{"role":"user","content":"Hello"}]'
BODIES = [
    '{"model":"alias",%s}',
    '{"model":"alias","stream":true,%s}',
    '{"model":"alias","stream":false,%s}',
    '{"model": "alias", "stream": true, %s}',
    '{"stream":true,%s}',
    ' \n{"model":\t"alias",\n"stream":true,%s} \n\t',
    '{"model" : "alias","stream":true,%s}',
    '{"model":"alias","stream":true,%s,"metadata":{"model":"alias"}}',
    '{"metadata":{"model":"alias"},"stream":true,%s}',
    '{"metadata":{"model":"alias"},"model":"alias","stream":true,%s}',
    '{"metadata":{"model":"alias"},"\\u006dodel":"alias","stream":true,%s}',
    '{"model":"\\u0061lias","stream":true,%s}',
    '{"model":"alias","stream":true,"user":"model",%s}',
    '{"model":"alias","stream":true,"user":"\\"model\\":\\"alias\\"",%s}',
    '{"model":"alias","stream":true,"user":"}",%s}',
    '{"model":"alias","stream":true,"stream_options":{"include_usage":true},%s}',
    '{"model":"alias","stream":true,"stream_options":{"include_usage":false},%s}',
    '{"model":"alias","stream":true,"stream_options":{"include_usage":true,"x":1},%s}',
    '{"model":"alias","stream":true,"stream_options":null,%s}',
    '{"model":"alias","stream":null,%s}',
    '{"model":null,"stream":true,%s}',
    '{"model":"alias","stream":true,"max_tokens":5,%s}',
    '{"model":"alias","stream":true,"max_tokens":5,"max_completion_tokens":6,%s}',
    '{"model":"ali\\"as","stream":true,%s}',
    '{"model":"aliäs","stream":true,%s}',
    '{"model":"real","stream":true,%s}',
    '{"model":"real",%s}',
    '{"model":"alias","stream":true,"seed":1,"temperature":1e0,%s}',
]  # fmt: skip
BACKENDS = [OpenAI(), OpenAI(include_usage=False), OpenAI(max_tokens_field="max_completion_tokens")]


def same(body: bytes, model: str = "real") -> None:
    chat = Frontend().parse(body, {})
    anew = msgspec.structs.replace(chat, body=b"")
    for backend in BACKENDS:
        edited, written = backend.request(chat, model), backend.request(anew, model)
        assert json.loads(edited.body) == json.loads(written.body)
        assert len(json.loads(edited.body, object_pairs_hook=list)) == len(
            json.loads(edited.body)
        )  # no name twice
        assert (edited.url, edited.headers) == (written.url, written.headers)
        edited, written = backend.whole_request(chat, model), backend.whole_request(anew, model)
        assert json.loads(edited.body) == json.loads(written.body)
        assert (edited.url, edited.headers) == (written.url, written.headers)


@pytest.mark.parametrize("body", BODIES)
def test_an_edited_body_asks_for_the_same(body: str) -> None:
    same((body % MESSAGES).encode())


NAMES = st.sampled_from(
    ["model", "stream", "stream_options", "metadata", "user", "x", "include_usage", "max_tokens"]
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(0, 9)
    | st.sampled_from(["alias", "model", '"model":"alias"', "real", "}", "ä"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=6,
)


@given(
    st.dictionaries(st.sampled_from(["metadata", "user", "x", "logit_bias"]), VALUES, max_size=3),
    st.sampled_from(["alias", "real", "model", None]),
    st.sampled_from([None, True, False]),
    st.sampled_from([(",", ":"), (", ", ": "), (",\n ", " : ")]),
    st.booleans(),
)
def test_any_edited_body_asks_for_the_same(
    others: dict[str, Any],
    model: str | None,
    stream: bool | None,
    separators: tuple[str, str],
    ascii_only: bool,
) -> None:
    wire = {**others, "messages": [{"role": "user", "content": 'The "model": "alias" is'}]}
    wire |= {"model": model} if model else {}
    wire |= {"stream": stream} if stream is not None else {}
    same(json.dumps(wire, separators=separators, ensure_ascii=ascii_only).encode())


def test_nothing_is_written_anew_where_it_need_not_be() -> None:
    text = '{"model":"%s","temperature":1.0e0, "stream":true, "messages":[ {"role":"user","content":"\\/ 1E2"} ] }\n'
    chat = Frontend().parse((text % "alias").encode(), {})
    assert OpenAI(include_usage=False).request(chat, "real").body == (text % "real").encode()
    assert OpenAI(include_usage=False).request(chat, "alias").body == (text % "alias").encode()
    assert OpenAI().whole_request(chat, "real").body == (text % "real").encode()


def test_a_request_that_was_changed_has_no_text_any_more() -> None:
    chat = Frontend().parse((BODIES[1] % MESSAGES).replace("alias", "real").encode(), {})
    assert chat.body
    said = json.loads(OpenAI().request(continued(chat, "He"), "real").body)["messages"]
    assert said[-1] == {"role": "assistant", "content": "He"}
    opened = json.loads(OpenAI().request(with_system(chat, "Be brief"), "real").body)["messages"]
    assert opened[0] == {"role": "system", "content": "Be brief"}


def test_another_dialects_request_is_not_passed_on() -> None:
    chat = ChatRequest("anthropic", "m", (), wire={"model": "m"}, body=b'{"model":"m"}')
    assert json.loads(OpenAI().request(chat, "real").body)["model"] == "real"

"""Arguments of earlier tool calls in another form than their dialect's: clients send back what their SDK has made
of them. All upstreams get what they stand for, those of the same dialect too."""

import json
from typing import Any

import pytest

from sluice.errors import BadRequest
from tests.matrix.lanes import UPSTREAMS, parsed, sent

ABSENT = object()
STAND_FOR: list[tuple[Any, Any]] = [
    (None, {}), (ABSENT, {}), ("", {}), (" ", {}), ({"a": 1}, {"a": 1}), ('{"a": 1}', {"a": 1}),
]  # fmt: skip


def within(value: Any, name: str) -> list[Any]:
    """All members of this name, however deep."""
    if isinstance(value, list):
        return [found for inner in value for found in within(inner, name)]
    if not isinstance(value, dict):
        return []
    return [
        found for key, inner in value.items() for found in ([inner] if key == name else within(inner, name))
    ]


def arguments_in(upstream: str, body: dict[str, Any]) -> Any:
    names = {"openai": "arguments", "responses": "arguments", "ollama": "arguments", "gemini": "args"}
    [given] = within(body, names.get(upstream, "input" if upstream != "cohere" else "arguments"))[-1:]
    return json.loads(given) if isinstance(given, str) else given


def with_call(client: str, given: Any) -> bytes:
    if client == "anthropic":
        use = {"type": "tool_use", "id": "t", "name": "f"} | ({} if given is ABSENT else {"input": given})
        result = {"type": "tool_result", "tool_use_id": "t", "content": "r"}
        messages: list[Any] = [{"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
    else:
        function = {"name": "f"} | ({} if given is ABSENT else {"arguments": given})
        call = {"id": "t", "type": "function", "function": function}
        messages = [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "t", "content": "r"},
        ]
    question = {"role": "user", "content": "q"}
    return json.dumps({"model": "m", "max_tokens": 9, "messages": [question, *messages]}).encode()


@pytest.mark.parametrize("upstream", ["openai", "anthropic", "gemini", "ollama", "bedrock", "cohere"])
@pytest.mark.parametrize("client", ["anthropic", "openai"])
def test_arguments_of_other_forms_are_what_they_stand_for(client: str, upstream: str) -> None:
    for given, expected in STAND_FOR:
        chat = parsed(client, with_call(client, given), stream=True)
        body = sent(UPSTREAMS[upstream], chat)
        if (client, upstream) == ("openai", "openai") and (given is ABSENT or isinstance(given, str)):
            continue  # the caller's own text, passed on as it came
        assert arguments_in(upstream, body) == expected, (given, body)


def test_phps_empty_list_is_no_arguments_and_an_old_call_is_read_likewise() -> None:
    chat = parsed("openai", with_call("openai", []), stream=True)
    assert arguments_in("openai", sent(UPSTREAMS["openai"], chat)) == {}
    old = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": {"a": 1}}}
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "q"}, old]}).encode()
    [message] = parsed("openai", body, stream=True).messages[1:]
    assert json.loads(message.tool_calls[0].arguments) == {"a": 1}


@pytest.mark.parametrize("given", ["x", "[1]", [1], 5, True])
def test_an_input_that_stands_for_no_object_is_refused_by_its_place(given: Any) -> None:
    with pytest.raises(BadRequest) as refused:
        parsed("anthropic", with_call("anthropic", given), stream=True)
    assert refused.value.param == "messages[1].content[0].input"

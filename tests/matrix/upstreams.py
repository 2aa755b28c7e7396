"""What an upstream of each dialect understands of a request, by its own documentation; written apart from
what writes it.

`TAKES` says what a dialect has words for.
"""

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from tests.matrix.talk import Call, Content, Picture, Result, Results, Said, User, Value

TAKES: Mapping[str, frozenset[str]] = {
    "openai": frozenset({
        "strict", "one_call", "max_tokens",
        "temperature", "top_p", "frequency_penalty", "presence_penalty", "stop", "seed", "top_k",
    }),
    "anthropic": frozenset({"one_call", "failed", "max_tokens", "temperature", "top_p", "stop", "top_k"}),
    "gemini": frozenset({
        "failed", "max_tokens", "temperature", "top_p", "frequency_penalty", "presence_penalty", "stop", "seed", "top_k",
    }),
    "ollama": frozenset({
        "max_tokens", "temperature", "top_p", "frequency_penalty", "presence_penalty", "stop", "seed", "top_k",
    }),
    "bedrock": frozenset({"one_call", "failed", "max_tokens", "temperature", "top_p", "stop", "top_k"}),
    "cohere": frozenset({
        "max_tokens", "temperature", "top_p", "frequency_penalty", "presence_penalty", "stop", "seed", "top_k",
    }),
    "responses": frozenset({"strict", "one_call", "max_tokens", "temperature", "top_p"}),
}  # fmt: skip
FOLLOW = frozenset({"openai", "gemini", "cohere"})
"""Pictures of results stand behind them."""
ONLY_JSON = "Answer with one JSON object, and nothing before or after it."
FROM_TOOLS = "From the tools' results:"


class Seen(msgspec.Struct):
    """`turns` as `talk.normal` takes them; `choice`, `format` and `sampling` as in a talk; `ids` of calls, in
    their order; `strict`: of each tool, where a dialect says so."""

    turns: list[Any]
    system: str = ""
    tools: list[tuple[str, str, Value]] = []
    choice: str = ""
    one_call: bool = False
    sampling: Value = {}
    thinks: bool = False
    format: Any = ""
    ids: list[str] = []
    strict: list[bool] = []


class _Round:
    """The calls of the latest turn with any, and their results, which are told by their call's id."""

    def __init__(self, turns: list[Any], ids: list[str]) -> None:
        self.turns = turns
        self.ids = ids
        self.calls: tuple[Call, ...] = ()
        self.results: dict[int, Result] = {}

    def call(self, said: Said) -> None:
        self.end()
        self.turns.append(said)
        self.calls = said.calls
        self.ids += [call.id for call in said.calls]

    def result(self, id: str, result: Result) -> None:
        [at] = [at for at, call in enumerate(self.calls) if call.id == id]  # exactly one call has this id
        assert at not in self.results
        self.results[at] = result

    def user(self, content: list[Content]) -> None:
        self.end()
        self.turns.append(User(tuple(content)))

    def end(self) -> None:
        """Vendors refuse a call without its result."""
        if self.calls:
            assert sorted(self.results) == list(range(len(self.calls)))
            self.turns.append(Results(tuple([self.results[at] for at in range(len(self.calls))])))
        self.calls, self.results = (), {}


def _picture(url: str) -> Picture:
    head, data = url.split(";base64,")
    return Picture(head.removeprefix("data:image/"), data)


def _given(body: Value, names: Mapping[str, str]) -> Value:
    return {name: body[there] for name, there in names.items() if body.get(there) is not None}


def _choice(choice: Any) -> str:
    """OpenAI's, of both its dialects."""
    if isinstance(choice, dict):
        return f"the {choice.get('function', choice)['name']}"
    return choice or ""


# --- OpenAI's


def openai(body: Value) -> Seen:
    seen = Seen([])
    turns = _Round(seen.turns, seen.ids)
    for message in body["messages"]:
        content = message.get("content")
        parts = (
            [openai_part(part) for part in content]
            if isinstance(content, list)
            else [content]
            if content
            else []
        )
        match message["role"]:
            case "system" | "developer":
                seen.system += "".join(map(str, parts))
            case "user":
                turns.user([part for part in parts if part != FROM_TOOLS])
            case "assistant":
                calls = tuple([
                    Call(c["id"], c["function"]["name"], json.loads(c["function"]["arguments"]))
                    for c in message.get("tool_calls") or ()
                ])  # fmt: skip
                turns.call(Said("".join(map(str, parts)), calls))
            case "tool":
                text = "".join([part for part in parts if isinstance(part, str)])
                shown = tuple([part for part in parts if isinstance(part, Picture)])
                if text == "(The content of this tool's result follows.)":
                    text = ""
                turns.result(message["tool_call_id"], Result(text, shown))
    turns.end()
    for tool in body.get("tools") or ():
        function = tool["function"]
        seen.tools.append((function["name"], function.get("description", ""), function.get("parameters")))
        seen.strict.append(function.get("strict") is True)
    seen.choice = _choice(body.get("tool_choice"))
    seen.one_call = body.get("parallel_tool_calls") is False
    same = (
        "temperature",
        "top_p",
        "frequency_penalty",
        "presence_penalty",
        "stop",
        "seed",
        "top_k",
        "max_tokens",
    )
    seen.sampling = _given(body, {name: name for name in same}) | _given(
        body, {"max_tokens": "max_completion_tokens"}
    )
    seen.thinks = "reasoning_effort" in body
    wanted = body.get("response_format") or {}
    kind = wanted.get("type")
    seen.format = (
        wanted["json_schema"]["schema"] if kind == "json_schema" else "json" if kind == "json_object" else ""
    )
    return seen


def openai_part(part: Value) -> Content:
    return _picture(part["image_url"]["url"]) if part["type"] == "image_url" else str(part["text"])


# --- Anthropic's


def anthropic(body: Value) -> Seen:
    seen = Seen([], sampling=_given(body, {"temperature": "temperature", "top_p": "top_p", "top_k": "top_k",
                                           "stop": "stop_sequences", "max_tokens": "max_tokens"}))  # fmt: skip
    turns = _Round(seen.turns, seen.ids)
    roles = [message["role"] for message in body["messages"]]
    assert roles[0] == "user"
    assert all(one != two for one, two in itertools.pairwise(roles))
    for message in body["messages"]:
        blocks = message["content"]
        assert blocks, "an empty message is refused"
        assert all(block["text"].strip() for block in blocks if block["type"] == "text"), "so is a blank text"
        if message["role"] == "assistant":
            text = "".join([block["text"] for block in blocks if block["type"] == "text"])
            used = [block for block in blocks if block["type"] == "tool_use"]
            turns.call(
                Said(text, tuple([Call(block["id"], block["name"], block["input"]) for block in used]))
            )
            continue
        content: list[Content] = []
        for block in blocks:
            if block["type"] == "tool_result":
                assert not content, "results come first"
                turns.result(block["tool_use_id"], _anthropic_result(block))
            else:
                content.append(_anthropic_part(block))
        if content:
            turns.user(content)
    turns.end()
    system = body.get("system") or ""
    seen.system = system if isinstance(system, str) else "".join([block["text"] for block in system])
    for tool in body.get("tools") or ():
        seen.tools.append((tool["name"], tool.get("description", ""), tool["input_schema"]))
    choice = body.get("tool_choice") or {"type": "auto"}
    kinds = {"any": "required", "tool": f"the {choice.get('name')}"}
    seen.choice = kinds.get(choice["type"], choice["type"])
    seen.one_call = choice.get("disable_parallel_tool_use") is True
    seen.thinks = (body.get("thinking") or {}).get("type") in ("enabled", "adaptive")
    wanted = (body.get("output_config") or {}).get("format")
    seen.format = wanted["schema"] if wanted else ""
    return _with_json(seen, "\n\n")


def _with_json(seen: Seen, between: str) -> Seen:
    """JSON without a schema is asked for in words."""
    if seen.system.endswith(ONLY_JSON):
        seen.system = seen.system.removesuffix(ONLY_JSON).removesuffix(between)
        seen.format = "json"
    return seen


def _anthropic_part(block: Value) -> Content:
    if block["type"] == "text":
        return str(block["text"])
    source = block["source"]
    assert source["type"] == "base64"
    return Picture(source["media_type"].removeprefix("image/"), source["data"])


def _anthropic_result(block: Value) -> Result:
    content = block.get("content") or []
    parts = [content] if isinstance(content, str) else [_anthropic_part(part) for part in content]
    return _result(parts, failed=block.get("is_error") is True)


def _result(parts: list[Content], *, failed: bool = False) -> Result:
    text = "".join([part for part in parts if isinstance(part, str)])
    return Result(text, tuple([part for part in parts if isinstance(part, Picture)]), failed)


# --- Gemini's


def gemini(body: Value) -> Seen:
    seen = Seen([])
    roles = [content["role"] for content in body["contents"]]
    assert roles[0] == "user"
    assert all(one != two for one, two in itertools.pairwise(roles))
    turns = _Round(seen.turns, [])
    for content in body["contents"]:
        parts = content["parts"]
        assert parts
        if content["role"] == "model":
            called = [part["functionCall"] for part in parts if "functionCall" in part]
            calls = tuple(
                [Call(str(at), call["name"], call.get("args", {})) for at, call in enumerate(called)]
            )
            text = "".join([part.get("text", "") for part in parts if not part.get("thought")])
            turns.call(Said(text, calls))
            continue
        answered = [part["functionResponse"] for part in parts if "functionResponse" in part]
        assert [answer["name"] for answer in answered] == [
            call.name for call in turns.calls
        ]  # matched by their order
        for at, answer in enumerate(answered):
            turns.result(str(at), _gemini_result(answer))
        said = [_gemini_part(part) for part in parts if "functionResponse" not in part]
        if said:
            turns.user(said)
    turns.end()
    seen.system = "".join([part["text"] for part in body.get("systemInstruction", {}).get("parts", ())])
    for tool in body.get("tools", ()):
        for declared in tool["functionDeclarations"]:
            seen.tools.append(
                (declared["name"], declared.get("description", ""), declared.get("parametersJsonSchema"))
            )
    calling = body.get("toolConfig", {}).get("functionCallingConfig", {})
    only = calling.get("allowedFunctionNames")
    modes = {"AUTO": "auto", "NONE": "none", "ANY": f"the {only[0]}" if only else "required"}
    seen.choice = modes[calling.get("mode", "AUTO")]
    config = body.get("generationConfig", {})
    seen.sampling = _given(config, {
        "max_tokens": "maxOutputTokens", "temperature": "temperature", "top_p": "topP", "top_k": "topK", "seed": "seed",
        "stop": "stopSequences", "frequency_penalty": "frequencyPenalty", "presence_penalty": "presencePenalty",
    })  # fmt: skip
    seen.thinks = bool(config.get("thinkingConfig", {}).get("thinkingBudget"))
    is_json = config.get("responseMimeType") == "application/json"
    seen.format = config.get("responseJsonSchema") or ("json" if is_json else "")
    return seen


def _gemini_part(part: Value) -> Content:
    if "inlineData" in part:
        return Picture(part["inlineData"]["mimeType"].removeprefix("image/"), part["inlineData"]["data"])
    return str(part["text"])


def _gemini_result(answer: Value) -> Result:
    """https://ai.google.dev/api/caching#FunctionResponse: "output" is what the function gave, "error" what
    went wrong."""
    shown = tuple([p for part in answer.get("parts", ()) if isinstance(p := _gemini_part(part), Picture)])
    match answer["response"]:
        case {"output": str(text), **more} if not more:
            return Result(text, shown)
        case {"error": why, **more} if not more:
            return Result(why if isinstance(why, str) else json.dumps(why), shown, True)
        case value:
            return Result(json.dumps(value), shown)


# --- Ollama's


def ollama(body: Value) -> Seen:
    seen = Seen([])
    turns = _Round(seen.turns, seen.ids)
    results: Iterator[str] = iter(())
    for message in body["messages"]:
        images = [Picture("", data) for data in message.get("images", ())]
        text = message["content"]
        match message["role"]:
            case "system":
                seen.system += text
            case "user":
                turns.user([*([text] if text else []), *images])
            case "assistant":
                told = message.get(
                    "tool_calls", ()
                )  # without ids, in what callers of the same dialect were passed on
                called = [(call.get("id", f"call_{n}"), call["function"]) for n, call in enumerate(told)]
                results = iter([id for id, _ in called])
                turns.call(
                    Said(text, tuple([Call(id, call["name"], call["arguments"]) for id, call in called]))
                )
            case "tool":
                id = message.get("tool_call_id") or next(results)
                [name] = [call.name for call in turns.calls if call.id == id]
                assert message["tool_name"] == name
                turns.result(id, Result(text, tuple(images)))
    turns.end()
    for tool in body.get("tools", ()):
        function = tool["function"]
        seen.tools.append((function["name"], function.get("description", ""), function["parameters"]))
    same = ("temperature", "top_p", "top_k", "seed", "stop", "frequency_penalty", "presence_penalty")
    options = body.get("options", {})
    seen.sampling = _given(options, {name: name for name in same} | {"max_tokens": "num_predict"})
    seen.thinks = bool(body.get("think"))
    seen.format = body.get("format", "")
    return seen


# --- Bedrock's (Converse)


def bedrock(body: Value) -> Seen:
    seen = Seen([])
    turns = _Round(seen.turns, seen.ids)
    roles = [message["role"] for message in body["messages"]]
    assert roles[0] == "user"
    assert all(one != two for one, two in itertools.pairwise(roles))
    for message in body["messages"]:
        blocks = message["content"]
        assert blocks
        assert all(block["text"].strip() for block in blocks if "text" in block)
        if message["role"] == "assistant":
            used = [block["toolUse"] for block in blocks if "toolUse" in block]
            text = "".join([block.get("text", "") for block in blocks])
            turns.call(Said(text, tuple([Call(use["toolUseId"], use["name"], use["input"]) for use in used])))
            continue
        content: list[Content] = []
        for block in blocks:
            if "toolResult" in block:
                assert not content
                turns.result(block["toolResult"]["toolUseId"], _bedrock_result(block["toolResult"]))
            else:
                content.append(_bedrock_part(block))
        if content:
            turns.user(content)
    turns.end()
    seen.system = "".join([block["text"] for block in body.get("system", ())])
    config, more = body.get("toolConfig", {}), body.get("additionalModelRequestFields", {})
    for tool in config.get("tools", ()):
        spec = tool["toolSpec"]
        seen.tools.append((spec["name"], spec.get("description", ""), spec["inputSchema"]["json"]))
    choice = config.get("toolChoice") or {"auto": {}}
    seen.choice = (
        "required" if "any" in choice else f"the {choice['tool']['name']}" if "tool" in choice else "auto"
    )
    if own := more.get("tool_choice"):
        assert "toolChoice" not in config
        kinds = {"any": "required", "tool": f"the {own.get('name')}"}
        seen.choice = kinds.get(own["type"], own["type"])
        seen.one_call = own.get("disable_parallel_tool_use") is True
    inference = body.get("inferenceConfig", {})
    names = {
        "max_tokens": "maxTokens",
        "temperature": "temperature",
        "top_p": "topP",
        "stop": "stopSequences",
    }
    seen.sampling = _given(inference, names) | _given(more, {"top_k": "top_k"})
    seen.thinks = (more.get("thinking") or {}).get("type") in ("enabled", "adaptive")
    if output := body.get("outputConfig"):
        seen.format = json.loads(output["textFormat"]["structure"]["jsonSchema"]["schema"])
    return _with_json(seen, "")


def _bedrock_part(block: Value) -> Content:
    match block:
        case {"text": str(text)}:
            return text
        case {"json": value}:
            return json.dumps(value)
        case {"image": {"format": str(kind), "source": {"bytes": str(data)}}}:
            return Picture(kind, data)
        case _:
            raise AssertionError(block)


def _bedrock_result(result: Value) -> Result:
    assert result["content"], "a result needs content"
    parts = [_bedrock_part(block) for block in result["content"]]
    return _result([part for part in parts if part != "(no output)"], failed=result.get("status") == "error")


# --- Cohere's


def cohere(body: Value) -> Seen:
    seen = Seen([])
    turns = _Round(seen.turns, seen.ids)
    for at, message in enumerate(body["messages"]):
        content = message.get("content", "")
        match message["role"]:
            case "system":
                assert at == 0
                seen.system = content
            case "user":
                parts = [openai_part(part) for part in content] if isinstance(content, list) else [content]
                turns.user([part for part in parts if part != FROM_TOOLS])
            case "assistant":
                called = [(call["id"], call["function"]) for call in message.get("tool_calls", ())]
                calls = [Call(id, call["name"], json.loads(call["arguments"])) for id, call in called]
                turns.call(Said(content, tuple(calls)))
            case "tool":
                text = content if isinstance(content, str) else json.dumps(content[0]["document"]["data"])
                if text == "(The content of this tool's result follows.)":
                    text = ""
                turns.result(message["tool_call_id"], Result(text))
    turns.end()
    for tool in body.get("tools", ()):
        function = tool["function"]
        seen.tools.append((function["name"], function.get("description", ""), function["parameters"]))
    seen.choice = (body.get("tool_choice") or "auto").lower()
    same = ("max_tokens", "temperature", "seed", "frequency_penalty", "presence_penalty")
    names = {name: name for name in same} | {"top_p": "p", "top_k": "k", "stop": "stop_sequences"}
    seen.sampling = _given(body, names)
    seen.thinks = (body.get("thinking") or {}).get("type") == "enabled"
    wanted = body.get("response_format") or {}
    seen.format = wanted.get("json_schema") or ("json" if wanted else "")
    return seen


# --- OpenAI's Responses


def responses(body: Value) -> Seen:
    seen = Seen([], body.get("instructions") or "")
    turns = _Round(seen.turns, seen.ids)
    said: list[Any] = []  # of one turn of the assistant's: texts and calls

    def end() -> None:
        if said:
            text = "".join([part for part in said if isinstance(part, str)])
            turns.call(Said(text, tuple([part for part in said if isinstance(part, Call)])))
            said.clear()

    items = body["input"]
    for item in items:
        kind = item.get("type", "message")
        if kind == "message" and item["role"] == "assistant":
            content = item["content"]
            said += [content] if isinstance(content, str) else [part["text"] for part in content]
        elif kind == "function_call":
            said.append(Call(item["call_id"], item["name"], json.loads(item["arguments"])))
        elif kind == "function_call_output":
            end()
            output = item["output"]
            parts = [output] if isinstance(output, str) else [_responses_part(part) for part in output]
            turns.result(item["call_id"], _result(parts))
        elif kind == "message":
            end()
            content = item["content"]
            parts = [content] if isinstance(content, str) else [_responses_part(part) for part in content]
            if item["role"] == "user":
                turns.user(parts)
            else:
                seen.system += "".join(map(str, parts))
    end()
    turns.end()
    for tool in body.get("tools") or ():
        seen.tools.append((tool["name"], tool.get("description", ""), tool["parameters"]))
        seen.strict.append(tool["strict"])
    seen.choice = _choice(body.get("tool_choice"))
    seen.one_call = body.get("parallel_tool_calls") is False
    seen.sampling = _given(
        body, {"temperature": "temperature", "top_p": "top_p", "max_tokens": "max_output_tokens"}
    )
    seen.thinks = bool((body.get("reasoning") or {}).get("effort"))
    wanted = (body.get("text") or {}).get("format") or {}
    kind = wanted.get("type")
    seen.format = wanted["schema"] if kind == "json_schema" else "json" if kind == "json_object" else ""
    return seen


def _responses_part(part: Value) -> Content:
    return _picture(part["image_url"]) if part["type"] == "input_image" else str(part["text"])


READERS: Mapping[str, Callable[[Value], Seen]] = {
    "openai": openai, "anthropic": anthropic, "gemini": gemini, "ollama": ollama, "bedrock": bedrock, "cohere": cohere,
    "responses": responses,
}  # fmt: skip

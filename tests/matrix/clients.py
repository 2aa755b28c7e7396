"""A talk as the clients of each dialect send it, by their own documentation; written apart from what reads
it.

`CAN` says what a dialect has words for; the rest of a talk is not written.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from tests.matrix.talk import Picture, Result, Results, Said, Talk, Tool, User, Value

EVERYTHING = frozenset({
    "choice", "one_call", "max_tokens", "temperature", "top_p", "frequency_penalty", "presence_penalty", "stop", "seed",
    "top_k", "failed", "strict",
})  # fmt: skip
CAN: Mapping[str, frozenset[str]] = {
    "openai": EVERYTHING - {"failed"},
    "widget": EVERYTHING - {"failed"},
    "anthropic": EVERYTHING - {"frequency_penalty", "presence_penalty", "seed"},
    "responses": frozenset({"strict", "choice", "one_call", "max_tokens", "temperature", "top_p"}),
    "ollama": EVERYTHING - {"choice", "one_call", "failed", "strict"},
    "gemini": EVERYTHING - {"one_call", "strict"},
}


def given(talk: Talk, dialect: str, names: Mapping[str, str]) -> Value:
    """The sampling that a dialect has, under its own names."""
    can = CAN[dialect]
    return {names.get(name, name): value for name, value in talk.sampling.items() if name in can}


def strict(tool: Tool) -> Value:
    return {"strict": True} if tool.strict else {}


# --- OpenAI's


def openai(talk: Talk, dialect: str = "openai") -> Value:
    messages: list[Value] = [{"role": "system", "content": talk.system}] if talk.system else []
    ids: list[str] = []
    for turn in talk.turns:
        match turn:
            case User(content=(str(text),)):
                messages.append({"role": "user", "content": text})
            case User(content=content):
                messages.append({"role": "user", "content": [openai_part(part) for part in content]})
            case Said():
                ids = [call.id for call in turn.calls]
                messages.append(openai_said(turn))
            case Results(results=results):
                messages += openai_results(ids, results)
    body: Value = {"model": "chat", "messages": messages, "stream": talk.stream, **given(talk, dialect, {})}
    if talk.tools:
        body["tools"] = [
            {
                "type": "function",
                "function": {"name": t.name, "description": t.description, "parameters": t.parameters}
                | strict(t),
            }
            for t in talk.tools
        ]
    if talk.choice:
        name = talk.choice.removeprefix("the ")
        body["tool_choice"] = (
            {"type": "function", "function": {"name": name}} if name != talk.choice else name
        )
    if talk.one_call:
        body["parallel_tool_calls"] = False
    if talk.effort:
        body["reasoning_effort"] = talk.effort
    if talk.format == "json":
        body["response_format"] = {"type": "json_object"}
    elif talk.format:
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": talk.format},
        }
    return body


def openai_part(part: str | Picture) -> Value:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    return {"type": "image_url", "image_url": {"url": part.url}}


def openai_said(turn: Said) -> Value:
    message: Value = {"role": "assistant", "content": turn.text or None if turn.calls else turn.text}
    if turn.calls:
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
            }
            for call in turn.calls
        ]
    return message | ({"reasoning_content": turn.thought} if turn.thought else {})


def openai_results(ids: list[str], results: tuple[Result, ...]) -> list[Value]:
    found = []
    for id, result in zip(ids, results, strict=True):
        shown = [openai_part(picture) for picture in result.pictures]
        text = [openai_part(result.text)] if result.text else []
        found.append(
            {"role": "tool", "tool_call_id": id, "content": [*text, *shown] if shown else result.text}
        )
    return found


def widget(talk: Talk) -> Value:
    return openai(talk, "widget")


# --- Anthropic's


def anthropic(talk: Talk) -> Value:
    messages: list[Value] = []
    ids: list[str] = []
    for turn in talk.turns:
        match turn:
            case User(content=content):
                _join(messages, "user", [anthropic_block(part) for part in content])
            case Said():
                ids = [call.id for call in turn.calls]
                blocks = [{"type": "text", "text": turn.text}] if turn.text else []
                blocks += [
                    {"type": "tool_use", "id": c.id, "name": c.name, "input": c.arguments} for c in turn.calls
                ]
                messages.append({"role": "assistant", "content": blocks})
            case Results(results=results):
                _join(messages, "user", anthropic_results(ids, results))
    names = {"stop": "stop_sequences"}
    body: Value = {
        "model": "chat",
        "max_tokens": 4096,
        "messages": messages,
        **given(talk, "anthropic", names),
    }
    body["stream"] = talk.stream
    if talk.system:
        body["system"] = talk.system
    if talk.tools:
        body["tools"] = [
            {"name": tool.name, "description": tool.description, "input_schema": tool.parameters}
            | strict(tool)
            for tool in talk.tools
        ]
        if talk.choice or talk.one_call:
            name = talk.choice.removeprefix("the ")
            kinds: Mapping[str, Value] = {"": {"type": "auto"}, "auto": {"type": "auto"}, "none": {"type": "none"},
                                          "required": {"type": "any"}}  # fmt: skip
            choice = {"type": "tool", "name": name} if name != talk.choice else kinds[name]
            single = {"disable_parallel_tool_use": True} if talk.one_call and talk.choice != "none" else {}
            body["tool_choice"] = choice | single
    if talk.effort:
        body["thinking"] = {"type": "adaptive"}
        body["output_config"] = {"effort": talk.effort}
    if isinstance(talk.format, dict):
        body["output_config"] = {
            **body.get("output_config", {}),
            "format": {"type": "json_schema", "schema": talk.format},
        }
    return body


def _join(messages: list[Value], role: str, blocks: list[Value]) -> None:
    if messages and messages[-1]["role"] == role:
        messages[-1]["content"] += blocks
    else:
        messages.append({"role": role, "content": blocks})


def anthropic_block(part: str | Picture) -> Value:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    return {
        "type": "image",
        "source": {"type": "base64", "media_type": f"image/{part.kind}", "data": part.data},
    }


def anthropic_results(ids: list[str], results: tuple[Result, ...]) -> list[Value]:
    found = []
    for id, result in zip(ids, results, strict=True):
        content: Any = result.text
        if result.pictures:
            text = [{"type": "text", "text": result.text}] if result.text else []
            content = [*text, *map(anthropic_block, result.pictures)]
        failed = {"is_error": True} if result.failed else {}
        found.append({"type": "tool_result", "tool_use_id": id, "content": content, **failed})
    return found


# --- OpenAI's Responses


def responses(talk: Talk) -> Value:
    items: list[Value] = []
    ids: list[str] = []
    for turn in talk.turns:
        match turn:
            case User(content=(str(text),)):
                items.append({"role": "user", "content": text})
            case User(content=content):
                items.append(
                    {"type": "message", "role": "user", "content": [responses_part(part) for part in content]}
                )
            case Said():
                ids = [call.id for call in turn.calls]
                if turn.thought:
                    summary = [{"type": "summary_text", "text": turn.thought}]
                    items.append({"type": "reasoning", "id": "rs_1_2_3", "summary": summary})
                if turn.text:
                    said = [{"type": "output_text", "text": turn.text, "annotations": []}]
                    items.append({"type": "message", "role": "assistant", "content": said})
                items += [
                    {
                        "type": "function_call",
                        "call_id": c.id,
                        "name": c.name,
                        "arguments": json.dumps(c.arguments),
                    }
                    for c in turn.calls
                ]
            case Results(results=results):
                items += responses_results(ids, results)
    body: Value = {"model": "chat", "input": items, "store": False, "stream": talk.stream}
    body |= given(talk, "responses", {"max_tokens": "max_output_tokens"})
    if talk.system:
        body["instructions"] = talk.system
    if talk.tools:
        body["tools"] = [
            {
                "type": "function",
                "name": t.name,
                "description": t.description,
                "parameters": t.parameters,
                "strict": t.strict,
            }
            for t in talk.tools
        ]
    if talk.choice:
        name = talk.choice.removeprefix("the ")
        body["tool_choice"] = {"type": "function", "name": name} if name != talk.choice else name
    if talk.one_call:
        body["parallel_tool_calls"] = False
    if talk.effort:
        body["reasoning"] = {"effort": talk.effort}
    if talk.format == "json":
        body["text"] = {"format": {"type": "json_object"}}
    elif talk.format:
        body["text"] = {"format": {"type": "json_schema", "name": "answer", "schema": talk.format}}
    return body


def responses_part(part: str | Picture) -> Value:
    if isinstance(part, str):
        return {"type": "input_text", "text": part}
    return {"type": "input_image", "image_url": part.url, "detail": "auto"}


def responses_results(ids: list[str], results: tuple[Result, ...]) -> list[Value]:
    found = []
    for id, result in zip(ids, results, strict=True):
        text = [responses_part(result.text)] if result.text else []
        output = [*text, *map(responses_part, result.pictures)] if result.pictures else result.text
        found.append({"type": "function_call_output", "call_id": id, "output": output})
    return found


# --- Ollama's


def ollama(talk: Talk) -> Value:
    messages: list[Value] = [{"role": "system", "content": talk.system}] if talk.system else []
    calls: tuple[Any, ...] = ()
    for turn in talk.turns:
        match turn:
            case User(content=content):
                text = "".join([part for part in content if isinstance(part, str)])
                images = [part.data for part in content if isinstance(part, Picture)]
                messages.append({"role": "user", "content": text, **({"images": images} if images else {})})
            case Said():
                calls = turn.calls
                message: Value = {"role": "assistant", "content": turn.text}
                if turn.thought:
                    message["thinking"] = turn.thought
                if calls:
                    message["tool_calls"] = [
                        {"id": call.id, "function": {"name": call.name, "arguments": call.arguments}}
                        for call in calls
                    ]
                messages.append(message)
            case Results(results=results):
                messages += ollama_results([(call.id, call.name) for call in calls], results)
    names = {"max_tokens": "num_predict"}
    body: Value = {
        "model": "chat",
        "messages": messages,
        "stream": talk.stream,
        "options": given(talk, "ollama", names),
    }
    if talk.tools:
        body["tools"] = [
            {
                "type": "function",
                "function": {"name": t.name, "description": t.description, "parameters": t.parameters},
            }
            for t in talk.tools
        ]
    if talk.effort:
        body["think"] = talk.effort
    if talk.format:
        body["format"] = talk.format
    return body


def ollama_results(called: list[tuple[str, str]], results: tuple[Result, ...]) -> list[Value]:
    found = []
    for (id, name), result in zip(called, results, strict=True):
        images = {"images": [picture.data for picture in result.pictures]} if result.pictures else {}
        named = {"tool_call_id": id} if id else {}
        found.append({"role": "tool", "content": result.text, "tool_name": name, **named, **images})
    return found


# --- Gemini's


def gemini(talk: Talk) -> Value:
    contents: list[Value] = []
    calls: tuple[Any, ...] = ()
    for turn in talk.turns:
        match turn:
            case User(content=content):
                contents.append({"role": "user", "parts": [gemini_part(part) for part in content]})
            case Said():
                calls = turn.calls
                parts: list[Value] = [{"text": turn.thought, "thought": True}] if turn.thought else []
                parts += [{"text": turn.text}] if turn.text else []
                parts += [{"functionCall": {"name": call.name, "args": call.arguments}} for call in calls]
                contents.append({"role": "model", "parts": parts})
            case Results(results=results):
                parts = gemini_results([("", call.name) for call in calls], results)
                contents.append({"role": "user", "parts": parts})
    names = {"max_tokens": "maxOutputTokens", "top_p": "topP", "top_k": "topK", "stop": "stopSequences",
             "frequency_penalty": "frequencyPenalty", "presence_penalty": "presencePenalty"}  # fmt: skip
    config = given(talk, "gemini", names)
    body: Value = {"contents": contents}
    if talk.system:
        body["systemInstruction"] = {"parts": [{"text": talk.system}]}
    if talk.tools:
        body["tools"] = [{"functionDeclarations": [_declaration(tool) for tool in talk.tools]}]
    if talk.choice:
        name = talk.choice.removeprefix("the ")
        mode = {"auto": "AUTO", "none": "NONE", "required": "ANY"}.get(name, "ANY")
        only = {"allowedFunctionNames": [name]} if name != talk.choice else {}
        body["toolConfig"] = {"functionCallingConfig": {"mode": mode, **only}}
    if talk.effort:
        config["thinkingConfig"] = {"thinkingLevel": talk.effort.upper(), "includeThoughts": True}
    if talk.format:
        config["responseMimeType"] = "application/json"
        if talk.format != "json":
            config["responseJsonSchema"] = talk.format
    return body | ({"generationConfig": config} if config else {})


def _declaration(tool: Any) -> Value:
    return {"name": tool.name, "description": tool.description, "parametersJsonSchema": tool.parameters}


def gemini_part(part: str | Picture) -> Value:
    return {"text": part} if isinstance(part, str) else _inline(part)


def _inline(picture: Picture) -> Value:
    return {"inlineData": {"mimeType": f"image/{picture.kind}", "data": picture.data}}


def gemini_results(called: list[tuple[str, str]], results: tuple[Result, ...]) -> list[Value]:
    found = []
    for (id, name), result in zip(called, results, strict=True):
        answer: Value = {"error": result.text} if result.failed else {"output": result.text}
        response: Value = {"name": name, "response": answer, **({"id": id} if id else {})}
        if result.pictures:
            response["parts"] = [_inline(picture) for picture in result.pictures]
        found.append({"functionResponse": response})
    return found


WRITERS: Mapping[str, Callable[[Talk], Value]] = {
    "openai": openai, "widget": widget, "anthropic": anthropic, "responses": responses, "ollama": ollama, "gemini": gemini,
}  # fmt: skip

"""Counts the tokens of a request with a server's own tokenizer, for callers of Anthropic's, Gemini's and the
Responses dialect.

vLLM's `/tokenize` takes a conversation with its tools and applies the model's template, so its count is that
of the chat. llama.cpp's takes a text: it gets the texts of the conversation with their roles, so its count
lacks only the template's own tokens. Both endpoints are beside /v1, not below it.

Standards: https://docs.vllm.ai/en/latest/serving/openai_compatible_server (Tokenizer API),
https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md (POST /tokenize)
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec

from sluice.backends.protocol import Decoder, Headers, UpstreamRequest
from sluice.model.chat import ChatRequest
from sluice.model.operations import OperationRequest
from sluice_plugins.counting import CountDecoder

MAX_ANSWER = 32 << 20
"""Most bytes of an answer, which may list every token."""
Value = dict[str, Any]
_json = msgspec.json.Encoder().encode


def _of_gemini(tokens: int) -> Value:
    return {"totalTokens": tokens, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": tokens}]}


COUNT_DOCUMENTS: Mapping[str, Callable[[int], Value]] = {
    "anthropic": lambda tokens: {"input_tokens": tokens},
    "responses": lambda tokens: {"object": "response.input_tokens", "input_tokens": tokens},
    "gemini": _of_gemini,
}
"""By the caller's dialect: the document with the count."""


class Counting(msgspec.Struct, frozen=True):
    """A token counting operation at `url`, for callers of `dialect`. `translated` writes a chat's body in the
    upstream's dialect. `whole`: the server takes that body; otherwise it takes a text."""

    url: str
    headers: Headers
    dialect: str
    translated: Callable[[ChatRequest], Value]
    whole: bool

    def whole_request(self, chat: ChatRequest, model: str) -> UpstreamRequest:
        counted = chat.counted if isinstance(chat, OperationRequest) else None
        body = self.translated(counted or chat)
        given = {"messages": body["messages"], **({"tools": body["tools"]} if "tools" in body else {})}
        if self.whole:
            document = {"model": model, **given, "add_generation_prompt": True}
        else:
            document = {"content": _text_of(given), "add_special": True}
        return UpstreamRequest(self.url, self.headers, _json(document))

    def whole_decoder(self) -> Decoder:
        return CountDecoder(partial(_document_of, write=COUNT_DOCUMENTS[self.dialect]), MAX_ANSWER)


def _text_of(given: Value) -> str:
    """Returns everything that the model reads, as one text: tools, roles, contents, calls."""
    pieces = [_json(tool).decode() for tool in given.get("tools", ())]
    for message in given["messages"]:
        pieces.append(message["role"])
        content = message.get("content")
        if isinstance(content, str):
            pieces.append(content)
        elif content:
            pieces += [part["text"] for part in content if part.get("type") == "text"]
        pieces += [_json(call["function"]).decode() for call in message.get("tool_calls", ())]
    return "\n".join(pieces)


class _Answer(msgspec.Struct):
    count: int | None = None
    tokens: list[Any] = []


_answer_of = msgspec.json.Decoder(_Answer).decode


def _document_of(body: bytes, write: Callable[[int], Value]) -> bytes | None:
    answer = _answer_of(body)
    count = len(answer.tokens) if answer.count is None else answer.count
    return _json(write(count)) if count > 0 else None

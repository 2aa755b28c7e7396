"""The backend for OpenAI's Responses API, used statelessly: the upstream stores nothing for the gateway.

If the caller speaks the same dialect, the request is the caller's own JSON object with as few edits as
possible, and the answer is forwarded; otherwise the request is built from `sluice.model.chat` (`request`),
and the answer is decoded into events (`stream`).

Standard: https://platform.openai.com/docs/api-reference/responses
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

import msgspec

from sluice.backends.protocol import Decoder, Headers, Operation, UpstreamRequest, unread
from sluice.backends.transport import Transport
from sluice.config.types import Bytes, Secret
from sluice.errors import UpstreamError
from sluice.model.chat import ChatRequest
from sluice.model.rules import NO_RULES, ModelRules
from sluice.wire.baseurl import endpoint
from sluice.wire.jsonedit import with_known_string
from sluice.wire.seals import SEAL_PREFIX
from sluice.wire.upstream_errors import upstream_error
from sluice_plugins.counting import Counting
from sluice_plugins.decoding import MAX_EVENT
from sluice_plugins.responses.request import ENCRYPTED, translated, unsealed
from sluice_plugins.responses.stream import ResponsesDecoder
from sluice_plugins.tool_ids import fitted_ids
from sluice_plugins.translation import account_headers, check_endpoint

_encode = msgspec.json.Encoder().encode
_OURS = (f'"{SEAL_PREFIX}'.encode(), b'"reasoning"')
"""Bytes that a body contains if it may have reasoning items that the gateway made for the caller."""

OWN_HOST = "api.openai.com"


class Responses(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, dict=True):
    """A backend that speaks the Responses API.

    `base_url` may end in `/responses`; its query is kept. `headers` are added to every request. `summary`:
    the summary of reasoning to request for callers of other dialects (OpenAI requires a verified organization
    for it); null: none. `strict`: a malformed event is an error instead of being skipped. `always_stream`:
    request a stream even if a caller of this dialect wants a whole answer. `max_event`: most bytes of one
    event of a stream.
    """

    base_url: str = "https://api.openai.com/v1"  # the address of its API, with /v1
    api_key: Secret | None = None  # sent as a Bearer token
    organization: str | None = None  # the openai-organization header
    project: str | None = None  # the openai-project header
    headers: dict[str, str] = {}  # headers added to every request
    summary: Literal["auto", "concise", "detailed"] | None = (
        None  # the summary of reasoning to request for callers of other dialects
    )
    strict: bool = False  # whether a malformed event is an error
    always_stream: bool = False  # whether to request a stream for whole answers, too
    max_event: Bytes = MAX_EVENT  # most bytes of one event

    dialect: ClassVar[str] = "responses"
    endings: ClassVar[tuple[str, ...]] = ("/responses",)
    credential_kinds: ClassVar[tuple[str, ...]] = ("static", "file", "exec", "aws", "google", "azure")
    takes: ClassVar[frozenset[str]] = frozenset({
        "image_url", "image_data", "file_data", "file_url", "file_id", "input_audio", "tool_images", "tools",
        "tool_choice_required", "tool_choice_named", "json_object", "json_schema", "parallel_tool_calls",
        "temperature", "top_p", "reasoning_effort", "reasoning_budget", "user", "metadata", "service_tier", "verbosity",
    })  # fmt: skip
    rules: ClassVar[ModelRules] = NO_RULES

    def __post_init__(self) -> None:
        check_endpoint(self.base_url, self.headers)

    def request(self, chat: ChatRequest, model: str) -> UpstreamRequest:
        wire = chat.wire if chat.dialect == self.dialect else None
        body = (
            _passed_through(chat, wire, model, stream=True)
            if wire is not None
            else self._translated(chat, model)
        )
        return UpstreamRequest(self._url, self._headers, body)

    def whole_request(self, chat: ChatRequest, model: str) -> UpstreamRequest:
        return UpstreamRequest(
            self._url, self._whole_headers, _passed_through(chat, chat.wire or {}, model, stream=False)
        )

    def operation(self, name: str, dialect: str) -> Operation | None:
        """Only OpenAI itself counts tokens; few other servers of this dialect do."""
        own = urlsplit(self.base_url).hostname == OWN_HOST
        if name != "count_tokens" or dialect != self.dialect or not own:
            return None
        return Counting(endpoint(self.base_url, "/responses/input_tokens", self.endings), self._whole_headers)

    def whole_decoder(self) -> Decoder:
        return ResponsesDecoder(verbatim=True, strict=self.strict, max_event=self.max_event)

    def listing(self) -> UpstreamRequest | None:
        return UpstreamRequest(
            endpoint(self.base_url, "/models", self.endings), unread(self._whole_headers), b"", "GET"
        )

    def decoder(self, *, verbatim: bool = False) -> Decoder:
        return ResponsesDecoder(verbatim=verbatim, strict=self.strict, max_event=self.max_event)

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        return upstream_error(status, headers, body)

    def transport(self) -> Transport | None:
        return None

    def credentials(self) -> Headers:
        return self._credentials

    def _translated(self, chat: ChatRequest, model: str) -> bytes:
        if self.rules.tool_ids:
            chat = msgspec.structs.replace(
                chat, messages=tuple(fitted_ids(chat.messages, self.rules.tool_ids))
            )
        least, limit = self.rules.least_tokens, chat.sampling.max_tokens
        if limit is not None and limit < least:
            chat = msgspec.structs.replace(
                chat, sampling=msgspec.structs.replace(chat.sampling, max_tokens=least)
            )
        body = translated(
            chat,
            self.summary or "",
            self.rules.efforts,
            encrypted=ENCRYPTED not in self.rules.drop,
            marks=self.rules.cache_marks,
        )
        return _encode({"model": model, **body, "stream": True})

    @cached_property
    def _url(self) -> str:
        return endpoint(self.base_url, "/responses", self.endings)

    @cached_property
    def _headers(self) -> Headers:
        return self._headers_for("text/event-stream")

    @cached_property
    def _whole_headers(self) -> Headers:
        return self._headers_for("application/json")

    def _headers_for(self, accept: str) -> Headers:
        return account_headers(accept, self.organization, self.project, self.headers)

    @cached_property
    def _credentials(self) -> Headers:
        return () if self.api_key is None else (("authorization", f"Bearer {self.api_key.reveal()}"),)


def _passed_through(chat: ChatRequest, wire: dict[str, Any], model: str, *, stream: bool) -> bytes:
    """Returns the caller's body for this model; it is re-encoded only if more than the model's name
    changes."""
    body = chat.body
    items = wire.get("input")
    fitted = unsealed(items) if any([mark in body for mark in _OURS]) or not body else items
    if body and fitted == items and (wire.get("stream") is True) is stream:
        if wire.get("model") == model:
            return body
        edited = with_known_string(body, b'"model"', _encode(model)) if "model" in wire else None
        if edited is not None:
            return edited
    fresh = {**wire, "model": model, "input": fitted}
    if stream:
        fresh["stream"] = True
    else:
        fresh.pop("stream", None)
    return _encode({name: value for name, value in fresh.items() if name != "input" or "input" in wire})

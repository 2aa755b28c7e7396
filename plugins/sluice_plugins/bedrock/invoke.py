"""Claude on Bedrock in Anthropic's own format, by InvokeModelWithResponseStream.

https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-anthropic-claude-messages.html

The body is a Messages request without `model` and `stream`, with `anthropic_version` and with beta features
in `anthropic_beta`; the rest of the request is made by `sluice_plugins.anthropic.backend`. Converse
(`sluice_plugins.bedrock.backend`) is for all models; this backend offers what Anthropic's API has and
Converse lacks. Bedrock also has the Messages API itself, with server-sent events, below /anthropic: for that
use `anthropic` with another `base_url`.

The answer is an event stream whose chunks contain the model's own events in base64. Claude's are passed to
the decoder of Anthropic's API as server-sent events, so that both backends support the same. Other models'
formats, which guardrails and older models use, are decoded by `sluice_plugins.bedrock.native`.
"""

import re
from base64 import b64decode
from binascii import Error as NotBase64
from functools import cached_property
from typing import ClassVar
from urllib.parse import quote

import msgspec
from msgspec import Raw

from sluice.backends.credentials import BEARER, KeyField
from sluice.backends.protocol import Decoder, Headers, Operation, UpstreamRequest
from sluice.errors import UpstreamError, UpstreamTruncated
from sluice.model.events import StreamEvent, Usage
from sluice.wire.baseurl import base_of
from sluice.wire.eventstream import EventMessage
from sluice.wire.forwarding import Allowed, with_forwarded
from sluice.wire.lenient import encoded, parse
from sluice.wire.upstream_errors import reported_error
from sluice_plugins.anthropic.backend import Anthropic
from sluice_plugins.anthropic.vertex import OF_PLATFORM, with_version
from sluice_plugins.bedrock.backend import runtime_address
from sluice_plugins.bedrock.frames import MessagesOrDocument, exception, failed
from sluice_plugins.bedrock.native import NativeDecoder

BETA = "anthropic-beta"


class BedrockAnthropic(Anthropic, frozen=True, forbid_unknown_fields=True, kw_only=True, dict=True):
    """Claude on Bedrock, in a `region` or at `base_url`. It has the options of `anthropic` and these;
    `version` is the body's anthropic_version, `beta` its anthropic_beta, `api_key` a Bedrock API key, sent as
    a Bearer token."""

    endings: ClassVar[tuple[str, ...]] = ("/model",)
    credential_kinds: ClassVar[tuple[str, ...]] = ("aws", "static", "file", "exec")
    key_field: ClassVar[KeyField] = BEARER

    region: str = ""  # a region of AWS, such as eu-central-1
    base_url: str = ""  # the address of its API; "": the region's own address
    version: str = "bedrock-2023-05-31"  # the body's anthropic_version

    def __post_init__(self) -> None:
        if not self.base_url:
            msgspec.structs.force_setattr(self, "base_url", runtime_address(self.region))
        super().__post_init__()

    def sent(self, model: str, headers: Headers, body: bytes) -> UpstreamRequest:
        fields, streamed = with_version(body, self.version)
        fields.pop("stream", None)
        kept = {name: value for name, value in headers if name not in OF_PLATFORM}
        if betas := kept.pop(BETA, ""):
            fields.setdefault(
                "anthropic_beta", Raw(msgspec.json.encode([beta.strip() for beta in betas.split(",")]))
            )
        if streamed and kept.get("accept") == "text/event-stream":
            kept["accept"] = "application/vnd.amazon.eventstream"
        before, query = self._around
        verb = "invoke-with-response-stream" if streamed else "invoke"
        url = f"{before}{quote(model, safe='')}/{verb}{query}"
        return UpstreamRequest(url, tuple(kept.items()), msgspec.json.encode(fields))

    def decoder(self, *, verbatim: bool = False) -> "InvokeDecoder":  # type: ignore[override]
        native = NativeDecoder(strict=self.strict, max_event=self.max_event, keep_stop=self.keep_stop)
        return InvokeDecoder(super().decoder(verbatim=verbatim), native, self.max_event)

    def whole_decoder(self) -> "InvokeDecoder":  # type: ignore[override]
        native = NativeDecoder(strict=self.strict, max_event=self.max_event, keep_stop=self.keep_stop)
        return InvokeDecoder(super().whole_decoder(), native, self.max_event)

    def listing(self) -> UpstreamRequest | None:
        """Returns None: the platform lists models by another service."""
        return None

    def operation(self, name: str, dialect: str) -> Operation | None:
        """Returns None: Bedrock counts tokens only for requests in its own format."""
        return None

    @cached_property
    def forwards(self) -> Allowed:
        return {name: values for name, values in super().forwards.items() if name == BETA}

    def tell(self, request: UpstreamRequest, more: Headers) -> None:
        """Add a caller's headers to a request: its beta features belong in the body here."""
        fields = dict(more)
        betas = [beta.strip() for beta in fields.pop(BETA, "").split(",") if beta.strip()]
        if betas:
            body = msgspec.json.decode(request.body, type=dict[str, Raw])
            known = msgspec.json.decode(bytes(body.get("anthropic_beta", Raw(b"[]"))), type=list[str])
            body["anthropic_beta"] = Raw(msgspec.json.encode(list(dict.fromkeys([*known, *betas]))))
            request.body = msgspec.json.encode(body)
        request.headers = with_forwarded(request.headers, tuple(fields.items()))

    def credentials(self) -> Headers:
        return (BEARER.header(self.api_key.reveal()),) if self.api_key else ()

    @cached_property
    def _around(self) -> tuple[str, str]:
        """Returns the part of a request's URL before the model, and its query."""
        base, query = base_of(self.base_url, self.endings)
        return f"{base}/model/", f"?{query}" if query else ""


class _Typed(msgspec.Struct):
    type: str = ""


_typed = msgspec.json.Decoder(_Typed).decode
_NAME = re.compile(r"[a-z_]{1,60}").fullmatch


class InvokeDecoder(Decoder):
    """Decodes an answer of InvokeModelWithResponseStream.

    Its chunks go to `messages`, the decoder of Anthropic's API, as server-sent events; if the first one has
    the format of another model, they go to `native`. A whole document in place of a stream goes to `messages`
    unmodified.
    """

    def __init__(self, messages: Decoder, native: NativeDecoder, max_event: int) -> None:
        self._stream = MessagesOrDocument(max_event)
        self._messages = messages
        self._native = native
        self._inner: Decoder | None = None  # the decoder for this answer's format
        self._skipped = 0
        self._error: UpstreamError | None = None

    @property
    def skipped(self) -> int:
        return self._skipped + (self._inner.skipped if self._inner is not None else 0)

    @property
    def skipped_fields(self) -> int:
        return self._inner.skipped_fields if self._inner is not None else 0

    @property
    def finish_missing(self) -> int:
        return self._inner.finish_missing if self._inner is not None else 0

    @property
    def reported(self) -> Usage | None:
        return self._inner.reported if self._inner is not None else None

    def distinguish(self, ids: frozenset[str]) -> None:
        self._messages.distinguish(ids)
        self._native.distinguish(ids)

    def feed(self, data: bytes) -> list[StreamEvent]:
        if self._error is not None:
            raise self._error
        events: list[StreamEvent] = []
        frames: list[bytes] = []
        try:
            for message in self._stream.feed(data):
                chunk = self._chunk(message)
                if chunk is not None and self._of_claude(chunk):
                    frames.append(_as_frame(chunk))
                elif chunk is not None:
                    events += self._native.take(chunk)
        except UpstreamError as error:  # raised after the events that came before it in the same read
            self._error = error
        if frames:
            events += self._messages.feed(b"".join(frames))
        if self._error is not None and not events:
            raise self._error
        return events

    def close(self) -> list[StreamEvent]:
        if self._error is not None:
            raise self._error
        if (document := self._stream.document) is not None:
            return self._document(document)
        self._stream.close()
        if self._inner is None:
            raise UpstreamTruncated
        return self._inner.close()

    def _document(self, document: bytes) -> list[StreamEvent]:
        if (error := reported_error(document)) is not None:
            raise error
        self._inner = self._messages
        return self._messages.feed(document) + self._messages.close()

    def _of_claude(self, chunk: bytes) -> bool:
        if self._inner is None:
            native = not _type_of(chunk) and self._native.knows(chunk)
            self._inner = self._native if native else self._messages
        return self._inner is self._messages

    def _chunk(self, message: EventMessage) -> bytes | None:
        """Returns the model's own event in a message; None if it has none. Raises UpstreamError for an
        exception."""
        if message.text(":message-type") in ("exception", "error"):
            raise failed(message)
        name = message.text(":event-type")
        if name.endswith("Exception"):
            raise exception(name, message.payload)
        if name == "chunk":
            try:
                match parse(message.payload):
                    case {"bytes": str(chunk)}:
                        return b64decode(chunk, validate=True)
                    case {"bytes": dict(value)}:  # written by proxies
                        return encoded(value)
            except (NotBase64, ValueError, RecursionError):
                pass
        self._skipped += name != "initial-response"
        return None


def _as_frame(chunk: bytes) -> bytes:
    """Returns an event of Anthropic's API as a server-sent event. Its JSON is put on one line: line ends can
    only be between tokens."""
    kind = _type_of(chunk)
    data = chunk.replace(b"\r", b" ").replace(b"\n", b" ")
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), data) if kind else b"data: %b\n\n" % data


def _type_of(chunk: bytes) -> str:
    """Returns the type of an event of Anthropic's API; "" if it has no valid one."""
    try:
        kind = _typed(chunk).type
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    return kind if _NAME(kind) else ""

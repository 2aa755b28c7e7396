"""Transcriptions, translations and image edits, whose requests are multipart forms: sends the caller's form
with the target's model, and forwards the answer unmodified.

Standard: https://platform.openai.com/docs/api-reference/audio
"""

from collections.abc import Iterator

from sluice.backends.protocol import Backend, Decoder, Headers, UpstreamRequest
from sluice.errors import UpstreamGarbled
from sluice.model.chat import ChatRequest
from sluice.model.events import Finished, Started, StreamEvent, TextDelta, Verbatim
from sluice.model.operations import FormRequest, StoredForm
from sluice.wire.multipart import boundary_of
from sluice.wire.upstream_errors import reported_error
from sluice_plugins.openai.operations import MAX_ERROR, WholeDecoder
from sluice_plugins.openai.speech import SoundDecoder, Speech

PATHS = {
    "transcriptions": "/audio/transcriptions", "translations": "/audio/translations", "image_edits": "/images/edits",
}  # fmt: skip


class Forms(Speech):
    """An operation whose request is a multipart form. `headers` are those of requests for whole answers."""

    def __init__(self, backend: Backend, url: str, headers: Headers, operation: str) -> None:
        super().__init__(backend, url, headers)
        self._fixed = tuple([(name, value) for name, value in self._headers if name != "content-type"])
        self._operation = operation

    def request(self, chat: ChatRequest, model: str) -> UpstreamRequest:
        if not isinstance(chat, FormRequest):
            raise TypeError("not a form")
        headers = (*self._fixed, ("content-type", chat.form))
        if chat.stored is not None:
            return UpstreamRequest(
                self._url, headers, b"", pieces=NamedForm(chat.stored, *_splice(chat, model))
            )
        at, end, name = _splice(chat, model)
        return UpstreamRequest(self._url, headers, b"%b%b%b" % (chat.body[:at], name, chat.body[end:]))

    whole_request = request

    def whole_decoder(self) -> Decoder:
        return WholeDecoder("data") if self._operation == "image_edits" else TranscriptDecoder()

    def decoder(self, *, verbatim: bool = False) -> Decoder:
        return SoundDecoder()


class NamedForm:
    """A stored form in which `name` replaces the bytes from `at` to `end`."""

    def __init__(self, form: StoredForm, at: int, end: int, name: bytes) -> None:
        self._form = form
        self._at, self._end, self._name = at, end, name

    def __len__(self) -> int:
        return len(self._form) - (self._end - self._at) + len(self._name)

    def __iter__(self) -> Iterator[bytes]:
        yield from self._form.between(0, self._at)
        yield self._name
        yield from self._form.between(self._end, len(self._form))


def _splice(form: FormRequest, model: str) -> tuple[int, int, bytes]:
    """Returns the start and end of the model's name in the form, and the text to put there: another name, or
    a whole part if the form has no model."""
    name = model.encode()
    if form.at is not None:
        return *form.at, name
    mark = b"--" + boundary_of(form.form).encode()
    at = form.body.find(mark) if form.stored is None else form.stored.first
    return at, at, b'%b\r\nContent-Disposition: form-data; name="model"\r\n\r\n%b\r\n' % (mark, name)


class TranscriptDecoder(WholeDecoder):
    """Decodes a transcript: a JSON object with `text`, or plain text."""

    def __init__(self) -> None:
        super().__init__("text")

    def close(self) -> list[StreamEvent]:
        body = bytes(self._body)
        if body.lstrip()[:1] == b"{":
            return super().close()
        error = reported_error(body) if len(body) <= MAX_ERROR else None
        if error is not None or body.lstrip()[:1] == b"<":
            raise error or UpstreamGarbled("The upstream's answer is no transcript")
        return [Started(), TextDelta(""), Finished("stop", None, ""), Verbatim(body, whole=True)]

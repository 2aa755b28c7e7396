"""Claude on Google's Vertex AI: the Messages API behind `rawPredict` and `streamRawPredict`.

https://cloud.google.com/vertex-ai/generative-ai/docs/partner-models/claude/use-claude

The model is in the URL instead of the body, and the API's version is in the body (`anthropic_version`);
`sluice_plugins.anthropic.backend` does everything else, including answers.
"""

from functools import cached_property
from typing import ClassVar
from urllib.parse import quote

import msgspec
from msgspec import Raw

from sluice.backends.credentials import BEARER, KeyField
from sluice.backends.protocol import Headers, Operation, UpstreamRequest
from sluice.wire.baseurl import base_of
from sluice.wire.forwarding import Allowed
from sluice_plugins.anthropic.backend import Anthropic
from sluice_plugins.counting import Counting
from sluice_plugins.vertex import check_place, vertex_address

OF_PLATFORM = frozenset({"anthropic-version"})
"""Headers of Anthropic's own API that are not sent to a platform."""
_fields = msgspec.json.Decoder(dict[str, Raw]).decode


def with_version(body: bytes, version: str) -> tuple[dict[str, Raw], bool]:
    """Returns the fields of a body for a platform, without `model` and with `anthropic_version`, and whether
    the body requests a stream."""
    fields = _fields(body)
    fields.pop("model", None)
    fields.setdefault("anthropic_version", Raw(msgspec.json.encode(version)))
    return fields, bytes(fields.get("stream", b"false")) == b"true"


class VertexAnthropic(Anthropic, frozen=True, forbid_unknown_fields=True, kw_only=True, dict=True):
    """Claude on Vertex AI, in a `project` and a `location`. It has the options of `anthropic` and these;
    `version` is the body's anthropic_version, `api_key` an access token (see credentials of the kind
    `google`)."""

    endings: ClassVar[tuple[str, ...]] = ("/v1",)
    credential_kinds: ClassVar[tuple[str, ...]] = ("google", "static", "file", "exec")
    key_field: ClassVar[KeyField] = BEARER

    project: str  # the project of Google Cloud
    location: str = "global"  # a region, us, eu, or global
    base_url: str = ""  # the address of its API; "": the location's own address
    version: str = "vertex-2023-10-16"  # the body's anthropic_version

    def __post_init__(self) -> None:
        check_place(self.project, self.location)
        if not self.base_url:
            msgspec.structs.force_setattr(self, "base_url", vertex_address(self.location))
        super().__post_init__()

    def sent(self, model: str, headers: Headers, body: bytes) -> UpstreamRequest:
        fields, streamed = with_version(body, self.version)
        before, query = self._around
        verb = "streamRawPredict" if streamed else "rawPredict"
        url = f"{before}{quote(model, safe='@')}:{verb}{query}"
        return UpstreamRequest(url, self._on_platform(headers), msgspec.json.encode(fields))

    @staticmethod
    def _on_platform(headers: Headers) -> Headers:
        return tuple(header for header in headers if header[0] not in OF_PLATFORM)

    def listing(self) -> UpstreamRequest | None:
        """Returns None: the platform lists models by another service."""
        return None

    def operation(self, name: str, dialect: str) -> Operation | None:
        """Tokens are counted only if `count_tokens` is set, because not every location can do it."""
        if name != "count_tokens" or dialect != self.dialect or not self.count_tokens:
            return None
        before, query = self._around
        return Counting(f"{before}count-tokens:rawPredict{query}", self._on_platform(self._whole_headers))

    @cached_property
    def forwards(self) -> Allowed:
        return {name: values for name, values in super().forwards.items() if name not in OF_PLATFORM}

    def credentials(self) -> Headers:
        return (BEARER.header(self.api_key.reveal()),) if self.api_key else ()

    @cached_property
    def _around(self) -> tuple[str, str]:
        """Returns the part of a request's URL before the model, and its query."""
        base, query = base_of(self.base_url, self.endings)
        place = f"{base}/v1/projects/{self.project}/locations/{self.location}/publishers/anthropic/models/"
        return place, f"?{query}" if query else ""

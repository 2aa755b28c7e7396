"""A key in the configuration, usually as ${VAR} or ${file:/path}. Only a restart changes it."""

from collections.abc import Iterable, Mapping

import msgspec

from sluice.backends.credentials import Setting, key_field_of
from sluice.backends.transport import Headers, UpstreamRequest
from sluice.config.types import Secret


class Static(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A key in the configuration."""

    api_key: Secret  # the key itself, as ${VAR} or ${file:/path}
    header: str | None = None  # the header that carries the key, such as api-key; null: the backend's own

    def check(self, backend: object, environ: Mapping[str, str]) -> None:
        key_field_of(backend, self.header).line("key")

    def headers(self, backend: object) -> Headers:
        return (key_field_of(backend, self.header).header(self.api_key.reveal()),)

    def open(self, setting: Setting) -> "UnmodifiedKey":
        field = key_field_of(setting.backend, self.header)
        key = UnmodifiedKey(field.name)
        key.take(self.api_key.reveal(), field.line(self.api_key.reveal()))
        return key


class UnmodifiedKey:
    """A key that is sent as it is, without signing. `take` replaces it."""

    def __init__(self, field: str) -> None:
        self.fields = frozenset({field})
        self._key = ""
        self._line: bytes | None = None

    def take(self, key: str, line: bytes) -> None:
        self._key, self._line = key, line

    def sign_now(self, request: UpstreamRequest) -> bytes | None:
        return self._line

    async def ready(self) -> None: ...

    async def renewed(self, lines: bytes) -> bool:
        return False

    def secrets(self) -> Iterable[str]:
        return (self._key,) if self._key else ()

    async def close(self) -> None: ...

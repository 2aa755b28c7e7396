"""Credentials in a file whose key may be replaced at any time: a Kubernetes Secret or ConfigMap, or a file
that an agent writes.

The file is checked once a second in a thread, and read again if the target of its links, its time or its size
has changed, so swapped symlinks (Kubernetes' `..data`) are noticed. When the upstream refuses a key, the file
is checked at once: a key that is replaced and revoked at the same moment fails no call. While the file is
missing, empty or incomplete, the last key stays in use.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import msgspec

from sluice.backends.credentials import CredentialFailed, KeyField, Setting, key_field_of
from sluice.config.types import Secret
from sluice_plugins.credentials.static import UnmodifiedKey

EVERY = 1.0
"""Seconds between two checks."""
MAX_FILE_BYTES = 64 << 10
"""Most bytes of a key file."""

State = tuple[int, int, int, int]
"""Device, inode, time of change in ns, size: they differ after a file was replaced or written."""


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A key in a file, which is read again when it changes."""

    path: str  # the file with the key and nothing else
    header: str | None = None  # the header that carries the key, such as api-key; null: the backend's own

    def check(self, backend: object, environ: Mapping[str, str]) -> None:
        key_field_of(backend, self.header).line("key")
        key_in(self.path)

    def open(self, setting: Setting) -> "FileKey":
        key = FileKey(self.path, key_field_of(setting.backend, self.header), setting)
        key.start()
        return key


def key_in(path: str) -> str:
    """Returns the key in a file, without the line end. Raises ValueError, which never quotes the file's
    content."""
    try:
        with Path(path).open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1).decode().strip("\r\n")
    except OSError as error:
        raise ValueError(f"cannot read {path}: {(error.strerror or 'failed').lower()}") from None
    except UnicodeDecodeError:
        raise ValueError(f"cannot read {path}: not UTF-8") from None
    if not text or len(text) > MAX_FILE_BYTES:
        raise ValueError(f"{path} is {'too large' if text else 'empty'}")
    try:
        return Secret.parse(text).reveal()
    except ValueError as error:
        raise ValueError(f"what is in {path} {error}") from None


def _state_of(path: str) -> State | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


class _Look(msgspec.Struct):
    """The result of a check: a new key, a problem, or neither if the file has not changed."""

    state: State | None
    key: str = ""
    problem: str = ""

    __repr__ = object.__repr__


class FileKey(UnmodifiedKey):
    """The key of a file, checked regularly; `sleep` waits between two checks."""

    def __init__(
        self,
        path: str,
        field: KeyField,
        setting: Setting,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        super().__init__(field.name)
        self._path = path
        self._field = field
        self._setting = setting
        self._sleep = sleep
        self._seen: State | None = None
        self._failing = False
        self._watching: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Read the file, and start checking it regularly."""
        self._take(self._look())
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def ready(self) -> None:
        await self.look()
        if not self._key:
            raise CredentialFailed(f"there is no key in {self._path}")

    async def renewed(self, lines: bytes) -> bool:
        if self._line == lines:
            await self.look()
        return self._line != lines

    async def look(self) -> None:
        """Check the file now."""
        self._take(await asyncio.to_thread(self._look))

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])

    async def _watch(self) -> None:
        while True:
            await self._sleep(EVERY)
            await self.look()

    def _look(self) -> _Look:
        """Check the file, and read it if it has changed. Runs in a thread, because the file may be on a slow
        network disk."""
        state = _state_of(self._path)
        if state is not None and state == self._seen:
            return _Look(state)
        try:
            key = key_in(self._path)
            self._field.line(key)
        except ValueError as error:
            return _Look(None, problem=str(error))
        return _Look(state, key)

    def _take(self, look: _Look) -> None:
        self._seen = look.state
        if look.problem:
            self._failing = True
            self._setting.failed(look.problem)
        elif self._failing:
            self._failing = False
            self._setting.recovered()
        if look.key and look.key != self._key:
            self.take(look.key, self._field.line(look.key))

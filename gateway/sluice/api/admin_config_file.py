"""GET and PUT /admin/config/file, POST /admin/config/file/check: the file that the gateway was started with, to
read, compare and write from the pages. Only with `admin.edit`, and only where the process has a file.

Whoever writes it may have the gateway read files and send secrets anywhere: it is worth as much as the
gateway's own user. A text is written only if it can be followed, in place of the one that its writer has seen,
and taken back if it is not followed after all.
"""

import asyncio
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from sluice.api.admin_config import MAX_LINES, found_of, restart_for
from sluice.api.admin_process import STATUSES, shown
from sluice.api.admin_requests import AdminRequest, AdminRoute, reply
from sluice.config.jsontree import read
from sluice.config.loader import MAX_FILE, Checked, check
from sluice.config.problems import Report
from sluice.errors import Conflict, GatewayError, NotFound, Unavailable
from sluice.files import read_file, reason_of
from sluice.frontends import Reply
from sluice.runtime.fleet import Fleet, Reload
from sluice.runtime.snapshot import Snapshot

MAX_FILE_BYTES = 2 << 20
"""Bytes of a request with a text of the file. `server.body_limit` counts, too."""


class Text(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A text of the whole file."""

    text: str


class Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A new `text` for the file; `hash` is that of the file which GET returned, and which this text replaces."""

    text: str
    hash: str


class AdminConfigFile:
    """The routes that read and write the configuration's file, for one snapshot."""

    def __init__(self, runtime: Snapshot) -> None:
        self._runtime = runtime
        self._tasks: set[asyncio.Task[Reply]] = set()

    def routes(self) -> list[AdminRoute]:
        return [
            AdminRoute("GET", "/admin/config/file", self._read),
            AdminRoute("POST", "/admin/config/file/check", self._check, MAX_FILE_BYTES),
            AdminRoute("PUT", "/admin/config/file", self._write, MAX_FILE_BYTES),
        ]

    async def _read(self, request: AdminRequest) -> Reply:
        """The file as it is on disk, and the `hash` that PUT wants. Raises NotFound, Unavailable."""
        self._fleet()
        data = await self._runtime.beside(_bytes_of, self._runtime.path)
        return reply(
            {"path": self._runtime.path, "hash": _hash(data), "text": data.decode("utf-8", "replace")}
        )

    async def _check(self, request: AdminRequest) -> Reply:
        """Tells what a text would change: its problems by their places, how it differs from the file, and
        what only a restart could change. Raises BadRequest, NotFound, Unavailable."""
        self._fleet()
        text = read(request.body, Text, Report("")).text
        return reply(await self._runtime.beside(self._judged, text))

    async def _write(self, request: AdminRequest) -> Reply:
        """Writes the file, and has all processes follow it. Answers as POST /admin/reload; the file is as before
        but where that is 200. Raises BadRequest, NotFound, Unavailable, and Conflict if the file is another
        one."""
        fleet = self._fleet()
        change = read(request.body, Change, Report(""))
        task = asyncio.create_task(self._applied(fleet, change))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)  # written is followed, even if the client leaves

    async def _applied(self, fleet: Fleet, change: Change) -> Reply:
        runtime = self._runtime
        data = change.text.encode("utf-8", "replace")
        checked = await runtime.beside(self._checked, data)
        refused = self._refused(checked, data)
        if refused is None:
            before = await runtime.beside(_replaced, runtime.path, data, change.hash)
            try:
                refused = await fleet.reload()
            except GatewayError:  # the supervisor does not answer, and may follow the text later on
                await self._take_back(before, data)
                with suppress(GatewayError):
                    await fleet.reload()
                raise
            if not refused.ok:
                await self._take_back(before, data)
        return reply(shown(refused), STATUSES[refused.result])

    async def _take_back(self, before: bytes, written: bytes) -> None:
        with suppress(Conflict, Unavailable):  # somebody else has written it since
            await self._runtime.beside(_replaced, self._runtime.path, before, _hash(written))

    def _refused(self, checked: Checked, data: bytes) -> Reload | None:
        problems = tuple(str(problem) for problem in checked.problems)
        if checked.loaded is None:
            return Reload("invalid", _hash(data), problems=problems)
        restart = restart_for(self._runtime.state, checked.loaded.config)
        if not restart:
            return None
        lines = tuple(f"{option}: only a restart can change it" for option in restart)
        return Reload("needs_restart", _hash(data), problems=lines, needs_restart=tuple(restart))

    def _checked(self, data: bytes) -> Checked:
        return check(self._runtime.path, data=data)

    def _judged(self, text: str) -> dict[str, Any]:
        from difflib import unified_diff

        data = text.encode("utf-8", "replace")
        checked = self._checked(data)
        file = _bytes_of(self._runtime.path).decode("utf-8", "replace")
        diff = [*unified_diff(file.splitlines(), text.splitlines(), "file", "text", n=3, lineterm="")]
        restart = (
            restart_for(self._runtime.state, checked.loaded.config) if checked.loaded is not None else []
        )
        return {**found_of(checked), "diff": diff[:MAX_LINES], "needs_restart": restart}

    def _fleet(self) -> Fleet:
        """Raises NotFound where the file may not be read and written."""
        runtime = self._runtime
        fleet = runtime.state.fleet
        if not runtime.config.admin.edit or fleet is None:
            raise NotFound("The configuration's file is read and written here only with admin.edit: true")
        return fleet


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]


def _bytes_of(path: str) -> bytes:
    """Returns the bytes of the file. Raises Unavailable."""
    with _failures(path):
        return read_file(path, MAX_FILE)


def _replaced(path: str, data: bytes, expected: str) -> bytes:
    """Replaces the file with `data` in one step, keeping its mode and owner, and returns the previous
    content. A symbolic link stays one.

    Raises Conflict if the file's hash is not `expected`, Unavailable if it cannot be written.
    """
    with _failures(path):
        real = Path(os.path.realpath(path))
        with _locked(real.parent):
            before = read_file(real, MAX_FILE)
            if _hash(before) != expected:
                raise Conflict("The file has been changed since it was read: read it again")
            _put(real, data)
            return before


def _put(real: Path, data: bytes) -> None:
    status = real.stat()
    descriptor, name = tempfile.mkstemp(prefix=f".{real.name}.", dir=real.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), status.st_mode & 0o7777)
            if os.geteuid() == 0:
                os.fchown(file.fileno(), status.st_uid, status.st_gid)
            os.fsync(file.fileno())
        os.replace(name, real)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Locks the folder, so that two workers cannot both replace the version that their writers have seen."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _failures(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(f"{path}: {reason_of(error)}") from None

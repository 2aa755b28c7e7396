"""Credentials that a program prints: a key or token from a vault or identity system that has no kind of
credentials here.

The program runs without a shell, with the gateway's environment and no input, and prints one JSON object:
`{"token": "…", "expires_at": "2026-12-01T12:00:00Z"}`. `expires_at` may also be seconds since the epoch;
without it the program runs once an hour. Its stderr is discarded, since it may contain a secret.
"""

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from sluice.backends.credentials import CredentialFailed, Setting, key_field_of
from sluice.config.types import Seconds, Secret
from sluice_plugins.credentials.refreshing import Fresh, Refreshed, Token

MAX_OUTPUT_BYTES = 64 << 10
"""Most bytes of output."""
PIPE_GRACE = 1.0
"""Seconds that its output may stay open after its end: a process that left its group may hold it open."""


class _Printed(msgspec.Struct):
    token: str
    expires_at: str | float | None = None


class Exec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A key or token that a program prints."""

    command: tuple[str, ...]  # the program and its arguments, run without a shell
    timeout: Seconds = Seconds(10)  # how long the program may run
    header: str | None = None  # the header that carries the token, such as api-key; null: the backend's own

    def __post_init__(self) -> None:
        if not self.command or not self.command[0]:
            raise ValueError('command needs a program, such as ["/usr/local/bin/token", "--audience", "llm"]')
        if self.timeout <= 0:
            raise ValueError("timeout must be more than 0")

    def check(self, backend: object, environ: Mapping[str, str]) -> None:
        key_field_of(backend, self.header).line("key")
        if shutil.which(self.command[0], path=environ.get("PATH")) is None:
            raise ValueError(
                f"the program {self.command[0]} cannot be run: it is not there, or not executable"
            )

    def open(self, setting: Setting) -> Token:
        field = key_field_of(setting.backend, self.header)
        return Token(Refreshed(self._run, setting), field.line, field.name)

    async def _run(self) -> Fresh[str]:
        try:
            async with asyncio.timeout(float(self.timeout)):
                output = await self._output()
        except TimeoutError:
            raise CredentialFailed(
                f"{self.command[0]} did not end within {float(self.timeout):g} s"
            ) from None
        return _read(output, self.command[0])

    async def _output(self) -> bytes:
        try:
            process = await asyncio.create_subprocess_exec(
                *self.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,  # so that the processes that it starts can be killed with it
            )
        except OSError as error:
            raise CredentialFailed(
                f"cannot run {self.command[0]}: {(error.strerror or 'failed').lower()}"
            ) from None
        printed = process.stdout or asyncio.StreamReader()
        output = bytearray()
        try:
            while piece := await printed.read(MAX_OUTPUT_BYTES):
                output += piece
                if len(output) > MAX_OUTPUT_BYTES:
                    raise CredentialFailed(f"{self.command[0]} printed too much")
            status = await process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PIPE_GRACE):
                    await process.communicate()
        if status:
            raise CredentialFailed(f"{self.command[0]} ended with {status}")
        return bytes(output)


def _read(output: bytes, program: str) -> Fresh[str]:
    try:
        printed = msgspec.json.decode(output, type=_Printed)
        token = Secret.parse(printed.token).reveal()
        return Fresh(token, _seconds(printed.expires_at))
    except (msgspec.DecodeError, ValueError):
        raise CredentialFailed(f'{program} did not print {{"token": …, "expires_at": …}}') from None


def _seconds(moment: str | float | None) -> float | None:
    """Returns seconds since the epoch. A time without a time zone is UTC. Raises ValueError."""
    if not isinstance(moment, str):
        return moment
    when = datetime.fromisoformat(moment)
    return (when if when.tzinfo is not None else when.replace(tzinfo=UTC)).timestamp()

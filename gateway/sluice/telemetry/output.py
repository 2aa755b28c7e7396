"""Writes to the process's standard descriptors without ever waiting for their reader.

Standard output may be a pipe that nobody reads any more, a terminal that was stopped with Ctrl-S, a socket of
the journal or a full disk, and it is shared: with the parent's shell and with all workers. A write that waits
would stop every stream, and O_NONBLOCK set on a shared open file description would make the others' writes
fail. So each kind of descriptor is written to in a way of its own that neither waits nor changes what others
see (see `LogOutput`).
"""

import errno
import io
import os
import select
import socket
import stat
import sys

_UNKNOWN_FLAG = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class LogOutput:
    """Writes bytes to a descriptor, as many as it accepts at once.

    A socket is written to with MSG_DONTWAIT. A pipe or a terminal is opened once more through /proc, which
    makes a new open file description with an O_NONBLOCK of its own. If that is not allowed (the pipe belongs
    to another user), a piece that a pipe accepts as a whole (PIPE_BUF) is written once poll(2) reports that
    it is writable. Files and other devices are written to as they are.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._own = -1
        self._write = self._to_file
        self._terminal = os.isatty(number)
        try:
            kind = os.fstat(number).st_mode
        except OSError:  # closed: every write will fail
            return
        if stat.S_ISSOCK(kind):
            self._socket = socket.socket(fileno=os.dup(number))
            self._write = self._to_socket
        elif stat.S_ISFIFO(kind) or self._terminal:
            self._write = self._carefully
            try:
                flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
                self._own = os.open(f"/proc/self/fd/{number}", flags)
                self._write = self._to_own
            except OSError:
                pass

    def write(self, data: bytes) -> int:
        """Returns the number of bytes that were accepted. Raises BlockingIOError if none were, and OSError if
        none ever will be."""
        return self._write(data)

    def wait(self, timeout: float) -> None:
        """Blocks until something may be written again, for at most `timeout` seconds. Only for the end of the
        process."""
        poll = select.poll()
        poll.register(self._number, select.POLLOUT)
        poll.poll(timeout * 1000)

    def isatty(self) -> bool:
        """Returns whether it is a terminal."""
        return self._terminal

    def close(self) -> None:
        """Closes the additional descriptor; the original one stays open."""
        if self._own >= 0:
            os.close(self._own)
            self._own = -1
            self._write = self._carefully

    def _to_file(self, data: bytes) -> int:
        return os.write(self._number, data)

    def _to_own(self, data: bytes) -> int:
        return os.write(self._own, data)

    def _to_socket(self, data: bytes) -> int:
        return self._socket.send(data, socket.MSG_DONTWAIT)

    def _carefully(self, data: bytes) -> int:
        piece = data[: select.PIPE_BUF]
        try:
            return os.pwritev(self._number, [piece], -1, os.RWF_NOWAIT)
        except AttributeError:  # not Linux
            pass
        except OSError as error:  # pipes know the flag from Linux 6.5 on, terminals do not
            if error.errno not in _UNKNOWN_FLAG:
                raise
        poll = select.poll()
        poll.register(self._number, select.POLLOUT)
        if not poll.poll(0):
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return os.write(self._number, piece)


class OutputText(io.TextIOBase):
    """Replaces `sys.stdout` and `sys.stderr` in a process that must not wait: bytes that are not accepted at
    once are lost."""

    def __init__(self, out: LogOutput) -> None:
        self._out = out

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        return "backslashreplace"

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._out.isatty()

    def write(self, text: str) -> int:
        data = text.encode("utf-8", "backslashreplace")
        try:
            while data:
                data = data[self._out.write(data) :]
        except OSError:  # BlockingIOError among them
            pass
        return len(text)


def open_standard_descriptors() -> None:
    """Opens those of the descriptors 0, 1 and 2 that are closed to /dev/null. Otherwise the next socket or
    file would get the number: log lines would be sent to a client, and libuv would abort."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            os.dup2(opened, number)  # inheritable, as standard descriptors are
            if opened != number:
                os.close(opened)
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 (it is open as long as the process)


def never_wait() -> None:
    """Makes everything that this process prints never wait for its reader, including the interpreter's own
    warnings and tracebacks."""
    sys.stdout = OutputText(LogOutput(1))
    sys.stderr = OutputText(LogOutput(2))

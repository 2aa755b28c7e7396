"""Starts, restarts and stops several worker processes on one port.

The supervisor reads the configuration once, takes the ports, and forks a worker for each number. For every
number there is a pair of listening sockets (SO_REUSEPORT: the kernel deals connections out), so the
supervisor handles no requests and mostly waits. The supervisor keeps the sockets open, and a worker that
replaces another inherits its sockets: connections that the kernel has queued for a worker that stops or dies
wait for the next one, and are not reset. The supervisor forks before it has a thread or an event loop, and
does not exec: all workers have one configuration and one version of the code, also those that start hours
later, and share the memory of both.

The first worker starts alone; if it cannot listen, it reports why, once, and the supervisor exits. A worker
that ends later is replaced: at once, or after a pause that doubles while it keeps ending within STEADY
seconds (its sockets are closed for that time, and the others get its share). A worker that was sent SIGTERM
is replaced as soon as it stops accepting. SIGTERM or SIGINT to the supervisor is passed on as SIGTERM, on
which workers drain (see `serve.py`), a second one as SIGINT, which ends their delay; those still there GRACE
seconds after their drain timeout are killed. Workers are process groups of their own, so that a terminal's
Ctrl-C reaches them once.

Every worker holds one end of a pipe whose other end only the supervisor has: if it is killed, they drain and
exit.
"""

import contextlib
import os
import selectors
import signal
import socket
import sys
import time
from typing import Any

from sluice.config.loader import Loaded
from sluice.process.channel import ChannelEnd, ChannelReply, ChannelRequest
from sluice.process.child import Child
from sluice.process.desk import Desk
from sluice.process.ports import CannotListen, Ports, mark_ports, share_port, shares
from sluice.process.serve import LAST_LINES, LEAVES, LISTENS, Worker
from sluice.process.sharing import remove_stores, with_ports, with_stores
from sluice.process.signals import UNUSED_SIGNALS, Terminal, ignore_signals, say_unused
from sluice.process.source import LOOK_EVERY, ConfigSource
from sluice.process.systemd import ServiceManager, inherited_sockets
from sluice.process.watchdog import LAST_WORDS, CrashTrace, Watchdog
from sluice.process.watchdog import LOOK_EVERY as WATCH_EVERY
from sluice.telemetry.board import Board, BoardSlot
from sluice.telemetry.logs import LogLines, open_log, standard_lines
from sluice.telemetry.table import TABLE

STEADY = 10.0
"""Seconds that a worker must run to be restarted without a pause."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
GRACE = 5.0
SLOTS = 4
"""Processes per worker number at a time: the current one, and earlier ones that finish their calls."""
RESTARTS = ("drained", "ended", "silent")
"""Why workers are started in the place of others."""
GAUGES = frozenset(f"sluice_{name}" for name, spec in TABLE.items() if spec.kind == "gauge")
LOG_PAUSE = 0.5
"""Seconds between attempts to write log lines while standard output does not accept them."""
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP, signal.SIGUSR2, *UNUSED_SIGNALS)

Part = tuple[Loaded, Worker]


def supervise(given: Loaded, source: ConfigSource) -> Part | int:
    """Runs `server.workers` workers. Returns each worker's configuration and `Worker` in its process, and the
    exit code in the supervisor.
    """
    try:
        inherited = inherited_sockets(os.environ)
        loaded, ports = with_ports(given, inherited)
    except CannotListen as error:
        print(f"sluice: {error}", file=sys.stderr)
        return 1
    lines = standard_lines(loaded.config.log, shared=True)
    log = open_log(lines, loaded.config.log.level)
    server = loaded.config.server
    log.info(
        "supervising",
        workers=server.workers,
        listen=server.listen,
        admin_listen=server.admin_listen,
        inherited=list(inherited),
    )
    for passed in inherited.values():
        passed.close()
    return _Supervisor(source, given, with_stores(loaded, log), ports, lines=lines, log=log).run()


class _Supervisor:
    def __init__(
        self,
        source: ConfigSource,
        given: Loaded,
        loaded: Loaded,
        ports: dict[int, Ports],
        *,
        lines: LogLines,
        log: Any,
    ) -> None:
        self._ports = ports
        self._board = Board(1 + SLOTS * loaded.config.server.workers)
        self.children: dict[int, Child] = {}
        self._manager = ServiceManager(os.environ)
        self._beaten = 0.0
        self._desk = Desk(self, source, given, loaded, self._board, log=log)
        self._desk.rollout.changes = self._reloads
        lines.dropped = self._desk.metrics.child("log_errors").inc
        for reason in RESTARTS:  # shown from the start: an alert sees also the first one
            self._desk.metrics.zero("worker_restarts", reason)
        self._watchdog = Watchdog()
        self._watched = 0.0
        self._marks = mark_ports(loaded.config.server)
        self._admin = ports[1].admin.dup()
        self._api = None if shares(ports[1].api) else ports[1].api.dup()
        """The API's socket, if all workers share one."""
        self._terminal = Terminal()
        self._lines = lines
        self._log = log
        self._numbers = range(1, loaded.config.server.workers + 1)
        self._due: dict[int, float] = {1: 0.0}
        """The time at which each missing worker is started, by number."""
        self._failures = dict.fromkeys(self._numbers, 0)
        self._code: int | None = None
        """The exit code; None while running."""
        self._kill_at = 0.0
        self._unproven = set(self._numbers)
        """Workers that do not listen yet."""
        self._orphans, self._alive = os.pipe()
        self._woken, self._wakes = socket.socketpair()
        self._selector = selectors.DefaultSelector()

    def run(self) -> Part | int:
        self._wakes.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        signal.set_wakeup_fd(self._wakes.fileno())
        for noted in SIGNALS:
            signal.signal(noted, _noted)
        while self._code is None or self.children:
            for number in self._now_due():
                part = self._fork(number)
                if part is not None:
                    return part
            self._lines.flush()
            for key, _ in self._selector.select(self._pause()):
                if key.fileobj is self._woken:
                    self._signalled(self._woken.recv(256))
                elif child := self.children.get(key.data):  # otherwise it has just been reaped
                    if key.fileobj is child.wire:
                        self._converse(key.data, child)
                    else:
                        self._read_status(child)
            self._desk.tick()
            self._look_after()
            self._beat()
            if self._code is not None and time.monotonic() >= self._kill_at:
                self._kill()
        remove_stores(self._loaded)
        self._log.info("workers_stopped", code=self._code)
        self._lines.close(LAST_LINES)
        return self._code

    def _reloads(self, running: bool) -> None:
        """Notes that a reload has begun, or ended."""
        (self._manager.reloading if running else self._manager.ready)()

    def _beat(self) -> None:
        """Reports to the service manager's watchdog that this loop runs; workers have the supervisor's own
        watchdog."""
        now = time.monotonic()
        if self._manager.beat_every is not None and now >= self._beaten + self._manager.beat_every:
            self._beaten = now
            self._manager.alive()

    # --- the interface for requests of operators

    @property
    def stopping(self) -> bool:
        return self._code is not None

    @property
    def _loaded(self) -> Loaded:
        """Returns the configuration for workers that are started now."""
        return self._desk.rollout.used

    def say(self, pid: int, message: ChannelRequest | ChannelReply) -> None:
        child = self.children.get(pid)
        if child is None or child.wire.closed:
            return
        child.wire.send(message)
        self._listen(pid, child)

    def replace(self, pid: int) -> None:
        self.children[pid].replaced = True
        os.kill(pid, signal.SIGINT)  # without the drain delay: its port is served by others

    def stop(self) -> None:
        if self._code is None:
            self._stop(0)

    def _listen(self, pid: int, child: Child) -> None:
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if child.wire.full else 0)
        self._selector.modify(child.wire, events, pid)

    def _converse(self, pid: int, child: Child) -> None:
        """Reads a worker's messages, and sends those that wait."""
        child.wire.flush()
        for message in child.wire.receive():
            self._desk.heard(pid, message)
        if child.wire.closed:
            self._part(pid, child)
        else:
            self._listen(pid, child)

    def _part(self, pid: int, child: Child) -> None:
        """Closes the channel to a worker."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(child.wire)
        child.wire.close()
        self._desk.gone(pid)

    def _look_after(self) -> None:
        """Kills silent workers, and those that do not end in time."""
        now = time.monotonic()
        for pid, child in self.children.items():
            if child.kill_at is not None and child.kill_at <= now:
                child.kill_at = now + GRACE
                os.kill(pid, signal.SIGKILL)
        if now < self._watched + WATCH_EVERY:
            return
        self._watched = now
        self._desk.tidy()
        serving = {pid: child for pid, child in self.children.items() if child.serves}
        for pid in self._watchdog.look(
            {pid: self._board.last_beat(child.slot) for pid, child in serving.items()}
        ):
            child = serving[pid]
            child.silent = True
            child.kill_at = now + LAST_WORDS
            os.kill(pid, signal.SIGABRT)

    # --- starting

    def _now_due(self) -> list[int]:
        if self._code is not None or self._desk.rollout.running:
            return []
        now = time.monotonic()
        return [number for number, due in sorted(self._due.items()) if due <= now]

    def _pause(self) -> float | None:
        """Returns the seconds until something is due; None: wait for a signal."""
        times = self._desk.due
        if self._code is not None:
            times.append(self._kill_at)
        elif not self._desk.rollout.running:  # otherwise no worker starts
            times += self._due.values()
        if self.children:
            times.append(self._watched + WATCH_EVERY)
            times += [child.kill_at for child in self.children.values() if child.kill_at is not None]
        if self._manager.beat_every is not None:
            times.append(self._beaten + self._manager.beat_every)
        if self._lines.pending:
            times.append(time.monotonic() + LOG_PAUSE)
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _fork(self, number: int) -> Part | None:
        """Starts a worker. Returns its `Worker` in the new process, None in the supervisor."""
        del self._due[number]
        self._lines.flush()  # otherwise the worker would write them, too
        slot = self._free_slot()
        if slot is None:  # so many workers are still finishing their calls
            self._due[number] = time.monotonic() + LOOK_EVERY
            return None
        ours = theirs = -1
        trace: CrashTrace | None = None
        ends: tuple[socket.socket, ...] = ()
        try:
            ports = self._ports[number] if number in self._ports else self._new_ports()
            self._ports[number] = ports
            ours, theirs = os.pipe()
            ends = here, there = socket.socketpair()
            trace = CrashTrace()
            signal.pthread_sigmask(
                signal.SIG_BLOCK, SIGNALS
            )  # the worker unblocks them once the handlers are reset
            pid = os.fork()
        except (OSError, CannotListen) as error:  # no memory, too many processes: the others go on
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            if theirs >= 0:
                os.close(ours)
                os.close(theirs)
            for end in ends:
                end.close()
            if trace is not None:
                trace.close()
            self._log.error("no_worker", worker=number, detail=str(error))
            self._again(number, LONGEST_PAUSE)
            return None
        if not pid:
            os.close(ours)
            here.close()
            trace.follow()
            return self._become(
                Worker(
                    number=number,
                    status=theirs,
                    supervisor=self._orphans,
                    ports=ports,
                    mark=self._marks.everybody,
                    wire=ChannelEnd(there),
                    following=self._desk.rollout.status,
                    off=dict(self._desk.off),
                    slot=BoardSlot(self._board, slot, worker=number),
                )
            )
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        os.close(theirs)
        there.close()
        child = self.children[pid] = Child(number, time.monotonic(), ours, ChannelEnd(here), slot, trace)
        self._desk.started(slot)
        self._selector.register(ours, selectors.EVENT_READ, pid)
        self._selector.register(child.wire, selectors.EVENT_READ, pid)
        self._log.info("worker_started", worker=number, worker_pid=pid)
        return None

    def _new_ports(self) -> Ports:
        """Returns a socket for the API, if possible of its own, and the admin port's. Raises CannotListen,
        OSError."""
        api = self._api.dup() if self._api is not None else share_port(self._loaded.config.server)
        return Ports(api, self._admin.dup())

    def _free_slot(self) -> int | None:
        """Returns the place for the next worker's counters: it continues those of one that has ended."""
        taken = {child.slot for child in self.children.values()}
        return next((slot for slot in range(1, self._board.slots) if slot not in taken), None)

    def _become(self, worker: Worker) -> Part:
        """Closes and resets what belongs to the supervisor, in a new worker."""
        os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        for noted in SIGNALS:
            signal.signal(noted, signal.SIG_DFL)
        ignore_signals()
        self._selector.close()
        self._lines.release()
        self._woken.close()
        self._wakes.close()
        for number, ports in self._ports.items():
            if number != worker.number:
                ports.close()
        self._admin.close()
        if self._api is not None:
            self._api.close()
        self._manager.close()
        for child in self.children.values():
            if child.status >= 0:
                os.close(child.status)
            child.wire.close()
            child.trace.close()
        os.close(self._alive)
        if self._marks.supervisor >= 0:
            os.close(self._marks.supervisor)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        return self._loaded, worker

    def _read_status(self, child: Child) -> None:
        """Handles the worker's reports that it listens, and that it stops accepting; end of file: it has
        ended."""
        report = os.read(child.status, 16) if child.status >= 0 else b""
        if LISTENS in report:
            child.listens = True
            self._desk.listens(child.number)
            if self._unproven == set(self._numbers):
                self._due |= dict.fromkeys(self._numbers[1:], 0.0)
            if child.number in self._unproven:
                self._unproven.discard(child.number)
                if not self._unproven and self._code is None:
                    self._manager.ready()
        child.leaves |= LEAVES in report
        if LEAVES in report and self._code is None:
            child.kill_at = time.monotonic() + self._loaded.config.server.drain_timeout + 2 * GRACE
            self._replace(child)
        if not report or LEAVES in report:
            self._hang_up(child)

    def _hang_up(self, child: Child) -> None:
        if child.status >= 0:
            self._selector.unregister(child.status)
            os.close(child.status)
            child.status = -1

    def _replace(self, child: Child) -> None:
        """Starts a replacement: at once, or after a pause that doubles with each early end."""
        if child.replaced:
            child.again_in = 0.0
            return self._again(child.number, 0.0)
        lasted = time.monotonic() - child.started
        failures = self._failures[child.number] + 1 if lasted < STEADY else 1
        self._failures[child.number] = failures
        child.again_in = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (failures - 2)) if failures > 1 else 0.0
        self._again(child.number, child.again_in)

    def _again(self, number: int, pause: float) -> None:
        """Starts worker `number` after a pause, in which its sockets are closed; without a pause connections
        wait in them.
        """
        self._due[number] = time.monotonic() + pause
        if pause and (ports := self._ports.pop(number, None)) is not None:
            ports.close()

    # --- ending

    def _signalled(self, numbers: bytes) -> None:
        if signal.SIGCHLD in numbers:
            self._reap()
        for number in numbers:
            if number in (signal.SIGTERM, signal.SIGINT):
                if self._code is None:
                    self._stop(0)
                else:
                    self._send(signal.SIGINT)
            elif number == signal.SIGHUP:
                self._hung_up()
            elif number == signal.SIGUSR2:
                self._desk.restart()
            elif number in UNUSED_SIGNALS:
                say_unused(self._log, number)

    def _hung_up(self) -> None:
        if not self._terminal.is_gone():
            self._desk.reload()
        else:
            self.stop()

    def _stop(self, code: int) -> None:
        server = self._loaded.config.server
        self._code = code
        self._kill_at = time.monotonic() + server.drain_delay + server.drain_timeout + GRACE
        for ports in self._ports.values():
            ports.close()  # the workers have their own, and close them at the end of the drain delay
        self._ports.clear()
        self._admin.close()
        if self._api is not None:
            self._api.close()
        self._board.stop()
        self._manager.stopping(server.drain_delay + server.drain_timeout + 2 * GRACE)
        self._send(signal.SIGTERM)

    def _send(self, number: signal.Signals) -> None:
        for pid in self.children:
            os.kill(pid, number)  # not waited for yet, so the pid cannot be reused

    def _kill(self) -> None:
        self._log.warning("workers_killed", workers=[child.number for child in self.children.values()])
        self._kill_at = time.monotonic() + GRACE
        self._send(signal.SIGKILL)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            child = self.children.pop(pid, None)
            if child is not None:
                self._ended(child, pid, os.waitstatus_to_exitcode(status))

    def _ended(self, child: Child, pid: int, code: int) -> None:
        self._read_status(child)  # its last report may be unread
        self._hang_up(child)
        self._part(pid, child)
        self._board.clear(child.slot, GAUGES)
        stack = child.trace.lines()
        child.trace.close()
        if self._code is not None:
            return
        killed_beside_others = code < 0 and self._unproven < set(self._numbers)
        if child.number in self._unproven and not killed_beside_others:
            if code <= 0:  # otherwise it has printed the reason
                how = f"was ended by signal {-code}" if code else "ended"
                print(f"sluice: worker {child.number} {how} before it listened", file=sys.stderr)
            self._stop(code if code > 0 else 1)
            return
        if child.again_in is None:
            self._replace(child)
        reason = "silent" if child.silent else "drained" if child.leaves else "ended"
        self._desk.metrics.child("worker_restarts", reason).inc()
        more = {"silent": child.silent, "stack": stack} if stack or child.silent else {}
        self._log.warning(
            "worker_ended", worker=child.number, worker_pid=pid, code=code, again_in=child.again_in, **more
        )


def _noted(*_: object) -> None:
    """Does nothing: Python needs a handler, but the loop reads the signal's number from the wakeup
    descriptor."""

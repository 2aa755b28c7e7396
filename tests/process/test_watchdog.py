"""Who is silent, and where it was."""

import os
import signal

from sluice.process.watchdog import SILENT_FOR, CrashTrace, Watchdog


def test_who_gives_no_sign_of_life_for_ten_looks_is_found_once() -> None:
    watchdog = Watchdog()
    found = [watchdog.look({1: 5.0, 2: float(look), 3: 0.0}) for look in range(2 * SILENT_FOR)]
    assert found == [[]] * SILENT_FOR + [[1, 3]] + [[]] * (SILENT_FOR - 1)


def test_a_sign_of_life_begins_it_anew() -> None:
    watchdog = Watchdog()
    beats = [1.0] * SILENT_FOR + [2.0] * SILENT_FOR
    assert [watchdog.look({1: beat}) for beat in beats] == [[]] * len(beats)


def test_a_process_that_is_ended_writes_down_where_it_was() -> None:
    trace = CrashTrace()
    ready, told = os.pipe()
    pid = os.fork()
    if not pid:  # pragma: no cover (another process)
        trace.follow()
        os.write(told, b"1")
        while True:
            signal.pause()
    os.read(ready, 1)
    os.kill(pid, signal.SIGABRT)
    os.waitpid(pid, 0)
    assert any("test_a_process_that_is_ended_writes_down_where_it_was" in line for line in trace.lines())
    trace.close()

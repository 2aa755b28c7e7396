"""Counts the processors that this process may use, for `--workers auto`."""

import contextlib
import math
import os
from pathlib import Path

QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files"""


def usable(quota: Path = QUOTA) -> int:
    """Returns the number of processors in its scheduling mask, or its control group's quota if that is
    smaller, rounded up.
    """
    try:
        found = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        found = os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        given, period = quota.read_text().split()
        found = min(found, math.ceil(int(given) / int(period)))
    return max(1, found)

"""A systemd that is process 1: in namespaces of its own, on an overlay of this machine's files, with the units of
deploy/systemd and nothing else. The network is this machine's.

It needs root, a cgroup2 hierarchy, systemd, and a python3 of the system's that is of the tests' version: the
service's user may not read root's.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

import pytest

from tests.servers import free_port

ROOT = Path(__file__).resolve().parents[2]
UNITS = ROOT / "deploy" / "systemd"
SYSTEMD, PYTHON = Path("/lib/systemd/systemd"), "/usr/bin/python3"
TARGETS = (
    "basic.target", "sysinit.target", "sockets.target", "shutdown.target", "umount.target", "final.target",
    "multi-user.target", "network-online.target", "timers.target", "paths.target", "slices.target",
)  # fmt: skip
PATIENCE = 120.0

BOOT = """
set -e
mount --make-rprivate /
mount -t tmpfs none {root}
mkdir {root}/up {root}/work {root}/new
mount -t overlay overlay -o lowerdir=/,upperdir={root}/up,workdir={root}/work {root}/new
cd {root}/new
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 none sys/fs/cgroup
mount -t tmpfs none run
mount -t tmpfs none tmp
mount -t tmpfs none dev
for device in null zero full random urandom tty; do touch dev/$device; mount --bind /dev/$device dev/$device; done
mkdir dev/shm dev/pts
mount -t tmpfs none dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 none dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
touch dev/console
mount --bind {console} dev/console
mkdir units before
cp -r {units}/. units
rm -rf opt/sluice etc/sluice var/lib/sluice var/lib/private/sluice
python=opt/sluice/venv
mkdir -p opt/sluice
{python} -m venv --without-pip $python
echo 'import site; site.addsitedir("{packages}")' >"$(echo $python/lib/python3*/site-packages)/tests.pth"
printf '#!/opt/sluice/venv/bin/python\\nfrom sluice.cli import main\\nmain()\\n' >$python/bin/sluice
sed -i 's#/.*/opt/sluice#/opt/sluice#' $python/pyvenv.cfg
chmod 755 $python/bin/sluice
pivot_root . before
umount -l before
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=tests SYSTEMD_UNIT_PATH=/units {systemd} --system \
    --unit=multi-user.target --log-target=console --show-status=false
"""


class SystemdHost:
    """`api` and `admin` are the ports of its socket unit."""

    def __init__(self, pid: int, directory: Path) -> None:
        self._pid = pid
        self._directory = directory
        self.api, self.admin = free_port(), free_port()

    def run(self, *command: str, given: str | None = None, check: bool = True) -> str:
        """Runs a command there, and returns what it says."""
        enter = ["nsenter", "--target", str(self._pid), "--mount", "--pid", "--uts", "--ipc"]
        done = subprocess.run(
            [*enter, "--", *command],
            input=given,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"{command}: {done.stdout}{done.stderr}\n{self.log}")
        return done.stdout + ("" if check else done.stderr)

    def write(self, path: str, text: str, mode: str = "0644") -> None:
        """As `install -D`: a file of root's."""
        self.run("install", "-D", "-m", mode, "/dev/stdin", path, given=text)

    def show(self, *properties: str, unit: str = "sluice.service") -> list[str]:
        return [self.run("systemctl", "show", "--value", "-p", one, unit).strip() for one in properties]

    @property
    def main(self) -> int:
        return int(self.show("MainPID")[0])

    @property
    def log(self) -> str:
        """What the service has written, and systemd about it."""
        console = (self._directory / "console").read_text("utf-8", "replace")
        return self.run("sh", "-c", "cat /run/sluice.log 2>/dev/null || true") + console


def _cgroup2() -> Path | None:
    for place in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")):
        if (place / "cgroup.controllers").exists() and os.access(place, os.W_OK):
            return place
    return None


@contextmanager
def systemd_host(directory: Path, drop_in: str = "") -> Iterator[SystemdHost]:
    """The host, its units not started. `drop_in` is added to the service. Skips the test where it cannot be."""
    place = _cgroup2()
    if os.getuid() or place is None or not SYSTEMD.exists() or shutil.which("nsenter") is None:
        pytest.skip("needs root, a cgroup2 hierarchy, systemd and nsenter")
    asked = subprocess.run(
        [PYTHON, "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, check=False
    )
    if asked.stdout.split() != [b"%d" % part for part in sys.version_info[:2]]:
        pytest.skip(f"{PYTHON} is not of the version of the tests")
    units, root, log = directory / "units", directory / "root", directory / "console"
    root.mkdir()
    keyboard, screen = os.openpty()
    reading = Thread(target=_copy, args=(keyboard, log), daemon=True)
    shutil.copytree(UNITS, units)
    for target in TARGETS:
        shutil.copy(SYSTEMD.parent / "system" / target, units)
    cgroup = place / f"sluice-tests-{os.getpid()}"
    cgroup.mkdir()
    packages = next(Path(sys.prefix).glob("lib/python3*/site-packages"))
    console = os.ttyname(screen)
    script = BOOT.format(
        root=root, console=console, units=units, packages=packages, python=PYTHON, systemd=SYSTEMD
    )
    spaces = ["--mount", "--pid", "--fork", "--kill-child", "--cgroup", "--uts", "--ipc"]
    booting = subprocess.Popen(
        ["sh", "-c", f'echo $$ >{cgroup}/cgroup.procs; exec unshare {" ".join(spaces)} bash -c "$0"', script],
        stdin=subprocess.DEVNULL, stdout=screen, stderr=screen,
    )  # fmt: skip
    reading.start()
    try:
        host = SystemdHost(_child(booting, log), directory)
        folder = "/units/sluice"
        ports = f"ListenStream=\nListenStream=127.0.0.1:{host.api}\nListenStream=127.0.0.1:{host.admin}\n"
        host.write(f"{folder}.socket.d/test.conf", f"[Socket]\n{ports}")
        host.write(
            f"{folder}.service.d/test.conf", f"[Service]\nStandardOutput=append:/run/sluice.log\n{drop_in}"
        )
        host.run("systemctl", "daemon-reload")
        yield host
    finally:
        booting.kill()  # and process 1 with it, and so all that it has started
        booting.wait()
        os.close(screen)
        reading.join(PATIENCE)
        _remove(cgroup)


def _child(booting: "subprocess.Popen[bytes]", log: Path) -> int:
    """Returns the process that is number 1 in there, when it takes commands."""
    until = time.monotonic() + PATIENCE
    children = Path(f"/proc/{booting.pid}/task/{booting.pid}/children")
    while booting.poll() is None and time.monotonic() < until:
        if found := children.read_text().split():
            ready = ["nsenter", "-t", found[0], "-m", "-p", "systemctl", "is-system-running"]
            done = subprocess.run(ready, capture_output=True, text=True, timeout=PATIENCE, check=False)
            if done.stdout.strip() in ("running", "degraded"):
                return int(found[0])
        time.sleep(0.05)
    pytest.skip(f"no systemd runs in here: {log.read_text('utf-8', 'replace')[-500:]}")


def _copy(keyboard: int, log: Path) -> None:
    """What is written to the console goes to the log, until nobody has it open any more."""
    with log.open("ab", buffering=0) as file, suppress(OSError):
        while data := os.read(keyboard, 65536):
            file.write(data)
    os.close(keyboard)


def _remove(cgroup: Path) -> None:
    until = time.monotonic() + PATIENCE
    for folder, _, _ in os.walk(cgroup, topdown=False):
        while True:
            try:
                os.rmdir(folder)
                break
            except OSError:  # its last process is about to end
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)

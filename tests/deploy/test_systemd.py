"""deploy/systemd: units that systemd understands, and that name what there is."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sluice.cli import cli

UNITS = Path(__file__).resolve().parents[2] / "deploy" / "systemd"
SERVICE = (UNITS / "sluice.service").read_text()


def values(option: str) -> list[str]:
    return re.findall(rf"^{option}=(.*)$", SERVICE, re.MULTILINE)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze is installed")
def test_systemd_understands_both_units(tmp_path: Path) -> None:
    program = tmp_path / "sluice"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    (tmp_path / "sluice.service").write_text(SERVICE.replace("/opt/sluice/venv/bin/sluice", str(program)))
    shutil.copy(UNITS / "sluice.socket", tmp_path)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / "sluice.service"), str(tmp_path / "sluice.socket")],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "sluice" in line]
    assert ours == []


def test_the_service_tells_and_is_watched() -> None:
    assert values("Type") == ["notify"]
    assert float(values("WatchdogSec")[0]) > 10
    assert values("ExecReload") == ["/bin/kill -HUP $MAINPID"]


def test_workers_drain_before_they_are_killed() -> None:
    assert values("KillMode") == ["mixed"], "SIGTERM is for the supervisor, who passes it on"
    assert int(values("TimeoutStopSec")[0]) >= 5 + 60 + 10


@pytest.mark.parametrize("option", ["ExecStartPre", "ExecStart"])
def test_its_commands_are_those_of_the_program(option: str, tmp_path: Path) -> None:
    (command,) = values(option)
    program, name, *arguments = command.split()
    assert program == "/opt/sluice/venv/bin/sluice"
    (tmp_path / "gateway.yaml").write_text("upstreams: {}\naliases: {}\n")
    given = [argument.replace("${CONFIGURATION_DIRECTORY}", str(tmp_path)) for argument in arguments]
    cli.commands[name].make_context(name, given)  # raises where it does not know them

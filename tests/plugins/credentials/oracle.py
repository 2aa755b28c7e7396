"""Other people's libraries as oracles, in whichever environment has them: this one, or the clients'
(scripts/test_tools.sh)."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CLIENTS = Path(__file__).resolve().parents[3] / ".cache" / "clients-venv"


def ask(package: str, script: str, question: object) -> Any:
    """What `script` prints as JSON, given the question on stdin. Skips the test where the package is not
    installed."""
    if _is_here(package):
        python = sys.executable
    elif any(CLIENTS.glob(f"lib/python3*/site-packages/{package.replace('.', '/')}")):
        python = str(CLIENTS / "bin" / "python")
    else:
        pytest.skip(f"the Python package {package} is not installed")
    done = subprocess.run(
        [python, "-c", script],
        input=json.dumps(question),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


def _is_here(package: str) -> bool:
    """Whether this environment has it; "google.auth" may be missing where "google" is there."""
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False

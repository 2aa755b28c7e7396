"""The image that `make image` builds, on the stand-in for its base, for the tests that run it."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "image"
NAME = "localhost/sluice-test"


def environment(directory: Path) -> dict[str, str]:
    """Of buildah, with a storage of its own, which is kept: it holds the base."""
    CACHE.mkdir(parents=True, exist_ok=True)
    storage = directory / "storage.conf"
    storage.write_text(f'[storage]\ndriver = "vfs"\ngraphroot = "{CACHE}/storage"\nrunroot = "{CACHE}/run"\n')
    return {**os.environ, "CONTAINERS_STORAGE_CONF": str(storage), "BUILDAH_ISOLATION": "chroot"}


def build(out: Path, environment: Mapping[str, str]) -> None:
    """Writes the archive and the files beside it to `out`. Skips the test where it cannot be built."""
    if missing := [name for name in ("buildah", "debootstrap", "unshare") if shutil.which(name) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    if os.geteuid() != 0:
        pytest.skip("only root makes a base of Debian's packages")
    done = subprocess.run(
        [ROOT / "scripts" / "image.sh"],
        env={**environment, "BASE": "bootstrap", "IMAGE": NAME, "OUT": str(out)},
        capture_output=True,
        text=True,
        timeout=1500,
    )
    assert done.returncode == 0, done.stderr[-4000:]

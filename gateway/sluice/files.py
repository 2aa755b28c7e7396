"""Reads files that users name, up to a bound, and explains why a file cannot be read."""

from pathlib import Path


def read_file(path: str | Path, limit: int) -> bytes:
    """Returns the file's bytes. Raises OSError, also if there are more than `limit`."""
    with Path(path).open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        size = f"{limit >> 20} MiB" if limit >= 1 << 20 else f"{limit >> 10} KiB"
        raise OSError(0, f"larger than {size}")
    return data


def reason_of(error: OSError) -> str:
    """Returns the reason as part of a sentence: "no such file or directory"."""
    words = error.strerror or str(error)
    return words[:1].lower() + words[1:]

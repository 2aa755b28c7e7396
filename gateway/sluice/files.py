"""Files that people name: reads them up to a bound, and says why one cannot be read."""

from pathlib import Path


def read_file(path: str | Path, limit: int) -> bytes:
    """Returns the file's bytes. Raises OSError, also where there are more than `limit`."""
    with Path(path).open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        size = f"{limit >> 20} MiB" if limit >= 1 << 20 else f"{limit >> 10} KiB"
        raise OSError(0, f"larger than {size}")
    return data


def reason_of(error: OSError) -> str:
    """Returns the words for a part of a sentence: "no such file or directory"."""
    words = error.strerror or str(error)
    return words[:1].lower() + words[1:]

"""A store that is a file says why it fails in the words of all stores, and which file it is."""

import errno
import os
from pathlib import Path

import pytest

from sluice.keystore import KeyStoreFailed
from sluice.keystore.sqlite import SqliteKeys
from sluice.limits.shared import SharedStore
from sluice.storage import Reason
from sluice.storage.sqlite import SqliteFile


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "full"), "full"),
        (OSError(errno.EROFS, "read-only"), "readonly"),
        (PermissionError(errno.EACCES, "no"), "noperm"),
        (OSError(errno.EIO, "broken"), "reply"),
        (RuntimeError("closed"), "reply"),
    ],
)
async def test_the_reason_of_a_file_is_one_of_all_stores(
    error: Exception, reason: Reason, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = SqliteKeys(tmp_path / "state.db")

    async def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(SqliteFile, "run", fails)
    with pytest.raises(KeyStoreFailed) as failed:
        await keys.changes(0)
    assert failed.value.reason == reason


def test_a_file_system_that_is_too_small_for_the_buckets_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match=r"it takes [0-9]+ bytes.*limits") as failed:
        SharedStore(str(tmp_path / "limits"))
    assert failed.value.errno == errno.ENOSPC

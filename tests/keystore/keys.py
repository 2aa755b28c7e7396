"""Keys for the tests of their stores."""

from typing import Any

from sluice.keystore import StoredKey


def stored(id: str, **fields: Any) -> StoredKey:
    return StoredKey(
        **{"id": id, "digest": f"sha256:{id.encode().hex():0>64.64}", "last_four": "abcd", "created": 1.5}
        | fields
    )

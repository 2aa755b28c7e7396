"""Operators: who may use the admin API, by which key, and in which role."""

import hashlib
import hmac
import math
from collections.abc import Iterable

import msgspec

from sluice.config.types import Admin, Role
from sluice.errors import Unauthorized

FIRST = "admin"
"""The name of the key whose digest is `admin.digest`; its role is operator."""


class Operator(msgspec.Struct, frozen=True):
    """Somebody who uses the admin API. `name`: the id of an admin key, or the subject that an OpenID provider
    gave. `until`: when the session ends, in seconds since the epoch."""

    name: str
    role: Role
    until: float = math.inf

    def may(self, needed: Role) -> bool:
        return self.role == "operator" or needed == "viewer"


class Operators:
    """The admin keys of one configuration."""

    def __init__(self, admin: Admin) -> None:
        first = {FIRST: (admin.digest, Operator(FIRST, "operator"))} if admin.digest is not None else {}
        self._keys = first | {key.id: (key.digest, Operator(key.id, key.role)) for key in admin.keys}

    def __len__(self) -> int:
        return len(self._keys)

    def of(self, headers: Iterable[tuple[bytes, bytes]]) -> Operator:
        """Returns the operator of the key in `x-admin-api-key`, which must occur once among these raw pairs.
        Raises Unauthorized. The comparison takes the same time for all keys."""
        given = [value.strip(b" \t") for name, value in headers if name.lower() == b"x-admin-api-key"]
        if len(given) > 1:
            raise Unauthorized("ambiguous")
        digest = "sha256:" + hashlib.sha256(given[0] if given else b"").hexdigest()
        found = [operator for known, operator in self._keys.values() if hmac.compare_digest(digest, known)]
        if not found:
            raise Unauthorized("unknown_key")
        return found[0]

    def named(self, name: str) -> tuple[str, Operator] | None:
        """Returns the digest and the operator of the key with this id; None if there is no such key any more."""
        return self._keys.get(name)

"""The admin API of keys: makes, lists, changes, rotates, disables and deletes dynamic keys, and lists
configured ones.

Answers come from memory (the follower's table, after one more look at the store if it answers); changes are
made in the store. If another process changes a key first, the change is made again on its result.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from sluice.api.admin_requests import AdminRequest, AdminRoute, Answer, reply
from sluice.api.rendering import key_object
from sluice.config.checks import Checks
from sluice.config.jsontree import read, refusal
from sluice.config.problems import Report
from sluice.config.types import Config, Grant, Key, NamedGrant
from sluice.config.units import Seconds
from sluice.errors import BadRequest, Conflict, NotFound
from sluice.frontends import Reply
from sluice.identity.keys import new_key
from sluice.keystore import KeyEntry, StoredKey, Superseded
from sluice.keystore.follower import Follower

TRIES = 5
"""Attempts to make a change while others change the same key."""
MAX_OVERLAP_SECONDS = 90 * 86400.0
"""Maximum seconds of an overlap."""


class Rotation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`overlap`: seconds for which the replaced key still works."""

    overlap: Seconds = Seconds(0)


class AdminKeys:
    """`log` gets every change."""

    def __init__(self, keys: Follower, config: Config, log: Any) -> None:
        self._keys = keys
        self._aliases = list(config.aliases)
        self._configured: Mapping[str, Key] = {key.id: key for key in config.keys}
        self._log = log

    def routes(self) -> list[AdminRoute]:
        keys, key = "/admin/keys", "/admin/keys/{id}"
        return [
            AdminRoute("GET", keys, self._list),
            AdminRoute("POST", keys, self._create),
            AdminRoute("GET", key, self._of(self.get)),
            AdminRoute("PATCH", key, self._of(self.patch)),
            AdminRoute("DELETE", key, self._of(self.delete)),
            AdminRoute("POST", f"{key}/rotate", self._of(self.rotate)),
            AdminRoute("POST", f"{key}/disable", self._of(self.disable)),
            AdminRoute("POST", f"{key}/enable", self._of(self.enable)),
        ]

    async def _list(self, request: AdminRequest) -> Reply:
        return reply(await self.listed(request.limit, request.after))

    async def _create(self, request: AdminRequest) -> Reply:
        return reply(await self.create(request.body), 201)

    def _of(self, change: Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]) -> Answer:
        """Answers a request about the key that the path names."""

        async def answer(request: AdminRequest) -> Reply:
            await self._look()
            return reply(await change(request.parameters["id"], request.body))

        return answer

    async def create(self, wire: dict[str, Any]) -> dict[str, Any]:
        """Makes a key; only this answer shows it. Raises BadRequest, Conflict, Unavailable."""
        report = Report("")
        grant = read(wire, NamedGrant, report)
        self._check(grant, report, wire)
        if grant.id in self._configured or self._keys.table.get(grant.id) is not None:
            raise _taken()
        secret = new_key()
        digest, now = self._keys.table.digest(secret), self._keys.table.clock()
        key = StoredKey(**msgspec.structs.asdict(grant), digest=digest, last_four=secret[-4:], created=now)
        if not await self._keys.put(key, 0):
            raise _taken()
        self._changed("create", key.id)
        return {**key_object(key), "key": secret}

    async def listed(self, limit: int, after: str) -> dict[str, Any]:
        """Lists at most `limit` keys with ids after `after`, in alphabetical order; `next` is where the next
        page begins.
        """
        await self._look()
        table = self._keys.table
        ids = sorted({*table.ids_after(after, limit + 1), *(id for id in self._configured if id > after)})
        total = len(table) + sum(table.get(id) is None for id in self._configured)
        page = [key_object(key) for id in ids[:limit] if (key := self._known(id)) is not None]
        return {"keys": page, "next": ids[limit - 1] if len(ids) > limit else None, "total": total}

    async def get(self, id: str, wire: dict[str, Any]) -> dict[str, Any]:
        key = self._known(id)
        if key is None:
            raise _unknown()
        return key_object(key)

    async def patch(self, id: str, wire: dict[str, Any]) -> dict[str, Any]:
        """Changes the fields that are given."""
        report = Report("")
        grant = read(wire, Grant, report)
        if not wire:
            raise BadRequest("Say what to change")
        given = {name: getattr(grant, name) for name in wire}

        def patched(key: StoredKey) -> StoredKey:
            changed = msgspec.structs.replace(key, **given)
            self._check(changed, report, wire)
            return changed

        return key_object(await self._change("update", id, patched))

    async def disable(self, id: str, wire: dict[str, Any]) -> dict[str, Any]:
        return key_object(
            await self._change("disable", id, lambda key: msgspec.structs.replace(key, enabled=False))
        )

    async def enable(self, id: str, wire: dict[str, Any]) -> dict[str, Any]:
        return key_object(
            await self._change("enable", id, lambda key: msgspec.structs.replace(key, enabled=True))
        )

    async def rotate(self, id: str, wire: dict[str, Any]) -> dict[str, Any]:
        """Makes a new secret for the key, shown only in this answer. A secret that is still in an earlier
        overlap is invalid at once.
        """
        overlap = read(wire, Rotation, Report("")).overlap
        if overlap > MAX_OVERLAP_SECONDS:
            raise BadRequest("overlap: must be at most 90 days", param="overlap")
        secret = new_key()

        def rotated(key: StoredKey) -> StoredKey:
            now = self._keys.table.clock()
            old = Superseded(key.digest, now + overlap) if overlap else None
            digest = self._keys.table.digest(secret)
            return msgspec.structs.replace(key, digest=digest, last_four=secret[-4:], rotated=now, old=old)

        return {**key_object(await self._change("rotate", id, rotated)), "key": secret}

    async def delete(self, id: str, wire: dict[str, Any]) -> dict[str, Any]:
        for _ in range(TRIES):
            entry = self._changeable(id)
            if await self._keys.delete(id, entry.revision):
                self._changed("delete", id)
                return {"id": id, "deleted": True}
        raise _busy()

    # --- changing

    async def _look(self) -> None:
        """Reads the store once more: another worker may just have made the key."""
        if not self._keys.down:
            await self._keys.follow()

    async def _change(self, action: str, id: str, make: Callable[[StoredKey], StoredKey]) -> StoredKey:
        for _ in range(TRIES):
            entry = self._changeable(id)
            if entry.key is None:
                raise Conflict("This key was written by a newer version: it can only be deleted here")
            changed = make(entry.key)
            if await self._keys.put(changed, entry.revision):
                self._changed(action, id)
                return changed
        raise _busy()

    def _changeable(self, id: str) -> KeyEntry:
        if id in self._configured:
            raise Conflict("This key stands in the configuration (`keys`): change it there")
        entry = self._keys.table.get(id)
        if entry is None:
            raise _unknown()
        return entry

    def _known(self, id: str) -> NamedGrant | None:
        entry = self._keys.table.get(id)
        return self._configured.get(id) or (entry.key if entry is not None else None)

    def _check(self, grant: NamedGrant, report: Report, wire: dict[str, Any]) -> None:
        """Checks the values of given fields. An alias that has been removed since does not invalidate the
        others."""
        Checks(report, (), self._aliases).section((), grant)
        problems = [problem for problem in report.problems if re.split(r"[.\[]", problem.path)[0] in wire]
        if problems:
            raise refusal(problems)

    def _changed(self, action: str, id: str) -> None:
        self._log.info("admin_key", action=action, id=id)


def _taken() -> Conflict:
    return Conflict("There is a key of this id", param="id")


def _unknown() -> NotFound:
    return NotFound("There is no such key")


def _busy() -> Conflict:
    return Conflict("Others are changing this key: try again")

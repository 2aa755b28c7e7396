"""Dynamic keys of this process: they end with it."""

from collections.abc import Sequence

from sluice.keystore import PAGE, Changes, KeyEntry, StoredKey


class MemoryKeys:
    """Dynamic keys of one process, and of tests."""

    def __init__(self) -> None:
        self._generation = 0
        self._entries: dict[str, KeyEntry] = {}
        """In the order of their revisions."""

    async def changes(self, since: int) -> Changes:
        if since == self._generation:
            return Changes("", since, (), len(self._entries))
        entries: Sequence[KeyEntry] = [entry for entry in self._entries.values() if entry.revision > since]
        generation = self._generation if len(entries) <= PAGE else entries[PAGE - 1].revision
        return Changes("", generation, entries[:PAGE], len(self._entries))

    async def ids(self) -> set[str]:
        return set(self._entries)

    async def put(self, key: StoredKey, revision: int) -> int | None:
        if not self._take(key.id, revision):
            return None
        self._generation += 1
        self._entries[key.id] = KeyEntry(key.id, self._generation, key)
        return self._generation

    async def delete(self, id: str, revision: int) -> bool:
        taken = revision > 0 and self._take(id, revision)
        self._generation += taken
        return taken

    async def close(self) -> None:
        return None

    def _take(self, id: str, revision: int) -> bool:
        entry = self._entries.get(id)
        if (entry.revision if entry is not None else 0) != revision:
            return False
        self._entries.pop(id, None)
        return True

"""Encodes turns for stores that keep bytes, encrypted where there are keys, and names their conversations."""

import errno
import hashlib
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from sluice.conversations import ConversationsFailed, Turn
from sluice.storage.sealing import Seals, Unreadable

PREVIEW = 200
"""Characters of the last message in a list of conversations."""
MAX_UNSTORED = 10_000
"""Ids given out for sessions that have no turn yet; the oldest is forgotten first."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Turn).decode


def written(turn: Turn) -> bytes:
    """MessagePack: a map, so that a version that knows more fields and one that knows fewer read each
    other's.

    Raises OSError where a text is not Unicode.
    """
    try:
        return _encode(turn)
    except UnicodeEncodeError as error:
        raise not_unicode() from error


def read(data: bytes) -> Turn:
    """Raises ValueError for what is none."""
    try:
        return _decode(data)
    except msgspec.DecodeError as error:
        raise ValueError("not a turn of ours") from error


def raw(text: str) -> bytes:
    """UTF-8. Raises OSError where it is not Unicode."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise not_unicode() from error


def not_unicode() -> OSError:
    return OSError(errno.EILSEQ, "text that is not Unicode cannot be stored")


def digest_of(tenant: str, session: str) -> bytes:
    """16 bytes that name a session: its own name may be of any length, and hold anything."""
    first = raw(tenant)
    return hashlib.sha256(b"%d:%b%b" % (len(first), first, raw(session))).digest()[:16]


def letters(digest: bytes) -> str:
    """A digest for keys and ids: 22 letters, digits, "-" and "_"."""
    return urlsafe_b64encode(digest).rstrip(b"=").decode()


def number_of(after: str) -> int:
    """The row's number that a page comes behind. Raises ValueError for what is none of ours."""
    if after and not (after.isascii() and after.isdigit() and len(after) < 19):
        raise ValueError("not a place in a list of conversations")
    return int(after or 0)


def digest_in(id: str) -> bytes:
    """The digest that an id of `Unstored` ends with; b"" where it is none of those."""
    text = id.rpartition(".")[2]
    try:
        return urlsafe_b64decode(f"{text}==") if len(text) == 22 and text.isascii() else b""
    except ValueError:
        return b""


RESEALED = 200
"""Messages that are encrypted anew together."""
RESEALINGS = 5
"""Times that a conversation is gone through whose turns go on meanwhile."""


class Entries(msgspec.Struct, frozen=True, eq=False):
    """Turns and previews as they are stored. `digest` is that of their conversation (`digest_of`)."""

    seals: Seals

    def written(self, turn: Turn, digest: bytes) -> bytes:
        """Raises OSError where a text is not Unicode."""
        return self.seals.seal(written(turn), digest, b"turn")

    def read(self, data: bytes, digest: bytes) -> Turn:
        """Raises ConversationsFailed: "key" where it cannot be decrypted, "reply" for what is no turn."""
        try:
            return read(self.seals.open(data, digest, b"turn"))
        except Unreadable as error:
            raise ConversationsFailed("key") from error
        except ValueError as error:
            raise ConversationsFailed("reply") from error

    def resealed(self, stored: Sequence[bytes], digest: bytes) -> tuple[list[bytes | None], int]:
        """Turns as they would be stored now, None for one that is so or cannot be decrypted; and how many
        cannot."""
        found: list[bytes | None] = []
        unreadable = 0
        for data in stored:
            new = None
            if not self.seals.is_current(data):
                try:
                    new = self.seals.seal(self.seals.open(data, digest, b"turn"), digest, b"turn")
                except Unreadable:
                    unreadable += 1
            found.append(new)
        return found, unreadable

    def resealed_preview(self, data: bytes, digest: bytes) -> bytes | None:
        """A preview as it would be stored now; None where it is so, or cannot be decrypted."""
        if self.seals.is_current(data):
            return None
        try:
            return self.seals.seal(self.seals.open(data, digest, b"preview"), digest, b"preview")
        except Unreadable:
            return None

    def preview(self, last: Turn, digest: bytes) -> bytes:
        return self.seals.seal(raw(last.content[:PREVIEW]), digest, b"preview")

    def preview_of(self, data: bytes, digest: bytes) -> str:
        """ "" where it cannot be decrypted: a list of conversations is there for those that can, and to delete
        the others."""
        try:
            return self.seals.open(data, digest, b"preview").decode("utf-8", "replace")
        except Unreadable:
            return ""


class Unstored:
    """Ids of sessions that have no turn yet: the same for each `open`, until one is stored."""

    def __init__(self, most: int = MAX_UNSTORED) -> None:
        self._most = most
        self._ids: OrderedDict[bytes, str] = OrderedDict()

    def of(self, digest: bytes) -> str:
        id = self._ids.get(digest)
        if id is None:
            id = self._ids[digest] = f"{secrets.token_urlsafe(18)}.{letters(digest)}"
            if len(self._ids) > self._most:
                self._ids.popitem(last=False)
        return id

    def stored(self, digest: bytes) -> None:
        self._ids.pop(digest, None)

"""Encodes turns for stores that keep bytes, encrypted if there are keys, and makes the ids of their
conversations."""

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
"""Maximum ids of sessions without a turn; the oldest is forgotten first."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Turn).decode


def written(turn: Turn) -> bytes:
    """Encodes a turn as a map in MessagePack, so that versions with more and with fewer fields can read each
    other's turns. Raises OSError if a text is not valid Unicode."""
    try:
        return _encode(turn)
    except UnicodeEncodeError as error:
        raise not_unicode() from error


def read(data: bytes) -> Turn:
    """Parses a turn. Raises ValueError if the bytes are not one."""
    try:
        return _decode(data)
    except msgspec.DecodeError as error:
        raise ValueError("not a turn of ours") from error


def raw(text: str) -> bytes:
    """Encodes as UTF-8. Raises OSError if the text is not valid Unicode."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise not_unicode() from error


def not_unicode() -> OSError:
    return OSError(errno.EILSEQ, "text that is not Unicode cannot be stored")


def digest_of(tenant: str, session: str) -> bytes:
    """Returns the 16 bytes that stand for a session, whose own name may have any length and any characters."""
    first = raw(tenant)
    return hashlib.sha256(b"%d:%b%b" % (len(first), first, raw(session))).digest()[:16]


def letters(digest: bytes) -> str:
    """Returns a digest as text for keys and ids: 22 letters, digits, "-" and "_"."""
    return urlsafe_b64encode(digest).rstrip(b"=").decode()


def number_of(after: str) -> int:
    """Returns the number of the row after which a page begins. Raises ValueError for a text that no page
    returned."""
    if after and not (after.isascii() and after.isdigit() and len(after) < 19):
        raise ValueError("not a place in a list of conversations")
    return int(after or 0)


def digest_in(id: str) -> bytes:
    """Returns the digest at the end of an id that `Unstored` made; b"" for any other id."""
    text = id.rpartition(".")[2]
    try:
        return urlsafe_b64decode(f"{text}==") if len(text) == 22 and text.isascii() else b""
    except ValueError:
        return b""


RESEALED = 200
"""Messages that are encrypted again together."""
RESEALINGS = 5
"""Maximum passes over a conversation that gets new turns during encryption."""


class Entries(msgspec.Struct, frozen=True, eq=False):
    """Encodes and decodes turns and previews as they are stored. `digest`: that of their conversation
    (`digest_of`)."""

    seals: Seals

    def written(self, turn: Turn, digest: bytes) -> bytes:
        """Returns the stored form of a turn. Raises OSError if a text is not valid Unicode."""
        return self.seals.seal(written(turn), digest, b"turn")

    def read(self, data: bytes, digest: bytes) -> Turn:
        """Returns a stored turn. Raises ConversationsFailed: "key" if it cannot be decrypted, "reply" if it
        is not a turn."""
        try:
            return read(self.seals.open(data, digest, b"turn"))
        except Unreadable as error:
            raise ConversationsFailed("key") from error
        except ValueError as error:
            raise ConversationsFailed("reply") from error

    def resealed(self, stored: Sequence[bytes], digest: bytes) -> tuple[list[bytes | None], int]:
        """Returns the turns as they would be stored now; None for one that is stored so already, or cannot be
        decrypted. And the number of those that cannot."""
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
        """Returns a preview as it would be stored now; None if it is stored so already, or cannot be
        decrypted."""
        if self.seals.is_current(data):
            return None
        try:
            return self.seals.seal(self.seals.open(data, digest, b"preview"), digest, b"preview")
        except Unreadable:
            return None

    def preview(self, last: Turn, digest: bytes) -> bytes:
        return self.seals.seal(raw(last.content[:PREVIEW]), digest, b"preview")

    def preview_of(self, data: bytes, digest: bytes) -> str:
        """Returns a stored preview; "" if it cannot be decrypted, so that a list of conversations shows the
        others, and this one can be deleted."""
        try:
            return self.seals.open(data, digest, b"preview").decode("utf-8", "replace")
        except Unreadable:
            return ""


class Unstored:
    """The ids of sessions that have no turn yet: each `open` returns the same id, until a turn is stored."""

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

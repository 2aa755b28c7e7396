"""Renders conversations, tokens and keys as JSON objects for the gateway's own routes."""

import hashlib
from typing import Any

import msgspec

from sluice.config.types import Key, NamedGrant
from sluice.conversations import Conversation, Turn
from sluice.identity.browser import Minted
from sluice.keystore import StoredKey, json_unit
from sluice.model.kept import KeptResponse
from sluice.wire.timestamps import timestamp

NOT_STORED = (("Cache-Control", "no-store"),)


def conversation_object(found: Conversation) -> dict[str, Any]:
    """Returns the JSON object of a stored conversation (docs/api)."""
    return {
        "_id": found.id,
        "_creationTime": _milliseconds(found.created),
        "sessionId": found.session,
        "createdAt": timestamp(found.created),
        "updatedAt": timestamp(found.updated),
        "lastMessage": found.last_message,
    }


def exported_conversation(found: Conversation) -> dict[str, Any]:
    """Returns a stored conversation as a line of an export."""
    fields = conversation_object(found)
    del fields["lastMessage"], fields["_creationTime"]
    return {"tenant": found.tenant, **fields}


def exported_response(tenant: str, kept: KeptResponse) -> dict[str, Any]:
    """Returns a kept response as a line of an export: its input and its output."""
    return {
        "tenant": tenant,
        "id": kept.id,
        "previous": kept.previous or None,
        "createdAt": timestamp(kept.created),
        "input": msgspec.Raw(kept.input),
        "response": msgspec.Raw(kept.response),
    }


def renewed_object(minted: Minted) -> dict[str, Any]:
    """Returns a renewed token, and until when it can be renewed again."""
    until = minted.renewable_until
    return {**token_object(minted), "renewableUntil": None if until is None else timestamp(until)}


def token_object(minted: Minted) -> dict[str, Any]:
    return {
        "token": minted.token,
        "expiresAt": timestamp(minted.expires),
        "origin": minted.origin,
        "alias": minted.alias,
        "sessionPrefix": minted.session_prefix,
    }


def identified_message(turn: Turn, conversation: str) -> dict[str, Any]:
    """Returns the JSON object of a message of a conversation, with an id and its time in milliseconds.

    Stores number no messages, so the id is made of what does not change: the same whenever it is read.
    """
    name = f"{conversation}\n{turn.role}\n{turn.created!r}"
    id = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return {"_id": id, "_creationTime": _milliseconds(turn.created), **message_object(turn)}


def _milliseconds(moment: float) -> float:
    """Milliseconds since the epoch of a time in seconds."""
    return round(moment * 1000, 3)


def message_object(turn: Turn) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": turn.role,
        "content": turn.content,
        "createdAt": timestamp(turn.created),
    }
    return {**message, "interrupted": True} if turn.interrupted else message


def key_object(key: NamedGrant) -> dict[str, Any]:
    """Returns a key without its secret and its digests: a configured one, or one made through the admin
    API."""
    fields: dict[str, Any] = {
        "id": key.id,
        "tenant": key.owner,
        "source": "config" if isinstance(key, Key) else "admin",
    }
    fields |= {
        name: getattr(key, name) for name in ("aliases", "default_alias", "origins", "expires", "enabled")
    }
    fields["limits"] = msgspec.to_builtins(key.limits, enc_hook=json_unit)
    if key.log_content is not None:
        fields["log_content"] = key.log_content
    if isinstance(key, StoredKey):
        fields |= {"last_four": key.last_four, "created": timestamp(key.created)}
        fields["rotated"] = timestamp(key.rotated) if key.rotated is not None else None
        fields["old_key_until"] = timestamp(key.old.until) if key.old is not None else None
    return fields

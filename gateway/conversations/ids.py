"""The id of a conversation: derived, so that it is known before anything is stored and never changes."""

import hmac

SECRET_BYTES = 32


def conversation_id(secret: bytes, tenant: str, session: str) -> str:
    """128 bits as hex, unguessable without the store's `secret` (HMAC-SHA-256, RFC 2104); one per (tenant, session)."""
    name = tenant.encode("utf-8", "surrogatepass")
    message = len(name).to_bytes(8, "big") + name + session.encode("utf-8", "surrogatepass")
    return hmac.digest(secret, message, "sha256")[:16].hex()

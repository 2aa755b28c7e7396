"""Ids of tool calls whose provider gives none, as Ollama does: clients name a call by its id in their next
request."""

import secrets


def new_call_id() -> str:
    """An id that no other call of any conversation has: 29 characters (vendors take 40, and letters, digits,
    - and _)."""
    return f"call_{secrets.token_hex(12)}"

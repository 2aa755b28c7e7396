"""Ids of tool calls whose provider gives none (Ollama): in their next request, clients refer to a call by its
id."""

import secrets


def new_call_id() -> str:
    """Returns an id that no other call of any conversation has: 29 characters (vendors accept 40, and
    letters, digits, - and _)."""
    return f"call_{secrets.token_hex(12)}"

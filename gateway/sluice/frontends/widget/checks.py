"""Checks that the widget's routes share."""

import re
from collections.abc import Sequence

from sluice.errors import BadRequest

NO_SESSION = "must be a string of 1 to 128 letters, digits and . _ : -"
_SESSION = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def is_session(text: str) -> bool:
    """Returns whether this may be a `sessionId`."""
    return _SESSION.fullmatch(text) is not None


def refused(wrong: Sequence[tuple[str, str]]) -> BadRequest:
    """Returns the error for these fields, each with the reason."""
    field, reason = wrong[0]
    details = [{"field": field, "reason": reason} for field, reason in wrong]
    return BadRequest(f"{field}: {reason}", param=field, details=details)

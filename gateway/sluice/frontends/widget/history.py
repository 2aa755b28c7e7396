"""GET /v1/chat/messages: the messages of a session, for a widget that is loaded again.

It contains only what the caller has sent or was shown: no system prompts, and no reasoning that is kept for
providers.
"""

from typing import Any

import msgspec

from sluice.frontends import Inquiry, PastMessage, Reply
from sluice.frontends.widget.checks import NO_SESSION, is_session, refused
from sluice.wire.timestamps import timestamp

FEW, MOST = 50, 200
"""The default and the maximum number of messages."""
_json = msgspec.json.Encoder().encode


async def messages(inquiry: Inquiry) -> Reply:
    """Answers with the last messages of the session `sessionId`, newest last; none for a session without a turn.

    Raises BadRequest, Forbidden, Unavailable.
    """
    query = inquiry.head.query
    session, given = query.get("sessionId", ""), query.get("limit", str(FEW))
    wrong = [] if is_session(session) else [("sessionId", NO_SESSION)]
    limit = int(given) if given.isascii() and given.isdecimal() and len(given) <= len(str(MOST)) else 0
    if not 1 <= limit <= MOST:
        wrong.append(("limit", f"must be a whole number from 1 to {MOST}"))
    if wrong:
        raise refused(wrong)
    history = inquiry.history
    found = await history.messages(session, limit) if history is not None else ()
    body = _json({"sessionId": session, "messages": [_object(message) for message in found]})
    return Reply(body, headers=(("Cache-Control", "no-store"),))


def _object(message: PastMessage) -> dict[str, Any]:
    fields = {"role": message.role, "content": message.content, "createdAt": timestamp(message.created)}
    return {**fields, "interrupted": True} if message.interrupted else fields

"""`GET /api/hello`: what Claude Code asks to see whether anybody is there (and `HEAD /`, which the gateway
answers itself)."""

from sluice.frontends import Inquiry, Reply


async def hello(inquiry: Inquiry) -> Reply:
    return Reply(b'{"message":"hello"}')

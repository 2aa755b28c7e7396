"""`GET /api/hello`, by which Claude Code checks that the server is there (and `HEAD /`, which the gateway
answers itself)."""

from sluice.frontends import Inquiry, Reply


async def hello(inquiry: Inquiry) -> Reply:
    return Reply(b'{"message":"hello"}')

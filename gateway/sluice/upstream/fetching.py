"""Sends single requests of the gateway's own, to token endpoints and metadata servers: a connection for each,
with bounds of time and size."""

import asyncio

from sluice.backends.credentials import CredentialFailed, FetchedAnswer
from sluice.backends.transport import UpstreamRequest
from sluice.errors import UpstreamError
from sluice.upstream.client import HttpTransport

DEADLINE, CONNECT = 10.0, 3.0
"""Seconds for the whole request, and for connecting."""
BODY = 256 << 10
"""Maximum bytes of a response."""


async def fetch(request: UpstreamRequest) -> FetchedAnswer:
    """Returns the whole response to one request. Follows no redirect to another origin, and uses no proxy.
    Raises CredentialFailed, which names the server but nothing that was sent or received.
    """
    try:
        transport = HttpTransport(request.url, max_connections=1)
    except ValueError as error:
        raise CredentialFailed(
            str(error).replace("the upstream's address", "the address of a token endpoint")
        ) from None
    try:
        async with (
            asyncio.timeout(DEADLINE),
            transport.send(request, connect=CONNECT, headers=DEADLINE) as response,
        ):
            body = await response.read(BODY + 1)
            if len(body) > BODY:
                raise CredentialFailed("the answer of a token endpoint is too large")
            return FetchedAnswer(response.status, dict(response.headers), body)
    except TimeoutError:
        raise CredentialFailed(f"a token endpoint did not answer within {DEADLINE:g} s") from None
    except UpstreamError as error:
        raise CredentialFailed(error.detail or error.message) from None
    except ValueError:
        raise CredentialFailed("a request to a token endpoint cannot be written") from None
    finally:
        await transport.close()

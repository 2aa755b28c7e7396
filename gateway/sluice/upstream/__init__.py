"""The gateway's own HTTP/1.1 client: one `HttpTransport` per upstream origin.

    http1       response bytes -> head, body, end, refusal. Pure
    request     UpstreamRequest -> request bytes. Pure
    connection  one socket: feeds the parser, calls the exchange
    exchange    one request and its response: what the pipeline holds
    deadlines   one timer for many waits
    pool        idle connections, and how many there may be
    dial        a new connection: name, TCP, proxy, TLS
    names       the addresses of a name
    tls         whom we believe, who we are; what failures of TLS mean
    proxies     which proxy there is
    socks       SOCKS 5. Pure
    tunnel      through a proxy
    client      the transport that puts them together

    credential_pool   which of several credentials a request takes. Pure
    authorized        a transport that signs each request with one of them
    fetching          single requests of the gateway's own, for tokens

Why not aiohttp's client: its price is 230 to 300 µs per request and a task switch per read (see `make bench`); here the
socket's callback calls the sink itself. aiohttp's stays for everything that is not hot.
"""

from sluice.upstream.client import HttpTransport
from sluice.upstream.pool import IdleConnections

__all__ = ["HttpTransport", "IdleConnections"]

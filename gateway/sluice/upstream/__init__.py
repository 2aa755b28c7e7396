"""The gateway's own HTTP/1.1 client: one `HttpTransport` per upstream origin.

    http1       response bytes -> head, body, end, refusal. Pure
    request     UpstreamRequest -> request bytes. Pure
    connection  one socket: feeds the parser, calls the exchange
    exchange    one request and its response, as the pipeline sees them
    deadlines   one timer for many waits
    pool        idle connections, and bounds on their number
    dial        a new connection: name, TCP, proxy, TLS
    names       the addresses of a name
    tls         verification, client certificates, causes of failures
    proxies     the choice of a proxy
    socks       SOCKS 5. Pure
    tunnel      through a proxy
    client      the transport that puts them together

    credential_pool   which of several credentials a request takes. Pure
    authorized        a transport that signs each request with one of them
    read_response     a response that these have read themselves
    fetching          single requests of the gateway's own, for tokens
    grpc, picked      an endpoint picker's stream, and the transport to the endpoints that it names

Why not aiohttp's client: its price is 230 to 300 µs per request and a task switch per read (see `make
bench`); here the socket's callback calls the sink itself. aiohttp's stays for everything that is not hot.
"""

from sluice.upstream.client import HttpTransport
from sluice.upstream.pool import IdleConnections

__all__ = ["HttpTransport", "IdleConnections"]

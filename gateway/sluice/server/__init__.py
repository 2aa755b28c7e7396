"""The gateway's own HTTP/1.1 server: connections, requests, and how answers get onto a socket.

    http1       request bytes -> heads, bodies, refusals. Pure
    connection  one socket: feeds the parser, runs one request at a time, closes what is slow or broken
    bodies      how long a body may take, and how much of unfinished ones is kept. Pure
    exchange    one request and its answer: what the routes hold
    acceptor    takes connections from the listening socket
    listener    the connections: how many there may be, how long they may be slow, and how they end

Why not aiohttp's server, whose parser, tasks and response objects cost 40 µs more of a request (DECISIONS 24): the grammar
is llhttp's here as there, and an answer is one write. When a client leaves, its handler's task is cancelled at once, and
with it the upstream call; a half-closed client counts as gone.
"""

from sluice.server.acceptor import Acceptor
from sluice.server.listener import Listener

__all__ = ["Acceptor", "Listener"]

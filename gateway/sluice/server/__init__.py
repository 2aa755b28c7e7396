"""The gateway's own HTTP/1.1 server: connections, requests, and responses.

http1       request bytes -> heads, bodies, refusals. Pure
connection  one socket: feeds the parser, runs one request at a time, closes what is slow or broken
bodies      bounds the time of a body, and the memory of incomplete ones. Pure
exchange    one request and its response, as routes see them
acceptor    takes connections from the listening socket
listener    the connections: their number, their deadlines, and their end

aiohttp's server is not used because its parser, tasks and response objects cost 40 µs more per request
(DECISIONS 24). The grammar is llhttp's in both cases, and an answer is one write. When a client leaves, its
handler's task is cancelled at once, and the upstream call with it; a half-closed client counts as gone.
"""

from sluice.server.acceptor import Acceptor
from sluice.server.listener import Listener

__all__ = ["Acceptor", "Listener"]

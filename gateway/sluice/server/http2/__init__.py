"""HTTP/2 on the API's port (RFC 9113), by the library h2, which is sans-io. Imported only where
`server.http2` is on.

    upgrade     HTTP/1.1 or HTTP/2? By what TLS has agreed on (ALPN), or by the first bytes
    connection  one socket: frames to streams and back, bounds against floods, the end
    frames      bounds of frames and heads that are not complete. Pure
    exchange    one stream's request and its response, as routes see them

A stream is treated like a connection of HTTP/1.1: a request, a task and a response. Routes are the same.
"""

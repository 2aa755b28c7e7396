"""HTTP/2 on the API's port (RFC 9113), by the library h2, which is sans-io. Imported only if `server.http2`
is on.

upgrade     chooses HTTP/1.1 or HTTP/2: by what TLS has agreed on (ALPN), or by the first bytes
connection  one socket: frames to streams and back, the end of streams
floods      bounds against floods of frames, resets and small windows. Pure
frames      bounds of incomplete frames and heads. Pure
exchange    one stream's request and its response, as routes see them

A stream is treated like a connection of HTTP/1.1: a request, a task and a response. The routes are the same.
"""

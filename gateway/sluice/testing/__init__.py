"""A gateway for the tests of other projects: real sockets, a model that echoes, an upstream that follows a
script.

    with gateway() as gw:
        gw.upstream.fails(429, "Slow down")
        OpenAI(base_url=gw.url + "/v1", api_key=gw.key).chat.completions.create(model="scripted", ...)

It runs in a thread of its own, so tests may block or be asynchronous (`async with`). See docs/testing.md.
"""

from sluice.testing.gateway import RunningGateway, gateway
from sluice.testing.upstream import ScriptedUpstream

__all__ = ["RunningGateway", "ScriptedUpstream", "gateway"]

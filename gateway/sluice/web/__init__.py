"""The gateway as an `aiohttp.web.Application`: to run, to mount under a prefix, to test with pytest-aiohttp.

    web.run_app(application("gateway.yaml"))
    app.add_subapp("/llm/", application({"upstreams": ..., "aliases": ...}))

It does not change the process's logging, signals or garbage collector: log lines go to the logger "sluice".
docs/embedding.md describes how it differs from `sluice serve`, which does not import this package.
"""

from sluice.web.application import admin, application

__all__ = ["admin", "application"]

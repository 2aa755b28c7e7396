"""The gateway as an `aiohttp.web.Application`: to run, to mount under a prefix, to test by pytest-aiohttp.

    web.run_app(application("gateway.yaml"))
    app.add_subapp("/llm/", application({"upstreams": ..., "aliases": ...}))

It leaves the process's logging, signals and collector alone: log lines go to the logger "sluice".
docs/embedding.md says how it differs from `sluice serve`, which does not import this package.
"""

from sluice.web.application import admin, application

__all__ = ["admin", "application"]

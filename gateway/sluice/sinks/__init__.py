"""Sends the records of finished calls to files, webhooks, object stores and OTLP receivers (docs/logs.md).
Imported only if `records` are configured.

A call never waits for this, and no failure of a sink affects it. A record is a draft in memory (`recorder`).
A task for each sink (`spool`) makes lines of drafts and sends them in batches; a batch that the sink does not
accept is stored on disk (`spill`) until it does.
"""

"""Records of calls that are over, brought to files, webhooks, object stores and OTLP receivers
(docs/logs.md).

Imported only where `records` are configured. A call is never kept waiting, and no failure of a sink reaches
it: a record is a draft in memory (`recorder`), made into a line and sent in batches by a task of each sink
(`spool`), and where the sink does not take a batch it is put on disk (`spill`) until it does.
"""

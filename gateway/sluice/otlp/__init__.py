"""Brings requests of OTLP (https://opentelemetry.io/docs/specs/otlp/) to a receiver, over HTTP or gRPC.

What is in them is made elsewhere: spans and log records by `sluice.tracing.otlp`, metrics by
`sluice.telemetry.points`. Imported only where something is sent.
"""

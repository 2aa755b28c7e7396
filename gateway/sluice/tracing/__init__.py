"""Traces of calls: W3C trace contexts in and out, spans by OpenTelemetry's conventions, sent by OTLP.

While a call runs only its ids are made: spans are made from what is known of the call when it has ended.
Imported only if `tracing` is configured.
"""

"""Traces of calls: W3C trace contexts in and out, spans by OpenTelemetry's conventions, sent by OTLP.

Nothing is traced while a call runs but its ids: spans are made of what is known of it when it is over.
Imported only where `tracing` is configured.
"""

"""The formats of a scrape, and which one a scraper asks for. Pure.

https://prometheus.io/docs/instrumenting/exposition_formats/ and
https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md
"""

from typing import Literal

Scraped = Literal["text", "openmetrics", "protobuf"]
Format = Literal[Scraped, "otlp"]
"""`otlp`: the format of pushes, fields of OTLP's ScopeMetrics."""
CONTENT_TYPES: dict[Scraped, str] = {
    "text": "text/plain; version=0.0.4; charset=utf-8",
    "openmetrics": "application/openmetrics-text; version=1.0.0; charset=utf-8",
    "protobuf": "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited",
}
_PROTO = {"proto": "io.prometheus.client.metricfamily", "encoding": "delimited"}
_MAX_ACCEPT_LENGTH = 4096
"""Maximum characters of an Accept header that are parsed."""


def format_of(accept: str) -> Scraped:
    """Returns the format that this Accept header (RFC 9110, 12.5.1) prefers; of equal ones the first; else
    the text format."""
    found: Scraped = "text"
    best = 0.0
    for offer in accept[:_MAX_ACCEPT_LENGTH].split(","):
        kind, *given = (part.strip().lower() for part in offer.split(";"))
        parameters = {
            name.strip(): value.strip(' "') for name, _, value in (part.partition("=") for part in given)
        }
        named = _named(kind, parameters)
        quality = _quality(parameters.get("q", "1"))
        if named is not None and quality > best:
            found, best = named, quality
    return found


def _named(kind: str, parameters: dict[str, str]) -> Scraped | None:
    match kind:
        case "application/vnd.google.protobuf" if _PROTO.items() <= parameters.items():
            return "protobuf"
        case "application/openmetrics-text" if parameters.get("version", "1.0.0") == "1.0.0":
            return "openmetrics"
        case "text/plain" if parameters.get("version", "0.0.4") == "0.0.4":
            return "text"
        case "*/*" | "text/*":
            return "text"
        case _:
            return None


def _quality(value: str) -> float:
    try:
        return min(1.0, max(0.0, float(value)))
    except ValueError:
        return 0.0

"""Checks OTLP receivers of traces, metrics and call records."""

from collections.abc import Callable
from importlib.util import find_spec
from urllib.parse import urlsplit

from sluice.config.checks.records import check_url
from sluice.config.problems import Path
from sluice.config.types import MetricsPush, RecordOtlp, Tracing

_OF_THE_PROTOCOL = frozenset(
    {"connection", "content-length", "content-type", "host", "te", "transfer-encoding", "user-agent"}
)


def check_receiver(
    problem: Callable[[Path, str], object], path: Path, receiver: MetricsPush | RecordOtlp | Tracing
) -> None:
    """Checks one receiver, and options that do not work over gRPC."""
    endpoint = receiver.endpoint
    check_url(endpoint, (*path, "endpoint"), problem)
    if receiver.protocol != "grpc":
        return
    if find_spec("h2") is None:
        text = "gRPC needs h2, which is not installed: pip install 'sluice-gateway[otel]'"
        problem((*path, "protocol"), text)
    if isinstance(endpoint, str) and _has_path(endpoint):
        problem((*path, "endpoint"), "gRPC has no path: expected an address such as http://collector:4317")
    for name in receiver.headers if isinstance(receiver.headers, dict) else ():
        lower = name.lower()
        if lower in _OF_THE_PROTOCOL or lower.startswith(("grpc-", ":")) or lower.endswith("-bin"):
            problem((*path, "headers", name), "gRPC has its own meaning for this header: leave it out")


def _has_path(endpoint: str) -> bool:
    try:
        url = urlsplit(endpoint)
    except ValueError:
        return False
    return bool(url.netloc) and url.path not in ("", "/")

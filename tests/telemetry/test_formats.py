"""Which format a scraper gets is the one that it prefers of those that there are."""

import pytest

from sluice.telemetry.formats import format_of

PROTOBUF = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
OPENMETRICS = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75"
TEXT = "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"


@pytest.mark.parametrize(
    ("accept", "format"),
    [
        ("", "text"),
        ("*/*", "text"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "text"),
        (f"{OPENMETRICS},{TEXT}", "openmetrics"),
        (f"{PROTOBUF},{OPENMETRICS},{TEXT}", "protobuf"),
        (
            f"{PROTOBUF};q=0.6,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,*/*;q=0.2",
            "protobuf",
        ),
        (f"{PROTOBUF};q=0.1,text/plain", "text"),
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", "openmetrics"),
        ("application/openmetrics-text;version=0.0.1", "text"),
        ("application/openmetrics-text;version=2.0.0,text/plain;q=0.1", "text"),
        ("application/openmetrics-text;q=0", "text"),
        ("application/openmetrics-text;q=odd", "text"),
        ("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text", "text"),
        (
            'Application/Vnd.Google.Protobuf; PROTO="io.prometheus.client.MetricFamily" ; encoding = delimited',
            "protobuf",
        ),
        (";;,=;,", "text"),
    ],
)
def test_the_format_that_is_preferred(accept: str, format: str) -> None:
    assert format_of(accept) == format


def test_a_long_header_costs_no_more_than_a_short_one() -> None:
    assert format_of("a/b," * 1_000_000 + PROTOBUF) == "text"

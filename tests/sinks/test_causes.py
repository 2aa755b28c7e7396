"""The words by which metrics say why a sink does not take records."""

import os
from errno import ENOSPC

import pytest

from sluice.sinks.causes import CAUSES, cause_of


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("status 401", "auth"), ("status 404", "not_found"), ("status 413", "too_large"), ("status 429", "busy"),
        ("status 503", "busy"), ("status 500", "server_error"), ("status 302", "rejected"), ("status 422", "rejected"),
        ("gRPC status UNAUTHENTICATED", "auth"), ("gRPC status INVALID_ARGUMENT", "rejected"),
        ("TimeoutError", "timeout"), ("ClientConnectorError", "connection"), ("ClientConnectorCertificateError", "tls"),
        (os.strerror(ENOSPC), "disk"), ("AUTHENTICATION", "auth"), ("MSG_SIZE_TOO_LARGE", "too_large"),
        ("UNKNOWN_TOPIC_OR_PART", "not_found"), ("ZeroDivisionError", "other"), ("status what", "other"), ("", "other"),
        ("status \u00b2", "other"),
    ],
)  # fmt: skip
def test_each_reason_has_one_of_a_few_words(reason: str, expected: str) -> None:
    assert cause_of(reason) == expected
    assert expected in CAUSES

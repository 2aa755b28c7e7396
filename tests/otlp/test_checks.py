"""What is wrong with a receiver's options is found before anything is sent; what is off is not imported."""

import subprocess
import sys

import pytest

from sluice.config.checks.otlp import check_receiver
from sluice.config.types import HeaderValue, Tracing


def problems(endpoint: str, protocol: str = "grpc", **headers: str) -> list[str]:
    found: list[str] = []
    values = {name.replace("_", "-"): HeaderValue(value) for name, value in headers.items()}
    receiver = Tracing(endpoint=endpoint, protocol=protocol, headers=values)  # type: ignore[arg-type]
    check_receiver(lambda path, text: found.append(".".join(map(str, path))), ("tracing",), receiver)
    return found


@pytest.mark.parametrize(
    ("endpoint", "protocol", "headers", "expected"),
    [
        ("http://collector:4317", "grpc", {"authorization": "x", "x_tenant": "a"}, []),
        ("https://collector", "grpc", {}, []),
        ("http://collector:4318/prefix", "http", {"content_type": "x"}, []),
        ("collector:4317", "grpc", {}, ["tracing.endpoint"]),
        ("grpc://collector:4317", "grpc", {}, ["tracing.endpoint"]),
        ("http://user:secret@collector:4317", "http", {}, ["tracing.endpoint"]),
        ("http://collector:4317/v1/traces", "grpc", {}, ["tracing.endpoint"]),
        ("http://c:4317", "grpc", {"TE": "x", "grpc_timeout": "1S", "key_bin": "x"},
         ["tracing.headers.TE", "tracing.headers.grpc-timeout", "tracing.headers.key-bin"]),
    ],
)  # fmt: skip
def test_what_grpc_cannot_carry_is_a_problem(
    endpoint: str, protocol: str, headers: dict[str, str], expected: list[str]
) -> None:
    assert problems(endpoint, protocol, **headers) == expected


@pytest.mark.parametrize(
    ("protocol", "absent"), [("http", ["h2", "sluice.upstream.grpc"]), ("grpc", ["aiohttp", "sluice.otlp.http"])]
)  # fmt: skip
def test_only_the_configured_protocol_is_imported(protocol: str, absent: list[str]) -> None:
    program = f"""
import sys
from sluice.config.types import Tracing
from sluice.otlp.client import receiver_of
from sluice.otlp.receiver import TRACES
receiver_of(Tracing(endpoint="http://c:4317", protocol={protocol!r}), TRACES, 1.0)
print([name for name in {absent!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n", done.stdout


def test_a_gateway_without_receivers_imports_nothing_of_this() -> None:
    program = "import sys, sluice.runtime.snapshot; print([name for name in sys.modules if name.startswith('sluice.otlp')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n", done.stdout

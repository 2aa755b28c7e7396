"""A program that prints a token."""

import json
import sys
from pathlib import Path

import pytest

from sluice.backends.credentials import CredentialFailed
from sluice.config.types import Seconds
from sluice_plugins.anthropic.backend import Anthropic
from sluice_plugins.credentials.exec import Exec
from sluice_plugins.openai.backend import OpenAI
from tests.plugins.credentials.settings import REQUEST, World


def printing(text: str, more: str = "") -> Exec:
    return Exec(command=(sys.executable, "-c", f"print({text!r})\n{more}"))


async def fetched(kind: Exec) -> tuple[str, float | None]:
    fresh = await kind._run()
    return fresh.value, fresh.expires


@pytest.mark.parametrize(
    ("moment", "seconds"),
    [
        (None, None),
        (1_900_000_000, 1_900_000_000.0),
        ("2027-01-15T09:00:00Z", 1_800_003_600.0),
        ("2027-01-15T10:00:00+01:00", 1_800_003_600.0),
        ("2027-01-15T09:00:00", 1_800_003_600.0),
    ],
)
async def test_what_is_printed_is_the_token_and_its_end(
    moment: str | float | None, seconds: float | None
) -> None:
    assert await fetched(printing(json.dumps({"token": "t-1", "expires_at": moment, "more": []}))) == (
        "t-1",
        seconds,
    )


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (printing("secret words"), "did not print"),
        (printing('{"token": 1}'), "did not print"),
        (printing('{"token": "a\\u0001b"}'), "did not print"),
        (printing('{"token": "t", "expires_at": "soon"}'), "did not print"),
        (printing("secret", "raise SystemExit(3)"), "ended with 3"),
        (printing("secret", "print('x' * 100_000)"), "printed too much"),
        (Exec(command=("/nowhere/program",)), "cannot run /nowhere/program: no such file"),
    ],
)
async def test_what_goes_wrong_is_said_without_the_output(kind: Exec, why: str) -> None:
    with pytest.raises(CredentialFailed) as raised:
        await fetched(kind)
    assert why in str(raised.value)
    assert "secret" not in str(raised.value)


async def test_one_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    """The shell's child holds the output open, so this would hang if it were left alive."""
    mark = tmp_path / "mark"
    script = f"import subprocess, time; subprocess.Popen(['sleep', '600']); open({str(mark)!r}, 'w').close(); time.sleep(600)"
    with pytest.raises(CredentialFailed, match=r"did not end within 0\.2 s"):
        await fetched(Exec(command=(sys.executable, "-S", "-c", script), timeout=Seconds(0.2)))


async def test_arguments_are_read_by_no_shell() -> None:
    script = "import json, sys; print(json.dumps({'token': sys.argv[1]}))"
    assert await fetched(Exec(command=(sys.executable, "-c", script, "$(id);|x"))) == ("$(id);|x", None)


async def test_a_token_is_sent_as_the_backend_sends_keys() -> None:
    for backend, line in ((OpenAI(), b"authorization: Bearer t\r\n"), (Anthropic(), b"x-api-key: t\r\n")):
        credential = printing('{"token": "t"}').open(World(backend=backend).setting)
        await credential.ready()
        assert credential.sign_now(REQUEST) == line
        await credential.close()


def test_check_says_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="command needs a program"):
        Exec(command=())
    with pytest.raises(ValueError, match="timeout must be more than 0"):
        Exec(command=("true",), timeout=Seconds(0))
    with pytest.raises(ValueError, match="no-such-program cannot be run"):
        Exec(command=("no-such-program",)).check(OpenAI(), {"PATH": "/usr/bin:/bin"})
    Exec(command=("sh",)).check(OpenAI(), {"PATH": "/usr/bin:/bin"})

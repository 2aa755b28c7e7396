"""`credentials` of upstreams: what `check` says, and what is made of them."""

from pathlib import Path

import pytest

from sluice.config.loader import check
from sluice_plugins.openai.backend import OpenAI
from tests.config.test_problems import DIGEST, find

FILE = f"""\
upstreams:
  main: {{backend: openai, base_url: http://x/v1, credentials: CREDENTIALS}}
aliases:
  fast:
    tiers: [[{{upstream: main, model: m}}]]
keys:
  - {{id: a, digest: "{DIGEST}"}}
"""


def checked(tmp_path: Path, credentials: str, *, blind: bool = False, backend: str = "openai"):  # type: ignore[no-untyped-def]
    file = tmp_path / "gateway.yaml"
    file.write_text(
        FILE.replace("CREDENTIALS", credentials).replace("backend: openai", f"backend: {backend}")
    )
    names = {"openai": OpenAI}
    return check(
        str(file), environ={"KEY": "sk-env"}, find=lambda name: names.get(name) or find(name), blind=blind
    )


def said(tmp_path: Path, credentials: str, **options: str) -> list[str]:
    prefix = f"{tmp_path}/gateway.yaml:2:"
    return [
        str(problem).removeprefix(prefix) for problem in checked(tmp_path, credentials, **options).problems
    ]


@pytest.mark.parametrize(
    ("credentials", "problem"),
    [
        ("{api_key: k, haeder: x}", 'unknown key "haeder"; did you mean "header"?'),
        ("{}", 'missing key "api_key"'),
        ("{kind: file}", 'missing key "path"'),
        ("{kind: fil, path: x}", 'no credentials of the kind "fil"; installed:'),
        ("{kind: file, path: /nowhere/key}", "cannot read /nowhere/key: no such file or directory"),
        ("{api_key: $NAME}", "is a placeholder"),
        ('{api_key: "${NOPE}"}', "environment variable NOPE is not set"),
        ("{api_key: k, header: 'a b'}", "not a header name"),
        ("[]", "needs at least one"),
        ("[{api_key: a, weight: 0}, {api_key: b, weight: 0}]", "every credential has weight 0"),
        ("[{api_key: a, weight: -1}]", "must be at least 0"),
        (
            "[{api_key: a, name: x}, {api_key: b, name: x}]",
            'another credential of this upstream is called "x"',
        ),
        ("[{api_key: a, name: '2'}, {api_key: b}]", 'another credential of this upstream is called "2"'),
        ("[{api_key: a, name: 'a b'}]", "expected a name"),
        ("{api_key: a}, api_key: b", "stands beside api_key"),
        ("sk-key", "expected a section"),
    ],
)
def test_says_what_is_wrong(tmp_path: Path, credentials: str, problem: str) -> None:
    found = said(tmp_path, credentials)
    assert len(found) == 1, found
    assert problem in found[0]


def test_a_kind_that_does_not_fit_the_backend_is_named_with_those_that_do(tmp_path: Path) -> None:
    found = said(tmp_path, "{api_key: k}", backend="fake")
    assert len(found) == 1
    assert (
        'credentials.kind: "static" is no kind of credentials for the backend "fake": it takes none'
        in found[0]
    )


def test_what_cannot_be_looked_up_is_not_judged(tmp_path: Path) -> None:
    assert (
        checked(tmp_path, '[{api_key: "${NOPE}"}, {kind: file, path: /nowhere/key}]', blind=True).problems
        == ()
    )


def test_what_is_good_is_made_with_names_and_weights(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-file")
    several = f'[{{api_key: "${{KEY}}", weight: 3}}, {{kind: file, path: {tmp_path}/key, name: second}}]'
    outcome = checked(tmp_path, several)
    assert [str(problem) for problem in (*outcome.problems, *outcome.warnings)] == []
    made = outcome.loaded.credentials["main"]
    assert [(credential.name, credential.weight, type(credential.kind).__name__) for credential in made] == [
        ("1", 3.0, "Static"),
        ("second", 1.0, "File"),
    ]
    assert "sk-env" not in repr(made) + repr(outcome.loaded.config)
    assert checked(tmp_path, "{api_key: k, name: only}").loaded.credentials["main"][0].name == "only"

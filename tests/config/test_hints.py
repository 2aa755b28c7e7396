"""Mistakes that people really make, and what `check` says to write; and that nothing in a file can make it
fail."""

import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from sluice.cli import cli
from sluice.config.loader import check

DIGEST = "sha256:" + "a" * 64
DEVELOPMENT = "sha256:f54ca937b7efefe972b761a7b8dc7dd477c073770dec53b33fe59a66f6ef9a9f"
GOOD = f"""\
server: {{ listen: "127.0.0.1:8080" }}
upstreams:
  main: {{ backend: openai, api_key: "k" }}
aliases:
  fast:
    tiers: [[{{ upstream: main, model: m }}]]
keys:
  - {{ id: a, digest: "{DIGEST}" }}
"""
ROOT = Path(__file__).parents[2]


def problems(tmp_path: Path, text: str, **environ: str) -> str:
    file = tmp_path / "gateway.yaml"
    file.write_text(text)
    return "\n".join(str(problem) for problem in check(str(file), environ=environ).problems)


def warnings(tmp_path: Path, text: str) -> str:
    file = tmp_path / "gateway.yaml"
    file.write_text(text)
    return "\n".join(str(warning) for warning in check(str(file), environ={}).warnings)


KEY = f'{{ id: a, digest: "{DIGEST}" }}'
MISTAKES: dict[str, tuple[str, str, str]] = {
    "a bare number of requests": (
        KEY,
        KEY[:-1] + ", limits: { requests: 10 } }",
        "{ rate: 10/s, burst: 20 }",
    ),
    "requests in words": (
        KEY,
        KEY[:-1] + ', limits: { requests: "10 per second" } }',
        "{ rate: 10/s, burst: 20 }",
    ),
    "a rate in words": (KEY, KEY[:-1] + ', limits: { requests: { rate: "10 per second" } } }', "write 10/s"),
    "a rate in other words": (
        KEY,
        KEY[:-1] + ', limits: { requests: { rate: "500 per minutes" } } }',
        "write 500/min",
    ),
    "flat tiers": (
        "[[{ upstream: main, model: m }]]",
        "[{ upstream: main, model: m }]",
        "tiers: [[{ upstream: NAME, model: NAME }]]",
    ),
    "a target for tiers": ("[[{ upstream: main, model: m }]]", "{ upstream: main, model: m }", "list"),
    "a reference in braces": ('"k"', "${X}", 'write "${NAME}" in quotes'),
    "tabs": ("  main:", "\tmain:", "indent with spaces"),
    "tabs behind a key": ("    tiers:", "\t  tiers:", "indent with spaces"),
    "a bare port": ('"127.0.0.1:8080"', "8080", 'such as "127.0.0.1:8080"'),
    "fallbacks": ("    tiers:", "    fallbacks: [other]\n    tiers:", "tiers: [[FIRST], [SECOND]]"),
    "LiteLLM's list": ("upstreams:", "model_list: []\nupstreams:", "that is LiteLLM's"),
    "LiteLLM's settings": ("upstreams:", "litellm_settings: {}\nupstreams:", "that is LiteLLM's"),
    "a key in plain": (KEY, "{ id: a, key: sk-1 }", "`sluice keys hash`"),
    "a single alias of a key": (KEY, KEY[:-1] + ", aliases: fast }", "put it in [ ]"),
    "a name for aliases": (
        "  fast:\n    tiers: [[{ upstream: main, model: m }]]",
        "  chat",
        "{ NAME: { tiers:",
    ),
    "an address by another name": ('api_key: "k"', 'api_base: "https://x/v1"', "write base_url"),
    "milliseconds without a unit": (
        'api_key: "k"',
        "timeouts: { first_token: 30000 }",
        "write 30000ms or 30000s",
    ),
    "a secret of digits": ('"k"', "12345", "put it in quotes"),
    "a secret in quotes": ('"k"', "\"'k'\"", "take them off"),
    "a space in an address": ('api_key: "k"', 'base_url: "https://x /v1"', "spaces"),
    "a port beyond the range": ('api_key: "k"', 'base_url: "https://x:99999/v1"', "65535"),
    "a port of nobody": ('api_key: "k"', 'base_url: "https://x:0/v1"', "from 1 to 65535"),
    "an IPv6 address without its bracket": (
        'api_key: "k"',
        'base_url: "https://[::1/v1"',
        "https://[::1]:8080/v1",
    ),
    "a key that is a shell's reference": ('"k"', "$OPENAI_API_KEY", 'write "${NAME}"'),
    "a key that Helm has not filled in": ('"k"', "'{{ .Values.key }}'", 'write "${NAME}"'),
    "a key that nobody has filled in": ('"k"', "<your key>", 'write "${NAME}"'),
    "a key with its scheme": ('"k"', "Bearer sk-1", "write what follows it"),
    "a key in a letter's quotes": ('"k"', "\u201csk-1\u201d", "take them off"),
    "a key with what cannot be seen": ('"k"', "sk-1\u200b", "cannot be seen"),
    "a key that no header can carry": ('"k"', "sk-1\u20ac", "cannot be sent"),
    "a key copied from documentation": ('"k"', "sk-…", "cannot be sent (…): put the real value in place"),
    "a header's name from an option": (
        'api_key: "k"',
        'api_key: "k", organization: "\u20ac"',
        "cannot be sent",
    ),
    "a letter in an address's path": ('api_key: "k"', 'base_url: "https://x/\u00fc"', "must be escaped"),
    "the development key for everybody": (
        '"127.0.0.1:8080" }\nupstreams',
        f'":8080" }}\nadmin: {{ digest: "{DEVELOPMENT}" }}\nupstreams',
        "the development key",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_answered_with_what_to_write(mistake: str, tmp_path: Path) -> None:
    old, new, wanted = MISTAKES[mistake]
    assert old in GOOD
    assert problems(tmp_path, GOOD) == ""
    found = problems(tmp_path, GOOD.replace(old, new))
    assert wanted in found
    assert "sk-1" not in found


@pytest.mark.parametrize(
    "host",
    ["h..x", "a" * 64 + ".com", "h%00", "-h", "h-", "256.1.1.1", "1.2.3", "1.2.3.4.5", ".", "x." * 130],
)
def test_a_host_that_nobody_can_look_up_is_found_by_the_check(host: str, tmp_path: Path) -> None:
    assert "no valid host name" in problems(
        tmp_path, GOOD.replace('api_key: "k"', f'base_url: "https://{host}/v1"')
    )


@pytest.mark.parametrize(
    "host",
    [
        "h",
        "my_host.internal",
        "xn--bcher-kva.example",
        "b\u00fccher.example",
        "a.b.",
        "10.0.0.1",
        "[::1]",
        "0x",
    ],
)
def test_hosts_that_there_are_may_be_used(host: str, tmp_path: Path) -> None:
    assert problems(tmp_path, GOOD.replace('api_key: "k"', f'base_url: "https://{host}/v1"')) == ""


@pytest.mark.parametrize("value", ["\ufeffzz9", '"zz9"', "'zz9'", " zz9", "zz9 "])
def test_a_secret_that_was_saved_with_more_than_itself_is_found(value: str, tmp_path: Path) -> None:
    found = problems(tmp_path, GOOD.replace('"k"', '"${X}"'), X=value)
    assert "upstreams.main.api_key" in found
    assert "zz9" not in found


def test_a_secret_of_digits_from_the_environment_is_text(tmp_path: Path) -> None:
    assert problems(tmp_path, GOOD.replace('"k"', '"${X}"'), X="12345") == ""


def test_surrogate_pairs_as_json_writes_them_are_characters(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(GOOD.replace("    tiers", '    system: "\\ud83d\\ude00"\n    tiers'))
    loaded = check(str(file)).loaded
    assert loaded is not None
    assert loaded.config.aliases["fast"].system == "\U0001f600"
    assert "Unicode" in problems(tmp_path, GOOD.replace("    tiers", '    system: "\\ud83d"\n    tiers'))


def test_the_development_key_may_be_used_on_loopback_only(tmp_path: Path) -> None:
    text = GOOD.replace(DIGEST, DEVELOPMENT)
    for listen in ("127.0.0.1:8080", "localhost:8080", "[::1]:8080", "127.8.8.8:1"):
        assert problems(tmp_path, text.replace("127.0.0.1:8080", listen)) == ""
    for listen in (":8080", "0.0.0.0:8080", "[::]:8080", "10.0.0.1:8080"):
        assert "the development key" in problems(tmp_path, text.replace("127.0.0.1:8080", listen))


def test_a_tenant_that_no_key_has_is_named(tmp_path: Path) -> None:
    text = GOOD.replace(KEY, KEY[:-1] + ", tenant: acme }") + "tenants: { amce: {}, acme: {} }\n"
    assert 'tenants.amce: no key has this tenant; did you mean "acme"?' in warnings(tmp_path, text)
    assert "tenants.acme" not in warnings(tmp_path, text)


def test_without_the_environment_only_what_depends_on_it_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(
        GOOD.replace('"k"', '"${NOT_SET}"').replace(
            "upstreams:", "limits: { store: '${URL}' }\nresume: '${file:/no/such}'\nupstreams:"
        )
    )
    assert "not set" in CliRunner().invoke(cli, ["check", str(file)]).output
    done = CliRunner().invoke(cli, ["check", "--no-env", str(file)])
    assert (done.exit_code, done.output) == (0, f"{file}: ok\n")
    file.write_text(file.read_text().replace("model: m", "modell: m"))
    done = CliRunner().invoke(cli, ["check", "--no-env", str(file)])
    assert done.exit_code == 1
    assert "modell" in done.output


JUNK: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    10**30,
    1.5,
    "",
    "x",
    "${X}",
    "2s",
    [],
    ["x"],
    [[]],
    {},
    {"x": 1},
    [{"x": [None]}],
)


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    below = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(place for key, child in below for place in places(child, (*path, key)))]


def replaced(node: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copy = dict(node) if isinstance(node, dict) else list(node)
    copy[path[0]] = replaced(node[path[0]], path[1:], value)
    return copy


def test_no_value_anywhere_makes_check_fail(tmp_path: Path) -> None:
    """Every third place of the example that shows all options, with junk in its stead; then three places at
    once."""
    example = yaml.load((ROOT / "config" / "gateway.example.yaml").read_text(), yaml.CSafeLoader)
    example["server"]["workers"] = 2
    file = tmp_path / "gateway.yaml"
    environ = {name: "x" * 40 for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "X")}
    chance = random.Random(1)
    every = places(example)
    trials = [((place, chance.choice(JUNK)),) for place in every[::3]]
    trials += [tuple((chance.choice(every), chance.choice(JUNK)) for _ in range(3)) for _ in range(50)]
    for trial in trials:
        tree = example
        for place, junk in trial:
            try:
                tree = replaced(tree, place, junk)
            except (KeyError, IndexError, TypeError):
                continue  # an earlier one has taken its place
        file.write_text(yaml.dump(tree, Dumper=yaml.CSafeDumper, allow_unicode=True))
        check(str(file), environ=environ)

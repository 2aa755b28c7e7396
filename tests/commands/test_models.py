"""`sluice models list` and `sluice models update`: what is printed, what is written, and what is refused."""

import json
import os
from pathlib import Path

import pytest

from sluice.config.loader import load
from sluice.config.rule_file import bundled_place, bundled_table, read_table, table_of
from sluice.errors import ConfigError
from sluice.model.facts import NOTHING, Facts, common, facts_of
from sluice.runtime.routes import rules_for
from tests.e2e.gateways import HEAD
from tests.test_cli import sluice

OLD = """
updated: 2026-01-01
rules:
  - { backend: openai, model: "^a$", drop: [seed], source: x, date: 2026-01-01 }
models:
  - { names: [a, b], context: 1000, source: x, date: 2026-01-01 }
"""
NEW = """
updated: 2026-02-01
rules:
  - { backend: openai, model: "^a$", drop: [seed, stop], source: x, date: 2026-02-01 }
models:
  - { names: [a], context: 2000, output: 10, input: [text, image], source: x, date: 2026-02-01 }
  - { names: [c], context: 1000, source: x, date: 2026-02-01 }
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "new.yaml").write_text(NEW)
    path = tmp_path / "models.yaml"
    path.write_text(OLD)
    return path


def test_an_update_says_what_changes_and_keeps_the_mode(table: Path) -> None:
    table.chmod(0o640)
    done = sluice("models", "update", str(table.parent / "new.yaml"), "--to", str(table))
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        '- rule {"backend":"openai","model":"^a$","drop":["seed"]}',
        '+ rule {"backend":"openai","model":"^a$","drop":["seed","stop"]}',
        "~ model a: context 1000, output ?, text -> text -> context 2000, output 10, text+image -> text",
        "- model b",
        "+ model c: context 1000, output ?, text -> text",
    ]
    assert table.read_text() == NEW
    assert table.stat().st_mode & 0o777 == 0o640
    assert sorted(os.listdir(table.parent)) == ["models.yaml", "new.yaml"]


def test_a_trial_writes_nothing(table: Path) -> None:
    done = sluice("models", "update", str(table.parent / "new.yaml"), "--to", str(table), "--dry-run")
    assert (done.returncode, table.read_text()) == (0, OLD)
    assert "5 changes, not written" in done.stderr


def test_an_older_table_needs_force(table: Path) -> None:
    new = table.parent / "new.yaml"
    refused = sluice("models", "update", str(table), "--to", str(new))
    assert (refused.returncode, new.read_text()) == (1, NEW)
    assert "--force" in refused.stderr
    assert sluice("models", "update", str(table), "--to", str(new), "--force").returncode == 0
    assert new.read_text() == OLD


BROKEN = [
    ("rules: []", "updated"), ("updated: today\nrules: []", "expected a date"),
    ("updated: 2026-01-01\nrules: []\nmodels: [{names: [a], source: x, date: 2026-01-01, contxt: 1}]", "contxt"),
    ("updated: 2026-01-01\nrules: []\nmodels: [{names: [a, a], source: x, date: 2026-01-01}]", "a is there twice"),
    ("updated: 2026-01-01\nrules: [{model: '(', source: x, date: 2026-01-01}]", "rules[0].model: is no regular expression"),
    ("updated: 2026-01-01\nrules: []\nmodels: [{names: [a], source: x, date: 2026-01-01, input: [smell]}]", "smell"),
    ("updated: 2026-01-01\nrules: []\nmodels: [{names: [a], source: x, date: 2026-01-01, context: -1}]", ">= 1"),
    ("a: [", "file"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "reason"), BROKEN)
def test_what_is_no_table_is_refused_with_its_place(text: str, reason: str) -> None:
    with pytest.raises(ConfigError) as refused:
        table_of(text.encode(), "file")
    [problem] = refused.value.problems
    assert problem.startswith("file")
    assert reason in problem


def test_a_broken_table_takes_no_place(table: Path) -> None:
    broken = table.parent / "broken.yaml"
    broken.write_text("updated: 2027-01-01\nrules: {}")
    done = sluice("models", "update", str(broken), "--to", str(table))
    assert (done.returncode, table.read_text()) == (1, OLD)
    assert "Traceback" not in done.stderr


def test_the_list() -> None:
    done = sluice("models", "list", "gpt-5")
    assert done.returncode == 0
    assert any(line.startswith("gpt-5 ") and "context 400000" in line for line in done.stdout.splitlines())
    told = json.loads(sluice("models", "list", "claude-opus-4-5", "--json").stdout)
    assert told["models"]["claude-opus-4-5"]["context"] == 200000
    assert told["updated"] == bundled_table().updated


def test_the_table_that_comes_along_is_sound() -> None:
    assert bundled_table().models == read_table(bundled_place()).models
    assert bundled_table().rules == read_table(bundled_place()).rules
    assert len(bundled_table().models) > 150


@pytest.mark.parametrize("model", [
    "gpt-5-mini", "gpt-5-mini-2025-08-07", "openai/gpt-5-mini", "models/gpt-5-mini", "openai.gpt-5-mini-v1:0",
])  # fmt: skip
def test_names_that_a_model_goes_by(model: str) -> None:
    assert facts_of(bundled_table().models, model).context == 400000


@pytest.mark.parametrize("model", [
    "eu.anthropic.claude-sonnet-4-5-20250929-v1:0", "anthropic.claude-sonnet-4-5-20250929-v1:0", "claude-sonnet-4-5@20250929",
    "arn:aws:bedrock:eu-central-1:1:inference-profile/eu.anthropic.claude-sonnet-4-5-20250929-v1:0",
])  # fmt: skip
def test_names_of_claude_on_platforms(model: str) -> None:
    assert facts_of(bundled_table().models, model).output == 64000


def test_what_is_unknown_is_nothing() -> None:
    assert facts_of(bundled_table().models, "my-model") is NOTHING
    assert common([Facts(10, 5, ("text", "image")), Facts(20, 0, ("image",))]) == Facts(10, 0, ("image",))


def test_the_configuration_may_name_a_table(table: Path) -> None:
    config = f"""{HEAD}
models: {{file: "{table}"}}
upstreams: {{one: {{backend: openai, base_url: "http://127.0.0.1:1/v1"}}}}
aliases: {{chat: {{tiers: [[{{upstream: one, model: a}}]]}}}}
"""
    path = table.parent / "gateway.yaml"
    path.write_text(config)
    loaded = load(str(path))
    assert loaded.models is not None
    [[target]] = loaded.config.aliases["chat"].tiers  # type: ignore[misc]
    rules = rules_for(loaded.models, target, loaded.config.upstreams["one"], loaded.backends["one"])
    assert rules.drop == {"seed"}
    table.write_text("updated: 1")
    with pytest.raises(ConfigError) as refused:
        load(str(path))
    assert "models.file" in refused.value.problems[0]

"""Facts about models, by the names that targets give them."""

import pytest

from sluice.model.facts import NOTHING, Facts, common, facts_of, names_for


@pytest.mark.parametrize(
    ("model", "names"),
    [
        ("gpt-5", ["gpt-5"]),
        ("openai/gpt-5", ["openai/gpt-5", "gpt-5"]),
        ("gpt-5-2026-08-07", ["gpt-5-2026-08-07", "gpt-5"]),
        ("claude-opus@20260101", ["claude-opus@20260101", "claude-opus"]),
        ("eu.anthropic.claude-opus-20260101-v1:0", ["claude-opus-20260101", "claude-opus"]),
    ],
)
def test_the_most_exact_name_comes_first(model: str, names: list[str]) -> None:
    found = [*dict.fromkeys(names_for(model))]
    assert found[0] == model
    assert found[-len(names) :] == names


def test_a_model_without_an_entry_has_no_facts() -> None:
    table = {"gpt-5": Facts(400_000, 128_000)}
    assert facts_of(table, "openai/gpt-5-2026-08-07") == table["gpt-5"]
    assert facts_of(table, "gpt-55") is NOTHING


def test_what_holds_for_several_models_is_the_least_of_each() -> None:
    one = Facts(100, 10, ("text", "image"), ("text",))
    other = Facts(200, 5, ("text", "pdf"), ("text", "audio"))
    assert common([one, other]) == Facts(100, 5, ("text",), ("text",))
    assert common([one, NOTHING]) == NOTHING

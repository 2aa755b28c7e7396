"""What lists of models say of an alias: what its target says comes before what is known of its model."""

from sluice.config.types import Alias, Target
from sluice.model.facts import Facts
from sluice.runtime.catalogue import Catalogue
from sluice.runtime.listings import Listing

TABLE = {"seen": Facts(1000, 100, ("text", "image"), ("text",))}
LISTED = {"seen": Facts(2000), "unseen": Facts(3000)}


def catalogue(**target: object) -> Catalogue:
    wildcard = Alias(tiers=((Target(upstream="up", model="*", **target),),))  # type: ignore[arg-type]
    fixed = Alias(tiers=((Target(upstream="up", model="seen", **target),),))  # type: ignore[arg-type]
    return Catalogue({"all/*": wildcard, "chat": fixed}, lambda: TABLE, {"all/*": Listing(LISTED)})


def test_a_target_that_says_nothing_has_the_facts_of_the_list_and_the_table() -> None:
    found = catalogue()
    assert found.facts("chat") == TABLE["seen"]
    assert found.facts("all/seen") == Facts(2000, 100, ("text", "image"), ("text",))
    assert found.facts("all/unseen") == Facts(3000)


def test_what_a_target_says_holds_for_the_models_of_a_list_too() -> None:
    found = catalogue(context=500, vision=False)
    for name in ("chat", "all/seen", "all/other"):
        assert found.facts(name).context == 500
        assert "image" not in found.facts(name).input
    assert found.facts("all/seen") == Facts(500, 100, ("text",), ("text",))
    assert found.facts("all/unseen") == Facts(500)

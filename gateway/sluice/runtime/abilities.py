"""Describes for people what targets take of requests, and what they refuse, leave out or rename."""

from collections.abc import Iterable, Iterator

from sluice.backends.protocol import Backend
from sluice.config.loader import Loaded, models_of
from sluice.config.types import Alias, Target
from sluice.model.chat import ChatRequest
from sluice.model.features import FEATURES, Feature, Use
from sluice.model.rules import NO_RULES, ModelRules
from sluice.proxy.capable import Capable, takes_of
from sluice.runtime.routes import configured_drops_of, rules_for


def abilities(loaded: Loaded, alias: Alias, target: Target, chat: ChatRequest | None) -> list[str]:
    """Returns the lines about one target: for `chat`, or for any request if there is none."""
    upstream, backend = loaded.config.upstreams[target.upstream], loaded.backends[target.upstream]
    rules = rules_for(models_of(loaded), target, upstream, backend)
    configured_drops, takes = configured_drops_of(upstream, target), takes_of(backend, rules)
    capable = (
        Capable(takes, alias.unsupported, lambda _: None, configured_drops) if takes is not None else None
    )
    if chat is None:
        return [*_of_any(backend, capable, takes), *_of_rules(rules)]
    return [*_of_one(backend, capable, chat), *_of_its_rules(rules, chat, alias, configured_drops)]


def _of_any(backend: Backend, capable: Capable | None, takes: frozenset[str] | None) -> Iterator[str]:
    if backend.dialect:
        yield f"requests of {backend.dialect}'s dialect are passed on with all their fields"
    if capable is None or takes is None:
        return
    others = "of other dialects' requests" if backend.dialect else "of requests"
    yield f"{others} it takes: {_titles(FEATURES[name] for name in FEATURES if name in takes)}"
    lacking = [feature for name, feature in FEATURES.items() if name not in takes]
    dropped = [feature for feature in lacking if capable.may_drop(Use(feature, feature.param, feature.param))]
    if refused := [feature for feature in lacking if feature not in dropped]:
        yield f"refused (400, or another target is asked): {_titles(refused)}"
    if dropped:
        yield f"left out: {_titles(dropped)}"


def _of_one(backend: Backend, capable: Capable | None, chat: ChatRequest) -> Iterator[str]:
    if capable is None or chat.dialect == backend.dialect or not chat.dialect:
        yield "it takes all fields of this request"
        return
    lacking = capable.lacking(chat)
    dropped = [use for use in lacking if capable.may_drop(use)]
    if refused := [use for use in lacking if use not in dropped]:
        yield f"refused (400, or another target is asked): {_uses(refused)}"
    if dropped:
        yield f"left out: {_uses(dropped)}"
    if not lacking:
        yield "it takes all features of this request"


def _of_rules(rules: ModelRules) -> Iterator[str]:
    """Returns a line about the changes that the model's rules make (docs/models.md)."""
    if rules is NO_RULES:
        return
    if rules.drop:
        yield f"its model's rules leave out: {', '.join(sorted(rules.drop))}"
    renamed = [f"{old} to {new}" for old, new in {**rules.rename, **rules.roles}.items()]
    if renamed:
        yield f"its model's rules rename: {', '.join(renamed)}"
    if rules.force or rules.default:
        yield f"its model's rules set: {', '.join(sorted({*rules.force, *rules.default}))}"


def _of_its_rules(
    rules: ModelRules, chat: ChatRequest, alias: Alias, configured_drops: frozenset[str]
) -> Iterator[str]:
    fields = sorted(rules.drop.intersection(chat.wire or ()))
    refused = [field for field in fields if alias.unsupported == "refuse" and field not in configured_drops]
    if refused:
        yield f"refused by its model's rules: {', '.join(refused)}"
    if dropped := [field for field in fields if field not in refused]:
        yield f"left out by its model's rules: {', '.join(dropped)}"


def _titles(features: Iterable[Feature]) -> str:
    return "; ".join(feature.title for feature in features) or "nothing but text"


def _uses(uses: Iterable[Use]) -> str:
    return "; ".join(f"{use.param} ({use.feature.title})" for use in uses)

"""What is known of the models behind aliases, for lists of models."""

from collections.abc import Callable, Mapping

from sluice.config.types import Alias, covering, targets_of
from sluice.model.facts import NOTHING, Facts, common, facts_of

KEPT = 4096
"""Names whose facts are kept; with more than that all are forgotten and looked up anew."""


class Catalogue:
    """Of one configuration's aliases. `table` is read when a list is first asked for."""

    def __init__(self, aliases: Mapping[str, Alias], table: Callable[[], Mapping[str, Facts]]) -> None:
        self._aliases = aliases
        self._table = table
        self._kept: dict[str, Facts] = {}

    def facts(self, name: str) -> Facts:
        """What is known of an alias, or of a name that a wildcard covers: what holds for each target of its first tier, since
        any of them may answer. A target's own `context`, `vision` and so on stand before the table."""
        found = self._kept.get(name)
        if found is None:
            if len(self._kept) >= KEPT:
                self._kept.clear()
            found = self._kept[name] = self._looked_up(name)
        return found

    def _looked_up(self, name: str) -> Facts:
        configured = name if name in self._aliases else covering(self._aliases, name)
        if not configured or (configured == name and name.endswith("*")):
            return NOTHING
        rest = name.removeprefix(configured[:-1]) if configured != name else ""
        known = []
        for target in targets_of(self._aliases[configured].tiers[0]):
            facts = facts_of(self._table(), target.model.replace("*", rest) if rest else target.model)
            kinds = facts.input if target.vision else tuple([kind for kind in facts.input if kind not in ("image", "video")])
            known.append(Facts(target.context or facts.context, facts.output, kinds, facts.answers))
        return common(known)

"""Facts about the models behind aliases, for lists of models."""

from collections.abc import Callable, Mapping

from sluice.config.types import Alias, Target, covering, targets_of
from sluice.model.facts import NOTHING, Facts, common, facts_of
from sluice.runtime.listings import Listing, listed_by, names_in

MAX_CACHED_NAMES = 4096
"""Maximum names whose facts are cached; beyond it the cache is emptied."""


class Catalogue:
    """The facts about one configuration's aliases.

    `table` is read when a list is first requested. `listings`: the upstreams' lists of models, for wildcard
    aliases that are shown as the models behind them.
    """

    def __init__(
        self,
        aliases: Mapping[str, Alias],
        table: Callable[[], Mapping[str, Facts]],
        listings: Mapping[str, Listing],
    ) -> None:
        self._aliases = aliases
        self._table = table
        self._listings = listings
        self._kept: dict[str, Facts] = {}
        self._expanded: dict[str, tuple[Mapping[str, Facts], Mapping[str, str]]] = {}

    def names(self, may: Callable[[str], bool]) -> list[str]:
        """Returns the names to show to a caller who may use the aliases `may`: aliases in their order, and
        for wildcards the models that are known."""
        found: dict[str, None] = {}
        for alias in self._aliases:
            names = self._expansion(alias) if self.expands(alias) else (alias,)
            found.update(dict.fromkeys([name for name in names if may(name)]))
        return [*found]

    def expands(self, alias: str) -> bool:
        """Returns whether a wildcard alias can be shown as the models that it stands for."""
        return alias in self._listings and bool(self._expansion(alias))

    def _expansion(self, alias: str) -> Mapping[str, str]:
        """Returns the names that a wildcard alias covers, each with the upstream's own name; names of other
        aliases are left out."""
        listed = self._listings[alias].models
        known, names = self._expanded.get(alias, (None, {}))
        if known is not listed:
            target = listed_by(self._aliases[alias])
            pairs = names_in(listed, alias, target.model) if target is not None else []
            names = {
                name: own
                for name, own in pairs
                if name not in self._aliases and covering(self._aliases, name) == alias
            }
            self._expanded[alias] = (listed, names)
        return names

    def facts(self, name: str) -> Facts:
        """Returns the facts about an alias, or a name that a wildcard covers: those that hold for each target
        of its first tier, because any of them may answer. A target's own `context`, `vision` and so on
        take precedence over the table.
        """
        if self._listings and name not in self._aliases:
            return self._looked_up(name)  # its upstream may report something else by now
        found = self._kept.get(name)
        if found is None:
            if len(self._kept) >= MAX_CACHED_NAMES:
                self._kept.clear()
            found = self._kept[name] = self._looked_up(name)
        return found

    def _listed(self, alias: str, name: str) -> Facts:
        """Returns the upstream's facts about a model, completed from the table."""
        own = self._expansion(alias).get(name, "")
        listed, known = self._listings[alias].models.get(own, NOTHING), facts_of(self._table(), own)
        return Facts(
            listed.context or known.context, listed.output or known.output, known.input, known.answers
        )

    def _looked_up(self, name: str) -> Facts:
        configured = name if name in self._aliases else covering(self._aliases, name)
        if not configured or (configured == name and name.endswith("*")):
            return NOTHING
        alias = self._aliases[configured]
        if configured in self._listings and (listed := self._listed(configured, name)) != NOTHING:
            target = listed_by(alias)
            return listed if target is None else _of_target(target, listed)
        rest = name.removeprefix(configured[:-1]) if configured != name else ""
        return common(
            _of_target(
                target, facts_of(self._table(), target.model.replace("*", rest) if rest else target.model)
            )
            for target in targets_of(alias.tiers[0])
        )


def _of_target(target: Target, facts: Facts) -> Facts:
    """Returns the facts about a target's model; the target's own options take precedence."""
    kinds = (
        facts.input
        if target.vision
        else tuple([kind for kind in facts.input if kind not in ("image", "video")])
    )
    return Facts(target.context or facts.context, facts.output, kinds, facts.answers)

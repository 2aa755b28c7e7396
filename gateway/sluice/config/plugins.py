"""Reads the `interceptors` and `stages` of aliases: an entry's name, and the options of the plugin that it
names."""

from typing import TYPE_CHECKING, Any, cast

import msgspec

from sluice import entrypoints
from sluice.backends.discovery import INTERCEPTORS, STAGES, struct_of
from sluice.config.problems import Path, Report, suggestion
from sluice.config.types import Interceptor, Stage
from sluice.config.validation import INVALID, Walk, fields_of, holds_invalid
from sluice.config.yamltext import Mapping

if TYPE_CHECKING:
    from sluice.proxy.interceptors import InterceptorKind
    from sluice.proxy.stages import StageKind


class PluginReading:
    """The plugins by alias, in the order of the file."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self.interceptors: dict[str, list[InterceptorKind]] = {}
        self.stages: dict[str, list[StageKind]] = {}

    def interceptor(self, walk: Walk, node: Mapping, path: Path) -> Interceptor:
        """Reads one entry of `interceptors`."""
        name, options, made = self._entry(walk, node, path, INTERCEPTORS)
        if made is not None:
            self.interceptors.setdefault(str(path[1]), []).append(cast("InterceptorKind", made))
        return Interceptor(name=name, options=options)

    def stage(self, walk: Walk, node: Mapping, path: Path) -> Stage:
        """Reads one entry of `stages`."""
        name, options, made = self._entry(walk, node, path, STAGES)
        if made is not None:
            self.stages.setdefault(str(path[1]), []).append(cast("StageKind", made))
        return Stage(name=name, options=options)

    def _entry(
        self, walk: Walk, node: Mapping, path: Path, group: str
    ) -> tuple[Any, dict[str, Any], msgspec.Struct | None]:
        """Returns the plugin's name, its options, and the plugin with these; None if something is wrong with
        them."""
        [named] = [field for field in fields_of(Stage) if field.name == "name"]
        name = walk.fields(node, [named], path)["name"]
        if name is INVALID:
            return name, {}, None
        try:
            plugin = struct_of(group, name, group.partition(".")[2].removesuffix("s"))
        except LookupError as error:
            self._report.problem(
                (*path, "name"), f"{error.args[0]}{suggestion(name, entrypoints.installed(group))}"
            )
            return name, {}, None
        options = fields_of(plugin)
        walk.unknown(node, ["name", *(field.encode_name for field in options)], path)
        before = len(self._report.problems)
        given = walk.fields(node, options, path)
        sound = len(self._report.problems) == before and not holds_invalid(given)
        return name, given, self._make(plugin, given, node, path) if sound else None

    def _make(
        self, plugin: type[msgspec.Struct], options: dict[str, Any], node: Mapping, path: Path
    ) -> msgspec.Struct | None:
        try:
            return plugin(**options)
        except (ValueError, TypeError) as error:  # its __post_init__ refuses
            self._report.problem(path, str(error), node.at)
            return None

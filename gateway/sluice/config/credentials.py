"""Reads the `credentials` of upstreams: the keys of an entry itself, the options of the kind that it names,
then all entries of an upstream together."""

from collections.abc import Mapping as Environment
from typing import Any, cast

import msgspec

from sluice.backends.credentials import DEFAULT_KIND, ConfiguredCredential, Kind, find_kind, kinds_of
from sluice.backends.protocol import Backend
from sluice.config.problems import Path, Report
from sluice.config.types import Credential, Upstream, credentials_of
from sluice.config.validation import INVALID, Walk, fields_of, holds_invalid
from sluice.config.yamltext import Mapping


class CredentialReading:
    """`found`: the credentials of each upstream that has any. `blind`: files and commands that they name are
    not checked."""

    def __init__(self, report: Report, environ: Environment[str, str], *, blind: bool) -> None:
        self._report = report
        self._environ = environ
        self._blind = blind
        self._kinds: dict[Path, Kind] = {}
        self.found: dict[str, tuple[ConfiguredCredential, ...]] = {}

    def section(self, walk: Walk, node: Mapping, path: Path) -> Credential:
        """Reads one entry. Its options are those of its kind."""
        own = [field for field in fields_of(Credential) if field.name != "options"]
        values = walk.fields(node, own, path)
        try:
            kind = find_kind(values.get("kind", DEFAULT_KIND))
        except LookupError as error:
            self._report.problem((*path, "kind"), str(error.args[0]))
            return Credential(**values)
        options = fields_of(kind)
        walk.unknown(node, [field.encode_name for field in (*own, *options)], path)
        before = len(self._report.problems)
        given = walk.fields(node, options, path)
        if len(self._report.problems) == before and not holds_invalid(given):
            self._make(kind, given, node, path)
        return Credential(**values, options=given)

    def _make(self, kind: type[msgspec.Struct], options: dict[str, Any], node: Mapping, path: Path) -> None:
        try:
            self._kinds[path] = cast(Kind, kind(**options))
        except (ValueError, TypeError) as error:  # its __post_init__ refuses
            self._report.problem(path, str(error), node.at)

    def of_upstream(
        self, upstream: Upstream, kind: type[msgspec.Struct], backend: Backend | None, path: Path
    ) -> None:
        """Checks all entries of one upstream: whether they fit its backend (None: that could not be made) and
        each other."""
        at = (*path, "credentials")
        given = credentials_of(upstream)
        if not isinstance(given, tuple) or INVALID in given:
            return
        if upstream.options.get("api_key") is not None:
            self._report.problem(
                at, "stands beside api_key: make that one of the credentials ({ api_key: … })"
            )
        if not given and not self._report.has_problem_at(at):
            self._report.problem(at, "needs at least one")
        elif given and all(credential.weight == 0 for credential in given):
            self._report.problem(at, "every credential has weight 0: at least one needs more")
        names = set[str]()
        members = list[ConfiguredCredential]()
        for index, credential in enumerate(given):
            place = (*at, index) if isinstance(upstream.credentials, tuple) else at
            name = credential.name or str(index + 1)
            if name in names:
                self._report.problem(
                    (*place, "name"), f'another credential of this upstream is called "{name}"'
                )
            names.add(name)
            if place in self._kinds:
                made = self._kinds[place]
                self._fits(credential.kind, upstream.backend, kind, (*place, "kind"))
                if backend is not None and not self._blind:
                    self._check(made, backend, place)
                members.append(ConfiguredCredential(name, credential.weight, made))
        self.found[str(path[-1])] = tuple(members)

    def _check(self, made: Kind, backend: Backend, path: Path) -> None:
        try:
            made.check(backend, self._environ)
        except ValueError as error:  # a file or command that it names does not exist
            self._report.problem(path, str(error))

    def _fits(self, kind: str, name: str, backend: type[msgspec.Struct], path: Path) -> None:
        fitting = kinds_of(backend)
        if kind not in fitting:
            known = f"it takes {', '.join(fitting)}" if fitting else "it takes none"
            self._report.problem(
                path, f'"{kind}" is no kind of credentials for the backend "{name}": {known}'
            )

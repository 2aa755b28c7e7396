"""Replaces ${VAR}, ${VAR:-default} and ${file:/path} inside the text values of the configuration; `$$` is a
dollar sign.

This happens after YAML was parsed, so an inserted value cannot change the structure of the file. The result
is read by the type that is expected: "${N}" may be a number, and a key of digits stays text. Problems name
variables, not values.
"""

import re
from collections.abc import Callable, Mapping

from sluice.config.yamltext import Broken, Node, Scalar, Sequence, YamlEntry, resolve
from sluice.config.yamltext import Mapping as Tree

_REFERENCE = re.compile(r"\$(?:\$|\{([^}]*)(\})?)")
_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)

Path = tuple[str | int, ...]
Problem = Callable[[Path, Node, str], None]


class _Missing(Exception):
    """A reference to something that does not exist; the text names it."""


class _NotLookedUp(Exception):
    """A reference that is not looked up."""


class Expansion:
    """Replaces references. `environ` and `read_file` are their sources; `problem` is called for each
    reference to something that does not exist.

    `blind`: nothing is looked up, and nothing is a problem (`unknown` counts such references); their nodes
    are Broken.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        read_file: Callable[[str], str],
        problem: Problem,
        *,
        blind: bool = False,
    ) -> None:
        self._environ = environ
        self._read_file = read_file
        self._problem = problem
        self._blind = blind
        self.unknown = 0

    def tree(self, node: Node, path: Path = ()) -> Node:
        match node:
            case Scalar(value=str()) if "$" in node.text:
                return self._scalar(node, path)
            case Sequence():
                return Sequence(
                    node.at, tuple(self.tree(item, (*path, index)) for index, item in enumerate(node.items))
                )
            case Tree():
                entries = {
                    key: YamlEntry(e.at, self.tree(e.node, (*path, key))) for key, e in node.entries.items()
                }
                return Tree(node.at, entries)
        return node

    def _scalar(self, node: Scalar, path: Path) -> Node:
        try:
            text = _REFERENCE.sub(self._lookup, node.text)
            if "${" not in node.text.replace("$$", ""):
                return Scalar(node.at, text, text, node.plain)
        except _Missing as missing:
            self._problem(path, node, str(missing))
            return Broken(node.at)
        except _NotLookedUp:
            self.unknown += 1
            return Broken(node.at)
        return Scalar(node.at, text, resolve(text), node.plain, expanded=True)

    def _lookup(self, match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        if match[2] is None:
            raise _Missing("${ without } (write $$ for a dollar sign)")
        if match[1].startswith("file:"):
            if self._blind:
                raise _NotLookedUp
            return self._file(match[1][5:])
        if (reference := _VARIABLE.fullmatch(match[1])) is None:
            raise _Missing("expected ${VAR}, ${VAR:-default} or ${file:/path} (write $$ for a dollar sign)")
        name, default = reference.groups()
        if self._blind:
            if default:
                return default
            raise _NotLookedUp
        value = self._environ.get(name, "")
        if not value and default is not None:
            return default
        if name not in self._environ:
            raise _Missing(
                f"environment variable {name} is not set: export {name}=…, or write ${{{name}:-}} if it may be empty"
            )
        return value

    def _file(self, path: str) -> str:
        try:
            return self._read_file(path).removesuffix("\n").removesuffix("\r")
        except OSError as error:
            reason = error.strerror or "failed"
            raise _Missing(f"cannot read {path}: {reason[:1].lower()}{reason[1:]}") from None
        except UnicodeDecodeError:
            raise _Missing(f"cannot read {path}: not UTF-8") from None

"""Finds values in a LiteLLM file that may be secrets. They are never copied: an environment variable replaces
each, and a note reports it with its line.

Headers and URL parameters are copied only if their names are known not to hold secrets. In request bodies,
whose fields have arbitrary names, a text counts as a secret by its field's name or its form
(`sluice.wire.masking`).
"""

import re
from typing import Any

from sluice.commands.litellm_source import LiteLLMFile, Path, variable_of, variables
from sluice.config.shown import SECRET_NAME
from sluice.wire.masking import masked

HEADERS = frozenset({
    "accept", "accept-language", "anthropic-beta", "anthropic-version", "content-type", "http-referer", "openai-beta",
    "openai-organization", "openai-project", "referer", "user-agent", "x-goog-user-project", "x-title",
})  # fmt: skip
"""Headers whose values are not secrets."""
PARAMETERS = frozenset({"api-version", "version", "region", "deployment"})
"""URL parameters whose values are not secrets."""
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)?(?:([^/?#]*)@)?([^/?#]*)([^?#]*)\??(.*)", re.DOTALL)


class Secrets:
    """The secrets of a file, each with an environment variable of its own that the file does not use yet."""

    def __init__(self, source: LiteLLMFile) -> None:
        self._source = source
        self._names: dict[str, str] = {}

    def variable(self, stem: str, secret: str) -> str:
        """Returns the name of the variable for a secret, derived from `stem`."""
        if secret not in self._names:
            stem = re.sub(r"\W", "_", stem, flags=re.ASCII).upper()
            name, number = stem, 1
            while name in self._names.values() or name in self._source.variables:
                number += 1
                name = f"{stem}_{number}"
            self._names[secret] = name
        return self._names[secret]

    def headers(self, given: dict[Any, Any], stem: str, path: Path) -> dict[str, str]:
        """Returns the headers for every request, and marks those at `path` as converted."""
        self._source.take(*path)
        found = {}
        for name, value in given.items():
            text = str(value)
            harmless = str(name).lower() in HEADERS and not _looks_secret(text)
            found[str(name)] = (
                variables(text)
                if harmless or variable_of(text)
                else self._reference(text, f"{stem}_{name}", (*path, str(name)))
            )
        return found

    def body(self, value: Any, stem: str, path: Path, *, secret: bool = False) -> Any:
        """Returns a value for request bodies, and marks it as converted. `secret`: the field has the name of
        a secret."""
        self._source.take(*path)
        return self._inner(value, stem, path, secret=secret)

    def _inner(self, value: Any, stem: str, path: Path, *, secret: bool) -> Any:
        match value:
            case dict():
                return {
                    str(name): self._inner(
                        inner,
                        f"{stem}_{name}",
                        (*path, str(name)),
                        secret=secret or bool(SECRET_NAME.search(str(name))),
                    )
                    for name, inner in value.items()
                }
            case list():
                return [
                    self._inner(inner, stem, (*path, at), secret=secret) for at, inner in enumerate(value)
                ]
            case str() if value and not variable_of(value) and (secret or _looks_secret(value)):
                return self._reference(value, stem, path)
            case str():
                return variables(value)
            case _:
                return value

    def address(self, address: str, stem: str, path: Path) -> tuple[str, str]:
        """Returns a URL without its query, and the query ("" if it has none), and marks `path` as converted.
        User and password in it are left out."""
        self._source.take(*path)
        if variable_of(address):
            return variables(address), ""
        found = _ADDRESS.fullmatch(address)
        assert found is not None  # the expression matches every text
        scheme, userinfo, host, place, query = found.groups(default="")
        to_set = list[str]()

        def instead(secret: str, stem: str) -> str:
            to_set.append(self.variable(stem, secret))
            return f"${{{to_set[-1]}}}"

        def parameter(text: str) -> str:
            name, _, value = text.partition("=")
            if not value:  # without a value the name may be a key itself
                return instead(text, stem)
            harmless = name.lower() in PARAMETERS and not _looks_secret(value)
            return f"{variables(name)}={variables(value) if harmless else instead(value, f'{stem}_{name}')}"

        parts = [instead(part, stem) if _looks_secret(part) else variables(part) for part in place.split("/")]
        parameters = [parameter(one) for one in query.split("&") if one]
        reasons = ["a password in an address is for api_key or headers of the upstream"] if userinfo else []
        reasons += [_reason(*to_set)] if to_set else []
        if reasons:
            self._source.leave("; ".join(reasons), *path)
        return scheme + variables(host) + "/".join(parts), "&".join(parameters)

    def _reference(self, secret: str, stem: str, path: Path) -> str:
        name = self.variable(stem, secret)
        self._source.leave(_reason(name), *path)
        return f"${{{name}}}"


def _reason(*names: str) -> str:
    return f"it may be a secret: set {' and '.join(dict.fromkeys(names))} to it"


def _looks_secret(text: str) -> bool:
    return masked(text) != text

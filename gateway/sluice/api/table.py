"""The table of routes: the gateway's own routes, and those of its frontends, by path. Pure.

A path without parameters is looked up in a dict. Others are matched pattern by pattern among those that have the
same first segment, those with more literal text first, so that "/models/{+model}:embed" is tried before
"/models/{+model}".
"""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TypeVar
from urllib.parse import unquote

import msgspec

from sluice.api.request import Request
from sluice.errors import ConfigError
from sluice.frontends import PARAMETER, CallRoute, Endpoint, Envelope, Frontend, ResumeRoute, Route, shape_of

Handler = Callable[[Request, str], Awaitable[None]]
"""Answers a request, whose id is the second argument. The caller renders what it raises."""

T = TypeVar("T")


class OwnRoute(msgspec.Struct, frozen=True):
    """A route of the gateway itself. `quiet`: only refused requests are logged."""

    method: str
    path: str
    handler: Handler
    quiet: bool = False


class MethodRoute(msgspec.Struct, frozen=True, eq=False):
    """The handler of one method of one path. `frontend`: None for the gateway's own routes; `names`: of the
    parameters.
    """

    handler: Handler
    frontend: Frontend | None = None
    names: tuple[str, ...] = ()


class ServedPath(msgspec.Struct, eq=False):
    """A path that is served. `quiet`: see OwnRoute; calls have log lines of their own.

    `label` is how logs name it, with `*` for parameters: calls by each of their paths, other routes by their
    first one. `resumes`: its GET resumes a stream, so there is no HEAD.
    """

    label: str
    quiet: bool = False
    resumes: bool = False
    methods: dict[str, list[MethodRoute]] = {}

    @property
    def allowed(self) -> str:
        """The value of `Allow` (RFC 9110 10.2.1)."""
        more = {"OPTIONS", "HEAD"} if "GET" in self.methods and not self.resumes else {"OPTIONS"}
        return ", ".join(sorted({*self.methods, *more}))

    def choice(self, method: str, headers: Mapping[str, str]) -> MethodRoute | None:
        """Returns the route for the method: if several frontends have it, the one whose marker header the
        request has. None: no route.
        """
        choices = self.methods.get("GET" if method == "HEAD" else method)
        return _chosen(choices, [choice.frontend for choice in choices], headers) if choices else None


Bind = Callable[[Frontend, Route, ServedPath], Handler]
"""Makes the handler of a frontend's route at a path."""


class RouteTable:
    """`own` routes, and those of `frontends`. Raises ConfigError if two frontends have the same route, and no
    marker distinguishes them.

    `by_name`: the paths without parameters, with their other spellings.
    """

    def __init__(self, own: Iterable[OwnRoute], frontends: Iterable[Frontend], bind: Bind) -> None:
        self.by_name: dict[str, ServedPath] = {}
        self._by_shape: dict[str, ServedPath] = {}
        self._patterns: dict[str, tuple[re.Pattern[str], ServedPath, str]] = {}
        for route in own:
            place = self._place(route.path, route.path)
            place.quiet |= route.quiet
            place.methods.setdefault(route.method, []).append(
                MethodRoute(route.handler, names=_names_in(route.path))
            )
        for frontend in frontends:
            for offered in frontend.routes():
                for path in (offered.path, *offered.also):
                    self._add(frontend, offered, path, bind)
        patterns = sorted(self._patterns.values(), key=lambda item: -len(shape_of(item[2])))
        self._any_segment = [item for item in patterns if "{" in _first_segment(item[2])]
        self._by_segment = {
            first: [
                item for item in patterns if item in self._any_segment or _first_segment(item[2]) == first
            ]
            for first in {_first_segment(path) for _, _, path in patterns}
        }

    def find(self, path: str) -> tuple[ServedPath | None, Sequence[str]]:
        """Returns the served path that a request's path matches, and the values of its parameters."""
        place = self.by_name.get(path)
        if place is not None:
            return place, ()
        path = path.rstrip("/")
        for pattern, place, _ in self._by_segment.get(_first_segment(path), self._any_segment):
            if match := pattern.fullmatch(path):
                return place, [unquote(value) for value in match.groups()]
        return None, ()

    def shapes(self) -> Mapping[str, ServedPath]:
        """Returns everything that is served, by path, with `*` for parameters."""
        return self._by_shape

    def _add(self, frontend: Frontend, route: Route, path: str, bind: Bind) -> None:
        place = self._place(path, path if isinstance(route, CallRoute) else route.path)
        place.resumes |= isinstance(route, ResumeRoute)
        place.quiet |= not isinstance(route, Endpoint)
        for method in route.methods:
            choices = place.methods.setdefault(method, [])
            for other in choices:
                _check(frontend, other.frontend, f"{method} {path}")
            choices.append(MethodRoute(bind(frontend, route, place), frontend, _names_in(path)))

    def _place(self, path: str, label: str) -> ServedPath:
        """Returns the served path, made at first use; a slash at the end makes no difference."""
        place = self._by_shape.setdefault(shape_of(path), ServedPath(shape_of(label)))
        if "{" in path:
            pattern = _pattern(path)
            self._patterns[pattern.pattern] = (pattern, place, path)
        else:
            self.by_name[path] = self.by_name[f"{path}/"] = place
        return place


def _first_segment(path: str) -> str:
    return path[1:].partition("/")[0]


def _names_in(path: str) -> tuple[str, ...]:
    return tuple(name for _, name in PARAMETER.findall(path))


def _check(frontend: Frontend, other: Frontend | None, what: str) -> None:
    """Raises ConfigError if nothing distinguishes the requests of two owners of a route."""
    if other is None or other.marker == frontend.marker:
        whose = f'frontend "{other.name}"' if other is not None else "the gateway itself"
        raise ConfigError(
            [f'frontend "{frontend.name}": {what} is a route of {whose}, too (server.frontends)']
        )


class PathClaims:
    """Chooses the frontend that renders the error for an unknown path, by the path's beginning. The gateway's
    `own` paths, and those that no frontend claims, are left to `rest`: who claims "/", or `default`."""

    def __init__(self, frontends: Iterable[Frontend], own: Iterable[str], default: Envelope) -> None:
        claims: dict[str, list[Envelope]] = {}
        for frontend in frontends:
            for prefix in frontend.claims:
                claims.setdefault(prefix, []).append(frontend)
        self.rest = claims.get("/", [default])[0]
        claims |= {prefix: [self.rest] for prefix in own}
        self._claims = sorted(claims.items(), key=lambda claim: -len(claim[0]))

    def of(self, path: str, headers: Mapping[str, str]) -> Envelope:
        claimants = next(
            (claimants for prefix, claimants in self._claims if _is_within(path, prefix)), [self.rest]
        )
        return _chosen(claimants, claimants, headers)


def _is_within(path: str, prefix: str) -> bool:
    """Returns whether a path is at or below another one: /v1/chat/x is within /v1/chat, /v1/chatkit is not."""
    rest = path.removeprefix(prefix)
    return path.startswith(prefix) and (not rest or rest[0] == "/" or prefix.endswith("/"))


def _chosen(choices: Sequence[T], envelopes: Sequence[Envelope | None], headers: Mapping[str, str]) -> T:
    """Chooses one frontend: the one whose marker header is sent, else one without a marker, else the
    first."""
    if len(choices) == 1:
        return choices[0]
    markers = [envelope.marker if envelope is not None else "" for envelope in envelopes]
    marked = [choice for choice, marker in zip(choices, markers, strict=True) if marker and marker in headers]
    unmarked = [choice for choice, marker in zip(choices, markers, strict=True) if not marker]
    return (marked or unmarked or choices)[0]


def _pattern(path: str) -> re.Pattern[str]:
    """Returns the pattern of a path: each `{name}` matches at least one character, and slashes only in a
    `{+name}`."""
    pieces, at = [], 0
    for match in PARAMETER.finditer(path):
        pieces += [re.escape(path[at : match.start()]), "(.+)" if match[1] else "([^/]+)"]
        at = match.end()
    return re.compile("".join((*pieces, re.escape(path[at:]))))

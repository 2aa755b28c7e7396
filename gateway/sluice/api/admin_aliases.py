"""GET /admin/aliases and POST /admin/explain: the aliases, their targets, how those do, and why a call is
routed as it is.

Health and load are those that all workers have seen.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import msgspec

from sluice.api.admin_requests import AdminRequest, AdminRoute, reply
from sluice.config.jsontree import read
from sluice.config.problems import Report
from sluice.config.types import Team, Tenant, Upstream
from sluice.errors import NotFound
from sluice.frontends import Reply
from sluice.keystore import json_unit
from sluice.proxy.target import Route, Target
from sluice.runtime.fleet import TargetState
from sluice.runtime.snapshot import Snapshot
from sluice.runtime.targets import states_of
from sluice.runtime.views import targets_of_all
from sluice.wire.baseurl import base_of

_encode = msgspec.json.Encoder().encode
Known = Mapping[tuple[str, str], TargetState]
NOT_YET_KNOWN = TargetState("", "", [], "closed", 0.0, 0)
"""The state of a target that no worker has reported yet: the configuration is being changed."""


class Explanation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`request`: the body of a call, in OpenAI's dialect or the widget's; null: for any call."""

    alias: str
    request: dict[str, Any] | None = None


class AdminAliases:
    def __init__(self, runtime: Snapshot) -> None:
        self._runtime = runtime

    def routes(self) -> list[AdminRoute]:
        return [
            AdminRoute("GET", "/admin/aliases", self._list),
            AdminRoute("POST", "/admin/explain", self._explain),
            AdminRoute("GET", "/admin/tenants", self._tenants),
        ]

    async def _list(self, request: AdminRequest) -> Reply:
        runtime, state = self._runtime, self._runtime.state
        workers = (
            (await state.fleet.targets()).workers
            if state.fleet is not None
            else [(0, states_of(runtime, state))]
        )
        known = targets_of_all(states for _, states in workers)
        aliases = [_alias(name, route, known) for name, route in runtime.routes.items()]
        upstreams = [_upstream(name, upstream) for name, upstream in runtime.config.upstreams.items()]
        return reply({"aliases": aliases, "upstreams": upstreams})

    async def _tenants(self, request: AdminRequest) -> Reply:
        """Lists the configured tenants, and the teams above them."""
        config = self._runtime.config
        teams = [_team(name, team) for name, team in config.teams.items()]
        return reply(
            {"tenants": [_tenant(name, tenant) for name, tenant in config.tenants.items()], "teams": teams}
        )

    async def _explain(self, request: AdminRequest) -> Reply:
        """Explains how a call would be routed. Raises BadRequest, NotFound."""
        from sluice.routing.explain import (
            explain,
            request_of,
        )  # it reads two dialects, which may be switched off
        from sluice.runtime.abilities import abilities

        explanation = read(request.body, Explanation, Report(""))
        config = self._runtime.config
        if explanation.alias not in config.aliases:
            raise NotFound("There is no such alias")
        chat = (
            request_of(_encode({"model": explanation.alias, **explanation.request}))
            if explanation.request is not None
            else None
        )
        tell = partial(abilities, self._runtime.loaded, config.aliases[explanation.alias], chat=chat)
        return reply({"alias": explanation.alias, "lines": [*explain(config, explanation.alias, chat, tell)]})


def _alias(name: str, route: Route, known: Known) -> dict[str, Any]:
    tiers = []
    for tier in route.tiers:
        targets = [_target(one, known, name) for one in tier.targets]  # type: ignore[arg-type]
        tiers.append({"strategy": tier.strategy, "targets": targets})
    alias = route.config
    return {
        "alias": name,
        "tiers": tiers,
        "system": bool(alias.system),
        "resumable": alias.resumable,
        "hedge": alias.hedge is not None,
        "shadow": route.shadow.label if route.shadow is not None else None,
        "limits": msgspec.to_builtins(alias.limits, enc_hook=json_unit),
    }


def _target(target: Target, known: Known, alias: str) -> dict[str, Any]:
    state = known.get((target.upstream, target.model)) or NOT_YET_KNOWN
    return {
        "upstream": target.upstream,
        "model": target.model,
        "weight": target.spec.weight,
        "state": state.breaker,
        "ready_in": round(state.ready_in, 3),
        "in_flight": state.in_flight,
        "first_token": round(state.first_token, 4) if state.first_token is not None else None,
        "answered": state.answered.get(alias, 0),
        "priced": bool(target.prices),
    }


def _upstream(name: str, upstream: Upstream) -> dict[str, Any]:
    address = upstream.options.get("base_url")
    return {
        "upstream": name,
        "backend": upstream.backend,
        "vendor": upstream.vendor or None,
        "base_url": base_of(address)[0] if isinstance(address, str) else None,
        "probed": upstream.probe is not None,
        "max_connections": upstream.max_connections,
    }


def _team(name: str, team: Team) -> dict[str, Any]:
    return {
        "team": name,
        "parent": team.parent,
        "limits": msgspec.to_builtins(team.limits, enc_hook=json_unit),
    }


def _tenant(name: str, tenant: Tenant) -> dict[str, Any]:
    return {
        "tenant": name,
        "team": tenant.team,
        "limits": msgspec.to_builtins(tenant.limits, enc_hook=json_unit),
    }

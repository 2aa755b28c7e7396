"""The scopes whose limits apply to a call: its end user, its caller (for one alias, for all), its tenant,
teams, and its alias. Pure. They are ordered from the narrowest to the widest, and response headers show
the first one that has limits."""

from collections.abc import Collection, Iterable, Iterator, Mapping

from sluice.config.types import Limits, Team, Tenant, covering
from sluice.identity.principal import Principal
from sluice.policies.claims import View
from sluice.policies.end_users import END_USER
from sluice.proxy.target import Route

KEY_ALIAS = "key_alias"
TEAM = "team"


def single_alias(limited: Collection[str], route: Route) -> str:
    """Returns the alias under which the caller has limits for this route; "" for none.

    It is the name that the caller gave, else the configured alias's, else the longest name with * at its end
    that covers it.
    """
    if route.called in limited:
        return route.called
    return route.name if route.name in limited else covering(limited, route.called or route.name)


def named_alias(limited: Collection[str], alias: str) -> str:
    """Returns the scope of a configured alias by its name, whatever name the caller gave."""
    return alias if alias in limited else covering(limited, alias)


def key_alias(bucket: str, alias: str) -> str:
    """Returns the owner of a caller's limits for one alias. No alias has "|" in it, so different pairs never
    make the same name.
    """
    return f"{bucket}|{alias}"


def teams_above(tenant: Tenant | None, teams: Mapping[str, Team]) -> Iterator[str]:
    """Returns the names of the tenant's team and of the teams above it, the nearest first."""
    name = tenant.team if tenant is not None else None
    while name is not None and (team := teams.get(name)) is not None:
        yield name
        name = team.parent


class Scopes:
    """The scopes of one configuration. `tenants` and `teams` by their names."""

    def __init__(self, limits: Limits, tenants: Mapping[str, Tenant], teams: Mapping[str, Team]) -> None:
        self._end_users = limits.end_users
        self._overall = View("overall", "all", limits.overall)
        self._owners = {
            name: [
                View("tenant", name, tenant.limits),
                *(View(TEAM, team, teams[team].limits) for team in teams_above(tenant, teams)),
            ]
            for name, tenant in tenants.items()
        }

    def of_call(self, principal: Principal, route: Route, single: str, user: str = "") -> list[View]:
        """Returns all scopes of a call except its address and its upstream.

        `single` is the result of `single_alias`, `user` the owner of its end user's limits.
        """
        of_caller = self.of_caller(principal, [single] if single else [], user)
        return [*of_caller, View("alias", route.name, route.config.limits), self._overall]

    def of_caller(self, principal: Principal, single: Iterable[str] = (), user: str = "") -> list[View]:
        """Returns the scopes of its end user, of the caller's `single` aliases, of the caller, of its tenant
        and of the teams above.
        """
        bucket, limits = principal.bucket, principal.limits
        of_user = [View(END_USER, user, self._end_users)] if user and self._end_users is not None else []
        of_aliases = [View(KEY_ALIAS, key_alias(bucket, name), limits.aliases[name]) for name in single]
        return [*of_user, *of_aliases, View("key", bucket, limits), *self._owners.get(principal.tenant, ())]

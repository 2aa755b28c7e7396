"""Checks the tree of teams above tenants: unknown names, circles, depth, and teams that nobody is in."""

from collections.abc import Mapping

from sluice.config.problems import Report, suggestion
from sluice.config.types import Config, Team, Tenant

MAX_TEAM_DEPTH = 8
"""Maximum teams above one tenant: each of them is another claim of every call."""


def check_teams(config: Config, report: Report) -> None:
    """Reports tenants and teams whose team or parent does not exist, circles, trees that are too deep, and
    unused teams."""
    if not isinstance(config.teams, dict) or not isinstance(config.tenants, dict):
        return
    teams = {name: team for name, team in config.teams.items() if isinstance(team, Team)}
    named = set()
    for name, tenant in config.tenants.items():
        if isinstance(tenant, Tenant) and isinstance(tenant.team, str):
            named.add(tenant.team)
            if tenant.team not in config.teams:
                text = f'unknown team "{tenant.team}"{suggestion(tenant.team, config.teams)}'
                report.problem(("tenants", name, "team"), text)
    for name, team in teams.items():
        if isinstance(team.parent, str):
            named.add(team.parent)
            if team.parent not in config.teams:
                text = f'unknown team "{team.parent}"{suggestion(team.parent, config.teams)}'
                report.problem(("teams", name, "parent"), text)
            elif problem := _height(name, teams):
                report.problem(("teams", name, "parent"), problem)
    for name in sorted(set(teams) - named):
        report.warning(("teams", name), "no tenant is in this team (`team` of a tenant)")


def _height(name: str, teams: Mapping[str, Team]) -> str:
    """Returns the problem in a team's chain of parents; "" if there is none."""
    way = [name]
    while (team := teams.get(way[-1])) is not None and isinstance(team.parent, str):
        if team.parent == name:
            return f"a circle: {' -> '.join((*way, name))}"
        if team.parent in way:
            return ""  # another team of the circle reports it
        way.append(team.parent)
        if len(way) > MAX_TEAM_DEPTH:
            return f"more than {MAX_TEAM_DEPTH} teams above each other"
    return ""

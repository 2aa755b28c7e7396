"""The role that each admin route requires: viewers change nothing and read neither conversations nor texts of
calls, operators may do everything.

Requests that only compute an answer (`explain`, `config/check`) are for viewers, too.
"""

from collections.abc import Mapping

from sluice.config.types import Role
from sluice.errors import Forbidden
from sluice.identity.operators import Operator

NEEDED: Mapping[str, Role] = {
    "GET /admin/overview": "viewer",
    "GET /admin/overview/live": "viewer",
    "GET /admin/aliases": "viewer",
    "GET /admin/tenants": "viewer",
    "POST /admin/explain": "viewer",
    "GET /admin/calls": "viewer",
    "GET /admin/usage": "viewer",
    "GET /admin/budgets": "viewer",
    "PATCH /admin/budgets": "operator",
    "GET /admin/keys": "viewer",
    "POST /admin/keys": "operator",
    "GET /admin/keys/{id}": "viewer",
    "PATCH /admin/keys/{id}": "operator",
    "DELETE /admin/keys/{id}": "operator",
    "POST /admin/keys/{id}/rotate": "operator",
    "POST /admin/keys/{id}/disable": "operator",
    "POST /admin/keys/{id}/enable": "operator",
    "GET /admin/config": "viewer",
    "POST /admin/config/check": "viewer",
    "GET /admin/config/file": "operator",  # with its secrets
    "POST /admin/config/file/check": "operator",
    "PUT /admin/config/file": "operator",
    "GET /v1/admin/conversations": "operator",  # shows the last message of each
    "DELETE /v1/admin/conversations": "operator",
    "GET /v1/admin/conversations/{conversationId}": "operator",
    "DELETE /v1/admin/conversations/{conversationId}": "operator",
    "GET /v1/admin/conversations/export": "operator",
    "POST /v1/admin/conversations/reencrypt": "operator",
    "GET /v1/admin/responses/export": "operator",
    "DELETE /v1/admin/responses": "operator",
    "GET /admin/status": "viewer",
    "GET /admin/targets": "viewer",
    "POST /admin/targets/{upstream}/{+model}/disable": "operator",
    "POST /admin/targets/{upstream}/{+model}/drain": "operator",
    "POST /admin/targets/{upstream}/{+model}/enable": "operator",
    "POST /admin/reload": "operator",
    "POST /admin/restart": "operator",
    "POST /admin/drain": "operator",
    "POST /ui/play/{+path}": "operator",  # it spends a key's money
}
"""By method and path, as in the routes."""
WITH_TEXTS = ("GET /admin/calls", "content", "true")
"""A route that shows texts where a parameter has this value: those are for operators, as conversations
are."""


def needed_for(route: str, query: Mapping[str, str]) -> tuple[str, Role]:
    """Returns the route as a refusal names it, and the role that this request to it needs."""
    shows, name, value = WITH_TEXTS
    if route == shows and query.get(name) == value:
        return f"{route}?{name}={value}", "operator"
    return route, NEEDED[route]


def check_role(operator: Operator, needed: Role, route: str) -> None:
    """Raises Forbidden if the operator's role does not allow this request."""
    if not operator.may(needed):
        raise Forbidden(f"{route} needs the role {needed}; yours is {operator.role}")

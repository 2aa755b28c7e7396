"""Which role each route of the admin API needs: a viewer changes nothing and reads no conversation, an operator does all.

What only looks like a change is a viewer's, too: `explain` and `config/check` compute an answer, and write nothing.
"""

from collections.abc import Mapping

from sluice.config.types import Role
from sluice.errors import Forbidden
from sluice.identity.operators import Operator

NEEDED: Mapping[str, Role] = {
    "GET /admin/overview": "viewer",
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
    "GET /v1/admin/conversations": "operator",  # each with its last message
    "DELETE /v1/admin/conversations": "operator",
    "GET /v1/admin/conversations/{id}": "operator",
    "DELETE /v1/admin/conversations/{id}": "operator",
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
"""By method and path, as routes have them."""


def check_role(operator: Operator, needed: Role, route: str) -> None:
    """Raises Forbidden where this operator's role is not enough."""
    if not operator.may(needed):
        raise Forbidden(f"{route} needs the role {needed}; yours is {operator.role}")

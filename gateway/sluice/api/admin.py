"""The admin routes, under /admin and /v1/admin. Each `admin_*` module has the handlers of one resource, and
their table.

A request needs an admin key before anything else is checked, and the role that `admin_roles` lists for its
route.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing, suppress
from typing import Any, Protocol

from sluice.api.admin_aliases import AdminAliases
from sluice.api.admin_budgets import AdminBudgets
from sluice.api.admin_calls import AdminCalls
from sluice.api.admin_config import AdminConfig
from sluice.api.admin_config_file import AdminConfigFile
from sluice.api.admin_conversations import AdminConversations
from sluice.api.admin_export import AdminExport
from sluice.api.admin_keys import AdminKeys
from sluice.api.admin_live import AdminLive
from sluice.api.admin_overview import AdminOverview
from sluice.api.admin_process import AdminProcess
from sluice.api.admin_requests import AdminRequest, AdminRoute, Streamed
from sluice.api.admin_roles import check_role, needed_for
from sluice.api.admin_usage import AdminUsage
from sluice.api.bodies import Bodies
from sluice.api.request import Request
from sluice.api.table import Handler, OwnRoute
from sluice.errors import GatewayError
from sluice.identity.operators import Operator
from sluice.runtime.snapshot import Snapshot

WITH_BODY = ("POST", "PATCH", "PUT")
Admit = Callable[[Request], Awaitable[Operator]]
"""Identifies the operator. Raises GatewayError for anybody else."""


class Resource(Protocol):
    def routes(self) -> Iterable[AdminRoute]: ...


def admin_routes(
    runtime: Snapshot,
    admit: Admit,
    bodies: Bodies,
    wall: Callable[[], float] = time.time,
    *,
    operators: bool = False,
) -> list[OwnRoute]:
    """Returns all admin routes of one snapshot. Those that control the process exist on the admin port only
    (`operators`).
    """
    resources: tuple[Resource, ...] = (
        AdminConversations(runtime.conversations, lambda: runtime.state.seals.on),
        AdminExport(runtime.conversations, runtime.kept.store),
        AdminKeys(runtime.keys, runtime.config, runtime.log),
        AdminBudgets(runtime.store, runtime.config, runtime.keys.table, runtime.log, runtime.state.calendar),
        AdminUsage(runtime.usage, runtime.loaded.prices, runtime.deferred.flush, wall),
        overview := AdminOverview(runtime, wall),
        AdminAliases(runtime),
        AdminCalls(runtime.state),
        AdminConfig(runtime),
        *(
            (AdminProcess(runtime, wall), AdminConfigFile(runtime), AdminLive(runtime, overview, wall))
            if operators
            else ()
        ),
    )
    routes = [route for resource in resources for route in resource.routes()]
    return [
        OwnRoute(route.method, route.path, _handler(route, admit, bodies, runtime.log)) for route in routes
    ]


def _handler(route: AdminRoute, admit: Admit, bodies: Bodies, log: Any) -> Handler:
    shape = f"{route.method} {route.path}"

    async def answer(request: Request, request_id: str) -> None:
        operator = await admit(request)
        name, needed = needed_for(shape, request.query)
        check_role(operator, needed, name)
        body: Mapping[str, object] = (
            await bodies.optional_object(request, route.most) if route.method in WITH_BODY else {}
        )
        asked = AdminRequest(
            request_id, request.parameters, request.query, request.headers, dict(body), operator.until
        )
        outcome, error = "cut", None
        try:
            reply = await route.answer(asked)
            if isinstance(reply, Streamed):
                await _send(request, reply)
            else:
                request.reply(reply.status, reply.body, reply.headers, reply.content_type)
            outcome = "done"
        except GatewayError as refused:
            outcome, error = "refused", refused.code
            raise
        except Exception:
            outcome = "failed"
            raise
        finally:  # whatever became of the answer, the store may have been read or changed
            if needed == "operator":
                fields = {"route": name, "outcome": outcome, "status": request.status or None, "error": error}
                log.info("admin_action", operator=operator.name, request_id=request_id, **fields)

    return answer


async def _send(request: Request, reply: Streamed) -> None:
    """Sends chunk by chunk, as fast as the client reads. An error after the head cuts the connection instead
    of ending the body.
    """
    if request.method == "HEAD":
        request.reply(200, b"", content_type=reply.content_type)
        return
    async with aclosing(reply.chunks) as chunks:
        chunk = await anext(chunks, b"")
        request.begin(reply.content_type, ())
        try:
            request.write(chunk)
            async for chunk in chunks:
                if not await _is_read(request, reply.patience):
                    request.abort()
                    return
                request.write(chunk)
            request.write(b"", last=True)
        except BaseException:
            request.abort()
            raise


async def _is_read(request: Request, patience: float | None) -> bool:
    """Waits while the client does not read. Returns False if that takes longer than `patience`."""
    with suppress(TimeoutError):
        async with asyncio.timeout(patience):
            await request.writable()
        return True
    return False

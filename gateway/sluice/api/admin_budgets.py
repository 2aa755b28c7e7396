"""GET and PATCH /admin/budgets: lists what is spent, reserved and left of each budget in its current period,
and corrects it.

Answers come from the store of limits, so every gateway that shares the store gives the same ones. A
correction states what has been spent. The difference from the store's value at that moment is charged or
refunded, so charges of calls in the meantime are kept, and reservations are not changed.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec

from sluice.api.admin_requests import AdminRequest, AdminRoute, reply
from sluice.config.jsontree import read
from sluice.config.problems import Report
from sluice.config.types import Budget, Config
from sluice.errors import BadRequest, NotFound, Unavailable
from sluice.frontends import Reply
from sluice.keystore.table import KeyTable
from sluice.limits import Balance, BucketStore, Claim
from sluice.policies.budgets import MARGIN, PERIODS, Period, budget_claims, budget_prefix
from sluice.policies.end_users import END_USER, OTHERS, digest_of_user, end_user
from sluice.usage.opening import Budgets, Owner

SCOPES = ("key", "key_alias", END_USER, "tenant", "team", "alias", "upstream", "overall")
MAX_CORRECTION = 1e9
"""Maximum US dollars of a correction."""
MAX_OWNER_LENGTH = 1024
"""Maximum characters of an owner's name."""


class Correction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`spent`: US dollars to be recorded as spent in the current period. `user`: the end user's name, for
    scope end_user.
    """

    scope: Literal["key", "key_alias", "end_user", "tenant", "team", "alias", "upstream", "overall"]
    owner: str
    period: Literal["day", "week", "month"]
    spent: Annotated[float, msgspec.Meta(ge=0, le=MAX_CORRECTION)]
    user: str = ""


class AdminBudgets:
    """`store`: the store of limits; `log` gets every correction; `wall` gives seconds since the epoch."""

    def __init__(
        self, store: BucketStore, config: Config, keys: KeyTable, log: Any, wall: Callable[[], float]
    ) -> None:
        self._store = store
        self._config = config
        self._keys = keys
        self._log = log
        self._wall = wall

    def routes(self) -> list[AdminRoute]:
        return [
            AdminRoute("GET", "/admin/budgets", self._list),
            AdminRoute("PATCH", "/admin/budgets", self._correct),
        ]

    async def _list(self, request: AdminRequest) -> Reply:
        return reply(await self.listed(request.query, request.limit))

    async def _correct(self, request: AdminRequest) -> Reply:
        return reply(await self.correct(request.body))

    async def listed(self, query: Mapping[str, str], limit: int) -> dict[str, Any]:
        """The budgets of at most `limit` owners behind `after`, or of the one that `scope` and `owner` name.

        A JWT's subject is found only by its name ("jwt:ISSUER|SUBJECT"), and never listed. Raises BadRequest,
        NotFound, and Unavailable where the store does not answer.
        """
        budgets = self._budgets()
        if query.get("scope", "key") not in SCOPES:
            raise BadRequest(f"scope is one of {', '.join(SCOPES)}", param="scope")
        if "owner" in query:
            scope = query.get("scope", "key")
            name = _name(scope, query["owner"], query.get("user", ""))
            return {
                "budgets": await self._shown({(scope, name): self._budget(budgets, scope, name)}),
                "next": None,
            }
        of_scope = (owner for owner in budgets.named if query.get("scope", owner[0]) == owner[0])
        owners = sorted((owner for owner in of_scope if _place(owner) > query.get("after", "")), key=_place)
        page = {owner: budgets.named[owner] for owner in owners[:limit]}
        return {
            "budgets": await self._shown(page),
            "next": _place(owners[limit - 1]) if len(owners) > limit else None,
        }

    async def correct(self, wire: dict[str, Any]) -> dict[str, Any]:
        """Corrects the budget, and returns its new state. Raises BadRequest, NotFound, Unavailable."""
        correction = read(wire, Correction, Report(""))
        owner = _name(correction.scope, correction.owner, correction.user)
        budget = self._budget(self._budgets(), correction.scope, owner)
        if getattr(budget, correction.period) is None:
            raise NotFound(f"This budget has no limit for a {correction.period}")
        claim = next(
            claim
            for period, claim in self._claims((correction.scope, owner), budget)
            if period == correction.period
        )
        [before] = await self._store.balances([claim])
        change = correction.spent - before.spent
        if change:
            await self._store.settle([msgspec.structs.replace(claim, amount=change)])
        [after] = await self._store.balances([claim])
        if abs(after.spent - correction.spent) > abs(change) / 2:
            raise Unavailable("The store of limits did not confirm the correction: look before you repeat it")
        self._log.warning(
            "admin_budget",
            scope=correction.scope,
            owner=correction.owner,
            period=correction.period,
            spent_before=_rounded(before.spent),
            spent=_rounded(correction.spent),
        )
        return self._object((correction.scope, owner), correction.period, claim, after)

    def _budgets(self) -> Budgets:
        return Budgets(self._config, self._keys.budgets)

    def _budget(self, budgets: Budgets, scope: str, name: str) -> Budget:
        found = budgets.of(scope, name) if len(name) <= MAX_OWNER_LENGTH and name.isprintable() else None
        if found is None:
            raise NotFound("There is no such budget")
        return found

    def _claims(self, owner: Owner, budget: Budget) -> list[tuple[Period, Claim]]:
        scope, name = owner
        periods = [period for period in PERIODS if getattr(budget, period) is not None]
        claims = budget_claims(budget_prefix(scope, name), budget, self._wall(), scope=scope)
        return list(zip(periods, claims, strict=True))

    async def _shown(self, owners: Mapping[Owner, Budget]) -> list[dict[str, Any]]:
        correction = [
            (owner, period, claim)
            for owner, budget in owners.items()
            for period, claim in self._claims(owner, budget)
        ]
        balances = await self._balances([claim for _, _, claim in correction]) if correction else []
        found = zip(correction, balances, strict=True)
        return [self._object(*one, balance) for one, balance in found if balance is not None]

    async def _balances(self, claims: Sequence[Claim]) -> Sequence[Balance | None]:
        """Returns the balance of each budget; None where the store has an entry that is not a budget's, so
        that it hides no other. Raises Unavailable."""
        try:
            return await self._store.balances(claims)
        except Unavailable as unavailable:
            if len(claims) == 1 or getattr(unavailable.__cause__, "reason", "") != "reply":
                raise
            error = unavailable
        found: list[Balance | None] = []
        for claim in claims:
            try:
                found += await self._store.balances([claim])
            except Unavailable:
                found.append(None)
        if not any(found):
            raise error
        return found

    def _object(self, owner: Owner, period: Period, claim: Claim, balance: Balance) -> dict[str, Any]:
        limit = claim.limit.capacity
        return {
            "scope": owner[0],
            "owner": owner[1].rpartition("|")[0] if owner[0] == END_USER else owner[1],
            "period": period,
            "name": claim.key.rpartition(":")[2],
            "ends": datetime.fromtimestamp(claim.expires - MARGIN, UTC).isoformat().replace("+00:00", "Z"),
            "limit_usd": limit,
            "spent_usd": _rounded(balance.spent),
            "reserved_usd": _rounded(balance.reserved),
            "left_usd": _rounded(limit - balance.spent - balance.reserved),
        }


def _name(scope: str, owner: str, user: str) -> str:
    """Returns the name of a budget's owner: an end user's consists of its tenant (`owner`) and its name.
    Raises BadRequest.
    """
    if scope != END_USER:
        return owner
    if not user:
        raise BadRequest("Scope end_user needs the tenant as owner, and user", param="user")
    named = digest_of_user(user)
    if named == OTHERS:
        raise BadRequest("An end user of so long a name has no budget of its own", param="user")
    return end_user(owner, named)


def _place(owner: Owner) -> str:
    """An owner's position in the list, as `after` and `next` give it."""
    return f"{owner[0]}:{owner[1]}"


def _rounded(dollars: float) -> float:
    """Rounds to the nano-dollar, as costs are stored."""
    return round(dollars, 9) + 0.0

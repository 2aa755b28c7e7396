"""Distinguishes end users: the people for whom a key's owner sends calls, each under limits of its own.

Names come from callers, so two things are bounded. A name is known only by a digest, so that no store has the
name or a long key. And only a bounded number of end users per tenant is tracked at a time: all others share
the limits of one. An end user is forgotten once everything that it took has been refilled.
"""

import hashlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping

from sluice.config.resources import windows_by_resource
from sluice.config.types import CallLimits, EndUsers
from sluice.errors import BadRequest, Forbidden, NotFound
from sluice.identity.principal import Principal
from sluice.model.chat import ChatRequest
from sluice.wire.fields import as_text

END_USER = "end_user"
BODY, TOKEN, HEADER = "body", "token", "header:"
"""Sources of the name: the body's field, the caller's token, a request header."""
OTHERS = "other"
"""The shared name of all end users that are not tracked."""
MAX_NAME_LENGTH = 1024
"""Maximum characters of a name; a longer one is not tracked."""
TOTAL = 100_000
"""End users that a process tracks, of all tenants together."""
MIN_TRACKED_SECONDS = 3600.0
"""Minimum seconds for which a silent end user stays tracked."""
PERIODS = {"day": 86400.0, "week": 7 * 86400.0, "month": 31 * 86400.0}


class TrackedUsers:
    """The end users that a process tracks, by the time of their last call. `clock` gives seconds and is
    monotonic."""

    def __init__(self, clock: Callable[[], float], total: int = TOTAL) -> None:
        self._clock = clock
        self._total = total
        self._seen: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._of_tenant: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._seen)

    def admit(self, tenant: str, user: str, most: int, idle: float) -> bool:
        """Returns whether this end user is tracked, among at most `most` of the tenant.

        One that was silent for `idle` seconds is forgotten.
        """
        now, seen = self._clock(), self._seen
        place = tenant, user
        if place in seen:
            seen[place] = now
            seen.move_to_end(place)
            return True
        if not self._has_room(tenant, most, idle):
            return False
        seen[place] = now
        self._of_tenant[tenant] += 1
        return True

    def would_admit(self, tenant: str, user: str, most: int, idle: float) -> bool:
        """Returns whether this end user is tracked, or would be by a call."""
        return (tenant, user) in self._seen or self._has_room(tenant, most, idle)

    def _has_room(self, tenant: str, most: int, idle: float) -> bool:
        """Forgets who was silent for `idle` seconds. Returns whether one more of the tenant can be tracked."""
        now, seen = self._clock(), self._seen
        while seen and now - next(iter(seen.values())) > idle:
            (of, _), _ = seen.popitem(last=False)
            self._of_tenant[of] -= 1
            if not self._of_tenant[of]:
                del self._of_tenant[of]
        return len(seen) < self._total and self._of_tenant[tenant] < most


class EndUserNames:
    """Reads the end user of a call. `folded` is called for each call of one that is not tracked."""

    def __init__(
        self, config: EndUsers, tracked: TrackedUsers, folded: Callable[[], object] = lambda: None
    ) -> None:
        self._tracked = tracked
        self._folded = folded
        self._most = config.most
        self._refuses = config.missing == "refuse"
        self._idle = longest_refill(config)
        self._sources = config.source

    def owner(self, principal: Principal, chat: ChatRequest, headers: Mapping[str, str]) -> str:
        """Returns the owner of the end user's limits for this call; "" if it names none. Raises BadRequest if
        it must name one.
        """
        name = next(filter(None, (_named(source, principal, chat, headers) for source in self._sources)), "")
        if not name:
            if self._refuses:
                raise BadRequest(f"Say who the end user is ({', '.join(self._sources)})", param="user")
            return ""
        user = digest_of_user(name)
        if user == OTHERS or not self._tracked.admit(principal.tenant, user, self._most, self._idle):
            self._folded()
            user = OTHERS
        return end_user(principal.tenant, user)

    def known(self, principal: Principal, name: str, headers: Mapping[str, str]) -> str:
        """Returns the owner for a query of limits: of the end user of this `name`, or ("") of the one that
        the token or a header names; "" if there is none.

        A key acts for all end users of its tenant, and may query each. A JWT is a person's: what a header says
        is that person's word, so a JWT may query the end user that it names itself. One that shares the limits
        of all that are not tracked has nothing of its own to show. A query does not make it tracked. Raises
        Forbidden, NotFound.
        """
        wanted = name = name.strip()
        if principal.kind == "jwt":
            own = principal.user if TOKEN in self._sources else ""
            if name and name != own:
                raise Forbidden(
                    "A token may query the limits of the end user that it names itself, by the source token"
                )
            name = own
        elif not name:
            name = next(
                filter(None, (_named(source, principal, None, headers) for source in self._sources)), ""
            )
        if not name:
            return ""
        tenant, user = principal.tenant, digest_of_user(name)
        if user != OTHERS and self._tracked.would_admit(tenant, user, self._most, self._idle):
            return end_user(tenant, user)
        if wanted:
            raise NotFound(
                "This end user has no limits of its own now: it shares those of all beyond limits.end_users.most"
            )
        return ""


def end_user(tenant: str, user: str) -> str:
    """Returns the owner of an end user's limits. A digest has no "|", so different pairs never make the same
    name."""
    return f"{tenant}|{user}"


def digest_of_user(name: str) -> str:
    """Returns the digest of a name: 128 bits in hex, or OTHERS."""
    if len(name) > MAX_NAME_LENGTH:
        return OTHERS
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def longest_refill(limits: CallLimits) -> float:
    """Returns the seconds after which everything that one call took has been refilled, or its budget's period
    has ended.
    """
    times = [
        window.capacity / window.rate for _, windows in windows_by_resource(limits) for window in windows
    ]
    if (budget := limits.budget) is not None:
        times += [seconds for period, seconds in PERIODS.items() if getattr(budget, period) is not None]
    return max([MIN_TRACKED_SECONDS, *times])


def _named(source: str, principal: Principal, chat: ChatRequest | None, headers: Mapping[str, str]) -> str:
    if source == BODY:
        return _in_body(chat) if chat is not None else ""
    if source == TOKEN:
        return principal.user or (principal.session_prefix if principal.kind == "browser" else "")
    return as_text(headers.get(source.removeprefix(HEADER).lower(), "")).strip()


def _in_body(chat: ChatRequest) -> str:
    """Returns OpenAI's `user` (or `safety_identifier`), or Anthropic's `metadata.user_id`."""
    if chat.user or chat.wire is None:
        return chat.user.strip()
    found = chat.wire.get("user") or chat.wire.get("safety_identifier")
    return found.strip() if isinstance(found, str) else ""

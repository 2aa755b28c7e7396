"""Tells end users apart: the people that a key's owner acts for, each under limits of its own.

Names come from callers, so two things are bounded. A name is known by a digest alone, so that no store has it, nor a long key.
And only so many end users of a tenant are told apart at a time: all others of the tenant share the limits of one. Who has
been silent until everything that it took has been refilled needs no place any more.
"""

import hashlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping

from sluice.config.resources import windows_by_resource
from sluice.config.types import CallLimits, EndUsers
from sluice.errors import BadRequest
from sluice.identity.principal import Principal
from sluice.model.chat import ChatRequest

END_USER = "end_user"
BODY, TOKEN, HEADER = "body", "token", "header:"
"""Sources of the name: the body's field, the caller's token, a header of the request."""
OTHERS = "other"
"""Who all are that are not told apart."""
LONGEST = 1024
"""Characters of a name; a longer one is not told apart."""
TOTAL = 100_000
"""End users that a process tells apart, of all tenants together."""
SHORTEST = 3600.0
"""Seconds for which a silent end user keeps its place at least."""
PERIODS = {"day": 86400.0, "week": 7 * 86400.0, "month": 31 * 86400.0}


class TrackedUsers:
    """The end users that a process tells apart, by when each was last seen. `clock` gives seconds and is monotonic."""

    def __init__(self, clock: Callable[[], float], total: int = TOTAL) -> None:
        self._clock = clock
        self._total = total
        self._seen: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._of_tenant: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._seen)

    def admit(self, tenant: str, user: str, most: int, idle: float) -> bool:
        """Whether this one is told apart from the tenant's others, of whom at most `most` are.

        Who was silent for `idle` seconds loses its place.
        """
        now, seen = self._clock(), self._seen
        place = tenant, user
        if place in seen:
            seen[place] = now
            seen.move_to_end(place)
            return True
        while seen and now - next(iter(seen.values())) > idle:
            (of, _), _ = seen.popitem(last=False)
            self._of_tenant[of] -= 1
            if not self._of_tenant[of]:
                del self._of_tenant[of]
        if len(seen) >= self._total or self._of_tenant[tenant] >= most:
            return False
        seen[place] = now
        self._of_tenant[tenant] += 1
        return True


class EndUserNames:
    """Reads who a call is for. `folded` is called for each call of somebody who is not told apart."""

    def __init__(self, config: EndUsers, tracked: TrackedUsers, folded: Callable[[], object] = lambda: None) -> None:
        self._tracked = tracked
        self._folded = folded
        self._most = config.most
        self._refuses = config.missing == "refuse"
        self._idle = longest_refill(config)
        self._sources = config.source

    def owner(self, principal: Principal, chat: ChatRequest, headers: Mapping[str, str]) -> str:
        """Whose limits this call is under; "" where it names nobody. Raises BadRequest if it has to."""
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
        """The same for who asks what is left: of the end user of this `name`, or of whom its token or a header names.

        Nobody gets a place by being asked for.
        """
        others = (_named(source, principal, None, headers) for source in self._sources)
        name = name or next(filter(None, others), "")
        return end_user(principal.tenant, digest_of_user(name)) if name else ""


def end_user(tenant: str, user: str) -> str:
    """The owner of an end user's limits. A digest has no "|", so different pairs never make the same name."""
    return f"{tenant}|{user}"


def digest_of_user(name: str) -> str:
    """By what a name is known: 128 bits in hex, or OTHERS."""
    if len(name) > LONGEST:
        return OTHERS
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def longest_refill(limits: CallLimits) -> float:
    """Seconds after which everything that one call took has been refilled, or its budget's period has ended."""
    times = [window.capacity / window.rate for _, windows in windows_by_resource(limits) for window in windows]
    if (budget := limits.budget) is not None:
        times += [seconds for period, seconds in PERIODS.items() if getattr(budget, period) is not None]
    return max([SHORTEST, *times])


def _named(source: str, principal: Principal, chat: ChatRequest | None, headers: Mapping[str, str]) -> str:
    if source == BODY:
        return _in_body(chat) if chat is not None else ""
    if source == TOKEN:
        return principal.user or (principal.session_prefix if principal.kind == "browser" else "")
    return headers.get(source.removeprefix(HEADER).lower(), "").strip()


def _in_body(chat: ChatRequest) -> str:
    """OpenAI's `user` (or `safety_identifier`), Anthropic's `metadata.user_id`."""
    if chat.user or chat.wire is None:
        return chat.user.strip()
    found = chat.wire.get("user") or chat.wire.get("safety_identifier")
    return found.strip() if isinstance(found, str) else ""

"""Chooses an upstream's credential for each request; a refused one has a cool-down. Pure: clock and
randomness are passed in.

Credentials take turns by weight (smooth weighted round robin, as in nginx: three to one gives a a b a, not a
a a b). A credential that the provider refuses has a cool-down of its own: after a 429 for its Retry-After;
after a refused key or an account without money for 15 s, doubling up to 5 min with each further refusal. The
next call then tests it. If all are in a cool-down, the one that is usable soonest is taken.
"""

from collections.abc import Callable, Collection, Sequence
from enum import IntEnum
from typing import Literal, Protocol

from sluice.backends.credentials import Credential
from sluice.errors import UpstreamError

REFUSED_FOR, REFUSED_MAX = 15.0, 300.0
"""Seconds of cool-down of a refused credential: the first one, and the maximum."""
LIMITED_FOR, LIMITED_MAX = 1.0, 60.0
"""Seconds of cool-down after a 429: without a Retry-After, and at most with one."""

Reason = Literal["bad_credentials", "billing", "rate_limited", "unavailable"]
"""Why a credential could not be used; `unavailable`: it had no key or token."""
REASONS: tuple[Reason, ...] = ("bad_credentials", "billing", "rate_limited", "unavailable")


class CredentialState(IntEnum):
    """Values of the metric `credential_state`."""

    USABLE = 0
    COOLING_DOWN = 1


class CredentialWatcher(Protocol):
    """Is notified of refusals of one credential."""

    def refused(self, reason: Reason, seconds: float) -> None:
        """Notes that a request was refused, or could not be made; the credential is not used for
        `seconds`."""

    def accepted(self) -> bool:
        """Notes that a request succeeded after `refused`. Returns whether the refusal is over; else the next
        success calls this, too.
        """
        return True


class PooledCredential:
    """One credential of an upstream."""

    __slots__ = ("cool_until", "credential", "current", "name", "refusals", "troubled", "watcher", "weight")

    def __init__(self, name: str, weight: float, credential: Credential, watcher: CredentialWatcher) -> None:
        self.name = name
        self.weight = weight
        self.credential = credential
        self.watcher = watcher
        self.current = 0.0
        self.cool_until = 0.0
        self.refusals = 0
        self.troubled = False


class CredentialPool:
    """`clock` is monotonic, in seconds; `chance` in [0, 1) sets the start of the rotation, so that processes
    differ."""

    def __init__(
        self, members: Sequence[PooledCredential], clock: Callable[[], float], chance: Callable[[], float]
    ) -> None:
        self.members = members
        self._clock = clock
        for member in members:
            member.current = member.weight * chance()

    def pick(self, tried: Collection[PooledCredential] = ()) -> PooledCredential | None:
        """Returns the credential to use. After a request's first attempt only a usable one, or None."""
        if len(self.members) == 1:
            return None if tried else self.members[0]
        now = self._clock()
        usable = [member for member in self.members if member not in tried and now >= member.cool_until]
        if not usable:
            return None if tried else min(self.members, key=_usable_at)
        weighted = [member for member in usable if member.weight > 0] or usable[:1]
        total = 0.0
        for member in weighted:
            member.current += member.weight
            total += member.weight
        best = max(weighted, key=_turn)
        best.current -= total
        return best

    def refused(self, member: PooledCredential, reason: Reason, retry_after: float | None = None) -> None:
        """Starts a credential's cool-down."""
        if reason == "rate_limited":
            seconds = min(retry_after or LIMITED_FOR, LIMITED_MAX)
        else:
            seconds = min(max(retry_after or 0.0, REFUSED_FOR * 2.0 ** min(member.refusals, 5)), REFUSED_MAX)
            member.refusals += 1
        if reason == "unavailable":  # it fetches its key by itself, and is usable as soon as it has one
            seconds = LIMITED_FOR
        member.cool_until = max(member.cool_until, self._clock() + seconds)
        member.troubled = True
        member.watcher.refused(reason, seconds)

    def accepted(self, member: PooledCredential) -> None:
        """Notes that a request with this credential was answered."""
        if member.troubled:
            member.refusals = 0
            member.cool_until = 0.0
            member.troubled = not member.watcher.accepted()

    def wait(self) -> float:
        """Returns the seconds until one is usable; 0.0 if one is."""
        return max(0.0, min(member.cool_until for member in self.members) - self._clock())

    def standing(self, member: PooledCredential) -> CredentialState:
        return CredentialState.COOLING_DOWN if self._clock() < member.cool_until else CredentialState.USABLE


def reason_of(error: UpstreamError) -> Reason | None:
    """Returns why the provider refused the account, rather than the request; None if it did not."""
    match error.kind:
        case "bad_credentials" | "billing" | "rate_limited" as kind:
            return kind
    return None


def _usable_at(member: PooledCredential) -> float:
    return member.cool_until


def _turn(member: PooledCredential) -> float:
    return member.current

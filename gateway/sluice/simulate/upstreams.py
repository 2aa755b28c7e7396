"""A modelled upstream: its answers, and when they come. Clock and randomness are passed in; nothing waits
here.

The provider's own limits are token buckets like the gateway's (`sluice.limits.memory`).
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Literal

import msgspec

from sluice.config.types import Limit
from sluice.limits import Claim
from sluice.limits.memory import MemoryStore
from sluice.policies.claims import bucket_of
from sluice.simulate.scenario import Clock, Dice, Observed, Outage, Spread, UpstreamModel, draw

MIN_RETRY_AFTER = 0.001
"""Minimum seconds of a Retry-After."""

Kind = Literal["answer", "refuse", "hang", "error"]
End = Literal["done", "cut", "stall"]


class ModelledAnswer(msgspec.Struct, frozen=True, gc=False):
    """An answer. `first`: seconds from the beginning of its processing to the first token; `token`: between
    two tokens. `tokens` are sent, then it ends as `end`. An error has a `status`, and `retry_after` in
    seconds unless that is 0; it comes after `first`."""

    kind: Kind
    first: float = 0.0
    token: float = 0.0
    tokens: int = 0
    end: End = "done"
    status: int = 200
    retry_after: float = 0.0


class ModelledUpstream:
    """One upstream, or one model of it. `first_token` and `token` replace the scenario's values if they were
    observed."""

    def __init__(
        self,
        label: str,
        model: UpstreamModel,
        clock: Clock,
        dice: Dice,
        *,
        first_token: Observed | None = None,
        token: Observed | None = None,
    ) -> None:
        self.label = label
        self.model = model
        self._clock = clock
        self._began = clock()
        self._dice = dice
        self._first_token: Spread = first_token or model.first_token
        self._token: Spread = token or model.token
        self._limits = MemoryStore(clock, wall=clock)
        self._waiting: OrderedDict[Callable[[], object], None] = OrderedDict()
        self.requests = 0
        self.refused = 0
        """Calls that its own limits refused."""
        self.streaming = 0
        self.most = 0
        """The maximum number of answers at a time."""
        self.longest_line = 0
        """The maximum number of calls that waited for a place."""

    def answer(self, input: int, output: int, max_tokens: int = 0) -> ModelledAnswer:
        """Returns the answer to a request with `input` tokens, which would have `output` tokens. Counts
        against the provider's limits."""
        model, dice = self.model, self._dice
        self.requests += 1
        outage = self._outage()
        if outage is not None:
            match outage.kind:
                case "refuse":
                    return ModelledAnswer("refuse")
                case "hang":
                    return ModelledAnswer("hang")
                case "error":
                    return ModelledAnswer("error", model.error_after, status=500)
                case "overloaded":
                    return ModelledAnswer("error", model.error_after, status=503)
        wait = self._over_limit(input + (max_tokens or output))
        if wait:
            self.refused += 1
            return ModelledAnswer(
                "error", model.error_after, status=429, retry_after=max(MIN_RETRY_AFTER, wait)
            )
        if model.errors and dice.random() < model.errors:
            return ModelledAnswer("error", model.error_after, status=500)
        return self._tokens(input, output, outage)

    def _tokens(self, input: int, output: int, outage: Outage | None) -> ModelledAnswer:
        model, dice = self.model, self._dice
        first = draw(self._first_token, dice) + model.prefill * input / 1000
        token = draw(self._token, dice)
        if model.slowed_by is not None:
            token *= 1 + self.streaming / model.slowed_by
        end: End = "done"
        if outage is not None and outage.kind == "slow":
            first, token = first * outage.factor, token * outage.factor
        elif outage is not None and outage.kind == "stall":
            end, output = "stall", 1
        elif output > 1 and (outage is not None or (model.cuts and dice.random() < model.cuts)):
            end, output = "cut", 1 + dice.randrange(output - 1)
        return ModelledAnswer("answer", first, token, output, end)

    def _outage(self) -> Outage | None:
        if not self.model.outages:
            return None
        now = self._clock() - self._began
        for outage in self.model.outages:
            if outage.at <= now < outage.at + outage.lasts and (
                outage.share >= 1 or self._dice.random() < outage.share
            ):
                return outage
        return None

    def _over_limit(self, tokens: int) -> float:
        """Returns the seconds until the provider's limits would admit the request; 0.0 if they do now."""
        claims = []
        for name, limit, amount in (
            ("requests", self.model.requests, 1),
            ("tokens", self.model.tokens, tokens),
        ):
            if limit is not None:
                claims.append(_claim(name, limit, amount))
        if not claims:
            return 0.0
        verdict = self._limits.take_now(claims)
        return 0.0 if verdict.admitted else min(verdict.retry_after, 3600.0)

    # --- places

    def enter(self, start: Callable[[], object]) -> bool:
        """Returns whether there is a place now; if not, `start` is called when there is one."""
        if self.model.places is not None and self.streaming >= self.model.places:
            self._waiting[start] = None
            self.longest_line = max(self.longest_line, len(self._waiting))
            return False
        self._take_place()
        return True

    def leave(self, start: Callable[[], object]) -> None:
        """Ends the answer that entered with `start`, or removes it if it is not needed any more."""
        if start in self._waiting:
            del self._waiting[start]
            return
        self.streaming -= 1
        if self._waiting:
            following, _ = self._waiting.popitem(last=False)
            self._take_place()
            following()

    def _take_place(self) -> None:
        self.streaming += 1
        self.most = max(self.most, self.streaming)


def _claim(name: str, limit: Limit, amount: float) -> Claim:
    return Claim(name, bucket_of(limit), min(amount, limit.capacity), "upstream", name)

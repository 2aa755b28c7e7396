"""Collects the outcomes and times of simulated calls."""

from array import array
from collections import Counter
from collections.abc import Sequence

from sluice.errors import GatewayError, NoCapacity, RateLimited, UpstreamError
from sluice.frontends.statuses import status_of
from sluice.proxy.attempt import NO_USAGE
from sluice.proxy.call import Call

LEFT = "client left"
OK = "ok"
PERCENTS = (50.0, 90.0, 95.0, 99.0, 99.9)


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Returns the percentile of sorted values by nearest rank; 0.0 if there are none."""
    if not ordered:
        return 0.0
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(0, min(len(ordered), int(rank)) - 1)]


MAX_TIME = 100 * 86400
"""Maximum seconds: later times count as this."""


class Timeline:
    """Levels over time, one number per second: `add` raises the level between two moments."""

    def __init__(self) -> None:
        self._changes = array("d")

    def at(self, second: int, amount: float) -> None:
        """Counts an event at a moment: a level that lasts one second."""
        self._change(second, amount)
        self._change(second + 1, -amount)

    def add(self, begin: float, end: float, level: float) -> None:
        self._change(int(begin), level)
        self._change(max(int(end), int(begin) + 1), -level)

    def levels(self) -> list[float]:
        found, level = [], 0.0
        for change in self._changes:
            level += change
            found.append(level if abs(level) > 1e-9 else 0.0)
        return found

    def _change(self, second: int, by: float) -> None:
        second = min(second, MAX_TIME)
        missing = second + 1 - len(self._changes)
        if missing > 0:
            self._changes.frombytes(bytes(8 * (missing + 600)))
        self._changes[second] += by


class AliasFigures:
    """The figures of one alias, or of all: outcomes, and times in seconds, in the order in which calls ended."""

    def __init__(self) -> None:
        self.calls = 0
        self.outcomes: Counter[str] = Counter()
        self.first_token = array("d")
        self.duration = array("d")
        self.waited = array("d")


class TargetFigures:
    """The figures of one target. `first_token` in seconds."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.first_token = array("d")
        self.input = 0
        self.output = 0
        self.cost = 0.0
        self.unpriced = 0


class Measured:
    """Counts finished calls. `since`: calls that arrived earlier are not counted. Times are seconds since the
    beginning."""

    def __init__(self, since: float = 0.0) -> None:
        self._since = since
        self.all = AliasFigures()
        self.aliases: dict[str, AliasFigures] = {}
        self.targets: dict[str, TargetFigures] = {}
        self.keys: dict[str, Counter[str]] = {}
        self.refusals: Counter[str] = Counter()
        self.attempts = 0
        self.failed_over = 0
        self.retries = 0
        """Requests that clients sent again."""
        self.cost = 0.0
        self.unpriced = 0
        self.tokens = 0
        self.warmup_calls = 0
        self.requests = Timeline()
        self.answered = Timeline()
        self.refused = Timeline()
        self.failed = Timeline()
        self.streams = Timeline()
        self.token_rate = Timeline()
        self.cost_over_time = Timeline()
        """US dollars, by the second in which the calls ended."""
        self.first_token = array("d")
        self.first_token_at = array("d")
        """When the calls arrived whose times to the first token are in `first_token`."""

    def over(
        self,
        call: Call | None,
        error: GatewayError | None,
        *,
        alias: str,
        key: str,
        begun: float,
        ended: float,
        left: bool,
    ) -> str:
        """Counts a finished request; returns its outcome. `call`: None if it was refused before it became
        one."""
        error = error or (call.error if call is not None else None)
        outcome = LEFT if left else outcome_of(error, call)
        self._over_time(call, outcome, begun, ended)
        if begun < self._since:
            self.warmup_calls += 1
            return outcome
        figures = self.aliases.get(alias)
        if figures is None:
            figures = self.aliases[alias] = AliasFigures()
        of_key = self.keys.get(key)
        if of_key is None:
            of_key = self.keys[key] = Counter()
        of_key[outcome] += 1
        if isinstance(error, RateLimited | NoCapacity) and not left:
            self.refusals[f"{error.scope} {error.resource}"] += 1
        elif outcome == "429":
            self.refusals["provider"] += 1
        for each in (self.all, figures):
            each.calls += 1
            each.outcomes[outcome] += 1
            if call is None:
                continue
            if outcome == OK:
                each.duration.append(ended - begun)
                if call.ttft is not None:
                    each.first_token.append(call.ttft)
            if call.attempts:
                each.waited.append(max(0.0, call.attempts[0].started - call.received))
        if call is not None:
            self._attempts(call)
        return outcome

    def _attempts(self, call: Call) -> None:
        attempts = call.attempts
        self.attempts += len(attempts)
        if len(attempts) > 1:
            self.failed_over += 1
        for attempt in attempts:
            label = attempt.target.label
            figures = self.targets.get(label)
            if figures is None:
                figures = self.targets[label] = TargetFigures()
            figures.outcomes[attempt.outcome] += 1
            if attempt.first_token is not None:
                figures.first_token.append(attempt.first_token)
            used = attempt.used
            if used is NO_USAGE:
                continue
            figures.input += used.input
            figures.output += used.output
            self.tokens += used.input + used.output
            if attempt.cost is not None:
                figures.cost += attempt.cost
                self.cost += attempt.cost
            else:
                figures.unpriced += 1
                self.unpriced += 1

    def _over_time(self, call: Call | None, outcome: str, begun: float, ended: float) -> None:
        second = int(begun)
        self.requests.at(second, 1.0)
        line = self.answered if outcome == OK else self.refused if outcome == "429" else self.failed
        line.at(second, 1.0)
        if call is None or not call.attempts:
            return
        self.streams.add(begun, ended, 1.0)
        if outcome == OK and call.ttft is not None:
            self.first_token_at.append(begun)
            self.first_token.append(call.ttft)
        cost = sum(attempt.cost or 0.0 for attempt in call.attempts)
        if cost:
            self.cost_over_time.at(int(ended), cost)
        output = call.answered.used.output if call.answered is not None else 0
        if output and call.ttft is not None:
            spans = max(1, int(ended) - int(begun + call.ttft))
            self.token_rate.add(begun + call.ttft, ended, output / spans)


def outcome_of(error: GatewayError | None, call: Call | None) -> str:
    """Returns `ok`, the status of an error, or how a stream broke."""
    if error is None:
        return OK if call is None or call.end in ("done", "length", "content_filter") else call.end
    if call is not None and call.answered is not None and isinstance(error, UpstreamError):
        return f"broken: {error.kind}"
    return str(status_of(error))

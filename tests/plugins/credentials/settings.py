"""What the tests of credentials share: a setting with clocks that a test sets, and what was told."""

from collections.abc import Mapping

from sluice.backends.credentials import CredentialFailed, FetchedAnswer, Setting
from sluice.backends.transport import UpstreamRequest


class World:
    """`now` is both clocks; `chances` is what chance says; `answers` is what `fetch` gives, one after the
    other."""

    def __init__(self, environ: Mapping[str, str] | None = None, *, backend: object = None) -> None:
        self.now = 1_800_000_000.0
        self.chance = 0.5
        self.failures: list[str] = []
        self.recoveries = 0
        self.requests: list[UpstreamRequest] = []
        self.answers: list[FetchedAnswer | CredentialFailed] = []
        self.setting = Setting(
            backend=backend,
            clock=lambda: self.now,
            wall=lambda: self.now,
            chance=lambda: self.chance,
            fetch=self._fetch,
            failed=self.failures.append,
            recovered=self._recovered,
            environ=environ or {},
        )

    def _recovered(self) -> None:
        self.recoveries += 1

    async def _fetch(self, request: UpstreamRequest) -> FetchedAnswer:
        self.requests.append(request)
        answer = self.answers.pop(0) if self.answers else CredentialFailed("nobody answers")
        if isinstance(answer, CredentialFailed):
            raise answer
        return answer


REQUEST = UpstreamRequest("http://127.0.0.1/v1", (("content-type", "application/json"),), b"{}")

"""Builds an upstream's transport with the credentials of its configuration."""

import os
import random
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from sluice.backends.credentials import ConfiguredCredential, Fixed, Setting
from sluice.backends.protocol import Backend
from sluice.backends.transport import Headers, Transport
from sluice.errors import ACCOUNTS_FAULT
from sluice.telemetry.metrics import Metrics
from sluice.telemetry.notices import CredentialNotices, Notices
from sluice.upstream.authorized import AuthorizedTransport
from sluice.upstream.credential_pool import CredentialPool, PooledCredential
from sluice.upstream.fetching import fetch

Build = Callable[[Headers, Iterable[str]], Transport]
"""Makes the transport, given the headers of every request and the names of headers that are written for each
request when it is signed."""


class Accounts:
    """Makes the credentials of upstreams, and reports their state in metrics and the log."""

    def __init__(
        self, metrics: Metrics, notices: Notices, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._metrics = metrics
        self._notices = notices
        self._clock = clock

    def transport(
        self, upstream: str, backend: Backend, configured: Sequence[ConfiguredCredential], build: Build
    ) -> Transport:
        """Makes a transport with these credentials. A single static key is part of all request heads, like
        `api_key`.
        """
        if not configured:
            return build(backend.credentials(), ())
        first = configured[0].kind
        if len(configured) == 1 and isinstance(first, Fixed):
            return build(first.headers(backend), ())
        members = [self._member(upstream, backend, credential) for credential in configured]
        signed = frozenset[str]().union(*(member.credential.fields for member in members))
        pool = CredentialPool(members, self._clock, random.random)
        return AuthorizedTransport(build((), signed), pool, backend.error)

    def follow(self, upstream: str, transport: Transport) -> None:
        """Shows the state of this transport's credentials in the metrics, and logs its changes."""
        if not isinstance(transport, AuthorizedTransport):
            return
        for member in transport.pool.members:
            for reason in sorted(ACCOUNTS_FAULT):
                self._metrics.zero("credential_errors", upstream, member.name, reason)
            standing = partial(transport.pool.standing, member)
            self._metrics.computed("credential_state", standing, upstream, member.name).kept = True
            if isinstance(member.watcher, CredentialNotices):
                member.watcher.muted = False

    def mute(self, transport: Transport) -> None:
        """Stops logging changes of these credentials."""
        if isinstance(transport, AuthorizedTransport):
            for member in transport.pool.members:
                if isinstance(member.watcher, CredentialNotices):
                    member.watcher.mute()

    def _member(self, upstream: str, backend: Backend, configured: ConfiguredCredential) -> PooledCredential:
        def count(reason: str) -> None:
            self._metrics.child("credential_errors", upstream, configured.name, reason).inc()

        notices = CredentialNotices(self._notices, upstream, configured.name, count)
        setting = Setting(
            backend=backend,
            clock=self._clock,
            wall=time.time,
            chance=random.random,
            fetch=fetch,
            failed=notices.failed,
            recovered=notices.recovered,
            environ=os.environ,
        )
        return PooledCredential(configured.name, configured.weight, configured.kind.open(setting), notices)

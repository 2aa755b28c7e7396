"""Connections to upstreams, shared by all snapshots that reach an upstream in the same way."""

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

from sluice.backends.credentials import ConfiguredCredential
from sluice.backends.protocol import Backend
from sluice.backends.transport import Headers, Transport
from sluice.config.types import Upstream, UpstreamTls
from sluice.runtime.credentials import Accounts
from sluice.runtime.shared import Shared
from sluice.telemetry.notices import Notices
from sluice.upstream import HttpTransport, IdleConnections
from sluice.upstream.proxies import proxy_for
from sluice.upstream.request import origin_of
from sluice.upstream.tls import WatchedTls


class Transports:
    """Takes transports for snapshots. `idle` bounds the idle connections of all of them together."""

    def __init__(self, accounts: Accounts, idle: IdleConnections, notices: Notices) -> None:
        self._notices = notices
        self._accounts = accounts
        self._idle = idle
        self._shared: Shared[Transport] = Shared(lambda transport: transport.close())

    def __len__(self) -> int:
        return len(self._shared)

    def named(self, upstream: str) -> list[Transport]:
        """Returns all open transports to this upstream: several, if snapshots reach it in different ways."""
        return self._shared.named(upstream)

    def take(
        self,
        stack: AsyncExitStack,
        name: str,
        upstream: Upstream,
        backend: Backend,
        credentials: Sequence[ConfiguredCredential] = (),
    ) -> Transport:
        """Returns the transport to the upstream of this name; it is released when `stack` is closed.

        Two upstreams never share one: each has its own bound and figures. Raises ValueError for an address
        that cannot be used.
        """
        own = backend.transport()
        if own is not None:
            taken = self._shared.take(stack, name, backend, lambda: own)
            if taken is not own:
                stack.push_async_callback(own.close)
            return taken
        base_url: str = getattr(backend, "base_url", "")
        origin = origin_of(base_url)
        proxy = proxy_for(upstream.proxy.reveal(), origin, os.environ) if upstream.proxy is not None else None
        tls, max_age = upstream.tls, upstream.max_connection_age
        # requests are signed and refusals read by the backend, so another backend needs another transport
        proof: Any = (tuple(credentials), backend) if credentials else backend.credentials()
        terms = (origin, upstream.max_connections, proxy, tls, max_age, proof)

        def build(headers: Headers, signed: Iterable[str]) -> Transport:
            return HttpTransport(
                base_url,
                credentials=headers,
                signed=signed,
                max_connections=upstream.max_connections,
                proxy=proxy,
                tls=self._tls(name, tls) if tls != UpstreamTls() and origin.scheme == "https" else None,
                max_age=max_age,
                idle=self._idle,
            )

        return self._shared.take(
            stack, name, terms, lambda: self._accounts.transport(name, backend, credentials, build)
        )

    def _tls(self, upstream: str, options: UpstreamTls) -> WatchedTls:
        def failed(reason: str) -> None:
            self._notices.begin(
                ("tls_files", upstream), "warning", "tls_files_unusable", upstream=upstream, reason=reason
            )

        def replaced() -> None:
            self._notices.end(("tls_files", upstream), "tls_files_replaced")

        return WatchedTls(options, failed, replaced)

    def connections(self, upstream: str, state: str) -> int:
        """Returns the number of "open" or "idle" connections to this upstream, or of calls "waiting" for
        one."""
        return sum(getattr(transport, state, 0) for transport in self.named(upstream))

    def follow(self, transports: Mapping[str, Transport], before: Mapping[str, Transport]) -> None:
        """Shows the state of these credentials by upstream, and stops showing those of `before` that are not
        among them.
        """
        for name, transport in before.items():
            if transports.get(name) is not transport:
                self._accounts.mute(transport)
                self._notices.forget(("tls_files", name))
        for name, transport in transports.items():
            self._accounts.follow(name, transport)

"""The API's listener with TLS: logs and counts certificates and handshakes."""

import time
from collections.abc import Callable

from sluice.api.app import Api
from sluice.config.types import ServerTls
from sluice.runtime.state import ProcessState
from sluice.server.tls import FAILURES, Failure, Served, TlsListener, WatchedCertificate

DAY = 86400.0


class CertificateNotices:
    """Reports the certificate: a log line and a metric when its files are replaced, and a line per day when
    it expires soon.
    """

    def __init__(self, state: ProcessState, clock: Callable[[], float] = time.time) -> None:
        self._state = state
        self._clock = clock
        self._logged_at = 0.0
        self._ends = state.metrics.zero("tls_certificate_end_timestamp_seconds")
        for result in ("ok", "failed"):
            state.metrics.zero("tls_files_replaced", result)

    def shows(self, served: Served) -> None:
        """Shows this certificate's dates from now on."""
        self._ends.set(served.ends)
        self._logged_at = 0.0
        self.look(served)

    def replaced(self, served: Served) -> None:
        self._state.metrics.child("tls_files_replaced", "ok").inc()
        self._state.log.info("certificate_replaced", ends=_date(served.ends))
        self._state.notices.end(("certificate",), "certificate_usable")
        self.shows(served)

    def failed(self, reason: str) -> None:
        self._state.metrics.child("tls_files_replaced", "failed").inc()
        self._state.notices.begin(("certificate",), "warning", "certificate_unusable", reason=reason)

    def look(self, served: Served) -> None:
        """Logs once a day that the certificate expires soon."""
        now = self._clock()
        if served.ends_soon(now) and now - self._logged_at >= DAY:
            self._logged_at = now
            days = (served.ends - now) / DAY
            self._state.log.warning("certificate_ends_soon", ends=_date(served.ends), days=round(days, 1))


def _date(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def tls_listener(
    api: Api, state: ProcessState, tls: ServerTls, warn: Callable[..., object]
) -> tuple[TlsListener, WatchedCertificate]:
    """Returns a listener and its certificate, which is to be watched. Raises ValueError if its files cannot
    be used."""
    notices = CertificateNotices(state)
    protocols = ("h2", "http/1.1") if state.config.server.http2 else ("http/1.1",)
    certificate = WatchedCertificate(
        tls, protocols, failed=notices.failed, replaced=notices.replaced, looked=notices.look
    )
    notices.shows(certificate.now)
    failures = state.metrics.children("tls_handshake_errors", (), FAILURES)

    def broken_handshake(failure: Failure) -> None:
        failures[failure].inc()
        if failure not in ("closed", "timeout"):  # port scanners and probes of load balancers cause these
            warn("tls_handshake_failed", reason=failure)

    listener = TlsListener(
        api.__call__,
        state.config.server,
        state.records.broken,
        certificate=certificate,
        broken_handshake=broken_handshake,
        connections=state.places.clients,
        refused=state.places.refused,
        warn=warn,
    )
    return listener, certificate

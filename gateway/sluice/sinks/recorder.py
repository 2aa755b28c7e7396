"""Makes a draft of each finished call, and passes it to all sinks; drafts with texts are also passed to the
memory of the last calls for operators' pages."""

import asyncio
import os
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

from sluice.config.types import Alias, Config, Content
from sluice.config.types import Records as SinkConfig
from sluice.identity.principal import Principal
from sluice.proxy.call import Call
from sluice.sinks.causes import CAUSES, cause_of
from sluice.sinks.content import Texts, full, hashed, stricter
from sluice.sinks.delivery import Delivery
from sluice.sinks.record import Draft, fields_of
from sluice.sinks.spool import Result, Spool
from sluice.telemetry.logs import LogLine

RESULTS: tuple[Result, ...] = ("delivered", "refused", "dropped", "spilled")


class Recorder:
    """Makes and passes on the drafts.

    `clock` (monotonic) and `wall` (since the epoch) give seconds. `keep` gets the line of each call with
    texts, its draft, and the bytes of its texts. Raises OSError if a file or a directory cannot be used.
    """

    def __init__(
        self,
        config: Config,
        metrics: Any,
        log: Any,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        keep: Callable[[LogLine, Draft, int], object] | None = None,
    ) -> None:
        self._keep = keep
        self._log_config = config.log
        self._hash_key = config.log.hash_key.reveal().encode() if config.log.hash_key is not None else b""
        self._clock = clock
        self._wall = wall
        self._spools = [self._opened(sink, metrics, log) for sink in config.records]

    def _opened(self, sink: SinkConfig, metrics: Any, log: Any) -> Spool:
        try:
            return self._spool(sink, metrics, log)
        except OSError as error:
            why = f"the sink {sink.name} of call records: {error.strerror}"
            raise OSError(error.errno, why, error.filename) from error

    def _spool(self, sink: SinkConfig, metrics: Any, log: Any) -> Spool:
        series = {result: metrics.zero("call_records", sink.name, result) for result in RESULTS}

        def count(result: Result, records: int) -> None:
            series[result].inc(records)

        causes = {cause: metrics.zero("call_record_failures", sink.name, cause) for cause in CAUSES}

        def failed(reason: str) -> None:
            causes[cause_of(reason)].inc()

        def switched(reason: str) -> None:
            if reason:
                log.warning("records_failing", sink=sink.name, reason=reason)
            else:
                log.info("records_well", sink=sink.name)

        def lost(records: int) -> None:
            log.error("records_lost", sink=sink.name, records=records)

        spool = Spool(
            sink,
            delivery_of(sink, self._wall),
            count=count,
            switched=switched,
            failed=failed,
            lost=lost,
            clock=self._clock,
            wall=self._wall,
        )
        metrics.computed("call_records_waiting", partial(len, spool), sink.name).kept = True
        return spool

    def content(self, alias: Alias, principal: Principal) -> Content:
        """Returns which texts the record of a call has: the stricter setting of the alias and the caller."""
        mode = stricter(alias.log_content or self._log_config.content, principal.log_content)
        return "none" if mode == "hash" and not self._hash_key else mode

    def over(self, line: LogLine, call: Call) -> None:
        """Records a finished call; `line` is its log line."""
        texts = self._texts(call)
        if texts is None and not self._spools:
            return
        now = self._wall()
        draft = Draft(self._fields(line, call, now) if self._spools else {}, now, texts)
        if texts is not None and self._keep is not None:
            self._keep(line, draft, texts.held)
        for spool in self._spools:
            spool.add(draft)

    def _fields(self, line: LogLine, call: Call, now: float) -> dict[str, Any]:
        stamp = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return fields_of(line, call, self._clock() - call.received, stamp)

    def _texts(self, call: Call) -> Texts | None:
        if call.content == "none":
            return None
        if call.content == "hash":
            return hashed(call.chat.messages, call.text, self._hash_key)
        return full(call.chat.messages, call.text, self._log_config.content_chars)

    async def run(self) -> None:
        """Sends until it is cancelled; the rest is then sent, or kept on disk."""
        async with asyncio.TaskGroup() as sinks:
            for spool in self._spools:
                sinks.create_task(spool.run())


def delivery_of(sink: SinkConfig, wall: Callable[[], float]) -> Delivery:
    """Makes the sender of this sink. Raises OSError if its file cannot be opened."""
    if sink.file is not None:
        from sluice.sinks.files import RotatingFile

        return RotatingFile(sink.file, wall)
    if sink.otlp is not None:
        from sluice.sinks.otlp import OtlpLogs

        return OtlpLogs(sink.otlp, f"{os.uname().nodename}:{os.getpid()}")
    if sink.kafka is not None:
        from sluice.sinks.kafka import KafkaTopic

        return KafkaTopic(sink.kafka)
    from sluice.sinks.http import BucketSink, Webhook

    if sink.webhook is not None:
        return Webhook(sink.webhook)
    if sink.s3 is not None:
        return BucketSink(sink.s3, wall)
    raise ValueError("a sink has one of file, webhook, s3, otlp and kafka")

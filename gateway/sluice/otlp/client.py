"""Makes the client of a receiver, by its protocol; only that one is imported."""

from sluice.otlp.receiver import OtlpReceiver, ReceiverConfig, Signal


def receiver_of(config: ReceiverConfig, signal: Signal, deadline: float) -> OtlpReceiver:
    """Makes the client of a configured receiver; `deadline` in seconds is for each request."""
    if config.protocol == "grpc":
        from sluice.otlp.grpc import GrpcReceiver

        return GrpcReceiver(config, signal, deadline)
    from sluice.otlp.http import HttpReceiver

    return HttpReceiver(config, signal, deadline)

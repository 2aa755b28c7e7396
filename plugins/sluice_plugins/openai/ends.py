"""The end of an answer in this dialect: its finish reasons, and the usage that it reports."""

from sluice.model.events import Finished, FinishReason, Usage, believed
from sluice_plugins.openai.chunk import ReportedUsage, cache_writes

FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "model_context_window_exceeded": "length",  # Z.ai, Claude behind proxies: anomalyco/opencode#18813
    "max_output_tokens": "length",
    "tool_calls": "tool_calls",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "sensitive": "content_filter",
    "safety": "content_filter",
    "recitation": "content_filter",
    "prohibited_content": "content_filter",
    "blocklist": "content_filter",
}
COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")


def finished(native: str, usage: ReportedUsage | None) -> Finished:
    """Returns the event for a finish reason; an unknown reason counts as `stop`."""
    return Finished(FINISH.get(native.lower(), "stop"), usage_of(usage), native)


def usage_of(usage: ReportedUsage | None) -> Usage | None:
    """Returns the reported usage. Any two of input, output and total give the third; None if fewer are
    reported."""
    if usage is None:
        return None
    read, written, total = usage.prompt_tokens, usage.completion_tokens, usage.total_tokens or 0
    if read is None and written is None:
        read, written = usage.input_tokens, usage.output_tokens
    if read is None and written is None:
        return None
    if read is None:
        read = max(0, total - (written or 0))
    elif written is None:
        written = max(0, total - read)
    details = usage.prompt_tokens_details
    cached = details.cached_tokens if details is not None else None
    reasoning = (
        usage.completion_tokens_details.reasoning_tokens
        if usage.completion_tokens_details is not None
        else None
    )
    cached_anew, for_an_hour = cache_writes(details) if details is not None else (0, 0)
    return Usage(
        input=read,
        output=written or 0,
        cached_input=cached or usage.cached_tokens or usage.prompt_cache_hit_tokens or 0,
        reasoning=reasoning or 0,
        total=total if total != read + (written or 0) else 0,
        written_input=cached_anew,
        written_input_1h=for_an_hour,
    )


def newest_usage(usage: ReportedUsage, known: ReportedUsage | None) -> ReportedUsage:
    """Returns the newest usage, with missing fields taken from the usage before."""
    if known is not None and (usage.prompt_tokens is None or usage.completion_tokens is None):
        for name in ReportedUsage.__struct_fields__:
            if getattr(usage, name) is None:
                setattr(usage, name, getattr(known, name))
    return usage


def completed(usage: ReportedUsage) -> tuple[int, int, int] | None:
    """Returns the three counts that every client of the dialect reads (COUNTS); None if too few are reported,
    or if the numbers are impossible (`believed`)."""
    known = usage_of(usage)
    known = None if known is None else believed(known)
    return None if known is None else (known.input, known.output, known.tokens)

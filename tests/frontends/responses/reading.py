"""A strict reader of streamed Responses: each event in its place, as the documentation has it and SDKs put
answers together."""

import json
import re
from typing import Any

Value = dict[str, Any]
OURS = re.compile(r"resp_(r1|[0-9a-f]{32})")
"""Ids of our making."""


def events_of(body: bytes) -> list[Value]:
    """The events of a stream, comments left out; each frame has its type in both places, and they count up
    from 0."""
    events = []
    for frame in body.decode().split("\n\n"):
        lines = [line for line in frame.split("\n") if line and not line.startswith(":")]
        if not lines:
            continue
        fields = dict(line.split(": ", 1) for line in lines)
        value = json.loads(fields["data"])
        assert fields.get("event", value["type"]) == value["type"]
        events.append(value)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


class Reader:
    """Puts an answer together from its events, and holds that each is announced, told in pieces and told as a
    whole.

    `strict` holds for what we write; other servers' streams leave some of it out."""

    def __init__(self, *, strict: bool = True) -> None:
        self.strict = strict
        self.response: Value | None = None
        self.error: Value | None = None
        self.output: dict[int, Value] = {}
        self.open: dict[int, Value] = {}
        self.over = ""

    def read(self, body: bytes) -> "Reader":
        events = events_of(body)
        for event in events:
            assert not self.over
            self.take(event)
        return self

    def take(self, event: Value) -> None:
        kind = event["type"].removeprefix("response.")
        if kind == "created":
            self.strict = self.strict and OURS.fullmatch(event["response"]["id"]) is not None
        if kind == "error":
            assert event["error"]["message"] == event["message"]
            self.error = event
        elif kind in ("created", "in_progress"):
            assert event["response"]["status"] == "in_progress"
            assert (self.response is None) == (kind == "created")
            self.response = event["response"]
        elif kind in ("completed", "incomplete", "failed"):
            self.end(kind, event["response"])
        elif kind == "output_item.added":
            index = event["output_index"]
            assert index == len(self.output)
            self.output[index] = self.open[index] = {**event["item"], "_parts": []}
        elif kind == "output_item.done":
            self.done(event["output_index"], event["item"])
        else:
            item = self.open[event["output_index"]]
            assert item["id"] == event["item_id"]
            if self.strict:
                self.within(kind, event, item)

    def within(self, kind: str, event: Value, item: Value) -> None:
        match kind:
            case "content_part.added" | "reasoning_summary_part.added":
                assert event.get("content_index", event.get("summary_index")) == len(item["_parts"])
                item["_parts"].append(json.loads(json.dumps(event["part"])))
            case "output_text.delta" | "reasoning_summary_text.delta":
                item["_parts"][-1]["text"] += event["delta"]
            case "refusal.delta":
                item["_parts"][-1]["refusal"] += event["delta"]
            case "refusal.done":
                assert item["_parts"][-1]["refusal"] == event["refusal"]
            case "output_text.annotation.added":
                assert event["annotation_index"] == len(item["_parts"][-1]["annotations"])
                item["_parts"][-1]["annotations"].append(event["annotation"])
            case "output_text.done" | "reasoning_summary_text.done":
                assert item["_parts"][-1]["text"] == event["text"]
            case "content_part.done" | "reasoning_summary_part.done":
                assert item["_parts"][-1] == event["part"]
            case "function_call_arguments.delta":
                item["arguments"] += event["delta"]
            case "custom_tool_call_input.delta":
                item["input"] += event["delta"]
            case "function_call_arguments.done":
                assert event["arguments"] == item["arguments"] or (event["arguments"], item["arguments"]) == (
                    "{}",
                    "",
                )
                item["arguments"] = event["arguments"]
            case "custom_tool_call_input.done":
                assert event["input"] == item["input"]
            case "web_search_call.in_progress" | "web_search_call.completed" | "web_search_call.searching":
                assert item["type"] == "web_search_call"
            case _:
                raise AssertionError(kind)

    def done(self, index: int, item: Value) -> None:
        begun = self.open.pop(index)
        for field in ("id", "type", "name", "call_id", "arguments", "input") if self.strict else ():
            assert begun.get(field) == item.get(field)
        assert not self.strict or begun["_parts"] == item.get("content", item.get("summary", []))
        self.output[index] = item

    def end(self, kind: str, response: Value) -> None:
        assert self.response is not None
        assert (response["id"], response["status"]) == (self.response["id"], kind)
        finished = [self.output[index] for index in sorted(self.output) if index not in self.open]
        if self.strict:
            assert kind == "failed" or not self.open
            assert response["output"] == finished
        assert (response["error"] is not None) == (kind == "failed")
        self.over = kind
        self.response = response

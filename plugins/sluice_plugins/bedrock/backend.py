"""The backend for Amazon Bedrock's Converse API, streamed:
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html

It has one request format for the models of all vendors. The target's `model` is a model id, an inference
profile id, or an ARN. Requests are signed by credentials of the kind `aws`, or have a Bedrock API key as
Bearer token (`api_key`; AWS's AWS_BEARER_TOKEN_BEDROCK).

What is lost or changed in a request:
  - system messages, wherever they are, are joined into `system`;
  - images, files, audio and video are sent inline or are in S3 (`s3://`); http(s) URLs are refused;
  - `temperature` above 1 (OpenAI's range ends at 2) is sent as 1;
  - `response_format` of type json_schema becomes `outputConfig`, json_object a sentence at the end of `system`;
  - penalties, seed, log probabilities and the like are left out (config/models.yaml), and counted.

In this folder: `messages` (conversations), `tools`, `reasoning` (thinking, and options that only one family
of models has), `stream` (answers), `embeddings`, and `invoke` (Claude in Anthropic's own format).
"""

import re
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from urllib.parse import quote

import msgspec

from sluice.backends.protocol import Headers, Operation, UpstreamRequest
from sluice.config.types import Bytes, Secret
from sluice.errors import UpstreamError
from sluice.model.chat import ChatRequest
from sluice.model.rules import NO_RULES, ModelRules
from sluice.wire.baseurl import base_of
from sluice.wire.upstream_errors import upstream_error
from sluice_plugins.anthropic.schemas import answer_schema
from sluice_plugins.bedrock.media import Block
from sluice_plugins.bedrock.messages import Writing, message_blocks, system_blocks
from sluice_plugins.bedrock.reasoning import CLAUDE, fields_of, takes_cache_points
from sluice_plugins.bedrock.stream import ConverseDecoder
from sluice_plugins.bedrock.tools import own_choice, tool_config
from sluice_plugins.cohere.backend import InputType
from sluice_plugins.decoding import MAX_EVENT
from sluice_plugins.tool_ids import fitted_ids
from sluice_plugins.tool_order import results_first
from sluice_plugins.translation import check_endpoint, response_format

if TYPE_CHECKING:
    from sluice.backends.transport import Transport

ONLY_JSON = "Answer with one JSON object, and nothing before or after it."
"""Added to `system` for `response_format: json_object`."""
MODEL_FIELDS = "additionalModelRequestFields"
_REGION = re.compile(r"[a-z]{2,}(?:-[a-z]+)+-\d{1,2}\Z").match


class Guardrail(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A guardrail of Bedrock that checks prompts and answers."""

    id: str  # its identifier or ARN
    version: str = "DRAFT"  # a number, or DRAFT
    trace: Literal["enabled", "disabled", "enabled_full"] = "disabled"  # whether answers report what it found
    mode: Literal["sync", "async"] = "sync"  # async: text is sent before it was checked


def runtime_address(region: str) -> str:
    """Returns the address of Bedrock in a region. Raises ValueError for an invalid region.

    https://docs.aws.amazon.com/general/latest/gr/bedrock.html
    """
    if not _REGION(region):
        raise ValueError("write region, such as eu-central-1, or base_url")
    return f"https://bedrock-runtime.{region}.amazonaws.com" + (".cn" if region.startswith("cn-") else "")


class Bedrock(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, dict=True):
    """Amazon Bedrock in a `region`, or at `base_url` (a VPC endpoint, a proxy).

    `extra_body`: fields added to each request, those of `additionalModelRequestFields` one by one. `beta`:
    Anthropic's beta features, for Claude. `strict`: a malformed event is an error, otherwise it is skipped.
    `max_event`: most bytes of one event. `keep_stop`: forward `end_turn` after tool calls as `stop` instead
    of `tool_calls`.
    """

    dialect: ClassVar[str] = ""
    endings: ClassVar[tuple[str, ...]] = ("/model",)
    credential_kinds: ClassVar[tuple[str, ...]] = ("aws", "static", "file", "exec")
    takes: ClassVar[frozenset[str]] = frozenset({
        "image_data", "file_data", "input_audio", "video", "tool_images", "tools", "tool_choice_required",
        "tool_choice_named", "json_object", "json_schema", "parallel_tool_calls", "stop", "temperature", "top_p",
        "top_k", "reasoning_effort", "reasoning_budget", "cache_control",
    })  # fmt: skip
    rules: ClassVar[ModelRules] = NO_RULES

    region: str = ""  # a region of AWS, such as eu-central-1
    base_url: str = ""  # the address of its API; "": the region's own address
    api_key: Secret | None = None  # a Bedrock API key, sent as a Bearer token
    headers: dict[str, str] = {}  # headers added to every request
    guardrail: Guardrail | None = None  # the guardrail that checks prompts and answers
    latency: Literal["standard", "optimized"] | None = None  # performanceConfig.latency
    service_tier: Literal["priority", "default", "flex", "reserved"] | None = (
        None  # how requests are served and billed
    )
    beta: tuple[str, ...] = ()  # values of anthropic_beta, for Claude
    extra_body: dict[str, Any] = {}  # fields added to every request
    strict: bool = False  # whether a malformed event is an error
    max_event: Bytes = MAX_EVENT  # most bytes of one event
    input_type: InputType = "search_document"  # what embeddings are for, where the caller does not say
    keep_stop: bool = False  # whether stop after tool calls is forwarded as it is, instead of as tool_calls

    def __post_init__(self) -> None:
        if not self.base_url:
            msgspec.structs.force_setattr(self, "base_url", runtime_address(self.region))
        check_endpoint(self.base_url, self.headers)

    def request(self, chat: ChatRequest, model: str) -> UpstreamRequest:
        rules = self.rules
        claude = CLAUDE(model) is not None
        writing = Writing(caches=takes_cache_points(model), thoughts=rules.thinking != "never")
        wanted = response_format(chat.response_format)
        turns = message_blocks(chat, fitted_ids(results_first(chat.messages), rules.tool_ids), writing)
        fields = fields_of(chat, model, rules, self.extra_body.get(MODEL_FIELDS) or {}, turns)
        choice = own_choice(chat, claude=claude)
        stops = claude and bool(chat.sampling.stop)
        optional: Block = {
            "system": system_blocks(
                chat.messages, writing, ONLY_JSON if wanted.type == "json_object" else ""
            ),
            "inferenceConfig": fields.inference,
            "toolConfig": tool_config(chat, caches=writing.caches, claude=claude),
            "outputConfig": _output_config(chat.response_format),
            MODEL_FIELDS: fields.additional | ({"tool_choice": choice} if choice else {}),
            "additionalModelResponseFieldPaths": ["/delta/stop_sequence"] if stops else None,
            **self._own,
        }
        if claude and self.beta:
            optional[MODEL_FIELDS]["anthropic_beta"] = list(self.beta)
        body = {"messages": turns} | {name: value for name, value in optional.items() if value}
        if self.extra_body:
            body = _with_extra(body, self.extra_body)
        before, behind = self._around
        return UpstreamRequest(
            f"{before}{quote(model, safe='')}{behind}", self._headers, msgspec.json.encode(body)
        )

    def operation(self, name: str, dialect: str) -> Operation | None:
        if (name, dialect) != ("embeddings", "openai"):
            return None
        from sluice_plugins.bedrock.embeddings import Embeddings

        headers = tuple(
            [(name, "application/json" if name == "accept" else value) for name, value in self._headers]
        )
        return Embeddings(self._invoking, headers, self.input_type)

    def decoder(self, *, verbatim: bool = False) -> ConverseDecoder:
        return ConverseDecoder(strict=self.strict, max_event=self.max_event, keep_stop=self.keep_stop)

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        return upstream_error(status, headers, body)

    def transport(self) -> "Transport | None":
        return None

    def credentials(self) -> Headers:
        return (("authorization", f"Bearer {self.api_key.reveal()}"),) if self.api_key else ()

    @cached_property
    def _own(self) -> Block:
        """The configured fields of every request."""
        own: Block = {}
        if self.guardrail is not None:
            guardrail = self.guardrail
            own["guardrailConfig"] = {"guardrailIdentifier": guardrail.id, "guardrailVersion": guardrail.version,
                                      "trace": guardrail.trace, "streamProcessingMode": guardrail.mode}  # fmt: skip
        if self.latency is not None:
            own["performanceConfig"] = {"latency": self.latency}
        if self.service_tier is not None:
            own["serviceTier"] = {"type": self.service_tier}
        return own

    def _invoking(self, model: str) -> str:
        """Returns the URL of the model's InvokeModel."""
        base, query = base_of(self.base_url, self.endings)
        return f"{base}/model/{quote(model, safe='')}/invoke" + (f"?{query}" if query else "")

    @cached_property
    def _around(self) -> tuple[str, str]:
        """Returns the parts of a request's URL before and after the model."""
        base, query = base_of(self.base_url, self.endings)
        return f"{base}/model/", "/converse-stream" + (f"?{query}" if query else "")

    @cached_property
    def _headers(self) -> Headers:
        headers = {"accept": "application/vnd.amazon.eventstream", "content-type": "application/json"}
        return tuple((headers | {name.lower(): value for name, value in self.headers.items()}).items())


def _output_config(wanted: Mapping[str, Any] | None) -> Block | None:
    """Returns `outputConfig` for structured output, whose schema is JSON text:
    https://docs.aws.amazon.com/bedrock/latest/userguide/structured-output.html"""
    match wanted:
        case {"type": "json_schema", "json_schema": {"schema": schema, **rest}}:
            named = {
                name: rest[name]
                for name in ("name", "description")
                if isinstance(rest.get(name), str) and rest[name]
            }
            definition = {"schema": msgspec.json.encode(answer_schema(schema)).decode(), **named}
            return {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": definition}}}
        case _:
            return None


def _with_extra(body: Block, extra: Mapping[str, Any]) -> Block:
    """Returns the body with the configured fields. `thinking` and the fields that depend on it were already
    set from them."""
    added = extra.get(MODEL_FIELDS)
    if not isinstance(added, dict):
        return {**body, **extra}
    own = body.get(MODEL_FIELDS, {})
    joined = {name: value for name, value in added.items() if name != "thinking"} | own
    if isinstance(config := added.get("output_config"), dict):
        joined["output_config"] = own.get("output_config", {}) | config
    return {**body, **extra, MODEL_FIELDS: joined}

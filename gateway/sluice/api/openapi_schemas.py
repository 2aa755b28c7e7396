"""The JSON Schemas (2020-12) of what goes over the wire: the components of `sluice.api.openapi`. Any answer may hold more."""

from typing import Any

Schema = dict[str, Any]

STRING: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
SCOPES = ["key", "tenant", "alias", "upstream", "overall"]
PERIODS = ["day", "week", "month"]
ROLES = ["system", "developer", "user", "assistant", "tool", "function"]
ORIGIN = "^[a-z0-9]+://[^/?#*@ A-Z]+$"
SESSION = "^[A-Za-z0-9._:-]{1,128}$"


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def schemas(aliases: Schema) -> dict[str, Schema]:
    """All of them, by name. `aliases` is the schema of a model's name."""
    return {**_widget(aliases), **_openai(aliases), **_others(), **_keys()}


def _object(required: dict[str, Schema], optional: dict[str, Schema] | None = None, **more: Any) -> Schema:
    return {"type": "object", "properties": {**required, **(optional or {})}, "required": list(required), **more}


def _array(items: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": items, **more}


def _const(value: str) -> Schema:
    return {"type": "string", "const": value}


def _nullable(kind: str) -> Schema:
    return {"type": [kind, "null"]}


def _widget(aliases: Schema) -> dict[str, Schema]:
    finish = {"type": "string", "enum": ["stop", "length", "tool_calls", "content_filter"]}
    names = ("inputTokens", "outputTokens", "cachedInputTokens", "reasoningTokens")
    usage = _object(dict.fromkeys(names, COUNT))
    cost = {"type": "number", "minimum": 0, "description": "US dollars, where the gateway tells them (`prices.header`)."}
    extra = "Only with the full profile."
    index_and = {"index": COUNT}
    called = {"id": STRING, "name": STRING, "kind": {"type": "string", "enum": ["function", "server"]}}
    return {
        "ChatTurn": _object(
            {
                "sessionId": {"type": "string", "pattern": SESSION},
                "message": {
                    "type": "string",
                    "minLength": 1,
                    "description": "At most 4000 characters, unless the alias is configured otherwise.",
                },
            },
            {"model": aliases},
            description="One turn of a session whose history the gateway keeps. Unknown fields are ignored.",
        ),
        "ChatRequest": {
            "anyOf": [ref("ChatTurn"), ref("CompletionRequest")],
            "description": "A turn, or without `sessionId` and `message` a conversation that the caller keeps, as "
            "OpenAI writes it; whether it is streamed is said by the path.",
        },
        "ChatAnswer": _object({"conversationId": STRING, "message": STRING}),
        "ChatLine": {
            "description": "One line of the stream. Blank lines are heartbeats; skip them, and unknown types and fields. "
            "Lines of a stream that can be resumed have their number as `n`, too.",
            "oneOf": [
                _object({"type": _const("start"), "conversationId": STRING}, {"streamId": STRING}),
                _object({"type": _const("token"), "token": {**STRING, "minLength": 1}}),
                _object(
                    {"type": _const("done"), "message": STRING, "conversationId": STRING},
                    {"model": STRING, "finishReason": finish, "usage": usage, "cost": cost},
                    description="The last line on success. `message` is the whole text, trimmed, as history holds it.",
                ),
                _object(
                    {"type": _const("error"), "error": STRING},
                    {"code": STRING, "requestId": STRING},
                    description="The last line on failure.",
                ),
                _object({"type": _const("reasoning"), "text": STRING}, description=extra),
                _object({"type": _const("tool_call"), **index_and, **called}, description=extra),
                _object({"type": _const("tool_call_delta"), **index_and, "arguments": STRING}, description=extra),
                _object({"type": _const("reset")}, description=f"{extra} Forget the text so far: another answer begins."),
            ],
        },
        "Error": _object(
            {"error": {**STRING, "description": "A fixed text for each status."}},
            {
                "code": {**STRING, "description": "Stable, for programs."},
                "requestId": STRING,
                "reason": {**STRING, "description": "For people."},
                "details": _array(_object({"field": STRING, "reason": STRING}), description="With 400: which field, and why."),
            },
        ),
    }


def _openai(aliases: Schema) -> dict[str, Schema]:
    link = "https://platform.openai.com/docs/api-reference/chat"
    counts = dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), COUNT)
    head = {"id": STRING, "created": {"type": "integer"}, "model": STRING}
    error = _object({"message": STRING, "type": STRING, "param": _nullable("string"), "code": _nullable("string")})
    content: Schema = {"content": {"type": ["string", "array", "null"]}}
    said = _object({"role": {**STRING, "enum": ROLES}}, content)
    message = _object({"role": STRING}, content)
    finish = {"finish_reason": _nullable("string")}
    request = {
        "stream": _nullable("boolean"),
        "stream_options": {"type": ["object", "null"], "properties": {"include_usage": _nullable("boolean")}},
        "n": {"type": ["integer", "null"], "enum": [1, None]},
        "max_tokens": _nullable("integer"),
        "max_completion_tokens": _nullable("integer"),
        "temperature": _nullable("number"),
        "top_p": _nullable("number"),
        "stop": {"type": ["string", "array", "null"], "items": STRING},
        "seed": _nullable("integer"),
        "tools": {"type": ["array", "null"], "items": _object({"type": STRING})},
        "tool_choice": {"type": ["string", "object", "null"]},
        "parallel_tool_calls": _nullable("boolean"),
        "response_format": {"type": ["object", "null"]},
    }
    return {
        "CompletionRequest": _object(
            {"messages": _array(said, minItems=1)},
            {"model": aliases, **request},
            description=f"OpenAI's, see {link}. Fields that are not listed pass through to upstreams of the same dialect.",
        ),
        "Completion": _object(
            {
                **head,
                "object": _const("chat.completion"),
                "choices": _array(_object({"index": COUNT, "message": message, **finish})),
                "usage": {"oneOf": [ref("CompletionUsage"), {"type": "null"}]},
            }
        ),
        "CompletionChunk": _object(
            {
                **head,
                "object": _const("chat.completion.chunk"),
                "choices": _array(_object({"index": COUNT, "delta": {"type": "object"}}, finish)),
            },
            {"usage": {"oneOf": [ref("CompletionUsage"), {"type": "null"}]}},
            description="The data of one event of a stream.",
        ),
        "CompletionEvent": _object(
            {
                "data": {
                    "anyOf": [
                        _const("[DONE]"),
                        {
                            **STRING,
                            "contentMediaType": "application/json",
                            "contentSchema": {"oneOf": [ref("CompletionChunk"), ref("OpenAIError")]},
                        },
                    ]
                }
            },
            {"id": {**STRING, "description": "Of a stream that can be resumed: what `Last-Event-ID` says."}},
            description="One server-sent event. The data of the last is [DONE]; after an error (an OpenAIError) there is none.",
        ),
        "CompletionUsage": _object(
            counts, {"prompt_tokens_details": {"type": "object"}, "completion_tokens_details": {"type": "object"}}
        ),
        "Model": _object({"id": STRING, "object": _const("model"), "created": {"type": "integer"}, "owned_by": STRING}),
        "Models": _object({"object": _const("list"), "data": _array(ref("Model"))}),
        "OpenAIError": _object({"error": error}),
    }


def _others() -> dict[str, Schema]:
    time = {"type": "string", "format": "date-time"}
    day = {"type": "string", "format": "date"}
    tokens = ("input_tokens", "output_tokens", "cached_input_tokens", "reasoning_tokens")
    figures = {
        **dict.fromkeys(("requests", "errors", *tokens, "estimated"), COUNT),
        "cost_usd": {"type": "number", "minimum": 0},
    }
    turn = _object(
        {"role": {"type": "string", "enum": ["user", "assistant"]}, "content": STRING, "createdAt": time},
        {"interrupted": {"type": "boolean", "description": "The answer was cut short."}},
    )
    prefix = "1 to 96 letters, digits and . _ : - of which the last is one of . _ : -; without it, a random one."
    return {
        "TokenRequest": _object(
            {"origin": {**STRING, "description": "The page's; one of the key's own origins, exact."}},
            {
                "alias": {**_nullable("string"), "description": "The one alias it may name; without it, the key's default."},
                "sessionPrefix": {**_nullable("string"), "description": prefix},
                "seconds": {"type": ["integer", "null"], "minimum": 1, "default": 300, "description": "How long it lives."},
                "ownSessions": {
                    **_nullable("boolean"),
                    "description": "Whether the page may make up its session ids: they are put behind the prefix, so that they "
                    "are this token's alone. Default: true where no prefix is given.",
                },
            },
            additionalProperties=False,
        ),
        "RenewRequest": _object({}, description="What is renewed is the token that the request presents."),
        "MintedToken": _object(
            {"token": STRING, "expiresAt": time, "origin": STRING, "alias": STRING, "sessionPrefix": STRING},
            {
                "renewableUntil": {
                    **_nullable("string"),
                    "description": "Of a renewed token: until when it can be renewed again.",
                }
            },
        ),
        "Conversation": _object(
            {"_id": STRING, "sessionId": STRING, "createdAt": time, "updatedAt": time, "lastMessage": STRING}
        ),
        "Conversations": _object({"conversations": _array(ref("Conversation")), "total": COUNT}),
        "ConversationWithMessages": _object({"conversation": ref("Conversation"), "messages": _array(turn)}),
        "UsageReport": _object(
            {
                "from": day,
                "to": day,
                "by": _array({"type": "string", "enum": ["day", "key", "tenant", "alias", "model"]}),
                "rows": _array(
                    _object(figures, {"day": day, "key": STRING, "tenant": STRING, "alias": STRING, "model": STRING})
                ),
                "total": _object(figures),
            },
            description="`cost_usd` in US dollars; `estimated` counts attempts whose tokens the provider did not report.",
        ),
        "BudgetStates": _object({"budgets": _array(ref("BudgetState")), "next": _nullable("string")}),
        "BudgetState": _object(
            {
                "scope": {**STRING, "enum": SCOPES},
                "owner": STRING,
                "period": {**STRING, "enum": PERIODS},
                "name": {**STRING, "description": "The period that runs: 2026-11-30, 2026-W48 or 2026-11."},
                "ends": {**STRING, "format": "date-time"},
                **{
                    name: {"type": "number", "description": description}
                    for name, description in (
                        ("limit_usd", "US dollars in this period."),
                        ("spent_usd", "Charged to calls that have ended."),
                        ("reserved_usd", "What calls that have not ended may use at most."),
                        ("left_usd", "The limit without both; below zero: debt."),
                    )
                },
            }
        ),
        "BudgetCorrection": _object(
            {
                "scope": {**STRING, "enum": SCOPES},
                "owner": STRING,
                "period": {**STRING, "enum": PERIODS},
                "spent": {
                    "type": "number",
                    "minimum": 0,
                    "maximum": 1e9,
                    "description": "US dollars, not those there now.",
                },
            },
            additionalProperties=False,
        ),
        "Status": _object({"status": STRING}, {"stores": {"type": "object", "description": "By name, with ?verbose."}}),
    }


def _keys() -> dict[str, Schema]:
    time = {"type": ["string", "null"], "format": "date-time"}
    limits: Schema = {"type": "object", "description": "As `limits` of a key in the configuration."}
    grant: dict[str, Schema] = {
        "aliases": _array(STRING),
        "default_alias": _nullable("string"),
        "limits": limits,
        "origins": _array({**STRING, "pattern": ORIGIN}),
        "expires": time,
        "enabled": {"type": "boolean"},
    }
    told: dict[str, Schema] = {
        "id": STRING,
        "tenant": STRING,
        "source": {"type": "string", "enum": ["admin", "config"], "description": "Those of the configuration change there."},
        **grant,
    }
    stored: dict[str, Schema] = {"last_four": STRING, "created": time, "rotated": time, "old_key_until": time}
    shown = {"key": {**STRING, "description": "Shown once. It is kept as a digest and cannot be had again."}}
    overlap: Schema = {
        "type": ["string", "number"],
        "minimum": 0,
        "maximum": 90 * 86400,
        "description": "`10m`, or seconds.",
        "default": 0,
    }
    strict = {"additionalProperties": False}
    return {
        "KeyGrant": _object({}, grant, minProperties=1, **strict),
        "KeyAsked": _object({"id": STRING}, {"tenant": _nullable("string"), **grant}, **strict),
        "KeyRotation": _object({}, {"overlap": overlap}, **strict),
        "AdminKey": _object(told, stored),
        "NewAdminKey": _object({**told, **stored, **shown}),
        "AdminKeys": _object({"keys": _array(ref("AdminKey")), "next": _nullable("string"), "total": COUNT}),
        "DeletedKey": _object({"id": STRING, "deleted": {"type": "boolean"}}),
    }

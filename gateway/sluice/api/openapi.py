"""The OpenAPI 3.1 document of the routes that are served. Standard: https://spec.openapis.org/oas/v3.1.0"""

from collections.abc import Sequence
from typing import Any

from sluice.api.openapi_schemas import SCOPES, STRING, Schema, ref, schemas
from sluice.version import VERSION

KEY: list[dict[str, list[str]]] = [{"apiKey": []}, {"widgetApiKey": []}, {"bearer": []}]
ADMIN: list[dict[str, list[str]]] = [{"adminApiKey": []}]
REASONS = {
    400: "The request is not valid: which field, and why.",
    401: "No credential, more than one, or one that is not known.",
    403: "This key may not be used from this origin, or not for this, or nobody knows the model's price (`price_unknown`).",
    404: "There is no such model, stream, key or budget, or this key may not use it.",
    405: "Not this method, or not without `Last-Event-ID`: `Allow` says which.",
    408: "The body did not arrive in time.",
    409: "The id is taken, or the key cannot be changed here.",
    410: "The stream was there, but its rest cannot be had.",
    413: "The body is too large.",
    415: "The body is not application/json, or its Content-Encoding is none of `Accept-Encoding`.",
    429: "A limit is reached; `Retry-After` says when to come back.",
    500: "The gateway, or every upstream, has failed.",
    502: "Every upstream has failed.",
    503: "The gateway is shutting down or has no room, the upstream is overloaded, or a store does not answer.",
    504: "The upstream did not answer in time.",
}
_BODY = (400, 408, 413, 415)
"""What any operation with a body may be answered."""
_CALLER = (401, 429, 500, 503)
"""What any operation that wants to know its caller may be answered: limits and keys may stand in stores that fail."""
_CHAT_ERRORS = (*_BODY, *_CALLER, 403, 404)
_RESUME_ERRORS = (400, *_CALLER, 403, 404, 410)


def document(aliases: Sequence[str] = ()) -> dict[str, Any]:
    """The whole document, ready for JSON; with `aliases`, they are the models that may be named."""
    model: Schema = {
        "type": ["string", "null"],
        "minLength": 1,
        "description": "An alias that the key may use; without it, the key's default.",
    }
    if aliases:
        model["enum"] = [*sorted(aliases), None]
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {
            "title": "Sluice",
            "version": VERSION,
            "summary": "A streaming gateway in front of LLM providers",
            "description": "A slash at the end of a path makes no difference. Where there is a GET there is a HEAD, but for "
            "streams that are resumed. OPTIONS is answered everywhere, and any other method with 405; both say in `Allow` "
            "what there is. A request that is no HTTP, too slow, or one connection too many is answered 400, 408 or 503 "
            "before it has a route.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": "chat"},
            {"name": "tokens"},
            {"name": "models"},
            {"name": "conversations"},
            {"name": "keys"},
            {"name": "budgets"},
            {"name": "usage"},
            {"name": "process"},
        ],
        "paths": {
            **_chat(),
            **_completions(),
            **_tokens(),
            **_models(),
            **_conversations(),
            **_keys(),
            **_budgets(),
            **_usage(),
            **_process(),
        },
        "components": {
            "schemas": schemas(model),
            "headers": _headers(),
            "responses": _errors("Widget", "Error", *_CHAT_ERRORS, 409, 410)
            | _errors("OpenAI", "OpenAIError", *(status for status in REASONS if status != 409)),
            "securitySchemes": _security(),
        },
    }


# the routes


def _chat() -> dict[str, Any]:
    stream = {
        "description": "A stream of lines: `start`, any `token`, then `done` or `error`.",
        "headers": _told(limits=True),
        "content": {"application/x-ndjson": {"schema": ref("ChatLine"), "example": _LINES}},
    }
    turn = {"sessionId": "visitor-17", "message": "Why is the sky blue?"}
    full = {
        "name": "Accept",
        "in": "header",
        "required": False,
        "schema": STRING,
        "example": "application/x-ndjson; profile=full",
        "description": "`application/x-ndjson; profile=full` asks for reasoning, tool calls and resets, too.",
    }
    errors = _refused("Widget", *_CHAT_ERRORS)

    def streamed(operation: str, summary: str) -> dict[str, Any]:
        asked = {"parameters": [full], "requestBody": _body("ChatRequest", turn)}
        return {"post": _operation("chat", operation, summary, KEY, {"200": stream, **errors}, **asked)}

    whole = _answer("The answer.", "ChatAnswer", {"conversationId": "c_9f2e", "message": "Because of …"}, limits=True)
    whole["headers"] = _told(limits=True, cost=True)
    answered = _operation(
        "chat",
        "chat",
        "Say one thing, get the whole answer",
        KEY,
        {"200": whole, **errors},
        requestBody=_body("ChatRequest", turn),
    )
    return {
        "/v1/chat/stream/{id}": {"get": _resumed()},
        "/v1/chat/stream": streamed("streamChat", "Say one thing, get the answer as it is made"),
        "/chat": streamed("streamChatAlias", "The same as /v1/chat/stream"),
        "/v1/chat": {"post": answered},
    }


def _resumed() -> dict[str, Any]:
    number: Schema = {"type": "integer", "minimum": 0}
    after = {
        "name": "after",
        "in": "query",
        "required": False,
        "schema": number,
        "description": "The `n` of the last line that was received; without it, the whole stream.",
    }
    rest = {
        "description": "The lines or events that follow, with their numbers, in the stream's own content type.",
        "headers": _told(),
        "content": {
            "application/x-ndjson": {"schema": ref("ChatLine"), "example": _NUMBERED_LINES},
            "text/event-stream": {"schema": ref("CompletionEvent"), "example": _CHUNKS},
        },
    }
    nothing = {"description": "The stream has ended, and nothing of it is missing.", "headers": _told()}
    return _operation(
        "chat",
        "resumeStream",
        "Go on reading a stream whose connection was lost (aliases with `resumable`; the same key)",
        KEY,
        {"200": rest, "204": nothing, **_refused("Widget", *_RESUME_ERRORS)},
        parameters=[_in_path("id", "The `streamId` of the first line."), after, _last_event(required=False)],
    )


def _last_event(*, required: bool) -> dict[str, Any]:
    return {
        "name": "Last-Event-ID",
        "in": "header",
        "required": required,
        "schema": STRING,
        "description": "`{streamId}:{n}`, as the last event that was received had it; newer than `after`.",
    }


def _completions() -> dict[str, Any]:
    asked = {"model": "echo", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
    answer = {
        "description": "One completion, or with `stream` server-sent events of chunks that end in `data: [DONE]`.",
        "headers": _told(limits=True, cost=True),
        "content": {
            "application/json": {"schema": ref("Completion")},
            "text/event-stream": {"schema": ref("CompletionEvent"), "example": _CHUNKS},
        },
    }
    responses = {"200": answer, **_refused("OpenAI", *_CHAT_ERRORS, 502, 504)}
    body = _body("CompletionRequest", asked)
    rest = {
        "description": "The lines or events that follow, in the stream's own content type.",
        "headers": _told(),
        "content": {
            "application/x-ndjson": {"schema": ref("ChatLine"), "example": _NUMBERED_LINES},
            "text/event-stream": {"schema": ref("CompletionEvent"), "example": _CHUNKS},
        },
    }
    nothing = {"description": "The stream has ended, and nothing of it is missing.", "headers": _told()}

    def operations(suffix: str) -> dict[str, Any]:
        """With names of their own, for each path that leads there."""
        summary = f"OpenAI's Chat Completions{suffix and ', for clients whose base URL lacks its /v1'}"
        resumed = _operation(
            "chat",
            f"resumeChatCompletion{suffix}",
            "Go on reading a stream whose connection was lost (aliases with `resumable`; the same key)",
            KEY,
            {"200": rest, "204": nothing, **_refused("OpenAI", *_RESUME_ERRORS, 405)},
            parameters=[_last_event(required=True)],
        )
        posted = _operation("chat", f"createChatCompletion{suffix}", summary, KEY, responses, requestBody=body)
        return {"post": posted, "get": resumed}

    return {"/v1/chat/completions": operations(""), "/chat/completions": operations("Short")}


def _tokens() -> dict[str, Any]:
    asked = {"origin": "https://app.example.com", "alias": "chat", "sessionPrefix": "visitor-17:", "seconds": 300}
    minted = {
        "token": "eyJhbGciOiJIUzI1NiIsInR5cCI6InNsdWljZS1icm93c2VyK2p3dCJ9.e30.c2ln",
        "expiresAt": "2027-01-31T10:05:00.000Z",
        "origin": "https://app.example.com",
        "alias": "chat",
        "sessionPrefix": "visitor-17:",
    }
    again = {**minted, "renewableUntil": "2027-02-01T10:00:00.000Z"}
    renewed = _operation(
        "tokens",
        "renewToken",
        "Renew a page's token, which it presents as a bearer, from its origin",
        KEY,
        {"200": _answer("The token.", "MintedToken", again), **_refused("Widget", *_CHAT_ERRORS)},
        requestBody=_body("RenewRequest", {}) | {"required": False},
        description="For a page that stays open, until `renewableUntil`. What has expired can be renewed for ten minutes more. "
        "The body is an empty object, or nothing.",
    )
    operation = _operation(
        "tokens",
        "mintToken",
        "Mint a token for a web page: for a server with a key, which stays on the server",
        KEY,
        {"200": _answer("The token.", "MintedToken", minted), **_refused("Widget", *_CHAT_ERRORS)},
        requestBody=_body("TokenRequest", asked),
        description="The page sends it in place of a key, as a bearer. It may chat (and resume its own streams) from its "
        "origin, with its alias, in sessions that begin with its prefix, within the limits of the key that minted it, "
        "until it expires or the key may not be used any more.",
    )
    return {"/v1/tokens": {"post": operation}, "/v1/tokens/renew": {"post": renewed}}


def _models() -> dict[str, Any]:
    model = {"id": "echo", "object": "model", "created": 1790000000, "owned_by": "sluice"}
    found = {"200": _answer("The model.", "Model", model), **_refused("OpenAI", *_CALLER, 403, 404)}
    listed = {
        "200": _answer("The models.", "Models", {"object": "list", "data": [model]}),
        **_refused("OpenAI", *_CALLER, 403),
    }
    named = {"parameters": [_in_path("id", "An alias.")]}
    paths: dict[str, Any] = {}
    for prefix, suffix in (("/v1", ""), ("", "Short")):
        all_of_them = _operation("models", f"listModels{suffix}", "The models that the key may use", KEY, listed)
        paths[f"{prefix}/models"] = {"get": all_of_them}
        paths[f"{prefix}/models/{{id}}"] = {
            "get": _operation("models", f"getModel{suffix}", "One of them", KEY, found, **named)
        }
    return paths


def _conversations() -> dict[str, Any]:
    newest = {"200": _answer("The newest.", "Conversations"), **_refused("Widget", 400, *_CALLER)}
    not_found = _answer("There is no such conversation.", "Error", {"error": "Conversation not found"})
    said = _answer("It, and what was said.", "ConversationWithMessages")
    one = {"200": said, **_refused("Widget", *_CALLER), "404": not_found}
    tag = "conversations"
    path = "/v1/admin/conversations"
    named = [_in_path("id", "The `_id` of a conversation.")]
    return {
        path: {"get": _operation(tag, "listConversations", "Conversations, newest first", ADMIN, newest, parameters=[_LIMIT])},
        f"{path}/{{id}}": {"get": _operation(tag, "getConversation", "One of them", ADMIN, one, parameters=named)},
    }


def _keys() -> dict[str, Any]:
    after = {
        "name": "after",
        "in": "query",
        "required": False,
        "schema": STRING,
        "description": "The `next` of the page before.",
    }
    asked = {"id": "shop", "aliases": ["chat"], "limits": {"requests": {"rate": "500/min"}}, "expires": "2099-12-31T23:59:59Z"}
    named = [_in_path("id", "A key's id, percent-encoded.")]
    one = {"200": _answer("The key as it is now.", "AdminKey"), **_refused("Widget", *_CALLER, 404)}
    changed = one | _refused("Widget", *_BODY, 409)
    new = _answer("The key, which is shown in this answer alone.", "NewAdminKey")
    gone = {"200": _answer("It is gone.", "DeletedKey"), **_refused("Widget", *_CALLER, 404, 409)}
    made = {"201": new, **_refused("Widget", *_BODY, *_CALLER, 409)}
    listed = {"200": _answer("Keys in the order of their ids.", "AdminKeys"), **_refused("Widget", 400, *_CALLER)}

    def operation(name: str, summary: str, responses: dict[str, Any], **more: Any) -> dict[str, Any]:
        return _operation("keys", name, summary, ADMIN, responses, **more)

    path = "/admin/keys"
    return {
        path: {
            "get": operation("listKeys", "All keys, those of the configuration included", listed, parameters=[_LIMIT, after]),
            "post": operation("createKey", "Make a key", made, requestBody=_body("KeyAsked", asked)),
        },
        f"{path}/{{id}}": {
            "get": operation("getKey", "One of them", one, parameters=named),
            "patch": operation(
                "updateKey",
                "Change what it may do: what is given replaces what was there",
                changed,
                parameters=named,
                requestBody=_body("KeyGrant", {"enabled": False}),
            ),
            "delete": operation("deleteKey", "Delete it: it stops working everywhere within a second", gone, parameters=named),
        },
        f"{path}/{{id}}/rotate": {
            "post": operation(
                "rotateKey",
                "A new key under the same id; the old one works until the overlap ends",
                changed | {"200": new},
                parameters=named,
                requestBody=_body("KeyRotation", {"overlap": "10m"}) | {"required": False},
            )
        },
        f"{path}/{{id}}/disable": {
            "post": operation("disableKey", "It stops working everywhere within a second", changed, parameters=named)
        },
        f"{path}/{{id}}/enable": {"post": operation("enableKey", "It works again", changed, parameters=named)},
    }


def _budgets() -> dict[str, Any]:
    def asked(name: str, description: str, schema: Schema = STRING) -> dict[str, Any]:
        return {"name": name, "in": "query", "required": False, "schema": schema, "description": description}

    parameters = [
        asked("scope", "Only budgets of this scope; with `owner`, `key` where it is not said.", {**STRING, "enum": SCOPES}),
        asked("owner", "Only this one's: a key's id, a tenant, an alias, an upstream, `jwt:ISSUER|SUBJECT`, or `all`."),
        _LIMIT,
        asked("after", "The `next` of the page before."),
    ]
    listed = {"200": _answer("Budgets by scope and owner.", "BudgetStates"), **_refused("Widget", 400, *_CALLER, 404)}
    changed = {"200": _answer("The budget as it is now.", "BudgetState")} | _refused("Widget", *_BODY, *_CALLER, 404)
    body = _body("BudgetCorrection", {"scope": "key", "owner": "shop", "period": "month", "spent": 0.02})
    return {
        "/admin/budgets": {
            "get": _operation("budgets", "listBudgets", "Spent, reserved, left", ADMIN, listed, parameters=parameters),
            "patch": _operation("budgets", "correctBudget", "Say what has been spent", ADMIN, changed, requestBody=body),
        }
    }


def _usage() -> dict[str, Any]:
    day: Schema = {"anyOf": [{"type": "string", "format": "date"}, {"type": "string", "const": ""}]}
    fields = ("day", "key", "tenant", "alias", "model")

    def asked(name: str, schema: Schema, description: str) -> dict[str, Any]:
        return {"name": name, "in": "query", "required": False, "schema": schema, "description": description}

    parameters = [
        asked("from", day, "The first day (UTC); without it, the first of the month."),
        asked("to", day, "The last day, itself included; without it, today."),
        asked("by", {**STRING, "default": "day,model"}, f"What rows are kept apart by: any of {', '.join(fields)}."),
        asked("format", {**STRING, "enum": ["json", "csv"]}, "CSV also by `Accept: text/csv`."),
    ]
    found = _answer("What was used.", "UsageReport")
    found["content"]["text/csv"] = {"schema": STRING}
    answers = {"200": found, **_refused("Widget", 400, *_CALLER)}
    operation = _operation("usage", "getUsage", "Requests, tokens and costs", ADMIN, answers, parameters=parameters)
    return {"/admin/usage": {"get": operation}}


def _process() -> dict[str, Any]:
    alive = {"200": _answer("The process is there.", "Status", {"status": "ok"})}
    ready = {
        "200": _answer("New calls are welcome.", "Status", {"status": "ready"}),
        "503": _answer("It is shutting down.", "Status", {"status": "draining"}),
    }
    self_described = {"200": {"description": "This document.", "content": {"application/json": {"schema": {"type": "object"}}}}}
    said = "With it the answer tells the state of every store, too."
    full = {"name": "verbose", "in": "query", "required": False, "schema": STRING, "description": said, "allowEmptyValue": True}
    probes = {
        "/health": ("health", "Is it there? (older spelling)", alive),
        "/livez": ("livez", "Is it there?", alive),
        "/healthz": ("healthz", "Does it take calls? (older spelling)", ready),
        "/readyz": ("readyz", "Does it take calls?", ready),
        "/v1/openapi.json": ("openapi", "This document", self_described),
    }
    paths: dict[str, Any] = {
        path: {"get": _operation("process", operation, summary, [], responses)}
        for path, (operation, summary, responses) in probes.items()
    }
    for path in ("/healthz", "/readyz"):
        paths[path]["get"]["parameters"] = [full]
    return paths


# their pieces


def _operation(
    tag: str, operation: str, summary: str, security: list[dict[str, list[str]]], responses: dict[str, Any], **more: Any
) -> dict[str, Any]:
    named = {"operationId": operation, "summary": summary, "tags": [tag], "security": security}
    return {**named, **more, "responses": responses}


def _body(schema: str, example: Any) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": ref(schema), "example": example}}}


def _in_path(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": STRING, "description": description}


def _answer(description: str, schema: str, example: Any = None, *, limits: bool = False) -> dict[str, Any]:
    content = {"schema": ref(schema)} | ({"example": example} if example is not None else {})
    return {"description": description, "headers": _told(limits=limits), "content": {"application/json": content}}


def _told(*more: str, limits: bool = False, retry: bool = False, cost: bool = False) -> dict[str, Any]:
    names = ["X-Request-Id", *more]
    if limits:
        names += ["X-RateLimit-Limit-Requests", "X-RateLimit-Remaining-Requests", "X-RateLimit-Reset-Requests"]
    if cost:
        names.append("X-Sluice-Cost-Usd")
    if retry:
        names += ["Retry-After", "Retry-After-Ms"]
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _headers() -> dict[str, Any]:
    described = {
        "X-Request-Id": ("The caller's own, where it sent one, or ours: the key to logs.", STRING),
        "Retry-After": ("Seconds until the same call would be admitted.", {"type": "integer", "minimum": 0}),
        "Retry-After-Ms": ("The same in milliseconds.", {"type": "integer", "minimum": 0}),
        "X-RateLimit-Limit-Requests": ("What the bucket holds.", {"type": "integer"}),
        "X-RateLimit-Remaining-Requests": ("What is left in it.", {"type": "integer"}),
        "X-RateLimit-Reset-Requests": ("When it is full again, as in `1.250s`.", STRING),
        "WWW-Authenticate": ("How to authenticate (RFC 9110 11.6.1).", STRING),
        "Allow": ("The methods that there are (RFC 9110 10.2.1).", STRING),
        "Accept-Encoding": ("The content codings that there are, where it was the body's that is not known.", STRING),
        "X-Sluice-Cost-Usd": ("What the call cost in US dollars, where the gateway tells it (`prices.header`).", STRING),
    }
    return {name: {"description": text, "schema": schema} for name, (text, schema) in described.items()}


_WITH: dict[int, tuple[str, ...]] = {
    401: ("WWW-Authenticate",),
    405: ("Allow",),
    415: ("Accept-Encoding",),
    503: ("Retry-After", "Retry-After-Ms"),
}
"""Headers of answers of these statuses."""


def _errors(prefix: str, schema: str, *statuses: int) -> dict[str, Any]:
    return {
        f"{prefix}{status}": {
            "description": REASONS[status],
            "headers": _told(*_WITH.get(status, ()), limits=status == 429, retry=status == 429),
            "content": {"application/json": {"schema": ref(schema)}},
        }
        for status in statuses
    }


def _refused(prefix: str, *statuses: int) -> dict[str, Any]:
    return {str(status): {"$ref": f"#/components/responses/{prefix}{status}"} for status in statuses}


def _security() -> dict[str, Any]:
    described = {"apiKey": "x-api-key", "widgetApiKey": "x-widget-api-key", "adminApiKey": "x-admin-api-key"}
    keys = {scheme: {"type": "apiKey", "in": "header", "name": header} for scheme, header in described.items()}
    return {
        **keys,
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "description": "A key, a token that one minted, or a JWT of a configured issuer.",
        },
    }


_LIMIT = {
    "name": "limit",
    "in": "query",
    "required": False,
    "schema": {"type": "integer", "minimum": 1, "maximum": 200, "default": 100},
}
_LINES = """\
{"type":"start","conversationId":"c_9f2e"}
{"type":"token","token":"Because"}
{"type":"done","message":"Because","conversationId":"c_9f2e","model":"echo","finishReason":"stop"}
"""
_NUMBERED_LINES = """\
{"type":"start","conversationId":"c_9f2e","streamId":"Kx3vQ0mT9rW2cZ7bN5yLpA1d","n":0}
{"type":"token","token":"Because","n":1}
{"type":"done","message":"Because","conversationId":"c_9f2e","model":"echo","finishReason":"stop","n":2}
"""
_CHUNKS = """\
data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1790000000,"model":"echo",\
"choices":[{"index":0,"delta":{"content":"Hello"},"finish_reason":null}]}

data: [DONE]

"""

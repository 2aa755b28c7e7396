"""The table of vendors' codes and words: a test a row, and what is not to be taken for what it looks like."""

import re

import msgspec
import pytest

from sluice.wire import error_table as table
from sluice.wire.upstream_errors import code_name, reason_of, status_kind, stream_error, upstream_error

WORDS: dict[str, tuple[str, ...]] = {
    "context_length": (
        "This model's maximum prompt length is 131072 but the request contains 537812 tokens.",
        "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
        "The input token count exceeds the maximum number of tokens allowed (1048576).",
        "Invalid request: Your request exceeded model token limit: 262144 (requested: 300000)",
        "Input length 131393 exceeds the maximum allowed input length of 131040 tokens.",
        "Prompt exceeds max length",
        "Prompt 超长",
        "prompt token count of 70000 exceeds the limit of 64000",
        "<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 204800]",
        "The decoder prompt (length 10127) is longer than the maximum model length of 8192.",
        "The input (9000 tokens) is longer than the model's context length (8192 tokens).",
        "Requested token count exceeds the model's maximum context length of 131072 tokens.",
        "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 8740 `inputs` "
        "tokens and 500 `max_new_tokens`",
        "Input validation error: `inputs` must have less than 1024 tokens. Given: 1168",
        "the request exceeds the available context size, try increasing it",
        "request (66202 tokens) exceeds the available context size (65536 tokens), try increasing it",
        "Trying to keep the first 111490 tokens when context the overflows. However, the model is loaded "
        "with context length of only 32768 tokens",
        "The number of tokens to keep from the initial prompt is greater than the context length (n_keep: 13055>= n_ctx: 4096)",
        "the input length exceeds the context length",
        "prompt too long; exceeded max context length by 5 tokens",
        "Input is too long for requested model.",
        "too many tokens: total number of tokens (prompt and prediction) cannot exceed 2048 - received 6354.",
        "Too many input tokens. Max input tokens: 8192, request input token count: 9000",
        "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length",
        "Please reduce the length of the messages or completion.",
        "length of prompt_tokens (68957) must be less than max_seq_len (65536).",
        "invalid params, context window exceeds limit (2013)",
        "input length and `max_tokens` exceed context limit: 199759 + 8192 > 200000, decrease input length "
        "or `max_tokens` and try again",
        "prompt is too long: 213462 tokens > 200000 maximum",
        "This endpoint's maximum context length is 131072 tokens. However, you requested about 200000 tokens",
        "'max_tokens' or 'max_completion_tokens' is too large: 4000. This model's maximum context length is "
        "2048 tokens and your request has 1000 input tokens (4000 > 2048 - 1000).",
        "max_tokens must be at least 1, got -186.",
        "Your input exceeds the context window of this model. Please adjust your input and try again.",
        "Unable to submit request because the input token count is 1000001 but model only supports up to "
        "1000000. Reduce the input token count and try again.",
        "total tokens exceeds the model's max of 4096",
        "Prompt has 9000 tokens, but the configured context size is 8192 tokens",
        "litellm.ContextWindowExceededError: litellm.BadRequestError: boo",
        "Input token length too long",
        "You passed 99073 input tokens and requested 32000 output tokens. However, the model's context "
        "length is only 131072 tokens, resulting in a maximum input length of 99072 tokens.",
        "Input exceeds the max input token limit",
        "Input length (265330) exceeds model's maximum context length (262144).",
        "tokens in request more than max tokens allowed",
        "Trying to keep the first 8000 tokens, but the context length is only 4096 tokens.",
        "Request length 71599 + 2048 is greater than max_seq_len 65536",
        "The sum of prompt length (9351.0), query length (0) should not exceed max_num_tokens (8192)",
        "Request payload size exceeds the limit: 4194304 bytes.",
        "The long context beta is not yet available for this subscription.",
        "Extra usage is required for long context requests, buy some",
        "the max input characters is 20000",
        "The message you submitted was too long, please reload the conversation and submit something shorter.",
        "Total tokens of image and text exceed max message tokens",
        "input exceeds context length",
        "Conversation is too long for this model",
        "The prompt has 9000 tokens which is more than the context window of 8192",
        "输入长度超过模型上下文",
        "Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in 300000 tokens.",
        "Request too large: 200000 tokens",
        "[original: beyond::dependency::INVALID_ARGUMENT] Cannot truncate to 89998, required 355220: text",
        "ollama: context length exceeded for llama3",
        "This model does not support inputs longer than 32k tokens",
        "Sequence length 9000 exceeds maximum of 8192",
        "Expected input to be at most 4096 tokens, got 5000",
        "The total length of input and output must be less than 8192 tokens",
        "Requested 9000 tokens but the maximum is 8192",
        "Input token count + max_tokens parameter must be less than the context length of the model being queried",
        "Your prompt is 9000 tokens, over the 8192-token limit",
        "Invalid 'messages[0].content': string too long. Expected a string with maximum length 1048576, but got 2000000.",
        "Total message size 2200000 exceeds limit 2097152",
        "Input exceeds maximum sequence length",
        "maximum number of input tokens is 4096",
        "token limit exceeded",
        "this exceeds the token budget of the model",
        "the amount of tokens is larger than what the model can take",
        "12000 tokens > 8000 maximum",
        "trim the history and try again",
        "send a shorter prompt",
    ),
    "billing": (
        "Billing hard limit has been reached",
        "Access denied, please make sure your account is in good standing.",
        "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing",
        "Insufficient Balance",
        "insufficient balance (1008)",
        "You have reached your specified API usage limits. You will regain access on 2026-10-01",
        "Your team 16f2151a-40f4 has either used all available credits or reached its monthly spending limit.",
        "You have run out of credits or need a Grok subscription.",
        "余额不足或无可用资源包,请充值。",
        "Access denied due to overdue account",
        "This request requires more credits, or fewer max_tokens. You requested up to 8192 tokens, but can only afford 3000",
        "Your account is suspended due to insufficient balance, please recharge your account or check your "
        "plan and billing details",
        "user quota is not enough",
        "You exceeded your monthly included credits for Inference Providers.",
        "Insufficient credits. Add more to go on",
        "insufficient funds",
        "You have hit the spending limit. Please raise it",
        "Insufficient account funds",
        "Your paid balance is insufficient",
        "billing is not active on this account",
        "AiError: you have used up your daily free allocation of 10,000 neurons, please upgrade to the paid plan",
        "You need positive balance to do inference. Please add balance manually or setup top-up",
        "Budget has been exceeded! Current cost: 76.16, Max budget: 10.0",
        "Your newly created team doesn't have any credits or licenses yet",
        "Payment required",
        "Key limit exceeded (total limit). Manage it in the settings",
        "The free tier of the model has been exhausted. If you wish to continue, pay",
        "Your account does not have enough balance",
        "Your organization has reached its monthly spend limit",
        "API access is blocked: spending limit reached",
        "Gemini API free tier is not available in your country. Please enable billing on your project",
        "Your prepayment credits are depleted",
        "Your account has unpaid invoices",
        "账户已欠费",
        "用户额度不足",
    ),
    "rate_limited": (
        "Open api qps request limit reached",
        "Open api daily request limit reached",
        "Request too large for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Requested "
        "353175. The input or output tokens must be reduced in order to run successfully.",
        "Too many tokens, please wait before trying again.",
        "Rate limit exceeded",
        "slow down",
        "Too many requests",
        "You exceeded your current quota",
        "Quota exceeded for requests",
        "concurrency limit exceeded",
        "60 requests / minute",
        "RPM exceeded",
        "We're receiving too many requests at the moment",
        "request was throttled",
        "You've reached your usage limit for this period",
        "Your limit will reset at 2026-10-02 10:00",
        "Resource has been exhausted",
        "您当前的并发数过高",
        "已触发流量限制",
    ),
    "content_policy": (
        "Invalid prompt: we have limited access to this content for safety reasons.",
        "Content Exists Risk",
        "The request was rejected because it was considered high risk",
        "Content violates usage guidelines",
        "Your request was rejected as a result of our safety system.",
        "Invalid prompt: your prompt was flagged as potentially violating our usage policy.",
        "Input data may contain inappropriate content.",
        "Output blocked by content filtering policy",
        "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
        "Response was blocked due to SAFETY",
        "系统检测到输入或生成内容可能包含不安全或敏感内容",
        "m requires moderation on X. Your input was flagged",
        "blocked output: this generation may be a duplicate of a training text",
        "see our safety settings",
        "Candidate was blocked: PROHIBITED_CONTENT",
        "blocked by responsible AI rules",
        "Guardrail intervened",
        "input new_sensitive",
    ),
    "bad_credentials": (
        "API key expired. Please renew the API key.",
        "API key not valid. Please pass a valid API key.",
        "Incorrect API key provided: no***ey. You can obtain an API key from https://console.x.ai.",
        "API Key not found. Please pass a valid API key.",
        "Invalid API-key provided.",
        "Authentication Fails, Your api key: ****1234 is invalid",
        "No API key provided",
        "Invalid Authentication",
        "The security token included in the request is invalid.",
        "Your API key was reported as leaked. Please use another API key.",
        "Api key is invalid",
        "invalid access token or token expired",
        "Missing Authentication header",
        "invalid x-api-key",
        "User location is not supported for the API use.",
        "This organization has been disabled.",
        "Unauthorized",
        "API key has been disabled",
        "The request signature we calculated does not match the signature you provided",
        "invalid_grant: token was revoked",
        "Invalid credentials",
        "Your account has been deactivated",
        "身份验证失败",
        "Expired api token",
        "bad request: Authorization header is badly formatted",
        "Renew it: this api key is too old, create a new one",
    ),
    "not_found": (
        "The model `x` does not exist or you do not have access to it.",
        "model 'x' not found, try pulling it first",
        "The model `mixtral-8x7b-32768` has been decommissioned and is no longer supported",
        "Model Not Exist",
        "Unknown model: x",
        "No endpoints found that support tool use",
        "Invalid model: x",
        "deepseek/none is not a valid model ID",
        "The supported API model names are a or b, but you passed c.",
        "The provided model identifier is invalid.",
        "Invocation of model ID x with on-demand throughput isn't supported. Retry your request with a profile",
        "模型不存在，请检查模型代码",
        "unsupported model here",
        "model: foo/bar-1 is not supported",
        "The API deployment for this resource does not exist",
        "You don't have access to the model with the specified model ID.",
        "Your account does not have permission to use this model.",
        "The model `prompt-guard` does not exist",
        "Permission 'aiplatform.endpoints.predict' denied on resource '//aiplatform.googleapis.com/projects/p/locations/"
        "us-east4/publishers/google/models/gemini-none' (or it may not exist).",
    ),
    "unknown_id": (
        "Previous response with id 'resp_0f09' not found.",
        "Item with id 'rs_6895' not found. Items are not persisted when `store` is set to false. Try again "
        "with `store` set to true, or remove this item from your input.",
        "No such File object: file-vyA4",
        "File not found: file_011CNha8",
        "Conversation with id 'conv_68' not found.",
        "Container with id 'cntr_68' not found.",
        "You do not have permission to access the File b4x or it may not exist.",
        "CachedContent not found (or permission denied)",
        "Vector store vs_1 does not exist",
    ),
    "overloaded": (
        "Too many connections, please wait before trying again.",
        "The engine is currently overloaded, please try again later",
        "Service tier capacity exceeded for this model.",
        "No capacity available for model gemini-3.1-flash-lite on the server",
        "Model Qwen/Qwen2 is currently loading",
        "The model is overloaded. Please try again later.",
        "The server is busy",
        "We are experiencing high demand",
        "No available channels for this model",
        "该模型当前访问量过大",
    ),
    "server_error": ("Internal server error",),
}

THE_CALLERS_OWN = (
    "max_tokens is too large: 100000. This model supports at most 4096 completion tokens, whereas you provided 100000.",
    "max_tokens: 100000 > 8192, which is the maximum allowed number of output tokens for claude-3-5",
    "`max_tokens` must be less than or equal to `8192`, the maximum value for `max_tokens` is less than "
    "the `context_window` for this model",
    "The maximum tokens you requested exceeds the model limit of 2048. Try again with a maximum tokens "
    "value that is lower than 2048.",
    "Range of max_tokens should be [1, 8192]",
    "too many tokens: max tokens must be less than or equal to 4096, the maximum output for this model - received 8192.",
    "Invalid max_tokens value, the valid range of max_tokens is [1, 8192]",
    "max_output_tokens must be less than or equal to 1024",
    "Input validation error: `max_new_tokens` must be <= 4096. Given: 20000",
    "Invalid 'input[0].id': string too long. Expected a string with maximum length 64, but got a string "
    "with length 70 instead.",
    "Invalid 'tools': array too long. Expected an array with maximum length 128, but got 200",
    "The request exceeds the maximum number of images allowed",
    "messages: exceeds the maximum number of images",
    "Image is too large: 6 MB exceeds 5 MB",
    "Reduce the number of images in your prompt",
    "top_p must be at most 1",
    "Unexpected token '}' at position 5",
    "Invalid token in schema",
    "tools.0.name: String should match pattern",
    "The key parameters are wrong",
    "temperature must be between 0 and 2",
    "Unable to download image: access denied",
    "Error while downloading https://a.example/b.png. Upstream status code: 429 Too Many Requests",
    "Failed to download image from https://a.example/b.png: 503 Service unavailable",
    "Timeout while downloading https://a.example/quota-exceeded.png",
    "Tool names are too long",
    "Extra inputs are not permitted",
    "stop: too many sequences",
    "This model does not support image input",
    "parameter top_k is not supported by this model",
    "max_tokens cannot be greater than max_model_len=4096",
    "Messages must alternate between user and assistant",
    "Missing required parameter: 'messages'",
    "The `tools` parameter is not supported with this model.",
    "request body is not valid JSON",
    "unknown parameter: 'token'",
    "prompt is required",
    "max_completion_tokens too large",
    "Invalid content type. image_url is only supported by certain models.",
)
"""They speak of tokens, lengths, keys or models, and are about the caller's own parameters."""

EVERY = [(kind, words) for kind, texts in WORDS.items() for words in texts]


def told(words: str) -> bytes:
    return msgspec.json.encode({"error": {"message": words, "type": "invalid_request_error", "code": None}})


@pytest.mark.parametrize("row", table.CODES, ids=lambda row: row.match)
def test_a_code_decides(row: table.Row) -> None:
    code: object = row.match
    error: object = {"error": {"message": "No", "code": code}}
    if row.match.startswith("base_resp "):
        error = {"id": "1", "base_resp": {"status_code": int(row.match.split()[1]), "status_msg": "No"}}
    assert stream_error(error).kind == row.kind
    assert status_kind(400, reason_of(error)) == (
        row.kind if row.kind not in ("server_error", "stream_error") else "bad_request"
    )


def test_a_code_with_a_dot_is_at_least_what_stands_before_it() -> None:
    for code, kind in (
        ("RateLimitExceeded.EndpointTPMExceeded", "rate_limited"),
        ("InputImageSensitiveContentDetected.PrivacyInformation", "content_policy"),
        ("AccessDenied.Unpurchased", "bad_credentials"),
        ("Nobody.Knows", "bad_request"),
    ):
        assert (
            upstream_error(400, {}, msgspec.json.encode({"error": {"message": "No", "code": code}})).kind
            == kind
        )


def coarse(row: table.Row, words: str) -> object:
    if row.match.startswith("base_resp "):
        return {"base_resp": {"status_code": int(row.match.split()[1]), "status_msg": words}}
    return {"error": {"message": words, "type": row.match}}


@pytest.mark.parametrize("row", table.TYPES, ids=lambda row: row.match)
def test_a_type_decides_where_nothing_else_does(row: table.Row) -> None:
    assert stream_error(coarse(row, "No")).kind == row.kind
    assert stream_error(coarse(row, "Your credit balance is too low")).kind == "billing"
    assert stream_error(coarse(row, "invalid params, context window exceeds limit")).kind == "context_length"


@pytest.mark.parametrize(("kind", "words"), EVERY, ids=[words[:60] for _, words in EVERY])
def test_words_decide_before_a_200_and_in_it(kind: str, words: str) -> None:
    assert upstream_error(400, {}, told(words)).kind == (kind if kind != "server_error" else "bad_request")
    assert stream_error(msgspec.json.decode(told(words))).kind == kind
    assert stream_error({"error": words}).kind == kind


@pytest.mark.parametrize(
    "body",
    [
        b"<html><head><title>404 - File or directory not found.</title></head></html>",
        b'{"error": {"message": "The batch endpoint does not exist"}}',
        b'{"error": {"message": "Response API route not found"}}',
    ],
)
def test_a_server_without_such_a_path_is_not_taken_for_one_without_the_callers_id(body: bytes) -> None:
    assert upstream_error(404, {}, body).kind == "not_found"


@pytest.mark.parametrize("words", THE_CALLERS_OWN)
def test_the_callers_own_parameters_stay_the_callers(words: str) -> None:
    assert upstream_error(400, {}, told(words)).kind == "bad_request"


@pytest.mark.parametrize("row", table.WORDS, ids=lambda row: row.match[:60])
def test_no_row_is_without_an_example(row: table.Row) -> None:
    texts = THE_CALLERS_OWN if row.kind == "bad_request" else WORDS[row.kind]
    pattern = (
        row.match[3:]
        if row.match.startswith("re:")
        else ".{0,160}".join(map(re.escape, re.split(" ?… ?", row.match)))
    )
    plain = [" ".join(re.sub(r"[`\"*]|(?<!\w)'|'(?!\w)", "", words.lower()).split()) for words in texts]
    assert [words for words in plain if re.search(pattern, words)]


@pytest.mark.parametrize("row", [*table.CODES, *table.TYPES, *table.WORDS], ids=lambda row: row.match[:60])
def test_every_row_says_where_it_was_read(row: table.Row) -> None:
    assert re.match(r"https://\S+$|[\w.-]+/[\w.-]+(#\d+$| \()|what the rows above", row.source)


def test_no_code_stands_twice() -> None:
    names = [code_name(row.match) for row in (*table.CODES, *table.TYPES)]
    assert len(set(names)) == len(names)

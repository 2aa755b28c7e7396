"""The meanings of vendors' error codes and phrases: one row each, with its source.

`CODES` are names that decide by themselves. `TYPES` are coarse ones (vendors' `type` and gRPC's `status`),
which count only if neither a code nor the words tell more. `WORDS` are tried in order, and the first match
decides, so an early row can keep a later, more general one from matching ("tokens per minute" is a rate
limit, although other rows call it too large). How rows are compared:

- Codes without regard to case, punctuation and an ending of "error" or "exception": "RateLimitError" is
"rate_limit". If a code with a dot is not listed, the part before the dot is compared:
"RateLimitExceeded.EndpointRPMExceeded".

- Words in lower case, without quotes and backticks, with white space as one blank. "…" stands for up to 160
characters; a row that begins with "re:" is a regular expression.

A row of `bad_request` in WORDS says that the caller's own parameters are at fault, although a later row would
match. To add a phrase, add a row here and an example in tests/wire/test_error_table.py, which checks that
every row has one.
"""

from typing import NamedTuple

from sluice.errors import UpstreamErrorKind


class Row(NamedTuple):
    kind: UpstreamErrorKind
    match: str
    source: str


_OPENAI = "https://platform.openai.com/docs/guides/error-codes/api-errors"
_ANTHROPIC = "https://docs.claude.com/en/api/errors"
_ZAI = "https://docs.z.ai/api-reference/api-code"
_BIGMODEL = "https://docs.bigmodel.cn/cn/api/api-code"
_KIMI = "https://platform.kimi.ai/docs/api/errors"
_DASHSCOPE = "https://help.aliyun.com/en/model-studio/error-code"
_MINIMAX = "https://platform.minimax.io/docs/api-reference/errorcode"
_BEDROCK = "https://docs.aws.amazon.com/bedrock/latest/userguide/troubleshooting-api-error-codes.html"
_GRPC = "https://cloud.google.com/apis/design/errors"
_GOOGLE = (
    "https://cloud.google.com/dotnet/docs/reference/Google.Api.CommonProtos/latest/Google.Api.ErrorReason"
)
_GEMINI = "https://ai.google.dev/gemini-api/docs/generate-content/api-errors"
_NOVITA = "https://novita.ai/docs/api-reference/basic-error-code"
_ZENMUX = "https://docs.zenmux.ai/guide/advanced/error-codes"
_DEEPSEEK = "https://api-docs.deepseek.com/quick_start/error_codes"
_OPENROUTER = "https://openrouter.ai/docs/api/reference/errors-and-debugging"
_AZURE = "Gitlawb/openclaude#273"
_AZURE_NO_DEPLOYMENT = "chatboxai/chatbox#646"
_ARK = "https://www.volcengine.com/docs/82379/1299023"
_ARK_MORE = "https://www.volcengine.com/docs/82379/1099476"
_QIANFAN = "https://cloud.baidu.com/doc/qianfan-api/s/Om9b4yj3w"
_TENCENT = "https://www.tencentcloud.com/document/product/1238/64634"
_COHERE = "https://docs.cohere.com/reference/errors"
_GROQ = "https://console.groq.com/docs/errors"
_GROQ_SPEND = "https://console.groq.com/docs/spend-limits"
_GROQ_MODELS = "https://console.groq.com/docs/model-permissions"
_PI = "https://github.com/earendil-works/pi/issues/129"
_GENERAL = "what the rows above have in common"

CODES: tuple[Row, ...] = (
    # too long
    Row("context_length", "context_length_exceeded", _OPENAI),
    Row("context_length", "context_window_exceeded", "https://docs.litellm.ai/docs/exception_mapping"),
    Row(
        "context_length",
        "model_context_window_exceeded",
        "https://docs.claude.com/en/api/handling-stop-reasons",
    ),
    Row("context_length", "exceed_context_size_error", "openclaw/openclaw#64196"),
    Row("context_length", "model_max_prompt_tokens_exceeded", "microsoft/copilot-intellij-feedback#94"),
    Row("context_length", "request_too_large", _ANTHROPIC),
    Row("context_length", "tokens_too_long", _QIANFAN),
    Row("context_length", "characters_too_long", _QIANFAN),
    Row("context_length", "1261", _BIGMODEL),
    # the account's money
    Row("billing", "insufficient_quota", _OPENAI),
    Row("billing", "billing_hard_limit_reached", "dfinke/PowerShellAI#127"),
    Row("billing", "billing_not_active", _OPENAI),
    Row("billing", "billing_error", _ANTHROPIC),
    Row("billing", "insufficient_balance", "modelscope/modelscope#1691"),
    Row("billing", "insufficient_credits", _ZENMUX),
    Row("billing", "insufficient_credit", _ZENMUX),
    Row("billing", "insufficient_user_quota", "QuantumNous/new-api (relay, pre-consumed quota)"),
    Row("billing", "pre_consume_token_quota_failed", "QuantumNous/new-api (relay, pre-consumed quota)"),
    Row("billing", "exceeded_current_quota_error", _KIMI),
    Row("billing", "Arrearage", _DASHSCOPE),
    Row("billing", "AccountOverdueError", _ARK),
    Row("billing", "blocked_api_access", _GROQ_SPEND),
    Row("billing", "AllocationQuota.FreeTierOnly", "666ghj/BettaFish#609"),
    Row("billing", "BILLING_BALANCE_NOT_ENOUGH", _NOVITA),
    Row("billing", "BILLING_DISABLED", _GOOGLE),
    Row("billing", "1113", _BIGMODEL),
    Row("billing", "1309", _BIGMODEL),
    Row("billing", "base_resp 1008", _MINIMAX),
    # the gateway's key or its rights
    Row("bad_credentials", "invalid_api_key", _OPENAI),
    Row("bad_credentials", "incorrect_api_key_error", _KIMI),
    Row("bad_credentials", "invalid_authentication_error", _KIMI),
    Row("bad_credentials", "account_deactivated", _OPENAI),
    Row("bad_credentials", "API_KEY_INVALID", "continuedev/continue#11336"),
    Row("bad_credentials", "API_KEY_SERVICE_BLOCKED", _GOOGLE),
    Row("bad_credentials", "API_KEY_HTTP_REFERRER_BLOCKED", _GOOGLE),
    Row("bad_credentials", "API_KEY_IP_ADDRESS_BLOCKED", _GOOGLE),
    Row("bad_credentials", "API_KEY_ANDROID_APP_BLOCKED", _GOOGLE),
    Row("bad_credentials", "API_KEY_IOS_APP_BLOCKED", _GOOGLE),
    Row("bad_credentials", "ACCESS_TOKEN_SCOPE_INSUFFICIENT", _GOOGLE),
    Row("bad_credentials", "ACCESS_TOKEN_TYPE_UNSUPPORTED", _GOOGLE),
    Row("bad_credentials", "USER_PROJECT_DENIED", _GOOGLE),
    Row("bad_credentials", "SERVICE_DISABLED", _GOOGLE),
    Row("bad_credentials", "ACCESS_TOKEN_EXPIRED", _GOOGLE),
    Row("bad_credentials", "CREDENTIALS_MISSING", _GOOGLE),
    Row("bad_credentials", "ACCOUNT_STATE_INVALID", _GOOGLE),
    Row("bad_credentials", "CONSUMER_INVALID", _GOOGLE),
    Row("bad_credentials", "CONSUMER_SUSPENDED", _GOOGLE),
    Row("bad_credentials", "AccessDenied.Unpurchased", _DASHSCOPE),
    Row("bad_credentials", "MISSING_API_KEY", _NOVITA),
    Row("bad_credentials", "IncompleteSignature", _BEDROCK),
    Row("bad_credentials", "InvalidClientTokenId", _BEDROCK),
    Row("bad_credentials", "MissingAuthenticationToken", _BEDROCK),
    Row("bad_credentials", "NotAuthorized", _BEDROCK),
    Row("bad_credentials", "RequestExpired", _BEDROCK),
    Row("bad_credentials", "ExpiredToken", _BEDROCK),
    Row("bad_credentials", "UnrecognizedClient", _BEDROCK),
    Row("bad_credentials", "InvalidSignature", _BEDROCK),
    Row("bad_credentials", "AuthFailure", _TENCENT),
    Row("bad_credentials", "unsupported_country_region_territory", _OPENAI),
    Row("bad_credentials", "1000", _BIGMODEL),
    Row("bad_credentials", "1001", _BIGMODEL),
    Row("bad_credentials", "1002", _BIGMODEL),
    Row("bad_credentials", "1003", _BIGMODEL),
    Row("bad_credentials", "1004", _BIGMODEL),
    Row("bad_credentials", "1110", _BIGMODEL),
    Row("bad_credentials", "1111", _BIGMODEL),
    Row("bad_credentials", "1112", _BIGMODEL),
    Row("bad_credentials", "1121", _BIGMODEL),
    Row("bad_credentials", "1220", _BIGMODEL),
    Row("bad_credentials", "1311", _BIGMODEL),
    Row("bad_credentials", "base_resp 1004", _MINIMAX),
    Row("bad_credentials", "base_resp 2049", _MINIMAX),
    # the content
    Row("content_policy", "content_filter", _AZURE),
    Row("content_policy", "content_policy_violation", _OPENAI),
    Row("content_policy", "ResponsibleAIPolicyViolation", _AZURE),
    Row("content_policy", "moderation_blocked", "https://platform.openai.com/docs/guides/image-generation"),
    Row("content_policy", "data_inspection_failed", _DASHSCOPE),
    Row("content_policy", "PROHIBITED_CONTENT", "https://ai.google.dev/api/generate-content#BlockReason"),
    Row("content_policy", "safety_check_failed", _ZENMUX),
    Row("content_policy", "SensitiveContentDetected", _ARK),
    Row("content_policy", "InputTextSensitiveContentDetected", _ARK),
    Row("content_policy", "OutputTextSensitiveContentDetected", _ARK),
    Row("content_policy", "InputImageSensitiveContentDetected", _ARK),
    Row("content_policy", "InputTextRiskDetection", _ARK_MORE),
    Row("content_policy", "InputImageRiskDetection", _ARK_MORE),
    Row("content_policy", "OutputTextRiskDetection", _ARK_MORE),
    Row("content_policy", "ILLEGAL_PROMPT", _NOVITA),
    Row("content_policy", "1301", _BIGMODEL),
    Row("content_policy", "base_resp 1026", _MINIMAX),
    Row("content_policy", "base_resp 1027", _MINIMAX),
    # too many requests at a time
    Row("rate_limited", "rate_limit_exceeded", _OPENAI),
    Row("rate_limited", "QUOTA_EXHAUSTED", "google-gemini/gemini-cli#27548"),
    Row("rate_limited", "RESOURCE_QUOTA_EXCEEDED", _GOOGLE),
    Row("rate_limited", "rate_limit_reached_error", _KIMI),
    Row("rate_limited", "rate_limited", "cline/cline#9085"),
    Row("rate_limited", "too_many_requests", _COHERE),
    Row("rate_limited", "ThrottlingException", _BEDROCK),
    Row("rate_limited", "ServiceQuotaExceededException", _BEDROCK),
    Row("rate_limited", "Throttling.RateQuota", _DASHSCOPE),
    Row("rate_limited", "Throttling.BurstRate", _DASHSCOPE),
    Row("rate_limited", "Throttling.AllocationQuota", _DASHSCOPE),
    Row("rate_limited", "limit_requests", _DASHSCOPE),
    Row("rate_limited", "limit_burst_rate", _DASHSCOPE),
    Row("rate_limited", "RequestLimitExceeded", _TENCENT),
    Row("rate_limited", "1302", _BIGMODEL),
    Row("rate_limited", "1303", _BIGMODEL),
    Row("rate_limited", "1304", _BIGMODEL),
    Row("rate_limited", "1305", _BIGMODEL),
    Row("rate_limited", "1308", _BIGMODEL),
    Row("rate_limited", "1310", _BIGMODEL),
    Row("rate_limited", "1313", _BIGMODEL),
    Row("rate_limited", "base_resp 1002", _MINIMAX),
    Row("rate_limited", "base_resp 1039", _MINIMAX),
    Row("rate_limited", "base_resp 1041", _MINIMAX),
    # no capacity, or nobody there to answer now
    Row("overloaded", "engine_overloaded_error", _KIMI),
    Row("overloaded", "capacity_exceeded", _GROQ),
    Row("overloaded", "MODEL_CAPACITY_EXHAUSTED", "google-gemini/gemini-cli#23520"),
    Row("overloaded", "InvalidEndpoint.ClosedEndpoint", _ARK),
    Row("overloaded", "ModelNotReadyException", _BEDROCK),
    Row("overloaded", "ServiceUnavailableException", _BEDROCK),
    Row("overloaded", "1312", _BIGMODEL),
    # no such model
    Row("not_found", "model_not_found", _OPENAI),
    Row("not_found", "invalid_model", _ZENMUX),
    Row("not_found", "model_not_available", _ZENMUX),
    Row("not_found", "DeploymentNotFound", _AZURE_NO_DEPLOYMENT),
    Row("not_found", "ModelNotOpen", _ARK),
    Row("not_found", "model_permission_blocked_org", _GROQ_MODELS),
    Row("not_found", "model_permission_blocked_project", _GROQ_MODELS),
    Row("not_found", "ResourceNotFoundException", _BEDROCK),
    Row("not_found", "InvalidEndpointOrModel.NotFound", _ARK),
    Row("not_found", "1211", _BIGMODEL),
    Row("not_found", "1221", _BIGMODEL),
    Row("not_found", "1222", _BIGMODEL),
    # an id that the caller gave: of a response, a file …
    Row("unknown_id", "previous_response_not_found", "maximhq/bifrost#2441"),
    # another call of the caller is using it
    Row("bad_request", "conversation_locked", "paulgmiller/careme#379"),
    # a fault of the provider
    Row("server_error", "base_resp 1000", _MINIMAX),
    Row("server_error", "base_resp 1001", _MINIMAX),
    Row("server_error", "base_resp 1024", _MINIMAX),
    Row("server_error", "base_resp 1033", _MINIMAX),
    # the model's own fault, however it is coded
    Row("stream_error", "tool_use_failed", "agno-agi/agno#4090"),
    # ended by the provider
    Row("stream_error", "CANCELLED", "https://cloud.google.com/apis/design/errors#handling_errors"),
)

TYPES: tuple[Row, ...] = (
    Row("billing", "budget_exceeded", "BerriAI/litellm#4606"),
    Row("rate_limited", "rate_limit_error", _ANTHROPIC),
    Row("rate_limited", "RESOURCE_EXHAUSTED", _GRPC),
    Row("overloaded", "overloaded_error", _ANTHROPIC),
    Row("overloaded", "UNAVAILABLE", _GRPC),
    Row("bad_credentials", "authentication_error", _ANTHROPIC),
    Row("bad_credentials", "permission_error", _ANTHROPIC),
    Row("bad_credentials", "permission_denied_error", _KIMI),
    Row("bad_credentials", "access_denied", _ZENMUX),
    Row("bad_credentials", "UNAUTHENTICATED", _GRPC),
    Row("not_found", "not_found_error", _ANTHROPIC),
    Row("server_error", "server_error", _OPENAI),
    Row("server_error", "internal_server_error", _ZENMUX),
    Row("server_error", "api_error", _ANTHROPIC),
    Row("server_error", "INTERNAL", _GRPC),
    Row("server_error", "ModelErrorException", _BEDROCK),
    Row("server_error", "ModelTimeoutException", _BEDROCK),
    Row("bad_request", "invalid_request_error", _OPENAI),
    Row("bad_request", "BadRequestError", "vllm-project/vllm#20409"),
    Row("bad_request", "INVALID_ARGUMENT", _GRPC),
    Row("bad_request", "FAILED_PRECONDITION", _GRPC),
    Row("bad_request", "ValidationException", _BEDROCK),
    Row("bad_request", "InvalidParameter", _DASHSCOPE),
    Row("bad_request", "base_resp 2013", _MINIMAX),
    Row("bad_request", "invalid_prompt", "openai/codex#22495"),
)

WORDS: tuple[Row, ...] = (
    # the response of the caller's own URL when the provider fetched it
    Row(
        "bad_request",
        "re:\\b(error while|timeout while|time[d]? ?out|fail(ed|ure)?( to)?|unable to|cannot|could not|couldn't)"
        " (download|fetch)(ing)?\\b",
        "vercel/ai#8857",
    ),
    # the account's money
    Row("billing", "insufficient balance", "zai-org/GLM-5#148"),
    Row("billing", "insufficient account", "XiaomiMiMo/MiMo#99"),
    Row("billing", "insufficient credit", _OPENROUTER),
    Row("billing", "insufficient funds", _GENERAL),
    Row(
        "billing",
        "re:balance (is|was) (too low|insufficient|not enough|exhausted)",
        "FoundationAgents/OpenManus#438",
    ),
    Row("billing", "credit balance … too low", "https://kerlig.com/help/claude/troubleshooting"),
    Row("billing", "billing hard limit", "dfinke/PowerShellAI#127"),
    Row("billing", "re:billing (is )?(not (active|enabled)|disabled)", _OPENAI),
    Row("billing", "used all available credits", "continuedev/continue#10373"),
    Row(
        "billing",
        "re:(spend|spending|usage|billing) (hard )?limit\\b.{0,60}(purchase|raise|billing|credits)",
        "Anantys-oss/koan#2412",
    ),
    Row(
        "billing", "re:(reached|exceeded|hit) (your|its|their|the) (monthly )?spend(ing)? limit", _GROQ_SPEND
    ),
    Row("billing", "re:spend(ing)? limit (was |has been )?(reached|exceeded)", _GROQ_SPEND),
    Row("billing", "please enable billing", _GEMINI),
    Row("billing", "re:\\bkey limit exceeded", "RooCodeInc/Roo-Code#515"),
    Row("billing", "free tier of the model has been exhausted", "APIParkLab/APIPark#394"),
    Row("billing", "re:not have (enough|sufficient) (balance|credits?|funds)", _GENERAL),
    Row("billing", "re:(prepay(ment)?|prepaid) credit\\w*\\b.{0,30}(deplet|exhaust|used up)", _GEMINI),
    Row("billing", "re:specified api usage limits", _ANTHROPIC),
    Row(
        "billing",
        "re:(doesn't|does not|don't|do not) have (any|enough|sufficient) credits",
        "continuedev/continue#12670",
    ),
    Row("billing", "re:(run|ran) out of (credits|funds|quota)", "Wei-Shaw/sub2api#4069"),
    Row("billing", "re:(requires|purchase|buy|add) more credits", "can1357/oh-my-pi#9569"),
    Row(
        "billing",
        "re:exceeded (your|the) (monthly )?(included|free) (credits|quota|tier|usage)",
        "huggingface/huggingface_hub#2763",
    ),
    Row("billing", "account … good standing", "tencentmusic/supersonic#1572"),
    Row(
        "billing",
        "re:(account|payment|bill|invoice)s?\\b.{0,30}\\b(overdue|past due|arrears|unpaid)",
        "RooCodeInc/Roo-Code#12309",
    ),
    Row("billing", "re:(overdue|unpaid) (account|payment|bill|invoice)", "RooCodeInc/Roo-Code#12309"),
    Row("billing", "account … suspended … billing", _KIMI),
    Row("billing", "payment required", "https://docs.together.ai/docs/error-codes"),
    Row("billing", "regain access on", _ANTHROPIC),
    Row("billing", "quota is not enough", "QuantumNous/new-api (relay, pre-consumed quota)"),
    Row("billing", "额度不足", "QuantumNous/new-api (relay, pre-consumed quota)"),
    Row("billing", "余额不足", "continuedev/continue#11823"),
    Row("billing", "daily free allocation", "https://developers.cloudflare.com/workers-ai/platform/errors"),
    Row("billing", "re:need (a )?positive balance", "zebbern/no-cost-ai#24"),
    Row("billing", "re:budget has been exceeded! (current cost|team)", "BerriAI/litellm#14144"),
    Row("billing", "欠费", "langgenius/dify#5850"),
    # no capacity, in words of a rate limit
    Row("overloaded", "too many connections", _BEDROCK),
    # too many requests at a time
    Row(
        "rate_limited",
        "re:\\b(tokens?|requests?|images?|calls?|queries|messages)\\b.{0,12}(\\bper|/) ?(second|sec|min|"
        "minute|hour|day|week|month)",
        _OPENAI,
    ),
    Row(
        "rate_limited",
        "re:(qps|qpm|daily|rpm) (request )?limit (was |has been )?(reached|exceeded)",
        "songquanpeng/one-api#1503",
    ),
    Row("rate_limited", "re:\\b(tpm|rpm|tpd|rpd|itpm|otpm)\\b", _OPENAI),
    Row("rate_limited", "re:rate[ _-]?limit", "cline/cline#9085"),
    Row("rate_limited", "too many requests", _OPENAI),
    Row(
        "rate_limited",
        "receiving too many requests",
        "https://www.kimi.com/code/docs/en/kimi-code/error-reference.html",
    ),
    Row(
        "rate_limited",
        "re:wait (a (moment|while|bit|minute) )?before (trying|retrying|sending)",
        "jin-bo/agentao#88",
    ),
    Row("rate_limited", "re:throttl(ed|ing)", "jin-bo/agentao#88"),
    Row("rate_limited", "re:\\bslow down\\b", "doublewordai/control-layer#1800"),
    Row(
        "rate_limited",
        "re:\\bquota\\b.{0,60}(exceed|exhaust|reached|limit)|(exceed|exhaust|reach)\\w*.{0,40}\\bquota\\b",
        "google-gemini/gemini-cli#27548",
    ),
    Row(
        "rate_limited",
        "re:concurren(t|cy)\\b.{0,60}(exceed|too (high|many)|limit)|(exceed|too many|limit)\\w*.{0,40}\\bconcurren",
        _ZAI,
    ),
    Row(
        "rate_limited",
        "re:reached (your|the|its) usage limit",
        "https://www.kimi.com/code/docs/en/kimi-code/error-reference.html",
    ),
    Row("rate_limited", "re:limit (will )?resets? (in|at|on)", _BIGMODEL),
    Row("rate_limited", "re:resource (has been )?exhausted", _GRPC),
    Row("rate_limited", "re:(并发数|频率)过高", _BIGMODEL),
    Row("rate_limited", "re:(调用次数|流量)限", _BIGMODEL),
    # the caller's own parameters, although they mention tokens or lengths
    Row("context_length", "re:max_tokens must be at least 1, got -\\d", "vllm-project/vllm#4667"),
    Row("bad_request", "array too long", _OPENAI),
    Row("context_length", "re:string too long\\. expected a string with maximum length \\d{6,}", _OPENAI),
    Row("bad_request", "string too long", _OPENAI),
    Row(
        "bad_request",
        "re:^(?!.*\\b(prompt|inputs?|messages)\\b).*\\bmax_(completion_|output_|new_)?tokens\\b"
        "[^.]{0,60}((less|greater|larger|more) than|at most|too (large|big|high)|exceed\\w*)",
        "https://console.groq.com/docs/errors",
    ),
    Row("bad_request", "too many tokens: max tokens must be", _COHERE),
    Row("bad_request", "range of max_tokens should be", _DASHSCOPE),
    Row("bad_request", "valid range of max_tokens", _DEEPSEEK),
    Row("bad_request", "maximum tokens you requested exceeds", "aws-samples/bedrock-access-gateway#41"),
    # too long
    Row("context_length", "maximum context length", _OPENAI),
    Row("context_length", "exceeds the context window", _PI),
    Row("context_length", "exceed context limit", "continuedev/continue#6080"),
    Row("context_length", "prompt is too long", _PI),
    Row("context_length", "maximum prompt length is", "earendil-works/pi#4943"),
    Row("context_length", "input token count … exceeds the maximum", "google-gemini/gemini-cli#6678"),
    Row(
        "context_length",
        "input token count is … only supports up to",
        "https://cloud.google.com/vertex-ai/generative-ai/docs/error-code-400",
    ),
    Row("context_length", "re:cannot truncate to \\d+, required \\d+", "iBUHub/AIStudioToAPI#268"),
    Row("context_length", "exceeded model token limit", "MoonshotAI/kimi-cli#2011"),
    Row("context_length", "input token length too long", _KIMI),
    Row("context_length", "re:total message size \\d+ exceeds limit", _KIMI),
    Row("context_length", "exceeds the maximum allowed input length", "earendil-works/pi#4943"),
    Row("context_length", "prompt exceeds max length", "NVIDIA-NeMo/Switchyard#314"),
    Row("context_length", "re:prompt ?超长", _BIGMODEL),
    Row(
        "context_length",
        "prompt token count of … exceeds the limit of",
        "microsoft/copilot-intellij-feedback#94",
    ),
    Row("context_length", "range of input length should be", "QwenLM/qwen-code#98"),
    Row("context_length", "longer than the maximum model length", "vllm-project/vllm#12600"),
    Row("context_length", "maximum input length of", "anomalyco/opencode#17748"),
    Row("context_length", "longer than the model's context length", _PI),
    Row("context_length", "requested token count exceeds", "earendil-works/pi#4563"),
    Row("context_length", "re:inputs tokens \\+ max_new_tokens must be", "huggingface/huggingface_hub#2763"),
    Row("context_length", "inputs must have less than … tokens", "huggingface/text-generation-inference#695"),
    Row("context_length", "exceeds the available context size", "openclaw/openclaw#64196"),
    Row("context_length", "tokens to keep from the initial prompt is greater", "Gitlawb/openclaude#353"),
    Row("context_length", "loaded with context length of only", "lmstudio-ai/lmstudio-bug-tracker#546"),
    Row("context_length", "re:when (the )?context (the )?overflows", "lmstudio-ai/lmstudio-bug-tracker#237"),
    Row("context_length", "input length exceeds the context length", "nano-step/nano-brain#208"),
    Row("context_length", "exceeded max context length", _PI),
    Row("context_length", "input is too long", "aws-samples/bedrock-chat#95"),
    Row("context_length", "exceeds the max input token limit", "openclaw/openclaw#58839"),
    Row("context_length", "too many input tokens", _BEDROCK),
    Row("context_length", "too many tokens", "cohere-ai/sandbox-topically#4"),
    Row("context_length", "total tokens exceeds the model's max", "openclaw/openclaw#58839"),
    Row("context_length", "prompt contains … too large for model with", _PI),
    Row(
        "context_length",
        "re:reduce the length of the (messages|prompt|input|conversation)",
        "mckaywrigley/chatbot-ui#102",
    ),
    Row(
        "context_length", "length of prompt_tokens … must be less than max_seq_len", "chatboxai/chatbox#2060"
    ),
    Row("context_length", "context window exceeds limit", _PI),
    Row("context_length", "tokens in request more than max tokens allowed", _PI),
    Row("context_length", "context length is only", "lmstudio-ai/lmstudio-bug-tracker#237"),
    Row("context_length", "is greater than max_seq_len", "SillyTavern/SillyTavern#3543"),
    Row(
        "context_length",
        "sum of prompt length … should not exceed max_num_tokens",
        "NVIDIA/TensorRT-LLM#9277",
    ),
    Row(
        "context_length",
        "request payload size exceeds the limit",
        "google-gemini/deprecated-generative-ai-android#26",
    ),
    Row("context_length", "long context beta is not yet available", "anthropics/claude-code#6871"),
    Row("context_length", "extra usage is required for long context", "anomalyco/opencode#18853"),
    Row("context_length", "the max input characters is", _QIANFAN),
    Row("context_length", "configured context size is", _PI),
    Row(
        "context_length",
        "input tokens exceed the configured limit",
        "https://platform.openai.com/docs/api-reference/responses",
    ),
    Row("context_length", "total tokens of image and text exceed max message tokens", _ARK),
    # generally: which thing is too long, by which limit
    Row(
        "context_length",
        "re:context[ _-]?(length|window|size|limit|budget)s?.{0,80}(exceed|too (long|small|large)|overflow|"
        "reached|is full|surpass)",
        _GENERAL,
    ),
    Row(
        "context_length",
        "re:(exceed|longer than|larger than|greater than|more than|less than|beyond|overflow|too (long|large|"
        "big|many) for|(not|n't) fit|surpass)\\w*.{0,60}\\b(context|max_model_len|n_ctx)\\b",
        _GENERAL,
    ),
    Row(
        "context_length",
        "re:max(imum|imal)?\\b.{0,24}\\b(context|prompt|input|sequence|model)[ _-](length|tokens?|size|window|len)",
        _GENERAL,
    ),
    Row("context_length", "re:maximum number of (input|prompt|context) tokens", _GENERAL),
    Row(
        "context_length",
        "re:\\b(prompt|inputs?|context|messages?|conversation|chat|history|query|request|tokens)\\b"
        "(?!.{0,160}\\b(images?|files?|tools?|pixels?|attachments?|functions?|stop sequences|schema)\\b)"
        "[^.]{0,40}?\\b(too (long|large|big)|exceed\\w*|longer than|larger than|greater than|surpass\\w*)\\b"
        "(?=.{0,120}\\b(tokens?|length|context|characters)\\b|\\W*$)",
        _GENERAL,
    ),
    Row(
        "context_length",
        "re:\\b(prompt|input|message|conversation|request)\\b[^.]{0,16}\\b(is |was |were |are )?too (long|large|big)\\b",
        _GENERAL,
    ),
    Row(
        "context_length",
        "re:\\b(inputs?|prompt|sequence|messages)\\b(?!.{0,160}\\b(images?|files?|tools?)\\b)[^.]{0,80}"
        "\\b(must be|at most|less than|no more than|exceed\\w*|limited to|longer than|maximum( is|"
        " of)?)\\b[^.]{0,30}\\d[\\d,]*[ -]?tokens?\\b",
        _GENERAL,
    ),
    Row("context_length", "re:\\bsequence length\\b.{0,40}(exceed|longer|greater|larger)", _GENERAL),
    Row(
        "context_length",
        "re:\\b(requested|sent|got|received|contains|has) [\\d,]+ tokens\\b[^.]{0,40}\\b(maximum|limit|max)\\b",
        _GENERAL,
    ),
    Row(
        "context_length",
        "re:\\btoken (limit|count|length|budget)s?\\b.{0,30}(exceed|surpass|reached|over)",
        _GENERAL,
    ),
    Row(
        "context_length",
        "re:(exceed|surpass|over)\\w*\\b.{0,40}\\btoken (limit|count|length|budget)",
        _GENERAL,
    ),
    Row(
        "context_length",
        "re:(number|count|amount) of (input |prompt |total )?tokens\\b.{0,60}(exceed|greater|larger|more than|over)",
        _GENERAL,
    ),
    Row("context_length", "re:\\d tokens? ?> ?[\\d,]+ ?(tokens )?(maximum|limit|max)", _GENERAL),
    Row(
        "context_length",
        "re:(reduce|shorten|shrink|trim|truncate|decrease)\\b(?!.{0,60}\\b(images?|files?|"
        "tools?)\\b)[^.]{0,30}\\b(prompt|messages?|input|conversation|history|context)\\b",
        _GENERAL,
    ),
    Row("context_length", "re:(shorter|smaller) (input|prompt|message|conversation|context)", _GENERAL),
    Row("context_length", "re:(上下文|输入|提示|prompt|tokens?|对话|消息).{0,24}(超|过长|太长)", _GENERAL),
    # the content
    Row(
        "content_policy",
        "re:content (management|filter(ing)?|moderation|safety|usage)( and \\w+)? (policy|policies|system|check|guidelines)",
        _AZURE,
    ),
    Row("content_policy", "content management policy", _AZURE),
    Row("content_policy", "requires moderation", _OPENROUTER),
    Row("content_policy", "re:^blocked (input|output)\\b", _COHERE),
    Row(
        "content_policy",
        "re:(input|prompt|request|content|message|output)s? (was|were|has been|have been|is) flagged",
        _OPENROUTER,
    ),
    Row("content_policy", "limited access to this content for safety reasons", "openai/codex#22495"),
    Row("content_policy", "content exists risk", "deepseek-ai/DeepSeek-V2#30"),
    Row("content_policy", "considered high risk", _KIMI),
    Row("content_policy", "violates usage guidelines", "theopenco/llmgateway#1785"),
    Row(
        "content_policy",
        "re:violat\\w+ (of )?(\\w+ ){0,4}(polic(y|ies)|guidelines|terms of (use|service))",
        _OPENAI,
    ),
    Row("content_policy", "re:(safety|moderation) (system|filters?|checks?|polic(y|ies)|settings)", _OPENAI),
    Row(
        "content_policy",
        "re:blocked (due to|because of|by|for) .{0,40}(safety|polic|prohibited|content|guardrail|moderation|recitation)",
        "https://ai.google.dev/api/generate-content#BlockReason",
    ),
    Row("content_policy", "prohibited_content", "https://ai.google.dev/api/generate-content#BlockReason"),
    Row("content_policy", "inappropriate content", _DASHSCOPE),
    Row("content_policy", "responsible ai", _AZURE),
    Row(
        "content_policy",
        "re:guardrails? .{0,30}(intervened|blocked|triggered)",
        "https://docs.aws.amazon.com/bedrock/latest/userguide/guardrails.html",
    ),
    Row("content_policy", "re:new_sensitive", _MINIMAX),
    Row("content_policy", "re:(不安全|敏感)(或敏感)?内容", _BIGMODEL),
    # the gateway's key or its rights
    Row(
        "bad_credentials",
        "re:\\b(api|access|auth|authorization|authentication|secret|bearer|security|"
        "service account)[ _-]?(key|token|credential)s?\\b.{0,50}\\b(invalid|expired|incorrect|revoked|"
        "not valid|not found|missing|disabled|wrong|deleted|not provided|is required|malformed|unknown|"
        "unauthori[sz]ed|leaked|blocked|inactive|not (active|authorized|permitted))",
        "continuedev/continue#11336",
    ),
    Row(
        "bad_credentials",
        "re:\\b(invalid|incorrect|expired|missing|wrong|unknown|bad|revoked|no|inactive)\\b.{0,24}\\b(api|"
        "access|auth|authorization|authentication|secret|bearer|security)[ _-]?(key|token|credential)s?\\b",
        "continuedev/continue#10778",
    ),
    Row(
        "bad_credentials",
        "re:\\b(api ?key)\\b.{0,40}(renew|generate a new|create a new)",
        "continuedev/continue#11336",
    ),
    Row("bad_credentials", "authorization header is badly formatted", "tailcallhq/forgecode#1092"),
    Row("bad_credentials", "re:security token included in the request is", _BEDROCK),
    Row("bad_credentials", "request signature we calculated does not match", _BEDROCK),
    Row(
        "bad_credentials",
        "re:(invalid|incorrect|expired|bad|missing) (authentication|credentials?|authorization|login)\\b",
        _KIMI,
    ),
    Row("bad_credentials", "re:invalid[ _]grant", "https://developers.google.com/identity/protocols/oauth2"),
    Row(
        "bad_credentials",
        "re:authentication ?(error|fail(ed|s|ure)|required)|authenticationerror|fail(ed|ure) to authenticate",
        _DEEPSEEK,
    ),
    Row(
        "bad_credentials",
        "re:organization (has been|is) (disabled|suspended|deactivated|restricted)",
        _ANTHROPIC,
    ),
    Row(
        "bad_credentials",
        "re:account\\b.{0,40}\\b(disabled|deactivated|suspended|terminated|locked|banned|not active|inactive)",
        _BIGMODEL,
    ),
    Row(
        "bad_credentials",
        "re:^(forbidden|unauthori[sz]ed|access denied|permission denied|not authenticated)\\b",
        _DASHSCOPE,
    ),
    Row(
        "bad_credentials",
        "re:user location is not supported",
        "https://ai.google.dev/gemini-api/docs/troubleshooting",
    ),
    Row("bad_credentials", "re:(身份验证|鉴权)失败", _BIGMODEL),
    # no such model
    Row(
        "not_found",
        "re:\\bmodel\\b[^.]{0,80}\\b(not found|(does not|doesn't|not) exist|is not available|"
        "no longer (available|supported)|has been (deprecated|retired|decommissioned|removed|shut down))",
        "https://console.groq.com/docs/deprecations",
    ),
    Row("not_found", "re:\\b(no such|unknown|unsupported) model\\b", _GENERAL),
    Row("not_found", "re:\\binvalid model\\b(?! (input|output|response|parameter))", _ZENMUX),
    Row(
        "not_found",
        "re:\\bmodel:? [\\w./:@-]+ is not supported",
        "https://alibabacloud.com/help/en/model-studio/coding-plan-faq",
    ),
    Row("not_found", "no endpoints found", _OPENROUTER),
    Row("not_found", "supported api model names are", "0xPlaygrounds/rig (a recorded answer of DeepSeek's)"),
    Row("not_found", "is not a valid model id", "continuedev/continue#10758"),
    Row("not_found", "model identifier is invalid", "earendil-works/pi#4993"),
    Row("not_found", "on-demand throughput isn't supported", "aws-samples/bedrock-access-gateway#73"),
    Row(
        "not_found",
        "re:deployment\\b.{0,60}\\bdoes not exist",
        _AZURE_NO_DEPLOYMENT,
    ),
    Row("not_found", "模型不存在", _BIGMODEL),
    Row(  # Vertex AI, with a status of 403, for models that do not exist
        "not_found",
        "re:denied on resource .{0,300}/models/.{0,200}\\(or it may not exist\\)",
        "rpurinton/gemini-php#4",
    ),
    Row(
        "not_found",
        "re:(\\b(not|no)|n't) (have )?(access|permission|permitted|allowed)\\b[^.]{0,20}\\bmodel\\b",
        "langgenius/dify#2829",
    ),
    # an id that the caller gave: of a response, a file …
    Row(
        "unknown_id",
        "re:\\b(file|item|response|conversation|container|vector store|prompt|batch|cached ?content|upload)s?\\b"
        "(?! or directory)(?![^.]{0,60}\\b(api|endpoint|url|path|route)\\b)"
        "[^.]{0,120}\\b(not found|((does|do|did|may) not|doesn't|don't) exist)",
        "home-assistant/core#150251",
    ),
    Row(
        "unknown_id",
        "re:\\bno such (file|response|conversation|container|vector store|prompt|batch)\\b",
        "danny-avila/LibreChat#2632",
    ),
    # no capacity, or nobody there to answer now
    Row("overloaded", "re:over ?loaded", _ANTHROPIC),
    Row(
        "overloaded",
        "re:(at|over|no|insufficient) capacity|capacity (exceeded|constraints|reached)",
        "continuedev/continue#6185",
    ),
    Row(
        "overloaded",
        "re:(service|model|server|engine) (is )?(temporarily |currently )?(unavailable|busy)",
        _DEEPSEEK,
    ),
    Row(
        "overloaded",
        "re:(is |still )?(currently )?loading( model)?\\b.{0,30}$|model .{0,80}is (currently )?loading|loading model",
        "huggingface/huggingface_hub#2763",
    ),
    Row(
        "overloaded",
        "re:(experiencing|due to) (high|heavy) (demand|load|traffic)",
        "https://docs.together.ai/docs/error-codes",
    ),
    Row(
        "overloaded",
        "re:no (available|healthy) (workers?|servers?|backends?|channels?|upstreams?|instances?|providers?)",
        _ZENMUX,
    ),
    Row("overloaded", "re:访问量过大", _BIGMODEL),
    # a fault of the provider
    Row("server_error", "re:internal (server )?error", _GENERAL),
)

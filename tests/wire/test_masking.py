"""Secrets and internal addresses in a provider's words are masked, wherever they stand; ordinary words stay
as they are."""

import json
import time
from base64 import b64encode, urlsafe_b64encode
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.wire.masking import MASK, MIN_SECRET_LENGTH, masked
from sluice.wire.upstream_errors import MAX_MESSAGE, shown, upstream_error

SECRETS = (
    "sk-proj-abc_DEF-123456",
    "sk-ant-api03-AbCdEf123456-_x",
    "sk-or-v1-0123456789abcdef0123456789abcdef",
    "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "gho_abcdefGHIJ1234567890",
    "github_pat_11ABCDEFG0abcdefghijkl_mnop",
    "xoxb-123456789012-abcdefABCDEF",
    "xoxp-1234-5678-abcd",
    "AKIAIOSFODNN7EXAMPLE",
    "AIzaSyA-1234567890abcdefghijklmnopqrstuv",
    "ya29.a0AfH6SMBx1234",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-DEF_123",
    "hf_AbCdEfGhIjKlMnOpQrStUv",
    "gsk_abcdEFGH1234ijklMNOP",
    "xai-AbCdEfGh12345678",
    "glpat-abcDEF123456",
    "dckr_pat_4bCdEf0123456789-ghijkl",
    "tvly-dev-4bCdEf0123456789",
    "lsv2_pt_0123456789abcdef0123456789abcdef_0123456789",
    "PMAK-0123456789abcdef01234567-0123456789abcdef0123456789abcdef01",
    "LTAI5tAbCdEfGhIjKlMnOpQr",
    "dapi0123456789abcdef0123456789abcdef",
    "acme_live_9fQ2xT7bLm4VkR8cWz1H",
    "zz-7Hq2Rt9Lw4Xc6Vb8Nm1Kj",
    "npm_abcdEFGH1234567890",
    "Bearer abcdef.ghijkl",
    "Bearer 0a1b2c3d4e5f",
    "Basic dXNlcjpwYXNzd29yZA==",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc\n-----END RSA PRIVATE KEY-----",
    "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "0123456789abcdef0123456789abcdef",
    "10.1.2.3",
    "10.1.2.3:8080",
    "172.16.5.4",
    "192.168.0.1",
    "127.0.0.1:9000",
    "169.254.169.254",
    "fd00::1",
    "fe80::1",
    "[fd12:3456::7]:8080",
    "::1",
    "db.internal",
    "node-3.cluster.local:8000",
    "llm.default.svc.cluster.local",
    "gpu-7.corp:443",
    "http://vllm:8000/v1/chat/completions",
    "http://10.0.0.7:8000/v1",
    "api.example.com:8443",
    "localhost:11434",
    "vllm-worker-3:8000",
    "pplx-0123456789abcdefABC",
    "nvapi-abcDEF1234567890",
    "r8_abcDEF1234567890abcd",
    "tgp_v1_abcDEF1234567890",
    "org-a1B2c3D4e5",
    "8.8.8.8:443",
    "https://user:hunter2@proxy.example.com/x",
    "tvly-abcDEF1234567890",
    "sbp_0123456789abcdef0123456789abcdef01234567",
    "MTk4NjIyNDgzNDcxOTI1MjQ4.Cl2FMQ.ZnCjm1XVW7vRze4b7Cq4se7kKWs",
    "Bearer abcdefghijklmnopqrstuvwx",
)
"""Each is recognized by its form alone. (All made up, or from the vendors' documentation.)"""

NAMED = (
    ("arn:aws:iam::123456789012:user/bob is not authorized", "123456789012"),
    ("https://hooks.slack.com/services/T0000/B0000/XXXXXXXXabcd answered 404", "XXXXXXXXabcd"),
    ("API key abcd1234efgh5678 is invalid", "abcd1234"),
    ("aws_session_token: FwoGZXIvYXdzEXAMPLE==", "FwoGZXIv"),
    ("Password 'hunter22' rejected", "hunter22"),
    ("HTTPConnectionPool(host='vllm-svc', port=8000)", "vllm-svc"),
    ("jdbc:postgresql://db.internal:5432/x?user=a&password=b1c2", "db.internal"),
    ("https://x.openai.azure.com/?api-key=0123abcd", "0123abcd"),
    ("sv=2022&sig=ABCdef123%3D", "ABCdef123"),
    ("api_key=abc123def", "abc123def"),
    ("password=hunter2", "hunter2"),
    ("password: swordfish1", "swordfish1"),
    ("passwd: tr0ub4dor", "tr0ub4dor"),
    ("token=abcdef123456", "abcdef123456"),
    ("token: abc123def456", "abc123def456"),
    ("secret_key='s3cr3t-v4lue'", "s3cr3t-v4lue"),
    ('{"api_key": "abcd1234efgh"}', "abcd1234efgh"),
    ('{"password":"swordfish"}', "swordfish"),
    ("x-api-key: 0a1b2c3d4e", "0a1b2c3d4e"),
    ("client_secret=AbCdEf123", "AbCdEf123"),
    ("AccountKey=abcd1234==;EndpointSuffix=x", "abcd1234"),
    ("SharedAccessKey=abc123/def=", "abc123/def"),
    ("https://api.example.com/v1?key=AIzaSyABCDEFGHIJKLMNOPQRSTUVWX&alt=sse", "AIzaSy"),
    ("api key is abc123def456", "abc123def456"),
    ("Incorrect API key provided: ab12cd34ef56.", "ab12cd34ef56"),
    ("Incorrect API key provided: no***ey.", "no***ey"),
    ("Authorization: Bearer abc123def", "abc123def"),
    ("redis://:p4ssw0rd@cache.example.com/0", "p4ssw0rd"),
    ("postgres://svc:hunter2@db.example.com/x", "hunter2"),
    ("https://user:hunter2@proxy.example.com", "hunter2"),
    ("set-cookie: session=0a1b2c3d4e5f", "0a1b2c3d4e5f"),
)
"""Each is recognized by the name that it is given."""

ORDINARY = (
    "Item 'rs_68c42de022c881948db7ed1cc2529f2e0202c9ad459e0d23' of type 'reasoning' has no following item",
    "fc_68c42de022c881948db7ed1cc2529f2e0202c9ad459e0d23 and conv_68c42de022c881948db7ed1cc2529f2e",
    "vs_68c42de022c881948db7ed1cc2529f2e was not found",
    "file-9fQ2xT7bLm4VkR8cWz1H was deleted",
    "x-amzn-GetFoundationModelAvailabilityRequestV2 is not supported",
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B and us.anthropic.claude-sonnet-4-5-20250929-v1:0",
    "API key expired. Please renew the API key.",
    "API key not valid. Please pass a valid API key.",
    "token limit exceeded",
    "password is required",
    "password: required",
    "Invalid token: unexpected character at position 3",
    "max_tokens: 100000 > 8192, which is the maximum allowed number of output tokens for claude-3-5-haiku-20241022",
    "The key parameters are wrong: top_p must be at most 1",
    "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens (8900 in "
    "the messages, 100 in the completion).",
    "Bearer authentication is required",
    "Basic authentication is not supported",
    "Missing bearer token",
    "Token authentication failed",
    "See https://platform.openai.com/docs/guides/error-codes/api-errors.",
    "For more information head to: https://ai.google.dev/gemini-api/docs/rate-limits.",
    "Quota exceeded for metric: generativelanguage.googleapis.com/generate_content_free_tier_requests, "
    "limit: 20, model: gemini-2.5-flash",
    "model meta-llama/Llama-3.3-70B-Instruct-Turbo-Free not found",
    "model claude-3-5-sonnet-20241022 is overloaded",
    "Request id: 649b2bbc-c541-9e16-9845-db7fe4fe5b2d",
    "request_id: req_011CSHoEeqs5C35K2UUqR7Fy",
    "Rate limit reached for gpt-4o on tokens per min (TPM): Limit 30000, Used 29000, Requested 5000. Please try again in 8s.",
    "Unexpected key 'foo' in object",
    "key-value pairs are required",
    "sk-learn is not a model",
    "hf_hub_download failed",
    "unknown field `max_token`: expected one of `max_tokens`",
    "token: expected string",
    "invalid access token or token expired",
    "tokens: 4096",
    "prompt_tokens=5000 exceed n_ctx=4096",
    "Incorrect API key provided. You can find your API key at https://console.x.ai.",
    "user-level and org-level limits apply",
    "limit 429:1000 reached at 12:30:45",
    "time 2026-01-01T12:30:45Z",
    "Model qwen2.5:14b not found, try pulling it first",
    "model 'llama3.2:3b-instruct-q4_K_M' not found",
    "temperature: must be between 0 and 2",
    "messages.0.content: Input should be a valid string",
    "tool_use ids were found without tool_result blocks immediately after: toolu_01A09q90qw90lq917835lq9. Each",
    "Invalid 'messages[0].content': string too long. Expected a string with maximum length 10485760",
    "'gpt-4-32k' requires tier:5000",
    "The secret: be brief",
    "Python 3.11.4.2 is old",
    "version 1.2.3.4 required",
    "error code:400",
    "basic: not allowed",
    "authorization is required",
    "authorization: missing",
    "signature: invalid",
    "Your API key: required",
    "set the token to null",
    "cookie policy",
    "signature mismatch",
    "credentials are invalid",
    "password must be 8 characters",
    "The parameter `api_key` is required",
    "api_key: field required",
    "api_key: Field required",
    "access_token: missing",
    "Extra inputs are not permitted",
    "Input token length too long",
    "The token is too long",
)

PLACES = (
    "{}",
    "{} was refused",
    "found {}",
    "found {} here",
    "found {}, again",
    "found {}.",
    "({})",
    "'{}'",
    '"{}"',
    "before\n{}\nbehind",
    '{{"detail":"{}"}}',
    "<b>{}</b>",
)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("secret", SECRETS, ids=lambda secret: secret[:24])
def test_a_secret_is_masked_wherever_it_stands(secret: str, place: str) -> None:
    told = masked(place.format(secret))
    heart = secret if "BEGIN" in secret else secret.split()[-1]
    assert heart not in told
    assert MASK in told


@pytest.mark.parametrize(("text", "secret"), NAMED)
def test_what_has_a_secrets_name_is_masked(text: str, secret: str) -> None:
    for place in PLACES:
        assert secret not in masked(place.format(text))


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_words_stay(text: str) -> None:
    assert masked(text) == text
    assert shown("bad_request", text) == text


BETWEEN = [
    "the",
    "model",
    "was",
    "not",
    "found",
    "in",
    "limit",
    "is",
    "invalid",
    "your",
    "key:",
    "value",
    "(and)",
    ",",
    ".",
]
WORDS = st.lists(st.sampled_from(BETWEEN), max_size=8)


@given(WORDS, st.sampled_from(SECRETS), WORDS)
def test_a_secret_among_any_words_is_masked(before: list[str], secret: str, behind: list[str]) -> None:
    heart = secret if "BEGIN" in secret else secret.split()[-1]
    assert heart not in masked(" ".join([*before, secret, *behind]))


@given(st.text(max_size=400))
def test_never_raises_and_masks_once(text: str) -> None:
    assert masked(masked(text)) is not None


OWN = "no-prefix.key_of ours/2"


@pytest.mark.parametrize(
    "written",
    [
        OWN,
        quote(OWN, safe=""),
        quote(OWN),
        b64encode(OWN.encode()).decode(),
        urlsafe_b64encode(OWN.encode()).decode().rstrip("="),
    ],
)
def test_an_own_secret_is_masked_literally(written: str) -> None:
    for place in PLACES:
        assert written.rstrip("=") not in masked(place.format(written), [OWN])


def test_what_is_too_short_to_be_a_secret_blots_nothing() -> None:
    assert masked("the model is ok", ["k", "m" * (MIN_SECRET_LENGTH - 1)]) == "the model is ok"


def test_no_half_of_a_secret_is_shown_where_a_message_is_cut() -> None:
    for length in range(4 * MAX_MESSAGE - 60, 4 * MAX_MESSAGE + 5):
        words = ("10.0.0.1 " * MAX_MESSAGE)[: length - length % 9] + "ghp_0123456789abcdefABCDEF tail"
        told = shown("bad_request", words)
        assert "ghp_0" not in told
        assert len(told) <= MAX_MESSAGE


def test_a_message_with_all_of_them_is_shown_without_any() -> None:
    body = json.dumps({"error": {"message": "No: " + " ".join(SECRETS[:8])}}).encode()
    told = upstream_error(400, {}, body).message
    assert told.startswith("No: ***")
    assert not [secret for secret in SECRETS[:8] if secret in told]


@pytest.mark.parametrize(
    "text",
    ["*" * 16_000, "sk-." * 4_000, "a-" * 8_000, "access-" * 2_400, "_." * 8_000, "chatcmpl" * 2_000],
    ids=len,
)
def test_a_long_text_takes_a_time_that_grows_as_its_length(text: str) -> None:
    """Texts of prompts are masked, too, where records hold them, and a match does not let other threads go on."""

    def seconds(text: str) -> float:
        began = time.process_time()
        masked(text)
        return time.process_time() - began

    masked(text[:400])
    quarter = min(seconds(text[: len(text) // 4]) for _ in range(3))
    assert min(seconds(text) for _ in range(3)) < max(10 * quarter, 0.05)  # the square would be 16 times

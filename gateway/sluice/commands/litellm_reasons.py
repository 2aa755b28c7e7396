"""Reasons why values of a LiteLLM file are not converted, or where Sluice has the same setting.

Its settings: https://docs.litellm.ai/docs/proxy/config_settings
"""

from collections.abc import Mapping

_CALLBACKS = "there are log lines, call records and metrics (docs/logs.md, docs/metrics.md); plugins see calls and answers"
_CACHE = "answers are cached by alias: interceptors: [{name: cache}]"
_DATABASE = "no database is needed: dynamic keys and usage are kept by admin.store"
_PAGES = "the pages are signed in to with the admin key, or by admin.oidc"
_RETRIES = "which failures are tried again is fixed (README, Routing); how often: the alias's retry"
_KEYS = "keys with limits and an end are made by /admin/keys, or stand in `keys`"
_CONTEXT = (
    "give targets their `context`: too long a request goes to one that has room, in whichever tier it is"
)
_TOKENS = "prices here are for tokens (prices.models)"
REASONS: Mapping[str, str] = {
    "drop_params": "fields that a model refuses are left out by the table of models (config/models.yaml) anyway",
    "additional_drop_params": "name them in the target's `drop`",
    "allowed_openai_params": "what a model takes is said by the table of models (docs/models.md)",
    "modify_params": "requests are fitted to the model by the table of models (docs/models.md) anyway",
    "database_url": _DATABASE,
    "store_model_in_db": _DATABASE,
    "proxy_batch_write_at": _DATABASE,
    "database_connection_pool_limit": _DATABASE,
    "database_connection_timeout": _DATABASE,
    "allow_requests_on_db_unavailable": _DATABASE,
    "proxy_budget_rescheduler_min_time": _DATABASE,
    "proxy_budget_rescheduler_max_time": _DATABASE,
    "store_prompts_in_spend_logs": "texts are in call records where log.content says so (docs/logs.md)",
    "maximum_spend_logs_retention_period": "call records are kept where they are sent; usage by the hour: usage.hourly_days",
    "maximum_spend_logs_retention_interval": "call records are kept where they are sent (docs/logs.md)",
    "disable_spend_logs": "usage is counted in every case; its cost is a row for each hour, key, alias and model",
    "turn_off_message_logging": "no texts are logged unless log.content says so",
    "callbacks": _CALLBACKS,
    "success_callback": _CALLBACKS,
    "failure_callback": _CALLBACKS,
    "service_callback": _CALLBACKS,
    "callback_settings": _CALLBACKS,
    "langfuse_default_tags": _CALLBACKS,
    "alerting": "alerts are Prometheus's (docs/runbooks.md)",
    "alerting_threshold": "alerts are Prometheus's (docs/runbooks.md)",
    "alert_types": "alerts are Prometheus's (docs/runbooks.md)",
    "cache": _CACHE,
    "cache_params": _CACHE,
    "redis_url": "limits.store takes a redis:// URL",
    "set_verbose": "log.level: debug",
    "debug": "log.level: debug",
    "detailed_debug": "log.level: debug",
    "json_logs": "log lines are JSON where they do not go to a terminal",
    "telemetry": "nothing is reported to anybody",
    "enable_pre_call_checks": "targets that cannot take a request are left out where `context`, `vision`, `tools` say so",
    "optional_pre_call_checks": "strategy: affinity keeps a session, a key or a prompt's beginning at one target",
    "ui_username": _PAGES,
    "ui_password": _PAGES,
    "ui_access_mode": _PAGES,
    "proxy_base_url": _PAGES,
    "environment_variables": "set it in the gateway's environment",
    "retry_policy": _RETRIES,
    "allowed_fails_policy": "breaker of the upstream: failures, error_rate",
    "retry_after": "retry.backoff of the alias",
    "model_group_retry_policy": _RETRIES,
    "max_retries": _RETRIES,
    "routing_strategy_args": "strategies have no options here",
    "disable_cooldowns": "breaker of the upstream: failures, open_for",
    "cooldown_time": "breaker of the upstream: open_for, above 0",
    "context_window_fallbacks": _CONTEXT,
    "content_policy_fallbacks": "alias: fall_back_on_content_policy: true, with a further tier",
    "default_model": "default_alias of a key",
    "default_team_settings": "tenants and teams have limits (docs/limits.md)",
    "default_internal_user_params": _KEYS,
    "default_key_generate_params": _KEYS,
    "upperbound_key_generate_params": _KEYS,
    "allow_user_auth": _KEYS,
    "custom_auth": "JWTs of your own issuer: `jwt`",
    "enable_jwt_auth": "`jwt`",
    "litellm_jwtauth": "`jwt`: claims",
    "allowed_ips": "a firewall, or the ingress",
    "user_header_mappings": "limits.end_users: header",
    "user_header_name": "limits.end_users: header",
    "forward_client_headers_to_llm_api": "`forward` of the upstream names headers",
    "custom_headers": "`forward` of the upstream names headers",
    "max_budget": "with a budget_duration of 1d, 7d or 30d: limits.overall.budget",
    "budget_duration": "limits.overall.budget: day, week or month",
    "max_parallel_requests": "`streams` in limits of a key",
    "global_max_parallel_requests": "limits.overall.streams",
    "max_request_size_mb": "server.body_limit",
    "max_response_size_mb": "max_answer of the upstream",
    "key_management_system": "${file:/path} reads secrets that are mounted as files",
    "key_management_settings": "${file:/path} reads secrets that are mounted as files",
    "pass_through_endpoints": "there are no routes to other APIs",
    "files_settings": "there is no files API",
    "finetune_settings": "there is no fine-tuning API",
    "mcp_servers": "it is no MCP gateway",
    "guardrails": "a stage, or a guardrail of the provider's",
    "vector_store_registry": "there are no vector stores",
    "custom_provider_map": "a backend of your own is a plugin (docs/plugins.md)",
    "health_check": "`probe` of an upstream",
    "health_check_interval": "`probe` of an upstream",
    "background_health_checks": "`probe` of an upstream",
    "include": "one file: put them together first",
    "tags": "`usage.tags` tell calls apart; routes are aliases",
    "input_cost_per_second": _TOKENS,
    "output_cost_per_second": _TOKENS,
    "input_cost_per_image": _TOKENS,
    "output_cost_per_image": _TOKENS,
    "vertex_credentials": "credentials: { kind: google, file: /path.json }",
    "aws_role_name": "credentials: kind aws takes keys, a profile or the machine's role",
    "mode": "what an alias is used for follows from the request",
    "base_model": "prices.models, by upstream/model",
    "thinking": "reasoning_effort in the target's `default`, or `thinking` in extra_body of the upstream",
    "key_generation_settings": _KEYS,
    "max_internal_user_budget": _KEYS,
    "internal_user_budget_duration": _KEYS,
    "stream": "callers say whether they want a stream",
    "num_ctx": "model_options: { num_ctx: … } of the upstream",
    "mock_response": "backend: echo answers by itself",
    "model_info": "what LiteLLM's own lists tell of the model; nothing is decided by it here",
}
"""Why a value is not converted, or the option of Sluice that replaces it, by the innermost key of its path that is
listed."""
UNKNOWN = "nothing here is known to mean the same: see whether you need it"


def reason_for(path: tuple[str | int, ...]) -> str:
    """Returns the reason of the innermost key in `path` that has one."""
    return next((REASONS[key] for key in map(str, reversed(path)) if key in REASONS), UNKNOWN)

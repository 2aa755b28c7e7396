"""LiteLLM's config.yaml -> a configuration of ours. Every value of it is carried over, or named with its line and why not.

The format: https://docs.litellm.ai/docs/proxy/config_settings
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec
import yaml

from sluice.commands.litellm_source import LiteLLMFile, Path, Unreadable
from sluice.config.vendors import bundled_vendors
from sluice.identity.keys import digest_of

BACKENDS: Mapping[str, str] = {
    "openai": "openai", "text-completion-openai": "openai", "custom_openai": "openai", "openai_like": "openai",
    "anthropic": "anthropic", "gemini": "gemini", "vertex_ai": "gemini", "ollama": "ollama", "ollama_chat": "ollama",
    "azure": "azure-deployments", "azure_ai": "azure", "hosted_vllm": "vllm", "vllm": "vllm", "together_ai": "together",
    "fireworks_ai": "fireworks", "nvidia_nim": "nvidia", "lm_studio": "lmstudio", "llamafile": "llamacpp",
    "dashscope": "alibaba", "volcengine": "volcengine", "litellm_proxy": "litellm-proxy", "cohere": "cohere",
    "cohere_chat": "cohere", "bedrock": "bedrock", "databricks": "databricks", "github": "github-models",
}  # fmt: skip
"""LiteLLM's providers whose names here are others, or backends'; those of the vendors' table are the same."""
STRATEGIES: Mapping[str, str] = {
    "simple-shuffle": "weighted", "least-busy": "least_in_flight", "latency-based-routing": "lowest_ttft",
    "cost-based-routing": "cheapest",
}  # fmt: skip
REQUEST_FIELDS = frozenset(
    {"temperature", "top_p", "max_tokens", "max_completion_tokens", "presence_penalty", "frequency_penalty", "stop", "seed",
     "reasoning_effort", "n", "logit_bias", "response_format", "user", "parallel_tool_calls"}
)  # fmt: skip


class Imported(msgspec.Struct, frozen=True):
    """`notes` are lines "LINE: path: what became of it", of values that were not carried over. `carried`: how many were."""

    text: str
    notes: tuple[str, ...]
    carried: int


def imported(data: bytes) -> Imported:
    """Raises Unreadable."""
    source = LiteLLMFile(data)
    text = Import(source).text()
    notes = tuple(source.notes())
    return Imported(text, notes, len(source.lines) - len(notes))


class Import:
    """Builds the sections, one after another."""

    def __init__(self, source: LiteLLMFile) -> None:
        self._source = source
        self._upstreams: dict[str, dict[str, Any]] = {}
        self._targets: dict[str, list[dict[str, Any]]] = {}
        self._prices: dict[str, dict[str, float]] = {}
        self._todo: list[str] = []

    def text(self) -> str:
        entries = self._source.get("model_list")
        for at in range(len(entries) if isinstance(entries, list) else 0):
            self._deployment(at)
        if not self._targets:
            raise Unreadable("model_list has no model")
        config: dict[str, Any] = {"upstreams": self._upstreams, "aliases": self._aliases()}
        self._general(config)
        if self._prices:
            config["prices"] = {"models": self._prices}
        body = yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=120)
        return (
            "".join(f"# {line}\n" for line in ("Made of LiteLLM's configuration by `sluice import litellm`.", *self._todo))
            + body
        )

    # --- model_list

    def _deployment(self, at: int) -> None:
        source, here = self._source, ("model_list", at)
        name, model = source.get(*here, "model_name"), source.get(*here, "litellm_params", "model")
        if not isinstance(name, str) or not isinstance(model, str):
            source.leave("needs model_name and litellm_params.model", *here)
            return
        provider, slash, rest = model.partition("/")
        if not slash:
            provider, rest = str(source.get(*here, "litellm_params", "custom_llm_provider") or "openai"), model
        backend = BACKENDS.get(provider) or (provider if provider in bundled_vendors() else "")
        if "*" in name or "*" in rest:
            source.leave("a wildcard: each model needs an alias of its own", *here)
            return
        if not backend:
            source.leave(f'no backend for "{provider}": with an address that speaks OpenAI\'s dialect, backend: openai', *here)
            return
        alias = _name(name)
        source.take(*here, "model_name")
        source.take(*here, "litellm_params", "model")
        source.take(*here, "litellm_params", "custom_llm_provider")
        upstream = self._upstream(here, provider, backend)
        target: dict[str, Any] = {"upstream": upstream, "model": rest}
        self._target_options(here, target)
        self._price(here, f"{upstream}/{rest}")
        self._targets.setdefault(alias, []).append(target)

    def _upstream(self, here: Path, provider: str, backend: str) -> str:
        """The name of the section that says how this deployment's account is reached: the same where another has it, too."""
        section: dict[str, Any] = {"backend": backend}
        self._address(here, backend, section)
        self._credential(here, provider, section)
        self._upstream_limits(here, section)
        for name, known in self._upstreams.items():
            if known == section and "limits" not in section:
                return name
        name, number = _name(provider), 1
        while name in self._upstreams:
            number += 1
            name = f"{_name(provider)}-{number}"
        self._upstreams[name] = section
        return name

    def _address(self, here: Path, backend: str, section: dict[str, Any]) -> None:
        params = (*here, "litellm_params")
        base = self._text(*params, "api_base") or self._text(*params, "base_url")
        version = self._text(*params, "api_version")
        if base and backend == "azure-deployments":
            base = re.sub(r"/openai/?\Z", "", base.rstrip("/"))
            section["base_url"] = f"{base}/openai?api-version={version or '2024-10-21'}"
        elif base:
            section["base_url"] = base
        for theirs, ours in (("vertex_project", "project"), ("vertex_location", "location"), ("aws_region_name", "region")):
            if (value := self._text(*params, theirs)) and backend in ("gemini", "bedrock"):
                section[ours] = value
        headers = self._source.get(*params, "extra_headers") or self._source.get(*params, "headers")
        if isinstance(headers, dict) and headers:
            section["headers"] = {str(key): _variables(str(value)) for key, value in headers.items()}
            self._source.take(*params, "extra_headers")
            self._source.take(*params, "headers")

    def _credential(self, here: Path, provider: str, section: dict[str, Any]) -> None:
        path = (*here, "litellm_params", "api_key")
        key = self._source.get(*path)
        if not isinstance(key, str) or not key:
            return
        if key.startswith("os.environ/"):
            section["api_key"] = _variables(self._source.take(*path))
            return
        variable = re.sub(r"\W", "_", f"{provider}_api_key").upper()
        section["api_key"] = f"${{{variable}}}"
        self._source.leave(f"a key in the file: set {variable} to it", *path)

    def _upstream_limits(self, here: Path, section: dict[str, Any]) -> None:
        limits: dict[str, Any] = {}
        for place in ("litellm_params", "model_info"):
            for theirs, ours in (("rpm", "requests"), ("tpm", "tokens")):
                if value := self._number(*here, place, theirs):
                    limits[ours] = {"rate": f"{value:g}/min"}
            if value := self._number(*here, place, "max_parallel_requests"):
                limits["streams"] = int(value)
        if limits:
            section["limits"] = limits

    def _target_options(self, here: Path, target: dict[str, Any]) -> None:
        params = (*here, "litellm_params")
        if (weight := self._number(*params, "weight")) is not None:
            target["weight"] = weight
        timeouts = {}
        if total := self._number(*params, "timeout") or self._number(*params, "request_timeout"):
            timeouts["total"] = f"{total:g}s"
        if first := self._number(*params, "stream_timeout"):
            timeouts["first_token"] = f"{first:g}s"
        if timeouts:
            target["timeouts"] = timeouts
        defaults = {
            name: self._source.take(*params, name)
            for name in sorted(REQUEST_FIELDS)
            if self._source.get(*params, name) is not None
        }
        if defaults:
            target["default"] = defaults
        if context := self._number(*here, "model_info", "max_input_tokens"):
            target["context"] = int(context)
        for theirs, ours in (("supports_vision", "vision"), ("supports_function_calling", "tools")):
            if isinstance(value := self._source.get(*here, "model_info", theirs), bool):
                self._source.take(*here, "model_info", theirs)
                if not value:
                    target[ours] = False

    def _price(self, here: Path, model: str) -> None:
        prices: dict[str, float] = {}
        for place in ("litellm_params", "model_info"):
            for theirs, ours in (("input_cost_per_token", "input"), ("output_cost_per_token", "output")):
                if (value := self._number(*here, place, theirs)) is not None:
                    prices[ours] = round(value * 1e6, 9)
        if prices:
            self._prices[model] = {"input": 0.0, "output": 0.0} | prices

    # --- routing

    def _aliases(self) -> dict[str, Any]:
        strategy = self._strategy()
        retry = self._retry()
        timeout = self._router("timeout") or self._number("litellm_settings", "request_timeout")
        self._breaker()
        aliases: dict[str, Any] = {}
        for name in self._targets:
            first: Any = self._targets[name]
            if strategy and len(first) > 1:
                first = {"strategy": strategy, "targets": first}
            aliases[name] = {"tiers": [first]}
            aliases[name] |= {"retry": retry} if retry else {}
            aliases[name] |= {"timeout": f"{timeout:g}s"} if timeout else {}
        self._fallbacks(aliases)
        for other, meant in self._renamed().items():
            if meant in aliases and other not in aliases:
                aliases[other] = msgspec.json.decode(msgspec.json.encode(aliases[meant]))
        return aliases

    def _strategy(self) -> str:
        given = self._source.get("router_settings", "routing_strategy")
        strategy = STRATEGIES.get(str(given), "") if given is not None else ""
        if strategy:
            self._source.take("router_settings", "routing_strategy")
        elif given is not None:
            self._source.leave("no such strategy here: targets are drawn by weight", "router_settings", "routing_strategy")
        return "" if strategy == "weighted" else strategy

    def _retry(self) -> dict[str, Any]:
        tries = self._router("num_retries")
        if tries is None:
            tries = self._number("litellm_settings", "num_retries")
        return {"same_target": max(0, min(5, int(tries)))} if tries is not None else {}

    def _breaker(self) -> None:
        breaker: dict[str, Any] = {}
        if fails := self._router("allowed_fails") or self._number("litellm_settings", "allowed_fails"):
            breaker["failures"] = max(1, int(fails))
        if cool := self._router("cooldown_time") or self._number("litellm_settings", "cooldown_time"):
            breaker |= {"open_for": f"{cool:g}s", "open_max": f"{max(cool, 15):g}s"}
        if breaker:
            for section in self._upstreams.values():
                section["breaker"] = dict(breaker)

    def _fallbacks(self, aliases: dict[str, Any]) -> None:
        for section in ("router_settings", "litellm_settings"):
            for kind in ("fallbacks", "default_fallbacks"):
                given = self._source.get(section, kind)
                for at, entry in enumerate(given if isinstance(given, list) else ()):
                    pairs = entry.items() if isinstance(entry, dict) else [(name, [entry]) for name in aliases]
                    known = all(self._fall_back(aliases, str(name), others) for name, others in pairs)
                    if known:
                        self._source.take(section, kind, at)
                    else:
                        self._source.leave("names a model that is not in model_list", section, kind, at)

    def _fall_back(self, aliases: dict[str, Any], name: str, others: Any) -> bool:
        names = [_name(str(other)) for other in others] if isinstance(others, list) else []
        of = [*aliases] if name == "*" else [_name(name)]
        if not all(alias in aliases for alias in of) or not all(other in self._targets for other in names):
            return False
        for alias in of:
            tiers = aliases[alias]["tiers"]
            tiers += [self._targets[other] for other in names if other != alias and self._targets[other] not in tiers]
        return True

    def _renamed(self) -> dict[str, str]:
        given = self._source.get("router_settings", "model_group_alias")
        found: dict[str, str] = {}
        for name, meant in given.items() if isinstance(given, dict) else ():
            meant = meant.get("model") if isinstance(meant, dict) else meant
            if isinstance(meant, str) and _name(meant) in self._targets:
                found[_name(str(name))] = _name(meant)
                self._source.take("router_settings", "model_group_alias", str(name))
        return found

    def _router(self, name: str) -> float | None:
        return self._number("router_settings", name)

    # --- the rest

    def _general(self, config: dict[str, Any]) -> None:
        key = self._source.get("general_settings", "master_key")
        if isinstance(key, str) and key.startswith("os.environ/"):
            name = key.partition("/")[2]
            digest = f'printf %s "${name}" | sluice keys hash'
            self._source.leave(f"admin.digest and keys need its digest: {digest}", "general_settings", "master_key")
            self._todo.append(f"To do: admin.digest and keys need the digest of ${name}: {digest}")
        elif isinstance(key, str) and key:
            self._source.take("general_settings", "master_key")
            digest = digest_of(key)
            config["keys"] = [{"id": "master", "digest": digest}]
            config["admin"] = {"digest": digest}
        self._redis(config)

    def _redis(self, config: dict[str, Any]) -> None:
        host = self._text("router_settings", "redis_host")
        if not host:
            return
        port = self._text("router_settings", "redis_port") or "6379"
        password = self._source.get("router_settings", "redis_password")
        secret = ""
        if isinstance(password, str) and password.startswith("os.environ/"):
            secret = f":{_variables(self._source.take('router_settings', 'redis_password'))}@"
        elif password is not None:
            secret = ":${REDIS_PASSWORD}@"  # noqa: S105  a variable's name
            self._source.leave("a password in the file: set REDIS_PASSWORD to it", "router_settings", "redis_password")
        config["limits"] = {"store": f"redis://{secret}{host}:{port}"}

    def _text(self, *path: str | int) -> str:
        value = self._source.get(*path)
        if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
            return ""
        self._source.take(*path)
        return _variables(str(value))

    def _number(self, *path: str | int) -> float | None:
        value = self._source.get(*path)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e15:
            return None
        self._source.take(*path)
        return value


def _variables(text: str) -> str:
    """`os.environ/NAME` as ${NAME}; a dollar sign of the text's own is doubled."""
    name = text.removeprefix("os.environ/")
    return f"${{{name}}}" if name != text else text.replace("$", "$$")


def _name(text: str) -> str:
    """A name that ours may have."""
    return re.sub(r"[^A-Za-z0-9._:/@-]", "-", text).lstrip("._:/@-")[:128] or "model"

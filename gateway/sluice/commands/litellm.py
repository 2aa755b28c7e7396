"""Converts LiteLLM's config.yaml into a configuration of Sluice. Each value is converted, or reported with
its line and the reason why it is not.

The format: https://docs.litellm.ai/docs/proxy/config_settings
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import msgspec
import yaml

from sluice.commands.litellm_secrets import Secrets
from sluice.commands.litellm_source import LiteLLMFile, Path, Unreadable, name_of, variable_of, variables
from sluice.commands.litellm_upstreams import Upstreams, provider_of
from sluice.config.units import in_full
from sluice.identity.keys import digest_of

STRATEGIES: Mapping[str, str] = {
    "simple-shuffle": "weighted", "least-busy": "least_in_flight", "latency-based-routing": "lowest_ttft",
    "cost-based-routing": "cheapest",
}  # fmt: skip
PRICES: Mapping[str, str] = {
    "input_cost_per_token": "input", "output_cost_per_token": "output", "cache_read_input_token_cost": "cached_input",
    "cache_creation_input_token_cost": "written_input", "cache_creation_input_token_cost_above_1hr": "written_input_1h",
    "output_cost_per_reasoning_token": "reasoning",
}  # fmt: skip
LONG_PROMPTS = re.compile(r"(\w+)_above_([1-9]\d{0,5})k_tokens")
"""The name of a price for calls with long prompts: group 1 is the price, group 2 the bound in thousands of tokens."""
PERIODS: Mapping[str, str] = {
    "1d": "day",
    "24h": "day",
    "7d": "week",
    "1w": "week",
    "30d": "month",
    "31d": "month",
    "1mo": "month",
}
REQUEST_FIELDS = frozenset(
    {"temperature", "top_p", "max_tokens", "max_completion_tokens", "presence_penalty", "frequency_penalty", "stop", "seed",
     "reasoning_effort", "modalities", "n", "logit_bias", "response_format", "user", "parallel_tool_calls"}
)  # fmt: skip


class Imported(msgspec.Struct, frozen=True):
    """`notes`: lines "LINE: path: reason" about values that were not converted. `carried`: how many values
    were."""

    text: str
    notes: tuple[str, ...]
    carried: int


def imported(data: bytes) -> Imported:
    """Returns the converted configuration. Raises Unreadable."""
    source = LiteLLMFile(data)
    text = Import(source).text()
    notes = tuple(source.notes())
    return Imported(text, notes, len(source.lines) - len(notes))


def grouped(notes: tuple[str, ...]) -> list[str]:
    """Returns the notes for display: equal notes about the same key in several places become one, with all
    line numbers."""
    lines: dict[tuple[str, str], list[str]] = {}
    first: dict[tuple[str, str], str] = {}
    for note in notes:
        line, path, reason = note.split(": ", 2)
        key = (re.sub(r"\.\d+", ".*", path), reason)
        first.setdefault(key, note)
        lines.setdefault(key, []).append(line)
    return [
        first[key]
        + (
            f" (also lines {', '.join(dict.fromkeys(more))})"
            if (more := [at for at in others if at != others[0]])
            else ""
        )
        for key, others in lines.items()
    ]


class Import:
    """Converts the sections, one after another."""

    def __init__(self, source: LiteLLMFile) -> None:
        self._source = source
        self._secrets = Secrets(source)
        self._upstreams = Upstreams(source, self._secrets)
        self._targets: dict[str, list[dict[str, Any]]] = {}
        self._orders: dict[str, list[float]] = {}
        self._prices: dict[str, dict[str, Any]] = {}
        self._todo: list[str] = []

    def text(self) -> str:
        entries = self._source.get("model_list")
        for at in range(len(entries) if isinstance(entries, list) else 0):
            self._deployment(at)
        if not self._targets:
            raise Unreadable(self._nothing())
        config: dict[str, Any] = {"upstreams": self._upstreams.sections, "aliases": self._aliases()}
        self._general(config)
        if self._prices:
            config["prices"] = {"models": self._prices}
        body = yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=120)
        return (
            "".join(
                f"# {line}\n"
                for line in ("Made of LiteLLM's configuration by `sluice import litellm`.", *self._todo)
            )
            + body
        )

    def _nothing(self) -> str:
        """Returns why no model was converted: the reasons of the models in the list, or where models may be
        instead."""
        refused = dict.fromkeys(
            f"line {line}: {reason}"
            for note in self._source.notes()
            for line, path, reason in [note.split(": ", 2)]
            if path.startswith("model_list.") and path.endswith(".model_name")
        )
        database = "models that LiteLLM keeps in its database are listed by its GET /model/info: put them into model_list"
        return f"model_list has no model that could be carried over; {'; '.join([*refused][:5]) or database}"

    # --- model_list

    def _deployment(self, at: int) -> None:
        source, here = self._source, ("model_list", at)
        name, model = source.get(*here, "model_name"), source.get(*here, "litellm_params", "model")
        if not isinstance(name, str) or not isinstance(model, str):
            source.leave("needs model_name and litellm_params.model", *here)
            return
        stated = source.get(*here, "litellm_params", "custom_llm_provider")
        provider, rest = provider_of(model, stated if isinstance(stated, str) else "")
        if not rest:
            source.leave("names no model behind its provider", *here)
            return
        if (reason := _wildcard_refused(name, rest)) or (reason := self._upstreams.refused(provider)):
            source.leave(reason, *here)
            return
        alias = name_of(name)
        source.take(*here, "model_name")
        source.take(*here, "litellm_params", "model")
        source.take(*here, "litellm_params", "custom_llm_provider")
        if alias != name:
            source.leave(
                f'callers name it "{alias}": names have no spaces or other signs', *here, "model_name"
            )
        upstream, rest = self._upstreams.name(here, provider, rest)
        target: dict[str, Any] = {"upstream": upstream, "model": rest}
        self._target_options(here, provider, target)
        self._price(here, f"{upstream}/{rest}")
        self._targets.setdefault(alias, []).append(target)
        order = source.number(*here, "litellm_params", "order")
        self._orders.setdefault(alias, []).append(order if order is not None else math.inf)

    def _target_options(self, here: Path, provider: str, target: dict[str, Any]) -> None:
        params = (*here, "litellm_params")
        if (weight := self._source.number(*params, "weight")) is not None:
            target["weight"] = weight
        timeouts = {}
        if total := self._source.number(*params, "timeout") or self._source.number(
            *params, "request_timeout"
        ):
            timeouts["total"] = f"{in_full(total)}s"
        if first := self._source.number(*params, "stream_timeout"):
            timeouts["first_token"] = f"{in_full(first)}s"
        if timeouts:
            target["timeouts"] = timeouts
        defaults = {
            name: self._secrets.body(value, f"{provider}_{name}", (*params, name))
            for name in sorted(REQUEST_FIELDS)
            if (value := self._source.get(*params, name)) is not None
        }
        if defaults:
            target["default"] = defaults
        body = self._source.get(*params, "extra_body")
        if isinstance(body, dict) and body:
            target["force"] = self._secrets.body(body, provider, (*params, "extra_body"))
        if context := self._source.number(*here, "model_info", "max_input_tokens"):
            target["context"] = int(context)
        for theirs, ours in (("supports_vision", "vision"), ("supports_function_calling", "tools")):
            if isinstance(value := self._source.get(*here, "model_info", theirs), bool):
                self._source.take(*here, "model_info", theirs)
                if not value:
                    target[ours] = False

    def _price(self, here: Path, model: str) -> None:
        prices: dict[str, float] = {}
        long: dict[int, dict[str, float]] = {}
        for place in ("litellm_params", "model_info"):
            given = self._source.get(*here, place)
            for name in given if isinstance(given, dict) else ():
                match = LONG_PROMPTS.fullmatch(name) if isinstance(name, str) else None
                base = match[1] if match else name
                if base in PRICES and (value := self._source.number(*here, place, name)) is not None:
                    into = long.setdefault(int(match[2]) * 1000, {}) if match else prices
                    into[PRICES[base]] = round(value * 1e6, 9)
        if prices or long:
            usual: dict[str, Any] = {"input": 0.0, "output": 0.0} | prices
            tiers = [{"above": length} | usual | rates for length, rates in sorted(long.items())]
            self._prices[model] = usual | ({"long_prompts": tiers} if tiers else {})

    # --- routing

    def _aliases(self) -> dict[str, Any]:
        strategy = self._strategy()
        retry = self._retry()
        timeout = self._router("timeout") or self._source.number("litellm_settings", "request_timeout")
        self._breaker()
        aliases: dict[str, Any] = {}
        for name in self._targets:
            tiers: list[Any] = [
                {"strategy": strategy, "targets": tier} if strategy and len(tier) > 1 else tier
                for tier in self._tiers(name)
            ]
            aliases[name] = {"tiers": tiers}
            aliases[name] |= {"retry": retry} if retry else {}
            aliases[name] |= {"timeout": f"{in_full(timeout)}s"} if timeout else {}
        self._fallbacks(aliases)
        for other, meant in self._renamed().items():
            if meant in aliases and other not in aliases:
                aliases[other] = msgspec.json.decode(msgspec.json.encode(aliases[meant]))
        return aliases

    def _tiers(self, name: str) -> list[list[dict[str, Any]]]:
        """Returns the targets of a name grouped by `order`, lowest first, those without `order` last:
        https://docs.litellm.ai/docs/router/learn/selection
        """
        tiers: dict[float, list[dict[str, Any]]] = {}
        for target, order in zip(self._targets[name], self._orders[name], strict=True):
            tiers.setdefault(order, []).append(target)
        return [tiers[order] for order in sorted(tiers)]

    def _strategy(self) -> str:
        given = self._source.get("router_settings", "routing_strategy")
        strategy = STRATEGIES.get(str(given), "") if given is not None else ""
        if strategy:
            self._source.take("router_settings", "routing_strategy")
        elif given is not None:
            reason = (
                "no such strategy here: targets are drawn by weight, "
                "and left out while their own limits (rpm, tpm) are used up"
            )
            self._source.leave(reason, "router_settings", "routing_strategy")
        return "" if strategy == "weighted" else strategy

    def _retry(self) -> dict[str, Any]:
        tries = self._router("num_retries")
        if tries is None:
            tries = self._source.number("litellm_settings", "num_retries")
        return {"same_target": max(0, min(5, int(tries)))} if tries is not None else {}

    def _breaker(self) -> None:
        breaker: dict[str, Any] = {}
        if fails := self._router("allowed_fails") or self._source.number("litellm_settings", "allowed_fails"):
            breaker["failures"] = max(1, int(fails))
        if cool := self._router("cooldown_time") or self._source.number("litellm_settings", "cooldown_time"):
            breaker |= {"open_for": f"{in_full(cool)}s", "open_max": f"{in_full(max(cool, 15))}s"}
        if breaker:
            for section in self._upstreams.sections.values():
                section["breaker"] = dict(breaker)

    def _fallbacks(self, aliases: dict[str, Any]) -> None:
        for section in ("router_settings", "litellm_settings"):
            for kind in ("fallbacks", "default_fallbacks"):
                given = self._source.get(section, kind)
                if isinstance(given, dict):  # some files have one mapping instead of a list
                    for name, others in given.items():
                        self._fallback(aliases, {name: others}, section, kind, str(name))
                for at, entry in enumerate(given if isinstance(given, list) else ()):
                    self._fallback(aliases, entry, section, kind, at)

    def _fallback(self, aliases: dict[str, Any], entry: Any, *path: str | int) -> None:
        pairs = entry.items() if isinstance(entry, dict) else [(name, [entry]) for name in aliases]
        if all(self._fall_back(aliases, str(name), others) for name, others in pairs):
            self._source.take(*path)
        else:
            self._source.leave("names a model that is not in model_list, or could not be carried over", *path)

    def _fall_back(self, aliases: dict[str, Any], name: str, others: Any) -> bool:
        names = [name_of(str(other)) for other in others] if isinstance(others, list) else []
        of = [*aliases] if name == "*" else [name_of(name)]
        if not all(alias in aliases for alias in of) or not all(other in self._targets for other in names):
            return False
        for alias in of:
            tiers = aliases[alias]["tiers"]
            tiers += [
                tier for other in names if other != alias for tier in self._tiers(other) if tier not in tiers
            ]
        return True

    def _renamed(self) -> dict[str, str]:
        given = self._source.get("router_settings", "model_group_alias")
        found: dict[str, str] = {}
        for name, meant in given.items() if isinstance(given, dict) else ():
            meant = meant.get("model") if isinstance(meant, dict) else meant
            if isinstance(meant, str) and name_of(meant) in self._targets:
                found[name_of(str(name))] = name_of(meant)
                self._source.take("router_settings", "model_group_alias", str(name))
        return found

    def _router(self, name: str) -> float | None:
        return self._source.number("router_settings", name)

    # --- the rest

    def _general(self, config: dict[str, Any]) -> None:
        key = self._source.get("general_settings", "master_key")
        if isinstance(key, str) and (name := variable_of(key)):
            made = f'{name}_DIGEST="$(printf %s "${name}" | sluice keys hash)"'
            self._source.leave(
                f"a key is configured by its digest: set {made}", "general_settings", "master_key"
            )
            self._todo.append(f"To do: export {made}")
            digest = f"${{{name}_DIGEST}}"
        elif isinstance(key, str) and key:
            self._source.take("general_settings", "master_key")
            digest = digest_of(key)
        else:
            digest = ""
        if digest:
            config["keys"] = [{"id": "master", "digest": digest}]
            config["admin"] = {"digest": digest}
        self._redis(config)
        self._budget(config)

    def _budget(self, config: dict[str, Any]) -> None:
        for section in ("general_settings", "litellm_settings"):
            period = PERIODS.get(str(self._source.get(section, "budget_duration")))
            if period is None:
                continue
            if value := self._source.number(section, "max_budget"):
                self._source.take(section, "budget_duration")
                config.setdefault("limits", {}).setdefault("overall", {})["budget"] = {period: value}

    def _redis(self, config: dict[str, Any]) -> None:
        host = self._source.text("router_settings", "redis_host")
        if not host:
            return
        if "@" in host:
            self._source.leave(
                "a host alone, without a password: set REDIS_PASSWORD to it", "router_settings", "redis_host"
            )
            host = host.rpartition("@")[2]
        port = self._source.text("router_settings", "redis_port") or "6379"
        password = self._source.get("router_settings", "redis_password")
        secret = ""
        if isinstance(password, str) and variable_of(password):
            secret = f":{variables(self._source.take('router_settings', 'redis_password'))}@"
        elif password is not None:
            secret = ":${REDIS_PASSWORD}@"  # noqa: S105  a variable's name
            self._source.leave(
                "a password in the file: set REDIS_PASSWORD to it", "router_settings", "redis_password"
            )
        config.setdefault("limits", {})["store"] = f"redis://{secret}{host}:{port}"


def _wildcard_refused(name: str, model: str) -> str:
    """Returns why a wildcard name cannot be converted; "" if it can, or if it is not a wildcard."""
    if "*" not in name + model:
        return ""
    if name == "*":
        return 'an alias for all names: write one for each provider, such as "openai/*"'
    if name.endswith("*") and name.count("*") == 1 and model.count("*") <= 1:
        return ""
    return "a wildcard that is not at the end of the name: each model needs an alias of its own"

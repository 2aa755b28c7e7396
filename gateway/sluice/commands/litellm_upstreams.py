"""Converts the providers of a LiteLLM file into sections of `upstreams`: addresses, keys and limits.

Names of providers and their parameters: https://docs.litellm.ai/docs/providers
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from sluice.commands.litellm_secrets import Secrets
from sluice.commands.litellm_source import LiteLLMFile, Path, name_of, variable_of, variables
from sluice.config.units import in_full
from sluice.config.vendors import bundled_vendors

BACKENDS: Mapping[str, str] = {
    "openai": "openai", "text-completion-openai": "openai", "custom_openai": "openai", "openai_like": "openai",
    "anthropic": "anthropic", "gemini": "gemini", "vertex_ai": "gemini", "ollama": "ollama", "ollama_chat": "ollama",
    "azure": "azure-deployments", "azure/responses": "responses", "openai/responses": "responses",
    "vertex_ai/claude": "vertex-anthropic", "vertex_ai_beta": "gemini", "codestral": "mistral",
    "azure_ai": "azure", "hosted_vllm": "vllm", "vllm": "vllm", "together_ai": "together",
    "fireworks_ai": "fireworks", "nvidia_nim": "nvidia", "lm_studio": "lmstudio", "llamafile": "llamacpp",
    "dashscope": "alibaba", "volcengine": "volcengine", "litellm_proxy": "litellm-proxy", "cohere": "cohere",
    "cohere_chat": "cohere", "bedrock": "bedrock", "databricks": "databricks", "github": "github-models",
}  # fmt: skip
"""Sluice's name of a vendor or backend by LiteLLM's name, where they differ or it is a backend; the other names in the
table of vendors are the same."""
MAKERS: Mapping[str, str] = {
    "claude-": "anthropic", "gemini-": "vertex_ai", "command-": "cohere", "mistral-": "mistral", "deepseek-": "deepseek",
    "grok-": "xai",
}  # fmt: skip
"""The provider of models that are named without one, by the beginning of the name; all others are OpenAI's."""
GOOGLE = ("gemini", "vertex-anthropic")
BEDROCK_PATHS = re.compile(r"(?:converse/|invoke/|converse_like/)?(?:(?P<region>[a-z]{2}(?:-[a-z]+)+-\d)/)?")


def provider_of(model: str, stated: str = "") -> tuple[str, str]:
    """Returns the provider of a LiteLLM `model`, and the provider's name of that model. `stated`: the value
    of custom_llm_provider."""
    provider, slash, rest = model.partition("/")
    if stated and provider != stated:
        return stated, model
    if not slash:
        return next((maker for name, maker in MAKERS.items() if model.startswith(name)), "openai"), model
    if provider in ("azure", "openai") and rest.startswith("responses/"):
        return f"{provider}/responses", rest.removeprefix("responses/")
    if provider == "azure" and rest.startswith("speech/"):
        return "azure/speech", rest.removeprefix("speech/")
    if provider == "vertex_ai" and rest.startswith("claude"):
        return "vertex_ai/claude", rest
    return provider, rest


class Upstreams:
    """Makes one section per account: deployments with the same account share a section."""

    def __init__(self, source: LiteLLMFile, secrets: Secrets) -> None:
        self.sections: dict[str, dict[str, Any]] = {}
        self._source = source
        self._secrets = secrets
        self._names: dict[bytes, str] = {}
        """The names of sections, by what is in them."""
        self._numbers: dict[str, int] = {}
        """The last number behind a name."""

    def refused(self, provider: str) -> str:
        """Returns why a provider cannot be converted; "" if it can."""
        if _backend(provider):
            return ""
        if provider == "os.environ":
            return "the model's name stands in the environment: write it out, with its provider"
        return f'no backend for "{provider}": with an address that speaks OpenAI\'s dialect, backend: openai'

    def name(self, here: Path, provider: str, model: str) -> tuple[str, str]:
        """Returns the name of the section for this deployment's account, made if no other deployment has the
        same, and the deployment's model."""
        section: dict[str, Any] = {"backend": (backend := _backend(provider))}
        places = tuple(self._places(here))
        if backend == "bedrock":
            model = self._bedrock(places, model, section)
        if backend in GOOGLE:
            self._google(places, section)
        self._address(places, provider, section)
        self._key(places, provider, section)
        if provider.startswith("azure"):
            self._entra(places, provider, section)
        self._limits(here, section)
        written = msgspec.json.encode(section, order="sorted")
        if "limits" not in section and written in self._names:
            return self._names[written], model
        name = stem = name_of(provider.replace("/", "-"))
        while name in self.sections:
            self._numbers[stem] = number = self._numbers.get(stem, 1) + 1
            name = f"{stem}-{number}"
        self.sections[name] = section
        self._names.setdefault(written, name)
        return name, model

    def _places(self, here: Path) -> Iterator[Path]:
        """Returns the paths where a deployment's parameters are: its litellm_params, and the entry of
        credential_list that they name."""
        yield (*here, "litellm_params")
        wanted = self._source.get(*here, "litellm_params", "litellm_credential_name")
        known = self._source.get("credential_list")
        for at in range(len(known) if wanted and isinstance(known, list) else 0):
            if self._source.get("credential_list", at, "credential_name") == wanted:
                self._source.take(*here, "litellm_params", "litellm_credential_name")
                self._source.take("credential_list", at, "credential_name")
                yield ("credential_list", at, "credential_values")

    def _text(self, places: tuple[Path, ...], *names: str) -> str:
        return next(
            (text for place in places for name in names if (text := self._source.text(*place, name))), ""
        )

    def _address(self, places: tuple[Path, ...], provider: str, section: dict[str, Any]) -> None:
        base, query = self._base(places, provider)
        version = self._text(places, "api_version")
        if not base and provider in ("azure", "azure/responses"):
            base = "${AZURE_API_BASE}"  # LiteLLM reads this variable if the file has no address
        if base.startswith("$") and provider.startswith("azure"):
            for place in places:
                self._source.leave("set it without a slash at its end", *place, "api_base")
        if base and provider in ("azure", "azure/responses"):
            base = re.sub(r"/openai(/v1)?/?\Z", "", base.rstrip("/"))
            base += "/openai" if provider == "azure" else "/openai/v1"
            if provider == "azure" and not (query.startswith("api-version=") and not version):
                query = "&".join(filter(None, (f"api-version={version or '2024-10-21'}", query)))
        if base:
            section["base_url"] = f"{base}?{query}" if query else base
        if organization := self._text(places, "organization"):
            section["organization"] = organization
        headers: dict[str, str] = {}
        for place in places:
            for name in ("extra_headers", "headers"):
                found = self._source.get(*place, name)
                if isinstance(found, dict):
                    headers |= self._secrets.headers(found, provider, (*place, name))
        if headers:
            section["headers"] = headers

    def _base(self, places: tuple[Path, ...], provider: str) -> tuple[str, str]:
        """Returns the URL of a deployment without its query, and the query; "" if it has none."""
        for place in places:
            for name in ("api_base", "base_url"):
                found = self._source.get(*place, name)
                if isinstance(found, str) and found:
                    return self._secrets.address(found, f"{provider}_api_base", (*place, name))
        return "", ""

    def _key(self, places: tuple[Path, ...], provider: str, section: dict[str, Any]) -> None:
        for place in places:
            key = self._source.get(*place, "api_key")
            if not isinstance(key, str) or not key:
                continue
            if variable_of(key):
                self._source.take(*place, "api_key")
                section["api_key"] = variables(key)
                return
            name = self._secrets.variable(f"{provider}_api_key", key)
            section["api_key"] = f"${{{name}}}"
            self._source.leave(f"a key in the file: set {name} to it", *place, "api_key")
            return

    def _entra(self, places: tuple[Path, ...], provider: str, section: dict[str, Any]) -> None:
        """Set the credentials of Microsoft Entra: a fixed token, or a source of tokens. A key takes
        precedence, as in LiteLLM."""
        if "api_key" in section:
            return
        if token := self._secret(places, "azure_ad_token"):
            section["credentials"] = {"kind": "static", "api_key": token}
            return
        found = {
            ours: value
            for theirs, ours in (
                ("tenant_id", "tenant_id"),
                ("client_id", "client_id"),
                ("azure_scope", "scope"),
            )
            if (value := self._text(places, theirs))
        }
        if secret := self._secret(places, "client_secret"):
            found["client_secret"] = secret
        refreshed = self._source.get("litellm_settings", "enable_azure_ad_token_refresh") is True
        if refreshed:  # the setting applies to all Azure deployments without a key
            self._source.take("litellm_settings", "enable_azure_ad_token_refresh")
        if found or refreshed:
            section["credentials"] = {"kind": "azure", **found}
        else:
            section["api_key"] = "${AZURE_AI_API_KEY}" if provider == "azure_ai" else "${AZURE_API_KEY}"

    def _secret(self, places: tuple[Path, ...], name: str) -> str:
        """Returns a secret as a reference to an environment variable; "" if there is none."""
        for place in places:
            value = self._source.get(*place, name)
            if not isinstance(value, str) or not value:
                continue
            if variable_of(value):
                self._source.take(*place, name)
                return variables(value)
            variable = self._secrets.variable(name if name.startswith("azure") else f"azure_{name}", value)
            self._source.leave(f"a secret in the file: set {variable} to it", *place, name)
            return f"${{{variable}}}"
        return ""

    def _google(self, places: tuple[Path, ...], section: dict[str, Any]) -> None:
        for theirs, ours in (("vertex_project", "project"), ("vertex_location", "location")):
            if value := self._text(places, theirs):
                section[ours] = value
        if "project" in section:
            section["credentials"] = {"kind": "google"}
        for place in places:
            file = self._source.get(*place, "vertex_credentials")
            if isinstance(file, str) and file.endswith(".json"):
                section["credentials"] = {
                    "kind": "google",
                    "file": variables(self._source.take(*place, "vertex_credentials")),
                }

    def _bedrock(self, places: tuple[Path, ...], model: str, section: dict[str, Any]) -> str:
        path = BEDROCK_PATHS.match(model)
        assert path is not None  # the expression matches the empty text, too
        region = self._text(places, "aws_region_name") or path["region"]
        section["region"] = region or "${AWS_REGION:-us-west-2}"  # LiteLLM's own default
        names = {"aws_access_key_id": "access_key_id", "aws_secret_access_key": "secret_access_key",
                 "aws_session_token": "session_token", "aws_profile_name": "profile"}  # fmt: skip
        found: dict[str, str] = {}
        for theirs, ours in names.items():
            for place in places:
                value = self._source.get(*place, theirs)
                if not isinstance(value, str) or not value:
                    continue
                if variable_of(value) or ours == "profile":
                    self._source.take(*place, theirs)
                    found[ours] = variables(value)
                else:
                    found[ours] = f"${{{theirs.upper()}}}"
                    self._source.leave(f"a secret in the file: set {theirs.upper()} to it", *place, theirs)
        if not self._source.get(*places[0], "api_key"):
            section["credentials"] = {"kind": "aws", **found}
        return model[path.end() :]

    def _limits(self, here: Path, section: dict[str, Any]) -> None:
        limits: dict[str, Any] = {}
        for place in ("litellm_params", "model_info"):
            for theirs, ours in (("rpm", "requests"), ("tpm", "tokens")):
                if value := self._source.number(*here, place, theirs):
                    limits[ours] = {"rate": f"{in_full(value)}/min"}
            if value := self._source.number(*here, place, "max_parallel_requests"):
                limits["streams"] = int(value)
        if limits:
            section["limits"] = limits


def _backend(provider: str) -> str:
    return BACKENDS.get(provider) or (provider if provider in bundled_vendors() else "")

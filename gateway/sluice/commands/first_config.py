"""Makes the first configuration that `sluice init` writes: complete, with comments, and valid for `sluice
check`."""

import re
from collections.abc import Mapping

import msgspec

from sluice.backends.protocol import installed
from sluice.config.loader import check_text
from sluice.config.problems import suggestion
from sluice.config.vendors import bundled_vendors
from sluice.identity.keys import digest_of, new_key

MODELS: Mapping[str, str] = {
    "openai": "gpt-5.4-mini",
    "anthropic": "claude-haiku-5-5",
    "gemini": "gemini-3.5-flash-lite",
    "ollama": "llama3.2",
    "echo": "echo",
}
"""Default models by provider; for any other provider a model must be given."""
KEYS: Mapping[str, str] = {
    "openai": "OPENAI_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "gemini": "GEMINI_API_KEY",
}
"""Environment variables with the keys of backends that are not in the table of vendors."""


class Provider(msgspec.Struct, frozen=True):
    """A provider to configure. `variable`: the environment variable with its key; "" if it needs none.
    `named`: the variable has the name that the vendor itself uses."""

    name: str
    model: str
    variable: str
    named: bool


class InitOptions(msgspec.Struct, frozen=True):
    """What the configuration is to have: providers, alias, key, address, and whether there are pages for
    operators."""

    providers: tuple[Provider, ...]
    alias: str
    key_id: str
    listen: str
    ui: bool


class FirstConfig(msgspec.Struct, frozen=True):
    """`variables`: environment variables to set. `admin_listen`: the address of the pages for operators."""

    text: str
    key: str
    admin_key: str
    variables: tuple[str, ...]
    admin_listen: str


def chosen(text: str) -> Provider:
    """Parses NAME or NAME=MODEL. Raises ValueError, which says what to write."""
    name, _, model = text.partition("=")
    vendor = bundled_vendors().get(name)
    if vendor is None and name not in installed():
        known = {*MODELS, *bundled_vendors()}
        near = suggestion(name, known) or f"; there are {', '.join(sorted(known))}"
        raise ValueError(
            f"{name}: no such provider{near} (of any other with OpenAI's API: openai, and its base_url in the file)"
        )
    model = model or MODELS.get(name, "")
    if not model:
        raise ValueError(f"{name}: say which model, as --provider {name}=MODEL")
    if vendor is not None:
        variable = "" if vendor.key_optional else vendor.api_key_env or ""
        return Provider(name, model, variable, named=True)
    return Provider(name, model, KEYS.get(name, ""), named=False)


def written(options: InitOptions) -> FirstConfig:
    """Returns the file's text, and the keys whose digests it contains. Raises ValueError if the file would
    not be valid."""
    key, admin_key = new_key(), new_key()
    host, _, port = options.listen.rpartition(":")
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65534:
        raise ValueError("--listen: expected HOST:PORT, such as 127.0.0.1:8080")
    upstreams = "\n".join(map(_upstream, options.providers))
    tiers = "\n".join(
        f"      - - {{ upstream: {one.name}, model: {_quoted(one.model)} }}" for one in options.providers
    )
    text = f"""\
# Made by `sluice init`. All options: config/gateway.example.yaml; what is wrong here: `sluice check`.

server:
  listen: {_quoted(options.listen)}
  admin_listen: {_quoted(f"{host}:{int(port) + 1}")} # metrics, probes, admin API{", pages under /ui/" if options.ui else ""}

upstreams: # who answers; keys come from the environment
{upstreams}

aliases: # what callers name as the model
  {_quoted(options.alias)}:
    tiers: # tried in order: a tier is asked when the one before it has failed, before the first token
{tiers}

keys: # who may call; another one: `sluice keys new --id NAME`, or `sluice keys make NAME` while it runs
  - id: {_quoted(options.key_id)}
    digest: {digest_of(key)}
    aliases: [{_quoted(options.alias)}]
    default_alias: {_quoted(options.alias)}
    limits:
      requests: {{ rate: 60/min }} # and tokens, streams, budget

admin: # x-admin-api-key, and $SLUICE_ADMIN_KEY of `sluice reload`, `keys`, `usage` …
  digest: {digest_of(admin_key)}
  ui: {"true" if options.ui else "false"}

state: memory # conversations, dynamic keys and usage; sqlite:sluice.db keeps them over a restart
"""
    checked = check_text(text.encode())
    if checked.problems:
        raise ValueError("; ".join(problem.message for problem in checked.problems))
    variables = tuple(dict.fromkeys(one.variable for one in options.providers if one.variable))
    return FirstConfig(text, key, admin_key, variables, f"{host}:{int(port) + 1}")


def _upstream(one: Provider) -> str:
    if one.variable and not one.named:
        return f'  {one.name}: {{ backend: {one.name}, api_key: "${{{one.variable}}}" }}'
    comment = f" # its key is ${one.variable}" if one.variable else ""
    return f"  {one.name}: {{ backend: {one.name} }}{comment}"


def _quoted(text: str) -> str:
    return (
        '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
        if not re.fullmatch(r"[A-Za-z][\w.-]*", text)
        else text
    )

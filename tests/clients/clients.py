"""The clients that are run: how each is started, which tools the script calls for it, and what it wants to
find in its home."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.clients.provider import TEXT, Call

AGENTS = Path(__file__).parents[2] / ".cache" / "agents"
MODULES = AGENTS / "node_modules"
PYTHON, AIDER, LLAMAINDEX = (AGENTS / name / "bin" for name in ("python", "aider", "llamaindex"))
DRIVERS = Path(__file__).parent / "drivers"
FILE = "note.txt"
TASK = f"Write a short text into {FILE}, read it again, and say what it says."


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
    said to a client that brings no tools.
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


def _javascript(name: str, package: str, driver: str, routes: str) -> Client:
    def command(place: Place) -> list[str]:
        return ["node", str(AGENTS / "libraries.mjs"), driver, place.url, place.key, place.model]

    return Client(name, package, MODULES, routes, command, _notes, many=True)


# --- Claude Code, alone and under Anthropic's agent SDK


def _claude_calls(place: Place) -> tuple[Call, ...]:
    path = str(place.work / FILE)
    return ("Write", {"file_path": path, "content": TEXT}), ("Read", {"file_path": path})


def _claude(place: Place) -> list[str]:
    task = TASK.replace(FILE, str(place.work / FILE))
    return [
        "node",
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


def _agent_sdk(place: Place) -> list[str]:
    return ["node", str(AGENTS / "libraries.mjs"), "agent_sdk", place.url, place.key, place.model]


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
    return ["node", str(MODULES / "@openai/codex/bin/codex.js"), "exec", "--skip-git-repo-check", TASK]


def _codex_calls(place: Place) -> tuple[Call, ...]:
    return ("exec_command", {"cmd": f"echo {TEXT} > {FILE}"}), ("exec_command", {"cmd": f"cat {FILE}"})


def _codex_settings(place: Place) -> None:
    (place.home / "config.toml").write_text(CODEX.format(url=place.url, model=place.model))


def _codex_env(place: Place) -> dict[str, str]:
    return {"CODEX_HOME": str(place.home), "SLUICE_KEY": place.key}


# --- Gemini CLI


def _gemini(place: Place) -> list[str]:
    return [
        "node",
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


def _gemini_settings(place: Place) -> None:
    folder = place.home / ".gemini"
    folder.mkdir()
    settings = {
        "security": {"auth": {"selectedType": "gemini-api-key"}},
        "privacy": {"usageStatisticsEnabled": False},
    }
    (folder / "settings.json").write_text(json.dumps(settings))


def _gemini_env(place: Place) -> dict[str, str]:
    return {"GEMINI_API_KEY": place.key, "GOOGLE_GEMINI_BASE_URL": place.url}


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
        str(PYTHON / "llm"),
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


CHAT, RESPONSES, MESSAGES, GEMINI, OLLAMA = (
    "/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1beta/models", "/api/chat",
)  # fmt: skip
CLIENTS = (
    Client("Claude Code", "@anthropic-ai/claude-code", MODULES, MESSAGES, _claude, _claude_calls, env=_claude_env),
    Client("Claude agent SDK", "@anthropic-ai/claude-agent-sdk", MODULES, MESSAGES, _agent_sdk, _claude_calls,
           env=_claude_env, many=True),
    Client("Codex", "@openai/codex", MODULES, RESPONSES, _codex, _codex_calls, _codex_settings, _codex_env),
    Client("Gemini CLI", "@google/gemini-cli", MODULES, GEMINI, _gemini, _gemini_calls, _gemini_settings, _gemini_env),
    Client("opencode", "opencode-ai", MODULES, CHAT, _opencode, _opencode_calls, _opencode_settings, _opencode_env),
    Client("aider", "aider-chat", AIDER, CHAT, _aider(TASK), lambda _: (), follow_up=_aider("What does it say?", FILE),
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
    _javascript("AI SDK, `openai(model)`", "@ai-sdk/openai", "ai_sdk_openai", RESPONSES),
    _javascript("AI SDK, openai-compatible", "@ai-sdk/openai-compatible", "ai_sdk_compatible", CHAT),
    _library("LiteLLM's SDK, `openai/`", "litellm", "litellm_openai", CHAT),
    _library("LiteLLM's SDK, `anthropic/`", "litellm", "litellm_anthropic", MESSAGES),
    _library("ollama (Python)", "ollama", "ollama", OLLAMA),
    _javascript("ollama (JavaScript)", "ollama", "ollama", OLLAMA),
)  # fmt: skip

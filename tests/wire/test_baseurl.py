"""The addresses that people write for an upstream."""

import pytest

from sluice.wire.baseurl import base_of, endpoint
from sluice_plugins.anthropic.backend import Anthropic
from sluice_plugins.ollama.backend import Ollama
from sluice_plugins.openai.backend import OpenAI

OPENAI = "https://h/v1/chat/completions"
MESSAGES = "https://h/v1/messages"
CHAT = "http://h:1/api/chat"


@pytest.mark.parametrize(
    ("backend", "written", "url"),
    [
        *(
            (OpenAI, written, OPENAI)
            for written in ("https://h/v1", "https://h/v1/", OPENAI, OPENAI + "/", "https://h/v1//")
        ),
        (OpenAI, "https://h", "https://h/chat/completions"),
        (OpenAI, "https://h/openai/d?api-version=1", "https://h/openai/d/chat/completions?api-version=1"),
        (OpenAI, "https://h/d/chat/completions?api-version=1", "https://h/d/chat/completions?api-version=1"),
        *(
            (Anthropic, written, MESSAGES)
            for written in ("https://h", "https://h/", "https://h/v1", "https://h/v1/", MESSAGES)
        ),
        (Anthropic, "https://h/anthropic?api-version=1", "https://h/anthropic/v1/messages?api-version=1"),
        (Anthropic, "https://h/anthropic/v1/messages/?a=1&b=2", "https://h/anthropic/v1/messages?a=1&b=2"),
        *(
            (Ollama, written, CHAT)
            for written in ("http://h:1", "http://h:1/", "http://h:1/api", "http://h:1/v1/", CHAT)
        ),
        (Ollama, "http://h:1/x?y=z", "http://h:1/x/api/chat?y=z"),
    ],
)
def test_the_same_endpoint_however_it_is_written(backend: type[OpenAI], written: str, url: str) -> None:
    assert backend(base_url=written)._url == url


@pytest.mark.parametrize(
    "written",
    [
        "h/v1",
        "ftp://h",
        "https://",
        "",
        "https://h/#x",
        "https://u:p@h/",
        "https://h/a b",
        "https://h:99999/",
        "https://h:x/",
        "https://h/\n",
    ],
)
def test_what_cannot_be_an_address_is_refused_with_what_to_write(written: str) -> None:
    with pytest.raises(ValueError, match="base_url") as refused:
        base_of(written)
    assert "u:p" not in str(refused.value)


def test_a_query_goes_behind_the_path() -> None:
    assert endpoint("https://h/v1?x=1", "/models") == "https://h/v1/models?x=1"

"""A chat in the terminal: streams answers in OpenAI's dialect by http.client, over several turns."""

import json
import ssl
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, TextIO
from urllib.parse import urlsplit

from sluice.commands.progress import Progress

TIMEOUT = 300.0
"""Seconds without a byte after which the connection is given up."""
MAX_RESPONSE_BYTES = 16 << 20
MAX_NAMES = 20


class Refused(Exception):
    """There is no answer; the message says why. `status`: the response's status; 0 if there was no
    response."""

    def __init__(self, why: str, status: int = 0) -> None:
        super().__init__(why)
        self.status = status


class TerminalClient:
    """A client of the gateway at `url`. Raises Refused for an invalid URL."""

    def __init__(self, url: str, key: str) -> None:
        try:
            parts = urlsplit(url)
            usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:  # brackets without an address, or an invalid port
            usable = False
        if not usable:
            raise Refused(f"--url: expected http://HOST:PORT, found {url}")
        self._parts = parts
        self._headers = {"content-type": "application/json"} | (
            {"authorization": f"Bearer {key}"} if key else {}
        )

    def model(self) -> str:
        """Returns the first model that the key may use. Raises Refused."""
        names = self.models()
        if not names:
            raise Refused("this key may use no model")
        return names[0]

    def models(self) -> list[str]:
        """Returns all models that the key may use. Raises Refused."""
        response = self._response("GET", "/v1/models")
        try:
            found = json.loads(response.read(MAX_RESPONSE_BYTES))
            return [harmless(str(one["id"])) for one in found["data"]]
        except (ValueError, TypeError, KeyError, OSError, HTTPException):
            raise Refused(
                f"{self._parts.netloc}: the answer is no list of models: is this a gateway?"
            ) from None

    def stream(self, body: dict[str, Any]) -> Iterator[bytes]:
        """Returns the lines of the stream. Raises Refused."""
        try:
            response = self._response("POST", "/v1/chat/completions", json.dumps(body).encode())
        except Refused as refused:
            if refused.status != 404:
                raise
            models = ", ".join(self.models()[:MAX_NAMES])
            raise Refused(
                f"{refused}; --model may be {models or 'none: this key may use no model'}"
            ) from None
        try:
            while line := response.readline(MAX_RESPONSE_BYTES):
                yield line
        except (OSError, HTTPException) as error:
            raise Refused(f"the stream broke: {error}") from None
        finally:
            response.close()

    def _response(self, method: str, path: str, body: bytes | None = None) -> HTTPResponse:
        parts = self._parts
        host = parts.hostname or ""
        connection: HTTPConnection
        if parts.scheme == "https":
            connection = HTTPSConnection(
                host, parts.port, timeout=TIMEOUT, context=ssl.create_default_context()
            )
        else:
            connection = HTTPConnection(host, parts.port, timeout=TIMEOUT)
        try:
            connection.request(method, parts.path.rstrip("/") + path, body, self._headers)
            response = connection.getresponse()
        except (OSError, HTTPException) as error:
            from sluice.process.asking import why

            raise Refused(f"{parts.netloc}: {why(error)}") from None
        if response.status != 200:
            raise Refused(_reason(response, keyed="authorization" in self._headers), response.status)
        return response


def _reason(response: HTTPResponse, *, keyed: bool) -> str:
    text = response.read(64 << 10).decode("utf-8", "replace")
    try:
        error = json.loads(text)["error"]
        message = error["message"] if isinstance(error, dict) else str(error)
    except (ValueError, KeyError, TypeError):
        message = text[:200]
    later = response.headers.get("retry-after")
    hint = "$SLUICE_API_KEY is not a key of it" if keyed else "set $SLUICE_API_KEY to a key of it"
    key = f"; {hint}" if response.status == 401 else ""
    return f"{response.status}: {harmless(message)}{f' (again in {later} s)' if later else ''}{key}"


class Talk:
    """A conversation in the terminal `out`. `raw`: print the lines of the stream instead of its text."""

    def __init__(
        self, client: TerminalClient, model: str, system: str, out: TextIO, *, raw: bool = False
    ) -> None:
        self._client = client
        self._model = model
        self._out = out
        self._raw = raw
        self._system = [{"role": "system", "content": system}] if system else []
        self.messages: list[dict[str, str]] = []

    def loop(self, prompt: Callable[[], str]) -> None:
        """Read and answer messages until there is no more input."""
        import click

        while True:
            try:
                text = prompt().strip()
            except click.Abort:
                self._out.write("\n")
                return
            if text == "/new":
                self.messages.clear()
            elif text in ("/quit", "/exit"):
                return
            elif text:
                try:
                    self.say(text)
                except Refused as error:
                    self._out.write(f"{error}\n")

    def say(self, text: str) -> None:
        """Send one message and print the answer. Ctrl-C stops the answer; the part so far belongs to the
        conversation. Raises Refused."""
        message = {"role": "user", "content": text}
        body = {"model": self._model, "stream": True, "messages": [*self._system, *self.messages, message]}
        answer = ""
        over = False
        lines = self._client.stream(body)
        waiting = Progress("waiting for the first token")
        try:
            with waiting:
                for line in lines:
                    answer += self._shown(line, waiting)
                    over = over or ends(line)
            if not over:
                raise Refused("the stream broke: it ended without its end; what came of it is above")
        except KeyboardInterrupt:
            self._out.write(" [stopped]")
        finally:
            lines.close()  # type: ignore[attr-defined]  # it is a generator
            self._out.write("\n")
            self._out.flush()
            if answer:
                self.messages += [message, {"role": "assistant", "content": answer}]

    def _shown(self, line: bytes, waiting: Progress) -> str:
        """Print the text of a line of the stream, and return it."""
        if self._raw:
            waiting.end()
            self._out.write(harmless(line.decode("utf-8", "replace")))
            self._out.flush()
        text, error = text_of(line)
        if error:
            raise Refused(harmless(error))
        if text and not self._raw:
            waiting.end()
            self._out.write(harmless(text))
            self._out.flush()
        return text


def text_of(line: bytes) -> tuple[str, str]:
    """Returns the text in a line of a chat completion's stream, and the error in it; "" for none."""
    if not line.startswith(b"data:"):
        return "", ""
    try:
        data = json.loads(line[5:])
    except ValueError:  # for example [DONE]
        return "", ""
    if not isinstance(data, dict):
        return "", ""
    if error := data.get("error"):
        return "", str(error.get("message") or error.get("code") or "error") if isinstance(
            error, dict
        ) else str(error)
    choices = data.get("choices")
    delta = (
        choices[0].get("delta")
        if isinstance(choices, list) and choices and isinstance(choices[0], dict)
        else None
    )
    content = delta.get("content") if isinstance(delta, dict) else None
    return (content, "") if isinstance(content, str) else ("", "")


def ends(line: bytes) -> bool:
    """Returns whether a line ends the answer: it has a finish reason, or is `[DONE]`."""
    if line.startswith(b"data:") and line[5:].strip() == b"[DONE]":
        return True
    if not line.startswith(b"data:") or b'"finish_reason"' not in line:
        return False
    try:
        return bool(json.loads(line[5:])["choices"][0]["finish_reason"])
    except (ValueError, TypeError, KeyError, IndexError):
        return False


def harmless(text: str) -> str:
    """Returns the text without control characters other than line feeds and tabs, which could control the
    terminal."""
    return "".join(character for character in text if character in "\n\t" or not _controls(character))


def _controls(character: str) -> bool:
    return ord(character) < 32 or 0x7F <= ord(character) < 0xA0

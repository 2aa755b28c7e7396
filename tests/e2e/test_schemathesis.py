"""What is answered is what the OpenAPI document says: Schemathesis plays every operation, in every way it
knows, to a gateway.

The cases are the same on every machine and at every run: a fixed seed, a number of examples, no time limit.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from jsonschema import Draft202012Validator
from schemathesis.checks import CHECKS
from schemathesis.config import GenerationConfig, HealthCheck
from schemathesis.core.transport import Response
from schemathesis.engine import events, from_schema
from schemathesis.schemas import BaseSchema

from sluice.api.cors import RENEW
from sluice.api.openapi import document
from sluice.identity.keys import digest_of
from tests.e2e.gateway_process import DIGEST, KEY, GatewayProcess, serving

EXAMPLES = 5
"""Random cases per operation and kind; those that follow from the schemas (hundreds) come first."""
SLOW = "sk-sluice-slow"
PAGE = "https://shop.example"
ADMIN = {"x-api-key": KEY, "x-admin-api-key": KEY}
CONFIG = f"""
limits: {{address: null}}
resume: memory
tokens: {{secret: "0123456789abcdef0123456789abcdef", renewable: 1h}}
keys:
  - {{id: test, digest: "{DIGEST}", aliases: ["*"], default_alias: chat, origins: ["{PAGE}"], limits: {{budget: {{day: 100}}}}}}
  - id: slow
    digest: "{digest_of(SLOW)}"
    default_alias: chat
    limits: {{requests: {{rate: 1/day, burst: 1}}}}
admin: {{digest: "{DIGEST}", store: memory}}
upstreams: {{echo: {{backend: echo, tokens: 3}}, gone: {{backend: openai, base_url: "http://127.0.0.1:9/v1", api_key: none}}}}
aliases:
  chat: {{tiers: [[{{upstream: echo, model: m}}]], resumable: true}}
  gone: {{tiers: [[{{upstream: gone, model: m}}]]}}
"""
COMPLETION = {"messages": [{"role": "user", "content": "hi"}]}
TURN = {"sessionId": "s", "message": "hi"}
OPERATIONS = [(path, method) for path, methods in document()["paths"].items() for method in methods]
WITH_BODY = [
    (path, method) for path, method in OPERATIONS if "requestBody" in document()["paths"][path][method]
]
FORMS = [
    (path, method) for path, method in WITH_BODY
    if "application/json" not in document()["paths"][path][method]["requestBody"].get("content", {"application/json": {}})
]  # fmt: skip
"""Those whose bodies are forms: JSON is another type for them."""
CHATS = [path for path, method in WITH_BODY if document()["paths"][path][method]["tags"] == ["chat"]]
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND")
CONFORMANCE = [
    f"{what}_conformance" for what in ("status_code", "content_type", "response_headers", "response_schema")
]


@pytest.fixture(scope="module")
def served() -> Iterator[GatewayProcess]:
    with serving(CONFIG) as gateway:
        yield gateway


@pytest.fixture
def schema(served: GatewayProcess) -> BaseSchema:
    """The document as it is served."""
    found = schemathesis.openapi.from_url(f"{served.api}/v1/openapi.json")
    found.config.update(base_url=served.api, headers=ADMIN, request_timeout=60)
    return found


def test_the_document_that_is_served_is_the_one_that_is_tested(schema: BaseSchema) -> None:
    assert schema.raw_schema == document()


def test_every_operation_answers_as_the_document_says(schema: BaseSchema) -> None:
    config = schema.config
    config.continue_on_failure = True
    config.suppress_health_check = [HealthCheck.too_slow]  # that is the machine's affair
    config.generation = GenerationConfig(
        max_examples=EXAMPLES, deterministic=True, no_shrink=True, with_security_parameters=False
    )
    config.phases.stateful.enabled = False
    config.checks.positive_data_acceptance.enabled = (
        False  # JSON Schema cannot say all that makes a request valid
    )
    config.checks.missing_required_header.expected_statuses = [
        "400",
        "401",
        "405",
    ]  # a stream is POSTed, or named by a GET
    tried: set[str] = set()
    problems: list[str] = []
    for event in from_schema(schema).execute():
        match event:
            case events.NonFatalError() | events.FatalError():
                problems.append(str(event))
            case events.ScenarioFinished(recorder=recorder):
                for id, checks in recorder.checks.items():
                    case, seen = recorder.cases[id].value, recorder.interactions.get(id)
                    tried.add(case.operation.label)
                    answer = seen.response if seen is not None else None
                    problems += [
                        f"{check.failure_info.failure.message}\n{case.as_curl_command()}\n{answer and answer.content[:500]!r}"
                        for check in checks
                        if check.failure_info is not None
                    ]
    assert not problems, "\n\n".join(problems)
    untried = {f"{method.upper()} {path}" for path, method in OPERATIONS} - tried
    assert untried == {"GET /v1/openapi.json"}  # where Schemathesis has the document from


def ask(schema: BaseSchema, path: str, method: str, url: str = "", **more: Any) -> requests.Response:
    """The answer to `url` (or the path itself), which is as the document describes those of this
    operation."""
    url = f"{schema.config.base_url}{url or path.replace('{id}', 'some')}"
    answer = requests.request(method, url, **{"headers": ADMIN, "timeout": 30, **more})
    operation = schema[path][method]
    case = operation.Case(path_parameters={"id": "some"} if "{id}" in path else {})
    case.validate_response(
        Response.from_requests(answer, verify=False),
        checks=CHECKS.get_by_names(CONFORMANCE),
    )
    if answer.headers.get("Content-Type", "").startswith("application/x-ndjson"):
        line_of = Draft202012Validator(
            {"$ref": "#/components/schemas/ChatLine", "components": document()["components"]}
        )
        for line in answer.text.splitlines():
            line_of.validate(json.loads(line))
    return answer


def allowed(answer: requests.Response) -> set[str]:
    return set(answer.headers["Allow"].split(", "))


@pytest.mark.parametrize("path", document()["paths"])
def test_allow_names_what_the_document_has(served: GatewayProcess, path: str) -> None:
    documented = {method.upper() for method in document()["paths"][path]}
    resumes = any(
        operation["operationId"].startswith("resume") for operation in document()["paths"][path].values()
    )
    there = documented | {"OPTIONS"} | ({"HEAD"} if "GET" in documented and not resumes else set())
    for slash in ("", "/"):
        url = served.api + path.replace("{id}", "chat") + slash
        preflight = requests.options(url, timeout=30)
        assert (preflight.status_code, allowed(preflight)) == (204, there)
        for method in METHODS:
            answer = requests.request(method, url, headers=ADMIN, timeout=30)
            if method in there:
                assert answer.status_code != 405 or resumes  # a GET that names no stream
                continue
            assert answer.status_code == 405
            assert allowed(answer) <= there - {method}
            assert allowed(answer) == there or method == "HEAD"


@pytest.mark.parametrize("action", ["nothing", "rotate/again"])
@pytest.mark.parametrize("method", ["OPTIONS", *METHODS])
def test_an_action_that_no_key_has_is_nothing(served: GatewayProcess, method: str, action: str) -> None:
    answer = requests.request(method, f"{served.api}/admin/keys/test/{action}", headers=ADMIN, timeout=30)
    assert answer.status_code == 404


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_strangers_are_answered_as_the_document_says(schema: BaseSchema, path: str, method: str) -> None:
    sent = {"json": COMPLETION | TURN} if (path, method) in WITH_BODY else {}
    answer = ask(schema, path, method, headers={"last-event-id": "x:1"}, **sent)
    protected = bool(document()["paths"][path][method]["security"])
    assert (answer.status_code == 401) == protected
    assert ("WWW-Authenticate" in answer.headers) == protected


@pytest.mark.parametrize("body", [b"", b"no JSON", b"[]", b"{", b'{"a":' * 300, b"\xff"])
@pytest.mark.parametrize(("path", "method"), WITH_BODY)
def test_a_body_that_is_none_is_refused_as_the_document_says(
    schema: BaseSchema, path: str, method: str, body: bytes
) -> None:
    ask(schema, path, method, data=body, headers={**ADMIN, "content-type": "application/json"})


@pytest.mark.parametrize(
    ("path", "method"), [one for one in WITH_BODY if one[0] != RENEW and one not in FORMS]
)
def test_other_types_and_codings_are_refused_as_the_document_says(
    schema: BaseSchema, path: str, method: str
) -> None:
    other = ask(schema, path, method, data=b"a=b", headers={**ADMIN, "content-type": "text/plain"})
    assert (other.status_code, "Accept-Encoding" in other.headers) == (415, False)
    coded = {**ADMIN, "content-type": "application/json", "content-encoding": "rot13"}
    answer = ask(schema, path, method, data=b"{}", headers=coded)
    assert (answer.status_code, answer.headers["Accept-Encoding"]) == (415, "gzip, deflate, br, zstd")
    broken = ask(schema, path, method, data=b"{}", headers={**coded, "content-encoding": "gzip"})
    assert broken.status_code == 400
    large = ask(
        schema, path, method, data=b" " * (5 << 20), headers={**ADMIN, "content-type": "application/json"}
    )
    assert large.status_code == 413


@pytest.mark.parametrize("path", CHATS)
def test_limits_are_told_as_the_document_says(schema: BaseSchema, path: str) -> None:
    body = COMPLETION if "completions" in path else TURN
    answers = [ask(schema, path, "post", json=body, headers={"x-api-key": SLOW}) for _ in range(2)]
    assert answers[-1].status_code == 429
    assert "Retry-After" in answers[-1].headers


@pytest.mark.parametrize("path", CHATS)
def test_an_upstream_that_is_gone_is_told_as_the_document_says(schema: BaseSchema, path: str) -> None:
    body = COMPLETION if "completions" in path else TURN
    answer = ask(schema, path, "post", json=body | {"model": "gone"})
    told = answer.json() if answer.status_code >= 500 else json.loads(answer.text.splitlines()[-1])
    assert told["error"]


@pytest.mark.parametrize("prefix", ["/v1", ""])
def test_resumed_streams_are_as_the_document_says(schema: BaseSchema, prefix: str) -> None:
    completions = f"{prefix}/chat/completions"
    events_ = ask(schema, completions, "post", json=COMPLETION | {"stream": True}).text
    ids = [line.removeprefix("id: ") for line in events_.splitlines() if line.startswith("id: ")]
    lines = ask(schema, "/v1/chat/stream", "post", json=TURN).text.splitlines()
    stream = json.loads(lines[0])["streamId"]
    by_path = "/v1/chat/stream/{id}"
    for last, status in (
        (ids[0], 200),
        (f"{stream}:0", 200),
        (ids[-1], 204),
        (f"{stream}:{len(lines) - 1}", 204),
    ):
        assert ask(schema, completions, "get", headers=ADMIN | {"last-event-id": last}).status_code == status
        id, _, after = last.partition(":")
        assert ask(schema, by_path, "get", f"/v1/chat/stream/{id}?after={after}").status_code == status
    assert ask(schema, completions, "get").status_code == 405
    assert ask(schema, completions, "get", headers=ADMIN | {"last-event-id": "nonsense:1"}).status_code == 404


def test_the_messages_of_a_session_are_as_the_document_says(schema: BaseSchema) -> None:
    path = "/v1/chat/messages"
    for message in ("one", "two"):
        assert (
            ask(schema, "/v1/chat", "post", json={"sessionId": "read", "message": message}).status_code == 200
        )
    found = ask(schema, path, "get", f"{path}?sessionId=read&limit=3").json()["messages"]
    assert [one["role"] for one in found] == ["assistant", "user", "assistant"]
    assert ask(schema, path, "get", f"{path}?sessionId=read&limit=0").status_code == 400


def test_tokens_are_as_the_document_says(schema: BaseSchema) -> None:
    key = {"x-api-key": KEY}
    minted = ask(
        schema, "/v1/tokens", "post", json={"origin": PAGE, "alias": None, "seconds": None}, headers=key
    )
    page = {"authorization": f"Bearer {minted.json()['token']}", "origin": PAGE}
    for body in ({}, {"json": {}}):
        assert ask(schema, RENEW, "post", headers=page, **body).status_code == 200
    assert ask(schema, RENEW, "post", headers=page, data=b"x").status_code == 415
    assert ask(schema, RENEW, "post", headers=page, json=[]).status_code == 400


def test_what_operators_are_told_is_as_the_document_says(schema: BaseSchema) -> None:
    assert "stores" in ask(schema, "/readyz", "get", "/readyz?verbose").json()
    assert "stores" in ask(schema, "/healthz", "get", "/healthz?verbose=").json()
    for format in ("json", "csv"):
        assert ask(schema, "/admin/usage", "get", f"/admin/usage?format={format}&by=key").status_code == 200
    assert ask(schema, "/admin/usage", "get", "/admin/usage?to=2200-01-01").status_code == 400
    assert ask(schema, "/admin/budgets", "get", "/admin/budgets?owner=test").json()["budgets"]
    spent = {"scope": "key", "owner": "test", "period": "day", "spent": 1}
    assert ask(schema, "/admin/budgets", "patch", json=spent).json()["spent_usd"] == 1
    newest = ask(schema, "/v1/admin/conversations", "get").json()["conversations"]
    assert newest
    one = f"/v1/admin/conversations/{newest[0]['_id']}"
    assert ask(schema, "/v1/admin/conversations/{conversationId}", "get", one).status_code == 200


def test_the_life_of_a_key_is_as_the_document_says(schema: BaseSchema) -> None:
    one = "/admin/keys/{id}"
    asked = {
        "id": "some",
        "default_alias": "chat",
        "expires": "2099-12-31T23:59:59Z",
        "limits": {"requests": {"rate": "5/s"}},
    }
    requests.delete(f"{schema.config.base_url}/admin/keys/some", headers=ADMIN, timeout=30)
    assert ask(schema, one, "get").status_code == 404
    assert [ask(schema, "/admin/keys", "post", json=asked).status_code for _ in range(2)] == [201, 409]
    for action in ("disable", "enable", "rotate"):
        assert ask(schema, f"{one}/{action}", "post").status_code == 200
        assert ask(schema, f"{one}/{action}", "post", f"/admin/keys/test/{action}").status_code == 409
    assert ask(schema, one, "patch", json={"enabled": False}).status_code == 200
    assert ask(schema, one, "get", data=b"no JSON").status_code == 200
    assert ask(schema, "/admin/keys", "get").json()["total"] >= 3
    assert [ask(schema, one, "delete", data=b"no JSON").status_code for _ in range(2)] == [200, 404]
    assert ask(schema, one, "delete", "/admin/keys/test").status_code == 409

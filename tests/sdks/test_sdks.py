"""SDKs show the same of an answer through the gateway as when they ask the provider directly.

Each SDK (`drivers/`) asks once directly and once through the gateway: for every recorded stream of the corpus
that speaks OpenAI's dialect, with the model's name as the provider says it and hidden (`report_model:
alias`), and for every case of ../shared/cases whose upstream speaks it. Text, reasoning, refusal, calls,
finish reason, usage and error are compared. Anthropic's own reader is held beside the openai SDK that asks
for the same stream through the gateway.

`make test` has an SDK of each dialect take a sixth of the streams, `make test-corpus` has every SDK take all.
Where the two differ on purpose, a row of `RIGHT` says why, and what is shown through the gateway must be what
the manifest says. Of a case, its own expected.json says what is right. The counts passed / all are written to
the terminal.
"""

import importlib.util
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from types import ModuleType
from typing import Any

import msgspec
import pytest
import yaml

from sluice.errors import ACCOUNTS_FAULT
from sluice.identity.keys import digest_of
from tests import corpus
from tests.e2e.gateways import HEAD, KEY, Running, gateway
from tests.e2e.test_corpus import report
from tests.fakes.rawserver import CHUNKED, LAST_CHUNK, Peer, RawServer, Request, chunk, sized
from tests.plugins.openai.test_corpus import GLUED, UNSEEN, ends_without_a_reason
from tests.plugins.openai.test_corpus import finish as promised_finish
from tests.plugins.test_corpus_anthropic_ollama import REASONS, same_json
from tests.sdks.running import Ask, Failure, Shown, answers, need

SDKS = [
    "py_openai",
    "py_openai_helper",
    "py_langchain",
    "js_openai",
    "js_openai_helper",
    "js_ai_sdk_compat",
    "js_ai_sdk_openai",
]
RECORDED = corpus.streams("openai-chat", "azure-openai")
MESSAGES = corpus.streams("anthropic")
FIELDS = ("text", "reasoning", "refusal", "calls", "finish", "usage", "error")

pytestmark = pytest.mark.timeout(240)
needs_corpus = pytest.mark.skipif(not RECORDED, reason=corpus.ABSENT)


# recorded streams: where the gateway differs from the provider, and why that is right


class Right(msgspec.Struct, frozen=True):
    """A difference on purpose: `why`, in which fields, and of which recordings."""

    why: str
    fields: frozenset[str]
    holds: Callable[[corpus.Recorded], bool]


def fails(recorded: corpus.Recorded) -> bool:
    return recorded.outcome in ("http_error", "stream_error")


def is_cut(recorded: corpus.Recorded) -> bool:
    return recorded.outcome == "ended_without_finish_reason" and not ends_without_a_reason(recorded)


def is_unreadable(recorded: corpus.Recorded) -> bool:
    """For some SDK: frames without data, tool calls without an index."""
    return recorded.outcome == "ok_despite_sdk_error" or recorded.file.startswith(
        "mistral/openinference-synchronous-streaming"
    )


def says_usage(recorded: corpus.Recorded) -> bool:
    return bool(recorded.expected.usage)


RIGHT = [
    Right(
        "errors have the gateway's statuses and codes, in the provider's words", frozenset({"error"}), fails
    ),
    Right("a cut must not look like an answer", frozenset({"error", "finish", "usage"}), is_cut),
    Right("[DONE] behind content is an end, with a reason", frozenset(FIELDS), ends_without_a_reason),
    Right(
        "calls on one index, and a name that is repeated, are told apart",
        frozenset({"calls"}),
        lambda r: r.file in GLUED,
    ),
    Right(
        "usage is told once, in the last chunk: SDKs add up what chunks say, or read the last",
        frozenset({"usage"}),
        says_usage,
    ),
    Right("usage in a vendor's own place is read", frozenset({"usage"}), lambda r: r.file in UNSEEN),
    Right("what the SDK cannot read is put right", frozenset(FIELDS), is_unreadable),
    Right(
        "Mistral's lists of parts are text and thoughts by the names that OpenAI's clients know",
        frozenset({"text", "reasoning", "error", "finish", "usage"}),
        lambda r: r.vendor == "mistral" and bool(r.expected.reasoning),
    ),
    Right(
        "each of several choices ends, and LangChain writes their reasons one behind the other",
        frozenset({"finish"}),
        lambda recorded: "multiple-choices-proxy" in recorded.file,
    ),
]


def wrong(recorded: corpus.Recorded, direct: Shown, through: Shown) -> list[str]:
    """What the gateway's caller is shown otherwise, without a reason, or with one but not as the manifest
    says it."""
    found = []
    for field in FIELDS:
        one, other = getattr(direct, field), getattr(through, field)
        if same(one, other):
            continue
        reasons = [right.why for right in RIGHT if field in right.fields and right.holds(recorded)]
        if not reasons or not promised(recorded, field, through):
            found.append(f"{field}: {other!r}"[:300] + f", directly {one!r}"[:300] + f" ({reasons})")
    return found


def same(one: Any, other: Any) -> bool:
    """An SDK's own refusal is the same whatever it says: it names the frame, or the first field of several
    that it misses."""
    if (
        isinstance(one, Failure)
        and isinstance(other, Failure)
        and one.name.endswith(("TypeValidationError", "OpenAIError"))
    ):
        return one.name == other.name
    return bool(one == other)


def promised(recorded: corpus.Recorded, field: str, through: Shown) -> bool:
    """Whether this is what the manifest says, as far as the gateway keeps it (the tables of the backend's own
    tests)."""
    expected = recorded.expected
    match field:
        case (
            "reasoning"
        ):  # the accumulator of OpenAI's JavaScript keeps the last piece of a field it does not know
            return bool(through.reasoning) and (expected.reasoning or "").endswith(through.reasoning)
        case "text" | "refusal":
            return getattr(through, field) == (getattr(expected, field) or "")
        case "calls":
            wanted = expected.tool_calls or []
            if recorded.file in GLUED:
                names = {name * 2 for name, _ in through.calls}
                return (
                    names == {wanted[0].name} and "".join(a for _, a in through.calls) == wanted[0].arguments
                )
            return len(wanted) == len(through.calls) and all(
                name == want.name and same_json(arguments, want.arguments)
                for (name, arguments), want in zip(through.calls, wanted, strict=True)
            )
        case "finish":
            reason = promised_finish(recorded)
            return through.finish in ((None, "error") if is_cut(recorded) else (reason, f"{reason}{reason}"))
        case "usage":
            usage = expected.usage and (expected.usage["input_tokens"], expected.usage["output_tokens"])
            return through.usage == (None if is_cut(recorded) else UNSEEN.get(recorded.file, usage))
    if fails(recorded):
        assert recorded.sdk_error is not None
        return through.error is not None and through.error.message in recorded.sdk_error["message"]
    return (through.error is not None) == is_cut(recorded)


def replays(recordings: list[corpus.Recorded]) -> Callable[[Request, Peer], Any]:
    """A provider that answers a request for the model mN with the Nth recording."""

    async def handler(request: Request, peer: Peer) -> None:
        recorded = recordings[int(json.loads(request.body)["model"].removeprefix("m"))]
        if recorded.http_status != 200:
            return peer.send(
                sized(recorded.body, recorded.http_status, ("Content-Type", recorded.content_type))
            )
        peer.send(CHUNKED + chunk(recorded.body) + LAST_CHUNK)

    return handler


def configuration(provider: str, backend: str, numbers: Sequence[int]) -> str:
    """Aliases fN (frames as they come) and hN (the model's name hidden), each with an upstream of its own."""
    waits = "timeouts: {connect: 60s}"
    upstreams = [
        f"  u{n}: {{backend: {backend}, base_url: '{provider}', api_key: k, {waits}}}" for n in numbers
    ]
    tail = "retry: {same_target: 0}, tiers: [[{upstream: "
    aliases = [f"  f{n}: {{{tail}u{n}, model: m{n}}}]]}}" for n in numbers]
    aliases += [f"  h{n}: {{report_model: alias, {tail}u{n}, model: m{n}}}]]}}" for n in numbers]
    head = HEAD.replace("default_alias: chat", f"default_alias: f{numbers[0]}")
    return "\n".join([head, "upstreams:", *upstreams, "aliases:", *aliases, ""])


def asks(base_url: str, key: str, models: Iterable[str]) -> list[Ask]:
    said = [{"role": "user", "content": "?"}]
    return [Ask(model, base_url, key, {"model": model, "messages": said}) for model in models]


@needs_corpus
@pytest.mark.parametrize("sdk", SDKS)
async def test_every_recorded_stream_shows_the_same_as_directly(
    sdk: str, pytestconfig: pytest.Config
) -> None:
    need(sdk)
    numbers = corpus.share(len(RECORDED), SDKS.index(sdk))
    async with (
        RawServer(replays(RECORDED)) as provider,
        gateway(configuration(f"{provider.url}/v1", "openai", numbers)) as running,
    ):
        directly = asks(f"{provider.url}/v1", "k", [f"m{n}" for n in numbers])
        through = asks(f"{running.url}/v1", KEY, [f"{lane}{n}" for n in numbers for lane in "fh"])
        shown = await answers(sdk, [*directly, *through])
    for lane, name in (("f", "the provider's name"), ("h", "the name hidden")):
        compared = {
            RECORDED[n].file: wrong(RECORDED[n], shown[f"m{n}"], shown[f"{lane}{n}"]) for n in numbers
        }
        passed = sum(not found for found in compared.values())
        report(pytestconfig, f"{sdk}, recorded streams, {name}: {passed} / {len(compared)}")
        assert not {file: found for file, found in compared.items() if found}


# Anthropic's own reader, beside OpenAI's behind the gateway


@pytest.mark.skipif(not MESSAGES, reason=corpus.ABSENT)
async def test_a_recorded_message_shows_what_anthropics_own_reader_shows(pytestconfig: pytest.Config) -> None:
    need("py_anthropic")
    numbers = corpus.share(len(MESSAGES), 1)
    async with (
        RawServer(replays(MESSAGES)) as provider,
        gateway(configuration(provider.url, "anthropic", numbers)) as running,
    ):
        directly = await answers("py_anthropic", asks(provider.url, "k", [f"m{n}" for n in numbers]))
        through = await answers("py_openai", asks(f"{running.url}/v1", KEY, [f"f{n}" for n in numbers]))
    compared = {MESSAGES[n].file: unlike(directly[f"m{n}"], through[f"f{n}"]) for n in numbers}
    passed = sum(not found for found in compared.values())
    report(pytestconfig, f"py_anthropic beside py_openai, recorded messages: {passed} / {len(compared)}")
    assert not {file: found for file, found in compared.items() if found}


def unlike(message: Shown, completion: Shown) -> list[str]:
    """Where the completion does not say what the message says."""
    if message.error is not None:
        error = completion.error
        # an error of the gateway's own account is not told in the provider's words
        right = error is not None and (error.code in ACCOUNTS_FAULT or error.message in message.error.message)
        return [] if right else [f"error: {completion.error}, directly {message.error}"]
    native = message.finish if isinstance(message.finish, str) else None
    pairs = {
        "text": (message.text, completion.text + completion.refusal),
        "reasoning": (message.reasoning, completion.reasoning),
        "calls": (message.calls, calls_of(completion, message)),
        "finish": (REASONS[native], completion.finish),
        "usage": (message.usage, completion.usage),
        "error": (None, completion.error),
    }
    return [
        f"{field}: {other!r}"[:300] + f", directly {one!r}"[:300]
        for field, (one, other) in pairs.items()
        if one != other
    ]


def calls_of(completion: Shown, message: Shown) -> list[tuple[str, Any]]:
    """Calls as anthropic's reader gives them: of arguments that the answer's length cut short, what it makes
    of the piece."""
    found = []
    for (name, arguments), (_, shown) in zip(completion.calls, message.calls, strict=False):
        try:
            found.append((name, json.loads(arguments or "{}")))
        except ValueError:
            found.append((name, shown if completion.finish == "length" else arguments))
    return found if len(completion.calls) == len(message.calls) else completion.calls


# cases of odd providers

CASES = corpus.ROOT.parent / "cases"
ODD_VALUES = {"odd-type-reasoning-object": ("reasoning", "x")}
"""What is read for what it can be, where an SDK shows the odd value itself: the field, and what the gateway's
callers see."""
NAMED = {"status", "text", "reasoning", "tool_calls", "finish", "usage", "error"}
"""What an SDK shows, as expected.json names it; what it says of headers, frames and requests is check.py's to
judge."""


class Case(msgspec.Struct, frozen=True):
    """`requests` are bodies, `right` a pattern for each, `rules` what the upstream answers (see check.py)."""

    name: str
    config: str
    requests: list[dict[str, Any]]
    right: list[list[Any]]
    rules: list[dict[str, Any]]

    def target(self, model: str) -> tuple[str, str, str]:
        """The first target's base_url (UPSTREAM stands for the fake one), key and model."""
        config = yaml.safe_load(self.config)
        target = config["aliases"][model]["tiers"][0][0]
        upstream = config["upstreams"][target["upstream"]]
        return upstream["base_url"], upstream.get("api_key", "k"), target["model"]


def read_cases() -> list[Case]:
    """Those whose upstream speaks OpenAI's dialect and whose requests an SDK can send; none where they are
    absent."""
    found = []
    for folder in sorted(path.parent for path in CASES.glob("*/expected.json")):
        config = (folder / "config.yaml").read_text()
        expected, requests, rules = (
            json.loads((folder / f"{n}.json").read_text()) for n in ("expected", "request", "upstream")
        )
        requests = requests if isinstance(requests, list) else [requests]
        if "backend: openai" not in config or "method" in requests[0]:
            continue
        patterns = [expected[name] for name in ("all", "stream") if name in expected]
        right = [[named(p[n] if isinstance(p, list) else p) for p in patterns] for n in range(len(requests))]
        rules = [with_role(rule) for rule in (rules if isinstance(rules, list) else [rules])]
        found.append(Case(folder.name, config, requests, right, rules))
    return found


def with_role(rule: dict[str, Any]) -> dict[str, Any]:
    """The rule whose stream begins as providers' do: openai's helper for JavaScript refuses an answer without
    a role."""
    deltas = [entry["delta"] for entry in rule.get("sse", ()) if isinstance(entry, dict) and "delta" in entry]
    if deltas:
        deltas[0].setdefault("role", "assistant")
    return rule


def named(pattern: Any) -> Any:
    """The pattern without what no SDK shows."""
    if isinstance(pattern, dict):
        return {
            path: [named(p) for p in want] if path == "any_of" else want
            for path, want in pattern.items()
            if path == "any_of" or path.split(".")[0] in NAMED
        }
    return pattern


def check() -> ModuleType:
    """The cases' own check.py: it writes the upstream's answers and compares with patterns."""
    spec = importlib.util.spec_from_file_location("cases_check", CASES / "check.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def plays(cases: list[Case], checks: ModuleType) -> Callable[[Request, Peer], Any]:
    """A provider that answers /CASE/... by the case's rules."""
    rules_of = {case.name: case.rules for case in cases}

    async def handler(request: Request, peer: Peer) -> None:
        _, name, *path = request.path.split("/")
        asked = {"path": "/" + "/".join(path), "headers": request.headers, "body": json.loads(request.body)}
        rule = next(r for r in rules_of[name] if not checks.differences(r.get("when", {}), asked))
        for piece in checks.Upstream.answer(None, rule, asked):
            peer.send(piece)
        if rule.get("end"):
            peer.close()

    return handler


@asynccontextmanager
async def gateways(cases: list[Case], provider: str) -> AsyncIterator[dict[str, Running]]:
    """A gateway for each case, by its name."""
    head = 'server: {listen: "127.0.0.1:0", admin_listen: "127.0.0.1:0", drain_delay: 0, body_limit: 16MiB}\n'
    async with AsyncExitStack() as stack:
        running = {}
        for case in cases:
            config = case.config.replace("UPSTREAM", f"{provider}/{case.name}").replace(
                "DIGEST", digest_of(KEY)
            )
            running[case.name] = await stack.enter_async_context(gateway(head + config))
        yield running


def misses(checks: ModuleType, case: Case, number: int, direct: Shown, through: Shown) -> list[str]:
    """What is not as expected.json says, and what it does not speak of and differs from the direct answer."""
    patterns = case.right[number]
    found = [line for pattern in patterns for line in checks.differences(pattern, as_call(through))]
    if direct.error is None and through.error is None:
        spoken = {
            path.split(".")[0].replace("tool_calls", "calls") for pattern in patterns for path in pattern
        }
        for field in FIELDS:
            one, other = getattr(direct, field), getattr(through, field)
            if field not in spoken and one != other and (field, other) != ODD_VALUES.get(case.name):
                found.append(f"{field}: {other!r}, directly {one!r}")
    return found


def as_call(shown: Shown) -> dict[str, Any]:
    """As check.py names what a caller got."""
    error = shown.error and {"code": shown.error.code, "message": shown.error.message}
    status = (shown.error and shown.error.status) or 200
    calls = [{"name": name, "arguments": arguments} for name, arguments in shown.calls]
    usage = shown.usage and list(shown.usage)
    finish = None if shown.error and shown.finish == "error" else shown.finish
    kept = {"text": shown.text, "reasoning": shown.reasoning, "finish": finish, "usage": usage}
    return {**kept, "status": status, "tool_calls": calls, "error": error}


@pytest.mark.skipif(not CASES.is_dir(), reason=f"the cases are not here ({CASES})")
@pytest.mark.parametrize("sdk", SDKS)
async def test_every_case_shows_what_is_right(sdk: str, pytestconfig: pytest.Config) -> None:
    need(sdk)
    cases, checks = read_cases(), check()
    if sdk != SDKS[0]:  # that one takes all of them
        cases = [cases[n] for n in corpus.share(len(cases), SDKS.index(sdk))]
    async with RawServer(plays(cases, checks)) as provider, gateways(cases, provider.url) as running:
        every = []
        for case in cases:
            for number, body in enumerate(case.requests):
                base_url, key, model = case.target(body["model"])
                base_url = base_url.replace("UPSTREAM", f"{provider.url}/{case.name}")
                plain = {
                    "messages": body["messages"],
                    "model": model,
                    **{n: body[n] for n in ("tools",) if n in body},
                }
                every.append(Ask(f"direct/{case.name}/{number}", base_url, key, plain))
                every.append(Ask(f"through/{case.name}/{number}", f"{running[case.name].url}/v1", KEY, body))
        shown = await answers(sdk, every)
    compared = {
        case.name: [
            line
            for number in range(len(case.requests))
            for line in misses(
                checks, case, number, *(shown[f"{way}/{case.name}/{number}"] for way in ("direct", "through"))
            )
        ]
        for case in cases
    }
    passed = sum(not found for found in compared.values())
    report(pytestconfig, f"{sdk}, cases: {passed} / {len(compared)}")
    assert {name: found for name, found in compared.items() if found} == {}

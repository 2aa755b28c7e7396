"""Vendors as data: `backend: groq` is enough, the section's own keys count, and what lacks is said."""

from pathlib import Path
from zipfile import ZipFile

import pytest

from scripts.providers_page import page
from sluice.config.loader import Checked, check
from sluice.config.vendors import IN_A_CLONE, Vendor, bundled_vendors
from sluice.model.chat import ChatRequest, Message, Text
from sluice.model.rules import ModelRule, rules_of
from sluice.routing.explain import explain
from sluice_plugins.credentials.static import Static
from sluice_plugins.openai.backend import OpenAI
from tests.config.test_values import ROOT, bundled

VENDORS = bundled_vendors()
PAGE = (ROOT / "docs" / "providers.md").read_text()
PLACES = {
    "AZURE_RESOURCE_NAME": "res",
    "ANTHROPIC_FOUNDRY_RESOURCE": "res",
    "CLOUDFLARE_ACCOUNT_ID": "0a1b",
    "DATABRICKS_HOST": "https://dbc.example.com",
    "SNOWFLAKE_ACCOUNT": "acme-eu",
}
"""Where accounts have addresses of their own."""


def checked(tmp_path: Path, section: str, *, blind: bool = False, **environ: str) -> Checked:
    file = tmp_path / "gateway.yaml"
    if section.startswith("backend: inference_pool"):
        section += ', picker: {address: "epp:9002"}'
    file.write_text(
        f"upstreams:\n  main: {{{section}}}\naliases: {{chat: {{tiers: [[{{upstream: main, model: m}}]]}}}}\n"
    )
    known = bundled()

    def find(name: str) -> type:
        if name not in known:
            raise LookupError(f'no backend "{name}"; installed: echo')
        return known[name]

    return check(str(file), environ=environ, find=find, blind=blind)


def problems(found: Checked) -> list[str]:
    return [
        f"{problem.line}:{problem.column}: {problem.path}: {problem.message}" for problem in found.problems
    ]


def key_sent(found: Checked) -> tuple[str, str | None]:
    """The key, and the header that takes it as it is; None: a Bearer token."""
    assert found.loaded is not None
    if credentials := found.loaded.credentials.get("main"):
        kind = credentials[0].kind
        assert isinstance(kind, Static)
        return kind.api_key.reveal(), kind.header
    headers = dict(found.loaded.backends["main"].credentials())
    return headers.get("authorization", headers.get("x-api-key", "")).removeprefix("Bearer "), None


def environment(vendor: Vendor) -> dict[str, str]:
    return PLACES | ({vendor.api_key_env: "sk-env"} if vendor.api_key_env else {})


@pytest.mark.parametrize("name", VENDORS)
def test_a_vendors_name_and_its_key_are_enough(name: str, tmp_path: Path) -> None:
    vendor = VENDORS[name]
    found = checked(tmp_path, f"backend: {name}", **environment(vendor))
    assert problems(found) == []
    assert found.loaded is not None
    upstream, backend = found.loaded.config.upstreams["main"], found.loaded.backends["main"]
    assert (upstream.backend, upstream.vendor) == (vendor.backend, name)
    assert type(backend) is bundled()[vendor.backend]
    assert key_sent(found) == (("sk-env", vendor.key_header) if vendor.api_key_env else ("", None))
    assert getattr(backend, "base_url", "").startswith(("https://", "http://localhost:"))


@pytest.mark.parametrize("name", VENDORS)
def test_no_key_is_a_problem_that_names_the_variable_and_the_option(name: str, tmp_path: Path) -> None:
    vendor = VENDORS[name]
    found = problems(checked(tmp_path, f"backend: {name}", **PLACES))
    if vendor.api_key_env is None or vendor.key_optional:
        assert found == []
    else:
        words = f"needs a key: set the environment variable {vendor.api_key_env}, or write api_key"
        assert found == [f"2:10: upstreams.main: {vendor.title} {words}"]


@pytest.mark.parametrize("name", VENDORS)
def test_without_the_environment_nothing_is_missed(name: str, tmp_path: Path) -> None:
    assert problems(checked(tmp_path, f"backend: {name}", blind=True)) == []


@pytest.mark.parametrize("name", VENDORS)
def test_each_is_sourced_and_no_backend_itself(name: str) -> None:
    vendor = VENDORS[name]
    assert name not in bundled()
    assert vendor.source
    assert vendor.date
    assert f"| `{name}` |" in PAGE


def test_the_page_has_the_table_as_it_is() -> None:
    assert page(PAGE, VENDORS) == PAGE, "run: python scripts/providers_page.py"


def test_an_address_of_ones_own_has_to_be_known(tmp_path: Path) -> None:
    [found] = problems(checked(tmp_path, "backend: azure, api_key: k"))
    assert found == (
        "2:10: upstreams.main.backend: environment variable AZURE_RESOURCE_NAME is not set, "
        'which the address of "azure" needs: set it, or write base_url'
    )
    assert (
        problems(
            checked(tmp_path, "backend: azure, api_key: k, base_url: 'https://x.openai.azure.com/openai/v1'")
        )
        == []
    )


def loaded(tmp_path: Path, section: str, **environ: str) -> OpenAI:
    found = checked(tmp_path, section, **environ)
    assert problems(found) == []
    assert found.loaded is not None
    backend = found.loaded.backends["main"]
    assert isinstance(backend, OpenAI)
    return backend


@pytest.mark.parametrize(
    ("section", "credentials"),
    [
        ("backend: groq, api_key: mine", (("authorization", "Bearer mine"),)),
        ("backend: groq, api_key: null", ()),
        ("backend: groq", (("authorization", "Bearer of-env"),)),
    ],
)
def test_the_sections_own_key_counts(section: str, credentials: object, tmp_path: Path) -> None:
    assert loaded(tmp_path, section, GROQ_API_KEY="of-env").credentials() == credentials


def test_a_header_with_a_key_is_a_key(tmp_path: Path) -> None:
    backend = loaded(tmp_path, "backend: groq, headers: {Authorization: Bearer x}", GROQ_API_KEY="of-env")
    assert backend.credentials() == ()


def test_the_sections_own_entries_count_before_the_vendors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {
        "headers": {"x-a": "1", "x-b": "2"},
        "timeouts": {"idle": "90s"},
        "keep_stop": True,
        "drop": ["seed"],
    }
    made = Vendor(
        title="Made",
        source="s",
        date="d",
        base_url="https://made.example/v1",
        options=options,
        probe_path="/health",
    )
    monkeypatch.setitem(VENDORS, "made", made)
    found = checked(
        tmp_path,
        "backend: made, headers: {x-b: '3'}, timeouts: {connect: 1s}, drop: [], probe: {every: 5s}, base_url: http://h",
    )
    assert found.loaded is not None
    upstream = found.loaded.config.upstreams["main"]
    backend = found.loaded.backends["main"]
    assert isinstance(backend, OpenAI)
    assert (backend.base_url, backend.headers, backend.keep_stop) == (
        "http://h",
        {"x-a": "1", "x-b": "3"},
        True,
    )
    assert (float(upstream.timeouts.idle), float(upstream.timeouts.connect), upstream.drop) == (90, 1, ())
    assert upstream.probe is not None
    assert (upstream.probe.path, float(upstream.probe.every)) == ("/health", 5)


def test_a_probe_is_not_begun_by_a_vendor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Vendor(
        title="Made", source="s", date="d", base_url="https://made.example/v1", probe_path="/health"
    )
    monkeypatch.setitem(VENDORS, "made", made)
    found = checked(tmp_path, "backend: made")
    assert found.loaded is not None
    assert found.loaded.config.upstreams["main"].probe is None


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("backend: grok", 'no backend "grok"; installed: echo; did you mean "groq"?'),
        ("backend: qqq", 'no backend "qqq"; installed: echo'),
        ("backend: groq, api_key: k, vendor: x", 'unknown key "vendor"'),
        ("backend: groq, api_key: k, base_ulr: x", 'unknown key "base_ulr"; did you mean "base_url"?'),
    ],
)
def test_what_is_not_known_is_said(section: str, expected: str, tmp_path: Path) -> None:
    [problem] = checked(tmp_path, section).problems
    assert problem.message == expected


def test_an_installed_backend_of_the_name_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VENDORS, "echo", Vendor(title="Echo", source="s", date="d", base_url="https://x"))
    found = checked(tmp_path, "backend: echo")
    assert found.loaded is not None
    assert found.loaded.config.upstreams["main"].vendor == ""


def test_a_made_up_vendor_is_configuration_alone(tmp_path: Path) -> None:
    backend = loaded(
        tmp_path,
        "backend: openai, base_url: 'https://llm.example.com/api/v2', api_key: k, drop: [logit_bias]",
    )
    assert backend._url == "https://llm.example.com/api/v2/chat/completions"


@pytest.mark.parametrize(
    ("section", "sent"),
    [
        ("api_key: mine", ("mine", "api-key")),
        ("credentials: {api_key: mine, header: authorization}", ("mine", "authorization")),
        ("api_key: null, headers: {authorization: Bearer of-entra}", ("", None)),
    ],
)
def test_a_key_goes_into_the_vendors_own_header(
    section: str, sent: tuple[str, str | None], tmp_path: Path
) -> None:
    found = checked(tmp_path, f"backend: azure, {section}", **environment(VENDORS["azure"]))
    assert problems(found) == []
    assert key_sent(found) == sent


def test_a_deployment_is_named_by_the_url(tmp_path: Path) -> None:
    backend = loaded(tmp_path, "backend: azure-deployments", **environment(VENDORS["azure"]))
    request = backend.request(ChatRequest("", "m", (Message("user", (Text("x"),)),)), "gpt 4/o")
    assert request.url == (
        "https://res.openai.azure.com/openai/deployments/gpt%204%2Fo/chat/completions?api-version=2024-10-21"
    )


LINE = ModelRule(source="s", date="d", host=r"^api\.groq\.com$", vendor="groq(-eu)?", drop=("seed",))


@pytest.mark.parametrize(
    ("host", "vendor", "holds"),
    [
        ("api.groq.com", "", True),
        ("proxy.example", "groq", True),
        ("proxy.example", "groq-eu", True),
        ("proxy.example", "groqs", False),
        ("proxy.example", "", False),
    ],
)
def test_a_rule_holds_for_a_vendor_wherever_it_is(host: str, vendor: str, holds: bool) -> None:
    assert bool(rules_of([LINE], [], "openai", host, "m", vendor=vendor).drop) is holds


def test_a_rule_of_a_vendor_alone() -> None:
    line = ModelRule(source="s", date="d", vendor="vllm", drop=("seed",))
    assert rules_of([line], [], "openai", "h", "m", vendor="vllm").drop == {"seed"}
    assert rules_of([line], [], "openai", "h", "m").drop == frozenset()


def test_explain_says_what_a_vendor_speaks(tmp_path: Path) -> None:
    found = checked(tmp_path, "backend: groq, api_key: k")
    assert found.loaded is not None
    lines = list(explain(found.loaded.config, "chat"))
    assert "     groq: speaks openai at https://api.groq.com/openai/v1" in lines


def test_the_wheel_carries_the_table(tmp_path: Path) -> None:
    build = pytest.importorskip("hatchling.builders.wheel", reason="hatchling is not installed")
    [wheel] = build.WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with ZipFile(wheel) as archive:
        assert archive.read("sluice/vendors.yaml") == IN_A_CLONE.read_bytes()

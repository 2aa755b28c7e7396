"""What the values of a good configuration become: YAML 1.2, ${VAR}, units, types."""

import tomllib
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

import pytest

from sluice.backends.protocol import find_backend
from sluice.config.listening import address
from sluice.config.loader import Loaded, check, check_text, load, locate
from sluice.config.resources import RESOURCES
from sluice.config.shown import shown
from sluice.config.types import Config, Secret, Timeouts, Upstream
from sluice.config.units import Bytes, Rate, Seconds, in_full
from sluice.config.yamltext import Mapping as Tree
from sluice.config.yamltext import Scalar, YamlError, read
from sluice.errors import ConfigError
from sluice.upstream.proxies import spared
from sluice.upstream.request import origin_of
from sluice.version import VERSION
from tests.config.test_problems import GOOD, Fake, find

ROOT = Path(__file__).parents[2]
SECRET = "s3cret-never-shown"


def loaded(tmp_path: Path, text: str, environ: Mapping[str, str] = {}) -> Loaded:
    file = tmp_path / "gateway.yaml"
    file.write_text(text)
    return load(str(file), environ=environ, find=find)


def values(text: str) -> dict[str, object]:
    tree = read(text.encode())
    assert isinstance(tree, Tree)
    return {key: entry.node.value for key, entry in tree.entries.items() if isinstance(entry.node, Scalar)}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"), ("on", "on"), ("y", "y"), ("012", 12), ("0o14", 12), ("0x1F", 31), ("1:30", "1:30"), ("1_000", "1_000"),
        ("~", None), ("null", None), ("", None), ("true", True), ("False", False), ("tRue", "tRue"), (".5", 0.5),
        ("1e3", 1000.0),
        ("-7", -7), ("+7", 7), ("2027-01-31", "2027-01-31"), ("'12'", "12"), ('"no"', "no"), ("!!str 12", "12"), ("=", "="),
        ("1.", 1.0), ("0b1", "0b1"),
    ],
)  # fmt: skip
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    found = values(f"a: {text}\n")["a"]
    assert found == value
    assert type(found) is type(value)


def test_anchors_and_merge_keys_work_and_own_keys_win(tmp_path: Path) -> None:
    text = GOOD.replace(
        "  main: {backend: fake, base_url: http://x}",
        "  base: &base {backend: fake, base_url: http://a, retries: 3}\n  main: {<<: *base, base_url: http://b}",
    )
    backends = loaded(tmp_path, text).backends
    assert backends == {
        "base": Fake(base_url="http://a", retries=3),
        "main": Fake(base_url="http://b", retries=3),
    }


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "aliases stand for more than 100000 values"),
        ("[" * 100_000, "nested deeper than 64"),
        ("{a: " * 100_000, "nested deeper than 64"),
        ("- " * 100_000, "nested deeper than 64"),
        ("a: &a [*a]", "not YAML: no anchor &a before this, or it would hold itself"),
        ("a: *b", "not YAML: no anchor &b before this, or it would hold itself"),
        (
            "a: !!python/object/apply:os.system [x]",
            "not YAML that we read: only the tags !!str, !!seq and !!map are known",
        ),
        ("a: {<<: 3}", "<< takes a mapping or a list of mappings"),
        ("? [a]\n: b", "a key must be a word"),
    ],
    ids=range(9),
)
def test_bombs_and_strange_yaml_are_refused(text: str, message: str) -> None:
    with pytest.raises(YamlError) as caught:
        read(text.encode())
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("${STATE}", "sqlite:x"),
        ("${NONE:-memory}", "memory"),
        ("${EMPTY:-memory}", "memory"),
        ("sqlite:${NONE:-a b}.db", "sqlite:a b.db"),
        ("sqlite:$$HOME/$x", "sqlite:$HOME/$x"),
        ("sqlite:${NUMBER}", "sqlite:12"),
        ("sqlite:$${STATE}", "sqlite:${STATE}"),
        ("'sqlite:${INJECTION}'", 'sqlite:a", b: {'),
    ],
)
def test_references_are_expanded_inside_text(tmp_path: Path, text: str, state: str) -> None:
    environ = {"STATE": "sqlite:x", "EMPTY": "", "NUMBER": "12", "INJECTION": 'a", b: {'}
    assert loaded(tmp_path, f"{GOOD}state: {text}\n", environ).config.state == state


def test_what_is_expanded_is_read_by_the_type_that_it_is_for(tmp_path: Path) -> None:
    section = """
    backend: fake
    base_url: http://x
    api_key: ${K}
    retries: ${N}
    delay: '${D}'
    think: ${B}
    extra: {plain: 1, quoted: "${N}"}"""
    text = GOOD.replace("{backend: fake, base_url: http://x}", section)

    def backend(**environ: str) -> Fake:
        found = loaded(tmp_path, text, {"K": "k", "N": "3", "D": "2", "B": "low", **environ}).backends["main"]
        assert isinstance(found, Fake)
        return found

    assert backend() == Fake(
        base_url="http://x",
        api_key=Secret("k"),
        retries=3,
        delay=Seconds(2),
        think="low",
        extra={"plain": 1, "quoted": "3"},
    )
    assert backend(B="true", D="5ms").think is True
    for key in ("12345", "null", "true", "1e5"):
        assert backend(K=key).api_key == Secret(key)
    assert backend(K="").api_key is None


def test_references_are_not_looked_up_wherever_they_stand_without_an_environment() -> None:
    text = """
upstreams:
  a: { backend: openai, base_url: "http://h/v1", api_key: "${A}", headers: { x-a: "${B}" }, pods: { addresses: ["${C}"] } }
aliases: { chat: { tiers: [[{ upstream: a, model: m }]] } }
keys: [{ id: web, digest: "${D}" }]
"""
    assert check_text(text.encode()).problems == ()


def test_a_secret_comes_from_a_file_without_its_line_break(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(SECRET + "\n")
    text = GOOD.replace("http://x", f'http://x, api_key: "${{file:{tmp_path}/key}}"')
    backend = loaded(tmp_path, text).backends["main"]
    assert isinstance(backend, Fake)
    assert backend.api_key is not None
    assert backend.api_key.reveal() == SECRET


def test_secrets_are_never_shown(tmp_path: Path) -> None:
    text = GOOD.replace("http://x", "http://x, api_key: '${K}'") + "limits: {store: 'redis://:${K}@h'}\n"
    result = loaded(tmp_path, text, {"K": SECRET})
    assert SECRET not in repr(result)
    assert SECRET not in f"{result.config.limits.store} {result.config.limits.store!r:>3}"
    assert result.config.limits.store.reveal() == f"redis://:{SECRET}@h"


@pytest.mark.parametrize(
    "wrong",
    [
        "limits: {store: '${K}'}", "server: {listen: '${K}'}", "server: {write_idle: '${K}'}",
        "server: {trusted_proxies: ['${K}']}",
        "admin: {digest: '${K}'}", "state: '${K}'", "log: {level: '${K}'}",
        "server: {body_limit: '${K}', max_connections: '${K}'}",
        "jwt: [{issuer: i, audience: a, algorithms: [HS256], secret: '${K}'}]", "metrics: '${K}'",
        "metrics: {key_label: '${K}'}",
        f"admin: {{digest: {SECRET}}}", f"state: {SECRET}", f"server: {SECRET}", "server: {trusted_proxies: '${K}'}",
    ],
)  # fmt: skip
def test_problems_never_repeat_a_value(tmp_path: Path, wrong: str) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(f"{GOOD}{wrong}\n")
    checked = check(str(file), environ={"K": SECRET}, find=find)
    assert checked.problems
    assert SECRET not in "\n".join(map(str, (*checked.problems, *checked.warnings)))


@pytest.mark.parametrize(
    ("kind", "given", "value"),
    [
        (Seconds, "500ms", 0.5), (Seconds, "2s", 2), (Seconds, "1.5 m", 90), (Seconds, "1h", 3600), (Seconds, "1d", 86400),
        (Seconds, 3, 3), (Seconds, 0.25, 0.25), (Seconds, 0, 0), (Bytes, "64KiB", 65536), (Bytes, "1.5MiB", 1572864),
        (Bytes, "2KB", 2000), (Bytes, 7, 7), (Bytes, "1GiB", 1 << 30), (Rate, "10/s", 10), (Rate, "600/min", 10),
        (Rate, "7200/h", 2), (Rate, "86400/day", 1), (Rate, 2, 2), (Rate, "0.5 / s", 0.5),
    ],
)  # fmt: skip
def test_units_are_read(kind: type[Seconds] | type[Bytes] | type[Rate], given: object, value: float) -> None:
    assert kind.parse(given) == value


@pytest.mark.parametrize(
    ("number", "text"),
    [(1e6, "1000000"), (2592000.0, "2592000"), (1e15, "1000000000000000"), (0.25, "0.25"), (1e-7, "0.0000001"), (0, "0")],
)  # fmt: skip
def test_numbers_are_written_in_full(number: float, text: str) -> None:
    assert in_full(number) == text
    assert number == 0 or Rate.parse(f"{in_full(number)}/s") == number


def test_long_times_and_large_amounts_are_shown_in_full() -> None:
    upstream = Upstream(backend="echo", timeouts=Timeouts(idle=Seconds.parse("30d")))
    assert (
        shown(Config(upstreams={"a": upstream}, aliases={}))["upstreams"]["a"]["timeouts"]["idle"]
        == "2592000s"
    )
    assert RESOURCES[1].text(2e6) == "2000000 tokens"
    with pytest.raises(ValueError, match="write 1500000ms or 1500000s"):
        Seconds.check_written(1_500_000)


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        *[
            (Seconds, wrong)
            for wrong in (
                "",
                "s",
                "-1s",
                "1 week",
                "1s ",
                "1S",
                "٣s",
                -1,
                True,
                None,
                float("inf"),
                float("nan"),
            )
        ],
        *[(Bytes, wrong) for wrong in ("64kib", "-1KiB", 1.5, True, -1, "KiB")],
        *[(Rate, wrong) for wrong in ("10", "0/s", "10/week", 0, -1, True, "/s", None)],
        *[(Secret, wrong) for wrong in ("", 5, None, "a\nb", "\x7f")],
    ],
)
def test_units_refuse_what_they_are_not(
    kind: type[Seconds] | type[Bytes] | type[Rate] | type[Secret], given: object
) -> None:
    with pytest.raises(ValueError, match=r"expected|holds|at most"):
        kind.parse(given)


DIGITS = "9" * 400


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        *[(Seconds, large) for large in (f"{DIGITS}s", "36501d", 10**400, 2**63, 1e308, float("inf"))],
        *[(Bytes, large) for large in (f"{DIGITS}MiB", "1048577GiB", 10**400, 2**63)],
        *[(Rate, large) for large in (f"{DIGITS}/s", "1000000000000001/s", 10**400, 1e308, float("inf"))],
    ],
)  # fmt: skip
def test_units_have_bounds(kind: type[Seconds] | type[Bytes] | type[Rate], given: object) -> None:
    with pytest.raises(ValueError, match="must be at most "):
        kind.parse(given)


@pytest.mark.parametrize(
    "value", [f"1{'0' * 400}", "9223372036854775808", DIGITS + "MiB", DIGITS + "s", "1e308", "-1", ".nan"]
)
@pytest.mark.parametrize("option", [
    "server: { workers: X }", "server: { max_connections: X }", "server: { drain_timeout: X }", "server: { send_buffer: X }",
    "limits: { replicas: X }", "limits: { overall: { streams: X } }", "limits: { overall: { budget: { day: X } } }",
    "limits: { overall: { requests: { rate: X } } }", "limits: { overall: { requests: { rate: 1/s, burst: X } } }",
])  # fmt: skip
def test_no_number_is_too_large_to_be_refused_in_words(option: str, value: str) -> None:
    found = check_text(f"{GOOD}\n{option.replace('X', value)}\n".encode(), find=find)
    assert [problem.path for problem in found.problems] == [
        option.split(": X")[0].replace(": { ", ".").replace("rate: 1/s, ", "")
    ]
    assert len(found.problems[0].message) < 200


@pytest.mark.parametrize("port", ["9" * 5000, "²", "٨٠", "8_0", "+80", "-1", ""])
def test_no_port_is_too_long_to_be_refused_in_words(port: str) -> None:
    with pytest.raises(ValueError, match="expected host:port"):
        address(f"host:{port}")
    assert not spared(f"a.example:{port or '0'}", origin_of("http://a.example:80"))


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("[::1]:0", ("::1", 0)),
        (":8080", ("", 8080)),
        ("host.name:65535", ("host.name", 65535)),
    ],
)
def test_addresses_are_split(text: str, result: tuple[str, int]) -> None:
    assert address(text) == result


@pytest.mark.parametrize(
    "text",
    ["", "8080", "host", "host:", "host:65536", "::1:80", "host:٣", "a b:80", "h:-1", "[::1]", "[h]:1"],
)
def test_addresses_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected host:port"):
        address(text)


def test_the_file_is_looked_for_where_it_may_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert locate("a.yaml", {"SLUICE_CONFIG": "b.yaml"}) == "a.yaml"
    assert locate(None, {"SLUICE_CONFIG": "b.yaml"}) == "b.yaml"
    with pytest.raises(ConfigError, match="give --config PATH"):
        locate(None, {})
    (tmp_path / "gateway.yaml").touch()
    assert locate(None, {}) == "gateway.yaml"


def test_an_unknown_backend_names_those_that_there_are() -> None:
    with pytest.raises(LookupError, match='no backend "nope"; installed: '):
        find_backend("nope")


def test_the_version_is_the_distributions() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == VERSION


def bundled(group: str = "sluice.backends") -> dict[str, type]:
    """Our own backends (or credentials), as pyproject.toml declares them, installed or not."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][group]
    parts = {name: target.split(":") for name, target in declared.items()}
    return {name: getattr(import_module(module), cls) for name, (module, cls) in parts.items()}


@pytest.mark.parametrize("name", ["gateway.dev.yaml", "gateway.example.yaml"])
def test_the_files_we_ship_are_good(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    environ = {"OPENAI_API_KEY": "x", "JWT_SECRET": "k" * 32, "BROWSER_TOKEN_SECRET": "t" * 32}
    checked = check(f"config/{name}", environ=environ, find=bundled().__getitem__)
    assert [str(problem) for problem in (*checked.problems, *checked.warnings)] == []


def test_the_example_shows_every_option() -> None:
    from sluice.config import types as config

    text = (ROOT / "config/gateway.example.yaml").read_text()
    sections = [
        cls for cls in vars(config).values() if isinstance(cls, type) and issubclass(cls, config.Section)
    ]
    names = {field for cls in sections for field in cls.__struct_fields__} - config.COMPUTED
    assert [name for name in sorted(names) if f"{name}:" not in text] == []

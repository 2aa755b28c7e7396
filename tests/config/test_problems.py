"""Bad configurations, each with the exact lines that `sluice check` prints."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest

from sluice.config.loader import check, load
from sluice.config.types import Seconds, Secret
from sluice.errors import ConfigError

DIGEST = "sha256:" + "a" * 64


class Fake(msgspec.Struct, frozen=True, kw_only=True):
    """A backend with one option of each kind."""

    base_url: str
    api_key: Secret | None = None
    retries: Annotated[int, msgspec.Meta(ge=0, le=5)] = 1
    delay: Seconds = Seconds(0)
    think: bool | str | None = None
    headers: dict[str, str] = {}
    extra: dict[str, Any] = {}

    def __post_init__(self) -> None:
        if not self.base_url.startswith("http"):
            raise ValueError("base_url must start with http:// or https://")


def find(name: str) -> type[msgspec.Struct]:
    if name != "fake":
        raise LookupError(f'no backend "{name}"; installed: fake')
    return Fake


GOOD = f"""\
upstreams:
  main: {{backend: fake, base_url: http://x}}
aliases:
  fast:
    tiers: [[{{upstream: main, model: m}}]]
keys:
  - {{id: a, digest: "{DIGEST}"}}
"""


def lines(tmp_path: Path, text: str | bytes, **environ: str) -> list[str]:
    file = tmp_path / "gateway.yaml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    checked = check(str(file), environ=environ, find=find)
    assert (checked.loaded is None) == bool(checked.problems)
    return [str(problem).removeprefix(f"{tmp_path}/") for problem in checked.problems]


def warnings(tmp_path: Path, text: str) -> list[str]:
    file = tmp_path / "gateway.yaml"
    file.write_text(text)
    return [str(w).removeprefix(f"{tmp_path}/") for w in check(str(file), environ={}, find=find).warnings]


def test_a_good_file_has_no_problems(tmp_path: Path) -> None:
    assert lines(tmp_path, GOOD) == []


# What is appended to GOOD (its last line is 7), and what is said about it.
APPENDED: list[tuple[str, str, list[str]]] = [
    ("unknown key", "sever: {}", ['8:1: sever: unknown key "sever"; did you mean "server"?']),
    (
        "tags",
        "usage: {tags: {a: {}, b: {header: Authorization, values: [x, ' y']}, c: {header: 'a b'}, d: {metadata: d, most: 0}}}",
        [
            "8:19: usage.tags.a: needs a header or a field of the metadata to be read from",
            "8:35: usage.tags.b.header: holds a credential, which must not be in a report",
            "8:62: usage.tags.b.values[1]: expected text of 1 to 64 characters that can be seen",
            "8:82: usage.tags.c.header: expected the name of a header, such as x-project",
            "8:113: usage.tags.d.most: must be at least 1",
        ],
    ),
    (
        "teams that are not there, and circles",
        "tenants: {x: {team: tem}}\nteams: {team: {parent: up}, up: {parent: team}, top: {parent: tob}}",
        [
            '8:21: tenants.x.team: unknown team "tem"; did you mean "team"?',
            "9:24: teams.team.parent: a circle: team -> up -> team",
            "9:42: teams.up.parent: a circle: up -> team -> up",
            '9:63: teams.top.parent: unknown team "tob"; did you mean "top"?',
        ],
    ),
    (
        "a team without limits is a section",
        "teams: {x: 3}",
        ["8:12: teams.x: expected a section, with keys such as limits, parent"],
    ),
    (
        "unknown nested key",
        "server: {lisen: x}",
        ['8:10: server.lisen: unknown key "lisen"; did you mean "listen"?'],
    ),
    ("no suggestion for a stranger", "xyzzy: 1", ['8:1: xyzzy: unknown key "xyzzy"']),
    (
        "section expected",
        "server: 8080",
        ["8:9: server: expected a section, with keys such as listen, admin_listen, socket_mode, tls"],
    ),
    (
        "a small section's keys",
        "log: {colour: x}",
        ['8:7: log.colour: unknown key "colour"; there are level, format, content, content_chars, hash_key'],
    ),
    (
        "list expected",
        "server: {trusted_proxies: 10.0.0.0/8}",
        ["8:27: server.trusted_proxies: expected a list: put it in [ ]"],
    ),
    (
        "number expected",
        "server: {max_connections: many}",
        ["8:27: server.max_connections: expected a whole number"],
    ),
    ("no is text", "metrics: {key_label: no}", ["8:22: metrics.key_label: expected true or false"]),
    ("bound", "server: {max_connections: 0}", ["8:27: server.max_connections: must be at least 1"]),
    (
        "duration",
        "server: {write_idle: 2 parsecs}",
        ["8:22: server.write_idle: expected a duration such as 500ms, 2s, 1m or a number of seconds"],
    ),
    (
        "no room for a body",
        "server: {body_limit: 2MiB, body_memory: 1MiB}",
        ["8:41: server.body_memory: must be at least body_limit: else no such body could ever arrive"],
    ),
    ("zero duration", "server: {write_idle: 0}", ["8:22: server.write_idle: must be more than 0"]),
    (
        "size",
        "server: {body_limit: 4XB}",
        ["8:22: server.body_limit: expected a size such as 64KiB, 4MiB or a number of bytes"],
    ),
    (
        "rate",
        "limits: {address: {rate: 10/fortnight}}",
        [
            "8:26: limits.address.rate: expected a rate above zero such as 10/s, 500/min, 20000/h or 1000000/day"
        ],
    ),
    ("missing in a section", "limits: {address: {burst: 1}}", ['8:19: limits.address: missing key "rate"']),
    (
        "burst",
        "limits: {address: {rate: 1/s, burst: 0}}",
        ["8:38: limits.address.burst: must be more than 0"],
    ),
    (
        "burst that never comes",
        "limits: {overall: {tokens: [{rate: 1/s}, {rate: 1/day, burst: 1000000000}]}}",
        ["8:42: limits.overall.tokens[1]: a limit whose bucket takes over 35 years to fill"],
    ),
    (
        "choice",
        "log: {level: warn}",
        ['8:14: log.level: expected one of debug, error, info, warning; did you mean "warning"?'],
    ),
    (
        "listen address",
        "server: {listen: localhost}",
        ["8:18: server.listen: expected host:port, such as 127.0.0.1:8080 or [::1]:8080, or unix:/path"],
    ),
    (
        "both listen",
        'server: {listen: ":1", admin_listen: ":1"}',
        ["8:38: server.admin_listen: must differ from listen"],
    ),
    (
        "network",
        "server: {trusted_proxies: [10.0.0.0/8, 10.0.0.1/8]}",
        [
            "8:40: server.trusted_proxies[1]: expected a network such as 10.0.0.0/8 (no bits set behind the prefix)"
        ],
    ),
    (
        "state",
        "state: postgres",
        [
            "8:8: state: expected memory, sqlite:PATH, a redis://, rediss:// or unix:// URL or a postgresql:// URL"
        ],
    ),
    (
        "state without a path",
        'state: "sqlite:"',
        [
            "8:8: state: expected memory, sqlite:PATH, a redis://, rediss:// or unix:// URL or a postgresql:// URL"
        ],
    ),
    (
        "store",
        "limits: {store: mysql://x}",
        ["8:17: limits.store: expected memory, shared:PATH or a redis://, rediss:// or unix:// URL"],
    ),
    (
        "admin store",
        "admin: {store: mysql://x}",
        [
            "8:16: admin.store: expected memory, sqlite:PATH, a redis://, rediss:// or unix:// URL or a postgresql:// URL"
        ],
    ),
    (
        "missing variable",
        "state: ${STATE}",
        [
            "8:8: state: environment variable STATE is not set: export STATE=…, or write ${STATE:-} if it may be empty"
        ],
    ),
    (
        "missing file",
        "state: ${file:/nowhere}",
        ["8:8: state: cannot read /nowhere: no such file or directory"],
    ),
    ("unclosed reference", "state: ${STATE", ["8:8: state: ${ without } (write $$ for a dollar sign)"]),
    (
        "strange reference",
        "state: ${1}",
        ["8:8: state: expected ${VAR}, ${VAR:-default} or ${file:/path} (write $$ for a dollar sign)"],
    ),
    (
        "admin digest",
        "admin: {digest: secret}",
        ["8:17: admin.digest: expected sha256: and 64 hex digits, as `sluice keys hash` prints them"],
    ),
    ("duplicate key", "keys: []", ['8:1: duplicate key "keys": it stands in line 6 already']),
    ("text expected", "state: 12", ["8:8: state: expected text: put it in quotes"]),
    (
        "not a number for a key",
        "log: {1: 2}",
        ['8:7: log.1: unknown key "1"; there are level, format, content, content_chars, hash_key'],
    ),
]


@pytest.mark.parametrize(("text", "expected"), [pytest.param(t, e, id=i) for i, t, e in APPENDED])
def test_names_the_place_and_what_is_wrong(tmp_path: Path, text: str, expected: list[str]) -> None:
    assert lines(tmp_path, GOOD + text + "\n") == [f"gateway.yaml:{line}" for line in expected]


# Replacements in GOOD: (id, old, new, expected).
UPSTREAM = "{backend: fake, base_url: http://x}"
TARGET = "{upstream: main, model: m}"
KEY = f'{{id: a, digest: "{DIGEST}"}}'
OTHER = DIGEST.replace("a" * 64, "b" * 64)
REPLACED: list[tuple[str, str, str, list[str]]] = [
    (
        "unknown backend",
        "backend: fake",
        "backend: fakes",
        ['2:19: upstreams.main.backend: no backend "fakes"; installed: fake'],
    ),
    ("missing option", UPSTREAM, "{backend: fake}", ['2:9: upstreams.main: missing key "base_url"']),
    (
        "misspelt option",
        "base_url:",
        "api_kye: s3cret, base_url:",
        ['2:25: upstreams.main.api_kye: unknown key "api_kye"; did you mean "api_key"?'],
    ),
    (
        "misspelt own field",
        "base_url:",
        "timeout: {}, base_url:",
        ['2:25: upstreams.main.timeout: unknown key "timeout"; did you mean "timeouts"?'],
    ),
    (
        "misspelt backend",
        "backend: fake",
        "bakend: fake",
        [
            '2:9: upstreams.main: missing key "backend"',
            '2:10: upstreams.main.bakend: unknown key "bakend"; did you mean "backend"?',
        ],
    ),
    (
        "options is no key",
        "base_url:",
        "options: {}, base_url:",
        ['2:25: upstreams.main.options: unknown key "options"'],
    ),
    (
        "option bound",
        "base_url:",
        "retries: 9, base_url:",
        ["2:34: upstreams.main.retries: must be at most 5"],
    ),
    (
        "empty secret",
        "base_url:",
        'api_key: "", base_url:',
        ["2:34: upstreams.main.api_key: expected text that is not empty"],
    ),
    (
        "secret with a line break",
        "base_url:",
        'api_key: "a\\nb", base_url:',
        ["2:34: upstreams.main.api_key: holds a line break or another control character"],
    ),
    (
        "union",
        "base_url:",
        "think: [1], base_url:",
        ["2:32: upstreams.main.think: fits none of the types that this option can have"],
    ),
    (
        "the backend refuses",
        "http://x",
        "ftp://x",
        ["2:25: upstreams.main: base_url must start with http:// or https://"],
    ),
    (
        "no bytes",
        "base_url:",
        "max_answer: 0, base_url:",
        ["2:37: upstreams.main.max_answer: must be more than 0"],
    ),
    (
        "zero timeout",
        "base_url:",
        "timeouts: {connect: 0s}, base_url:",
        ["2:45: upstreams.main.timeouts.connect: must be more than 0"],
    ),
    (
        "unknown upstream",
        "upstream: main",
        "upstream: mian",
        ['5:25: aliases.fast.tiers[0][0].upstream: unknown upstream "mian"; did you mean "main"?'],
    ),
    (
        "no tiers",
        f"[[{TARGET}]]",
        "[]",
        ["5:12: aliases.fast.tiers: needs at least one tier with one target"],
    ),
    (
        "empty tier",
        f"[[{TARGET}]]",
        f"[[{TARGET}], []]",
        ["5:43: aliases.fast.tiers[1]: needs at least one target"],
    ),
    (
        "flat tiers",
        f"[[{TARGET}]]",
        f"[{TARGET}]",
        [
            "5:13: aliases.fast.tiers[0]: a target stands where a tier (a list of targets) is expected: "
            "write tiers: [[{ upstream: NAME, model: NAME }]]",
        ],
    ),
    (
        "all weights zero",
        f"[[{TARGET}]]",
        "[[{upstream: main, model: a, weight: 0}, {upstream: main, model: b, weight: 0}]]",
        ["5:13: aliases.fast.tiers[0]: every target has weight 0: none would be asked"],
    ),
    (
        "infinite weight",
        "model: m",
        "model: m, weight: .inf",
        ["5:49: aliases.fast.tiers[0][0].weight: expected a number"],
    ),
    (
        "heartbeat",
        f"[[{TARGET}]]",
        f"[[{TARGET}]]\n    heartbeat: 0",
        ["6:16: aliases.fast.heartbeat: must be more than 0"],
    ),
    (
        "alias name",
        "  fast:",
        '  "fa st":',
        [
            "4:3: aliases.fa st: expected a name: letters, digits and . _ : / @ -, at most 128, starting with a letter or "
            "digit; * at its end: it stands for all names that begin so"
        ],
    ),
    (
        "key names an unknown alias",
        KEY,
        f'{{id: a, digest: "{DIGEST}", aliases: [fasd]}}',
        ['7:106: keys[0].aliases[0]: unknown alias "fasd"; did you mean "fast"?'],
    ),
    (
        "default alias not allowed",
        KEY,
        f'{{id: a, digest: "{DIGEST}", aliases: [], default_alias: fast}}',
        ['7:124: keys[0].default_alias: "fast" is not among its aliases'],
    ),
    (
        "the same key twice",
        f"  - {KEY}",
        f"  - {KEY}\n  - {KEY}",
        [
            "8:10: keys[1].id: the same id stands in line 7 already",
            "8:21: keys[1].digest: the same digest stands in line 7 already",
        ],
    ),
    (
        "not a date",
        KEY,
        f'{{id: a, digest: "{DIGEST}", expires: 2027-01-31}}',
        ["7:105: keys[0].expires: expected a date and time by RFC 3339, such as 2027-01-31T00:00:00Z"],
    ),
    (
        "every origin",
        KEY,
        f'{{id: a, digest: "{DIGEST}", origins: ["*"]}}',
        [
            "7:106: keys[0].origins[0]: expected an exact origin in lower case, such as https://app.example.com"
        ],
    ),
    (
        "fields that are the gateway's own",
        UPSTREAM,
        "{backend: fake, base_url: http://x, drop: ['!messages', a], force: {stream: false}, rename: {model: x}}",
        [
            '2:51: upstreams.main.drop: "!messages" is the gateway\'s own to say',
            '2:76: upstreams.main.force: "stream" is the gateway\'s own to say',
            '2:101: upstreams.main.rename: "model" is the gateway\'s own to say',
        ],
    ),
    (
        "a value that no caller could send",
        "{upstream: main, model: m}",
        "{upstream: main, model: m, default: {temperature: hot, top_p: null}, force: {n: 1000}}",
        [
            "5:50: aliases.fast.tiers[0][0].default: temperature: must be number or null, not str",
            "5:90: aliases.fast.tiers[0][0].force: n: must be from 1 to 128",
        ],
    ),
    (
        "limits of aliases that are not there",
        KEY,
        f'{{id: a, digest: "{DIGEST}", limits: {{aliases: {{fats: {{}}, "fa*": {{}}, "g*": {{}}}}}}}}',
        [
            '7:121: keys[0].limits.aliases.fats: unknown alias "fats"; did you mean "fast"?',
            '7:142: keys[0].limits.aliases.g*: unknown alias "g*"',
        ],
    ),
    ("no upstreams", f"  main: {UPSTREAM}", "  {}", ["2:3: upstreams: needs at least one", None]),
]


@pytest.mark.parametrize(("old", "new", "expected"), [pytest.param(o, n, e, id=i) for i, o, n, e in REPLACED])
def test_checks_references_and_sections(
    tmp_path: Path, old: str, new: str, expected: list[str | None]
) -> None:
    assert old in GOOD
    found = lines(tmp_path, GOOD.replace(old, new))
    assert len(found) == len(expected)
    for line, wanted in zip(found, expected, strict=True):
        assert wanted is None or line == f"gateway.yaml:{wanted}"


ISSUER = "issuer: https://i, audience: sluice"
LONG = "k" * 64
ISSUERS: list[tuple[str, str, list[str]]] = [
    (
        "neither",
        f"{{{ISSUER}, algorithms: [HS256]}}",
        ["9:5: jwt[0]: needs exactly one of secret, jwks_file, jwks_url and discovery"],
    ),
    (
        "both",
        f"{{{ISSUER}, algorithms: [HS256], secret: {LONG}, jwks_file: x}}",
        ["9:5: jwt[0]: needs exactly one of secret, jwks_file, jwks_url and discovery"],
    ),
    (
        "by address and by discovery",
        f"{{{ISSUER}, algorithms: [RS256], jwks_url: 'https://i/jwks', discovery: true}}",
        ["9:5: jwt[0]: needs exactly one of secret, jwks_file, jwks_url and discovery"],
    ),
    ("by address", f"{{{ISSUER}, algorithms: [RS256, ES256, EdDSA], jwks_url: 'https://i/jwks'}}", []),
    (
        "by an address on this machine",
        f"{{{ISSUER}, algorithms: [RS256], jwks_url: 'http://[::1]:80/jwks'}}",
        [],
    ),
    ("by discovery", f"{{{ISSUER}, algorithms: [RS256], discovery: true}}", []),
    (
        "by an address that anyone on the way can change",
        f"{{{ISSUER}, algorithms: [RS256], jwks_url: 'http://i/jwks'}}",
        ["9:74: jwt[0].jwks_url: must be https: whoever can change the answer could sign tokens"],
    ),
    (
        "by no address",
        f"{{{ISSUER}, algorithms: [RS256], jwks_url: jwks.json}}",
        ["9:74: jwt[0].jwks_url: expected a URL such as https://login.example.com/jwks.json"],
    ),
    (
        "by an address with a password",
        f"{{{ISSUER}, algorithms: [RS256], jwks_url: 'https://a:b@i/jwks'}}",
        ["9:74: jwt[0].jwks_url: must have neither a user nor a fragment"],
    ),
    (
        "discovery below a name",
        "{issuer: login, audience: sluice, algorithms: [RS256], discovery: true}",
        ["9:14: jwt[0].issuer: expected a URL such as https://login.example.com/jwks.json"],
    ),
    (
        "discovery below a query",
        "{issuer: 'https://i?a', audience: sluice, algorithms: [RS256], discovery: true}",
        ["9:14: jwt[0].issuer: has a query, so nothing can be discovered below it"],
    ),
    (
        "a shared-secret algorithm with keys that anyone can fetch",
        f"{{{ISSUER}, algorithms: [RS256, HS256], jwks_url: 'https://i/jwks'}}",
        ["9:55: jwt[0].algorithms: HS256 needs a secret: the keys of a set that is fetched are public"],
    ),
    (
        "a shared-secret algorithm with discovery",
        f"{{{ISSUER}, algorithms: [HS512], discovery: true}}",
        ["9:55: jwt[0].algorithms: HS512 needs a secret: the keys of a set that is fetched are public"],
    ),
    (
        "none",
        f"{{{ISSUER}, algorithms: [none], secret: {LONG}}}",
        [
            "9:55: jwt[0].algorithms: unknown algorithm 'none'; known: ES256, ES384, ES512, EdDSA, HS256, HS384, HS512, "
            "PS256, PS384, PS512, RS256, RS384, RS512"
        ],
    ),
    (
        "a public-key algorithm with a secret",
        f"{{{ISSUER}, algorithms: [HS256, RS256], secret: {LONG}}}",
        ["9:55: jwt[0].algorithms: RS256 needs a public key (jwks_file), not a secret"],
    ),
    (
        "short secret",
        f"{{{ISSUER}, algorithms: [HS256], secret: short}}",
        ["9:55: jwt[0].algorithms: the secret is too short for HS256: at least 32 bytes"],
    ),
    (
        "no algorithm",
        f"{{{ISSUER}, algorithms: [], secret: {LONG}}}",
        ["9:55: jwt[0].algorithms: needs at least one algorithm"],
    ),
    (
        "no such file",
        f"{{{ISSUER}, algorithms: [RS256], jwks_file: /nowhere/jwks.json}}",
        ["9:75: jwt[0].jwks_file: cannot read /nowhere/jwks.json: no such file or directory"],
    ),
    (
        "missing keys",
        "{issuer: x}",
        [
            '9:5: jwt[0]: missing key "algorithms"',
            '9:5: jwt[0]: missing key "audience"',
            "9:5: jwt[0]: needs exactly one of secret, jwks_file, jwks_url and discovery",
        ],
    ),
]


@pytest.mark.parametrize(("text", "expected"), [pytest.param(t, e, id=i) for i, t, e in ISSUERS])
def test_checks_issuers_of_tokens(tmp_path: Path, text: str, expected: list[str]) -> None:
    assert lines(tmp_path, f"{GOOD}jwt:\n  - {text}\n") == [f"gateway.yaml:{line}" for line in expected]


TOKENS = [
    ("short", "{secret: short}", ["8:18: tokens.secret: is too short: at least 32 bytes"]),
    ("no time", f"{{secret: {LONG}, longest: 0s}}", ["8:93: tokens.longest: must be at least 1s"]),
    ("no secret", "{}", ['8:9: tokens: missing key "secret"']),
]


@pytest.mark.parametrize(("text", "expected"), [pytest.param(t, e, id=i) for i, t, e in TOKENS])
def test_checks_browser_tokens(tmp_path: Path, text: str, expected: list[str]) -> None:
    assert lines(tmp_path, f"{GOOD}tokens: {text}\n") == [f"gateway.yaml:{line}" for line in expected]


def test_refuses_a_shared_secret_algorithm_where_the_set_holds_public_keys(tmp_path: Path) -> None:
    (tmp_path / "jwks.json").write_text('{"keys": [{"kty": "RSA", "n": "%s", "e": "AQAB"}]}' % ("x" * 344))
    text = f"{GOOD}jwt:\n  - {{{ISSUER}, algorithms: [RS256, HS256], jwks_file: {tmp_path}/jwks.json}}\n"
    assert lines(tmp_path, text) == [
        "gateway.yaml:9:55: jwt[0].algorithms: no key of jwks_file may verify HS256 (type, alg, use, key_ops, length)"
    ]


def test_reports_everything_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = """\
upstreams:
  main: {backend: fake}
  gone: {backend: nope}
aliases:
  fast: {tiers: [[{upstream: other, model: 5}]], heartbeat: soon}
keys:
  - {id: a, digest: x, aliases: [slow]}
serve: {}
"""
    assert lines(tmp_path, text) == [
        'gateway.yaml:2:9: upstreams.main: missing key "base_url"',
        'gateway.yaml:3:19: upstreams.gone.backend: no backend "nope"; installed: fake',
        'gateway.yaml:5:30: aliases.fast.tiers[0][0].upstream: unknown upstream "other"',
        "gateway.yaml:5:44: aliases.fast.tiers[0][0].model: expected text (put it in quotes)",
        "gateway.yaml:5:61: aliases.fast.heartbeat: expected a duration such as 500ms, 2s, 1m or a number of seconds",
        "gateway.yaml:7:21: keys[0].digest: expected sha256: and 64 hex digits, as `sluice keys hash` prints them",
        'gateway.yaml:7:34: keys[0].aliases[0]: unknown alias "slow"',
        'gateway.yaml:8:1: serve: unknown key "serve"; did you mean "server"?',
    ]


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing but this\n", "{}\n", "null\n"])
def test_an_empty_file_says_how_to_begin(text: str, tmp_path: Path) -> None:
    [line] = lines(tmp_path, text)
    assert ": the configuration is empty: `sluice init` writes a first one" in line


def test_what_is_required_is_named(tmp_path: Path) -> None:
    assert lines(tmp_path, "state: memory\n") == [
        'gateway.yaml:1:1: missing key "aliases"',
        'gateway.yaml:1:1: missing key "upstreams"',
    ]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (
            b"a: b: c\n",
            "1:5: not YAML: mapping values are not allowed in this context (a text with a colon and a space in it "
            "wants quotes; or this line is indented too far)",
        ),
        (
            b"a:\n  b:\n    c: 1\n   d: 2\n",
            "4:4: not YAML: did not find expected key (the keys of one section begin in the same column; this is "
            "the one that begins in line 2, column 3)",
        ),
        (
            b"a:\n  - b\n  c\n",
            "4:1: not YAML: could not find expected ':' (write key: value, with a space behind the colon; see "
            "line 3, column 3)",
        ),
        (
            b"a: [b, c\nd: 1\n",
            "2:2: not YAML: did not find expected ',' or ']' (the [ in line 1, column 4 is not closed before this: "
            "write [first, second])",
        ),
        (
            b'a: { b: "c }\nd: "e"\n',
            "2:5: not YAML: did not find expected ',' or '}' (the { in line 1, column 4 is not closed before this: "
            "write { key: value, key: value })",
        ),
        (
            b'a: "b\nc: d\n',
            "3:1: not YAML: found unexpected end of stream (the quote in line 1, column 4 is not closed)",
        ),
        (
            b"a:\n\tb: 1\n",
            "2:1: not YAML: found character that cannot start any token (indent with spaces: YAML knows no tabs)",
        ),
        (b"a: \xff\n", "1:4: not UTF-8"),
        ("a: 1\nä: ".encode() + b"\xfe", "2:4: not UTF-8"),
        (
            b"- 1\n",
            "1:1: expected sections (upstreams:, aliases:, keys: …), as `sluice init` writes them",
        ),
        (b"a: 1\n---\nb: 2\n", "2:1: not YAML: a second document; one file is one document"),
        (b"a: \x07\n", "1:4: not YAML: a character that YAML does not allow"),
    ],
)
def test_a_file_that_is_not_yaml_is_one_line(tmp_path: Path, data: bytes, expected: str) -> None:
    assert lines(tmp_path, data) == [f"gateway.yaml:{expected}"]


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    for path, why in ((tmp_path / "none.yaml", "no such file or directory"), (tmp_path, "is a directory")):
        with pytest.raises(ConfigError) as caught:
            load(str(path), find=find)
        assert caught.value.problems == [f"{path}:1:1: cannot be read: {why}"]


def test_warns_of_what_is_of_no_use(tmp_path: Path) -> None:
    text = GOOD.replace("aliases:\n", f"  spare: {UPSTREAM}\naliases:\n  idle: {{tiers: [[{TARGET}]]}}\n")
    text = text.replace(KEY, KEY[:-1] + ", aliases: [fast], expires: 2001-01-01T00:00:00Z}")
    assert warnings(tmp_path, text) == [
        "gateway.yaml:3:10: upstreams.spare: no alias uses this upstream",
        "gateway.yaml:5:9: aliases.idle: no key may use this alias",
        "gateway.yaml:9:122: keys[0].expires: this key has expired",
    ]
    assert warnings(tmp_path, GOOD[: GOOD.index("keys:")]) == [
        "gateway.yaml:1:1: no keys and no jwt: nobody can call this gateway (`sluice keys new`)"
    ]


def test_warns_of_limits_that_concern_nobody(tmp_path: Path) -> None:
    text = GOOD.replace("keys:\n", f"  code: {{tiers: [[{TARGET}]]}}\nkeys:\n")
    text = text.replace(
        KEY, KEY[:-1] + ", aliases: [fast], limits: {aliases: {code: {}, fast: {}, 'c*': {}}}}"
    )
    assert [line.partition(": ")[2] for line in warnings(tmp_path, text + "teams: {web: {}}\n")] == [
        "aliases.code: no key may use this alias",
        "keys[0].limits.aliases.code: this caller may not use this alias",
        "keys[0].limits.aliases.c*: this caller may not use this alias",
        "teams.web: no tenant is in this team (`team` of a tenant)",
    ]


def test_warns_of_what_several_workers_do_not_share(tmp_path: Path) -> None:
    def said(text: str) -> list[str]:
        return [line.split(": ", 1)[1] for line in warnings(tmp_path, text)]

    several = GOOD.replace("    tiers:", "    resumable: true\n    tiers:") + "server: {workers: 2}\n"
    own = "state: each worker keeps its own conversations: a turn that another worker answers does not know them"
    resume = "resume: a stream can only be resumed at the worker that began it: use a redis:// URL"
    assert said(several.replace("2}", "1}")) == []
    assert said(several) == [resume, own]
    assert said(several + "state: sqlite:x.db\nresume: redis://x\n") == []


@pytest.mark.parametrize("store", ["memory", "shared:/run/sluice/limits", "redis://x", "unix:///x"])
def test_stores_of_limits(tmp_path: Path, store: str) -> None:
    assert lines(tmp_path, f"{GOOD}limits: {{store: '{store}'}}\n") == []


def test_says_nothing_of_missing_keys_where_they_can_be_made_later(tmp_path: Path) -> None:
    text = GOOD[: GOOD.index("keys:")] + f'admin: {{digest: "{DIGEST}"}}\n'
    assert warnings(tmp_path, text) == []
    assert [line for line in warnings(tmp_path, f"{text}server: {{workers: 2}}\n") if "admin" in line] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("limits: {overall: {tokens: {rate: 1/s, burst: 500}}}", "8:28: limits.overall.tokens"),
        ("limits: {overall: {tokens: {rate: 20/min}}}", "8:28: limits.overall.tokens"),
        (
            "limits: {overall: {tokens: [{rate: 1/s, burst: 2000}, {rate: 1/s, burst: 500}]}}",
            "8:55: limits.overall.tokens[1]",
        ),
        ("tenants: {t: {limits: {tokens: {rate: 1/s, burst: 1023}}}}", "8:32: tenants.t.limits.tokens"),
    ],
)
def test_a_burst_that_no_usual_call_fits_in_is_an_error(tmp_path: Path, text: str, expected: str) -> None:
    [line] = lines(tmp_path, GOOD + text)
    assert line.startswith(f"gateway.yaml:{expected}: its burst of ")
    assert (
        "can never admit a call that sets no maximum: 1024 tokens are reserved for it (limits.output_tokens)"
        in line
    )


@pytest.mark.parametrize(
    "text",
    [
        "limits: {overall: {tokens: {rate: 1/s, burst: 1024}}}",
        "limits: {output_tokens: 100, overall: {tokens: {rate: 1/s, burst: 100}}}",
        "limits: {overall: {money: {rate: 1/s, burst: 0.001}}}",  # the model has no price, so it costs nothing
        "limits: {overall: {requests: {rate: 1/s, burst: 1}}}",
    ],
)
def test_a_burst_that_usual_calls_fit_in_is_none(tmp_path: Path, text: str) -> None:
    assert lines(tmp_path, GOOD + text) == []


def test_a_burst_of_money_is_held_against_the_cheapest_alias(tmp_path: Path) -> None:
    prices = "prices: {models: {m: {input: 1, output: 1000}}}\n"
    limits = "limits: {overall: {money: {rate: 1/s, burst: BURST}}}"
    assert lines(tmp_path, GOOD + prices + limits.replace("BURST", "1.024")) == []
    [line] = lines(tmp_path, GOOD + prices + limits.replace("BURST", "1"))
    assert "gateway.yaml:9:27: limits.overall.money: its burst of 1 can never admit" in line
    assert "$1.024 are reserved" in line


def test_a_limit_of_addresses_without_trusted_proxies_is_warned_of(tmp_path: Path) -> None:
    limited = f"{GOOD}limits: {{address: {{rate: 50/s}}}}\n"
    [warning] = warnings(tmp_path, limited)
    assert "limits.address: server.trusted_proxies is empty" in warning
    assert warnings(tmp_path, f'{limited}server: {{trusted_proxies: ["10.0.0.0/8"]}}\n') == []
    assert warnings(tmp_path, GOOD) == warnings(tmp_path, f"{GOOD}limits: {{address: null}}\n") == []


@pytest.mark.parametrize(
    ("good", "wrong", "problem"),
    [
        (
            "tiers: [[{upstream: main, model: m}]]",
            "tiers: {upstream: main, model: m}",
            "5:12: aliases.fast.tiers: expected a list: [[{ upstream: NAME, model: NAME }]]",
        ),
        (
            f'keys:\n  - {{id: a, digest: "{DIGEST}"}}',
            f'keys: {{a: {{digest: "{DIGEST}"}}}}',
            "6:7: keys: expected a list: [{ id: NAME, digest: sha256:… }]",
        ),
        (
            "backend: fake,",
            "backend: fake, api_key: {env: KEY},",
            '2:34: upstreams.main.api_key: expected text: "${NAME}" is a variable of the environment',
        ),
        ("backend: fake,", "api_key: key,", '2:9: upstreams.main: missing key "backend"'),
    ],
)
def test_another_form_is_told_the_right_one(tmp_path: Path, good: str, wrong: str, problem: str) -> None:
    assert good in GOOD
    assert lines(tmp_path, GOOD.replace(good, wrong)) == [f"gateway.yaml:{problem}"]

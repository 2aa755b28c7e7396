"""The command as a user runs it: in a process of its own, with its exit codes and its one-line errors."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from sluice.cli import SECTIONS, cli
from sluice.config.loader import admin_listen_of
from sluice.errors import ConfigError
from sluice.identity.keys import digest_of
from sluice.version import VERSION

ROOT = Path(__file__).parent.parent
HEAVY = ("aiohttp", "redis", "jwt", "cryptography", "prometheus_client", "structlog", "uvloop", "pydantic")


def sluice(
    *arguments: str, stdin: str = "", cwd: Path = ROOT, **environ: str
) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        **environ,
    }
    command = [sys.executable, "-m", "sluice", *arguments]
    return subprocess.run(
        command,
        input=stdin,
        capture_output=True,
        text=True,
        env=environment,
        cwd=cwd,
        timeout=60,
        check=False,
    )


def test_version() -> None:
    assert sluice("version").stdout == f"sluice {VERSION}\n"
    assert json.loads(sluice("version", "--json").stdout)["version"] == VERSION


def test_new_keys_come_with_the_lines_that_let_them_in() -> None:
    out = sluice("keys", "new", "--id", "shop").stdout
    (key,) = re.findall(r"^sk-sluice-[A-Za-z0-9_-]{43}$", out, re.MULTILINE)
    assert out.endswith(f"keys:\n  - id: shop\n    digest: {digest_of(key)}\n")
    assert sluice("keys", "hash", stdin=key + "\n").stdout == f"{digest_of(key)}\n"


@pytest.mark.parametrize("stdin", ["", "\n", "two words\n", "schlüssel\n"])
def test_hashing_what_is_no_key_fails_in_one_line(stdin: str) -> None:
    done = sluice("keys", "hash", stdin=stdin, PYTHONIOENCODING="utf-8")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "sluice: expected one key on standard input: printable ASCII without spaces\n"


MINTING = f"""
upstreams: {{echo: {{backend: echo}}}}
aliases: {{chat: {{tiers: [[{{upstream: echo, model: m}}]]}}}}
keys: [{{id: shop, digest: "{digest_of("sk")}", aliases: [chat], origins: ["https://a.example"]}},
  {{id: off, digest: "{digest_of("sk2")}", origins: ["https://a.example"], enabled: false}}]
tokens: {{secret: {"s" * 32}}}
"""


def test_a_token_is_minted_for_development(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(MINTING)
    mint = (
        "token",
        "mint",
        "--config",
        str(file),
        "--origin",
        "https://a.example",
        "--session-prefix",
        "dev-",
        "--seconds",
        "60",
    )
    (token,) = sluice(*mint, "--key", "shop").stdout.splitlines()
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert [claims[name] for name in ("key", "alias", "origin", "session")] == [
        "shop",
        "chat",
        "https://a.example",
        "dev-",
    ]
    assert claims["exp"] - claims["iat"] == 60
    for arguments, said in (
        (("--key", "nobody"), "there is no key nobody that may be used; there are shop"),
        (("--key", "off"), "there is no key off that may be used; there are shop"),
        (("--key", "shop", "--alias", "x"), "There is no such model, or this key may not use it"),
        (("--key", "shop", "--seconds", "901"), "seconds: must be 1 to 900"),
    ):
        done = sluice(*mint, *arguments)
        assert (done.returncode, done.stdout, done.stderr) == (1, "", f"sluice: {said}\n")


def test_check_names_the_problems_and_fails(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("upstreams: {}\naliases: {}\nsever: {}\n")
    done = sluice("check", str(file))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        f"{file}:1:12: upstreams: needs at least one",
        f"{file}:2:10: aliases: needs at least one",
        f'{file}:3:1: sever: unknown key "sever"; did you mean "server"?',
        f"warning: {file}:1:1: no keys and no jwt: nobody can call this gateway (`sluice keys new`)",
    ]
    report = json.loads(sluice("check", str(file), "--format", "json").stdout)
    assert report["ok"] is False
    assert [(p["line"], p["column"], p["path"]) for p in report["problems"]] == [
        (1, 12, "upstreams"),
        (2, 10, "aliases"),
        (3, 1, "sever"),
    ]
    assert len(report["warnings"]) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["check", "nowhere.yaml"], 1, "nowhere.yaml:1:1: cannot be read: no such file or directory"),
        (
            ["serve", "--config", "nowhere.yaml"],
            1,
            "nowhere.yaml:1:1: cannot be read: no such file or directory",
        ),
        (["serve"], 1, "no configuration: give --config PATH or $SLUICE_CONFIG (looked for "),
        (["healthcheck", "--url", "http://127.0.0.1:1/"], 1, "sluice: http://127.0.0.1:1/: "),
        (["healthcheck", "--url", "ftp://x"], 2, "--url: expected http:// or https://"),
        (["keys", "new", "--id", "a b"], 2, "--id: letters, digits"),
        (["check"], 1, "`sluice init` writes a first one"),
        (["check", "a.yaml", "--config", "b.yaml"], 2, "FILE and --config are the same"),
        (["serve", "a.yaml", "--config", "b.yaml"], 2, "FILE and --config are the same"),
        (["serve", "nowhere/a.yaml"], 1, "nowhere/a.yaml"),
        (
            ["status", "--config", "nowhere.yaml"],
            1,
            "nowhere.yaml:1:1: cannot be read: no such file or directory",
        ),
        (["chek"], 2, "No such command 'chek'"),
        (["init", "--provider", "openai", "--output", "no/g.yaml"], 1, "no/g.yaml: there is no folder no\n"),
    ],
)
def test_errors_are_lines_without_a_traceback(
    tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    done = sluice(*arguments, cwd=tmp_path)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_what_was_meant_by_a_name_or_some_that_there_are_is_said(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text(
        "upstreams: {e: {backend: echo}}\naliases:\n"
        + "".join(f"  chat-{number}: {{tiers: [[{{upstream: e, model: m}}]]}}\n" for number in range(30))
    )
    for alias, said in (("chat7", 'did you mean "chat-7"?\n'), ("zzz", " and 10 more\n")):
        done = sluice("explain", "--alias", alias, cwd=tmp_path)
        assert done.stderr.endswith(said)
        assert done.stderr.startswith(f"sluice: there is no alias {alias}; ")


def test_check_and_version_import_nothing_heavy(tmp_path: Path) -> None:
    """What makes them quick; the time itself is not asserted."""
    file = tmp_path / "bad.yaml"
    file.write_text("upstreams: {}\naliases: {}\n")
    for arguments in (["check", str(file)], ["version"], ["keys", "new"], ["config", "--help"]):
        program = f"""
import sys
sys.argv = ["sluice", *{arguments!r}]
from sluice.cli import main
try:
    main()
except SystemExit:
    pass
print("loaded:", [name for name in {HEAVY!r} if name in sys.modules])
"""
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False
        )
        assert done.stdout.endswith("loaded: []\n"), done.stderr


class _Health(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/livez" else 503)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def health() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Health) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_healthcheck_tells_well_from_unwell(health: str) -> None:
    well = sluice("healthcheck", "--url", f"{health}/livez", http_proxy="http://127.0.0.1:1")
    assert (well.returncode, well.stdout) == (0, f"{health}/livez: 200\n")
    unwell = sluice("healthcheck", "--url", f"{health}/readyz")
    assert unwell.returncode == 1
    assert "503" in unwell.stderr


# --- asking a running gateway


class Operated(BaseHTTPRequestHandler):
    """An admin port: its answers, by path; `asked` is what came."""

    answers: ClassVar[dict[str, tuple[int, object]]] = {}
    asked: ClassVar[list[tuple[str, str, str | None]]] = []

    def answer(self) -> None:
        self.asked.append((self.command, self.path, self.headers.get("x-admin-api-key")))
        status, body = self.answers[self.path]
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = answer

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def admin_port() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Operated)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    Operated.asked.clear()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


RELOADED = {"result": "ok", "hash": "abc", "seconds": 0.1, "problems": [], "warnings": ["gateway.yaml: odd"]}
BROKEN = {
    "result": "invalid",
    "hash": "abc",
    "seconds": 0.1,
    "problems": ["gateway.yaml:1:1: x: wrong"],
    "warnings": [],
}


@pytest.mark.parametrize(
    ("command", "answer", "code", "out", "err"),
    [
        ("reload", (200, RELOADED), 0, "reloaded: abc in 0.1 s\n", "warning: gateway.yaml: odd\n"),
        (
            "reload", (422, BROKEN), 1, "",
            "gateway.yaml:1:1: x: wrong\nsluice: not reloaded (invalid); what ran before runs on\n",
        ),
        ("restart", (202, {}), 0, "restarting; sluice status tells how far it is\n", ""),
        ("restart", (409, {"error": {"message": "There is one process"}}), 1, "", "sluice: There is one process\n"),
        ("drain", (202, {}), 0, "draining\n", ""),
        ("status", (200, {"pid": 1}), 0, '{\n  "pid": 1\n}\n', ""),
    ],
)  # fmt: skip
def test_commands_ask_a_running_gateway(
    admin_port: str, command: str, answer: tuple[int, object], code: int, out: str, err: str
) -> None:
    Operated.answers = {f"/admin/{command}": answer}
    done = sluice(command, "--url", admin_port, SLUICE_ADMIN_KEY="sk-admin")
    assert (done.returncode, done.stdout, done.stderr) == (code, out, err)
    assert Operated.asked == [("GET" if command == "status" else "POST", f"/admin/{command}", "sk-admin")]


@pytest.mark.parametrize("behind", [True, False])
def test_a_target_is_switched_wherever_the_url_stands(admin_port: str, behind: bool) -> None:
    Operated.answers = {"/admin/targets/openai/a/b/disable": (200, {"state": "disabled"})}
    url = ["--url", admin_port]
    command = (
        ["targets", "disable", "openai/a/b", *url] if behind else ["targets", *url, "disable", "openai/a/b"]
    )
    done = sluice(*command, SLUICE_ADMIN_KEY="sk-admin")
    assert (done.returncode, done.stdout) == (0, "openai/a/b: disabled\n"), done.stderr


def test_commands_say_in_one_line_why_they_cannot_ask(admin_port: str) -> None:
    Operated.answers = {"/admin/status": (401, {})}
    for url, key, why in [
        (admin_port, "", "set $SLUICE_ADMIN_KEY to the admin key (admin.digest is its digest)"),
        (admin_port, "wrong", f"{admin_port}: $SLUICE_ADMIN_KEY is not the admin key"),
        (
            "http://127.0.0.1:9",
            "k",
            "http://127.0.0.1:9: nobody listens there: is the gateway running, and is that its port?",
        ),
        ("ftp://x", "k", "ftp://x: expected http:// or https:// or unix:/path"),
    ]:
        done = sluice("status", "--url", url, SLUICE_ADMIN_KEY=key)
        assert (done.returncode, done.stdout, done.stderr) == (1, "", f"sluice: {why}\n")


def test_commands_ask_the_gateway_of_the_file_without_the_secrets_of_the_file(
    admin_port: str, tmp_path: Path
) -> None:
    Operated.answers = {"/admin/status": (200, {"draining": False})}
    port = admin_port.rpartition(":")[2]
    (tmp_path / "gateway.yaml").write_text(
        'upstreams: { a: { backend: openai, api_key: "${NOT_SET}" } }\nserver: { admin_listen: "127.0.0.1:${PORT}" }\n'
    )
    done = sluice("status", cwd=tmp_path, SLUICE_ADMIN_KEY="sk-admin", PORT=port)
    assert (done.returncode, json.loads(done.stdout)) == (0, {"draining": False})
    done = sluice("status", cwd=tmp_path, SLUICE_ADMIN_KEY="sk-admin")
    assert done.stderr.startswith(
        "gateway.yaml:2:25: server.admin_listen: environment variable PORT is not set"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "127.0.0.1:8081"), ("server: {}", "127.0.0.1:8081"), ("aliases: {chat: {}}", "127.0.0.1:8081"),
        ("server: {admin_listen: 'unix:/run/a'}", "unix:/run/a"), ("server: {admin_listen: ':${P:-9}'}", ":9"),
    ],
)  # fmt: skip
def test_the_admin_port_of_a_file_is_read_from_it_alone(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "g.yaml").write_text(text)
    assert admin_listen_of(str(tmp_path / "g.yaml"), {}) == expected


@pytest.mark.parametrize(
    "text", ["server: {admin_listen: 8081}", "server: {admin_listen: [a]}", "a: [", "\tb"]
)
def test_a_file_whose_admin_port_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "g.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"g\.yaml:[12]:"):
        admin_listen_of(str(tmp_path / "g.yaml"), {})


ZSH = """
compdef() {} # not within the line editor: what it would be given is printed
compadd() { print -rl -- $completions }
_describe() { print -rl -- $completions_with_descriptions }
eval "$(sluice completion zsh)"
words=(sluice re); CURRENT=2
_sluice_completion
"""
FISH = "sluice completion fish | source; complete -C 'sluice re'"
BASH = """
eval "$(sluice completion bash)"
COMP_WORDS=(sluice re); COMP_CWORD=1
_sluice_completion sluice; printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("shell", "script"), [(["bash", "-c"], BASH), (["zsh", "-fc"], ZSH), (["fish", "-c"], FISH)]
)
def test_completion_works_in_the_shell_itself(shell: list[str], script: str, tmp_path: Path) -> None:
    if shutil.which(shell[0]) is None:
        pytest.skip(f"{shell[0]} is not installed (apt-get install {shell[0]})")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [*shell, script],
        capture_output=True,
        text=True,
        env={"PATH": path, "HOME": str(tmp_path)},
        check=False,
    )
    offered = [line.replace("\t", ":").partition(":")[0] for line in done.stdout.split("\n") if line]
    assert offered == ["reload", "restart"], done.stderr


def test_check_reads_what_serve_would(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text("upstreams: {e: {backend: echo}}\naliases: {a: {tiers: [[{upstream: e, model: m}]]}}\n")
    for arguments in ([], ["--config", str(file)], [str(file)]):
        done = sluice("check", *arguments, cwd=tmp_path)
        assert (done.returncode, done.stdout.endswith("gateway.yaml: ok\n")) == (0, True), done.stderr


def test_the_help_has_every_command_once() -> None:
    named = [name for commands in SECTIONS.values() for name in commands]
    assert sorted(named) == sorted(cli.commands)
    told = sluice("--help").stdout
    for title, commands in SECTIONS.items():
        assert f"{title}:" in told
        for name, text in commands.items():
            assert re.search(rf"^  {name} +{re.escape(text)}$", told, re.MULTILINE), name  # on one line


def test_a_number_of_workers_that_is_none_is_refused() -> None:
    for given in ("0", "many", "-1", "99999", ""):
        done = sluice("serve", "--workers", given)
        assert (done.returncode, "expected a number from 1 to 1024, or auto" in done.stderr) == (2, True)


def test_a_diff_of_two_files_tells_what_a_reload_would_do(tmp_path: Path) -> None:
    text = "upstreams: {echo: {backend: echo}}\naliases: {NAME: {tiers: [[{upstream: echo, model: m}]]}}\n"
    for name in ("old", "new"):
        (tmp_path / f"{name}.yaml").write_text(text.replace("NAME", name))
    done = sluice("config", "diff", "old.yaml", "new.yaml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "- alias old\n+ alias new\n")
    found = json.loads(
        sluice("config", "diff", "--format", "json", "old.yaml", "new.yaml", cwd=tmp_path).stdout
    )
    assert [(one["sign"], one["what"]) for one in found] == [("-", "alias old"), ("+", "alias new")]

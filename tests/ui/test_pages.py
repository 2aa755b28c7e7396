"""The pages' routes on the admin port: files, signing in, and what a cookie is worth. No sockets."""

import base64
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sluice.config.types import Admin, AdminKey, Oidc, OidcRoles
from sluice.errors import RateLimited, Unauthorized
from sluice.identity.operators import Operator, Operators
from sluice.ui.sessions import IDLE, MAX_SESSION_SECONDS, Attempts, Owner, Sessions
from tests.api.serving import CONFIG, FakeRequest, Served, served

ADMIN = "sk-sluice-test"
WITH_UI = CONFIG.replace("admin: {digest: ", "admin: {ui: true, digest: ")


class Browser:
    """Keeps the cookie and the token that the gateway gives it."""

    def __init__(self, there: Served) -> None:
        self._there = there
        self.cookie = ""
        self.token = ""

    async def ask(self, method: str, path: str, body: object = None, **headers: str) -> FakeRequest:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.cookie:
            sent.setdefault("cookie", f"other=1; {self.cookie}")
        if self.token:
            sent.setdefault("x-sluice-csrf", self.token)
        request = FakeRequest(method, path, body, headers=sent, key="")
        await self._there.operators(request)
        if given := request.told.get("set-cookie"):
            self.cookie = given.partition(";")[0]
        if request.content_type == "application/json" and request.answer:
            self.token = request.json.get("token", self.token)
        return request

    async def sign_in(self, key: str = ADMIN, **headers: str) -> FakeRequest:
        return await self.ask("POST", "/ui/session", {"key": key}, **headers)


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    async with served(WITH_UI) as there:
        yield Browser(there)


async def test_without_the_option_there_are_no_pages_and_not_one_module_of_them() -> None:
    async with served() as there:
        for path in ("/ui/", "/ui/session", "/"):
            request = FakeRequest("GET", path)
            await there.operators(request)
            assert request.status == 404
        assert there.runtime.state.recent is None


def test_what_is_off_is_not_imported(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(CONFIG)
    script = (
        "import asyncio, io, sys\n"
        "from sluice.config.loader import load\n"
        "from sluice.process.serve import Gateway\n"
        "from sluice.telemetry.logs import LogLines\n"
        "async def main():\n"
        "    async with Gateway(load(sys.argv[1]), LogLines(io.BytesIO())): pass\n"
        "asyncio.run(main())\n"
        "off = ('sluice.ui', 'sluice.telemetry.recent', 'sluice.api.assets')\n"
        "print([name for name in sys.modules if name.startswith(off)])"
    )
    file.write_text(CONFIG + 'server: {listen: "127.0.0.1:0", admin_listen: "127.0.0.1:0"}\n')
    done = subprocess.run(
        [sys.executable, "-c", script, str(file)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


async def test_every_file_of_the_pages_is_served_with_a_strict_policy_and_revalidated() -> None:
    static = Path(__file__).parents[2] / "gateway/sluice/ui/static"
    names = [path.relative_to(static).as_posix() for path in static.rglob("*") if path.is_file()]
    assert "index.html" in names
    async with browser() as user:
        for name in names:
            first = await user.ask("GET", f"/ui/{name}")
            assert first.status == 200, name
            if name != "index.html":  # it names its files by the folder's hash
                assert first.answer == (static / name).read_bytes()
            assert "unsafe" not in first.told["content-security-policy"]
            assert first.told["cache-control"] == "no-cache"
            again = await user.ask("GET", f"/ui/{name}", if_none_match=f'"x", W/{first.told["etag"]}')
            assert (again.status, again.answer) == (304, b"")
        redirect = await user.ask("GET", "/")
        assert (redirect.status, redirect.told["location"]) == (302, "ui/")


async def test_pages_name_their_files_by_a_hash_and_browsers_may_keep_those() -> None:
    static = Path(__file__).parents[2] / "gateway/sluice/ui/static"
    async with browser() as user:
        page = (await user.ask("GET", "/ui/")).answer.decode()
        hashes = set(re.findall(r'(?:src|href)="([0-9a-f]{16})/', page))
        [version] = hashes
        assert re.sub(f'="{version}/', '="', page) == (static / "index.html").read_text()
        for name in ("app.js", "style.css", "pages/usage.js", "vendor/preact.js"):
            kept = await user.ask("GET", f"/ui/{version}/{name}")
            assert (kept.status, kept.answer) == (200, (static / name).read_bytes())
            assert kept.told["cache-control"] == "public, max-age=31536000, immutable"
            other = await user.ask("GET", f"/ui/{'0' * 16}/{name}")  # of a page of another version
            assert (other.answer, other.told["cache-control"]) == (kept.answer, "no-cache")
        for wrong in (version, f"{version}/", f"{version}/../routes.py", f"{version}/{version}/app.js"):
            assert (await user.ask("GET", f"/ui/{wrong}")).status == 404


@pytest.mark.parametrize(
    "path",
    ["../routes.py", "%2e%2e/routes.py", "..%2froutes.py", "vendor/../../routes.py", "vendor", "vendor/", "x.js", "%00.js",
     "/etc/passwd", "//etc/hosts.txt", "vendor%5c..%5c..%5croutes.txt", "index.html/x.js", "." * 50 + ".js"],
)  # fmt: skip
async def test_nothing_else_is(path: str) -> None:
    async with browser() as user:
        assert (await user.ask("GET", f"/ui/{path}")).status == 404


def test_pages_have_no_inline_code_and_nothing_from_elsewhere() -> None:
    gateway = Path(__file__).parents[2] / "gateway/sluice"
    for page in [*gateway.glob("ui/static/*.html"), *gateway.glob("embed/*.html")]:
        text = page.read_text()
        for forbidden in (
            "<style",
            " style=",
            "javascript:",
            " onclick",
            " onload",
            "http://",
            "https://",
            "//cdn",
        ):
            assert forbidden not in text, (page, forbidden)
        assert text.count("<script") == text.count("<script ")  # each has a src


async def test_signing_in_gives_a_cookie_that_no_script_and_no_other_site_has() -> None:
    async with browser() as user:
        assert (await user.ask("GET", "/ui/session")).json == {
            "signed_in": False,
            "possible": True,
            "oidc": None,
        }
        done = await user.sign_in()
        assert done.status == 200
        attributes = done.told["set-cookie"].split("; ")[1:]
        assert {"HttpOnly", "SameSite=Strict", "Path=/", f"Max-Age={IDLE}"} == set(attributes)
        assert ADMIN not in done.told["set-cookie"]
        assert (await user.ask("GET", "/admin/overview")).status == 200
        assert (await user.ask("GET", "/ui/session")).json["signed_in"]


async def test_a_cookie_stays_secure_when_it_is_renewed_behind_a_proxy_with_tls() -> None:
    async with browser() as user:
        over_tls = await user.sign_in(origin="https://ops.example.com")
        assert "Secure" in over_tls.told["set-cookie"].split("; ")
        for _ in range(2):  # by a GET, which has neither Origin nor, with our policy, a Referer
            renewed = await user.ask("GET", "/ui/session")
            assert "Secure" in renewed.told["set-cookie"].split("; ")
        left = await user.ask("DELETE", "/ui/session", origin="https://ops.example.com")
        assert {"Secure", "Max-Age=0"} <= set(left.told["set-cookie"].split("; "))
        in_the_clear = await user.sign_in(origin="http://127.0.0.1:8081")
        assert "Secure" not in in_the_clear.told["set-cookie"]


async def test_the_cookie_alone_is_worth_nothing() -> None:
    async with browser() as user:
        await user.sign_in()
        for token in ("", "x", "ü", user.token[:-1], user.token + "0"):
            assert (await user.ask("GET", "/admin/keys", x_sluice_csrf=token)).status == 401
            assert (await user.ask("POST", "/admin/keys", {"id": "evil"}, x_sluice_csrf=token)).status == 401
            played = await user.ask("POST", "/ui/play/v1/chat", {}, x_sluice_csrf=token, x_sluice_key="test")
            assert played.status == 401
        assert (await user.ask("GET", "/admin/keys")).status == 200


async def test_a_cookie_does_nothing_on_the_clients_port() -> None:
    async with served(WITH_UI) as there:
        user = Browser(there)
        await user.sign_in()
        request = FakeRequest(
            "GET", "/admin/keys", headers={"cookie": user.cookie, "x-sluice-csrf": user.token}, key=""
        )
        await there.clients(request)
        assert request.status == 401
        request = FakeRequest("GET", "/ui/")
        await there.clients(request)
        assert request.status == 404


async def test_signing_out_takes_the_cookie_away() -> None:
    async with browser() as user:
        await user.sign_in()
        assert "Max-Age=0" in (await user.ask("DELETE", "/ui/session")).told["set-cookie"]
        assert (await user.ask("GET", "/admin/overview")).status == 401


async def test_guessing_is_bounded_and_logged_without_what_was_guessed() -> None:
    async with served(WITH_UI) as there:
        user = Browser(there)
        for number in range(Attempts.MAX_FAILURES):
            assert (await user.sign_in(f"guess-{number}")).status == 401
        refused = await user.sign_in()
        assert refused.status == 429
        assert 0 < int(refused.told["retry-after"]) <= Attempts.WINDOW
        lines = [line for line in there.log if line["event"] == "ui_sign_in"]
        assert len(lines) == Attempts.MAX_FAILURES
        assert "guess" not in json.dumps(lines)


@pytest.mark.parametrize(
    "body", [{}, {"key": 1}, {"key": None}, {"key": "ü"}, {"key": "x" * 5000}, {"key": ["x"]}]
)
async def test_what_is_no_key_is_a_bad_request(body: Any) -> None:
    async with browser() as user:
        assert (await user.ask("POST", "/ui/session", body)).status == 400


async def test_another_site_cannot_sign_a_browser_in() -> None:
    """A form of another site can send this content type, and none that needs no preflight is taken."""
    async with browser() as user:
        for content_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
            assert (
                await user.ask("POST", "/ui/session", {"key": ADMIN}, content_type=content_type)
            ).status == 415


# the sessions themselves


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


KEY = Owner("key", "admin")


def sessions_of(
    clock: Clock,
    seed: bytes = b"seed",
    digest: str | None = "sha256:d",
    oidc: Oidc | None = None,
    keys: tuple[AdminKey, ...] = (),
) -> Sessions:
    return Sessions(seed, Operators(Admin(digest=digest, keys=keys)), oidc, clock)


def opened(sessions: Sessions, cookie: str) -> Any:
    return sessions.of([(b"Cookie", f"{sessions.cookie_name}={cookie}".encode())])


def test_a_session_ends_when_it_is_idle_and_some_day_in_any_case() -> None:
    clock = Clock()
    sessions = sessions_of(clock)
    session = sessions.begin(KEY)
    clock.now += IDLE - 1
    assert opened(sessions, session.cookie) == session
    clock.now += 1
    with pytest.raises(Unauthorized):
        opened(sessions, session.cookie)
    session = first = sessions.begin(KEY)
    for _ in range(MAX_SESSION_SECONDS // (IDLE // 2)):
        session = sessions.renewed(opened(sessions, session.cookie))
        assert session.token == first.token
        clock.now += IDLE // 2
    with pytest.raises(Unauthorized):
        opened(sessions, session.cookie)


def test_a_session_that_was_begun_by_a_clock_that_was_ahead_ends_when_that_is_set_right() -> None:
    clock = Clock()
    sessions = sessions_of(clock)
    clock.now += 40 * 86_400
    session = sessions.begin(KEY)
    assert opened(sessions, session.cookie)
    clock.now -= 40 * 86_400
    with pytest.raises(Unauthorized):
        opened(sessions, session.cookie)
    session = sessions.begin(KEY)
    clock.now -= 60
    assert opened(sessions, session.cookie)  # as clocks are set by the network


@pytest.mark.parametrize(
    "change",
    [
        lambda cookie: cookie[:-1],
        lambda cookie: cookie + "0",
        lambda cookie: "9" + cookie,
        lambda cookie: cookie.replace(".", "..", 1),
        lambda cookie: "",
        lambda cookie: "...",
        lambda cookie: "1.9999999999.x." + "0" * 64,
        lambda cookie: "²." + cookie,
        lambda cookie: "9" * 5000,
    ],
)
def test_a_changed_cookie_is_refused(change: Callable[[str], str]) -> None:
    sessions = sessions_of(Clock())
    with pytest.raises(Unauthorized):
        opened(sessions, change(sessions.begin(KEY).cookie))


def test_another_admin_key_or_another_start_ends_all_sessions() -> None:
    clock = Clock()
    cookie = sessions_of(clock).begin(KEY).cookie
    for other in (
        sessions_of(clock, digest="sha256:e"),
        sessions_of(clock, b"another"),
        sessions_of(clock, digest=None),
    ):
        with pytest.raises(Unauthorized):
            opened(other, cookie)
    assert opened(sessions_of(clock), cookie)


def test_the_role_of_a_key_is_the_one_that_the_configuration_has_now() -> None:
    clock = Clock()
    viewer, operator = (AdminKey(id="ops", digest="sha256:o", role=role) for role in ("viewer", "operator"))
    cookie = sessions_of(clock, keys=(operator,)).begin(Owner("key", "ops")).cookie
    assert opened(sessions_of(clock, keys=(viewer,)), cookie).operator == Operator("ops", "viewer")
    with pytest.raises(Unauthorized):
        opened(sessions_of(clock), cookie)


def test_a_cookie_cannot_be_made_another_owners() -> None:
    clock = Clock()
    oidc = Oidc(issuer="https://login.example.com", client_id="sluice", roles=OidcRoles(viewer=("staff",)))
    sessions = sessions_of(clock, oidc=oidc)
    cookie = sessions.begin(Owner("oidc", "somebody", "viewer")).cookie
    assert opened(sessions, cookie).operator == Operator("somebody", "viewer")
    begun, expires, nonce, _, mark = cookie.split(".")
    for owner in (
        ["oidc", "somebody", "operator"],
        ["key", "admin", "operator"],
        ["oidc", "x", "viewer"],
        ["root", "x"],
        {},
        1,
    ):
        forged = base64.urlsafe_b64encode(json.dumps(owner).encode()).decode().rstrip("=")
        with pytest.raises(Unauthorized):
            opened(sessions, f"{begun}.{expires}.{nonce}.{forged}.{mark}")
    other = msgspec.structs.replace(oidc, roles=OidcRoles(viewer=("others",)))
    with pytest.raises(Unauthorized):
        opened(sessions_of(clock, oidc=other), cookie)


def test_attempts_are_forgotten_and_one_address_does_not_hold_up_another() -> None:
    clock = Clock()
    attempts = Attempts(clock)
    for _ in range(Attempts.MAX_FAILURES):
        attempts.check("a")
        attempts.failed("a")
    with pytest.raises(RateLimited):
        attempts.check("a")
    attempts.check("b")
    clock.now += Attempts.WINDOW
    attempts.check("a")
    for number in range(Attempts.OVERALL):
        attempts.failed(str(number))
    with pytest.raises(RateLimited):
        attempts.check("c")


async def test_an_operator_may_choose_a_target_and_a_caller_may_not() -> None:
    two = WITH_UI.replace(
        "[[{upstream: echo, model: echo}]]",
        "[[{upstream: echo, model: echo}], [{upstream: echo, model: other}]]",
        1,
    )
    async with served(two) as there:
        user = Browser(there)
        await user.sign_in()
        body = {"model": "chat", "messages": [{"role": "user", "content": "hi"}]}
        for only, status, target in (
            ("", 200, "echo/echo"),
            ("echo/other", 200, "echo/other"),
            ("echo/none", 400, None),
        ):
            done = await user.ask(
                "POST", "/ui/play/v1/chat/completions", body, x_sluice_key="test", x_sluice_only=only
            )
            assert done.status == status
            assert (
                target is None or [line["target"] for line in there.log if line.get("target")][-1] == target
            )
        own = await there.ask("POST", "/v1/chat/completions", body, headers={"x-sluice-only": "echo/other"})
        assert own.status == 200
        assert [line["target"] for line in there.log if line.get("target")][-1] == "echo/echo"

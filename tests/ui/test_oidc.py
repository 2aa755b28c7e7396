"""Signing in by an OpenID provider: at a real one, and at one that lies. The gateway's side has no
sockets."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import jwt
import msgspec
import pytest

from sluice.config.types import Oidc
from sluice.identity.oidc import SIGN_IN_SECONDS, Flows, SignInFailed
from sluice.identity.provider import LIFE, PAUSE, Discovery
from sluice.ui.sessions import Attempts
from tests.api.serving import CONFIG, FakeRequest, Served, served
from tests.e2e.gateway_process import serving
from tests.ui.openid import OTHER_KEY, Hostile, certified, hostile, person
from tests.ui.test_pages import Clock

ORIGIN = "https://ops.example.com"
PAGE = f"{ORIGIN}/sluice/ui/"
CALLBACK = f"{PAGE}oidc/callback"


def config(issuer: str, more: str = "", roles: str = "{viewer: [staff], operator: [platform]}") -> str:
    oidc = f"oidc: {{issuer: '{issuer}', client_id: sluice, scopes: [openid, email, groups], roles: {roles}{more}}}"
    return CONFIG.replace("admin: {digest: ", f"admin: {{ui: true, {oidc}, digest: ")


class Visitor:
    """A browser with its cookies, as the gateway sees it."""

    def __init__(self, there: Served) -> None:
        self.there = there
        self.cookies: dict[str, str] = {}
        self.token = ""

    async def ask(self, method: str, path: str, body: object = None, **headers: str) -> FakeRequest:
        sent = {"origin": ORIGIN} if method != "GET" else {}
        if self.cookies:
            sent["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        if self.token:
            sent["x-sluice-csrf"] = self.token
        request = FakeRequest(method, path, body, headers={**sent, **headers}, key="")
        await self.there.operators(request)
        for given in request.told.getall("set-cookie", []):
            name, _, rest = given.partition("=")
            value = rest.partition(";")[0]
            self.cookies = (
                {**self.cookies, name: value}
                if value
                else {k: v for k, v in self.cookies.items() if k != name}
            )
        return request

    async def begin(self) -> str:
        """Where the gateway sends this browser."""
        begun = await self.ask("POST", "/ui/oidc", {"page": PAGE})
        assert begun.status == 200, begun.answer
        location: str = begun.json["location"]
        return location

    async def back(self, query: str) -> str:
        """Where the browser is led that comes back so: "" is to the pages, else the reason why not."""
        answer = await self.ask("GET", f"/ui/oidc/callback?{query}")
        assert (answer.status, answer.answer) == (302, b"")
        assert answer.told["cache-control"] == "no-store"
        assert answer.told["referrer-policy"] == "no-referrer"
        location = answer.told["location"]
        assert location == "../" or location.startswith("../#sign-in/")
        return location.removeprefix("../").removeprefix("#sign-in/")

    async def who(self) -> dict[str, Any]:
        found: dict[str, Any] = (await self.ask("GET", "/ui/session")).json
        self.token = found.get("token", "")
        return found


@asynccontextmanager
async def visited(idp: Hostile, more: str = "", **options: str) -> AsyncIterator[Visitor]:
    async with served(config(idp.url, more, **options)) as there:
        yield Visitor(there)


# at a real provider


@pytest.mark.parametrize(
    ("name", "role", "secret", "groups_in"),
    [
        ("olga", "operator", "", "id_token"),
        ("victor", "viewer", "s3cret with: % signs", "id_token"),
        ("victor", "viewer", "", "userinfo"),
        ("nobody", None, "", "id_token"),
    ],
)
async def test_people_sign_in_at_a_certified_provider(
    name: str, role: str | None, secret: str, groups_in: str
) -> None:
    async with certified(CALLBACK, secret=secret, groups_in=groups_in) as issuer:
        more = f", client_secret: '{secret}'" if secret else ""
        async with served(config(issuer, more)) as there:
            user = Visitor(there)
            assert (await user.who())["oidc"] == "127.0.0.1"
            came_back = await person(await user.begin(), name, CALLBACK)
            assert await user.back(urlsplit(came_back).query) == ("" if role else "role")
            found = await user.who()
            if role is None:
                assert not found["signed_in"]
                return
            assert (found["name"], found["role"]) == (f"{name}@example.com", role)
            made = await user.ask("POST", "/admin/keys", {"id": "made"})
            assert made.status == (201 if role == "operator" else 403)
            assert (await user.ask("GET", "/admin/keys")).status == 200
            again = Visitor(there)
            again.cookies = {k: v for k, v in user.cookies.items() if k.endswith("_oidc")}
            assert (
                await again.back(urlsplit(came_back).query) == "expired"
            )  # the ticket is gone with the first return
            left = await user.ask("DELETE", "/ui/session")
            assert left.json["leave"] == f"{issuer}/session/end?client_id=sluice"
            assert not (await user.who())["signed_in"]
            assert secret == "" or secret not in str(there.log)


# several replicas


SESSION_KEY = "c2x1aWNlIHRlc3RzOiAzMiBieXRlcyBmb3IgYSBrZXk="


def shared(text: str, key: str = SESSION_KEY) -> str:
    return text.replace("admin: {", f"admin: {{session_key: '{key}', ")


async def test_another_replica_may_finish_what_one_has_begun() -> None:
    async with certified(CALLBACK) as issuer:
        text = shared(config(issuer))
        async with served(text) as one, served(text) as two:
            user = Visitor(one)
            came_back = await person(await user.begin(), "olga", CALLBACK)
            user.there = two
            assert await user.back(urlsplit(came_back).query) == ""
            found = await user.who()
            assert (found["name"], found["role"]) == ("olga@example.com", "operator")
            user.there = one
            assert (await user.ask("POST", "/admin/keys", {"id": "made"})).status == 201
            assert (await user.who())["token"] == found["token"]
            user.there = two
            left = await user.ask("DELETE", "/ui/session")
            assert left.json["leave"] == f"{issuer}/session/end?client_id=sluice"
            user.there = one
            assert not (await user.who())["signed_in"]


async def test_without_a_common_key_each_replica_knows_its_own_sessions_alone() -> None:
    async with hostile() as idp:
        text = config(idp.url)
        async with served(text) as one, served(text) as two:
            user = Visitor(one)
            query = idp.authorize(await user.begin())
            user.there = two
            assert await user.back(query) == "expired"
            assert idp.asked == []


async def test_what_ends_sessions_ends_them_at_all_replicas() -> None:
    """Signing out takes the cookie from its browser; a copy of it is as good as before, for as long as it
    lives, until the session key or the provider's configuration is another one."""
    async with hostile() as idp:
        text = shared(config(idp.url))
        async with (
            served(text) as one,
            served(text) as two,
            served(shared(config(idp.url), "b3RoZXIgdGVzdHM6IDMyIGJ5dGVzIGZvciBhIGtleSE=")) as rekeyed,
            served(shared(config(idp.url, roles="{viewer: [others]}"))) as others,
        ):
            user, thief = Visitor(one), Visitor(two)
            assert await user.back(idp.authorize(await user.begin())) == ""
            thief.cookies = dict(user.cookies)
            await user.ask("DELETE", "/ui/session")
            assert not (await user.who())["signed_in"]
            assert (await thief.who())["signed_in"]
            for there in (rekeyed, others):
                thief.there = there
                assert not (await thief.who())["signed_in"]


async def test_a_session_of_an_admin_key_holds_at_all_replicas_and_over_restarts() -> None:
    text = shared(config("https://login.example.com"))
    user = None
    for _ in range(2):
        async with served(text) as there:
            if user is None:
                user = Visitor(there)
                assert (await user.ask("POST", "/ui/session", {"key": "sk-sluice-test"})).status == 200
            user.there = there
            assert (await user.who())["role"] == "operator"
            assert (await user.ask("GET", "/admin/keys")).status == 200


@pytest.mark.parametrize("workers", [1, 2])
async def test_replicas_with_workers_share_the_way_to_the_provider(workers: int) -> None:
    server = (
        "server: {listen: '127.0.0.1:${API_PORT}', admin_listen: '127.0.0.1:${ADMIN_PORT}', "
        f"drain_delay: 0s, workers: {workers}}}\n"
    )
    async with hostile() as idp, aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        text = server + shared(config(idp.url))
        with serving(text) as one, serving(text) as two:

            async def ask(at: str, method: str, path: str, cookie: str = "", body: object = None) -> Any:
                """By a connection of its own, which any worker may take."""
                headers = {"origin": ORIGIN, "cookie": cookie, "connection": "close"}
                async with session.request(
                    method, at + path, json=body, headers=headers, allow_redirects=False
                ) as answer:
                    cookies = {
                        name: value.value for name, value in answer.cookies.items() if value["max-age"] != "0"
                    }
                    found = await answer.json() if answer.content_type == "application/json" else None
                    cookie = "; ".join(f"{name}={value}" for name, value in cookies.items())
                    return answer.headers.get("location", ""), found, cookie

            for number in range(4 * workers):
                _, begun, ticket = await ask(one.admin, "POST", "/ui/oidc", body={"page": PAGE})
                query = idp.authorize(begun["location"], code=f"code-{number}")
                location, _, cookie = await ask(two.admin, "GET", f"/ui/oidc/callback?{query}", ticket)
                assert location == "../"
                for at in (one.admin, two.admin):
                    assert (await ask(at, "GET", "/ui/session", cookie))[1]["signed_in"]


# at one that does what the test wants


async def test_the_way_there_has_pkce_a_state_and_a_nonce_and_no_secret() -> None:
    async with hostile() as idp, visited(idp, ", client_secret: s3cret") as user:
        asked = {name: values[0] for name, values in parse_qs(urlsplit(await user.begin()).query).items()}
        assert asked["code_challenge_method"] == "S256"
        assert asked["redirect_uri"] == CALLBACK
        assert asked["scope"] == "openid email groups"
        assert len(asked["code_challenge"]) == len(asked["state"]) == len(asked["nonce"]) == 43
        again = {name: values[0] for name, values in parse_qs(urlsplit(await user.begin()).query).items()}
        assert all(asked[name] != again[name] for name in ("code_challenge", "state", "nonce"))
        cookie = next(value for name, value in user.cookies.items() if name.endswith("_oidc"))
        assert not any(again[name] in cookie for name in ("state", "nonce"))


async def test_the_tickets_cookie_comes_back_from_another_site_and_no_script_reads_it() -> None:
    async with hostile() as idp, visited(idp) as user:
        begun = await user.ask("POST", "/ui/oidc", {"page": PAGE})
        attributes = set(begun.told["set-cookie"].split("; ")[1:])
        assert attributes == {"HttpOnly", "SameSite=Lax", "Secure", "Path=/", "Max-Age=600"}


async def test_the_code_is_exchanged_with_the_verifier_and_the_clients_secret() -> None:
    async with hostile() as idp, visited(idp, ", client_secret: s3cret") as user:
        url = await user.begin()
        assert await user.back(idp.authorize(url)) == ""
        [(form, authorization)] = idp.asked
        assert authorization.startswith("Basic ")
        assert "s3cret" not in str(form)
        assert form["redirect_uri"] == CALLBACK
        assert 43 <= len(form["code_verifier"]) <= 128
        found = await user.who()
        assert (found["name"], found["role"]) == ("s-1", "viewer")
        given = [line for line in user.there.log if line["event"] == "ui_sign_in"]
        assert [(line["outcome"], line["by"], line["operator"]) for line in given] == [("ok", "oidc", "s-1")]


LIES: dict[str, dict[str, Any]] = {
    "another nonce": {"claims": {"nonce": "another"}},
    "no nonce": {"claims": {"nonce": None}},
    "another issuer": {"claims": {"iss": "https://evil.example.com"}},
    "another audience": {"claims": {"aud": "another"}},
    "several audiences, none named": {"claims": {"aud": ["sluice", "another"]}},
    "made for another": {"claims": {"aud": ["sluice", "another"], "azp": "another"}},
    "expired": {"claims": {"exp": 1_000_000}},
    "never expires": {"claims": {"exp": None}},
    "from the future": {"claims": {"iat": 4_000_000_000, "exp": 4_000_000_300}},
    "no subject": {"claims": {"sub": ""}},
    "a subject that is none": {"claims": {"sub": None}},
    "another key": {"key": OTHER_KEY},
    "an unknown key": {"header": {"kid": "k2"}},
    "HMAC with the client's secret": {"key": "s" * 64, "algorithm": "HS256"},
    "another algorithm": {"algorithm": "PS256"},
    "alg none": {"token": jwt.encode({"sub": "x", "iss": "x"}, None, "none")},
    "a critical extension": {"header": {"kid": "k1", "crit": ["x"], "x": 1}},
    "no JWT": {"token": "x.y"},
    "nothing": {"token": ""},
}


@pytest.mark.parametrize("lie", LIES)
async def test_an_id_token_that_lies_signs_nobody_in(lie: str) -> None:
    async with hostile() as idp, visited(idp) as user:
        for name, value in LIES[lie].items():
            setattr(idp, name, value)
        assert await user.back(idp.authorize(await user.begin())) == "token"
        assert not (await user.who())["signed_in"]
        [line] = [line for line in user.there.log if line["event"] == "ui_sign_in"]
        assert (line["outcome"], line["reason"]) == ("refused", "token")


async def test_a_state_of_another_browser_is_refused_before_the_provider_is_asked() -> None:
    """Otherwise somebody could have a victim signed in as himself, or use a code that he has got hold of."""
    async with hostile() as idp, served(config(idp.url)) as there:
        attacker, victim = Visitor(there), Visitor(there)
        query = idp.authorize(await attacker.begin())
        assert await victim.back(query) == "expired"  # has begun nothing
        await victim.begin()
        assert await victim.back(query) == "expired"  # has begun something else
        for state in ("", "x", "\u00fc", "A" * 43):
            assert await victim.back(f"code=code-1&state={state}") == "expired"
        assert idp.asked == []
        assert not (await victim.who())["signed_in"]
        assert await attacker.back(query) == ""


async def test_a_code_is_good_for_once() -> None:
    async with hostile() as idp, visited(idp) as user:
        query = idp.authorize(await user.begin())
        ticket = dict(user.cookies)
        assert await user.back(query) == ""
        replayed = Visitor(user.there)
        assert await replayed.back(query) == "expired"
        replayed.cookies = ticket  # whoever has copied the cookie, too, is refused by the provider
        assert await replayed.back(query) == "token"


async def test_nobody_is_led_to_another_place() -> None:
    async with hostile() as idp, visited(idp) as user:
        places = ("https://evil.example.com/ui/", f"{ORIGIN}.evil.example.com/ui/", f"{ORIGIN}@evil.example.com/ui/",
                  f"{ORIGIN}/ui/?x=/ui/", f"{ORIGIN}/ui/#/ui/", "//evil.example.com/ui/", "javascript:alert(1)//ui/",
                  f"{ORIGIN}/other", f"{ORIGIN}/\n/ui/", "", None, 1, ["x"], "x" * 3000)  # fmt: skip
        for place in places:
            assert (await user.ask("POST", "/ui/oidc", {"page": place})).status == 400, place
        for origin in ("https://evil.example.com", "null", ""):
            assert (await user.ask("POST", "/ui/oidc", {"page": PAGE}, origin=origin)).status == 400
        query = idp.authorize(
            await user.begin(), next="https%3A%2F%2Fevil.example.com", redirect="//evil.example.com"
        )
        assert await user.back(query) == ""


async def test_a_form_of_another_site_begins_nothing() -> None:
    async with hostile() as idp, visited(idp) as user:
        for content_type in ("text/plain", "application/x-www-form-urlencoded"):
            headers = {"content-type": content_type}
            assert (await user.ask("POST", "/ui/oidc", {"page": PAGE}, **headers)).status == 415


async def test_a_configured_address_is_the_only_one() -> None:
    async with (
        hostile() as idp,
        visited(idp, ", redirect_uri: 'https://pages.example.com/ui/oidc/callback'") as user,
    ):
        refused = await user.ask("POST", "/ui/oidc", {"page": PAGE})
        assert refused.status == 400
        assert "https://pages.example.com/ui/" in refused.answer.decode()
        begun = await user.ask(
            "POST", "/ui/oidc", {"page": "https://pages.example.com/ui/"}, origin="https://pages.example.com"
        )
        assert "pages.example.com%2Fui%2Foidc%2Fcallback" in begun.json["location"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("error=access_denied", "denied"),
        ("error=server_error&error_description=%3Cscript%3E", "provider"),
        ("", "provider"),
        ("code=", "provider"),
        ("code=unknown", "token"),
        ("code=code-1&iss=https%3A%2F%2Fevil.example.com", "provider"),
    ],
)
async def test_what_the_provider_refuses_is_said_in_our_words(query: str, expected: str) -> None:
    async with hostile() as idp, visited(idp) as user:
        url = await user.begin()
        idp.authorize(url)
        assert await user.back(f"{query}&state={parse_qs(urlsplit(url).query)['state'][0]}") == expected
        assert "script" not in str(user.there.log)


async def test_a_provider_that_names_itself_has_to_do_so_in_each_answer() -> None:
    async with hostile() as idp, visited(idp) as user:
        idp.metadata = {"authorization_response_iss_parameter_supported": True}
        assert await user.back(idp.authorize(await user.begin())) == "provider"
        assert await user.back(idp.authorize(await user.begin(), iss=idp.url)) == ""


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://evil.example.com"},
        {"token_endpoint": "http://evil.example.com/token"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"jwks_uri": None},
        {"token_endpoint": "ftp://x"},
    ],
)
async def test_metadata_that_cannot_be_believed_is_not_used(metadata: dict[str, Any]) -> None:
    async with hostile() as idp, visited(idp) as user:
        idp.metadata = metadata
        assert (await user.ask("POST", "/ui/oidc", {"page": PAGE})).status == 503


async def test_metadata_is_asked_for_once_by_many_and_again_when_it_is_old_or_had_failed() -> None:
    clock = Clock()
    async with hostile() as idp:
        discovery = Discovery(idp.url, clock)
        found = await asyncio.gather(*(discovery.metadata() for _ in range(5)))
        assert {one.issuer for one in found} == {idp.url}
        assert idp.discoveries == 1
        clock.now += LIFE
        idp.metadata = {"issuer": "https://evil.example.com"}
        refused = await asyncio.gather(*(discovery.metadata() for _ in range(5)), return_exceptions=True)
        assert all(isinstance(one, SignInFailed) for one in refused)
        assert idp.discoveries == 2
        clock.now += PAUSE
        idp.metadata = {}
        assert (await discovery.metadata()).issuer == idp.url
        assert idp.discoveries == 3


def test_an_attempt_that_takes_too_long_is_over() -> None:
    clock = Clock()
    oidc = Oidc(issuer="https://login.example.com", client_id="sluice")
    flow = Flows(b"seed", oidc, clock).begin(CALLBACK)
    clock.now += SIGN_IN_SECONDS - 1
    assert Flows(b"seed", oidc, clock).back(flow.ticket, flow.state) == flow  # any worker knows it
    for other in (
        Flows(b"another", oidc, clock),
        Flows(b"seed", msgspec.structs.replace(oidc, client_id="x"), clock),
    ):
        with pytest.raises(SignInFailed, match="forged_ticket"):
            other.back(flow.ticket, flow.state)
    clock.now += 1
    with pytest.raises(SignInFailed, match="late"):
        Flows(b"seed", oidc, clock).back(flow.ticket, flow.state)


async def test_a_provider_that_is_away_is_said_so_and_admin_keys_still_work() -> None:
    async with served(config("http://127.0.0.1:9")) as there:
        user = Visitor(there)
        refused = await user.ask("POST", "/ui/oidc", {"page": PAGE})
        assert refused.status == 503
        assert (await user.ask("POST", "/ui/session", {"key": "sk-sluice-test"})).status == 200


BY_GROUPS = "{claim: groups, viewer: [staff], operator: [platform]}"
IN_A_REALM = "{claim: realm_access.roles, viewer: [staff], operator: [platform]}"
BY_EMAIL = "{claim: email, operator: [a@x.example]}"
ROLES: list[tuple[str, dict[str, Any], str | None]] = [
    (BY_GROUPS, {"groups": ["platform"]}, "operator"),
    (BY_GROUPS, {"groups": "staff"}, "viewer"),
    (BY_GROUPS, {"groups": ["staff", 1, None, {}]}, "viewer"),
    (BY_GROUPS, {"groups": "staff platform"}, None),
    (BY_GROUPS, {"groups": {"staff": 1}}, None),
    (BY_GROUPS, {"groups": []}, None),
    (IN_A_REALM, {"realm_access": {"roles": ["platform"]}}, "operator"),
    ("{claim: 'https://x.example/roles', operator: [platform]}", {"https://x.example/roles": ["platform"]}, "operator"),
    (BY_EMAIL, {"email": "a@x.example", "email_verified": True}, "operator"),
    (BY_EMAIL, {"email": "a@x.example", "email_verified": "true"}, "operator"),
    (BY_EMAIL, {"email": "a@x.example", "email_verified": False}, None),
    (BY_EMAIL, {"email": "a@x.example", "email_verified": "false"}, None),
    (BY_EMAIL, {"email": "a@x.example", "email_verified": 1}, None),
    (BY_EMAIL, {"email": "a@x.example"}, None),
    ("{claim: email, viewer: ['*']}", {"email": "a@x.example"}, "viewer"),
    ("{viewer: ['*']}", {"groups": None}, "viewer"),
]  # fmt: skip


@pytest.mark.parametrize(("roles", "claims", "expected"), ROLES)
async def test_roles_follow_the_claim(roles: str, claims: dict[str, Any], expected: str | None) -> None:
    async with hostile() as idp, visited(idp, roles=roles) as user:
        idp.claims = claims
        assert await user.back(idp.authorize(await user.begin())) == ("" if expected else "role")
        assert (await user.who()).get("role") == expected


async def test_an_address_that_the_provider_has_not_verified_gives_no_role_and_the_log_says_so() -> None:
    async with hostile() as idp, visited(idp, roles=BY_EMAIL) as user:
        for claims, told, expected in (
            ({"email": "a@x.example"}, {}, "email_not_verified"),
            ({}, {"sub": "s-1", "email": "a@x.example"}, "email_not_verified"),
            (
                {"email_verified": False},
                {"sub": "s-1", "email": "a@x.example", "email_verified": True},
                "email_not_verified",
            ),
            ({}, {}, "no_role"),
        ):
            idp.claims, idp.userinfo = claims, told
            assert await user.back(idp.authorize(await user.begin())) == "role"
            last = [line for line in user.there.log if line["event"] == "ui_sign_in"][-1]
            assert (last["reason"], last["detail"]) == ("role", expected)


async def test_userinfo_counts_only_for_the_same_subject_and_where_the_id_token_is_silent() -> None:
    async with hostile() as idp, visited(idp) as user:
        for claims, told, expected in (
            ({"groups": None}, {"sub": "s-1", "groups": ["platform"]}, ""),
            ({"groups": None}, {"sub": "s-2", "groups": ["platform"]}, "role"),
            ({"groups": []}, {"sub": "s-1", "groups": ["platform"]}, "role"),
        ):
            idp.claims, idp.userinfo = claims, told
            assert await user.back(idp.authorize(await user.begin())) == expected


async def test_guessed_codes_close_signing_in_for_their_address() -> None:
    async with hostile() as idp, visited(idp) as user:
        for number in range(Attempts.MAX_FAILURES):
            idp.authorize(url := await user.begin())
            state = parse_qs(urlsplit(url).query)["state"][0]
            assert await user.back(f"code=guess-{number}&state={state}") == "token"
        assert (await user.ask("POST", "/ui/oidc", {"page": PAGE})).status == 429


@pytest.mark.parametrize("why", ["the provider is away", "the person cancels", "no role"])
async def test_what_is_no_guess_does_not_close_signing_in(why: str) -> None:
    async with hostile() as idp, visited(idp) as user:
        expected = {"the provider is away": "provider", "the person cancels": "denied", "no role": "role"}[
            why
        ]
        for _ in range(Attempts.MAX_FAILURES + 1):
            query = idp.authorize(await user.begin())
            if why == "the provider is away":
                idp.status = 503
            elif why == "the person cancels":
                query = query.replace("code=code-1", "error=access_denied")
            else:
                idp.claims = {"groups": []}
            assert await user.back(query) == expected
        assert (await user.ask("POST", "/ui/session", {"key": "sk-sluice-test"})).status == 200


async def test_signing_out_does_not_wait_for_the_provider() -> None:
    clock = Clock()
    async with hostile() as idp, visited(idp) as user:
        idp.metadata = {"end_session_endpoint": f"{idp.url}/end"}
        assert await user.back(idp.authorize(await user.begin())) == ""
        discovery = user.there.runtime.state.once(f"oidc {idp.url}", lambda: Discovery(idp.url, clock))
        known, asked = dict(user.cookies), idp.discoveries
        vars(discovery)["_clock"] = lambda: clock() + 2 * LIFE  # what is known of it is old by now
        left = await user.ask("DELETE", "/ui/session")
        assert left.json["leave"] == f"{idp.url}/end?client_id=sluice"
        assert idp.discoveries == asked
        vars(discovery)["_found"] = None  # as in a process that did not take part in signing in
        user.cookies = known
        left = await user.ask("DELETE", "/ui/session")
        assert (left.status, left.json["leave"]) == (200, "oidc/leave")
        assert idp.discoveries == asked
        for metadata, place in (
            ({"end_session_endpoint": f"{idp.url}/end"}, f"{idp.url}/end?client_id=sluice"),
            ({}, "../#sign-in/stay"),
            ({"issuer": "https://evil.example.com"}, "../#sign-in/stay"),
            ({"end_session_endpoint": "javascript:alert(1)"}, "../#sign-in/stay"),
        ):
            vars(discovery)["_found"] = vars(discovery)["_failed"] = None
            idp.metadata = metadata
            led = await user.ask("GET", "/ui/oidc/leave")
            assert (led.status, led.told["location"]) == (302, place)


async def test_other_sites_cannot_close_signing_in_for_a_browser() -> None:
    async with hostile() as idp, visited(idp) as user:
        for _ in range(Attempts.MAX_FAILURES * 2):
            assert await user.back("code=x&state=y") == "expired"
        assert await user.back(idp.authorize(await user.begin())) == ""


async def test_a_head_does_not_use_the_code_up() -> None:
    async with hostile() as idp, visited(idp) as user:
        query = idp.authorize(await user.begin())
        assert (await user.ask("HEAD", f"/ui/oidc/callback?{query}")).status == 405
        assert await user.back(query) == ""


async def test_nothing_secret_is_logged() -> None:
    async with hostile() as idp, visited(idp, ", client_secret: s3cret-of-the-client") as user:
        url = await user.begin()
        asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        assert await user.back(idp.authorize(url, code="the-code")) == ""
        text = str(user.there.log) + "".join(user.cookies.values())
        assert not any(
            word in text for word in ("s3cret-of", "the-code", asked["nonce"], asked["state"], "eyJhbGci")
        )


def test_without_it_nothing_of_it_is_imported(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(
        CONFIG.replace("admin: {", "admin: {ui: true, ")
        + 'server: {listen: "127.0.0.1:0", admin_listen: "127.0.0.1:0"}\n'
    )
    script = (
        "import asyncio, io, sys\n"
        "from sluice.config.loader import load\n"
        "from sluice.process.serve import Gateway\n"
        "from sluice.telemetry.logs import LogLines\n"
        "async def main():\n"
        "    async with Gateway(load(sys.argv[1]), LogLines(io.BytesIO())): pass\n"
        "asyncio.run(main())\n"
        "off = ('sluice.ui.oidc', 'sluice.identity.provider', 'sluice.identity.oidc', 'jwt', 'aiohttp')\n"
        "print([name for name in sys.modules if name.startswith(off)])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(file)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"

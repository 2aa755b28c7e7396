"""Browser tokens: what a key may mint, and what a token is worth when the key, the clock or a byte
changes."""

import base64
import hmac
import json
from typing import Any

import jwt
import msgspec
import pytest

from sluice.config.types import BrowserTokens as Settings
from sluice.config.types import Config, Issuer, Key, KeyLimits, Limit, Rate, Seconds, Secret
from sluice.errors import BadRequest, Forbidden, GatewayError, ModelNotFound, NotFound, Unauthorized
from sluice.identity import Authenticator
from sluice.identity.browser import GRACE, BrowserTokens, TokenRequest, is_browser_token, token_request
from sluice.identity.keys import digest_of
from sluice.identity.principal import Principal

NOW = 1_800_000_000.25
SECRET = "0123456789abcdef0123456789abcdef"
PAGE = "https://app.example.com"
LIMITS = KeyLimits(requests=Limit(rate=Rate(1)))
OWNER = Principal(
    "shop",
    "acme",
    "shop",
    frozenset({"chat", "code"}),
    default_alias="chat",
    limits=LIMITS,
    origins=(PAGE, "https://b.example"),
)


class Keys:
    """The keys that there are, by id."""

    def __init__(self, *owners: Principal) -> None:
        self.owners = {owner.key_id: owner for owner in owners}
        self.now = NOW
        self.tokens = BrowserTokens(
            Settings(secret=Secret(SECRET), longest=Seconds(900)),
            self.owners.get,
            ["chat", "code"],
            lambda: self.now,
        )

    def reason(self, token: str) -> str:
        with pytest.raises(Unauthorized) as refused:
            self.tokens.principal(token)
        return refused.value.reason


def with_owner(**changes: Any) -> Keys:
    return Keys(msgspec.structs.replace(OWNER, **changes))


def test_a_token_is_its_key_with_less_to_do() -> None:
    keys = Keys(OWNER)
    minted = keys.tokens.mint(OWNER, TokenRequest(PAGE, "code", "visitor-17:", 60))
    assert is_browser_token(minted.token)
    assert (minted.expires, minted.origin, minted.alias, minted.session_prefix) == (
        int(NOW) + 60,
        PAGE,
        "code",
        "visitor-17:",
    )
    page = keys.tokens.principal(minted.token)
    assert (page.key_id, page.tenant, page.bucket, page.limits) == ("shop", "acme", "shop", LIMITS)
    assert (page.kind, page.aliases, page.default_alias) == ("browser", {"code"}, "code")
    assert (page.origins, page.session_prefix) == ((PAGE,), "visitor-17:")


def test_any_jose_library_can_read_it() -> None:
    minted = Keys(OWNER).tokens.mint(OWNER, TokenRequest(PAGE))
    timeless = {"verify_exp": False, "verify_iat": False}
    claims = jwt.decode(
        minted.token, SECRET, ["HS256"], audience="sluice-browser", issuer="sluice", options=timeless
    )
    assert (claims["key"], claims["tenant"], claims["alias"], claims["origin"]) == (
        "shop",
        "acme",
        "chat",
        PAGE,
    )
    assert jwt.get_unverified_header(minted.token) == {"alg": "HS256", "typ": "sluice-browser+jwt"}


def test_without_more_words_a_token_has_the_keys_default_a_random_prefix_and_five_minutes() -> None:
    keys = Keys(OWNER)
    first, second = (keys.tokens.mint(OWNER, TokenRequest(PAGE)) for _ in range(2))
    assert (first.alias, first.expires) == ("chat", int(NOW) + 300)
    assert len(first.session_prefix) == 32
    assert int(first.session_prefix, 16) != int(second.session_prefix, 16)
    short = BrowserTokens(
        Settings(secret=Secret(SECRET), longest=Seconds(120)), keys.owners.get, ["chat"], lambda: NOW
    )
    assert short.mint(OWNER, TokenRequest(PAGE)).expires == int(NOW) + 120


REFUSED: list[tuple[str, dict[str, Any], TokenRequest, type[GatewayError], str | None]] = [
    ("a jwt", {"kind": "jwt"}, TokenRequest(PAGE), Forbidden, None),
    ("a page", {"kind": "browser"}, TokenRequest(PAGE), Forbidden, None),
    ("another origin", {}, TokenRequest("https://evil.example"), Forbidden, "origin"),
    ("an origin in upper case", {}, TokenRequest(PAGE.upper()), Forbidden, "origin"),
    ("an origin with a slash", {}, TokenRequest(PAGE + "/"), Forbidden, "origin"),
    ("the origin null", {}, TokenRequest("null"), Forbidden, "origin"),
    ("any origin", {}, TokenRequest("*"), Forbidden, "origin"),
    ("a key without origins", {"origins": ()}, TokenRequest(PAGE), Forbidden, "origin"),
    (
        "an alias of others",
        {"aliases": frozenset({"chat"})},
        TokenRequest(PAGE, "code"),
        ModelNotFound,
        "alias",
    ),
    (
        "an alias that is not there",
        {"aliases": frozenset({"*"})},
        TokenRequest(PAGE, "nope"),
        ModelNotFound,
        "alias",
    ),
    ("every alias", {"aliases": frozenset({"*"})}, TokenRequest(PAGE, "*"), ModelNotFound, "alias"),
    ("no alias and no default", {"default_alias": None}, TokenRequest(PAGE), BadRequest, "alias"),
    ("no time", {}, TokenRequest(PAGE, seconds=0), BadRequest, "seconds"),
    ("negative time", {}, TokenRequest(PAGE, seconds=-5), BadRequest, "seconds"),
    ("too long", {}, TokenRequest(PAGE, seconds=901), BadRequest, "seconds"),
    ("an empty prefix", {}, TokenRequest(PAGE, session_prefix=""), BadRequest, "sessionPrefix"),
    (
        "a prefix of another's",
        {},
        TokenRequest(PAGE, session_prefix="visitor-1"),
        BadRequest,
        "sessionPrefix",
    ),
    (
        "a prefix that is no session",
        {},
        TokenRequest(PAGE, session_prefix="a/b-"),
        BadRequest,
        "sessionPrefix",
    ),
    (
        "a prefix with a line break",
        {},
        TokenRequest(PAGE, session_prefix="ab-\n"),
        BadRequest,
        "sessionPrefix",
    ),
    (
        "a prefix that leaves no room",
        {},
        TokenRequest(PAGE, session_prefix="a" * 96 + "-"),
        BadRequest,
        "sessionPrefix",
    ),
]


@pytest.mark.parametrize(
    ("changes", "asked", "error", "param"), [pytest.param(*row[1:], id=row[0]) for row in REFUSED]
)
def test_refuses_to_mint(
    changes: dict[str, Any], asked: TokenRequest, error: type[GatewayError], param: str | None
) -> None:
    owner = msgspec.structs.replace(OWNER, **changes)
    with pytest.raises(error) as refused:
        Keys(owner).tokens.mint(owner, asked)
    assert refused.value.param == param


BODIES: list[tuple[str, dict[str, Any], str]] = [
    ("no origin", {}, "origin"),
    ("origin null", {"origin": None}, "origin"),
    ("origin a list", {"origin": [PAGE]}, "origin"),
    ("alias a number", {"origin": PAGE, "alias": 1}, "alias"),
    ("prefix a number", {"origin": PAGE, "sessionPrefix": 1}, "sessionPrefix"),
    ("seconds as text", {"origin": PAGE, "seconds": "60"}, "seconds"),
    ("seconds with a fraction", {"origin": PAGE, "seconds": 60.5}, "seconds"),
    ("seconds true", {"origin": PAGE, "seconds": True}, "seconds"),
    ("a typing error", {"origin": PAGE, "sessionprefix": "a-"}, "body"),
]


@pytest.mark.parametrize(("wire", "param"), [pytest.param(w, p, id=i) for i, w, p in BODIES])
def test_a_request_for_a_token_is_read_strictly(wire: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        token_request(wire)
    assert refused.value.param == param


def test_optional_fields_may_be_null() -> None:
    wire = {"origin": PAGE, "alias": None, "sessionPrefix": None, "seconds": None}
    assert token_request(wire) == TokenRequest(PAGE)


GONE: list[tuple[str, Principal | None]] = [
    ("removed, disabled or expired", None),
    ("of another tenant", msgspec.structs.replace(OWNER, tenant="other")),
    ("without that origin", msgspec.structs.replace(OWNER, origins=("https://b.example",))),
    ("without that alias", msgspec.structs.replace(OWNER, aliases=frozenset({"code"}))),
]


@pytest.mark.parametrize("owner", [pytest.param(o, id=i) for i, o in GONE])
def test_a_token_is_worth_what_its_key_is_worth_now(owner: Principal | None) -> None:
    keys = Keys(OWNER)
    token = keys.tokens.mint(OWNER, TokenRequest(PAGE)).token
    assert keys.tokens.principal(token).kind == "browser"
    keys.owners.clear()
    if owner is not None:
        keys.owners["shop"] = owner
    assert keys.reason(token) == "revoked"
    keys.owners["shop"] = msgspec.structs.replace(OWNER, limits=KeyLimits(streams=1))
    assert keys.tokens.principal(token).limits == KeyLimits(streams=1)


def test_an_alias_that_is_not_configured_any_more_is_gone_for_a_key_with_every_alias() -> None:
    owner = msgspec.structs.replace(OWNER, aliases=frozenset({"*"}))
    keys = Keys(owner)
    token = keys.tokens.mint(owner, TokenRequest(PAGE)).token
    other = BrowserTokens(Settings(secret=Secret(SECRET)), keys.owners.get, ["code"], lambda: NOW)
    with pytest.raises(Unauthorized):
        other.principal(token)


def test_a_token_ends_with_its_second() -> None:
    keys = Keys(OWNER)
    token = keys.tokens.mint(OWNER, TokenRequest(PAGE, seconds=1)).token
    keys.now = int(NOW) + 0.999
    keys.tokens.principal(token)
    keys.now = int(NOW) + 1
    assert keys.reason(token) == "expired"


def test_a_page_may_make_up_its_sessions_where_the_prefix_is_random_or_the_key_says_so() -> None:
    keys = Keys(OWNER)
    for asked, own in (
        (TokenRequest(PAGE), True),
        (TokenRequest(PAGE, own_sessions=False), False),
        (TokenRequest(PAGE, session_prefix="visitor-17:"), False),
        (TokenRequest(PAGE, session_prefix="visitor-17:", own_sessions=True), True),
    ):
        minted = keys.tokens.mint(OWNER, asked)
        page = keys.tokens.principal(minted.token)
        prefix = minted.session_prefix
        assert page.session(f"{prefix}a") == f"{prefix}a"
        for foreign in (
            "widget-1",
            "visitor-18:a",
            prefix[:-1],
            prefix.upper() + "x" if prefix.upper() != prefix else "y",
        ):
            assert page.session(foreign) == (f"{prefix}:{foreign}" if own else None)
    assert OWNER.session("anything") == "anything"


def test_no_session_of_one_token_is_ever_anothers() -> None:
    keys = Keys(OWNER)
    pages = [keys.tokens.principal(keys.tokens.mint(OWNER, TokenRequest(PAGE)).token) for _ in range(2)]
    mine, other = pages
    prefixes = mine.session_prefix, other.session_prefix
    asked = ["s", ":s", prefixes[0], *(f"{prefix}{rest}" for prefix in prefixes for rest in ("s", ":s"))]
    named = [{page.session(session) for session in asked} for page in pages]
    assert not named[0] & named[1]
    for page, sessions in zip(pages, named, strict=True):
        assert all(session and session.startswith(page.session_prefix) for session in sessions)


def test_a_renewed_token_is_the_same_for_longer() -> None:
    keys = Keys(OWNER)
    first = keys.tokens.mint(OWNER, TokenRequest(PAGE, "code", seconds=60))
    keys.now = NOW + 59
    second = keys.tokens.renew(first.token, PAGE)
    assert (second.expires, second.renewable_until) == (int(NOW) + 59 + 60, int(NOW) + 86_400)
    assert keys.tokens.principal(second.token) == keys.tokens.principal(first.token)
    keys.now = NOW + 70
    assert keys.reason(first.token) == "expired"
    keys.tokens.principal(second.token)


def test_a_page_that_slept_renews_within_a_grace_and_no_later() -> None:
    keys = Keys(OWNER)
    minted = keys.tokens.mint(OWNER, TokenRequest(PAGE, seconds=60))
    keys.now = int(NOW) + 60 + GRACE - 1
    assert keys.tokens.renew(minted.token, PAGE).expires == int(keys.now) + 60
    keys.now = int(NOW) + 60 + GRACE
    with pytest.raises(Unauthorized, match="credentials") as refused:
        keys.tokens.renew(minted.token, PAGE)
    assert refused.value.reason == "expired"


def test_a_line_of_tokens_ends_whatever_is_renewed() -> None:
    keys = Keys(OWNER)
    token = keys.tokens.mint(OWNER, TokenRequest(PAGE, seconds=900)).token
    for _ in range(143):
        keys.now += 600
        token = keys.tokens.renew(token, PAGE).token
    keys.now += 600
    with pytest.raises(Unauthorized) as refused:
        keys.tokens.renew(token, PAGE)
    assert refused.value.reason == "expired"
    assert keys.reason(token) == "expired"


def test_nothing_is_renewed_that_could_not_be_used() -> None:
    keys = Keys(OWNER)
    token = keys.tokens.mint(OWNER, TokenRequest(PAGE)).token
    for origin in ("https://b.example", "", "null", PAGE + "/", PAGE.upper()):
        with pytest.raises(Forbidden):
            keys.tokens.renew(token, origin)
    with pytest.raises(Unauthorized):
        keys.tokens.renew(token[:-2] + ("AA" if not token.endswith("AA") else "BB"), PAGE)
    for owner in (
        None,
        msgspec.structs.replace(OWNER, origins=()),
        msgspec.structs.replace(OWNER, aliases=frozenset()),
    ):
        keys.owners = {"shop": owner} if owner is not None else {}
        gone = BrowserTokens(Settings(secret=Secret(SECRET)), keys.owners.get, ["chat", "code"], lambda: NOW)
        with pytest.raises(Unauthorized) as refused:
            gone.renew(token, PAGE)
        assert refused.value.reason == "revoked"


def test_nothing_is_renewed_where_that_is_off() -> None:
    tokens = BrowserTokens(
        Settings(secret=Secret(SECRET), renewable=None), {"shop": OWNER}.get, ["chat"], lambda: NOW
    )
    minted = tokens.mint(OWNER, TokenRequest(PAGE))
    assert minted.renewable_until is None
    with pytest.raises(Unauthorized):
        tokens.renew(minted.token, PAGE)


def test_any_changed_character_is_refused() -> None:
    keys = Keys(OWNER)
    good = keys.tokens.mint(OWNER, TokenRequest(PAGE)).token
    for index in range(len(good)):
        for other in "A_.=":
            if good[index] != other:
                assert keys.reason(good[:index] + other + good[index + 1 :]) == "bad_signature"
    for bad in (
        good + "=",
        good + "\n",
        " " + good,
        good[:-1],
        good + ".",
        good.rpartition(".")[0] + ".",
        "",
    ):
        assert keys.reason(bad) == "bad_signature"


def signed(header: dict[str, Any], claims: bytes, secret: str = SECRET) -> str:
    pieces = [
        base64.urlsafe_b64encode(part).rstrip(b"=")
        for part in (json.dumps(header, separators=(",", ":")).encode(), claims)
    ]
    mac = base64.urlsafe_b64encode(hmac.digest(secret.encode(), b".".join(pieces), "sha256")).rstrip(b"=")
    return b".".join([*pieces, mac]).decode()


OURS = {"alg": "HS256", "typ": "sluice-browser+jwt"}
CLAIMS: dict[str, Any] = {
    "iss": "sluice", "aud": "sluice-browser", "exp": int(NOW) + 60, "iat": int(NOW), "key": "shop", "tenant": "acme",
    "origin": PAGE, "alias": "chat", "session": "a-",
}  # fmt: skip


def test_what_else_is_signed_by_the_secret_is_no_browser_token() -> None:
    keys = Keys(OWNER)
    good = json.dumps(CLAIMS).encode()
    assert keys.tokens.principal(signed(OURS, good)).session_prefix == "a-"
    for header in (
        {"alg": "HS256"},
        {"alg": "HS256", "typ": "JWT"},
        {"alg": "none"},
        {**OURS, "kid": "x"},
        {"typ": OURS["typ"]},
    ):
        assert keys.reason(signed(header, good)) == "bad_signature"
    assert keys.reason(signed(OURS, good, "another secret of at least 32 bytes")) == "bad_signature"
    for changes in (
        {"iss": "other"},
        {"aud": "sluice"},
        {"aud": ["sluice-browser"]},
        {"exp": str(int(NOW) + 60)},
        {"key": 1},
    ):
        assert keys.reason(signed(OURS, json.dumps({**CLAIMS, **changes}).encode())) == "bad_signature"
    for name in CLAIMS:
        without = {key: value for key, value in CLAIMS.items() if key != name}
        assert keys.reason(signed(OURS, json.dumps(without).encode())) == "bad_signature"
    for claims in (b"[]", b"x", b"\xff", b'{"x":' + b"[" * 2500):
        assert keys.reason(signed(OURS, claims)) == "bad_signature"


def config(**more: Any) -> Config:
    key = Key(
        id="shop", digest=digest_of("sk"), aliases=("chat",), origins=(PAGE,), expires="2027-01-15T08:00:10Z"
    )
    return Config(upstreams={}, aliases={"chat": None}, keys=(key,), **more)  # type: ignore[dict-item]


def test_the_authenticator_knows_them_in_any_header_and_looks_the_key_up() -> None:
    times = [NOW]
    issuer = Issuer(issuer="sluice", audience="sluice-browser", algorithms=("HS256",), secret=Secret(SECRET))
    settings = config(tokens=Settings(secret=Secret(SECRET)), jwt=(issuer,))
    authenticator = Authenticator(settings, lambda: times[0], names=["x-widget-api-key"])
    owner = authenticator.identify_now([(b"x-api-key", b"sk")])
    token = authenticator.mint(owner, TokenRequest(PAGE)).token
    for header in ((b"authorization", f"Bearer {token}".encode()), (b"x-widget-api-key", token.encode())):
        assert authenticator.identify_now([header]).kind == "browser"
    times[0] += 10  # the key has expired; the token has not
    with pytest.raises(Unauthorized) as refused:
        authenticator.identify_now([(b"authorization", f"Bearer {token}".encode())])
    assert refused.value.reason == "revoked"


def test_there_are_none_where_none_are_configured() -> None:
    authenticator = Authenticator(config(), lambda: NOW)
    with pytest.raises(NotFound):
        authenticator.mint(OWNER, TokenRequest(PAGE))
    token = Keys(OWNER).tokens.mint(OWNER, TokenRequest(PAGE)).token
    with pytest.raises(Unauthorized):
        authenticator.identify_now([(b"authorization", f"Bearer {token}".encode())])

"""Masks secrets, and addresses of internal networks, in providers' error messages.

A provider's message is shown to callers because it explains what is wrong with their request. It may contain
the gateway's own key, the account's number, a password in a proxy's address, or the address of a machine.
Each of these becomes "***"; ordinary words stay: "API key expired. Please renew the API key", "token limit
exceeded", "password is required". The rules, from the certain to the likely:

1. the upstream's own secrets, wherever they occur, also percent-encoded and in base64;

2. what is recognized by its form: PEM blocks, keys with a vendor's prefix, JWTs, credentials in a URL or
after "Bearer" and "Basic";

3. the value after a secret's name ("api_key=…", "password: …"), unless it is an ordinary word ("password:
required");

4. addresses in private networks, names that only exist there, and any host with a port;

5. long runs of letters and digits that look random.

Pure. Patterns are compiled at first use, because only errors are masked.
"""

import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterable
from urllib.parse import quote

MASK = "***"
MIN_SECRET_LENGTH = 5
"""Minimum characters of an own secret that is masked literally: a shorter one would also mask ordinary words.
"""

_PEM = re.compile(r"-----BEGIN [A-Z0-9 ]{1,40}-----.*?(?:-----END [A-Z0-9 ]{1,40}-----|\Z)", re.DOTALL)

_JWT = re.compile(r"\beyJ[\w-]{5,}(?:\.[\w-]+){0,4}")

_PREFIXED = re.compile(
    r"(?<![\w-])(?:"
    r"(?:gh[pousr]|github_pat|glpat|gldt|npm|pypi|hf|gsk|nvapi|dop_v1|shpat|shpss|r8|tvly(?:-dev)?|tskey|sbp|jina|vc[kp]"
    r"|tgp_v1|fw|lin_api|ntn|figd|dapi|whsec|dckr_pat|apify_api|lsv2_[ps][kt]|ph[cx]|e2b|PMAK)[_-](?=\w*[\dA-Z])[\w.-]{10,}"
    r"|(?:sk|pk|rk|ak|csk|sess|ark|xai|pplx|key|tok|secret)[-_](?=[\w*.-]{0,200}[\d*A-Z])[\w*-]{6,}(?:\.[\w*-]{6,})*"
    r"|xox[abeprsc]-[\w-]{6,}|xapp-[\w-]{10,}|xwfp-[\w-]{10,}"
    r"|(?:AKIA|ASIA|ABIA|ACCA|AROA|AIDA)[A-Z0-9]{12,}|LTAI[A-Za-z0-9]{12,}|sntry[su]_[\w=+/-]{16,}|dapi[0-9a-f]{32}(?:-\d)?"
    r"|AIza[\w-]{16,}|ya29\.[\w.-]{6,}|GOCSPX-[\w-]{10,}|1//0[\w-]{20,}|SG\.[\w-]{10,}\.[\w-]{10,}|AGE-SECRET-KEY-\w{10,}"
    r"|(?:org|proj|user|acct)[-_](?=\w*[\d*])[\w*]{6,}"
    r")"
)

_PREFIXED_RUN = re.compile(
    r"(?<![\w./-])[A-Za-z][A-Za-z0-9]{1,11}(?:[_-][A-Za-z][A-Za-z0-9]{0,9}){0,2}[_-]"
    r"(?P<run>[A-Za-z0-9]{16,400})(?:[._-][A-Za-z0-9]{4,400}){0,4}(?!\w)"
)
"""A key of a vendor that is not named above: a short word, then random letters and digits. Ids look the same.
"""
_IDS = re.compile(
    r"(?:req|request|resp|msg|chatcmpl|cmpl|run|trace|gen|cf|call|toolu|srvtoolu|mcptoolu|rs|item|ws|mcp|mcpl|mcpr|ctc|ig|ci"
    r"|vs|vsfs|conv|batch|msgbatch|file|thread|step|asst|ftjob|container|cntr|upload|evt|event|snapshot|video|prompt|pmpt"
    r"|skill|eval|fc(?=_))[-_]"
).match
"""Prefixes of ids of requests, answers and files, which callers need to see."""

_ACCOUNT_OF_AWS = re.compile(r"\b(arn:aws[\w-]{0,10}:[\w-]{1,40}:[\w-]{0,30}:)\d{12}(?=:)")
_HOOK = re.compile(r"(?i)\b(https://hooks\.slack\.com/(?:services|workflows|triggers)/)[\w/-]{8,200}")

_STARRED = re.compile(r"(?<![\w-])(?:[\w-]{1,64}\*{3,}[\w-]{0,64}|(?<!\*)\*{3,}+[\w-]{1,64})")
"""A value that a provider has masked in part: the rest of a key."""

_USERINFO = re.compile(r"(?i)\b([a-z][a-z0-9+.-]{0,30}://)[^\s/@\"'<>]{1,300}@")

_SCHEME = re.compile(
    r"(?i)\b(?:bearer|basic|apikey|token)[ :]\s*\"?(?:(?=[\w~+/-]*[\d_.=+/~][\w~+/-])[\w.~+/-]{6,}|\w{20,})={0,2}"
)

_NAMED = re.compile(
    r"(?i)(?<![a-z0-9])(?P<name>[\w.-]{0,24}?(?P<kind>"
    r"pass(?:word|wd|phrase|code)|pwd"
    r"|api[ _-]?key|access[ _-]?key(?:[_-]?id)?|secret(?:[ _-]?(?:access[_-]?)?key)?|client[ _-]?secret"
    r"|private[ _-]?key|account[_-]?key|shared[_-]?access[_-]?key"
    r"|subscription[_-]?key|(?:session|set-)?cookie|credentials?|authorization|signature|\bsig"
    r"|(?:api|access|auth|refresh|id|session|bearer|bot|csrf)?[_-]?token))"
    r"(?P<sign>\"?'?\s{0,3}(?:=>|=|:)\s{0,3}|\s(?:is|was)\s|\s(?=[\"'`]))(?P<quote>[\"'`]?)(?P<value>[^\s\"'`,;&<>(){}\[\]]{3,400})"
)
_KEY_GIVEN = re.compile(
    r"(?i)\b(?P<name>(?:api|access|secret|auth)[ _-]?(?:key|token)s?(?: \w{1,12}){0,2})"
    r"(?P<sign>\s?[:=]?\s?)(?P<quote>[\"'`(])(?P<value>[^\s\"'`)]{6,400})"
)
_KEY_BARE = re.compile(
    r"(?i)\b(?P<name>(?:api|access|secret)[ _-]?(?:key|token))(?P<sign>\s)(?P<quote>)"
    r"(?P<value>(?=[^\s]{0,40}\d)[A-Za-z0-9_-]{10,400})"
)
_KEY_AFTER_COLON = re.compile(
    r"(?i)\b(?P<name>(?:api|access|secret|auth)[ _-]?(?:key|token)s?(?: \w{1,12}){0,2}\s?:)"
    r"(?P<sign>\s?)(?P<quote>)(?P<value>[^\s\"'`,;]{6,400})"
)
_WORDS = """
absent allowed and are array authentication authorization authorized basic be bearer been blocked boolean can cannot check
denied deprecated disabled empty error exceeded expected expired failed failure false field fields for found given has have
inactive incorrect integer invalid is its length limit malformed mismatch missing must needed nil none not null number
object optional our please provided rejected required revoked see set should string that the this too true type
unauthorized undefined unexpected unknown unsupported use value values was with wrong you your
"""
_ORDINARY = frozenset(_WORDS.split())
"""Words that follow a secret's name in ordinary sentences."""

_HOST_END = r"(?::\d{1,5})?(?![\w-])"
_PRIVATE_V4 = (
    r"(?:10|127)(?:\.\d{1,3}){3}|169\.254(?:\.\d{1,3}){2}|192\.168(?:\.\d{1,3}){2}|172\.(?:1[6-9]|2\d|3[01])(?:\.\d{1,3}){2}"
    r"|100\.(?:6[4-9]|[7-9]\d|1[01]\d|12[0-7])(?:\.\d{1,3}){2}|0\.0\.0\.0"
)
_PRIVATE_V6 = (
    r"\[?(?:(?:f[cd][0-9a-f]{2}|fe[89ab][0-9a-f]):[0-9a-f:]{1,40}[0-9a-f.]{0,15}(?:%\w{1,16})?"
    r"|::1|(?:0{1,4}:){7}0{0,3}1)(?:\]|(?![\w:]))"
)
_INSIDE = (
    r"(?:[a-z0-9_-]{1,63}\.){1,10}(?:internal|local|localdomain|lan|corp|intranet|private|svc|localhost|home\.arpa|consul)"
    r"(?:\.[a-z0-9-]{1,63}){0,3}"
)
_SINGLE = r"[a-z0-9_-]{1,63}"
_HOST_SET = re.compile(r"(?i)\b(host(?:name)?\s?=\s?[\"']?)[a-z0-9_-]{1,63}(?![\w.-])")
_URL_INSIDE = re.compile(
    rf"(?i)\b(?:https?|wss?|grpcs?|tcp|redis|unix|postgres(?:ql)?|amqps?|mongodb)://(?:\*\*\*@)?"
    rf"(?:(?:{_PRIVATE_V4}|{_PRIVATE_V6}|{_INSIDE}|{_SINGLE}"
    rf"|\[[0-9a-f:.]{{2,45}}\])(?=[:/?#\s\"'<>),;]|$|\.(?:\s|$))|[\w.-]{{1,253}}(?=:\d))"
    r"[^\s\"'<>)]{0,500}"
)
_ADDRESS = re.compile(
    rf"(?i)(?<![\w.:-])(?:(?:::ffff:)?(?:{_PRIVATE_V4}){_HOST_END}|{_PRIVATE_V6}(?::\d{{1,5}})?|{_INSIDE}{_HOST_END}"
    r"|\d{1,3}(?:\.\d{1,3}){3}:\d{1,5}(?!\w)"
    r"|localhost(?::\d{1,5})?(?![\w-])"
    r"|(?:[a-z0-9-]{1,63}\.){1,10}[a-z]{2,63}:\d{2,5}(?!\w|\.\w)"
    r"|[a-z][a-z0-9]{0,40}[-_](?:[a-z0-9]{1,40}[-_]){0,8}[a-z0-9]{1,40}:\d{4,5}(?!\w|\.\w))"
)

_UUID = r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}"
_ACCOUNT = re.compile(
    rf"(?i)\b(team|account|organi[sz]ation|org|tenant|subscription|workspace|customer)( id)?(:? ){_UUID}"
)
_PROJECT = re.compile(
    r"(?i)\b(projects?(?:/|[ _](?:number|id)[:= ]+|:| ))(?=[\w-]*\d)[a-z0-9][a-z0-9-]{5,29}(?![\w-])"
)
_RUN = re.compile(r"[A-Za-z0-9+/_=-]{32,}")
_DOTTED = re.compile(r"\b[\w-]{20,200}\.[\w-]{4,200}\.[\w-]{20,400}")
_UUID_ALONE = re.compile(rf"(?i)(?:[a-z]{{2,12}}[-_])?{_UUID}\Z").match
_HEX = re.compile(r"(?i)(?:[a-z]{2,8}[-_])?(?=[0-9]*[a-f])(?=[a-f]*[0-9])[0-9a-f]{32,}\Z")
_CHANGES = re.compile(r"(?<=[a-z])[A-Z0-9]|(?<=[0-9])[A-Za-z]|(?<=[A-Z])[0-9]|(?<=[A-Z][A-Z])[a-z]")


def masked(text: str, secrets: Iterable[str] = ()) -> str:
    """Returns the text with MASK in place of what callers may not read. `secrets`: the upstream's own, masked
    literally."""
    for secret in secrets:
        if len(secret) >= MIN_SECRET_LENGTH:
            for form in forms_of(secret):
                text = text.replace(form, MASK)
    text = _PEM.sub(MASK, text)
    text = _USERINFO.sub(rf"\1{MASK}@", text)
    text = _SCHEME.sub(MASK, text)
    text = _JWT.sub(MASK, text)
    text = _PREFIXED.sub(MASK, text)
    text = _PREFIXED_RUN.sub(_unless_id, text)
    text = _ACCOUNT_OF_AWS.sub(rf"\1{MASK}", text)
    text = _HOOK.sub(rf"\1{MASK}", text)
    text = _NAMED.sub(_unless_ordinary, text)
    text = _KEY_GIVEN.sub(_if_random, text)
    text = _KEY_BARE.sub(_if_random, text)
    text = _KEY_AFTER_COLON.sub(_if_random, text)
    text = _STARRED.sub(MASK, text)
    text = _DOTTED.sub(_unless_words, text)
    text = _ACCOUNT.sub(rf"\1\2\3{MASK}", text)
    text = _PROJECT.sub(rf"\1{MASK}", text)
    text = _URL_INSIDE.sub(MASK, text)
    text = _HOST_SET.sub(rf"\1{MASK}", text)
    text = _ADDRESS.sub(MASK, text)
    return _RUN.sub(_unless_words, text)


def forms_of(secret: str) -> list[str]:
    """Returns the forms in which a secret may occur in a text; the longest first, so that none is found
    within another."""
    raw = secret.encode()
    forms = {secret, quote(secret, safe=""), quote(secret)}
    forms |= {encoded(raw).decode().rstrip("=") for encoded in (b64encode, urlsafe_b64encode)}
    return sorted(forms, key=len, reverse=True)


def _unless_ordinary(found: re.Match[str]) -> str:
    """Masks a value after a secret's name, unless it is a word of the sentence, or (of a "token") a small
    number."""
    value, kind = found["value"], found["kind"].lower()
    raw = value.strip(".!?:*")
    bare = raw.lower()
    if bare in _ORDINARY or not bare:
        return found[0]
    sign = found["sign"].strip().strip("\"'").strip()
    certain = sign in ("=", "=>") or (sign and found["quote"])
    if kind.endswith("token") or kind in (
        "authorization",
        "signature",
        "sig",
        "credential",
        "credentials",
        "secret",
    ):
        if not _looks_random(raw) and not (certain and len(bare) >= 12):
            return found[0]
    elif sign in ("is", "was") and not _looks_random(raw):
        return found[0]
    return f"{found['name']}{found['sign']}{found['quote']}{MASK}"


def _if_random(found: re.Match[str]) -> str:
    if not _looks_random(found["value"].strip(".!?*:")):
        return found[0]
    return f"{found['name']}{found['sign']}{found['quote']}{MASK}"


def _looks_random(text: str) -> bool:
    """Returns whether a text has letters and digits together, or more characters than most words."""
    if len(text) >= 8 and len(_CHANGES.findall(text)) >= 4:
        return True
    letters = any(c.isalpha() for c in text)
    digits = any(c.isdigit() for c in text)
    return (
        (letters and digits and len(text) >= 6)
        or (len(text) >= 24 and "/" not in text and not text.islower())
        or len(text) >= 40
    )


def _unless_id(found: re.Match[str]) -> str:
    run = found["run"]
    digits = sum([c.isdigit() for c in run])
    random = (digits >= 2 and len(_CHANGES.findall(run)) >= 5) or _HEX.match(run)
    return MASK if random and not _IDS(found[0]) and not _UUID_ALONE(found[0]) else found[0]


def _unless_words(found: re.Match[str]) -> str:
    run = found[0]
    if _UUID_ALONE(run) or _IDS(run):
        return run
    if _HEX.match(run) or len(_CHANGES.findall(run)) >= 7:
        return MASK
    return run

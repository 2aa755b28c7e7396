"""What a reload would change, told without secrets."""

from sluice.runtime.diff import differences
from tests.runtime.held import NEW, OLD, SERVER, key, loaded

CANARY = "sk-canary-secret"


def said(old: str, new: str) -> list[str]:
    return [str(difference) for difference in differences(loaded(old).config, loaded(new).config)]


def config(key_: str, upstreams: str, aliases: str, more: str = "") -> str:
    return f"{SERVER}keys: [{key_}]\nupstreams: {{{upstreams}}}\naliases: {{{aliases}}}\n{more}"


OLD_TEXT = config(
    f"{key('caller', OLD)}, {key('gone', NEW, ', origins: []')}",
    f'a: {{backend: openai, base_url: "http://x", api_key: {CANARY}-1}}, b: {{backend: echo}}',
    "chat: {tiers: [[{upstream: a, model: m}]], timeout: 5s}, old: {tiers: [[{upstream: b, model: m}]]}",
)
NEW_TEXT = config(
    f"{key('caller', 'sk-another-one')}, {key('fresh', NEW)}",
    f'a: {{backend: openai, base_url: "http://y", api_key: {CANARY}-2, max_connections: 7}}, c: {{backend: echo}}',
    "chat: {tiers: [[{upstream: a, model: n}]], timeout: 6s}, new: {tiers: [[{upstream: c, model: m}]]}",
    "prices: {header: true}\nstate: sqlite:x.db\n",
)


def test_everything_that_changes_is_told_once_and_no_secret_is() -> None:
    found = said(OLD_TEXT, NEW_TEXT)
    assert found == [
        "- upstream b",
        "~ upstream a: max_connections 1024 -> 7, base_url, api_key",
        "+ upstream c",
        "- alias old",
        "~ alias chat: tiers, timeout 5.0 -> 6.0",
        "+ alias new",
        "- key gone",
        "~ key caller: digest",
        "+ key fresh",
        "~ prices: header false -> true",
        "! state: only a restart can change it",
    ]
    assert not [line for line in found if CANARY in line or "sha256" in line or "sqlite" in line]


def test_nothing_is_told_of_a_file_that_says_the_same() -> None:
    assert said(OLD_TEXT, OLD_TEXT + "# a comment\n") == []

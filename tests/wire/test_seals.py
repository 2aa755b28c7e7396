"""Seals of every vendor as encrypted content of OpenAI's Responses API, and back."""

import pytest

from sluice.model.chat import Thought
from sluice.wire.seals import (
    BEDROCKS,
    GOOGLES,
    OPENAIS,
    call_signature,
    is_marked,
    openais,
    sealed,
    sealed_call,
    thought_of,
)


@pytest.mark.parametrize("signature", ["c2lnbmF0dXJl", GOOGLES + "x", BEDROCKS + "y", "with:colons:within"])
def test_a_signature_comes_back_as_it_was(signature: str) -> None:
    assert thought_of("rs_1", "because", sealed(signature)) == Thought("because", signature)


def test_redacted_reasoning_comes_back_without_a_text() -> None:
    assert thought_of("rs_1", "", sealed("", redacted="data")) == Thought(redacted="data")


def test_content_of_openais_own_keeps_its_id() -> None:
    thought = thought_of("rs_1", "because", "gAAAA:x")
    assert thought is not None
    assert openais(thought.signature) == ("rs_1", "gAAAA:x")
    assert openais("c2ln") is None


def test_a_calls_signature_is_no_thought() -> None:
    content = sealed_call("c2ln")
    assert call_signature(content) == "c2ln"
    assert thought_of("rs_1", "", content) is None
    assert call_signature(sealed("c2ln")) == ""


def test_nothing_is_sealed_as_nothing() -> None:
    assert sealed("") == ""
    assert thought_of("rs_1", "", "") is None


def test_only_anthropics_seals_have_no_mark() -> None:
    assert [is_marked(seal) for seal in (GOOGLES + "x", OPENAIS + "x", BEDROCKS + "x", "QUJD+/=")] == [
        True
    ] * 3 + [False]

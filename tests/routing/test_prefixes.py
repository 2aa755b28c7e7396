"""Prefixes of prompts: which server has probably cached how much of one."""

from random import Random

from sluice.model.chat import Tool
from sluice.routing.prefixes import BLOCK, BLOCKS, SeenPrefixes, blocks_of, root_of
from tests.routing.servers import LONG, chat


def test_equal_beginnings_have_equal_blocks() -> None:
    one, other = blocks_of(chat(LONG + "x"), "m"), blocks_of(chat(LONG + "y", "an answer", "z"), "m")
    same = sum(a == b for a, b in zip(one, other, strict=False))
    assert same == len(LONG) // BLOCK
    assert one[:same] == other[:same]
    assert not set(one) & set(blocks_of(chat(LONG + "x"), "another model"))
    assert not set(one) & set(blocks_of(chat(LONG + "x", tools=(Tool("look_up"),)), "m"))


def test_blocks_are_bounded_and_never_none() -> None:
    assert len(blocks_of(chat("x" * (BLOCK * BLOCKS * 3)), "m")) == BLOCKS
    assert len(blocks_of(chat("short"), "m")) == 1
    assert len(blocks_of(chat("\ud800" * 300), "m")) == 1


def test_a_conversation_keeps_its_root() -> None:
    first = root_of(chat("hello", system="be brief"), "m")
    assert root_of(chat("hello", "hi", "and now?", system="be brief"), "m") == first
    assert root_of(chat("hallo", system="be brief"), "m") != first


def test_seen_prefixes_are_bounded_and_forget_the_oldest_from_their_ends() -> None:
    seen = SeenPrefixes(5)
    one, two = [b"a1", b"a2", b"a3"], [b"b1", b"b2", b"b3"]
    seen.add(one)
    seen.add(two)
    assert len(seen) == 5
    assert (seen.matched(one), seen.matched(two)) == (2, 3)


class CountedBlock(bytes):
    """A block's digest that counts how often it was looked up."""

    looked_up = 0

    def __hash__(self) -> int:
        CountedBlock.looked_up += 1
        return super().__hash__()


def test_the_longest_prefix_is_found_without_a_look_at_each_block() -> None:
    blocks: list[bytes] = [CountedBlock(b"%d" % number) for number in range(BLOCKS)]
    seen = SeenPrefixes()
    for length in (0, 1, 100, 255, 256, BLOCKS):
        seen.add(blocks[:length])
        CountedBlock.looked_up = 0
        assert seen.matched(blocks) == length
        assert CountedBlock.looked_up <= 12


def test_a_block_is_forgotten_before_those_in_front_of_it() -> None:
    """Else the longest prefix could not be searched for in halves."""
    dice = Random(7)
    prompts = [[b"%d" % dice.randrange(3)] for _ in range(6)]
    for prompt in prompts:
        for _ in range(dice.randrange(12)):
            prompt.append(prompt[-1] + b"/%d" % dice.randrange(2))
    seen = SeenPrefixes(20)
    for _ in range(500):
        seen.add(dice.choice(prompts))
        for prompt in prompts:
            known = [block in seen._blocks for block in prompt]
            assert known == sorted(known, reverse=True)
            assert seen.matched(prompt) == sum(known)

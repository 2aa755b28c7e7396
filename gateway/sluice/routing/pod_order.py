"""Orders the servers of an upstream for a call: by their queues, or by whose cache has the prompt's
beginning. Pure.

`by_prefix` is consistent hashing with bounded loads (Mirrokni, Thorup and Zadimoghaddam 2018,
https://arxiv.org/abs/1608.01350) with a memory: rendezvous hashing of the conversation's beginning, which all
workers and gateways agree on without a word between them, and before that a server that this process has sent
most of the same prompt to. Neither holds for a server that has too much to do beside the others.
"""

import hashlib
from collections.abc import Callable, Sequence

from sluice.model.chat import ChatRequest
from sluice.routing.pods import Chance, Depth, Pod, PodChoice, depths
from sluice.routing.prefixes import blocks_of, root_of

MATCH = 0.5
"""The share of a prompt's blocks from which on the server that has seen them is asked: a system prompt that
all calls have in common is not to bring all of them to one server."""
BALANCE = 1.5
"""How much more than the average a server may have to do before calls leave it, though it has their
prefix."""
FREE = 8
"""Requests of a server that are never too many, while none waits."""

Order = list[int]


def by_queue(pods: Sequence[Pod], chance: Chance, choice: PodChoice | None = None) -> Order:
    """The places of the servers, the shortest queue first; equal ones in random order."""
    found = depths(pods)
    order = sorted(range(len(pods)), key=_queue(found, chance))
    if choice is not None:
        choice.how = "queue" if found[order[0]].fresh else "in_flight"
    return order


def by_prefix(
    pods: Sequence[Pod],
    ready: Callable[[int], bool],
    chat: ChatRequest,
    *,
    model: str,
    session: str = "",
    chance: Chance,
    choice: PodChoice | None = None,
) -> Order:
    """The places of the servers, the one that has probably cached the most of the prompt first.

    The first one of the order that is `ready` is expected to be asked, and remembers the prompt. `session`:
    what the caller calls the conversation, in place of its beginning.
    """
    found = depths(pods)
    blocks = blocks_of(chat, model)
    key = session.encode("utf-8", "replace") if session else root_of(chat, model)
    any_fresh = any(depth.fresh for depth in found)
    usable = [depth.fresh or not any_fresh for depth in found]
    full = _overloaded([depth for depth, ok in zip(found, usable, strict=True) if ok])
    matched = [pod.seen.matched(blocks) for pod in pods]
    useful = [number if number >= MATCH * len(blocks) else 0 for number in matched]
    ranks = [_rank(key, pod.address) for pod in pods]
    queue = _queue(found, chance)
    places = range(len(pods))

    def hashed(at: int) -> tuple[float, bytes]:
        return -useful[at], ranks[at]

    wanted = min((at for at in places if usable[at]), key=hashed)
    within = sorted((at for at in places if usable[at] and not full(found[at])), key=hashed)
    order = within + sorted((at for at in places if not usable[at] or full(found[at])), key=queue)
    first = next((at for at in order if ready(at)), order[0])
    pods[first].seen.add(blocks)
    if choice is not None:
        choice.how = "load" if first != wanted else "prefix" if useful[first] else "hash"
        choice.matched, choice.blocks = matched[first], len(blocks)
    return order


def _queue(
    found: Sequence[Depth], chance: Chance
) -> Callable[[int], tuple[bool, float, float, float, float]]:
    def key(at: int) -> tuple[bool, float, float, float, float]:
        depth = found[at]
        return not depth.fresh, depth.waiting, depth.running, round(depth.cache, 1), chance()

    return key


def _overloaded(found: Sequence[Depth]) -> Callable[[Depth], bool]:
    """Returns a test for whether a server has so much more to do than the average of these that a cached
    prefix is not worth the wait."""
    if len(found) < 2:
        return lambda depth: False
    load = max(float(FREE), BALANCE * sum(depth.all for depth in found) / len(found))
    waiting = max(1.0, BALANCE * sum(depth.waiting for depth in found) / len(found))
    return lambda depth: depth.waiting > waiting or depth.all > load


def _rank(key: bytes, address: str) -> bytes:
    """Rendezvous hashing: a key keeps its server when others appear or vanish."""
    return hashlib.blake2b(key + b"\0" + address.encode(), digest_size=8).digest()

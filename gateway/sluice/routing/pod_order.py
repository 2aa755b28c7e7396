"""Orders the servers of an upstream for a call: by their queues, or by whose cache has the prompt's
beginning. Pure.

`by_prefix` is consistent hashing with bounded loads (Mirrokni, Thorup and Zadimoghaddam 2018,
https://arxiv.org/abs/1608.01350), with a memory. Rendezvous hashing of the conversation's beginning gives the
same server in all workers and gateways without any communication. Before that, a server is preferred to which
this process has sent most of the same prompt. A server that has much more to do than the others is passed
over in both cases.
"""

import hashlib
from collections.abc import Callable, Sequence

from sluice.model.chat import ChatRequest
from sluice.routing.pods import Chance, Depth, Pod, PodChoice, depths
from sluice.routing.prefixes import blocks_of, root_of

MATCH = 0.5
"""The share of a prompt's blocks that a server must have seen to be preferred. Less may be only a system
prompt that all calls have in common, which must not bring all of them to one server."""
BALANCE = 1.5
"""How many times the average load a server may have before calls for its prefix go elsewhere."""
FREE = 8
"""Number of a server's requests that is never too many, as long as none waits."""

Order = list[int]


def by_queue(pods: Sequence[Pod], chance: Chance, choice: PodChoice | None = None) -> Order:
    """Returns the indexes of the servers, the shortest queue first; equal ones in random order."""
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
    """Returns the indexes of the servers, first the one that has probably cached the most of the prompt.

    The first one that is `ready` is expected to be asked, and remembers the prompt. `session`: the caller's
    name of the conversation, which is used in place of its beginning.
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
    """Returns a function that says whether a server is so much busier than the average of these that a cached
    prefix is not worth the wait."""
    if len(found) < 2:
        return lambda depth: False
    load = max(float(FREE), BALANCE * sum(depth.all for depth in found) / len(found))
    waiting = max(1.0, BALANCE * sum(depth.waiting for depth in found) / len(found))
    return lambda depth: depth.waiting > waiting or depth.all > load


def _rank(key: bytes, address: str) -> bytes:
    """Returns the rank of a server for a key (rendezvous hashing): a key keeps its server when others come or
    go."""
    return hashlib.blake2b(key + b"\0" + address.encode(), digest_size=8).digest()

"""What only the store in a file that processes share has to do: survive deaths at any moment, wait for
nobody, and forget."""

import asyncio
import fcntl
import os
import signal
import stat
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import lmdb
import msgspec
import pytest

from sluice.limits import Claim, Limit, Slot
from sluice.limits.faults import BucketStoreFailed
from sluice.limits.shared import SharedStore
from sluice.limits.table import HEADER
from tests.limits.stores import EPOCH, Lab

ROOT = Path(__file__).parents[2]
FULL = os.environ.get("SLUICE_FULL") == "1"
T = TypeVar("T")


class SharedLab(Lab):
    def __init__(self, path: Path, **options: Any) -> None:
        self.steps = EPOCH
        self.path = path
        self.options = options
        self.store = self.another()

    def another(self) -> SharedStore:
        """A second process's view of the same file."""
        return SharedStore(
            self.path, clock=lambda: self.steps / 64, wall=lambda: self.steps / 64, **self.options
        )


@asynccontextmanager
async def shared_lab(**options: Any) -> AsyncIterator[SharedLab]:
    with TemporaryDirectory() as folder:
        opened = SharedLab(Path(folder) / "limits", **options)
        try:
            yield opened
        finally:
            await opened.store.close()


@pytest.fixture
async def at() -> AsyncIterator[SharedLab]:
    async with shared_lab() as opened:
        yield opened


HOUR = Limit(capacity=10, rate=1 / 3600)
NOW = Slot("k", 2, "holder")


def level_of(store: SharedStore, *keys: str) -> list[float]:
    verdict = done(store.take([Claim(key, HOUR, 0) for key in keys]))
    return [level.remaining for level in verdict.levels]


def done(call: Coroutine[Any, Any, T]) -> T:
    """What a call answers that does not suspend."""
    try:
        call.send(None)
    except StopIteration as stop:
        answer: T = stop.value
        return answer
    raise AssertionError("it waits")


# --- one file, several processes


async def test_processes_share_buckets_and_slots(at: SharedLab) -> None:
    other = at.another()
    assert [(await store.take([Claim("k", HOUR, 6)])).admitted for store in (at.store, other)] == [
        True,
        False,
    ]
    assert (await at.store.take([], [Slot("k", 1, "a")])).admitted
    assert not (await other.take([], [Slot("k", 1, "b")])).admitted
    await other.settle([], [Slot("k", 1, "a")])
    assert (await other.take([], [Slot("k", 1, "b")])).admitted
    await other.close()


async def test_levels_outlive_the_processes(at: SharedLab) -> None:
    await at.store.take([Claim("k", HOUR, 6)])
    await at.store.close()
    at.store = at.another()
    assert level_of(at.store, "k") == [4]


def test_the_file_is_its_users_alone(tmp_path: Path) -> None:
    SharedStore(tmp_path / "limits")
    assert stat.S_IMODE((tmp_path / "limits").stat().st_mode) == 0o600


def test_no_foreign_file_is_touched(tmp_path: Path) -> None:
    for number, content in enumerate([b"precious", b"x", b"sluicelx" + bytes(100)]):
        path = tmp_path / str(number)
        path.write_bytes(content)
        with pytest.raises(OSError, match="not a table of limits"):
            SharedStore(path)
        assert path.read_bytes() == content
    with pytest.raises(OSError, match="not a file of this user's"):
        SharedStore("/dev/null")
    with pytest.raises(OSError, match="directory"):
        SharedStore(tmp_path)


def test_no_other_database_of_lmdb_is_touched(tmp_path: Path) -> None:
    with lmdb.open(f"{tmp_path}/other", 1 << 20, subdir=False) as other, other.begin(write=True) as txn:
        txn.put(b"precious", b"1")
    content = (tmp_path / "other").read_bytes()
    with pytest.raises(OSError, match="not a table of limits"):
        SharedStore(tmp_path / "other")
    assert (tmp_path / "other").read_bytes() == content


@pytest.mark.parametrize("at_byte", [0, 1], ids=["version", "boot"])
def test_a_file_of_another_boot_or_version_is_begun_anew_unless_it_is_in_use(
    tmp_path: Path, at_byte: int
) -> None:
    path = tmp_path / "limits"
    store = SharedStore(path)
    done(store.take([Claim("k", HOUR, 6)]))
    with store._table.env.begin(write=True) as txn:
        stamp = bytearray(txn.get(HEADER) or b"")
        stamp[at_byte] ^= 0xFF
        txn.put(HEADER, stamp)
    with pytest.raises(OSError, match="in use"):
        SharedStore(path)
    done(store.close())
    assert level_of(SharedStore(path), "k") == [10]


def test_a_file_of_before_lmdb_is_begun_anew_unless_it_is_in_use(tmp_path: Path) -> None:
    path = tmp_path / "limits"
    path.write_bytes(b"sluicelb" + bytes(10_000))
    with path.open("r+b") as file:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 7, 1, 0))
        with pytest.raises(OSError, match="in use"):
            SharedStore(path)
    assert level_of(SharedStore(path), "k") == [10]


def test_a_file_that_was_being_begun_when_its_process_died_is_begun(tmp_path: Path) -> None:
    for size in (0, 10, 100_000):
        path = tmp_path / str(size)
        path.write_bytes(bytes(size))
        assert level_of(SharedStore(path), "k") == [10]


@pytest.mark.parametrize(
    "claims", [[Claim("a", HOUR)], [Claim("a", HOUR), Claim("b", HOUR)], [Claim("a", HOUR, 99)], []]
)
def test_a_take_does_not_suspend_where_nobody_holds_the_lock(tmp_path: Path, claims: list[Claim]) -> None:
    done(SharedStore(tmp_path / "limits").take(claims, [NOW]))


# --- slots


async def test_slots_are_all_or_none_with_the_claims(at: SharedLab) -> None:
    assert (await at.store.take([Claim("k", HOUR, 4)], [NOW])).levels[1].remaining == 1
    full = [Slot("full", 1, "x")]
    await at.store.take([], full)
    verdict = await at.store.take([Claim("k", HOUR, 4)], [Slot("k", 2, "other"), Slot("full", 1, "y")])
    assert (verdict.admitted, verdict.denied, verdict.retry_after) == (False, 2, 1.0)
    assert [level.remaining for level in verdict.levels] == [6, 1, 0]
    verdict = await at.store.take([Claim("k", HOUR, 9)], [Slot("k", 2, "other")])
    assert (verdict.admitted, verdict.denied) == (False, 0)
    assert [level.remaining for level in verdict.levels] == [6, 1]


async def test_a_holder_holds_one_place_however_often_it_asks(at: SharedLab) -> None:
    assert (await at.store.take([], [NOW, NOW])).levels[0].remaining == 1
    assert (await at.store.take([], [NOW])).levels[0].remaining == 1
    await at.store.settle([], [NOW, NOW])
    await at.store.settle([], [NOW])
    assert (await at.store.take([], [Slot("k", 2, "a"), Slot("k", 2, "b")])).admitted


async def test_a_place_is_lost_when_its_lease_ends_and_kept_while_it_is_renewed(at: SharedLab) -> None:
    await at.store.take([], [NOW])
    await at.store.take([], [kept := Slot("k", 2, "kept")])
    for _ in range(2):
        at.advance(20)
        await at.store.renew([kept])
    await at.store.renew([NOW])  # too late
    assert (await at.store.take([], [Slot("k", 2, "a")])).levels[0].remaining == 0
    assert not (await at.store.take([], [Slot("k", 2, "b")])).admitted
    await at.store.settle([], [NOW])
    assert not (await at.store.take([], [Slot("k", 2, "b")])).admitted


async def test_thousands_of_leases_end_together(at: SharedLab) -> None:
    slots = [Slot(f"k{number % 7}", 1000, str(number)) for number in range(3000)]
    for slot in slots:
        await at.store.take([], [slot])
    at.advance(20)
    await at.store.renew(slots[:1000])
    at.advance(20)
    levels = [
        (await at.store.take([], [Slot(f"k{key}", 1000, "new")])).levels[0].remaining for key in range(7)
    ]
    assert sum(levels) == 7 * 999 - 1000
    at.advance(30)
    assert (await at.store.take([], [Slot("k0", 1, "only")])).admitted


def test_a_killed_processs_places_are_free_at_once_and_a_stopped_ones_when_its_lease_ends(
    tmp_path: Path,
) -> None:
    path, ahead = tmp_path / "limits", 0.0
    store = SharedStore(path, clock=lambda: time.monotonic() + ahead)
    wanted = Slot("k", 1, "a")
    with holder(path, "place") as dying:
        dying.send_signal(signal.SIGSTOP)
        assert not done(store.take([], [wanted])).admitted
        dying.kill()
        dying.wait()
        ahead = 0.2  # it does not look at every call
        assert done(store.take([], [wanted])).admitted
        done(store.settle([], [wanted]))
    with holder(path, "place") as hanging:
        hanging.send_signal(signal.SIGSTOP)
        ahead = 20
        assert not done(store.take([], [wanted])).admitted
        ahead = 31
        assert done(store.take([], [wanted])).admitted


# --- what dies, what stops


class Dying:
    """An environment, or a transaction of it, that fails at its `left`th write or commit: it is then aborted,
    as by a death."""

    def __init__(self, of: Any, left: list[int]) -> None:
        self._of = of
        self._left = left

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            if name in ("put", "replace", "pop", "delete"):
                self._count()
            answer = getattr(self._of, name)(*arguments, **options)
            return Dying(answer, self._left) if name == "begin" and options.get("write") else answer

        return call

    def _count(self) -> None:
        self._left[0] -= 1
        if not self._left[0]:
            raise MemoryError("dead")

    def __enter__(self) -> "Dying":
        self._of.__enter__()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            if kind is None:
                self._count()
        except MemoryError as died:
            self._of.__exit__(MemoryError, died, None)
            raise
        self._of.__exit__(kind, error, trace)


KEYS = "abc"
USED = [Claim(key, HOUR, 2) for key in KEYS]
CALLS: dict[str, Callable[[SharedStore], Coroutine[Any, Any, object]]] = {
    "take": lambda store: store.take(
        [Claim(key, HOUR, 3) for key in "abcd"], [Slot("s", 3, "new"), Slot("t", 3, "new")]
    ),
    "settle": lambda store: store.settle(
        [Claim("a", HOUR, 3), Claim("b", HOUR, -1), Claim("e", HOUR, 5)], [Slot("s", 3, "old")]
    ),
    "renew": lambda store: store.renew([Slot("s", 3, "old"), Slot("t", 3, "old")]),
    "end": lambda store: store.take([], [Slot("s", 1, "new")]),
}


def seen(store: SharedStore) -> list[float]:
    """All there is to see: levels, and places that are free."""
    found = level_of(store, *"abcde")
    for key in "st":
        slots = [Slot(key, 3, f"probe{number}") for number in range(3)]
        free = [slot for slot in slots if done(store.take([], [slot])).admitted]
        done(store.settle([], free))
        found.append(len(free))
    return found


@pytest.mark.parametrize("name", CALLS)
def test_a_process_that_dies_at_any_write_has_done_nothing_of_its_call(name: str, tmp_path: Path) -> None:
    now = 1000.0
    before: list[float] = []
    outcomes = []

    def clock() -> float:
        return now

    for dies_at in range(60):
        now = 1000.0
        path = tmp_path / str(dies_at)
        survivor = SharedStore(path, clock=clock, size=256)
        dying = SharedStore(path, clock=clock, size=256)
        done(survivor.take(USED, [Slot("s", 3, "old"), Slot("t", 3, "old")]))
        now = 1040.0 if name == "end" else 1020.0
        if not dies_at:
            before = seen(survivor)
            continue
        dying._table.env = Dying(dying._table.env, [dies_at])
        try:
            done(CALLS[name](dying))
        except MemoryError:
            outcomes.append(seen(survivor))
        else:
            assert name == "renew" or seen(survivor) != before
            break
    assert outcomes == [before] * len(outcomes)
    assert len(outcomes) >= 5


HOLDER = """
import sys
from sluice.limits import Claim, Limit, Slot
from sluice.limits.shared import SharedStore
from sluice.limits.table import _TAKE

def done(call):
    try:
        call.send(None)
    except StopIteration as stop:
        return stop.value

store = SharedStore(sys.argv[1])
if sys.argv[2] == "lock":
    assert store._table._holds(_TAKE)
else:
    assert done(store.take([], [Slot("k", 1, "holder")])).admitted
print("ready", flush=True)
sys.stdin.readline()
store._table.unlock()
"""


@contextmanager
def holder(path: Path, of: str) -> Iterator["subprocess.Popen[str]"]:
    """A process that holds the table's lock, or a place."""
    command = [sys.executable, "-c", HOLDER, str(path), of]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


async def test_a_stopped_process_that_holds_the_lock_makes_calls_fail_and_a_dead_one_does_not(
    at: SharedLab,
) -> None:
    with holder(at.path, "lock") as stopped:
        stopped.send_signal(signal.SIGSTOP)
        for call in (
            at.store.take([Claim("k", HOUR)]),
            at.store.settle([Claim("k", HOUR)]),
            at.store.renew([NOW]),
        ):
            with pytest.raises(BucketStoreFailed) as failed:
                await call
            assert failed.value.reason == "timeout"
        stopped.kill()
        stopped.wait()
        assert (await at.store.take([Claim("k", HOUR)])).admitted


async def test_whoever_is_cancelled_while_it_waits_for_the_lock_has_taken_nothing() -> None:
    async with shared_lab(patience=60) as at:
        with holder(at.path, "lock") as busy:
            waiting = asyncio.create_task(at.store.take([Claim("k", HOUR)], [NOW]))
            other = asyncio.create_task(at.store.take([Claim("other", HOUR)]))
            await asyncio.wait([waiting], timeout=0.01)
            waiting.cancel()
            await asyncio.wait([waiting])
            assert busy.stdin is not None
            busy.stdin.close()
            assert (await other).admitted
            assert level_of(at.another(), "k") == [10]


KILLED = """
import asyncio, os, random, signal, sys, time
from sluice.limits import Claim, Limit, Slot
from sluice.limits.shared import SharedStore

KEYS, LIMIT, HALF = "abcdefgh", Limit(1 << 20, 1.0), 1 << 19

def opened():
    return SharedStore(sys.argv[1], clock=lambda: 100.0, patience=60)

async def move(store, me):
    # from one bucket to another, and a place taken and given back: the sum of all that is used stays the same
    while True:
        a, b, slot = *random.sample(KEYS, 2), Slot("s", 3, str(me))
        await store.settle([Claim(a, LIMIT, 1), Claim(b, LIMIT, -1)])
        if (await store.take([Claim(a, LIMIT, 1)], [slot])).admitted:
            await store.settle([Claim(a, LIMIT, -1)], [slot])

def fork(me):
    ready, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            random.seed(me)
            store = opened()
            os.write(write, b"1")
            asyncio.run(move(store, me))
        finally:
            os._exit(1)
    assert os.read(ready, 1) == b"1"
    os.close(ready)
    os.close(write)
    return pid

async def judged():
    store = opened()
    levels = (await store.take([Claim(key, LIMIT, 0) for key in KEYS])).levels
    lost = HALF * len(KEYS) - sum(level.remaining for level in levels)
    await store.settle([Claim("a", LIMIT, -lost)])
    slots = [Slot("s", 3, f"probe{n}") for n in range(4)]
    places = sum([(await store.take([], [slot])).admitted for slot in slots])
    await store.settle([], slots)
    await store.close()
    return lost, places

async def begin():
    store = opened()
    await store.settle([Claim(key, LIMIT, HALF) for key in KEYS])
    await store.close()

asyncio.run(begin())
for number in range(int(sys.argv[2])):
    pids = [fork(number * 2), fork(number * 2 + 1)]
    time.sleep(random.random() * 0.004)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    lost, places = asyncio.run(judged())
    # one who is killed between its take and its settle has used a unit
    assert lost in (0, 1, 2) and places == 3, (number, lost, places)
print("right")
"""


def test_processes_killed_at_any_moment_neither_lose_nor_mint_anything(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path / "limits"), "3000" if FULL else "100"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout == "right\n"


# --- a full table


def test_rows_of_full_buckets_are_used_again(tmp_path: Path) -> None:
    now, evicted = 100.0, []
    store = SharedStore(tmp_path / "limits", clock=lambda: now, size=256, evicted=lambda: evicted.append(now))
    limit = Limit(capacity=2, rate=1)
    for caller in range(20_000):
        now += 0.02
        assert done(store.take([Claim(f"address:{caller}", limit)])).admitted
    assert not evicted  # in a second, the time a bucket needs to fill, 50 are made


def test_a_full_table_forgets_what_would_be_full_soonest_and_never_a_debtor(tmp_path: Path) -> None:
    evicted: list[int] = []
    store = SharedStore(tmp_path / "limits", clock=lambda: 100.0, size=256, evicted=lambda: evicted.append(1))
    debts = [Claim(f"debtor{number}", HOUR, 20) for number in range(20)]
    done(store.settle(debts))
    for caller in range(5000):
        assert done(store.take([Claim(f"address:{caller}", Limit(capacity=2, rate=1))])).admitted
    assert evicted
    assert level_of(store, *(claim.key for claim in debts)) == [-10] * 20


def test_slots_are_never_forgotten_and_what_finds_no_row_is_refused(tmp_path: Path) -> None:
    store = SharedStore(tmp_path / "limits", clock=lambda: 100.0, size=256)
    slots = [Slot("k", 10_000, str(number)) for number in range(400)]
    held = []
    for slot in slots:
        with suppress(BucketStoreFailed):
            assert done(store.take([Claim("b", HOUR, 0.01)], [slot])).admitted
            held.append(slot)
    assert 100 < len(held) < 288
    assert level_of(store, "b")[0] == pytest.approx(10 - len(held) / 100)
    for first in range(0, len(held), 100):
        done(store.settle([], held[first : first + 100]))
    assert done(store.take([], [Slot("k", 1, "last")])).admitted


def test_what_never_refills_is_kept_until_it_expires(tmp_path: Path) -> None:
    now = [100.0, 1_000_000.0]
    store = SharedStore(tmp_path / "limits", clock=lambda: now[0], wall=lambda: now[1], size=256)
    budget = Claim("budget", Limit(capacity=10, rate=0), 6, expires=1_086_400.0)
    try:
        done(store.take([budget]))
    except ValueError:
        pytest.skip("bucket.py does not know limits of rate 0 yet")
    now[0] += 80_000
    assert not done(store.take([budget])).admitted
    for caller in range(5000):
        done(store.take([Claim(f"address:{caller}", Limit(capacity=2, rate=1))]))
    assert not done(store.take([budget])).admitted
    now[1] = budget.expires
    assert not done(store.take([budget])).admitted  # a clock that has jumped takes nothing by itself
    for caller in range(5000):
        done(store.take([Claim(f"other:{caller}", Limit(capacity=2, rate=1))]))
    assert done(store.take([budget])).admitted


def test_a_call_that_ends_while_the_wall_clock_has_jumped_does_not_empty_its_budget(tmp_path: Path) -> None:
    now = [100.0, 1_000_000.0]
    store = SharedStore(tmp_path / "limits", clock=lambda: now[0], wall=lambda: now[1])
    budget = Claim("budget", Limit(capacity=10, rate=0), 6, expires=1_086_400.0)
    assert done(store.take([budget])).admitted
    now[1] += 40 * 86_400
    done(store.settle([msgspec.structs.replace(budget, amount=1)]))
    now[1] -= 40 * 86_400
    assert done(store.take([msgspec.structs.replace(budget, amount=0)])).levels[0].remaining == 3

"""What is done later: all of it, in order, soon; and what fails is told and holds nothing up."""

from sluice.aio.deferred import HEAVY, MANY, NOW, DeferredWork, at_once


def test_it_is_done_in_order_when_it_is_asked_for_or_there_is_much_of_it() -> None:
    done: list[int] = []
    deferred = DeferredWork(lambda crash: None)
    for number in range(MANY - 1):
        deferred.later(done.append, number)
    assert done == []
    deferred.flush()
    assert done == list(range(MANY - 1))
    for number in range(MANY):
        deferred.later(done.append, number)
    assert len(done) == 2 * MANY - 1
    deferred.flush()
    assert len(done) == 2 * MANY - 1, "once"


def test_it_keeps_little_memory() -> None:
    done: list[int] = []
    deferred = DeferredWork(lambda crash: None)
    deferred.later(done.append, 1, size=HEAVY)
    assert done == []
    deferred.later(done.append, 2, size=1)
    assert done == [1, 2]
    deferred.later(done.append, 3, size=HEAVY)
    assert done == [1, 2]


def test_what_is_not_to_wait_is_done_behind_what_waits() -> None:
    done: list[int] = []
    deferred = DeferredWork(lambda crash: None)
    deferred.later(done.append, 1)
    deferred.later(done.append, 2, size=NOW)
    assert done == [1, 2]


def test_what_fails_is_told_and_the_rest_is_done() -> None:
    done: list[int] = []
    crashes: list[Exception] = []
    deferred = DeferredWork(crashes.append)
    deferred.later(done.append, 1)
    deferred.later(int, "x")
    deferred.later(done.append, 2)
    deferred.flush()
    assert done == [1, 2]
    assert [type(crash) for crash in crashes] == [ValueError]


def test_who_has_no_clock_does_it_at_once() -> None:
    done: list[int] = []
    at_once(done.append, 1, size=7)
    assert done == [1]


def test_what_is_done_may_ask_for_more() -> None:
    done: list[int] = []
    deferred = DeferredWork(lambda crash: None)
    deferred.later(lambda: deferred.later(done.append, 1))
    deferred.flush()
    assert done == []
    deferred.flush()
    assert done == [1]

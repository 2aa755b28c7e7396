"""What is done later: all of it, in order, soon; and what fails is told and holds nothing up."""

from sluice.aio.deferred import MAX_DEFERRED_BYTES, MAX_DEFERRED_CALLS, NOW, DeferredWork, at_once


def test_it_is_done_in_order_when_it_is_asked_for_or_there_is_much_of_it() -> None:
    done: list[int] = []
    deferred = DeferredWork(lambda crash: None)
    for number in range(MAX_DEFERRED_CALLS - 1):
        deferred.later(done.append, number)
    assert done == []
    deferred.flush()
    assert done == list(range(MAX_DEFERRED_CALLS - 1))
    for number in range(MAX_DEFERRED_CALLS):
        deferred.later(done.append, number)
    assert len(done) == 2 * MAX_DEFERRED_CALLS - 1
    deferred.flush()
    assert len(done) == 2 * MAX_DEFERRED_CALLS - 1, "once"


def test_it_keeps_little_memory() -> None:
    done: list[int] = []
    deferred = DeferredWork(lambda crash: None)
    deferred.later(done.append, 1, size=MAX_DEFERRED_BYTES)
    assert done == []
    deferred.later(done.append, 2, size=1)
    assert done == [1, 2]
    deferred.later(done.append, 3, size=MAX_DEFERRED_BYTES)
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

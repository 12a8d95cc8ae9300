"""Overlapping stages: order, bounds, errors and early ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator

import pytest

from indexers.stages import Behind, ahead


def test_items_come_in_order_and_no_more_than_the_depth_is_made_ahead() -> None:
    made: list[int] = []
    three = threading.Event()

    def source() -> Iterator[int]:
        for number in range(10):
            made.append(number)
            if len(made) == 3:
                three.set()
            yield number

    with ahead(source(), depth=1) as items:
        first = next(items)
        assert three.wait(5)        # one taken, one in the queue, one in hand
        assert (first, made) == (0, [0, 1, 2])
        assert list(items) == list(range(1, 10))


def test_an_error_in_the_source_comes_where_its_item_would_have() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    with ahead(source(), depth=4) as items:
        assert next(items) == 1
        with pytest.raises(ValueError, match="broken"):
            next(items)


def test_leaving_early_ends_the_source() -> None:
    closed = threading.Event()

    def source() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    with ahead(source(), depth=2) as items:
        next(items)
    assert closed.is_set()


def test_work_behind_is_done_in_order_before_leaving() -> None:
    done: list[int] = []
    with Behind(done.append, depth=1) as leaving:
        for number in range(20):
            leaving.put(number)
    assert done == list(range(20))


def test_an_error_behind_stops_the_one_who_puts() -> None:
    def work(number: int) -> None:
        raise OSError(f"no room for {number}")

    with pytest.raises(OSError, match="no room for 0"):
        put_all(range(1000), work)


def test_an_error_behind_is_raised_on_leaving_too() -> None:
    def work(number: int) -> None:
        raise OSError("late")

    with pytest.raises(OSError, match="late"):
        put_all([1], work)


def test_what_waits_is_dropped_when_an_error_is_on_its_way() -> None:
    done: list[int] = []
    started, go = threading.Event(), threading.Event()

    def work(number: int) -> None:
        started.set()
        go.wait(5)
        done.append(number)

    leaving = Behind(work, depth=4)
    with pytest.raises(RuntimeError, match="elsewhere"):
        fail_inside(leaving, started, go)
    assert done == [1]


def put_all(items: Iterable[int], work: Callable[[int], None]) -> None:
    with Behind(work, depth=4) as leaving:
        for item in items:
            leaving.put(item)


def fail_inside(leaving: Behind[int], started: threading.Event, go: threading.Event) -> None:
    with leaving:
        leaving.put(1)
        leaving.put(2)
        assert started.wait(5)
        threading.Timer(0.05, go.set).start()
        raise RuntimeError("elsewhere")

"""Frames in memory: the budget holds, the account is exact, and a frame is read once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import FrameTooLarge, StoreError, UsageError
from penstock.store.cache import CacheStatistics, FrameCache, frame_bytes


def frame(rows: int) -> pa.Table:
    return pa.table({"x": np.zeros(rows)})


def test_least_recently_used_goes_first() -> None:
    cache = FrameCache(240)
    for key in "abc":
        cache.get(key, 80, lambda: frame(10))
    assert cache.statistics() == CacheStatistics(240, 0, 240, 3, 0, 3, 0, 0)
    cache.get("a", 80, lambda: frame(10))
    cache.get("d", 80, lambda: frame(10))
    assert cache.keys() == ["c", "a", "d"]
    assert cache.statistics() == CacheStatistics(240, 0, 240, 3, 1, 4, 1, 0)
    assert cache.evict(lambda key: key == "a") == 80
    assert cache.evict() == 160
    assert cache.statistics().used == 0


def test_a_frame_over_the_budget_is_not_read() -> None:
    cache = FrameCache(100)
    with pytest.raises(
        FrameTooLarge, match="expected a frame of at most 100 bytes, got about 101 - for 'a'; ask for"
    ) as met:
        cache.get("a", 101, lambda: pytest.fail("it was read"))
    assert (met.value.size, met.value.limit) == (101, 100)  # type: ignore[attr-defined]
    assert cache.statistics() == CacheStatistics(0, 100, 100, 0, 0, 1, 0, 1)
    assert cache.get("b", 10, lambda: frame(50)).num_rows == 50  # larger than it was thought
    assert cache.statistics().frames == 0
    for bad in (0, True, "1g"):
        with pytest.raises(UsageError, match="expected a number of bytes, at least 1"):
            FrameCache(bad)  # type: ignore[arg-type]


def test_a_failed_read_leaves_nothing() -> None:
    cache = FrameCache(100)
    with pytest.raises(ZeroDivisionError):
        cache.get("a", 80, lambda: 1 // 0)  # type: ignore[arg-type,return-value]
    assert cache.statistics().used == 0
    assert cache.get("a", 80, lambda: frame(10)).num_rows == 10


def test_a_slice_counts_what_it_keeps_alive() -> None:
    assert frame_bytes(frame(1000).slice(0, 1)) == 8000


def test_what_many_ask_for_is_read_once() -> None:
    cache, started, go, reads = FrameCache(100), threading.Event(), threading.Event(), []

    def load() -> pa.Table:
        reads.append(1)
        started.set()
        go.wait()
        return frame(10)

    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(cache.get, "a", 80, load) for _ in range(4)]
        started.wait()
        assert cache.statistics().used == 80  # taken before it is there
        go.set()
        assert {id(one.result()) for one in found} == {id(found[0].result())}
    assert len(reads) == 1


def test_one_waits_for_the_room_another_reads_into() -> None:
    cache, go = FrameCache(100), threading.Event()

    def load() -> pa.Table:
        go.wait()
        return frame(10)

    with ThreadPoolExecutor(2) as pool:
        found = [pool.submit(cache.get, key, 80, load) for key in "ab"]
        go.set()
        assert [one.result().num_rows for one in found] == [10, 10]
    assert cache.statistics().frames == 1
    assert cache.statistics().used == 80


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 30), st.integers(0, 20)), max_size=60))
def test_the_account_is_exact(asked: list[tuple[str, int, int]]) -> None:
    cache = FrameCache(200)
    for key, rows, wrong in asked:
        try:
            cache.get(key, max(0, 8 * rows + wrong - 10), lambda rows=rows: frame(rows))  # type: ignore[misc]
        except FrameTooLarge:
            pass
        found = cache.statistics()
        held = [cache.get(key, 0, lambda: pytest.fail("not held")) for key in cache.keys()]
        assert found.used == sum(map(frame_bytes, held)) == 200 - found.free
        assert found.used <= 200
        assert found.frames == len(held)


def test_a_frame_that_is_lent_counts_until_it_is_given_back() -> None:
    cache = FrameCache(200)
    with cache.lend("a", 80, lambda: frame(10)) as first:
        assert first.num_rows == 10
        cache.get("b", 80, lambda: frame(10))
        with (
            pytest.raises(
                StoreError,
                match="the memory for frames, 200 bytes, is taken by frames that are being sent or read - in the store's cache, 80 bytes of it lent; try again",
            ),
            cache.lend("c", 160, lambda: frame(20), patience=0.01),
        ):
            pass
        assert cache.keys() == ["a"]  # b went, but not what is lent
        assert cache.evict() == 0
        assert (cache.statistics().used, cache.statistics().lent, cache.statistics().frames) == (80, 80, 0)
    assert cache.statistics().used == cache.statistics().lent == 0


def test_room_that_is_given_back_is_had_at_once() -> None:
    cache = FrameCache(200)
    begun, ended = threading.Event(), threading.Event()

    def other() -> None:
        with cache.lend("a", 160, lambda: frame(20)):
            begun.set()
            ended.wait(10)

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(other)
        assert begun.wait(10)
        threading.Timer(0.02, ended.set).start()
        with cache.lend("b", 160, lambda: frame(20), patience=10), cache.lend("b", 160, lambda: frame(20)):
            assert cache.statistics().lent == 160
        waiting.result()
    assert (cache.keys(), cache.statistics().used) == (["b"], 160)


def test_a_frame_larger_than_was_thought_counts_while_it_is_lent() -> None:
    cache = FrameCache(100)
    with cache.lend("a", 50, lambda: frame(100)):
        assert (cache.statistics().used, cache.statistics().free) == (800, 0)
    assert cache.statistics().used == 0

from __future__ import annotations

import gc
import itertools
import mmap
import sys

import numpy as np
import pytest

from penstock.native import pages
from penstock.native.pages import arrays

F4 = np.dtype("f4")


def resident():
    """Bytes of this process that are in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * mmap.PAGESIZE


@pytest.mark.parametrize("count, shape", [(3, (4, 5)), (12, (300, 1001)), (1, (3000, 1000)), (7, (0, 9)), (0, (8, 8))])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_arrays_are_like_any(count, shape, dtype):
    made = arrays(count, shape, np.dtype(dtype))
    assert len(made) == count
    for i, one in enumerate(made):
        assert (one.shape, one.dtype) == (shape, np.dtype(dtype))
        assert one.flags.c_contiguous
        assert one.flags.writeable
        one[...] = i
    assert all((one == i).all() for i, one in enumerate(made))
    assert not any(np.shares_memory(one, other) for one, other in itertools.pairwise(made))


def test_what_is_left_of_an_array_keeps_its_values():
    made = arrays(20, (500, 1000), F4)
    for i, one in enumerate(made):
        one[...] = i
    view, column, flat, buffer = made[3][10:20], made[5].T[7], made[6].reshape(-1)[::1000], memoryview(made[9])
    other = made[11].view("i4").view("f4")[1:]
    del made, one
    gc.collect()
    assert (view == 3).all()
    assert (column == 5).all()
    assert (flat == 6).all()
    assert (np.asarray(buffer) == 9).all()
    assert (other == 11).all()


def test_one_of_many_does_not_keep_the_memory_of_all(need):
    need(sys.platform == "linux", "counts pages as Linux does")
    made = arrays(100, (500, 1000), F4)
    for one in made:
        one[...] = 1
    full, kept = resident(), made[50]
    del made, one
    gc.collect()
    # 99 arrays of 2 MB, less what shares a large page with the one that is kept.
    assert full - resident() > 150 << 20
    assert (kept == 1).all()


def test_where_the_system_gives_no_large_pages(monkeypatch):
    monkeypatch.setattr(pages, "_ADVICE", None)
    assert all(one.base is None for one in arrays(20, (500, 1000), F4))
    monkeypatch.setattr(pages, "_ADVICE", 9999)
    assert all(one.base is None for one in arrays(20, (500, 1000), F4))


def test_more_than_there_is():
    with pytest.raises(MemoryError):
        arrays(8, (1 << 44,), F4)


@pytest.mark.parametrize("slow_ns", [-1, 1 << 60])
def test_large_pages_are_taken_as_long_as_they_come_quickly(need, monkeypatch, slow_ns):
    need(sys.platform == "linux", "counts pages as Linux does")
    monkeypatch.setattr(pages, "_SLOW_NS", slow_ns)
    before = resident()
    made = arrays(20, (500, 1000), F4)
    taken = resident() - before
    assert 4 << 20 < taken < 16 << 20 if slow_ns < 0 else taken >= 32 << 20
    for i, one in enumerate(made):
        one[...] = i
    assert all((one == i).all() for i, one in enumerate(made))


def test_an_older_kernel_gives_pages_when_they_are_written_to(monkeypatch):
    monkeypatch.setattr(pages, "_POPULATE", 9999)
    made = arrays(20, (500, 1000), F4)
    made[19][...] = 1
    assert (made[19] == 1).all()

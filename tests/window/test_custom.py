"""Windows of the user's own."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock import window as W
from penstock.errors import WindowError
from penstock.log.chunk import Chunk


class Volume(W.CustomWindow):
    """A window ends with the row that brings the sum of sizes to `volume`."""

    def __init__(self, volume: int, by: str | None = None, several: bool = True) -> None:
        super().__init__(by=by)
        self.volume = volume
        self._several = several

    def cuts(self, pending: W.Window) -> list[int]:
        assert len(pending)
        found, total = [], 0
        for row, size in enumerate(pending.table["size"].to_pylist()):
            total += size
            if total >= self.volume:
                found.append(row + 1)
                total = 0
        return found if self._several else found[:1]


def chunk(sizes: list[int], keys: list[str] | None = None, first: int = 0) -> Chunk:
    batch = pa.record_batch({"size": pa.array(sizes, pa.int64()), "k": keys or ["a"] * len(sizes)})
    return Chunk(batch, first, np.arange(first, first + len(sizes)))


def shown(windows: list[W.Window]) -> list[tuple[Any, ...]]:
    return [
        (w.key, [int(o) for o in w.offsets], w.start_ns, w.end_ns, w.position, w.index, w.table["size"].to_pylist())
        for w in windows
    ]


def definition(volume: int, sizes: list[int], keys: list[str]) -> list[tuple[Any, ...]]:
    pending: dict[str, list[int]] = {}
    out = []
    for offset, key in enumerate(keys):
        rows = pending.setdefault(key, [])
        rows.append(offset)
        if sum(sizes[o] for o in rows) >= volume:
            out.append((key, rows, rows[0], offset, offset + 1, 0, [sizes[o] for o in rows]))
            pending[key] = []
    order = list(dict.fromkeys(keys))
    rest = sorted((rows[-1], order.index(key), key, rows) for key, rows in pending.items() if rows)
    first = int(bool(out) and out[-1][4] == len(sizes))
    return out + [
        (key, rows, rows[0], end, len(sizes), index, [sizes[o] for o in rows])
        for index, (end, _, key, rows) in enumerate(rest, first)
    ]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.sampled_from("abc"), st.booleans(), st.booleans()), min_size=1, max_size=40
    ),
    st.integers(1, 30),
    st.booleans(),
    st.booleans(),
)
def test_any_cut_and_any_restart_give_the_windows_of_the_definition(
    rows: list[tuple[int, str, bool, bool]], volume: int, keyed: bool, several: bool
) -> None:
    sizes = [row[0] for row in rows]
    keys = [row[1] for row in rows]
    by = "k" if keyed else None
    emitter = Volume(volume, by, several)
    windows, low = [], 0
    for high in [i for i in range(1, len(rows)) if rows[i][2]] + [len(rows)]:
        windows += emitter.push(chunk(sizes[low:high], keys[low:high], low))
        if rows[low][3]:
            state = emitter.snapshot()
            emitter = Volume(volume, by, several)
            emitter.restore(
                state, lambda wanted: [chunk(sizes[r.start : r.stop], keys[r.start : r.stop], r.start) for r in wanted]
            )
            assert emitter.snapshot() == state
        low = high
    windows += emitter.flush(len(rows))
    expected = definition(volume, sizes, keys if keyed else ["x"] * len(keys))
    assert [w[1:] for w in shown(windows)] == [w[1:] for w in expected]
    if keyed:
        assert [w[0] for w in shown(windows)] == [w[0] for w in expected]


def test_pending_is_a_window() -> None:
    seen: list[tuple[Any, ...]] = []

    class Look(W.CustomWindow):
        def cuts(self, pending: W.Window) -> list[int]:
            seen.append((pending.key, len(pending), pending.start_ns, pending.end_ns, pending.position))
            return []

    emitter = Look(by="k")
    emitter.push(chunk([1, 2, 3], ["a", "b", "a"], 5))
    emitter.push(chunk([4], ["a"], 8))
    assert seen == [("a", 2, 5, 7, 8), ("b", 1, 6, 6, 7), ("a", 3, 5, 8, 9)]
    assert emitter.statistics().open_rows == 4
    assert emitter.mark(10**18, 9) == []
    assert emitter.deadline(0) is None
    assert emitter.lowest_open == 5


def test_looking_ahead_is_found_when_later_rows_are_hidden() -> None:
    class Ahead(W.CustomWindow):
        def cuts(self, pending: W.Window) -> list[int]:
            return [1] if len(pending) > 2 else []

    with pytest.raises(
        WindowError,
        match="expected cuts to depend on the rows before them alone, got a window after 1 rows only when later rows "
        "are there - in cuts, pending from offset 0; decide for each row",
    ):
        Ahead().push(chunk([1, 2, 3]))


def test_looking_ahead_is_found_when_more_rows_arrive() -> None:
    class Later(W.CustomWindow):
        ready = False

        def cuts(self, pending: W.Window) -> list[int]:
            return [1] if self.ready else []

    emitter = Later()
    emitter.push(chunk([1]))
    emitter.ready = True
    with pytest.raises(WindowError, match="depend on the rows before them alone"):
        emitter.push(chunk([1], first=1))


@pytest.mark.parametrize("cuts", [[0], [-1], [4], [2, 1], [1, 1], [1.5], "no", 3, ["a"]])
def test_cuts_that_are_none(cuts: Any) -> None:
    class Bad(W.CustomWindow):
        def cuts(self, pending: W.Window) -> Any:
            return cuts

    with pytest.raises(
        WindowError, match=r"expected ascending whole numbers from 1 to 3, got .* - in the result of cuts"
    ):
        Bad().push(chunk([1, 2, 3]))


def test_numpy_cuts() -> None:
    class Numpy(W.CustomWindow):
        def cuts(self, pending: W.Window) -> Any:
            return np.flatnonzero(pending.table["size"].to_numpy() > 5) + 1

    assert [len(w) for w in Numpy().push(chunk([1, 9, 2, 3, 8, 1]))] == [2, 3]


def test_a_custom_window_has_cuts() -> None:
    with pytest.raises(
        WindowError, match=r"expected a method cuts\(self, pending\) -> list of row counts, got CustomWindow"
    ):
        W.CustomWindow()


def test_public_attributes_are_parameters() -> None:
    assert Volume(7).parameters()["volume"] == 7
    with pytest.raises(
        WindowError, match=r"snapshot was made for Volume\(.*volume=7.*this emitter is Volume\(.*volume=8"
    ):
        Volume(8).restore(Volume(7).snapshot(), lambda wanted: [])


def test_logic_and_labels() -> None:
    class Pair(W.CustomWindow):
        def cuts(self, pending: W.Window) -> list[int]:
            return list(range(2, len(pending) + 1, 2))

    (window,) = Pair(time="size", logic=len).push(chunk([40, 50]))
    assert (window.value, window.start_ns, window.end_ns) == (2, 40, 50)


def test_a_copy_goes_its_own_way() -> None:
    emitter = Volume(10, by="k")
    emitter.push(chunk([4, 4]))
    other = copy.deepcopy(emitter)
    assert len(emitter.push(chunk([9], first=2))) == 1
    assert len(other.push(chunk([9], first=2))) == 1
    assert len(other.flush(3)) == 0

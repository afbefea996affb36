from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from penstock import window as W
from penstock.errors import WindowError
from penstock.log.chunk import Chunk


def chunk(values: list[int], first: int = 0) -> Chunk:
    return Chunk(pa.record_batch({"v": values}), first, np.arange(first, first + len(values)))


def test_collect_is_what_windows_do_anyway() -> None:
    plain = W.CountWindow(2).push(chunk([1, 2]))[0]
    collected = W.CountWindow(2, logic=W.Collect()).push(chunk([1, 2]))[0]
    assert plain.value == collected.value == collected.data == [{"v": 1}, {"v": 2}]


def test_reduce_folds_rows_in_the_order_of_offsets() -> None:
    logic = W.Reduce(lambda text, row: f"{text}{row['v']}", "")
    emitter = W.CountWindow(3, logic=logic)
    emitter.push(chunk([1, 2]))
    assert [w.value for w in emitter.push(chunk([3, 4, 5, 6], 2))] == ["123", "456"]


def test_reduce_makes_its_start_anew_for_each_window() -> None:
    def put(seen: list[int], row: dict[str, Any]) -> list[int]:
        seen.append(row["v"])
        return seen

    windows = W.CountWindow(2, logic=W.Reduce(put, list)).push(chunk([1, 2, 3, 4]))
    assert [w.value for w in windows] == [[1, 2], [3, 4]]
    assert windows[0].value == [1, 2]


def test_any_function_of_a_window_is_a_logic() -> None:
    assert W.CountWindow(2, logic=len).push(chunk([1, 2]))[0].value == 2


@pytest.mark.parametrize("init", [[], {}, set()])
def test_reduce_refuses_a_start_that_windows_would_share(init: Any) -> None:
    with pytest.raises(
        WindowError, match=r"expected an init that windows cannot share, got .* such as (list|dict|set)"
    ):
        W.Reduce(lambda a, b: a, init)


def test_reduce_needs_a_function() -> None:
    with pytest.raises(WindowError, match=r"expected a function \(value, row\) -> value, got 3 - in Reduce"):
        W.Reduce(3, 0)  # type: ignore[arg-type]

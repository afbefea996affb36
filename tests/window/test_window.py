from __future__ import annotations

import builtins
import copy
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from penstock import window as W
from penstock.errors import UsageError
from penstock.log.chunk import Chunk
from penstock.records import DOCUMENT, rows_to_batch

AT = 1_795_158_066_123_456_789  # 2026-11-20T07:01:06.123456789Z


def documents(*rows: dict[str, Any], first: int = 0, at: int = AT) -> Chunk:
    return Chunk(rows_to_batch(rows, DOCUMENT), first, np.arange(at, at + len(rows)))


def table(first: int = 0, **columns: Any) -> Chunk:
    batch = pa.record_batch(columns)
    return Chunk(batch, first, np.arange(100 + first, 100 + first + batch.num_rows))


def one(chunk: Chunk, size: int = 1) -> W.Window:
    return W.CountWindow(size).push(chunk)[0]


def test_repr_shows_time_and_data() -> None:
    assert repr(one(documents({"foo": "bar"}))) == "Window [2026-11-20 07:01:06.123456+00:00] [{'foo': 'bar'}]"


def test_repr_cuts_after_a_few_rows() -> None:
    window = one(documents(*({"i": i} for i in range(98))), 98)
    assert repr(window) == "Window [2026-11-20 07:01:06.123456+00:00] [{'i': 0}, {'i': 1}, {'i': 2}, … +95 rows]"
    assert repr(one(documents(*({"i": i} for i in range(5))), 5)).count("'i'") == 5


def test_documents_come_back_as_they_were_appended() -> None:
    rows = [{"a": 1, "b": [1.5, None]}, {"c": {"d": "é"}, "at": datetime(2026, 1, 2, tzinfo=UTC)}]
    window = one(documents(*rows), 2)
    assert window.data == rows
    assert list(window) == rows
    assert len(window) == 2
    assert window.value == rows


def test_data_is_decoded_anew_so_that_a_retry_sees_the_rows_unchanged() -> None:
    window = one(documents({"a": [1]}))
    window.data[0]["a"].append(2)
    assert window.data == [{"a": [1]}]


def test_times_offsets_created() -> None:
    window = one(documents({"a": 1}, {"a": 2}, {"a": 3}, first=7), 3)
    assert (window.start_ns, window.end_ns) == (AT, AT + 2)
    assert window.start == datetime(2026, 11, 20, 7, 1, 6, 123456, UTC)
    assert window.end.tzinfo is UTC
    assert window.offsets == range(7, 10)
    assert window.created.tolist() == [AT, AT + 1, AT + 2]
    assert (window.position, window.index, window.late, window.key, window.mark_ns) == (10, 0, 0, None, None)


def test_offsets_of_rows_that_do_not_follow_each_other_are_an_array() -> None:
    a, b = W.CountWindow(2, by="k").push(table(k=["x", "y", "x", "y"], v=[1, 2, 3, 4]))
    assert isinstance(a.offsets, np.ndarray)
    assert (a.key, a.offsets.tolist()) == ("x", [0, 2])
    assert (b.key, b.table.to_pydict()) == ("y", {"k": ["y", "y"], "v": [2, 4]})


def test_tables_keep_schema_and_metadata() -> None:
    window = one(documents({"a": 1}))
    assert window.table.schema.equals(DOCUMENT, check_metadata=True)


def test_a_window_is_an_arrow_stream() -> None:
    window = one(table(a=[1, 2], b=["x", None]), 2)
    assert pa.table(window).to_pydict() == {"a": [1, 2], "b": ["x", None]}
    assert not hasattr(window, "__array__")


def test_frame() -> None:
    polars = pytest.importorskip("polars")
    frame = one(table(a=[1, 2], b=["x", None]), 2).frame
    assert isinstance(frame, polars.DataFrame)
    assert frame.to_dicts() == [{"a": 1, "b": "x"}, {"a": 2, "b": None}]


def test_frame_without_polars(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "polars":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(UsageError, match="window.frame needs polars, which is not installed; pip install polars"):
        _ = one(table(a=[1])).frame


@pytest.mark.parametrize(
    "name", ["start", "end", "start_ns", "end_ns", "key", "late", "position", "index", "table", "data", "new"]
)
def test_nothing_can_be_set(name: str) -> None:
    window = one(table(a=[1]))
    with pytest.raises(AttributeError):
        setattr(window, name, 1)
    assert not hasattr(window, "__dict__")


def test_rows_of_several_chunks_are_one_table() -> None:
    emitter = W.CountWindow(5)
    emitter.push(table(a=[0, 1], s=["a", "b"]))
    emitter.push(table(2, a=[2], s=["c"]))
    (window,) = emitter.push(table(3, a=[3, 4, 5], s=["d", "e", "f"]))
    assert window.table.to_pydict() == {"a": [0, 1, 2, 3, 4], "s": list("abcde")}
    assert window.data[3] == {"a": 3, "s": "d"}
    assert window.created.tolist() == [100, 101, 102, 103, 104]


def test_a_schema_may_widen_within_a_window() -> None:
    emitter = W.CountWindow(3, by="k")
    emitter.push(table(k=["a", "b"], v=pa.array([1, 9], pa.int32())))
    (window,) = emitter.push(table(2, k=["a", "b", "a"], v=pa.array([2, 8, 3], pa.int64()), w=[0.5, 1.5, 2.5]))
    assert window.data == [{"k": "a", "v": 1, "w": None}, {"k": "a", "v": 2, "w": 0.5}, {"k": "a", "v": 3, "w": 2.5}]


TENSOR = pa.fixed_shape_tensor(pa.float32(), (2,))


@pytest.mark.parametrize(
    "column",
    [
        pa.array(list("abcdef"), pa.string_view()),
        pa.array([b"a", b"b", None, b"d", b"e", b"f"], pa.binary_view()),
        pa.array(list("abcdef")).dictionary_encode(),
        pa.array([[1], [], None, [2, 3], [4], [5]]),
        pa.array([{"x": 1}, {"x": 2}, None, {"x": 4}, {"x": 5}, {"x": 6}]),
        pa.ExtensionArray.from_storage(TENSOR, pa.array([[i, i] for i in range(6)], pa.list_(pa.float32(), 2))),
        pa.array([True, False, None, True, True, False]),
        pa.array([1, 2, 3, 4, 5, 6], pa.timestamp("us", "UTC")),
    ],
    ids=lambda column: str(column.type)[:20],
)
def test_every_type_of_column_travels(column: pa.Array) -> None:
    keys = ["a", "b", "a", "b", "a", "b"]
    whole = pa.table({"k": keys, "v": column})
    emitter = W.CountWindow(3, by="k")
    windows = emitter.push(Chunk(whole.slice(0, 3).to_batches()[0], 0, np.arange(3)))
    windows += emitter.push(Chunk(whole.slice(3).to_batches()[0], 3, np.arange(3)))
    a, b = windows
    assert [a.table.column("v")[i].as_py() for i in range(3)] == [column[i].as_py() for i in (0, 2, 4)]
    assert [b.table.column("v")[i].as_py() for i in range(3)] == [column[i].as_py() for i in (1, 3, 5)]
    assert a.table.schema == whole.schema


def test_a_window_keeps_its_rows_when_the_emitter_goes_on() -> None:
    emitter = W.FixedTimeWindow(1e-9, by="k", time="t")
    emitter.push(table(k=["a", "b", "a"], t=[1, 1, 1], v=[1, 2, 3]))
    a, b = emitter.push(table(3, k=["c"], t=[5], v=[9]))
    emitter.push(table(4, k=["c"], t=[50], v=[9]))
    assert a.table["v"].to_pylist() == [1, 3]
    assert b.data == [{"k": "b", "t": 1, "v": 2}]


def test_windows_can_be_copied() -> None:
    window = one(documents({"a": 1}))
    assert copy.copy(window).data == copy.deepcopy(window).data == [{"a": 1}]


def test_an_empty_window_is_a_window() -> None:
    emitter = W.FixedTimeWindow(1e-9, time="t", emit_empty=True)
    windows = emitter.push(table(t=[0, 3], s=["x", "y"]))
    empty = windows[1]
    assert empty
    assert (len(empty), empty.data, empty.offsets, empty.created.tolist()) == (0, [], range(2, 2), [])
    assert empty.table.schema == pa.schema([("t", pa.int64()), ("s", pa.string())])
    assert repr(empty) == "Window [1970-01-01 00:00:00+00:00] []"

from __future__ import annotations

import threading
from pathlib import Path

import pyarrow as pa
import pytest

import penstock
from penstock.testing import CollectSink


def test_rows_of_batches_and_windows(tmp_path: Path) -> None:
    sink = CollectSink()
    sink.put(pa.table({"n": [1, 2]}))
    sink.put({"n": 3})
    with penstock.open(tmp_path) as hub:
        hub.streams.get("s").append([{"n": 4}, {"n": 5}])
        hub.streams.get("s", lazy=True, size=2, blocking=False).apply(sink.put)
    assert [row["n"] for row in sink.rows] == [1, 2, 3, 4, 5]
    assert len(sink.items) == 3


def test_it_fails_where_told() -> None:
    sink = CollectSink(failing={1: OSError("full")})
    sink.put({"n": 1})
    with pytest.raises(OSError, match="full"):
        sink.put({"n": 2})
    sink.put({"n": 2})
    assert [row["n"] for row in sink.rows] == [1, 2]


def test_waiting() -> None:
    sink = CollectSink()
    putter = threading.Thread(target=lambda: [sink.put({"n": n}) for n in range(3)])
    putter.start()
    assert len(sink.wait(3)) == 3
    putter.join()
    with pytest.raises(TimeoutError, match=r"3 of 4 items came within 0.01 s"):
        sink.wait(4, 0.01)

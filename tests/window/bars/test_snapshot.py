"""Snapshots: what they refuse. That they go on with the same bits is tested at every cut in test_bars."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import WindowError
from penstock.window.bars import Bars
from penstock.window.sessions import Sessions

pytestmark = pytest.mark.usefixtures("either")

S = 10**9


def rows(count: int = 100, **more: Any) -> pa.RecordBatch:
    random = np.random.default_rng(5)
    return pa.RecordBatch.from_pydict(
        {
            "symbol": pa.array([f"S{i}" for i in random.integers(0, 9, count)]),
            "ts_event": random.integers(0, 60, count) * S,
            "price": random.random(count),
            "size": random.integers(0, 9, count),
            **more,
        }
    )


@pytest.mark.parametrize("symbol", ["text", "integer"])
@pytest.mark.parametrize("size", ["int64", "float64"])
def test_types_of_columns_are_kept(symbol: str, size: str) -> None:
    batch = rows(size=np.arange(100).astype(size), **({"symbol": np.arange(100) % 7} if symbol == "integer" else {}))
    bars, other = (Bars("10s", lateness=20, late="side", fill="previous") for _ in range(2))
    bars.update(batch)
    other.restore(bars.snapshot())
    assert other.schema == bars.schema
    assert other.statistics() == bars.statistics()
    assert other.open_bars() == bars.open_bars()
    assert other.late_rows() == bars.late_rows()
    assert other.flush() == bars.flush()


def test_a_snapshot_of_nothing() -> None:
    bars, other = Bars("1s"), Bars("1s")
    other.update(rows())
    other.restore(bars.snapshot())
    assert other.snapshot() == bars.snapshot()
    assert other.flush().num_rows == 0


@pytest.mark.parametrize(
    "theirs, ours, message",
    [
        (
            {"interval": "1s", "revise_for": 5},
            {"interval": 60, "revise_for": 5},
            "snapshot was made for Bars(interval='1s'), this one has interval='1m' - in Bars.restore; rebuild the "
            "state from the stream, or use the parameters of the snapshot",
        ),
        (
            {"interval": "1500us", "fill": "nan", "by": "ticker"},
            {"interval": "36h", "lateness": "1d"},
            "snapshot was made for Bars(interval='1500000ns', by='ticker', lateness='0ns', revise_for='15000000ns', "
            "fill='nan'), this one has interval='36h', by='symbol', lateness='1d', revise_for='15d', fill='none'",
        ),
        (
            {"interval": "1h", "sessions": Sessions("09:30-16:00", tz="America/New_York")},
            {"interval": "1h", "sessions": Sessions("09:30-16:00", tz="America/New_York", breaks=["12:00-13:00"])},
            "snapshot was made for Bars(sessions=\"Sessions('09:30-16:00', tz='America/New_York')\"), this one has",
        ),
    ],
)  # fmt: skip
def test_a_snapshot_of_other_parameters(theirs: dict[str, Any], ours: dict[str, Any], message: str) -> None:
    snapshot = Bars(**theirs).snapshot()
    bars = Bars(**ours)
    before = bars.snapshot()
    with pytest.raises(WindowError) as error:
        bars.restore(snapshot)
    assert str(error.value).startswith(message)
    assert bars.snapshot() == before


@given(st.data())
def test_damaged_bytes_are_refused(data: st.DataObject) -> None:
    bars = Bars("10s", lateness=20)
    bars.update(rows())
    snapshot = bars.snapshot()
    place = data.draw(st.integers(0, len(snapshot) - 1))
    flipped = bytearray(snapshot)
    flipped[place] ^= data.draw(st.integers(1, 255))
    cut = snapshot[: data.draw(st.integers(0, len(snapshot) - 1))]
    for bad in (bytes(flipped), cut, data.draw(st.binary(max_size=40))):
        with pytest.raises(
            WindowError, match="expected a snapshot of Bars, got .* bytes that are none, or were damaged"
        ):
            bars.restore(bad)
    assert bars.snapshot() == snapshot


def test_another_format_is_named() -> None:
    body = msgspec.msgpack.encode({"format": 2})
    with pytest.raises(WindowError) as error:
        Bars("1s").restore(xxhash.xxh3_64_digest(body)[::-1] + body)
    assert str(error.value) == (
        "expected a snapshot of format 1, got format 2 - in Bars.restore; rebuild the state from the stream, or use "
        "the version that made it"
    )

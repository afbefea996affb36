from __future__ import annotations

import datetime as dt
import decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from penstock import factor as f
from penstock.errors import FactorError

close, sector = f.fields("close", "sector")
PROGRAM = f.compile({"s": f.ts_sum(close, 2), "r": f.rank(close)})


def rows():
    """Symbols in no order, one missing at one time, one null."""
    return pa.table(
        {
            "symbol": ["B", "A", "B", "A", "A", "B"],
            "ts_event": pa.array([1, 1, 3, 3, 2, 4], pa.int64()),
            "close": [1.0, 2.0, 4.0, 8.0, 16.0, None],
            "extra": [0] * 6,
        }
    )


WANT_S = [np.nan, np.nan, np.nan, 24.0, 18.0, np.nan]
WANT_R = [0.5, 1.0, 0.5, 1.0, 1.0, np.nan]


def check(table):
    assert table.column_names == ["symbol", "ts_event", "s", "r"]
    assert table["symbol"].to_pylist() == rows()["symbol"].to_pylist()
    np.testing.assert_array_equal(table["s"].to_numpy(), WANT_S)
    np.testing.assert_array_equal(table["r"].to_numpy(), WANT_R)


def test_arrow_in_arrow_out():
    check(PROGRAM.batch(rows()))
    batch = PROGRAM.batch(rows().to_batches()[0])
    assert isinstance(batch, pa.RecordBatch)
    check(pa.table(batch))
    chunked = pa.concat_tables([rows().slice(0, 2), rows().slice(2)])
    check(PROGRAM.batch(chunked))


def test_polars_in_polars_out():
    out = PROGRAM.batch(pl.from_arrow(rows()))
    assert isinstance(out, pl.DataFrame)
    check(out.to_arrow())


def test_pandas_in_pandas_out():
    frame = rows().to_pandas()
    frame.index = [10, 11, 12, 13, 14, 15]
    out = PROGRAM.batch(frame)
    assert isinstance(out, pd.DataFrame)
    assert list(out.index) == list(frame.index)
    check(pa.Table.from_pandas(out, preserve_index=False))


def test_pandas_with_time_and_symbol_as_index():
    frame = rows().to_pandas().set_index(["ts_event", "symbol"])
    out = PROGRAM.batch(frame)
    assert out.index.names == ["ts_event", "symbol"]
    np.testing.assert_array_equal(out["s"].to_numpy(), WANT_S)
    assert list(out.columns) == ["s", "r"]


def test_pandas_with_more_levels_than_are_wanted():
    frame = rows().to_pandas().assign(venue="N").set_index(["venue", "ts_event", "symbol"])
    out = PROGRAM.batch(frame)
    assert out.index.equals(frame.index)
    assert list(out.columns) == ["s", "r"]
    np.testing.assert_array_equal(out["s"].to_numpy(), WANT_S)


@pytest.mark.parametrize("kind", ["category", "string[python]", "string[pyarrow]", "object"])
def test_pandas_keys_come_back_as_they_were(kind):
    frame = rows().to_pandas()
    frame = frame.assign(symbol=frame["symbol"].astype(kind), ts_event=frame["ts_event"].astype("Int64"))
    out = PROGRAM.batch(frame)
    for name in ("symbol", "ts_event"):
        pd.testing.assert_series_equal(out[name], frame[name])
    np.testing.assert_array_equal(out["s"].to_numpy(), WANT_S)


def test_encoded_columns_are_written_out():
    table = rows()
    for name in ("symbol", "close"):
        at = table.column_names.index(name)
        table = table.set_column(at, name, pa.compute.run_end_encode(table[name]))
    at = table.column_names.index("ts_event")
    table = table.set_column(at, "ts_event", table["ts_event"].dictionary_encode())
    check(PROGRAM.batch(table))


def test_a_missing_column_of_pandas_and_polars_names_near_ones():
    for frame in (rows().to_pandas(), pl.from_arrow(rows())):
        frame = (
            frame.rename(columns={"symbol": "Symbol"})
            if isinstance(frame, pd.DataFrame)
            else frame.rename({"symbol": "Symbol"})
        )
        with pytest.raises(FactorError, match="field 'symbol' missing .* with 'Symbol', .*; did you mean 'Symbol'"):
            PROGRAM.batch(frame)


def test_a_stream_takes_symbols_of_arrow():
    symbols = rows()["symbol"].unique().sort()
    assert PROGRAM.stream(symbols).symbols == PROGRAM.stream(pa.chunked_array([symbols])).symbols == ("A", "B")


@pytest.mark.parametrize(
    "times",
    [
        pa.array([1, 1, 3, 3, 2, 4], pa.timestamp("us", "UTC")),
        pa.array([1, 1, 3, 3, 2, 4], pa.int32()),
        pa.array([dt.date(2026, 1, d) for d in (1, 1, 3, 3, 2, 4)]),
    ],
)
def test_times_may_be_integers_timestamps_or_dates(times):
    table = rows().set_column(1, "ts_event", times)
    out = PROGRAM.batch(table)
    np.testing.assert_array_equal(out["s"].to_numpy(), WANT_S)
    assert out["ts_event"].type == times.type


@pytest.mark.parametrize(
    "kind", [pa.float32(), pa.int64(), pa.decimal128(10, 2), pa.dictionary(pa.int32(), pa.float64()), pa.uint16()]
)
def test_values_may_be_any_numbers(kind):
    values = [1, 2, 4, 8, 16, None]
    if pa.types.is_decimal(kind):
        column = pa.array([None if v is None else decimal.Decimal(v) for v in values], kind)
    elif pa.types.is_dictionary(kind):
        column = pa.array([None if v is None else float(v) for v in values]).dictionary_encode()
    else:
        column = pa.array(values, kind)
    check(PROGRAM.batch(rows().set_column(2, "close", column)))


def test_symbols_may_be_dictionaries_or_numbers():
    table = rows().set_column(0, "symbol", rows()["symbol"].dictionary_encode())
    np.testing.assert_array_equal(PROGRAM.batch(table)["s"].to_numpy(), WANT_S)
    table = rows().set_column(0, "symbol", pa.array([7, 3, 7, 3, 3, 7]))
    np.testing.assert_array_equal(PROGRAM.batch(table)["s"].to_numpy(), WANT_S)


def test_columns_may_have_other_names():
    table = rows().rename_columns(["ticker", "date", "close", "extra"])
    out = PROGRAM.batch(table, symbol="ticker", time="date")
    assert out.column_names == ["ticker", "date", "s", "r"]


def test_a_frame_equals_its_matrices():
    rng = np.random.default_rng(1)
    x = rng.normal(0, 1, (40, 5))
    names = np.array(list("ABCDE"))
    t, k = np.meshgrid(np.arange(40), np.arange(5), indexing="ij")
    order = rng.permutation(200)
    table = pa.table(
        {
            "symbol": names[k.reshape(-1)[order]],
            "ts_event": t.reshape(-1)[order],
            "close": x.reshape(-1)[order],
        }
    )
    out = PROGRAM.batch(table)
    matrix = PROGRAM.batch({"close": x})
    assert out["s"].to_numpy().tobytes() == matrix["s"].reshape(-1)[order].tobytes()


def test_zero_rows_and_zero_symbols():
    for data in (rows().slice(0, 0), pl.from_arrow(rows()).head(0), rows().to_pandas().head(0)):
        out = PROGRAM.batch(data)
        assert len(out) == 0
    assert PROGRAM.batch(rows().slice(0, 0).combine_chunks()).column_names == ["symbol", "ts_event", "s", "r"]
    empty = pa.RecordBatch.from_pylist([], schema=rows().schema)
    assert PROGRAM.batch(empty).num_rows == 0
    assert PROGRAM.batch({"close": np.zeros((0, 3))})["s"].shape == (0, 3)
    assert PROGRAM.batch({"close": np.zeros((3, 0))})["s"].shape == (3, 0)


def test_group_inputs_may_be_texts():
    program = f.compile({"n": f.indneutralize(close, sector)})
    assert program.labels == ("sector",)
    table = rows().append_column("sector", pa.array(["x", "x", "x", "y", None, "x"]))
    out = program.batch(table)
    np.testing.assert_array_equal(out["n"].to_numpy(), [-0.5, 0.5, 0, 0, np.nan, np.nan])
    live = program.stream(["A", "B", "C"])
    got = live.step(close=[1.0, 3, 5], sector=["x", "x", None])
    np.testing.assert_array_equal(got["n"], [-1, 1, np.nan])
    again = program.stream(state=live.snapshot())
    got = again.step(close=[1.0, 3, 5], sector=np.array(["y", "x", "y"]))
    np.testing.assert_array_equal(got["n"], [-2, 0, 2])
    np.testing.assert_array_equal(
        program.batch({"close": np.array([[1.0, 3]]), "sector": np.array([["t", "t"]])})["n"], [[-1, 1]]
    )


def test_labels_are_no_numbers_elsewhere():
    program = f.compile({"n": f.indneutralize(close, sector), "m": sector + 1})
    assert program.labels == ()
    table = rows().append_column("sector", pa.array(["x"] * 6))
    with pytest.raises(FactorError, match="expected numbers for 'sector', got string .* group labels"):
        program.batch(table)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: rows().drop_columns(["close"]), "field 'close' missing - in pyarrow Table with 'symbol', 'ts_event'"),
        (lambda: rows().rename_columns(["symbol", "ts_event", "clos", "x"]), "did you mean 'clos'"),
        (lambda: rows().drop_columns(["ts_event"]), "field 'ts_event' missing"),
        (
            lambda: rows().set_column(0, "symbol", pa.array(["A", None, "B", "B", "A", "A"])),
            "column 'symbol' has 1 nulls",
        ),
        (
            lambda: pa.concat_tables([rows(), rows()]),
            "there are two rows of 'B' at 1 - in pyarrow Table, row 6; keep one",
        ),
        (lambda: rows().set_column(2, "close", pa.array(list("abcdef"))), "expected numbers for 'close', got string"),
        (
            lambda: rows().set_column(1, "ts_event", pa.array(list("abcdef"))),
            "expected integers or timestamps in 'ts_event'",
        ),
        (lambda: 5, "expected a dict of .* frame, got builtins.int"),
        (lambda: pl.from_arrow(rows()).lazy(), "expected a polars DataFrame, got a LazyFrame; call .collect()"),
        (lambda: {}, "field 'close' missing - in a dict with no columns"),
        (lambda: {"Close": np.zeros((1, 1))}, "field 'close' missing - in a dict with 'Close'; did you mean 'Close'"),
        (
            lambda: {"close": np.zeros(3)},
            r"expected 'close' of shape \(rows, symbols\), got \(3,\); .*reshape\(-1, 1\)",
        ),
        (lambda: {"close": np.zeros((1, 1), "M8[s]")}, "expected numbers for 'close', got datetime64"),
        (lambda: {"close": [["a"]]}, "expected numbers for 'close'"),
    ],
)
def test_data_that_does_not_fit(make, message):
    with pytest.raises(FactorError, match=message):
        PROGRAM.batch(make())


def test_matrices_must_agree():
    program = f.compile({"x": close + sector})
    with pytest.raises(FactorError, match=r"expected 'sector' of shape \(2, 3\), as 'close' has, got \(3, 2\)"):
        program.batch({"close": np.zeros((2, 3)), "sector": np.zeros((3, 2))})


def test_a_stream_takes_frames_of_its_symbols():
    live = PROGRAM.stream(["A", "B", "C"])
    out = live.batch(rows())
    np.testing.assert_array_equal(out["s"].to_numpy(), WANT_S)
    with pytest.raises(FactorError, match="1 symbols are not the stream's, 'A' first"):
        PROGRAM.stream(["B", "C"]).batch(rows())


def test_float32_programs_round_once():
    program = f.compile({"x": close * 1}, dtype="float32")
    out = program.batch(rows().set_column(2, "close", pa.array([0.1] * 6)))
    assert out["x"].type == pa.float32()
    assert out["x"][0].as_py() == float(np.float32(0.1))
    assert program.batch(rows().set_column(2, "close", pa.array([1e300] * 6)))["x"][0].as_py() == np.inf
    assert program.stream(n=1).step(close=[-1e300])["x"][0] == -np.inf

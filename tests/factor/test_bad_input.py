"""Data that does not fit is refused with a next step and leaves the state as it was; unusual data that fits is read."""

from __future__ import annotations

import datetime as dt
import decimal
import tracemalloc

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from penstock import factor as f
from penstock.errors import FactorError

close, volume, group = f.fields("close", "volume", "group")
PROGRAM = f.compile({"s": f.ts_sum(close, 2), "r": f.rank(volume)})
ONE = f.compile({"s": f.ts_sum(close, 2), "r": f.rank(close)})
GROUPED = f.compile({"n": f.indneutralize(close, group)})
SHAPE = (4, 3)
PLAIN = np.arange(12.0).reshape(SHAPE)
WANT = ONE.batch({"close": PLAIN})


def same(got, want):
    return all(np.asarray(got[name]).tobytes() == want[name].tobytes() for name in want)


# ---- matrices ----


def unaligned():
    raw = np.zeros(12 * 8 + 1, np.uint8)
    raw[1:] = PLAIN.reshape(-1).view(np.uint8)
    return raw[1:].view(np.float64).reshape(SHAPE)


def read_only():
    x = PLAIN.copy()
    x.flags.writeable = False
    return x


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.asfortranarray(PLAIN),
        lambda: np.repeat(np.repeat(PLAIN, 2, 0), 3, 1)[::2, ::3],
        lambda: PLAIN[::-1, ::-1].copy()[::-1, ::-1],
        lambda: PLAIN.astype(">f8"),
        lambda: PLAIN.astype("<f8"),
        lambda: PLAIN.astype(">f4"),
        lambda: PLAIN.astype("f2"),
        lambda: PLAIN.astype(np.longdouble),
        lambda: PLAIN.astype(">i4"),
        lambda: PLAIN.astype("u1"),
        lambda: PLAIN.astype("i8"),
        lambda: PLAIN.astype(object),
        lambda: PLAIN.tolist(),
        lambda: PLAIN.astype(int).tolist(),
        lambda: np.array([[decimal.Decimal(int(v)) for v in row] for row in PLAIN]),
        lambda: pd.DataFrame(PLAIN),
        lambda: pl.DataFrame(PLAIN),
        lambda: np.ma.array(PLAIN),
        lambda: memoryview(PLAIN),
        unaligned,
        read_only,
    ],
)
def test_matrices_of_any_layout_and_kind_of_number(make):
    given = make()
    assert same(ONE.batch({"close": given}), WANT)
    live = ONE.stream(n=3)
    assert same(live.batch({"close": given}), WANT)
    if isinstance(given, np.ndarray):
        np.testing.assert_array_equal(given.astype(float), PLAIN)  # and it was not written to


def test_one_value_for_all():
    assert ONE.batch({"close": np.broadcast_to(np.float64(3), SHAPE)})["s"][1:].tolist() == [[6.0] * 3] * 3


@pytest.mark.parametrize("value", [2**53 + 1, 2**63 - 1, -(2**63)])
def test_whole_numbers_beyond_a_float_become_the_nearest(value):
    out = f.compile({"x": close * 1}).batch({"close": np.full((1, 1), value, np.int64)})["x"]
    assert out[0, 0] == float(value)
    assert f.compile({"x": close * 1}).batch({"close": np.full((1, 1), 2**64 - 1, np.uint64)})["x"][0, 0] == 2.0**64
    out = f.compile({"x": close * 1}, dtype="float32").batch({"close": np.full((1, 1), value, np.int64)})["x"]
    assert out[0, 0] == np.float32(value)


BAD_VALUES = [
    (lambda n: np.zeros(n, complex), "expected numbers for 'close', got complex128"),
    (lambda n: np.full(n, "1"), "expected numbers for 'close', got <U1 \\('1'\\)"),
    (lambda n: np.full(n, b"1"), "expected numbers for 'close', got .S1 \\(b'1'\\)"),
    (lambda n: np.full(n, "x", object), "expected numbers for 'close', got object \\('x'\\)"),
    (lambda n: np.full(n, 10**400, object), "expected numbers for 'close', got object \\(a number of 1329 bits\\)"),
    (lambda n: np.full(n, 10**5000, object), "expected numbers for 'close', got object \\(a number of 16610 bits\\)"),
    (lambda n: np.full(n, 1j, object), "expected numbers for 'close', got object \\(1j\\)"),
    (lambda n: np.zeros(n, "M8[ns]"), "expected numbers for 'close', got datetime64"),
    (lambda n: np.zeros(n, "m8[s]"), "expected numbers for 'close', got timedelta64"),
    (lambda n: np.zeros(n, "V8"), "expected numbers for 'close', got .V8"),
    (lambda n: np.zeros(n, [("a", "f8")]), r"expected numbers for 'close', got \[\('a', '<f8'\)\]"),
    (lambda n: "abc", "expected numbers for 'close', got <U3 \\('abc'\\)"),
    (lambda n: None, "expected numbers for 'close', got object \\(None\\)"),
    (lambda n: {"A": 1.0}, "expected numbers for 'close', got object \\({'A': 1.0}\\)"),
    (lambda n: iter([1.0]), "expected numbers for 'close', got object \\(<list_iterator"),
    (lambda n: [[1.0, 2.0], [3.0]], "'close' is no array: "),
    (lambda n: [1.0, [2.0]], "'close' is no array: "),
]
KINDS = [str(i) for i in range(len(BAD_VALUES))]


@pytest.mark.parametrize("make, message", BAD_VALUES, ids=KINDS)
def test_other_values_are_refused_in_a_batch(make, message):
    for call in (PROGRAM.batch, PROGRAM.stream(n=3).batch):
        with pytest.raises(FactorError, match=message):
            call({"close": make(SHAPE), "volume": PLAIN})


@pytest.mark.parametrize("make, message", BAD_VALUES, ids=KINDS)
def test_other_values_are_refused_in_a_push(make, message):
    live = PROGRAM.stream(n=3)
    live.step(close=[1, 2, 3], volume=[1, 2, 3])
    before = live.snapshot()
    with pytest.raises(FactorError, match=f"{message}.* - in push"):
        live.push("close", make(3))
    with pytest.raises(FactorError, match=message):
        live.step(volume=[1, 2, 3], close=make(3))
    assert live.snapshot() == before
    assert live.step(close=[1, 2, 3], volume=[1, 2, 3])["s"].tolist() == [2, 4, 6]


SHAPES = [(0, 3), (3, 0), (0, 0), (1, 3), (3, 1), (1, 1)]


@pytest.mark.parametrize("engine", ["llvm", "numpy"])
@pytest.mark.parametrize("shape", SHAPES)
def test_no_rows_no_symbols_one_row(engine, shape):
    nodes = {"s": f.ts_sum(close, 2), "r": f.rank(close), "e": f.ema(close, 3), "n": f.indneutralize(close, group)}
    program = f.compile(nodes, engine=engine)
    out = program.batch({"close": np.ones(shape), "group": np.ones(shape)})
    assert all(x.shape == shape and x.dtype == np.float64 for x in out.values())
    if shape[1]:
        live = program.stream(n=shape[1])
        before = live.snapshot()
        live.batch({"close": np.ones(shape), "group": np.ones(shape)})
        assert live.ordinal == shape[0]
        assert (live.snapshot() == before) == (shape[0] == 0)


@pytest.mark.parametrize(
    "shape, message",
    [
        ((), r"expected 'close' of shape \(rows, symbols\), got \(\)"),
        ((3,), r"got \(3,\); a single series is array.reshape\(-1, 1\)"),
        ((2, 3, 1), r"got \(2, 3, 1\)"),
        ((4, 2), r"expected 'volume' of shape \(4, 2\), as 'close' has, got \(4, 3\)"),
        ((5, 3), r"expected 'volume' of shape \(5, 3\), as 'close' has, got \(4, 3\)"),
    ],
)
def test_shapes_that_do_not_fit(shape, message):
    with pytest.raises(FactorError, match=message):
        PROGRAM.batch({"close": np.zeros(shape), "volume": PLAIN})


def test_a_wrong_number_of_symbols_in_a_stream():
    live = PROGRAM.stream(n=2)
    with pytest.raises(FactorError, match="expected 2 symbols in 'close', got 3"):
        live.batch({"close": PLAIN, "volume": PLAIN})
    for values in ([1.0], [1.0, 2.0, 3.0], [[1.0, 2.0]], 1.0, np.zeros((2, 1)), np.zeros(0)):
        with pytest.raises(FactorError, match=r"expected 'close' of shape \(2,\), one value per symbol, got \("):
            live.push("close", values)
    assert live.ordinal == 0


# ---- ticks ----


def test_a_refused_step_leaves_nothing_behind():
    # Or the row that is pushed and run next would be half of the refused one.
    live = PROGRAM.stream(n=2)
    with pytest.raises(FactorError, match="expected numbers for 'volume'"):
        live.step(close=[7.0, 7.0], volume=["a", "b"])
    live.push("volume", [1.0, 2.0])
    with pytest.raises(FactorError, match="no row of 'close' for tick 0; push every input before run; NaN for what"):
        live.run()


def test_a_missing_input_names_itself():
    live = PROGRAM.stream(n=2)
    with pytest.raises(
        FactorError, match="no row of 'volume' for tick 0 - in step; NaN stands for what is missing"
    ) as c:
        live.step(close=[1, 2])
    assert c.value.missing == ["volume"]
    assert np.isnan(live.step(close=[1, 2], volume=[np.nan, 1])["r"]).tolist() == [True, False]
    assert np.isnan(live.step(close=[1, 2], volume=[None, 1])["r"]).tolist() == [True, False]


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda live: live.push("s", [1, 2]), "expected an input, got 's' - in push; inputs are close, volume"),
        (lambda live: live.push(live.handle("s"), np.zeros(2)), "expected an input, got 's' - in push"),
        (lambda live: live.push(-1, [1, 2]), "expected an input, got -1 - in push"),
        (lambda live: live.push(-1, np.zeros(2)), "expected an input, got -1 - in push"),
        (lambda live: live.push(4, np.zeros(2)), "expected an input, got 4 - in push"),
        (lambda live: live.push(0.0, np.zeros(2)), "there is no input or output 0.0"),
        (lambda live: live.push(None, np.zeros(2)), "there is no input or output None"),
        (lambda live: live.push(True, np.zeros(2)), "there is no input or output True"),
        (lambda live: live.push("clsoe", [1, 2]), "there is no input or output 'clsoe'; did you mean 'close'"),
        (lambda live: live.current("volume"), "expected an output, got 'volume'; outputs are s, r"),
        (lambda live: live.current(-1), "expected an output, got -1"),
        (lambda live: live.current(None), "there is no input or output None"),
        (lambda live: live.current("s"), "there is no row yet; push every input and run"),
        (lambda live: live.add_symbols("C"), r"expected a list of symbols, got 'C'; \['C'\]"),
        (lambda live: live.add_symbols(["A"]), "symbol 'A' is given twice"),
        (lambda live: live.add_symbols(["C", "C"]), "symbol 'C' is given twice"),
        (lambda live: live.add_symbols([2.5]), "expected symbols that are texts or whole numbers, got 2.5"),
        (lambda live: live.add_symbols(5), "expected a list of symbols, got 5"),
        (lambda live: live.drop_symbols("A"), r"expected a list of symbols, got 'A'; \['A'\]"),
        (lambda live: live.drop_symbols(["C"]), "'C' is not a symbol of this stream - in drop_symbols"),
        (lambda live: live.drop_symbols([["A"]]), r"expected symbols that are texts or whole numbers, got \['A'\]"),
        (lambda live: live.drop_symbols(["A", "B"]), "a stream needs at least one symbol"),
    ],
)
def test_what_a_stream_refuses(call, message):
    live = PROGRAM.stream(["A", "B"])
    before = live.snapshot()
    with pytest.raises(FactorError, match=message):
        call(live)
    assert live.snapshot() == before


def test_symbols_may_be_dropped_twice_in_one_call():
    live = PROGRAM.stream(["A", "B", "C"])
    live.drop_symbols(["A", "A"])
    live.add_symbols([])
    live.drop_symbols([])
    assert live.symbols == ("B", "C")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"n": 2.5}, "expected n a whole number of symbols, got 2.5 - in program.stream"),
        ({"n": "3"}, "expected n a whole number of symbols, got '3'"),
        ({"n": True}, "expected n a whole number of symbols, got True"),
        ({"n": -1}, "a stream needs at least one symbol"),
        ({"n": 10**12}, "expected n at most 16,777,216, got 1,000,000,000,000 - in program.stream"),
        ({"symbols": range(10**12)}, "expected at most 16,777,216 symbols, got 1,000,000,000,000"),
        ({"symbols": {"a", "b"}}, r"expected symbols in order, got a set; .* sorted\(symbols\)"),
        ({"symbols": 5}, "expected a list of symbols, got 5"),
        ({"symbols": b"AB"}, "expected a list of symbols, got b'AB'"),
        ({"symbols": ["a", "\ud800"]}, r"expected symbols that are Unicode text, got '\\ud800'"),
        ({"symbols": [2**70]}, "expected symbols of at most 64 bits, got one of 71 bits"),
        ({"n": 1, "first": -1}, r"expected first a whole number from 0 to 2 \*\* 62, got -1 - in program.stream"),
        ({"n": 1, "first": 2.5}, "expected first a whole number .*, got 2.5"),
        ({"n": 1, "first": True}, "expected first a whole number .*, got True"),
        ({"n": 1, "first": 2**62 + 1}, "expected first a whole number"),
        ({"n": 1, "executor": 3}, "expected an Executor, got 3; with f.Executor"),
        ({"state": 5}, "expected the bytes of a snapshot, or its file, got int"),
        ({"state": PROGRAM.stream(n=1).snapshot(), "first": 4}, "state and first are both given; a snapshot knows"),
    ],
    ids=range(18),
)
def test_streams_that_cannot_be(options, message):
    with pytest.raises(FactorError, match=message):
        PROGRAM.stream(**options)


@pytest.mark.parametrize(
    "symbols", [["", "x"], ["a\0b"], [2**63 - 1, -(2**63)], ["1", 1], {"A": 1, "B": 2}, "AB".split()]
)
def test_unusual_symbols_survive_a_snapshot(symbols):
    live = PROGRAM.stream(symbols)
    assert PROGRAM.stream(state=live.snapshot()).symbols == live.symbols == tuple(symbols)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"first": -1}, r"expected first a whole number from 0 to 2 \*\* 62, got -1 - in program.batch"),
        ({"first": 2.5}, "expected first a whole number"),
        ({"first": None}, "expected first a whole number"),
        ({"first": 2**63}, "expected first a whole number"),
        ({"executor": 3}, "expected an Executor, got 3"),
    ],
)
def test_batches_that_cannot_be(options, message):
    with pytest.raises(FactorError, match=message):
        ONE.batch({"close": PLAIN}, **options)


def test_a_closed_executor_leaves_a_stream_as_it_was():
    with f.Executor(threads=2) as crew:
        live = PROGRAM.stream(n=3, executor=crew)
        live.batch({"close": PLAIN, "volume": PLAIN})
    for call in (
        lambda: live.batch({"close": PLAIN, "volume": PLAIN}),
        lambda: live.step(close=[1, 2, 3], volume=[1, 2, 3]),
        lambda: PROGRAM.stream(n=3, executor=crew),
        lambda: PROGRAM.batch({"close": PLAIN, "volume": PLAIN}, executor=crew),
    ):
        with pytest.raises(FactorError, match="this executor is closed; make another one"):
            call()
    alone = PROGRAM.stream(state=live.snapshot())
    assert alone.ordinal == 4
    assert alone.step(close=[1, 2, 3], volume=[1, 2, 3])["s"].tolist() == [10, 12, 14]


# ---- long frames ----

BASE = pa.table(
    {"symbol": ["B", "A", "B", "A"], "ts_event": pa.array([1, 1, 2, 2], pa.int64()), "close": [1.0, 2, 3, 4]}
)
FRAME, POLARS = BASE.to_pandas(), pl.from_arrow(BASE)
SUMS = [np.nan, np.nan, 4.0, 6.0]


def column(at, name, values):
    return BASE.set_column(at, name, values)


def times(kind):
    return column(
        1, "ts_event", BASE["ts_event"].cast(pa.int32() if pa.types.is_date32(kind) else pa.int64()).cast(kind)
    )


FRAMES = {
    "unsorted": lambda: BASE.take([3, 0, 2, 1]).take([1, 3, 2, 0]),
    "pandas categorical": lambda: FRAME.assign(symbol=FRAME.symbol.astype("category")),
    "pandas unused categories": lambda: FRAME.assign(symbol=pd.Categorical(FRAME.symbol, ["Z", "A", "B"])),
    "pandas time zone": lambda: FRAME.assign(
        ts_event=pd.to_datetime(FRAME.ts_event).dt.tz_localize("America/New_York")
    ),
    "pandas times": lambda: FRAME.assign(ts_event=pd.to_datetime(FRAME.ts_event)),
    "pandas dates": lambda: FRAME.assign(ts_event=[dt.date(2026, 1, d) for d in (1, 1, 2, 2)]),
    "pandas objects": lambda: FRAME.astype({"close": object, "symbol": object}),
    "pandas nullable": lambda: FRAME.convert_dtypes(),
    "pandas of arrow": lambda: FRAME.convert_dtypes(dtype_backend="pyarrow"),
    "pandas doubled index": lambda: FRAME.set_index(pd.Index([0, 0, 0, 0])),
    "pandas symbol as index": lambda: FRAME.set_index("symbol"),
    "pandas both as index": lambda: FRAME.set_index(["symbol", "ts_event"]),
    "polars categorical": lambda: POLARS.with_columns(pl.col("symbol").cast(pl.Categorical)),
    "polars enum": lambda: POLARS.with_columns(pl.col("symbol").cast(pl.Enum(["A", "B"]))),
    "polars time zone": lambda: POLARS.with_columns(pl.col("ts_event").cast(pl.Datetime("us", "Europe/Berlin"))),
    "polars date": lambda: POLARS.with_columns(pl.col("ts_event").cast(pl.Int32).cast(pl.Date)),
    "polars decimal": lambda: POLARS.with_columns(pl.col("close").cast(pl.Decimal(10, 2))),
    "polars chunks": lambda: pl.concat([POLARS[:2], POLARS[2:]], rechunk=False),
    "duckdb": lambda: duckdb.from_arrow(BASE).project("*"),
    "duckdb time zone": lambda: duckdb.from_arrow(BASE).project(
        "symbol, timestamptz '2026-01-01 00:00:00+00' + to_seconds(ts_event) as ts_event, close"
    ),
    "duckdb hugeint": lambda: duckdb.from_arrow(BASE).project("symbol, ts_event, close::hugeint as close"),
    "reader": lambda: BASE.to_reader(),
    "batch": lambda: BASE.to_batches()[0],
    "small dictionary": lambda: column(
        0, "symbol", BASE["symbol"].dictionary_encode().cast(pa.dictionary(pa.int8(), pa.string()))
    ),
    "doubled dictionary": lambda: column(
        0, "symbol", pa.DictionaryArray.from_arrays(pa.array([0, 1, 2, 1]), pa.array(["B", "A", "B"]))
    ),
    "large text": lambda: column(0, "symbol", BASE["symbol"].cast(pa.large_string())),
    "text view": lambda: column(0, "symbol", BASE["symbol"].cast(pa.string_view())),
    "numbers for symbols": lambda: column(0, "symbol", pa.array([7, 3, 7, 3])),
    "date64": lambda: times(pa.date64()),
    "date32": lambda: times(pa.date32()),
    "unsigned": lambda: times(pa.uint64()),
    "nanoseconds": lambda: times(pa.timestamp("ns", "UTC")),
    "before 1970": lambda: column(1, "ts_event", pa.array([-5, -5, -2, -2])),
    "half": lambda: column(2, "close", BASE["close"].cast(pa.float16())),
    "decimal256": lambda: column(2, "close", BASE["close"].cast(pa.decimal256(50, 2))),
    "whole": lambda: column(2, "close", BASE["close"].cast(pa.uint8())),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_frames_of_many_kinds(kind):
    given = FRAMES[kind]()
    out = ONE.batch(given)
    made = pa.table(out.reset_index() if isinstance(out, pd.DataFrame) and out.index.names[0] else out)
    assert made["s"].to_numpy(zero_copy_only=False).tobytes() == np.array(SUMS).tobytes()
    assert made["r"].to_pylist() == [0.5, 1.0, 0.5, 1.0]
    if isinstance(given, (pl.DataFrame, pd.DataFrame)):
        assert type(out) is type(given)
        for name in ("symbol", "ts_event"):
            if name in given.columns:
                assert out[name].dtype == given[name].dtype or kind in (
                    "pandas objects",
                    "pandas dates",
                    "pandas nullable",
                    "pandas of arrow",
                )


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda: FRAME.assign(close=["x", 1, 2, 3]),
            "cannot be read as Arrow: .* column close .* - in pandas DataFrame; a column of one type",
        ),
        (lambda: FRAME.assign(symbol=pd.Series([1, "A", 1, "A"], dtype=object)), "cannot be read as Arrow"),
        (lambda: pd.concat([FRAME, FRAME[["close"]]], axis=1), "cannot be read as Arrow: Duplicate column names"),
        (lambda: FRAME["close"], "cannot be read as Arrow: .* - in pandas Series"),
        (lambda: POLARS["close"], "cannot be read as Arrow: .* - in polars Series"),
        (lambda: POLARS.lazy(), "expected a polars DataFrame, got a LazyFrame; call .collect"),
        (lambda: POLARS.with_columns(pl.col("ts_event").cast(pl.Int128)), "cannot be read as Arrow"),
        (lambda: pd.DataFrame(), "fields 'symbol', 'ts_event', 'close' missing - in pandas DataFrame with no columns"),
        (
            lambda: FRAME.rename(columns={"close": "Close"}),
            "field 'close' missing - .*; did you mean|field 'close' missing",
        ),
        (
            lambda: FRAME.assign(ts_event=pd.to_datetime([1, None, 2, 2])),
            "column 'ts_event' has 1 nulls .* drop those rows",
        ),
        (
            lambda: FRAME.assign(ts_event=FRAME.ts_event.astype(float)),
            "expected integers or timestamps in 'ts_event', got double",
        ),
        (lambda: FRAME.assign(ts_event=list("abcd")), "expected integers or timestamps in 'ts_event'"),
        (
            lambda: POLARS.with_columns(pl.col("ts_event").cast(pl.Duration("us"))),
            "expected integers or timestamps .* got duration",
        ),
        (
            lambda: column(1, "ts_event", pa.array([1, 1, 2**63, 2**63], pa.uint64())),
            r"expected times below 2 \*\* 63 in 'ts_event'",
        ),
        (
            lambda: pa.concat_tables([BASE, BASE]),
            "there are two rows of 'B' at 1 - in pyarrow Table, row 4; keep one row",
        ),
        (
            lambda: pa.table([*BASE.columns, BASE["close"]], [*BASE.column_names, "close"]),
            "there are two columns 'close'",
        ),
        (
            lambda: pa.table([*BASE.columns, BASE["symbol"]], [*BASE.column_names, "symbol"]),
            "there are two columns 'symbol'",
        ),
        (
            lambda: column(0, "symbol", pa.array([{"a": 1}] * 4)),
            "expected symbols that are texts or whole numbers, got struct",
        ),
        (lambda: column(0, "symbol", pa.nulls(4)), "column 'symbol' has 4 nulls"),
        (
            lambda: column(0, "symbol", pa.DictionaryArray.from_arrays(pa.array([0, 1, 0, 1]), pa.array(["B", None]))),
            "is null|nulls",
        ),
        (lambda: column(2, "close", pa.array([[1.0]] * 4)), "expected numbers for 'close', got list"),
        (lambda: column(2, "close", pa.array(list("abcd"))), "expected numbers for 'close', got string"),
        (
            lambda: column(2, "close", pa.array([dt.datetime(2026, 1, 1, tzinfo=dt.UTC)] * 4)),
            "expected numbers for 'close', got timestamp",
        ),
        (lambda: [{"symbol": "A"}], "expected a dict of .* frame, got builtins.list"),
        (lambda: np.ones((2, 2)), "expected a dict of .* frame, got numpy.ndarray"),
        (lambda: None, "expected a dict of .* frame, got builtins.NoneType"),
        (lambda: "bars.parquet", "expected a dict of .* frame, got builtins.str"),
    ],
    ids=range(27),
)
def test_frames_that_do_not_fit(make, message):
    for call in (ONE.batch, ONE.stream(["A", "B"]).batch):
        with pytest.raises(FactorError, match=message):
            call(make())


def test_names_of_the_keys_columns():
    with pytest.raises(FactorError, match="field 'ticker' missing - in pyarrow Table with"):
        ONE.batch(BASE, symbol="ticker")
    with pytest.raises(FactorError, match="field None missing"):
        ONE.batch(BASE, symbol=None)
    other = f.compile({"ticker": close + 1})
    renamed = BASE.rename_columns(["ticker", "ts_event", "close"])
    live = other.stream(["A", "B"])
    for call in (other.batch, live.batch):
        with pytest.raises(FactorError, match="'ticker' is a factor and a column of the frame's keys; rename one"):
            call(renamed, symbol="ticker")
    assert live.ordinal == 0


def test_a_frame_whose_times_are_all_different_is_refused_where_it_does_not_fit(monkeypatch):
    def full(shape, *_):
        raise MemoryError

    monkeypatch.setattr(np, "full", full)
    with pytest.raises(FactorError, match="2 times of 2 symbols are too much memory for 4 rows - .*; is each time"):
        ONE.batch(BASE)


def test_strange_symbols_leave_a_stream_as_it_was():
    live = ONE.stream(["A"])
    with pytest.raises(
        FactorError, match="1 symbols are not the stream's, 'B' first - .*; add them with live.add_symbols"
    ):
        live.batch(BASE)
    assert live.ordinal == 0
    live.add_symbols(["B"])
    assert live.batch(BASE)["s"].to_pylist()[2:] == [4.0, 6.0]


def test_a_sparse_frame_is_refused_before_its_grid_is_made():
    count = 30_000
    table = pa.table({"symbol": range(count), "ts_event": range(count), "close": np.ones(count)})
    program = f.compile({"s": f.ts_sum(close, 2)})
    tracemalloc.start()
    try:
        with pytest.raises(
            FactorError,
            match="30,000 times of 30,000 symbols are a grid of 13.4 GiB for 30,000 rows - in pyarrow Table; is each time",
        ):
            program.batch(table)
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()
    # Of rounded times the grid is full, and is no larger than the rows.
    rounded = table.set_column(1, "ts_event", pa.array(np.arange(count) // 15_000))
    assert program.batch(rounded).num_rows == count


# ---- labels of groups ----


@pytest.mark.parametrize(
    "labels",
    [
        [["a", "b", "a"]],
        np.array([["a", "b", "a"]]),
        np.array([["a", "b", "a"]], "S1"),
        np.array([["a", "b", "a"]], object),
        np.array([["a", "b", "a"]], np.dtypes.StringDType()),
        np.array([[b"a", "b", "a"]], object),
        np.array([[1, 2, 1]]),
        np.array([[1.5, -2.5, 1.5]]),
        np.array([[-0.0, 1, 0.0]]),
        np.array([[True, False, True]]),
    ],
    ids=range(10),
)
def test_labels_may_be_texts_or_numbers(labels):
    assert GROUPED.batch({"close": [[1.0, 2, 3]], "group": labels})["n"].tolist() == [[-1, 0, 1]]


@pytest.mark.parametrize("absent", [None, "", float("nan"), np.nan, b""])
def test_a_missing_label_has_no_group(absent):
    labels = np.array([["a", absent, "a"]], object)
    out = GROUPED.batch({"close": [[1.0, 2, 3]], "group": labels})["n"]
    assert np.isnan(out).tolist() == [[False, True, False]]
    live = GROUPED.stream(n=3)
    assert np.isnan(live.step(close=[1, 2, 3], group=labels[0])["n"]).tolist() == [False, True, False]


def ways_to_give(live):
    """A group's row by each of the ways in."""
    close = [1.0, 2, 3]
    return {
        "step": lambda row: live.step(close=close, group=row),
        "an array": lambda row: live.step(close=close, group=np.asarray(row, live.program.dtype)),
        "tick": lambda row: live.tick(np.array([close, row])),
        "batch": lambda row: live.batch({"close": [close], "group": [row]}),
        "a frame": lambda row: live.batch(
            pa.table({"symbol": [0, 1, 2], "ts_event": [9] * 3, "close": close, "group": row})
        ),
    }


@pytest.mark.parametrize("way", ways_to_give(None))
def test_a_group_of_texts_takes_no_numbers(way):
    live = GROUPED.stream(n=3)
    live.step(close=[1, 2, 3], group=["b", "a", "b"])
    live = GROUPED.stream(state=live.snapshot())
    give = ways_to_give(live)[way]
    with pytest.raises(
        FactorError, match=r"expected texts for 'group', as before \('b', 'a'\), got 0.0; label a group"
    ):
        give([float("nan"), 0.0, 1.0])
    give([float("nan")] * 3)
    assert live.ordinal == 2
    assert live.step(close=[1, 2, 3], group=["b", "a", "b"])["n"].tolist() == [-1, 0, 1]


@pytest.mark.parametrize("way", ways_to_give(None))
def test_a_group_of_numbers_takes_no_texts(way):
    live = GROUPED.stream(n=3)
    give = ways_to_give(live)[way]
    give([float("nan")] * 3)
    give([3.0, 1.0, 3.0])
    for _ in range(2):
        with pytest.raises(FactorError, match="expected numbers for 'group', as before, got 'b'; label a group"):
            live.step(close=[1, 2, 3], group=["b", "a", "b"])
    assert live.step(close=[1, 2, 3], group=[0, 1, 0])["n"].tolist() == [-1, 0, 1]
    assert live.ordinal == 3


@pytest.mark.parametrize("package", ["pandas", "polars", "arrow"])
def test_labels_in_frames(package):
    table = BASE.append_column("group", pa.array(["x", "x", "x", None]))
    made = {
        "pandas": lambda: table.to_pandas().assign(group=pd.Categorical(["x", "x", "x", None])),
        "polars": lambda: pl.from_arrow(table).with_columns(pl.col("group").cast(pl.Categorical)),
        "arrow": lambda: table.set_column(3, "group", table["group"].dictionary_encode()),
    }[package]()
    out = pa.table(GROUPED.batch(made))["n"].to_numpy(zero_copy_only=False)
    np.testing.assert_array_equal(out, [-0.5, 0.5, 0, np.nan])

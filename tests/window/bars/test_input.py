"""What may come in: kinds of columns and symbols, and what each wrong one is told."""

from __future__ import annotations

import decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import PenstockError, RecordError, SchemaMismatch, TypeMismatch
from penstock.window.bars import Bars
from penstock.window.bars import symbols as bars_symbols
from penstock.window.bars.symbols import Symbols

pytestmark = pytest.mark.usefixtures("either")

S = 10**9
ROWS: dict[str, Any] = {
    "symbol": ["A", "B", "A", "C"],
    "ts_event": [0, 1, 2, 3],
    "price": [1.0, 2.0, 3.0, 4.0],
    "size": [1, 2, 3, 4],
}
VIEW = pa.string_view() if hasattr(pa, "string_view") else None  # since pyarrow 16
OHLC = ("open", "high", "low", "close")


def batch(**columns: Any) -> pa.RecordBatch:
    """ROWS with other or more columns; None leaves one out."""
    given = {name: column for name, column in (ROWS | columns).items() if column is not None}
    return pa.RecordBatch.from_pydict(given)


def out(rows: pa.RecordBatch, **options: Any) -> list[tuple[Any, ...]]:
    made = Bars("1s", **options).batch(rows)
    return list(zip(*(made.column(name).to_pylist() for name in ("symbol", "close", "volume")), strict=True))


EXPECTED = [("A", 3.0, 4), ("B", 2.0, 2), ("C", 4.0, 4)]


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.dictionary(pa.int8(), pa.string()),
        pa.dictionary(pa.int64(), pa.large_string()),
        *([VIEW, pa.dictionary(pa.uint16(), VIEW)] if VIEW else []),
    ],
    ids=str,
)
def test_symbols_of_any_kind_of_text(kind: pa.DataType) -> None:
    rows = batch(symbol=pa.array(ROWS["symbol"]).cast(kind))
    assert out(rows) == EXPECTED
    assert Bars("1s").batch(rows).schema.field("symbol").type == pa.string()


@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_symbols_of_any_integer_kind(kind: str) -> None:
    numbers = {"A": 7, "B": 3, "C": 120}
    column = pa.array([numbers[name] for name in ROWS["symbol"]], pa.type_for_alias(kind))
    expected = [(numbers[name], *rest) for name, *rest in EXPECTED]
    for symbol in (column, column.dictionary_encode()):
        assert out(batch(symbol=symbol)) == expected
        made = Bars("1s").batch(batch(symbol=symbol)).schema.field("symbol").type
        assert made == (pa.uint64() if kind == "uint64" else pa.int64())


texts = st.lists(st.lists(st.sampled_from(["", "A", "AA", "Å", "B", "x" * 40]), max_size=8), max_size=6)
integers = st.lists(
    st.lists(st.integers(0, 5) | st.integers(-(2**63), 2**63 - 1) | st.integers(10**6, 10**6 + 9), max_size=8),
    max_size=6,
)


@settings(deadline=None)
@given(texts | integers, st.data())
def test_symbols_are_numbered_as_rows_show_them(batches: list[list[Any]], data: st.DataObject) -> None:
    """However each batch spells them: plain, or in dictionaries with other orders, repeats and unused values."""
    symbols, expected = Symbols("symbol"), {}
    is_text = any(isinstance(value, str) for values in batches for value in values)
    kind = pa.string() if is_text else pa.int64()
    for values in batches:
        column = pa.array(values, kind)
        if data.draw(st.booleans()):
            words = data.draw(st.permutations([*values, *(expected or values)]))
            codes = pa.array([words.index(value) for value in values], pa.int16())
            column = pa.DictionaryArray.from_arrays(codes, pa.array(words, kind))
        numbers = symbols.encode(pa.RecordBatch.from_arrays([column], names=["symbol"]), 0)
        assert numbers.tolist() == [expected.setdefault(value, len(expected)) for value in values]
        assert symbols.array().to_pylist() == list(expected)


def test_a_dictionary_may_say_a_value_twice() -> None:
    symbol = pa.DictionaryArray.from_arrays(pa.array([1, 0, 2, 1]), pa.array(["A", "A", "B"]))
    assert [row[0] for row in out(batch(symbol=symbol))] == ["A", "B"]


def test_a_shared_dictionary_is_looked_up_once() -> None:
    words = pa.array([f"S{i}" for i in range(500)])
    symbols = Symbols("symbol")
    random = np.random.default_rng(0)
    for _ in range(3):
        codes = random.integers(0, 500, 1000)
        column = pa.DictionaryArray.from_arrays(pa.array(codes), words)
        numbers = symbols.encode(pa.RecordBatch.from_arrays([column], names=["symbol"]), 0)
        assert symbols.array().take(pa.array(numbers)).to_pylist() == column.to_pylist()
        assert symbols._dictionary is not None


def test_a_wide_dictionary_under_few_rows_is_not_read_whole() -> None:
    words = pa.array([f"S{i}" for i in range(5000)])
    symbols = Symbols("symbol")
    column = pa.DictionaryArray.from_arrays(pa.array([4999, 7, 4999], pa.int32()), words)
    rows = pa.RecordBatch.from_arrays([column], names=["symbol"])
    for _ in range(2):
        assert symbols.encode(rows, 0).tolist() == [0, 1, 0]
    assert len(symbols) == 2


@pytest.mark.parametrize("spread", [1, 3, 10**12])
def test_many_integer_symbols(spread: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bars_symbols, "_WIDEST", 1 << 12)
    symbols, expected = Symbols("symbol"), {}
    random = np.random.default_rng(1)
    for reach in (1, 10, 1000, 5000, 100):
        values = random.integers(-reach, reach, 700) * spread
        numbers = symbols.encode(pa.RecordBatch.from_arrays([pa.array(values)], names=["symbol"]), 0)
        assert numbers.tolist() == [expected.setdefault(value, len(expected)) for value in values.tolist()]


def test_a_million_symbols() -> None:
    count = 1_000_000
    symbol = np.random.default_rng(2).permutation(count)
    table = pa.table(
        {
            "symbol": symbol,
            "ts_event": np.arange(count) * 5_000,  # 5 s
            "price": symbol.astype(float),
            "size": np.ones(count, np.int64),
        }
    )
    bars = Bars("2s")
    made = [bars.update(part) for part in table.to_batches(max_chunksize=200_000)]
    out = pa.Table.from_batches([*made, bars.flush()])
    assert out.num_rows == bars.statistics().symbols == count
    assert (out.column("symbol").to_numpy() == symbol).all()
    assert (out.column("close").to_numpy() == symbol).all()


@pytest.mark.parametrize(
    "kind", [pa.float32(), pa.int32(), pa.uint64(), pa.decimal128(9, 2), pa.float16(), pa.float64()], ids=str
)
def test_prices_of_any_numeric_kind(kind: pa.DataType) -> None:
    if pa.types.is_decimal(kind):
        price = pa.array([decimal.Decimal(i) for i in (1, 2, 3, 4)], kind)
    else:
        price = pa.array(np.array([1, 2, 3, 4], kind.to_pandas_dtype()), kind)
    assert out(batch(price=price)) == EXPECTED


@pytest.mark.parametrize("kind", ["int8", "uint8", "int32", "uint64", "int64"])
def test_sizes_of_any_integer_kind_make_int64_volumes(kind: str) -> None:
    rows = batch(size=pa.array(ROWS["size"], pa.type_for_alias(kind)))
    assert out(rows) == EXPECTED
    assert Bars("1s").batch(rows).schema.field("volume").type == pa.int64()


def test_sizes_of_any_fractional_kind_make_float_volumes() -> None:
    for size in (pa.array([1, 2, 3, 4], pa.float32()), pa.array([decimal.Decimal(i) for i in (1, 2, 3, 4)])):
        made = Bars("1s").batch(batch(size=size))
        assert made.schema.field("volume").type == pa.float64()
        assert made.column("volume").to_pylist() == [4.0, 2.0, 4.0]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_times_may_be_timestamps(unit: str) -> None:
    seconds = pa.array([0, 1, 2, 3], pa.timestamp("s", "America/New_York"))
    made = Bars("1s").batch(batch(ts_event=seconds.cast(pa.timestamp(unit, "America/New_York"))))
    assert made.column("ts_event").to_pylist() == [0, S, 2 * S, 3 * S]


def test_columns_may_have_other_names() -> None:
    rows = pa.RecordBatch.from_pydict({"s": ["A"], "t": [5], "p": [1.5], "q": [2]})
    made = Bars("1s", by="s", time="t", price="p", size="q").batch(rows)
    assert made.column("symbol").to_pylist() == ["A"]
    assert made.column("volume").to_pylist() == [2]


def wrong(make: Any, kind: type[PenstockError], message: str, first: int = 100) -> Any:
    bars = Bars("1s", **make[1])
    before = bars.snapshot()
    with pytest.raises(kind) as error:
        bars.update(make[0], first)
    assert str(error.value) == message
    assert bars.snapshot() == before
    return error.value


def test_what_a_wrong_batch_is_told() -> None:
    wrong((batch(symbol=None), {}), SchemaMismatch, "expected a column `symbol`, got columns ts_event, price, size - "
        "in Bars; name the column with by=")  # fmt: skip
    wrong((batch(size=None), {}), SchemaMismatch, "expected a column `size` beside `price`, got columns symbol, "
        "ts_event, price - in Bars; name the column with size=, or give size=None for prices without one")  # fmt: skip
    wrong((batch(price=None), {}), SchemaMismatch, "expected a column `price`, or open, high, low, close and volume, "
        "or bid_px and ask_px with price='mid', got columns symbol, ts_event, size - in Bars; name the column with "
        "price=")  # fmt: skip
    wrong((batch(price=["1", "2", "3", "4"]), {}), TypeMismatch, "expected numbers for `price`, got string - at row "
        "100.price; cast the column before it comes here")  # fmt: skip
    wrong((batch(symbol=[1.0, 2.0, 3.0, 4.0]), {}), TypeMismatch, "expected strings or integers for `symbol`, got "
        "double - at row 100.symbol; cast the column before it comes here")  # fmt: skip
    error = wrong((batch(symbol=["A", None, "B", None]), {}), RecordError, "expected a symbol in `symbol`, got null - "
        "at row 101.symbol; filter such rows out before they come here")  # fmt: skip
    assert error.row == 101
    error = wrong((batch(size=[1, 2, -3, 4]), {}), RecordError, "expected size of at least 0, got -3 - at row "
        "102.size; cancellations are not sizes: filter such rows out before they come here")  # fmt: skip
    assert error.row == 102
    wrong((batch(size=[1.0, np.nan, -0.5, 4]), {}), RecordError, "expected size of at least 0, got -0.5 - at row "
        "102.size; cancellations are not sizes: filter such rows out before they come here")  # fmt: skip
    too_big = pa.array([1, 2, 3, 2**63], pa.uint64())
    with pytest.raises(TypeMismatch, match="expected sizes within int64, got .* - at row 0.size"):
        Bars("1s").update(batch(size=too_big))
    with pytest.raises(TypeMismatch, match="expected a time for `ts_event`, got null"):
        Bars("1s").update(batch(ts_event=pa.array([0, None, 2, 3], pa.int64())))
    with pytest.raises(TypeMismatch, match=r"expected a pyarrow.RecordBatch, got Table - in Bars.update; Bars.batch"):
        Bars("1s").update(pa.Table.from_batches([batch()]))  # type: ignore[arg-type]
    with pytest.raises(TypeMismatch, match=r"expected a pyarrow, polars or pandas frame, got list - in Bars.batch;"):
        Bars("1s").batch([ROWS])


@pytest.mark.skipif(VIEW is None, reason="pyarrow without view types")
def test_late_rows_keep_their_columns_whatever_their_kind() -> None:
    symbol = pa.array(["A", "B", "A", "B"], VIEW)
    rows = batch(symbol=symbol, ts_event=[0, 5 * S, 1, 2], venue=pa.array(list("wxyz")).dictionary_encode())
    bars = Bars("1s", late="side")
    bars.update(rows)
    (late,) = bars.late_rows()
    assert late.schema == rows.schema
    assert late.to_pylist() == rows.to_pylist()[2:]


def test_a_null_in_a_dictionary_is_a_null() -> None:
    symbol = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0, 1]), pa.array(["A", None]))
    with pytest.raises(RecordError, match=r"expected a symbol in `symbol`, got null - at row 8.symbol"):
        Bars("1s").update(batch(symbol=symbol), 7)


@pytest.mark.parametrize(
    "second, kind, message",
    [
        (batch(symbol=[1, 2, 3, 4]), TypeMismatch, "expected string for `symbol`, as in the batches before, got int64"),
        (batch(size=[1.0, 2.0, 3.0, 4.0]), TypeMismatch, "expected int64 sizes, as in the batches before, got float64"),
        (
            batch(price=None, size=None, volume=ROWS["size"], **dict.fromkeys(OHLC, ROWS["price"])),
            SchemaMismatch,
            "expected trades, as in the batches before, got bars: columns symbol, ts_event, volume, open, high, low",
        ),
    ],
)
def test_batches_stay_of_one_kind(second: pa.RecordBatch, kind: type[Exception], message: str) -> None:
    bars = Bars("1s")
    bars.update(batch())
    before = bars.snapshot()
    with pytest.raises(kind, match=message):
        bars.update(second)
    assert bars.snapshot() == before
    bars.update(batch(ts_event=[4, 5, 6, 7]))


def test_trade_counts_of_smaller_bars_are_integers() -> None:
    prices = dict.fromkeys(OHLC, ROWS["price"])
    rows = batch(price=None, size=None, volume=ROWS["size"], trade_count=[0.5] * 4, **prices)
    with pytest.raises(TypeMismatch, match="expected integers, got float64 - at row 0.trade_count"):
        Bars("1s").update(rows)

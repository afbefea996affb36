"""The compiled loops of bars do what NumPy does, to the bit."""

from __future__ import annotations

import platform
import subprocess
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import penstock.native
from penstock.errors import CompileError
from penstock.window.bars import Bars
from penstock.window.bars import kernel as kernels
from penstock.window.bars.cells import Cells, fold
from penstock.window.bars.input import Rows
from penstock.window.bars.kernel import Kernel, Strings
from penstock.window.bars.open import OpenBars, Table
from penstock.window.bars.symbols import Symbols

LOWEST, HIGHEST = -(2**63), 2**63 - 1
NAN, INF = float("nan"), float("inf")


@pytest.fixture(scope="module")
def loops() -> Kernel:
    return Kernel()


def bits(words: Any) -> Any:
    """Words with one NaN: which one a sum of two gives is up to the processor, as is NumPy's greater of 0.0 and -0.0."""
    words = np.array(words)
    for name in ("open", "high", "low", "close", "amount"):
        column = getattr(Cells(words, "int64"), name)
        column[np.isnan(column)] = np.nan
        if name in ("high", "low") and platform.machine() not in ("x86_64", "AMD64"):
            column += 0.0
    return words.tobytes()


prices = st.sampled_from([NAN, 0.0, -0.0, 1.0, 1.5, -2.0, INF, -INF, 1e308, 5e-324]) | st.floats()
times = st.sampled_from([LOWEST, -1, 0, 1, 2, HIGHEST]) | st.integers(0, 5)
wholes = st.sampled_from([0, 1, 7, HIGHEST, 2**53 + 1]) | st.integers(0, 100)
tables = st.lists(
    st.tuples(st.integers(0, 3), times, prices, prices, prices, prices, wholes, prices, st.integers(1, 9))
)


@settings(deadline=None, max_examples=300)
@given(tables, st.booleans(), st.sampled_from(["", "int64", "float64"]), st.booleans(), st.booleans(), st.data())
def test_folding_gives_the_bits_of_numpy(
    loops: Kernel, table: Any, one: bool, volume: str, amounts: bool, counts: bool, data: Any
) -> None:
    cell, time, opens, high, low, close, whole, real, count = (
        np.array([row[i] for row in table], kind) for i, kind in enumerate("l l d d d d l d l".split())
    )
    if one:
        opens = high = low = close
    size = {"": None, "int64": whole, "float64": real}[volume]
    amount = np.roll(high, 1) if amounts and volume else None
    rows = Rows(time, opens, high, low, close, size, amount, count if counts else None, None, 0)
    expected, plain, cut, ran = (Cells.empty(8, volume) for _ in range(4))
    with np.errstate(all="ignore"):
        fold(expected, cell, rows, False)
    loops.fold(plain, cell, rows, np.array([len(cell)]), np.zeros(1, np.int64))
    assert bits(plain.words) == bits(expected.words)

    at = data.draw(st.integers(0, len(cell)))
    for part in (slice(0, at), slice(at, None)):
        some = rows.take(np.arange(len(cell))[part])
        loops.fold(cut, cell[part], some, np.array([len(some.time)]), np.zeros(1, np.int64))
    assert bits(cut.words) == bits(expected.words)

    # Two runs, the second one page further.
    loops.fold(ran, cell, rows, np.array([at, len(cell)]), np.array([0, 4]))
    with np.errstate(all="ignore"):
        paged = Cells.empty(8, volume)
        fold(paged, cell + 4 * (np.arange(len(cell)) >= at), rows, False)
    assert bits(ran.words) == bits(paged.words)


@settings(deadline=None)
@given(tables, st.booleans())
def test_rows_in_order_need_no_loop_of_their_own(loops: Kernel, table: Any, whole: bool) -> None:
    table = sorted((row for row in table if row[1] < HIGHEST), key=lambda row: row[1])
    cell, time, price = (np.array([row[i] for row in table], kind) for i, kind in enumerate("lld"))
    size = np.array([row[6] for row in table], "l" if whole else "d")
    rows = Rows(time, price, price, price, price, size, None, None, None, 0)
    expected, ours = (Cells.empty(4, "int64" if whole else "float64") for _ in range(2))
    with np.errstate(all="ignore"):
        fold(expected, cell, rows, True)
    loops.fold(ours, cell, rows, np.array([len(cell)]), np.zeros(1, np.int64))
    assert bits(ours.words) == bits(expected.words)


@pytest.mark.parametrize("volume", ["int64", "float64"])
def test_many_rows_fold_to_the_bits_of_numpy(loops: Kernel, volume: str) -> None:
    random = np.random.default_rng(5)
    count = 300_000
    price = np.round(100 + np.cumsum(random.normal(0, 0.01, count)), 2)
    size = random.integers(1, 1000, count) if volume == "int64" else random.random(count)
    time, cell = random.integers(0, count // 2, count), random.integers(0, 500, count)
    rows = Rows(time, price, price, price, price, size, None, None, None, 0)
    expected, ours = Cells.empty(500, volume), Cells.empty(500, volume)
    fold(expected, cell, rows, False)
    loops.fold(ours, cell, rows, np.array([count]), np.zeros(1, np.int64))
    assert ours.words.tobytes() == expected.words.tobytes()


@settings(deadline=None)
@given(
    st.integers(1, 40), st.sampled_from(["", "int64", "float64"]), st.sampled_from(["order", "price", "size", ""]),
    st.integers(0, 39), st.sampled_from([NAN, INF, -INF]), st.sampled_from([-1, LOWEST]),
)  # fmt: skip
def test_a_scan_finds_what_is_odd(loops: Kernel, n: int, of: str, odd: str, where: int, real: float, low: int) -> None:
    where %= n
    time, price, size = np.arange(n), np.linspace(-1, 1, n), np.arange(n) % 7
    expected = 0
    if odd == "order" and where:
        time[where] = time[where - 1] - 1
        expected = 1
    elif odd == "price":
        price[where] = real
        expected = 2
    sizes = None if not of else size.astype(of)
    if odd == "size" and sizes is not None:
        sizes[where] = real if of == "float64" else low
        expected = 4
    found, most = loops.scan(time, price, sizes)
    assert found == expected
    if of == "int64":
        assert most == max(0, sizes.max())


def test_a_scan_of_nothing_finds_nothing(loops: Kernel) -> None:
    # What lies before the arrays is not looked at.
    time, values = np.arange(20)[::-1].copy(), np.full(20, NAN)
    assert loops.scan(time[10:10], values[10:10], values[10:10]) == (0, 0)
    assert loops.scan(time[10:11], values[10:11] * 0 + 1, None)[0] == 2
    assert loops.scan(time[10:11], np.ones(1), None)[0] == 0


@pytest.mark.parametrize("kind", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"])
def test_codes_are_looked_up_and_none_outside_the_table(loops: Kernel, kind: str) -> None:
    table = np.arange(100, 110)
    codes = np.array([3, 9, 3, 4], kind)
    out, good = loops.number(codes, 0, table)
    assert (out.tolist(), good) == ([103, 109, 103, 104], True)
    out, good = loops.number(codes, 3, table)
    assert (out.tolist(), good) == ([100, 106, 100, 101], True)
    out, good = loops.number(codes, 4, table)
    assert (out.tolist(), good) == ([-1, 105, -1, 100], False)
    codes[2] = np.iinfo(kind).max
    assert loops.number(codes, 0, table)[0].tolist() == [103, 109, -1, 104]
    table[4] = -1
    assert loops.number(codes[[1, 3]], 0, table)[1] is False


words = st.text(max_size=3) | st.text("ab\0", max_size=24) | st.binary(max_size=4).map(lambda b: b.hex() * 5)


@settings(deadline=None)
@given(st.lists(words, unique=True, max_size=40), st.lists(words, max_size=20), st.booleans(), st.integers(0, 3))
@example(["", "a", "a\0"], [], False, 0)
@example([f"{n:09d}" for n in range(3000)], ["000000001x"], True, 1)
def test_strings_are_found_by_their_bytes(loops: Kernel, known: Any, others: Any, wide: bool, skip: int) -> None:
    table = Strings(loops)
    kind = pa.large_string() if wide else pa.string()
    for count in (len(known) // 2, len(known)):
        expected = {name: number for number, name in enumerate(known[:count])}
        rows = [*known[::-1], *others, *known]
        out, good = table.find(pa.array(rows, kind)[skip:], pa.array(known[:count], pa.string()))
        assert out.tolist() == [expected.get(name, -1) for name in rows][skip:]
        assert good == (-1 not in out.tolist())


@settings(deadline=None)
@given(st.lists(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40)), min_size=1), max_size=5))
def test_places_in_the_table_are_one_per_key(loops: Kernel, steps: Any) -> None:
    table = Table("int64")
    places: dict[Any, int] = {}
    for pairs in steps:
        which, symbol = (np.array(column) for column in zip(*pairs, strict=True))
        at = table.at(np.arange(4), which, symbol, loops)
        for pair, place in zip(pairs, at.tolist(), strict=True):
            assert places.setdefault(pair, place) == place
        table.cells.trades[at] = 1
    assert len(set(places.values())) == len(places)
    page, symbol, at = table.find(np.arange(4))
    assert dict(zip(zip(page.tolist(), symbol.tolist(), strict=True), at.tolist(), strict=True)) == places


def trades(count: int, symbols: int, form: str) -> list[pa.RecordBatch]:
    random = np.random.default_rng(11)
    number = random.integers(0, symbols, count)
    names = pa.array([f"S{i}" + "-long" * (i % 3) for i in range(symbols)])
    symbol: Any = pa.array(number)
    if form != "integer":
        symbol = pa.DictionaryArray.from_arrays(pa.array(number.astype(np.int16)), names)
    if form in ("string", "large_string"):
        symbol = symbol.cast(getattr(pa, form)())
    columns = {
        "symbol": symbol,
        "ts_event": np.sort(random.integers(0, 3000, count)) - random.integers(0, 5, count),
        "price": np.round(random.normal(100, 1, count), 2),
        "size": random.integers(0, 1000, count),
    }
    table = pa.table(columns)
    return [batch for i in range(0, count, 999) for batch in table.slice(i, 999).to_batches()]


@pytest.mark.parametrize("store", ["pages", "table"])
@pytest.mark.parametrize("form", ["integer", "dictionary", "string", "large_string"])
def test_bars_are_the_same_compiled_or_not(form: str, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if store == "table":
        monkeypatch.setattr(OpenBars, "DENSE", 0)
        monkeypatch.setattr(OpenBars, "PER_ROW", 0)
    batches = trades(20_000, 3000, form)

    def run(after: list[int | None]) -> tuple[pa.Table, bytes]:
        bars = Bars("100ns", lateness="3ns")
        done = []
        for number, batch in enumerate(batches):
            monkeypatch.setattr(kernels, "AFTER", after[number % len(after)])
            done.append(bars.update(batch))
        state = bars.snapshot()
        return pa.Table.from_batches([*done, bars.flush()]), state

    compiled, numpy, mixed = run([0]), run([None]), run([0, None, None])
    assert compiled[0].equals(numpy[0])
    assert mixed[0].equals(numpy[0])
    assert compiled[1] == numpy[1] == mixed[1]


def test_a_wide_dictionary_that_comes_again_is_a_table(either: str) -> None:
    names = pa.array([f"N{i}" for i in range(5000)])
    symbols = Symbols("symbol")
    for codes in ([7, 4000, 7], [4000, 9], [9, 7, 4000], [1, 9]):
        loops = kernels.kernel(len(codes))
        assert (loops is None) == (either == "numpy")
        column = pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), names)
        numbers = symbols.encode(pa.record_batch({"symbol": column}), 0, loops)
        assert symbols.array().take(pa.array(numbers)).to_pylist() == [f"N{code}" for code in codes]
    assert symbols.array().to_pylist() == ["N7", "N4000", "N9", "N1"]


def test_a_code_outside_its_dictionary_is_an_error_and_not_a_symbol(either: str) -> None:
    names = pa.array(["A", "B"])
    for rows in ([0, 1], [0, 9]):
        column = pa.DictionaryArray.from_arrays(pa.array(rows, pa.int32()), names, safe=False)
        batch = pa.record_batch({"symbol": column, "ts_event": [1, 2], "price": [1.0, 2.0], "size": [1, 2]})
        if rows[1] == 1:
            bars = Bars("1s")
            bars.update(batch)
    with pytest.raises(IndexError):
        bars.update(batch)


@pytest.mark.parametrize("volume", ["int64", "float64"])
def test_cells_in_use_are_moved_out_as_columns(loops: Kernel, volume: str) -> None:
    cells = Cells.empty(32, volume)
    empty = cells.words[0].tobytes()
    cells.words[[3, 9, 15, 16, 30]] = np.arange(45).reshape(5, 9) + 1
    which, symbol, taken = loops.collect(cells, np.array([8, 0, 24]), 8)
    assert which.tolist() == [0, 0, 1, 2]
    assert symbol.tolist() == [1, 7, 3, 6]
    assert taken.words.tolist() == (np.arange(45).reshape(5, 9) + 1)[[1, 2, 0, 4]].tolist()
    assert [number for number in range(32) if cells.words[number].tobytes() != empty] == [16]
    assert len(loops.collect(cells, np.array([0]), 8)[2]) == 0


def test_llvm_is_loaded_when_many_rows_came_and_not_before() -> None:
    program = """
import sys
import numpy as np
import pyarrow as pa
from penstock.window.bars import Bars
def rows(n):
    return pa.record_batch({"symbol": pa.array(np.zeros(n, int)), "ts_event": np.arange(n), "price": np.ones(n),
                            "size": np.ones(n)})
bars = Bars("1s")
bars.update(rows(4000))
assert "llvmlite" not in sys.modules
bars.update(rows(96))
assert "llvmlite" in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("AFTER", 0), ("_made", None), ("_failed", False)):
        monkeypatch.setattr(kernels, name, value)


def test_without_llvmlite_numpy_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    fresh(monkeypatch)
    monkeypatch.setitem(sys.modules, "llvmlite", None)
    monkeypatch.delitem(sys.modules, "penstock.native.jit", raising=False)
    monkeypatch.delattr(penstock.native, "jit", raising=False)
    assert kernels.kernel(10_000) is None
    assert kernels.kernel(10_000) is None
    bars = Bars("100ns")
    assert sum(bars.update(batch).num_rows for batch in trades(2000, 3, "string")) > 0


def test_where_no_code_can_be_made_numpy_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from penstock.native import jit

    def refuse(text: str) -> Any:
        raise CompileError("no memory may be made executable")

    fresh(monkeypatch)
    monkeypatch.setattr(jit, "compile_text", refuse)
    assert kernels.kernel(1) is None


def test_arrays_with_gaps_are_refused(loops: Kernel) -> None:
    with pytest.raises(ValueError, match="contiguous"):
        kernels.place(np.arange(10)[::2])

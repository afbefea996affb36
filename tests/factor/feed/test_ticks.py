"""Rows to ticks: against a reading row by row, however rows are cut."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock import factor as f
from penstock.errors import FactorError, WindowError
from penstock.factor.feed import FactorWindow
from penstock.factor.feed import ticks as ticks_module
from penstock.log import Chunk
from penstock.records import BARS

SCHEMA = pa.schema(
    [
        pa.field("symbol", pa.string()),
        pa.field("ts_event", pa.int64()),
        pa.field("close", pa.float64()),
        pa.field("volume", pa.int64()),
        pa.field("revision", pa.int32()),
    ]
)
PROGRAM = f.compile(
    f.Factors(
        reversal="cs_rank(-ts_delta(close, 2))",
        trend="close / ts_mean(close, 5) - 1",
        ema="ts_ema(close, 3)",
        z="cs_zscore(volume)",
        filled="ts_sum(nan_to(close, 1), 3)",
    ),
    engine="numpy",
)


@dataclass
class Expected:
    """What a reading row by row finds."""

    ticks: dict[int, dict[str, tuple[float, float]]] = field(default_factory=dict)
    rows: list[tuple[int, str]] = field(default_factory=list)
    late: list[int] = field(default_factory=list)
    duplicates: int = 0
    unknown: int = 0


def one_by_one(rows: list[tuple[Any, ...]], symbols: list[str] | None, lateness: int) -> Expected:
    """The rule of ticks, written once more: one row at a time, plain values."""
    found = Expected()
    waiting: dict[int, list[tuple[int, tuple[Any, ...]]]] = {}
    high, last = -(2**62), -(2**62)

    def complete(time: int) -> None:
        nonlocal last
        best: dict[str, tuple[int, tuple[Any, ...]]] = {}
        for offset, row in waiting.pop(time):
            found.duplicates += row[0] in best
            if row[0] not in best or row[4] >= best[row[0]][1][4]:
                best[row[0]] = (offset, row)
        found.ticks[time] = {name: (row[2], row[3]) for name, (_, row) in best.items()}
        found.rows += [(time, row[0]) for _, row in sorted(best.values())]
        last = time

    for offset, row in enumerate(rows):
        name, time = row[:2]
        high = max(high, time)
        is_known = symbols is None or name in symbols
        if not is_known:
            found.unknown += 1
        elif time < high - lateness or time <= last:
            found.late.append(offset)
        # what this row says of time comes before the row itself
        for due in sorted(t for t in waiting if t < high - lateness):
            complete(due)
        if is_known and offset not in found.late:
            waiting.setdefault(time, []).append((offset, row))
            if symbols is not None and not lateness and len({r[0] for _, r in waiting[time]}) == len(symbols):
                complete(time)
    for due in sorted(waiting):
        complete(due)
    return found


def batch_of(rows: list[tuple[Any, ...]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([dict(zip(SCHEMA.names, row, strict=True)) for row in rows], SCHEMA)


def pushed(window: FactorWindow, rows: list[tuple[Any, ...]], cuts: list[int], *, flush: bool = True) -> list[Any]:
    """All windows of these rows, cut there."""
    batch = batch_of(rows)
    borders = [0, *sorted({cut % (len(rows) + 1) for cut in cuts}), len(rows)]
    found = []
    for low, high in pairwise(borders):
        found += window.push(Chunk(batch.slice(low, high - low), low, np.full(high - low, 7)))
    return found + (window.flush(len(rows)) if flush else [])


def bits(table: pa.Table) -> list[Any]:
    """Its values, floats as bits."""
    return [
        column.to_numpy().view(np.uint64).tolist() if pa.types.is_floating(column.type) else column.to_pylist()
        for column in table.combine_chunks().columns
    ]


def table_of(windows: list[Any]) -> pa.Table:
    return pa.concat_tables([w.table for w in windows])


def reference(expected: Expected, program: f.Program, every: int | None = None) -> dict[tuple[int, str], list[int]]:
    """Per time and symbol the bits of all outputs, by `program.batch` over the ticks at once."""
    names = sorted({name for tick in expected.ticks.values() for name in tick})
    times: list[int] = []
    for time in sorted(expected.ticks):
        while every is not None and times and times[-1] + every < time:
            times.append(times[-1] + every)
        times.append(time)
    blocks = {name: np.full((len(times), len(names)), np.nan) for name in ("close", "volume")}
    for row, time in enumerate(times):
        for name, values in expected.ticks.get(time, {}).items():
            for field_, value in zip(("close", "volume"), values, strict=True):
                blocks[field_][row, names.index(name)] = value
    found = program.batch({name: blocks[name] for name in program.inputs})
    stacked = np.stack([np.ascontiguousarray(found[name]).view(np.uint64) for name in program.outputs], axis=-1)
    return {(t, s): stacked[i, j].tolist() for i, t in enumerate(times) for j, s in enumerate(names)}


ROWS = st.lists(
    st.tuples(
        st.sampled_from("ABCD"),
        st.integers(0, 12),
        st.sampled_from([1.0, 2.5, -3.0, 0.0, 7.25, float("nan")]),
        st.integers(0, 5),
        st.integers(0, 2),
    ),
    min_size=1,
    max_size=60,
)


def drifting(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The same rows with times that mostly go on."""
    return [(name, number // 3 + time // 5, *rest) for number, (name, time, *rest) in enumerate(rows)]


@settings(max_examples=200, deadline=None)
@given(
    rows=ROWS.map(drifting),
    cuts=st.lists(st.integers(0, 100), max_size=6),
    symbols=st.sampled_from([None, list("AB"), list("DCBA"), list("ABCDE")]),
    lateness=st.sampled_from([0, 0, 2]),
)
def test_any_cut_is_the_reading_row_by_row(
    rows: list[Any], cuts: list[int], symbols: list[str] | None, lateness: int
) -> None:
    expected = one_by_one(rows, symbols, lateness)
    window = FactorWindow(PROGRAM, symbols=symbols, lateness=f"{lateness}ns", late="side")
    windows = pushed(window, rows, cuts)
    ticks = window.ticks
    assert [w.start_ns for w in windows] == sorted(expected.ticks)
    assert (ticks.duplicates, ticks.unknown) == (expected.duplicates, expected.unknown)
    assert [int(o) for late in window.take_late() for o in late.offsets] == expected.late
    assert ticks.universe.missing == sum(len(known) for known in known_at(expected, symbols)) - len(expected.rows)
    if windows:
        made = table_of(windows)
        assert list(zip(made["ts_event"].to_pylist(), made["symbol"].to_pylist(), strict=True)) == expected.rows
        there = reference(expected, PROGRAM)
        values = np.stack([np.array(column, np.uint64) for column in bits(made)[2:]], axis=-1).tolist()
        assert values == [there[row] for row in expected.rows]
    whole = FactorWindow(PROGRAM, symbols=symbols, lateness=f"{lateness}ns", late="side")
    places = [(w.position, w.index) for w in pushed(whole, rows, [])]
    assert [(w.position, w.index) for w in windows] == places
    assert places == sorted(set(places))


def known_at(expected: Expected, symbols: list[str] | None) -> list[set[str]]:
    known: set[str] = set(symbols or ())
    found = []
    for time in sorted(expected.ticks):
        known = known | set(expected.ticks[time])
        found.append(known)
    return found


@settings(max_examples=100, deadline=None)
@given(
    rows=ROWS.map(drifting),
    cut=st.integers(0, 60),
    symbols=st.sampled_from([None, list("ABCD")]),
    lateness=st.sampled_from([0, 3]),
    every=st.sampled_from([None, 2]),
    forget=st.sampled_from([None, 5]),
)
def test_a_snapshot_goes_on_as_if_nothing_was(
    rows: list[Any], cut: int, symbols: Any, lateness: int, every: int | None, forget: int | None
) -> None:
    options = {"symbols": symbols, "lateness": f"{lateness}ns", "every": every and f"{every}ns", "late": "side"}
    options["forget"] = None if symbols else forget
    cut %= len(rows) + 1
    batch = batch_of(rows)

    def chunk(low: int, high: int) -> Chunk:
        return Chunk(batch.slice(low, high - low), low, np.full(high - low, 7))

    def states(window: FactorWindow) -> Any:
        t = window.ticks
        return t.ticks, t.duplicates, t.unknown, t.universe.missing, t.universe.symbols, window.statistics()

    straight = FactorWindow(PROGRAM, **options)
    before = straight.push(chunk(0, cut)) if cut else []
    again = FactorWindow(PROGRAM, **options)
    again.restore(straight.snapshot(), lambda ranges: [chunk(r.start, r.stop) for r in ranges])
    assert states(again) == states(straight)
    expected, found = (w.push(chunk(cut, len(rows))) + w.flush(len(rows)) for w in (straight, again))
    assert states(again) == states(straight)
    assert [(w.position, w.index) for w in found] == [(w.position, w.index) for w in expected]
    if found:
        assert bits(table_of(found)) == bits(table_of(expected))
    del before


@settings(max_examples=60, deadline=None)
@given(rows=ROWS.map(drifting), cuts=st.lists(st.integers(0, 100), max_size=4), every=st.sampled_from([1, 2, 5]))
def test_absent_ticks_are_rows_of_nan(rows: list[Any], cuts: list[int], every: int) -> None:
    # Symbols that were never there so far are not in the program yet: their rows of NaN come when they do.
    symbols = sorted({row[0] for row in rows})
    expected = one_by_one(rows, symbols, 3)
    window = FactorWindow(PROGRAM, symbols=symbols, every=f"{every}ns", rows="all", lateness="3ns")
    windows = pushed(window, rows, cuts)
    there = reference(expected, PROGRAM, every)
    made = table_of(windows)
    keys = list(zip(made["ts_event"].to_pylist(), made["symbol"].to_pylist(), strict=True))
    assert keys == sorted(keys)
    assert {time for time, _ in keys} == {time for time, _ in there}
    values = np.stack([np.array(column, np.uint64) for column in bits(made)[2:]], axis=-1).tolist()
    for key, value in zip(keys, values, strict=True):
        if key in there:
            assert value == there[key]
    assert window.ticks.ticks == len({time for time, _ in there})
    present = table_of(pushed(FactorWindow(PROGRAM, symbols=symbols, every=f"{every}ns", lateness="3ns"), rows, [3]))
    some = zip(present["ts_event"].to_pylist(), present["symbol"].to_pylist(), strict=True)
    assert list(some) == expected.rows


@settings(max_examples=60, deadline=None)
@given(rows=ROWS.map(drifting), cuts=st.lists(st.integers(0, 100), max_size=4), forget=st.sampled_from([5, 6, 9]))
def test_symbols_that_leave_change_no_bit(rows: list[Any], cuts: list[int], forget: int) -> None:
    program = f.compile(f.Factors(z="cs_zscore(ts_delta(close, 2))", m="ts_mean(close, 4)"), engine="numpy")
    kept, left = FactorWindow(program), FactorWindow(program, forget=forget)
    one, other = pushed(kept, rows, cuts), pushed(left, rows, [])
    assert bits(table_of(one)) == bits(table_of(other))
    assert set(left.ticks.universe.symbols) <= set(kept.ticks.universe.symbols)


def test_a_symbol_leaves_after_so_many_ticks() -> None:
    program = f.compile(f.Factors(m="ts_mean(close, 3)"), engine="numpy")
    rows = [("A", 0, 1.0, 1, 0), *(("B", time, 1.0, 1, 0) for time in range(10))]
    window = FactorWindow(program, forget=3)
    pushed(window, rows[:5], [], flush=False)  # ticks 0 to 2: A was missing twice
    assert window.ticks.universe.symbols == ("A", "B")
    pushed(window := FactorWindow(program, forget=3), rows, [])
    assert window.ticks.universe.symbols == ("B",)
    assert window.ticks.universe.missing == 3


def test_blocks_are_cut_to_fit_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [("ABC"[i % 3], i // 3, float(i), i, 0) for i in range(60)]
    expected = bits(table_of(pushed(FactorWindow(PROGRAM), rows, [])))
    from penstock.factor.feed import universe

    monkeypatch.setattr(universe, "_CELLS", 10)
    assert bits(table_of(pushed(FactorWindow(PROGRAM), rows, []))) == expected


@pytest.mark.parametrize("engine", ["numpy", "llvm"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_tick_by_tick_is_many_at_once(engine: str, dtype: str) -> None:
    program = f.compile(PROGRAM.factors, engine=engine, dtype=dtype)
    rows = [("ABC"[i % 3], i // 3, 1 + i % 7 / 3, i % 5, 0) for i in range(90)]
    one, many = (table_of(pushed(FactorWindow(program), rows, cuts)) for cuts in (list(range(90)), []))
    assert one.equals(many) or bits(one.cast(one.schema)) == bits(many)
    assert one.schema.field("ema").type == (pa.float64() if dtype == "float64" else pa.float32())


def test_what_idle_completes() -> None:
    window = FactorWindow(PROGRAM, idle="1s")
    rows = batch_of([("A", 10, 1.0, 1, 0), ("B", 10, 2.0, 1, 0)])
    assert window.deadline(0) is None
    assert window.push(Chunk(rows, 0, np.array([5, 6]))) == []
    assert window.deadline(0) == 6 + 1_000_000_000
    (made,) = window.mark(2_000_000_000, 2)
    assert (made.start_ns, made.mark_ns, made.position, len(made)) == (10, 2_000_000_000, 2, 2)
    assert window.deadline(0) is None
    assert window.mark(3_000_000_000, 2) == []
    # a row of that time is late, one of a later time is not, although the wall clock is far beyond both
    more = batch_of([("A", 10, 1.0, 1, 0), ("A", 11, 1.0, 1, 0)])
    window.push(Chunk(more, 2, np.array([7, 7])))
    assert window.statistics().late == 1
    assert [w.start_ns for w in window.flush(4)] == [11]


def test_kinds_of_columns() -> None:
    program = f.compile(f.Factors(x="cs_sum(close) + volume"), engine="numpy")
    when = pa.array([0, 0, 1_000], pa.timestamp("ns")).cast(pa.timestamp("us")).cast(pa.timestamp("us", "UTC"))
    for symbols, key in [
        (pa.array(["B", "A", "B"]).dictionary_encode(), pa.string()),
        (pa.array(["B", "A", "B"], pa.large_string()), pa.large_string()),
        (pa.array(["B", "A", "B"], pa.string_view()), pa.string()),
        (pa.array([2, 1, 2], pa.int32()), pa.int32()),
    ]:
        batch = pa.RecordBatch.from_arrays(
            [symbols, when, pa.array([1.0, None, 3.0]), pa.array([True, False, True])],
            names=["name", "when", "close", "volume"],
        )
        window = FactorWindow(program, symbol="name", time="when")
        made = table_of([*window.push(Chunk(batch, 0, np.zeros(3, np.int64))), *window.flush(3)])
        assert made.schema.types == [key, pa.timestamp("us", "UTC"), pa.float64()]
        assert made.schema.metadata == {b"penstock.event": b"when"}
        assert made["name"].to_pylist() == ([2, 1, 2] if key == pa.int32() else ["B", "A", "B"])
        assert made["when"].to_pylist() == when.to_pylist()
        assert str(made["x"].to_pylist()) == "[2.0, nan, 4.0]"
        assert made["x"].null_count == 0


def test_groups_by_label() -> None:
    program = f.compile(f.Factors(n="indneutralize(close, sector)"), engine="numpy")
    schema = pa.schema(
        [*(SCHEMA.field(i) for i in range(3)), pa.field("sector", pa.dictionary(pa.int32(), pa.string()))]
    )
    rows = [
        {"symbol": s, "ts_event": t, "close": c, "sector": g}
        for t, s, c, g in [(0, "A", 1.0, "x"), (0, "B", 3.0, "x"), (0, "C", 5.0, "y"), (1, "C", 4.0, "x"),
                           (1, "A", 2.0, "x"), (1, "B", 2.0, None), (2, "A", 1.0, "y")]
    ]  # fmt: skip
    table = pa.Table.from_pylist(rows, schema)
    batch = table.to_batches()[0]
    window = FactorWindow(program)
    made = window.push(Chunk(batch.slice(0, 4), 0, np.zeros(4, np.int64)))
    again = FactorWindow(program)
    again.restore(window.snapshot(), lambda ranges: [Chunk(batch.slice(0, 4), 0, np.zeros(4, np.int64))])
    made += again.push(Chunk(batch.slice(4), 4, np.zeros(3, np.int64))) + again.flush(7)
    assert bits(table_of(made)) == bits(program.batch(table))


# -- what cannot be


@pytest.mark.parametrize(
    "options, message",
    [
        ({"late": "emit"}, 'expected late "drop" or "side", got \'emit\' - in FactorWindow'),
        ({"rows": "some"}, 'expected rows "present" or "all", got \'some\' - in FactorWindow'),
        ({"every": 0}, "expected every above 0, got 0 - in FactorWindow"),
        ({"forget": 2}, "expected forget of at least 5 ticks, the program's warmup, got 2 - in FactorWindow"),
        ({"forget": 9, "symbols": ["A"]}, "symbols and forget are both given - in FactorWindow"),
        ({"symbols": []}, "a stream needs at least one symbol"),
        ({"symbols": "AB"}, "expected a list of symbols, got 'AB'; ['AB']"),
        ({"symbols": ["A", "A"]}, "symbol 'A' is given twice"),
    ],
    ids=["late", "rows", "every", "forget", "both", "none", "text", "twice"],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(FactorError) as caught:
        FactorWindow(f.compile(f.Factors(m="ts_mean(close, 6)"), engine="numpy"), **options)
    assert str(caught.value).startswith(message)


def test_a_program_without_inputs() -> None:
    program = f.compile({"one": f.constant(1.0)}, engine="numpy")
    with pytest.raises(FactorError, match="the program has no inputs, and so nothing to follow - in FactorWindow"):
        FactorWindow(program)


def schema_but(**types: pa.DataType | None) -> pa.Schema:
    fields = [pa.field(x.name, types.get(x.name, x.type)) for x in SCHEMA if types.get(x.name, x.type) is not None]
    return pa.schema(fields)


@pytest.mark.parametrize(
    "schema, options, message",
    [
        (schema_but(close=None), {}, "expected a stream with a column 'close', got columns symbol, ts_event, volume, "),
        (pa.schema([*SCHEMA, ("Close", pa.float64())]).remove(2), {}, "; did you mean 'Close'?"),
        (schema_but(symbol=None), {}, "expected a stream with a column 'symbol', got columns ts_event, close"),
        (schema_but(ts_event=None), {}, "expected a stream with an event time column, got columns symbol, close"),
        (SCHEMA, {"time": "when"}, "expected a stream with a column 'when', got columns symbol"),
        (SCHEMA, {"time": "close"}, "expected int64 (ns), timestamps or dates in 'close', got double; name the column"),
        (schema_but(symbol=pa.float64()), {}, "expected texts or whole numbers in 'symbol', got double; name the column"),
        (schema_but(close=pa.string()), {}, "expected numbers in 'close', got string; texts are read as group labels"),
        (SCHEMA, {"symbols": [1, 2]}, "expected symbols of string, as in 'symbol', got 1 - in symbols"),
        (pa.schema([pa.field("document", pa.string())], {b"penstock.kind": b"document"}), {},
         "expected a stream with columns symbol, close, volume, got JSON documents; make it with a schema"),
    ],
    ids=["field", "near", "symbol", "time", "named", "time type", "symbol type", "type", "symbols", "documents"],
)  # fmt: skip
def test_streams_that_do_not_fit(schema: pa.Schema, options: dict[str, Any], message: str) -> None:
    with pytest.raises(FactorError) as caught:
        FactorWindow(PROGRAM, **options).bind(schema)
    assert message in str(caught.value)


def test_a_factor_with_the_name_of_a_column() -> None:
    window = FactorWindow(f.compile({"name": "close + 1"}, engine="numpy"), symbol="name")
    schema = pa.schema([pa.field("name", pa.string()), *SCHEMA])
    with pytest.raises(FactorError, match="'name' is a column of the stream and an output; give the factor another"):
        window.bind(schema)


def test_a_row_without_symbol_is_named() -> None:
    window = FactorWindow(PROGRAM)
    rows = batch_of([("A", 1, 1.0, 1, 0), (None, 1, 1.0, 1, 0)])
    with pytest.raises(WindowError, match="expected a symbol in 'symbol', got null - in row 11; such a row") as caught:
        window.push(Chunk(rows, 10, np.array([1, 1])))
    assert caught.value.offset == 11  # type: ignore[attr-defined]
    assert window.statistics().rows == 0


def test_a_jump_of_time_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ticks_module, "MAX_ABSENT", 100)
    window = FactorWindow(PROGRAM, every="10ns")
    window.push(Chunk(batch_of([("A", 0, 1.0, 1, 0), ("A", 1000, 1.0, 1, 0)]), 0, np.array([1, 1])))
    with pytest.raises(
        WindowError, match="expected a row at most 100 ticks after the one before, got 101 - in row 3; look"
    ):
        window.push(Chunk(batch_of([("A", 1500, 1.0, 1, 0), ("A", 2511, 1.0, 1, 0)]), 2, np.array([1, 1])))
    assert len(window.push(Chunk(batch_of([("A", 1500, 1.0, 1, 0)]), 2, np.array([1])))) == 1


def test_other_options_than_those_of_a_snapshot() -> None:
    window = FactorWindow(PROGRAM)
    with pytest.raises(WindowError, match=r"snapshot was made for FactorWindow\(symbol='symbol'.*, this emitter is"):
        FactorWindow(PROGRAM, every=1).restore(window.snapshot(), lambda ranges: [])


def test_bars_of_the_house_fit() -> None:
    window = FactorWindow(f.compile(f.library("alpha158"), engine="numpy"))
    window.bind(BARS)
    assert window.schema.names[:2] == ["symbol", "ts_event"]

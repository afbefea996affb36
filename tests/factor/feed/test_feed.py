"""Streams of bars through a program: what is in the log, what a changed program makes of it, what cannot be."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import penstock as ps
from penstock import factor as f
from penstock.errors import FactorError, PenstockWarning, SchemaMismatch, UsageError, WindowError
from penstock.factor.feed import FeedStatistics
from penstock.hub import Hub
from penstock.log import Stream
from penstock.records import BARS
from penstock.window import Bars
from penstock_tests.waiting import PATIENCE_S

MINUTE = 60_000_000_000
MINE = f.Factors(
    reversal="cs_rank(-ts_delta(close, 5))",
    trend="close / ts_mean(close, 10) - 1",
    flow="ts_corr(close, volume, 6)",
)


def bars(count: int, symbols: str = "ABC", *, seed: int = 0, first: int = 0, gaps: float = 0.2) -> pa.Table:
    """Bars of one minute; some symbols miss some."""
    random = np.random.default_rng(seed)
    made = []
    for minute in range(first, first + count):
        for symbol in symbols:
            if random.random() < gaps:
                continue
            price = float(random.uniform(9, 11))
            made.append(
                {
                    "symbol": symbol, "ts_event": minute * MINUTE, "ts_close": (minute + 1) * MINUTE,
                    "open": price, "high": price + 1, "low": price - 1, "close": price,
                    "volume": int(random.integers(1, 100)), "amount": 1.0, "vwap": price, "trade_count": 1,
                    "revision": 0,
                }
            )  # fmt: skip
    return pa.Table.from_pylist(made, BARS)


@pytest.fixture(scope="module")
def program() -> f.Program:
    return f.compile(MINE)


def source(hub: Hub, table: pa.Table, rows: int = 7) -> Stream:
    """The stream of bars, with these appended in small batches."""
    stream = hub.streams.get("bars", schema=BARS)
    for batch in table.to_batches(max_chunksize=rows):
        stream.append(batch)
    return stream


def bits(table: pa.Table, names: Any) -> list[Any]:
    table = table.combine_chunks()
    kinds = {4: np.uint32, 8: np.uint64}
    found = [np.ascontiguousarray(table[name].to_numpy()) for name in names]
    return [
        table["symbol"].to_pylist(),
        table["ts_event"].to_pylist(),
        *(a.view(kinds[a.itemsize]).tolist() for a in found),
    ]


def same(hub: Hub, program: f.Program, into: str = "factors", start: int = 0) -> bool:
    """Whether the stream, from that row on, is what the program makes of all bars at once, to the bit."""
    made, whole = hub.streams.get(into).read(), program.batch(hub.streams.get("bars").read())
    assert made.num_rows == whole.num_rows
    return bits(made.slice(start), program.outputs) == bits(whole.slice(start), program.outputs)


# -- what it makes


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("symbols", [None, ["C", "A", "B", "Z"]], ids=["discovered", "fixed"])
def test_it_is_history_to_the_bit(hub: Hub, dtype: str, symbols: list[str] | None) -> None:
    program = f.compile(MINE, dtype=dtype)
    feed = program.follow(source(hub, bars(120)), into="factors", symbols=symbols)
    first = feed.run(blocking=False)
    assert first.waiting > 0
    done = feed.run(blocking=False, flush=True)
    assert same(hub, program)
    made = hub.streams.get("factors")
    assert made.schema.equals(feed.schema)
    assert not any(column.null_count for column in made.read().columns)
    assert (done.waiting, done.ordinal, done.symbols) == (0, done.ticks, 4 if symbols else 3)
    assert done.missing == done.ticks * done.symbols - made.next_offset - (0 if symbols else missing_before(hub))


def missing_before(hub: Hub) -> int:
    """Cells of symbols before their first row, which nobody misses."""
    table = hub.streams.get("bars").read()
    times = sorted(set(table["ts_event"].to_pylist()))
    firsts: dict[str, int] = {}
    for name, time in zip(table["symbol"].to_pylist(), table["ts_event"].to_pylist(), strict=True):
        firsts.setdefault(name, times.index(time))
    return sum(firsts.values())


def test_it_goes_on_where_it_was(hub: Hub, program: f.Program) -> None:
    table = bars(60)
    stream = source(hub, table.slice(0, 40))
    for start in range(40, table.num_rows, 9):
        program.follow(stream, into="factors").run(blocking=False)
        stream.append(table.slice(start, 9))
    feed = program.follow(stream, into="factors")
    feed.run(blocking=False, flush=True)
    assert same(hub, program)
    assert feed.run(blocking=False, flush=True).results == 0


def test_what_the_stream_says_of_itself(hub: Hub, program: f.Program) -> None:
    stream = source(hub, bars(3))
    program.follow(stream, into="factors", group="mine")
    about = hub.streams.metadata("factors")
    assert about.schema.names == ["symbol", "ts_event", "reversal", "trend", "flow"]
    assert program.follow(stream, into="factors").group == "factors"  # unless one is given, as the stream
    assert program.follow(stream).group == "factors"
    assert about.attributes["program"] == program.digest
    assert (about.attributes["of"], about.attributes["group"]) == ("bars", "mine")
    assert about.attributes["factors"]["trend"] == "close / ts_mean(close, n=10) - 1"


def test_a_function_gets_ticks(hub: Hub, program: f.Program) -> None:
    stream = source(hub, bars(9, gaps=0))
    seen = []

    def fn(window: ps.Window) -> dict[str, Any]:
        seen.append((window.start_ns // MINUTE, window.table["symbol"].to_pylist(), list(window.offsets)))
        return {"minute": window.start_ns // MINUTE, "best": window.table["reversal"].to_pylist()[0]}

    # of a fixed universe a tick is complete with its last symbol, and needs no later row
    done = program.follow(stream, into=None, symbols=["A", "B", "C"]).apply(fn, blocking=False)
    assert seen == [(minute, ["A", "B", "C"], [3 * minute, 3 * minute + 1, 3 * minute + 2]) for minute in range(9)]
    assert (done.windows, done.ticks, done.waiting) == (9, 9, 0)


def test_many_ticks_are_one_append(hub: Hub, program: f.Program) -> None:
    feed = program.follow(source(hub, bars(200)), into="factors")
    assert feed.run(blocking=False).windows < 5
    assert feed.run(blocking=False, flush=True).windows == 1
    one = program.follow(hub.streams.get("bars"), into="one", group="one")
    assert one.run(blocking=False, flush=True, max_windows=150).windows == 150
    assert one.run(blocking=False, flush=True).windows < 5
    assert same(hub, program)
    assert same(hub, program, "one")


def test_late_rows_and_revisions(hub: Hub, program: f.Program) -> None:
    table = bars(30, gaps=0)
    rows = table.to_pylist()
    revised = {**rows[4], "close": 99.0, "revision": 1}  # B of minute 1
    early = [*rows[:5], revised, rows[4], *rows[5:9], revised, *rows[9:]]
    stream = source(hub, pa.Table.from_pylist(early, BARS))
    feed = program.follow(stream, into="factors", late="side")
    done = feed.run(blocking=False, flush=True)
    assert (done.late, done.duplicates, done.ticks) == (1, 2, 30)
    assert hub.streams.get("bars.late").rows() == [revised]
    expected = program.batch(pa.Table.from_pylist([*rows[:4], revised, *rows[5:]], BARS))
    made = hub.streams.get("factors").read()
    by = [("ts_event", "ascending"), ("symbol", "ascending")]
    assert bits(made.sort_by(by), program.outputs) == bits(expected, program.outputs)


def test_a_row_that_cannot_be_placed_is_an_error_row(hub: Hub, program: f.Program) -> None:
    schema = pa.schema([pa.field(x.name, x.type) for x in BARS])
    stream = hub.streams.get("bars", schema=schema)
    rows = bars(20, gaps=0).to_pylist()
    stream.append([*rows[:10], {**rows[10], "symbol": None}, *rows[10:]])
    done = program.follow(stream, into="factors").run(blocking=False, flush=True)
    assert (done.errors, done.results) == (1, 60)
    assert [row["first_offset"] for row in hub.streams.get("bars.errors").rows()] == [10]
    made = hub.streams.get("factors").read()
    assert bits(made, program.outputs) == bits(program.batch(pa.Table.from_pylist(rows, BARS)), program.outputs)


def test_trades_to_bars_to_factors(hub: Hub) -> None:
    trades = hub.streams.get("trades", schema=ps.records.TRADES)
    random = np.random.default_rng(1)
    count = 3000
    trades.append(
        pa.table(
            {
                "symbol": random.choice(list("XYZ"), count), "ts_event": np.sort(random.integers(0, 40 * MINUTE, count)),
                "price": random.uniform(9, 11, count), "size": random.integers(1, 9, count),
            }
        )
    )  # fmt: skip
    hub.streams.get("trades", lazy=True, emitter=Bars("1m"), into="bars", blocking=False, flush=True).apply()
    program = f.compile(f.Factors(gap="close / vwap - 1", place="ts_rank(close, 9)"))
    program.follow(hub.streams.get("bars"), into="factors").run(blocking=False, flush=True)
    assert same(hub, program)


def test_stop_from_another_thread(hub: Hub, program: f.Program) -> None:
    stream = source(hub, bars(20))
    feed = program.follow(stream, into="factors")
    thread = threading.Thread(target=feed.run)
    thread.start()
    for batch in hub.streams.get("factors").tail("start", timeout=PATIENCE_S):
        if batch.num_rows:
            break
    feed.stop()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert isinstance(feed.statistics(), FeedStatistics)
    feed.run(blocking=False, flush=True)
    assert same(hub, program)


def test_async(hub: Hub, program: f.Program) -> None:
    stream = source(hub, bars(20))
    feed = program.follow(stream, into="factors")

    async def main() -> FeedStatistics:
        task = asyncio.create_task(feed.arun())
        async for batch in hub.streams.get("factors").atail("start"):
            if batch.num_rows:
                break
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        return await feed.arun(blocking=False, flush=True)

    assert asyncio.run(main()).ticks == 20
    assert same(hub, program)


def test_idle_completes_ticks_and_replays_the_same_way(hub: Hub, program: f.Program) -> None:
    table = bars(20, gaps=0)
    stream = source(hub, table.slice(0, 30))
    feed = program.follow(stream, into="factors", idle="1ms", timeout=0.05)
    assert feed.run().waiting == 0
    assert len(hub.streams.get("factors")) == 30
    stream.append([{**table.to_pylist()[29], "revision": 1}])
    stream.append(table.slice(30))
    assert feed.run().late == 1
    made = hub.streams.get("factors").read()
    assert bits(made, program.outputs) == bits(program.batch(table), program.outputs)
    # without the snapshots the moments of idle are repeated
    for path in (hub.streams.path("bars") / "groups").glob("*.*"):
        if path.suffix in (".state", ".before"):
            path.unlink()
    with pytest.warns(PenstockWarning, match="is damaged or gone: it begins at offset 0 again"):
        again = feed.run()
    assert (again.results, again.late, again.ticks) == (0, 1, 20)


def test_seek_computes_anew(hub: Hub, program: f.Program) -> None:
    feed = program.follow(source(hub, bars(20)), into="factors")
    feed.run(blocking=False, flush=True)
    rows = len(hub.streams.get("factors"))
    feed.seek("start")
    assert feed.run(blocking=False, flush=True).results == rows
    made = hub.streams.get("factors")
    assert bits(made.read(0, rows), program.outputs) == bits(made.read(rows), program.outputs)


# -- another program, other symbols


def changed(hub: Hub, program: f.Program, minutes: int, **options: Any) -> tuple[Any, int]:
    """A feed of this program in the group of another one, after further bars; and the first row that is its own."""
    feed = program.follow(hub.streams.get("bars"), into="factors", **options)
    before = len(hub.streams.get("factors"))
    feed.run(blocking=False)
    hub.streams.get("bars").append(bars(minutes, seed=9, first=1000))
    feed.run(blocking=False, flush=True)
    return feed, before


def test_new_factors_are_warmed_from_the_log(hub: Hub, program: f.Program) -> None:
    program.follow(source(hub, bars(80)), into="factors").run(blocking=False)
    more = f.compile(
        f.Factors(
            trend=MINE["trend"],
            slow="ts_mean(close, 30)",
            z="cs_zscore(ts_delta(slow_, 3))".replace("slow_", "ts_mean(close, 30)"),
        )
    )
    feed, before = changed(hub, more, 20)
    assert feed.cold == {}
    assert before > 100
    assert same(hub, more, start=before)
    made = hub.streams.get("factors")
    assert made.schema.names == ["symbol", "ts_event", "reversal", "trend", "flow", "slow", "z"]
    assert made.read()["slow"].null_count == before
    assert made.attributes["program"] == more.digest


def test_what_never_forgets_moves_and_is_else_replayed_in_full(hub: Hub) -> None:
    one = f.compile(f.Factors(e="ts_ema(close, 9)"))
    one.follow(source(hub, bars(80)), into="factors").run(blocking=False)
    two = f.compile(f.Factors(e="ts_ema(close, 9)", slow="ts_ema(close, 40)"))
    _, before = changed(hub, two, 20)
    assert same(hub, two, start=before)


def test_another_dtype_is_replayed(hub: Hub, program: f.Program) -> None:
    single = f.compile(MINE, dtype="float32")
    single.follow(source(hub, bars(50)), into="factors").run(blocking=False)
    _, before = changed(hub, program, 20)
    assert same(hub, program, start=before)


@pytest.mark.parametrize("first, then", [("AB", "ABC"), ("ABC", "CB"), ("BZ", "CA"), (None, "CBA"), ("AB", None)])
def test_another_universe(hub: Hub, program: f.Program, first: str | None, then: str | None) -> None:
    stream = source(hub, bars(60, gaps=0))
    program.follow(stream, into="factors", symbols=first and list(first)).run(blocking=False)
    feed = program.follow(stream, into="factors", symbols=then and list(then))
    before = len(hub.streams.get("factors"))
    feed.run(blocking=False)
    stream.append(bars(20, seed=9, first=1000))
    feed.run(blocking=False, flush=True)
    whole = stream.read()  # as if this universe had always been
    if then:
        whole = whole.filter(pa.compute.is_in(whole["symbol"], pa.array(list(then))))
    expected = program.batch(whole)
    made = hub.streams.get("factors").read().slice(before)
    tail = expected.slice(expected.num_rows - made.num_rows)
    if then:
        assert bits(made, program.outputs) == bits(tail, program.outputs)
        assert feed.symbols == tuple(then)
    else:  # C shows up when it does
        assert feed.symbols == ("A", "B", "C")


def test_cold_where_the_log_has_no_more(hub: Hub) -> None:
    one = f.compile(f.Factors(m="ts_mean(close, 3)"))
    one.follow(source(hub, bars(12, gaps=0)), into="factors").run(blocking=False)
    two = f.compile(f.Factors(m="ts_mean(close, 3)", slow="ts_mean(close, 30)"))
    feed = two.follow(hub.streams.get("bars"), into="factors")
    with pytest.warns(PenstockWarning, match=r"the log has too few ticks to warm 'slow' \(18\): so many further ones"):
        feed.run(blocking=False)
    assert feed.cold == {"slow": two.lookback["slow"] - 11}
    assert feed.statistics().ordinal == 11


def test_absent_ticks_are_there_after_a_change(hub: Hub, program: f.Program) -> None:
    table = pa.concat_tables([bars(20), bars(20, seed=1, first=25)])
    stream = source(hub, table)
    program.follow(stream, into="factors", every="1m").run(blocking=False)
    more = f.compile(f.Factors(slow="ts_mean(nan_to(close, 1), 25)"))
    feed = more.follow(stream, into="factors", every="1m")
    before = len(hub.streams.get("factors"))
    feed.run(blocking=False)
    stream.append(bars(9, seed=3, first=47))
    feed.run(blocking=False, flush=True)
    straight = more.follow(stream, into="straight", group="straight", every="1m")
    straight.run(blocking=False, flush=True)
    made, expected = (hub.streams.get(name).read() for name in ("factors", "straight"))
    assert bits(made.slice(before), ["slow"]) == bits(expected.slice(before), ["slow"])
    assert feed.statistics().ordinal == straight.statistics().ordinal == 56


def test_retention_up_to_the_feed(hub: Hub, program: f.Program) -> None:
    table = bars(300)
    stream = hub.streams.get("bars", schema=BARS, segment_bytes=20_000, retention={"until": "factors"})
    for start in range(0, table.num_rows, 50):
        stream.append(table.slice(start, 50))
        program.follow(stream, into="factors").run(blocking=False)
    program.follow(stream, into="factors").run(blocking=False, flush=True)
    assert stream.first_offset > 100
    made = hub.streams.get("factors").read()
    assert bits(made, program.outputs) == bits(program.batch(table), program.outputs)
    # what the log has no more cannot warm another program
    slow = f.compile(f.Factors(trend=MINE["trend"], slow="ts_mean(close, 250)"))
    feed = slow.follow(stream, into="factors")
    with pytest.warns(PenstockWarning, match="the log has too few ticks to warm 'slow'"):
        feed.run(blocking=False)
    assert feed.cold.keys() == {"slow"}


def test_as_an_emitter_of_windows(hub: Hub, program: f.Program) -> None:
    table = bars(60)
    stream = source(hub, table.slice(0, 70))
    for _ in range(2):
        windows = hub.streams.get(
            "bars", lazy=True, emitter=f.FactorWindow(program), group="w", into="w", blocking=False
        )
        windows.apply()
        stream.append(table.slice(70, len(table) - len(stream)))
    windows.apply(flush=True)
    assert same(hub, program, "w")


# -- damage


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def test_a_damaged_snapshot(hub: Hub, program: f.Program) -> None:
    table = bars(60)
    stream = source(hub, table.slice(0, 50))
    feed = program.follow(stream, into="factors", snapshot_every=0)
    feed.run(blocking=False)
    groups = hub.streams.path("bars") / "groups"
    stream.append(table.slice(50, 50))
    damage(groups / "factors.state")
    with pytest.warns(
        PenstockWarning, match="'factors' of stream 'bars' is damaged or gone: it goes on from the one bef"
    ):
        feed.run(blocking=False)
    stream.append(table.slice(100))
    damage(groups / "factors.state")
    damage(groups / "factors.before")
    with pytest.warns(
        PenstockWarning, match="is damaged or gone: it begins at offset 0 again; ticks that are done are"
    ):
        feed.run(blocking=False, flush=True)
    assert same(hub, program)


def test_a_snapshot_that_another_release_wrote(hub: Hub, program: f.Program, monkeypatch: pytest.MonkeyPatch) -> None:
    feed = program.follow(source(hub, bars(20)), into="factors")
    feed.run(blocking=False)
    from penstock.factor import snapshot

    monkeypatch.setattr(snapshot, "VERSION", 77)
    with pytest.raises(WindowError, match=r"expected snapshot version 77, got .*or let this one begin anew"):
        feed.run(blocking=False)


# -- what cannot be


def test_calls_that_cannot_be(hub: Hub, program: f.Program) -> None:
    stream = source(hub, bars(3))
    with pytest.raises(FactorError, match="expected a stream of bars, got 'bars' - in follow; hub.streams.get"):
        program.follow("bars", into="factors")  # type: ignore[arg-type]
    with pytest.raises(FactorError, match="expected snapshot_every: seconds, at least 0, got -1 - in follow"):
        program.follow(stream, into="factors", snapshot_every=-1)
    with pytest.raises(
        UsageError, match="expected an option of follow, got symbol_s=1 - on stream 'bars'; did you mean"
    ):
        program.follow(stream, into="factors", symbol_s=1)
    with pytest.raises(UsageError, match="expected into another stream, got 'bars'"):
        program.follow(stream, into="bars")
    with pytest.raises(UsageError, match="expected a function of a window, or into=, got neither"):
        program.follow(stream).run(blocking=False)
    with pytest.raises(FactorError, match="expected a stream with a column 'cap', got .* - in stream 'bars'"):
        f.compile(f.Factors(x="cap + close")).follow(stream, into="factors")
    with pytest.raises(FactorError, match="got JSON documents - in stream 'documents'; make it with a schema"):
        program.follow(hub.streams.get("documents"), into="factors")
    hub.streams.get("other", schema=pa.schema([pa.field("x", pa.int64(), nullable=False)]))
    with pytest.raises(SchemaMismatch):
        program.follow(stream, into="other")
    assert repr(program.follow(stream, into="factors")) == "Feed('bars', group='factors', 3 outputs)"

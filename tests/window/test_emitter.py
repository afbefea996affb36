"""Windows are a function of rows and marks: any cut, any restart, the same windows as a definition row by row."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock import window as W
from penstock.errors import WindowError
from penstock.log.chunk import Chunk

NS = 1e-9
KEYS = ["a", "b", "c", None]
STRING = pa.string()


@dataclass(frozen=True)
class Row:
    offset: int
    created: int
    event: int
    key: str | None


@dataclass(frozen=True)
class Mark:
    ts: int
    position: int


@dataclass(frozen=True)
class Spec:
    """One emitter: what to make, and how the reference is to behave."""

    kind: str
    clock: str = "event"
    size: int = 5
    every: int = 2
    origin: int = 0
    lateness: int = 0
    keyed: bool = False
    late: str = "drop"
    empty: bool = False

    def make(self) -> W.Emitter:
        common: dict[str, Any] = {"by": "key" if self.keyed else None}
        if self.kind == "count":
            return W.CountWindow(self.size, **common)
        if self.kind == "relaxed":
            return W.RelaxedTimeWindow(self.size * NS, **common)
        common["late"] = self.late
        if self.clock == "event":
            common["time"] = W.EventClock("event", self.lateness * NS, idle=10 * NS)
        else:
            common["time"] = W.AppendClock() if self.clock == "append" else W.MarkClock("event")
        origin = np.datetime64(self.origin, "ns")
        if self.kind == "fixed":
            return W.FixedTimeWindow(self.size * NS, origin=origin, emit_empty=self.empty, **common)
        if self.kind == "sliding":
            return W.SlidingWindow(self.size * NS, min(self.every, self.size) * NS, origin=origin, **common)
        return W.SessionWindow(self.size * NS, **common)


@dataclass
class Reference:
    """The definition, one row at a time, with nothing but lists and dicts."""

    spec: Spec
    watermark: float = -math.inf
    order: dict[Any, int] = field(default_factory=dict)
    open: list[dict[str, Any]] = field(default_factory=list)
    out: list[tuple[Any, ...]] = field(default_factory=list)
    side: list[int] = field(default_factory=list)
    late: int = 0
    cursor: int | None = None
    active: set[Any] = field(default_factory=set)
    last: tuple[int, int] = (-1, -1)

    def borders(self, t: int) -> list[tuple[int, int]]:
        s = self.spec
        if s.kind == "fixed":
            start = (t - s.origin) // s.size * s.size + s.origin
            return [(start, start + s.size)]
        if s.kind == "session":
            return [(t, t + s.size)]
        every = min(s.every, s.size)
        first = t - (t - s.origin) % every
        starts = [first - k * every for k in range(s.size // every + 1)]
        return [(start, start + s.size) for start in reversed(starts) if start <= t < start + s.size]

    def row(self, row: Row) -> None:
        s = self.spec
        key = row.key if s.keyed else None
        self.order.setdefault(key, len(self.order))
        position = row.offset + 1
        if s.kind == "count":
            return self.count(row, key, position)
        if s.clock == "append" or s.kind == "relaxed":
            t = max(row.created, self.watermark)
            self.watermark = t
        else:
            t = row.event
            if s.clock == "event":
                self.watermark = max(self.watermark, t - s.lateness)
        if s.kind == "relaxed":
            self.open.append({"key": key, "start": t, "offsets": [row.offset]})
            return None
        gone: list[dict[str, Any]] = []
        missed = False
        for start, end in self.borders(t):
            if s.kind == "session":
                found = [w for w in self.open if w["key"] == key and w["start"] < end and t < w["end"]]
                if found:
                    merged = {
                        "key": key,
                        "start": min(t, *(w["start"] for w in found)),
                        "end": max(end, *(w["end"] for w in found)),
                        "offsets": sorted([row.offset] + [o for w in found for o in w["offsets"]]),
                    }
                    self.open = [w for w in self.open if all(w is not f for f in found)] + [merged]
                    continue
            if end <= self.watermark:
                missed = True
                gone.append({"key": key, "start": start, "end": end, "offsets": [row.offset], "late": 1})
                continue
            for w in self.open:
                if w["key"] == key and w["end"] == end and s.kind != "session":
                    w["offsets"].append(row.offset)
                    break
            else:
                self.open.append({"key": key, "start": start, "end": end, "offsets": [row.offset]})
        if missed:
            self.late += 1
            if s.late == "side":
                self.side.append(row.offset)
        self.close(position, None, gone if s.late == "emit" else [])
        return None

    def count(self, row: Row, key: Any, position: int) -> None:
        found = next((w for w in self.open if w["key"] == key), None)
        if found is None:
            found = {"key": key, "start": row.event, "offsets": []}
            self.open.append(found)
        found["offsets"].append(row.offset)
        found["end"] = row.event
        if len(found["offsets"]) == self.spec.size:
            self.open.remove(found)
            self.emit([found], position, None)

    def mark(self, mark: Mark) -> None:
        s = self.spec
        if s.kind == "count":
            return
        if s.kind == "relaxed":
            if self.open and mark.ts >= self.open[0]["start"] + s.size:
                self.watermark = max(mark.ts, self.watermark)
                self.emit(self.together(int(self.watermark)), mark.position, mark.ts)
            return
        wanted = mark.ts - (s.lateness if s.clock == "event" else 0)
        if wanted <= self.watermark:
            return
        if s.clock == "marks" or self.next_end() <= wanted:
            self.watermark = wanted
            self.close(mark.position, mark.ts, [])

    def next_end(self) -> float:
        end = min((w["end"] for w in self.open), default=math.inf)
        return min(end, math.inf if self.cursor is None else self.cursor + self.spec.size)

    def together(self, end: int) -> list[dict[str, Any]]:
        start, groups = self.open[0]["start"], {}
        for w in self.open:
            groups.setdefault(w["key"], []).extend(w["offsets"])
        self.open = []
        return [{"key": key, "start": start, "end": end, "offsets": offsets} for key, offsets in groups.items()]

    def flush(self, position: int) -> None:
        if not self.open:
            return
        if self.spec.kind == "relaxed":
            self.emit(self.together(self.open[0]["start"] + self.spec.size), position, None)
        elif self.spec.kind == "count":
            done, self.open = self.open, []
            self.emit(done, position, None)
        else:
            self.close(position, None, [], upto=max(w["end"] for w in self.open))

    def close(self, position: int, mark: int | None, more: list[dict[str, Any]], upto: float | None = None) -> None:
        limit = self.watermark if upto is None else upto
        done = [w for w in self.open if w["end"] <= limit]
        self.open = [w for w in self.open if w["end"] > limit]
        if self.spec.empty:
            done = self.filled(done, limit)
        self.emit(done + more, position, mark)

    def filled(self, done: list[dict[str, Any]], limit: float) -> list[dict[str, Any]]:
        by_end: dict[int, list[dict[str, Any]]] = {}
        for w in done:
            by_end.setdefault(w["end"], []).append(w)
        out: list[dict[str, Any]] = []
        while True:
            end = min(by_end, default=math.inf)
            after = math.inf if self.cursor is None else self.cursor + self.spec.size
            now = min(end, after)
            if now > limit:
                return out
            here = by_end.pop(int(now), [])
            keys = {w["key"] for w in here}
            start = int(now) - self.spec.size
            out += here + [{"key": k, "start": start, "end": int(now), "offsets": []} for k in self.active - keys]
            self.active |= keys
            self.cursor = int(now) if self.cursor is None else max(self.cursor, int(now))

    def emit(self, windows: list[dict[str, Any]], position: int, mark: int | None) -> None:
        for w in sorted(windows, key=lambda w: (w["end"], self.order[w["key"]])):
            index = self.last[1] + 1 if self.last[0] == position else 0
            self.last = (position, index)
            offsets = tuple(w["offsets"])
            self.out.append((w["key"], w["start"], w["end"], offsets, w.get("late", 0), position, index, mark))


def seen(windows: Iterable[W.Window]) -> list[tuple[Any, ...]]:
    out = []
    for w in windows:
        offsets = tuple(int(o) for o in w.offsets)
        assert tuple(w.table["offset"].to_pylist()) == offsets
        assert len(w) == len(offsets)
        assert w.created.tolist() == w.table["created"].to_pylist()
        out.append((w.key, w.start_ns, w.end_ns, offsets, w.late, w.position, w.index, w.mark_ns))
    return out


def batch(rows: Sequence[Row], key_type: pa.DataType = STRING) -> pa.RecordBatch:
    count = len(rows)
    key = pa.array([row.key for row in rows], pa.string()).cast(key_type)
    columns = {
        "key": key,
        "event": pa.array([row.event for row in rows], pa.int64()),
        "offset": pa.array([row.offset for row in rows], pa.int64()),
        "created": pa.array([row.created for row in rows], pa.int64()),
    }
    made = pa.RecordBatch.from_pydict(columns)
    assert made.num_rows == count
    return made.replace_schema_metadata({b"penstock.event": b"event"})


def chunk(rows: Sequence[Row], key_type: pa.DataType = STRING) -> Chunk:
    return Chunk(batch(rows, key_type), rows[0].offset, np.array([row.created for row in rows], np.int64))


@st.composite
def inputs(draw: st.DrawFn) -> list[Row | Mark]:
    """Rows and marks: in order, reordered, late, with equal times, with gaps, with a few keys."""
    steps = draw(
        st.lists(
            st.tuples(
                st.sampled_from([0, 0, 1, 1, 2, 3, 12, -1, -3, -8]),  # event time against the row before
                st.sampled_from([0, 0, 1, 2, 5]),  # append time since the row before
                st.integers(0, 3),
                st.sampled_from([None, None, None, None, -4, 0, 1, 4, 9, 30]),  # a mark before the row
            ),
            min_size=1,
            max_size=30,
        )
    )
    out: list[Row | Mark] = []
    event = created = draw(st.sampled_from([-20, 0, 7, 1_700_000_000_000_000_000]))
    offset = first = draw(st.integers(0, 3))
    for moved, passed, key, mark in steps:
        if mark is not None:
            out.append(Mark(max(event, created) + mark, offset))
        event += moved
        created += passed
        out.append(Row(offset, created, event, KEYS[key]))
        offset += 1
    assert first <= offset
    if draw(st.booleans()):
        out.append(Mark(max(event, created) + draw(st.integers(0, 40)), offset))
    return out


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    kind = draw(st.sampled_from(["count", "relaxed", "fixed", "fixed", "sliding", "sliding", "session", "session"]))
    return Spec(
        kind=kind,
        clock=draw(st.sampled_from(["event", "event", "event", "append", "marks"])),
        size=draw(st.integers(1, 9)),
        every=draw(st.integers(1, 9)),
        origin=draw(st.sampled_from([0, 0, 3, -4])),
        lateness=draw(st.sampled_from([0, 0, 1, 4, 11])),
        keyed=draw(st.booleans()),
        late=draw(st.sampled_from(["drop", "emit", "side"])),
        empty=kind == "fixed" and draw(st.booleans()),
    )


def expected(spec: Spec, events: Sequence[Row | Mark], *, flush: bool) -> Reference:
    reference = Reference(spec)
    for event in events:
        if isinstance(event, Row):
            reference.row(event)
        else:
            reference.mark(event)
    if flush:
        reference.flush(end_of(events))
    return reference


def end_of(events: Sequence[Row | Mark]) -> int:
    return max(e.offset + 1 if isinstance(e, Row) else e.position for e in events)


def pieces(events: Sequence[Row | Mark], cuts: Sequence[bool]) -> list[list[Row] | Mark]:
    """Rows as chunks: cut before event i when cuts[i], and at each mark."""
    out: list[list[Row] | Mark] = []
    for i, event in enumerate(events):
        if isinstance(event, Mark):
            out.append(event)
        elif out and isinstance(out[-1], list) and not cuts[i % len(cuts)]:
            out[-1].append(event)
        else:
            out.append([event])
    return out


def step(emitter: W.Emitter, piece: list[Row] | Mark, key_type: pa.DataType = STRING) -> list[W.Window]:
    if isinstance(piece, Mark):
        return emitter.mark(piece.ts, piece.position)
    return emitter.push(chunk(piece, key_type))


EXAMPLES = settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@EXAMPLES
@given(specs(), inputs(), st.lists(st.booleans(), min_size=1, max_size=30), st.booleans())
def test_any_cut_gives_the_windows_of_the_definition(
    spec: Spec, events: list[Row | Mark], cuts: list[bool], flush: bool
) -> None:
    emitter = spec.make()
    windows: list[W.Window] = []
    side: list[int] = []
    for piece in pieces(events, cuts):
        windows += step(emitter, piece)
        side += [int(o) for rows in emitter.take_late() for o in rows.offsets]
    if flush:
        windows += emitter.flush(end_of(events))
    reference = expected(spec, events, flush=flush)
    found = seen(windows)
    assert found == reference.out
    assert side == reference.side
    counted = emitter.statistics()
    assert counted.late == reference.late
    assert counted.windows == len(reference.out)
    assert counted.open_windows == (
        len(reference.open) if spec.kind != "relaxed" else len({w["key"] for w in reference.open})
    )
    held = sorted({o for w in reference.open for o in w["offsets"]})
    assert counted.open_rows == len(held)
    assert emitter.lowest_open == (held[0] if held else None)
    places = [(w.position, w.index) for w in windows]
    assert places == sorted(set(places))


@EXAMPLES
@given(
    specs(),
    inputs(),
    st.lists(st.booleans(), min_size=1, max_size=30),
    st.lists(st.booleans(), min_size=1, max_size=30),
    st.sampled_from([pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]),
)
def test_a_restart_at_any_cut_changes_nothing(
    spec: Spec, events: list[Row | Mark], cuts: list[bool], restarts: list[bool], key_type: pa.DataType
) -> None:
    rows = [event for event in events if isinstance(event, Row)]
    asked: list[range] = []

    def fetch(wanted: Sequence[range]) -> list[Chunk]:
        asked.extend(wanted)
        low, high = wanted[0].start, wanted[-1].stop
        part = [row for row in rows if low - 2 <= row.offset < high + 2]  # more rows than asked for do no harm
        middle = len(part) // 2
        return [chunk(some, key_type) for some in (part[:middle], part[middle:]) if some]

    emitter = spec.make()
    windows: list[W.Window] = []
    side: list[int] = []
    for i, piece in enumerate(pieces(events, cuts)):
        windows += step(emitter, piece, key_type)
        if restarts[i % len(restarts)]:
            before, lowest = emitter.statistics(), emitter.lowest_open
            state = emitter.snapshot()
            emitter = spec.make()
            emitter.restore(state, fetch)
            assert emitter.snapshot() == state
            assert emitter.statistics() == before
            assert emitter.lowest_open == lowest
        side += [int(o) for some in emitter.take_late() for o in some.offsets]
    windows += emitter.flush(end_of(events))
    reference = expected(spec, events, flush=True)
    assert seen(windows) == reference.out
    assert side == reference.side


@EXAMPLES
@given(specs(), inputs(), st.lists(st.booleans(), min_size=1, max_size=30))
def test_marks_that_close_nothing_may_be_left_out(spec: Spec, events: list[Row | Mark], cuts: list[bool]) -> None:
    emitter = spec.make()
    windows: list[W.Window] = []
    kept: list[Row | Mark] = []
    for piece in pieces(events, cuts):
        closed = step(emitter, piece)
        windows += closed
        if not isinstance(piece, Mark):
            kept += piece
        elif closed or spec.clock == "marks":
            kept.append(piece)
    again = spec.make()
    repeated: list[W.Window] = []
    for piece in pieces(kept, [False]):
        repeated += step(again, piece)
    assert seen(repeated) == seen(windows)


@EXAMPLES
@given(specs(), inputs())
def test_a_mark_at_the_deadline_closes_the_next_window(spec: Spec, events: list[Row | Mark]) -> None:
    emitter = spec.make()
    for piece in pieces(events, [False]):
        step(emitter, piece)
    due = emitter.deadline(-(2**62))
    open_windows = emitter.statistics().open_windows
    if spec.kind == "count" or (spec.clock == "marks" and spec.kind != "relaxed"):
        assert due is None
    elif not open_windows and not spec.empty:
        assert due is None
    elif due is not None:
        assert emitter.deadline(due + 5) == due + 5
        if spec.clock == "append" or spec.kind == "relaxed":
            assert not emitter.mark(due - 1, end_of(events))
        assert emitter.mark(due, end_of(events))


@EXAMPLES
@given(specs(), inputs(), st.integers(0, 30))
def test_a_copy_goes_its_own_way(spec: Spec, events: list[Row | Mark], cut: int) -> None:
    emitter = spec.make()
    for piece in pieces(events[:cut], [False]):
        step(emitter, piece)
    other = copy.deepcopy(emitter)
    found = []
    for each in (emitter, other):
        windows = [w for piece in pieces(events[cut:], [True]) for w in step(each, piece)]
        found.append(seen([*windows, *each.flush(end_of(events))]))
    assert found[0] == found[1]


def rows_of(*events: int, keys: str = "", created: int = 0) -> list[Row]:
    return [Row(i, created + i, t, keys[i] if keys else "a") for i, t in enumerate(events)]


def test_old_chunks_are_let_go_and_the_windows_stay_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [Row(i, i, i, f"k{i % 7}" if i % 50 else "rare") for i in range(4000)]

    def run() -> tuple[list[tuple[Any, ...]], int]:
        emitter = W.CountWindow(30, by="key")
        windows = [w for i in range(0, len(rows), 100) for w in emitter.push(chunk(rows[i : i + 100]))]
        found = seen([*windows, *emitter.flush(len(rows))])
        return found, emitter._check

    whole, _ = run()
    monkeypatch.setattr("penstock.window.emitter._COMPACT", 500)
    compacted, _ = run()
    assert compacted == whole


def test_compaction_copies_the_rows_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.window.emitter._COMPACT", 50)
    emitter = W.CountWindow(1000, by="key")
    emitter.push(chunk([Row(0, 0, 0, "rare"), *(Row(i, i, i, "b") for i in range(1, 1200))]))
    held = {id(segment.rows): len(segment.rows) for _, some in emitter._windower.save() for segment in some}
    assert sum(held.values()) == 200 == emitter.statistics().open_rows


def test_late_rows_wait_through_a_compaction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.window.emitter._COMPACT", 3)
    emitter = W.FixedTimeWindow(5 * NS, time="event", late="side")
    emitter.push(chunk(rows_of(100, 3, 101, 4, 2)))
    assert [rows.offsets.tolist() for rows in emitter.take_late()] == [[1, 3, 4]]
    assert emitter.take_late() == []


def test_rows_come_once_and_in_order() -> None:
    emitter = W.CountWindow(2)
    emitter.push(chunk(rows_of(1, 2, 3)))
    with pytest.raises(WindowError, match=r"expected rows from offset 3 on, got rows 0 to 2 - in CountWindow.push"):
        emitter.push(chunk(rows_of(1, 2, 3)))
    with pytest.raises(WindowError, match="expected a position of at least 3, the rows seen, got 2"):
        emitter.mark(5, 2)
    with pytest.raises(WindowError, match=r"got 2 - in CountWindow.flush"):
        emitter.flush(2)
    assert len(emitter.push(chunk([Row(9, 9, 9, "a")]))) == 1  # expired offsets may be missing between
    assert emitter.position == 10


def test_an_empty_chunk_is_nothing() -> None:
    emitter = W.CountWindow(1)
    assert emitter.push(Chunk(batch([]), 5, np.empty(0, np.int64))) == []
    assert emitter.position == 0
    assert emitter.statistics() == W.EmitterStatistics(0, 0, 0, 0, 0, None)


def test_statistics() -> None:
    emitter = W.FixedTimeWindow(10 * NS, by="key", time="event", lateness=2 * NS)
    emitter.push(chunk(rows_of(1, 5, 14, 3, 15, keys="abaab")))
    assert emitter.statistics() == W.EmitterStatistics(
        rows=5, windows=2, late=1, open_windows=2, open_rows=2, watermark_ns=13
    )


def test_a_failed_push_changes_nothing() -> None:
    emitter = W.FixedTimeWindow(10 * NS, by="key", time="event")
    emitter.push(chunk(rows_of(1, 2, keys="ba")))
    before = emitter.snapshot()
    with pytest.raises(WindowError, match="does not fit|int64|fit"):
        emitter.push(chunk([Row(2, 2, 3, "z"), Row(3, 3, 2**63 - 2, "y")]))
    assert emitter.snapshot() == before


@pytest.mark.parametrize("late", ["keep", "", None, 1])
def test_unknown_late_policy(late: Any) -> None:
    with pytest.raises(WindowError, match="expected late to be 'drop', 'emit' or 'side', got"):
        W.FixedTimeWindow(1, late=late)


def test_logic_is_a_function() -> None:
    with pytest.raises(WindowError, match="expected a function of a window as logic, got 5 - in CountWindow"):
        W.CountWindow(1, logic=5)  # type: ignore[arg-type]


# -- snapshots


def no_fetch(wanted: Sequence[range]) -> list[Chunk]:
    raise AssertionError("nothing is open")


def test_a_snapshot_of_other_parameters_is_refused_naming_both() -> None:
    state = W.FixedTimeWindow(1, by="key").snapshot()
    with pytest.raises(
        WindowError,
        match=r"snapshot was made for FixedTimeWindow\(size_ns=1000000000, .*by='key'.*\) \[\w{8}\], this emitter is "
        r"FixedTimeWindow\(size_ns=2000000000, .*\) \[\w{8}\] - in restore; use the same parameters",
    ):
        W.FixedTimeWindow(2, by="key").restore(state, no_fetch)
    with pytest.raises(WindowError, match=r"this emitter is SlidingWindow"):
        W.SlidingWindow(1, 1, by="key").restore(state, no_fetch)
    for other in (
        W.FixedTimeWindow(1),
        W.FixedTimeWindow(1, by="key", tz="UTC"),
        W.FixedTimeWindow(1, by="key", late="side"),
        W.FixedTimeWindow(1, by="key", lateness=1),
        W.FixedTimeWindow(1, by="key", time="append"),
        W.FixedTimeWindow(1, by="key", emit_empty=True),
        W.FixedTimeWindow(1, by="key", time=W.MarkClock()),
    ):
        with pytest.raises(WindowError, match="snapshot was made for"):
            other.restore(state, no_fetch)
    W.FixedTimeWindow("1000ms", by="key", idle=3).restore(state, no_fetch)  # idle decides about marks, not windows


@pytest.mark.parametrize("damage", [lambda s: s[:-1], lambda s: b"", lambda s: s[:20] + b"x" + s[21:], lambda s: b"no"])
def test_a_damaged_snapshot_is_refused(damage: Any) -> None:
    emitter = W.CountWindow(3)
    emitter.push(chunk(rows_of(1, 2)))
    with pytest.raises(WindowError, match="expected the bytes of an emitter's snapshot, got"):
        W.CountWindow(3).restore(damage(emitter.snapshot()), no_fetch)


def test_rows_that_are_gone_are_named() -> None:
    emitter = W.CountWindow(3)
    emitter.push(chunk(rows_of(1, 2)))
    with pytest.raises(WindowError, match=r"no longer kept: 2 from offset 0 on are needed - in CountWindow.restore"):
        W.CountWindow(3).restore(emitter.snapshot(), lambda wanted: [])


def test_only_the_open_rows_are_read_again() -> None:
    rows = [Row(i, i, i, "ab"[i % 2]) for i in range(11)]
    emitter = W.CountWindow(4, by="key")
    emitter.push(chunk(rows))
    asked: list[range] = []

    def fetch(wanted: Sequence[range]) -> list[Chunk]:
        asked.extend(wanted)
        return [chunk(rows[r.start : r.stop]) for r in wanted]

    again = W.CountWindow(4, by="key")
    again.restore(emitter.snapshot(), fetch)
    assert asked == [range(8, 11)]
    assert seen(again.flush(11)) == seen(emitter.flush(11))


def test_the_clock_of_a_snapshot_stays_though_the_schema_gains_an_event_column() -> None:
    plain = pa.record_batch({"x": [1]})
    emitter = W.FixedTimeWindow(1)
    emitter.push(Chunk(plain, 0, np.array([500])))
    again = W.FixedTimeWindow(1)
    again.restore(emitter.snapshot(), lambda wanted: [Chunk(plain, 0, np.array([500]))])
    wider = pa.record_batch({"x": [1], "ts_event": [7_000_000_000]})
    for each in (emitter, again):
        (window,) = each.push(Chunk(wider, 1, np.array([2_000_000_000])))
        assert (window.start_ns, window.offsets) == (0, range(0, 1))

"""A chain of plants: what leaves the last is what entered the first, once each."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import penstock as ps
from penstock.errors import OffsetError, PenstockWarning, UsageError
from penstock.hub import Hub
from penstock.plant import serve
from penstock.plant.upstream import Mirror
from penstock_tests.waiting import PATIENCE_S, until


def copied(mirror: Mirror, rows: int) -> None:
    """Run a mirror until it has so many rows."""
    thread = threading.Thread(target=mirror.run)
    thread.start()
    until(lambda: mirror.rows >= rows)
    mirror.stop()
    thread.join(PATIENCE_S)
    assert mirror.rows == rows


@pytest.fixture
def here(tmp_path: Path) -> Hub:
    return ps.open(tmp_path / "here")


def test_a_copy_is_the_same(hub: Hub, here: Hub, bars: Any, kit: SimpleNamespace) -> None:
    docs = hub.streams.get("docs", attributes={"event": "D"})
    bars.append([kit.bar("A", n) for n in range(5)])
    docs.append([{"ev": "D", "n": 1, "deep": {"x": float("nan")}}, {"seq": 9}])
    with serve(hub, port=0) as service:
        copied(Mirror(service.url, here, prefix="far."), 7)
    assert here.streams.get("far.bars").read().equals(bars.read())
    assert str(here.streams.get("far.docs").rows()) == str(docs.rows())
    with serve(here, port=0) as chained:
        found = kit.got(chained.url, "AM.*", 5, since="start")
    assert [m["v"] for m in found] == [100, 101, 102, 103, 104]


def test_each_row_once_over_runs_and_restarts(hub: Hub, here: Hub, bars: Any, kit: SimpleNamespace) -> None:
    n = 0
    for turn in range(3):
        bars.append([kit.bar("A", n + k) for k in range(100)])
        n += 100
        with serve(hub, port=0) as service:
            mirror = Mirror(service.url, here, "AM.*", name="far")
            if turn == 1:  # it dies after the first appends
                append = mirror._append

                def failing(batch: Any, append: Any = append) -> None:
                    append(batch)
                    raise KeyboardInterrupt

                mirror._append = failing  # type: ignore[method-assign]
                with pytest.raises(KeyboardInterrupt):
                    mirror.run()
            else:
                copied(mirror, n - here.streams.get("bars").next_offset if turn else n)
    assert here.streams.get("bars").read().equals(bars.read())


def test_some_symbols_only(hub: Hub, here: Hub, bars: Any, kit: SimpleNamespace) -> None:
    bars.append([kit.bar("AB"[n % 2], n) for n in range(10)])
    with serve(hub, port=0) as service:
        copied(Mirror(service.url, here, "AM.B"), 5)
        bars.append([kit.bar("AB"[n % 2], n) for n in range(10, 14)])
        copied(Mirror(service.url, here, "AM.B"), 2)
    assert here.streams.get("bars").read()["volume"].to_pylist() == [101, 103, 105, 107, 109, 111, 113]


def test_a_stream_of_another_origin(hub: Hub, here: Hub, bars: Any, kit: SimpleNamespace) -> None:
    here.streams.get("bars", schema=ps.records.BARS).append(kit.bar("A", 1))
    bars.append(kit.bar("A", 1))
    with (
        serve(hub, port=0) as service,
        pytest.raises(OffsetError, match="stream 'bars' has rows that do not come from ws://"),
    ):
        Mirror(service.url, here).run()
    with pytest.raises(UsageError, match='expected since to be "start" or None, got 5'):
        Mirror("ws://x", here, since=5)  # type: ignore[arg-type]


def test_stop_and_what_comes_later(hub: Hub, here: Hub, bars: Any, kit: SimpleNamespace) -> None:
    bars.append(kit.bar("OLD", 0))
    with serve(hub, port=0) as service:
        mirror = Mirror(service.url, here, since=None)
        thread = threading.Thread(target=mirror.run)
        thread.start()
        kit.wait_until(lambda: any(s.held for s in service.server.plant.subscribers))
        bars.append(kit.bar("NEW", 1))
        hub.streams.get("late", attributes={"event": "L"}).append({"sym": "x"})
        kit.wait_until(lambda: mirror.rows == 2)
        mirror.stop()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    assert here.streams.get("bars").read()["symbol"].to_pylist() == ["NEW"]
    assert here.streams.get("late").rows() == [{"sym": "x"}]


CIRCLE = pytest.mark.filterwarnings("ignore:.* is a copy of .* of this hub, and is left out")


@CIRCLE
def test_plants_that_copy_one_another(hub: Hub, here: Hub, bars: Any, kit: SimpleNamespace) -> None:
    """Each has what the other made, once; nothing goes round."""
    bars.append(kit.bar("A", 1))
    mine = here.streams.get("mine", attributes={"event": "M"})
    mine.append({"n": 1})
    with serve(hub, port=0) as one, serve(here, port=0) as other:
        mirrors = [Mirror(other.url, hub, prefix="x."), Mirror(one.url, here, prefix="x.")]
        threads = [threading.Thread(target=mirror.run) for mirror in mirrors]
        for thread in threads:
            thread.start()
        for rows in (1, 2):
            until(lambda rows=rows: [mirror.rows for mirror in mirrors] == [rows, rows])  # type: ignore[misc]
            bars.append(kit.bar("A", rows + 1))
            mine.append({"n": rows + 1})
        until(lambda: [mirror._circular for mirror in mirrors] == [
            {"mine": False, "x.bars": True}, {"bars": False, "x.mine": True},
        ])  # fmt: skip
        for mirror, thread in zip(mirrors, threads, strict=True):
            mirror.stop()
            thread.join(PATIENCE_S)
    assert hub.streams.list() == ["bars", "x.mine"]
    assert here.streams.list() == ["mine", "x.bars"]


@CIRCLE
def test_a_copy_of_a_copy_knows_where_it_is_from(
    hub: Hub, here: Hub, bars: Any, kit: SimpleNamespace, tmp_path: Path
) -> None:
    bars.append(kit.bar("A", 1))
    third = ps.open(tmp_path / "third")
    with serve(hub, port=0) as one, serve(here, port=0) as two, serve(third, port=0) as three:
        copied(Mirror(one.url, here, prefix="b."), 1)
        copied(Mirror(two.url, third, prefix="c."), 1)
        assert third.streams.list() == ["c.b.bars"]
        mirror = Mirror(three.url, hub)
        thread = threading.Thread(target=mirror.run)
        thread.start()
        until(lambda: mirror._circular == {"c.b.bars": True})
        mirror.stop()
        thread.join(PATIENCE_S)
    assert hub.streams.list() == ["bars"]


def test_what_goes_round_is_told_once(hub: Hub, bars: Any) -> None:
    mirror = Mirror("ws://far:5000", hub)
    root = f"{bars.metadata().created_ns} bars"
    with pytest.warns(
        PenstockWarning, match="'x.bars' of ws://far:5000 is a copy of 'bars' of this hub, and is left out"
    ):
        assert mirror._is_ours("x.bars", root)
    assert mirror._is_ours("x.bars", root)
    for other in ("", "5 bars", f"{bars.metadata().created_ns} none"):
        assert not mirror._is_ours(f"y{other}", other)

"""A chain of plants: what leaves the last is what entered the first, once each."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import penstock as ps
from penstock.errors import OffsetError, UsageError
from penstock.hub import Hub
from penstock.plant import serve, subscribe
from penstock.plant.upstream import Mirror


@pytest.fixture
def here(tmp_path: Path) -> Hub:
    return ps.open(tmp_path / "here")


def test_a_copy_is_the_same(hub: Hub, here: Hub, bars: Any, kit: SimpleNamespace) -> None:
    docs = hub.streams.get("docs", attributes={"event": "D"})
    bars.append([kit.bar("A", n) for n in range(5)])
    docs.append([{"ev": "D", "n": 1, "deep": {"x": float("nan")}}, {"seq": 9}])
    with serve(hub, port=0) as service:
        assert Mirror(service.url, here, prefix="far.").run(timeout=0.5) == 7
    assert here.streams.get("far.bars").read().equals(bars.read())
    assert str(here.streams.get("far.docs").rows()) == str(docs.rows())
    with serve(here, port=0) as chained:
        found = list(subscribe(chained.url, "AM.*", since="start", timeout=0.5))
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
                mirror.run(timeout=0.5)
    assert here.streams.get("bars").read().equals(bars.read())


def test_some_symbols_only(hub: Hub, here: Hub, bars: Any, kit: SimpleNamespace) -> None:
    bars.append([kit.bar("AB"[n % 2], n) for n in range(10)])
    with serve(hub, port=0) as service:
        for _ in range(2):
            Mirror(service.url, here, "AM.B").run(timeout=0.4)
    assert here.streams.get("bars").read()["volume"].to_pylist() == [101, 103, 105, 107, 109]


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
        thread.join(10)
        assert not thread.is_alive()
    assert here.streams.get("bars").read()["symbol"].to_pylist() == ["NEW"]
    assert here.streams.get("late").rows() == [{"sym": "x"}]

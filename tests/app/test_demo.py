from __future__ import annotations

import threading
from pathlib import Path

import pytest

import penstock as ps
from penstock.app import Demo, load_market
from penstock.errors import StorageError, UsageError
from penstock.window import Bars
from penstock_tests.waiting import PATIENCE_S


def wait(demo: Demo) -> None:
    assert demo.wait(PATIENCE_S), f"the demo does not end: {demo.statistics()}"


def test_it_makes_what_it_says(tmp_path: Path) -> None:
    market = load_market(synthetic=True, limit=30_000)
    with Demo(tmp_path / "d", market) as demo:
        with pytest.raises(UsageError, match="has not come to its end"):
            demo.result()
        demo.start()
        wait(demo)
        result = demo.result()
        now = demo.statistics()
    assert (result.trades, result.daily, result.synthetic) == (30_000, 0, True)
    bars = Bars("1m").batch(market.trades)
    assert result.bars == result.factors == result.ranks == bars.num_rows
    assert result.values == bars.num_rows * 10
    assert result.bits_differ == 0
    assert result.rows_per_second > 0
    assert now.finished
    assert now.lag == {"bars": 0, "factors": 0, "ranks": 0}
    assert now.rows["trades"] == now.total == 30_000
    with ps.open(tmp_path / "d", create=False) as hub:
        assert hub.streams.list() == ["bars", "factors", "ranks", "trades"]
        key = [("ts_event", "ascending"), ("symbol", "ascending")]
        assert hub.streams.get("bars").read().sort_by(key).equals(bars.sort_by(key))
        assert hub.streams.metadata("trades").attributes["source"] == market.source
        assert "ts_mean(close, n=20)" in hub.streams.metadata("factors").attributes["factors"]["trend"]


def test_stopped_it_ends_soon_and_what_was_made_stays(tmp_path: Path) -> None:
    with Demo(tmp_path / "d", load_market(synthetic=True, limit=5000), pace="recorded") as demo:
        demo.start()
        while not len(demo.stream("trades")):
            demo.stream("trades").wait(0, 0.1)
        demo.stop()
        assert demo.wait(0)
        with pytest.raises(UsageError, match="has not come to its end"):
            demo.result()
        there = len(demo.stream("trades"))
    with ps.open(tmp_path / "d") as hub:
        assert 0 < len(hub.streams.get("trades")) == there < 5000


@pytest.mark.parametrize("thread", ["source", "bars", "factors"])
def test_a_failure_in_one_thread_stops_all_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, thread: str
) -> None:
    if thread == "source":
        from penstock.connect import Dataset

        def broken(*args: object, **options: object) -> None:
            raise StorageError("the disk is gone")

        monkeypatch.setattr(Dataset, "stream", broken)
    else:
        stop = threading.current_thread()

        def also_broken(self: object, batch: object, *args: object, **options: object) -> object:
            if threading.current_thread().name == thread and threading.current_thread() is not stop:
                raise StorageError("the disk is gone")
            return original(self, batch, *args, **options)

        from penstock.log import Stream

        original = Stream.append
        monkeypatch.setattr(Stream, "append", also_broken)
    with Demo(tmp_path / "d", load_market(synthetic=True, limit=20_000), pace="6000x") as demo:
        demo.start()
        wait(demo)
        with pytest.raises(StorageError, match="the disk is gone"):
            demo.result()
        assert not any(t.is_alive() for t in demo._threads)


def test_a_pace_that_cannot_be_meant_removes_nothing(tmp_path: Path) -> None:
    market = load_market(synthetic=True, limit=10)
    Demo(tmp_path / "d", market).close()
    with pytest.raises(UsageError, match="got '5y'"):
        Demo(tmp_path / "d", market, pace="5y")
    assert (tmp_path / "d" / "streams" / "trades").exists()


def test_one_folder_takes_one_demo(tmp_path: Path) -> None:
    market = load_market(synthetic=True, limit=10)
    with Demo(tmp_path / "d", market), pytest.raises(StorageError, match="another demo runs there"):
        Demo(tmp_path / "d", market)
    Demo(tmp_path / "d", market).close()

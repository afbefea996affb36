from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import penstock
from penstock.errors import SourceError
from penstock.testing import ABORT, EOF, PAUSE, ScriptedSource
from penstock_tests.waiting import PATIENCE_S


@pytest.fixture
def stream(tmp_path: Path) -> Iterator[penstock.log.Stream]:
    with penstock.open(tmp_path / "hub") as hub:
        yield hub.streams.get("s")


def test_marks(stream: penstock.log.Stream) -> None:
    source = ScriptedSource({"n": 1}, EOF, {"n": 2}, ABORT, [{"n": 3}, {"n": 4}])
    source.stream(stream)
    assert len(stream) == 1
    with pytest.raises(SourceError, match="the script aborts at item 3"):
        source.stream(stream)
    assert len(stream) == 2
    source.stream(stream)
    source.stream(stream)
    assert [row["n"] for row in stream.rows()] == [1, 2, 3, 4]


def test_pause(stream: penstock.log.Stream) -> None:
    source = ScriptedSource({"n": 1}, PAUSE, {"n": 2}, PAUSE, {"n": 3})
    stopping = threading.Event()
    runner = threading.Thread(target=source.stream, args=[stream], kwargs={"stopping": stopping})
    runner.start()
    source.wait_paused()
    assert len(stream) == 1
    source.resume()
    source.wait_paused()
    assert len(stream) == 2
    stopping.set()
    runner.join(PATIENCE_S)
    assert not runner.is_alive()
    assert len(stream) == 2


def test_no_pause() -> None:
    with pytest.raises(TimeoutError, match=r"the source did not pause within 0.01 s, it stands at item 0"):
        ScriptedSource({"n": 1}).wait_paused(0.01)

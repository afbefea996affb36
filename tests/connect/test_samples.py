from __future__ import annotations

import hashlib
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from penstock.clock import iso
from penstock.connect import samples
from penstock.connect.samples import Package, fetch
from penstock.errors import SourceError, UsageError
from penstock.records import TRADES
from penstock_tests.waiting import PATIENCE_S


def wheel(folder: Path, name: str = "penstock_sample", note: str = "x") -> Package:
    """A real wheel in a folder that pip takes as its index."""
    folder.mkdir(parents=True, exist_ok=True)
    file = f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(folder / file, "w") as archive:
        info = f"{name}-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nSummary: {note}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return Package(name, "1.0", file, hashlib.sha256((folder / file).read_bytes()).hexdigest())


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no index but the folder `index`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    (tmp_path / "index").mkdir()
    return tmp_path / "cache" / "penstock"


def test_a_download_is_kept(cache: Path, tmp_path: Path) -> None:
    package = wheel(tmp_path / "index")
    path = fetch(package)
    assert path == cache / package.file
    (tmp_path / "index" / package.file).unlink()
    assert fetch(package) == path  # from the cache: the index has it no more
    assert [p.name for p in cache.iterdir()] == [package.file]


def test_a_damaged_file_is_replaced(cache: Path, tmp_path: Path) -> None:
    package = wheel(tmp_path / "index")
    path = fetch(package)
    path.write_bytes(path.read_bytes()[:-5])
    assert hashlib.sha256(fetch(package).read_bytes()).hexdigest() == package.sha256


def test_another_file_than_the_expected(cache: Path, tmp_path: Path) -> None:
    package = wheel(tmp_path / "index")
    other = wheel(tmp_path / "index", note="y")
    with pytest.raises(SourceError) as caught:
        fetch(package)
    assert str(caught.value) == (
        f"expected sha256 {package.sha256}, got {other.sha256} - in {package.file} as downloaded; "
        f"the package index serves another file; connect to the network, put {package.file} into {cache}, "
        "or use samples.market()"
    )
    assert list(cache.iterdir()) == []


def test_no_network(cache: Path) -> None:
    with pytest.raises(
        SourceError,
        match=r"sample data could not be downloaded: No matching distribution found for mlfinpy==0.1.2 - "
        r"at mlfinpy 0.1.2"
        r"; connect to the network, put mlfinpy-0.1.2-py3-none-any.whl into .*, or use samples.market\(\)",
    ):
        samples.emini_trades()
    assert list(cache.iterdir()) == []


def test_no_pip(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    venv.create(tmp_path / "bare", with_pip=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    with pytest.raises(
        SourceError, match="bin/python has no pip - at bokeh-sampledata 2026.1; run .* -m ensurepip, or "
    ):
        samples.daily_bars()


def test_no_place(cache: Path) -> None:
    cache.parent.touch()
    with pytest.raises(SourceError, match="no place for sample data: .* - in .*; set XDG_CACHE_HOME to a folder"):
        samples.emini_trades()


def test_two_processes_at_once(cache: Path, tmp_path: Path) -> None:
    package = wheel(tmp_path / "index")
    code = f"from penstock.connect.samples import *; print(fetch({package!r}))"
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=PATIENCE_S)[0].strip() for process in both]
    assert said == [str(cache / package.file)] * 2
    assert [p.name for p in cache.iterdir()] == [package.file]


@pytest.mark.slow
def test_emini_trades() -> None:
    table = pa.Table.from_batches(samples.emini_trades())
    assert table.schema == TRADES
    assert table.num_rows == 500_000
    times = table["ts_event"].to_numpy()
    assert (np.diff(times) >= 0).all()
    assert (iso(int(times[0])), iso(int(times[-1]))) == (
        "2013-09-01T22:00:00.083000000Z",
        "2013-09-03T18:51:44.578000000Z",
    )
    assert int((np.diff(times) == 0).sum()) == 415_432
    prices = table["price"].to_numpy()
    assert (prices.min(), prices.max()) == (1630.75, 1650.0)
    assert (prices * 4 == np.rint(prices * 4)).all()
    assert table["size"].to_numpy().sum() == 1_844_058
    # The Labor Day halt: nothing from 10:30 to 17:00 Chicago time.
    gap = int(np.diff(times).argmax())
    assert (iso(int(times[gap])), iso(int(times[gap + 1]))) == (
        "2013-09-02T15:29:59.246000000Z",
        "2013-09-02T22:00:00.026000000Z",
    )


@pytest.mark.slow
def test_daily_bars() -> None:
    table = pa.Table.from_batches(samples.daily_bars())
    assert table.schema == samples.DAILY_BARS
    assert table.num_rows == 12_154
    first = table.slice(0, 1).to_pylist()[0]
    assert first == {
        "symbol": "AAPL",
        "ts_event": 951886800_000000000,  # 2000-03-01 in New York
        "ts_close": 951973200_000000000,
        "open": 118.56,
        "high": 132.06,
        "low": 118.5,
        "close": 130.31,
        "volume": 9616100,
        "adj_close": 4.186662803811,
    }
    for name in ("open", "close"):
        assert (table[name].to_numpy() <= table["high"].to_numpy()).mean() > 0.99
    one = pa.Table.from_batches(samples.daily_bars("FB"))
    assert iso(one["ts_event"][0].as_py()) == "2012-05-18T04:00:00.000000000Z"
    assert set(pa.Table.from_batches(samples.daily_bars(["IBM", "MSFT"]))["symbol"].to_pylist()) == {"IBM", "MSFT"}


def test_unknown_symbol() -> None:
    with pytest.raises(UsageError, match="expected symbols of AAPL, FB, GOOG, IBM, MSFT, got 'TSLA' - in daily_bars"):
        samples.daily_bars(["IBM", "TSLA"])


def test_the_market_is_always_the_same() -> None:
    table = pa.Table.from_batches(samples.market(10_000, 5))
    assert table.schema == TRADES
    digest = hashlib.sha256()
    for name in ("ts_event", "ts_recv", "price", "size", "sequence"):
        digest.update(table[name].to_numpy().tobytes())
    digest.update("".join(table["symbol"].to_pylist() + table["side"].to_pylist()).encode())
    assert digest.hexdigest() == "4a7a69caae3a11757c8afdd0ce5b64c41fc8205d52856cd2132b172ee507259f"


def test_the_market_is_one() -> None:
    table = pa.Table.from_batches(samples.market(50_000, ["X", "Y"], seed=1, start="2024-06-03T13:30:00Z"))
    times, prices = table["ts_event"].to_numpy(), table["price"].to_numpy()
    assert iso(int(times[0])) == "2024-06-03T13:30:00.000000000Z"
    assert (np.diff(times) >= 0).all()
    assert 40_000_000 < np.diff(times).mean() < 50_000_000
    assert prices.min() > 0
    assert (np.rint(prices * 100) / 100 == prices).all()
    for symbol in ("X", "Y"):
        own = prices[np.array(table["symbol"].to_pylist()) == symbol]
        assert np.abs(np.rint(np.diff(own) * 100)).max() == 2
    assert set(table["size"].to_pylist()) == {100 * n for n in range(1, 17)}
    assert pa.Table.from_batches(samples.market(100, seed=2)) != pa.Table.from_batches(samples.market(100, seed=3))
    with pytest.raises(
        UsageError, match="expected at least one trade and one symbol, got trades=0, symbols=8 - in market"
    ):
        samples.market(0)

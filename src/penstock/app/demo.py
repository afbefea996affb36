"""The demo: a market through streams, bars and factors, each its own thread, and a proof that live equals batch.

    trades ──bars──▶ bars ──factors──▶ factors           and   daily ──ranks──▶ ranks
                      └────ranks─────▶ ranks             when the market is made up and has no daily bars

A name on an arrow is a consumer group; what it makes is in the stream after it exactly once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import penstock.hub
from penstock.app import demo_factors
from penstock.app.demo_folder import take_folder
from penstock.app.demo_market import Market
from penstock.connect import Dataset
from penstock.connect.samples import DAILY_BARS
from penstock.errors import UsageError
from penstock.factor import Feed, Program
from penstock.log import Stream
from penstock.records import BARS, TRADES
from penstock.window import BarWindow
from penstock.window.streaming import Streaming

__all__ = ["Demo", "DemoResult", "DemoStatistics"]

_BATCH_ROWS = 4096


@dataclass(frozen=True, slots=True)
class DemoStatistics:
    """Where a demo stands: rows per stream, rows each group has still to do, trades in all, seconds since the start."""

    rows: dict[str, int]
    lag: dict[str, int]
    total: int
    seconds: float
    finished: bool


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What a demo did.

    trades, bars, factors, daily, ranks  rows of these streams;  seconds  from the first trade to the last factor
    rows_per_second  trades in a second;  market_hours  from the first trade to the last, as recorded
    values, bits_differ  of the comparison of live with batch
    data  the hub's folder;  source, synthetic  as of the market
    """

    trades: int
    bars: int
    factors: int
    daily: int
    ranks: int
    seconds: float
    rows_per_second: int
    market_hours: float
    values: int
    bits_differ: int
    data: str
    source: str
    synthetic: bool

    def as_dict(self) -> dict[str, Any]:
        """All of it in JSON's types."""
        return asdict(self)


class Demo:
    """A run of the demo in a folder of its own. `start` it, `wait` for it, then ask for the `result`; `with` ends it.

    Takes   folder: emptied if an earlier demo made it, see `take_folder`; market: what to replay;
            pace: "max" or such as "60x", see `Dataset`.
    """

    def __init__(self, folder: Path, market: Market, *, pace: str = "max") -> None:
        self.market = market
        self.folder = folder
        self._pace = pace
        rows = market.trades.slice(0, 0)
        Dataset(rows, pace=pace)  # a pace that cannot be meant shows before anything is removed
        self._lock = take_folder(folder)
        self.hub = penstock.hub.open(folder)
        get = self.hub.streams.get
        self._streams: dict[str, Stream] = {}
        self._programs: dict[str, tuple[Program, str]] = {}
        self._streams["trades"] = get("trades", schema=TRADES, attributes={"source": market.source})
        self._streams["bars"] = get("bars", schema=BARS, attributes={"interval": "1 min"})
        panel, price = ("bars", "close") if market.daily is None else ("daily", "adj_close")
        if market.daily is not None:
            self._streams["daily"] = get("daily", schema=DAILY_BARS)
        for name, source, factors in (
            ("factors", "bars", demo_factors.ALONG),
            ("ranks", panel, demo_factors.across(price)),
        ):
            program = demo_factors.program_of(factors)
            self._programs[name] = (program, source)
            self._streams[name] = get(name, schema=demo_factors.factor_schema(program))
        self._consumers: dict[str, Streaming] = {}
        self._stop = threading.Event()
        self._done = {name: threading.Event() for name in self._streams}
        self._failure: BaseException | None = None
        self._mutex = threading.Lock()
        self._began = self._ended = 0.0
        self._threads: list[threading.Thread] = []

    # -- running

    def start(self) -> None:
        """Begin: a thread for the source, one for each consumer."""
        self._began = time.monotonic()
        symbols = {"bars": self.market.symbols}
        if self.market.daily is not None:
            symbols["daily"] = sorted(set(self.market.daily["symbol"].to_pylist()))
        self._consumers["bars"] = self.hub.streams.get(
            "trades", lazy=True, emitter=BarWindow("1m"), group="bars", into="bars", on_error="stop"
        )
        works: dict[str, Callable[[], None]] = {"source": self._source, "bars": self._bars}
        for name, (program, source) in self._programs.items():
            feed = program.follow(
                self._streams[source], into=name, group=name, symbols=symbols[source], on_error="stop"
            )
            self._consumers[name] = feed
            works[name] = self._factors(name, source, feed)
        for name, work in works.items():
            self._threads.append(threading.Thread(target=self._guarded, args=(work,), name=name, daemon=True))
        for thread in self._threads:
            thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait for the end, at most `seconds`; True when all has been done, or something failed."""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        """End it now: each thread stops after the rows in its hands; what was appended stays."""
        self._stop.set()
        for done in self._done.values():
            done.set()
        for thread in self._threads:
            thread.join()

    def result(self) -> DemoResult:
        """What was done, after the end; compares live with batch.   Raises  what made a thread fail."""
        if self._failure is not None:
            raise self._failure
        if not self._threads or not self.wait(0.0) or self._stop.is_set():
            raise UsageError("the demo has not come to its end", hint="call start, and wait until it is True")
        found = [demo_factors.compare(p, self._streams[s], self._streams[n]) for n, (p, s) in self._programs.items()]
        rows = {name: len(stream) for name, stream in self._streams.items()}
        seconds = self._ended - self._began
        first, last = self.market.span_ns
        return DemoResult(
            trades=rows["trades"],
            bars=rows["bars"],
            factors=rows["factors"],
            daily=rows.get("daily", 0),
            ranks=rows["ranks"],
            seconds=round(seconds, 3),
            rows_per_second=round(rows["trades"] / seconds),
            market_hours=round((last - first) / 3.6e12, 3),
            values=sum(one.values for one in found),
            bits_differ=sum(one.bits for one in found),
            data=str(self.folder),
            source=self.market.source,
            synthetic=self.market.synthetic,
        )

    def statistics(self) -> DemoStatistics:
        """Where it stands now."""
        alive = any(thread.is_alive() for thread in self._threads)
        end = time.monotonic() if alive or not self._ended else self._ended
        return DemoStatistics(
            rows={name: len(stream) for name, stream in self._streams.items()},
            lag={name: self._to_do(name) for name in self._consumers},
            total=self.market.trades.num_rows,
            seconds=end - self._began,
            finished=bool(self._threads) and not alive,
        )

    def stream(self, name: str) -> Stream:
        """One of its streams."""
        return self._streams[name]

    def reads(self, name: str) -> str:
        """The stream that the consumer `name` reads."""
        return "trades" if name == "bars" else self._programs[name][1]

    def _to_do(self, name: str) -> int:
        """Rows that the consumer `name` has not done, as `penstock stream ls` shows them."""
        source = self._streams[self.reads(name)]
        return max(0, source.next_offset - source.position(name).offset)

    def close(self) -> None:
        """Stop what still runs, and give the folder back."""
        self.stop()
        self.hub.close()
        self._lock.close()

    def __enter__(self) -> Demo:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- threads

    def _guarded(self, work: Callable[[], None]) -> None:
        """One failure ends all; the first one is told."""
        try:
            work()
        except BaseException as error:
            with self._mutex:
                if self._failure is None:
                    self._failure = error
            self._stop.set()
            for done in self._done.values():
                done.set()
        finally:
            self._ended = time.monotonic()

    def _source(self) -> None:
        with self._finishing("daily", "trades"):
            daily, trades = self.market.daily, self.market.trades
            if daily is not None:
                Dataset(daily, name="daily", batch_rows=512).stream(self._streams["daily"], stopping=self._stop)
                self._done["daily"].set()
            replay = Dataset(trades, name="trades", pace=self._pace, batch_rows=_BATCH_ROWS)
            replay.stream(self._streams["trades"], stopping=self._stop)

    def _bars(self) -> None:
        with self._finishing("bars"):
            # How many trades there will be is known, so that the last bars are closed by the end and by no clock.
            self._consumers["bars"].apply(until=self.market.trades.num_rows, flush=True, stop=self._stop)

    def _factors(self, name: str, source: str, feed: Feed) -> Callable[[], None]:
        def work() -> None:
            with self._finishing(name):
                feed.run(stop=self._done[source])
                if not self._stop.is_set():
                    feed.run(blocking=False, flush=True)

        return work

    @contextmanager
    def _finishing(self, *names: str) -> Iterator[None]:
        """When the work ends, for good or ill, whoever reads these streams knows that nothing more will come."""
        try:
            yield
        finally:
            for name in names:
                if name in self._done:
                    self._done[name].set()

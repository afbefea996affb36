"""What `program.follow` gives: a stream of bars in, a stream of factors out, each row exactly once."""

from __future__ import annotations

import difflib
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from penstock.errors import FactorError, PenstockError, UsageError
from penstock.factor.feed.moving import Symbol
from penstock.factor.feed.runner import FeedRunner
from penstock.factor.feed.window import FactorWindow
from penstock.factor.graph import formula
from penstock.log import Stream
from penstock.log.folder import Folder
from penstock.window.runner import Runner, StreamingStatistics
from penstock.window.streaming import Streaming

if TYPE_CHECKING:
    from penstock.factor.program import Program

__all__ = ["Feed", "FeedStatistics"]

_RUN_OPTIONS = {"start", "retries", "on_error", "blocking", "standby", "flush", "until", "max_windows", "stop"}
_RUN_OPTIONS |= {"timeout", "clock"}


@dataclass(frozen=True, slots=True)
class FeedStatistics(StreamingStatistics):
    """One run, as of every consumer (`results` are rows of factors, `windows` their appends, of many ticks at once when
    it was behind), and of the feed since it began:

    ticks       computed, absent ones (`every=`) among them; `ordinal` is the number of the next one
    symbols     in the universe now
    missing     symbol cells without a row, of all ticks and the symbols known then
    late        rows whose tick was complete;  duplicates  rows that another one of their symbol and tick replaced
    unknown     rows of symbols that are none of the universe's
    waiting     rows of ticks that are not complete yet
    """

    ticks: int = 0
    ordinal: int = 0
    symbols: int = 0
    missing: int = 0
    duplicates: int = 0
    unknown: int = 0
    waiting: int = 0


class Feed(Streaming):
    """A program that follows a stream; made by `program.follow`. `run` it, or give a function to `apply`.

    It is a consumer as any other (`apply`, `aapply`, `seek`, `statistics`, limits) whose windows are ticks: a row of
    factors for each symbol. While it runs, `statistics()` tells how it goes, and `stop()` ends it.
    """

    def __init__(
        self,
        program: Program,
        stream: Stream,
        open_stream: Callable[..., Stream],
        *,
        into: str | Stream | None,
        snapshot_every: float,
        ticks: dict[str, Any],
        options: dict[str, Any],
    ) -> None:
        self.program = program
        self._stopping = threading.Event()
        self._factors = FactorWindow(program, **ticks)
        try:
            self._factors.bind(stream.schema)
        except PenstockError as error:
            error.where = f"in stream {stream.name!r}" if error.where is None else f"{error.where} of {stream.name!r}"
            raise
        super().__init__(stream, open_stream, into=into, emitter=self._factors, **options)
        if into is not None:
            name = into.name if isinstance(into, Stream) else into
            target = into if isinstance(into, Stream) else open_stream(name, schema=self._factors.schema)
            formulas = {output: formula(node, 200) for output, node in program.factors.items()}
            target.change(
                schema=self._factors.schema,
                attributes={"program": program.digest, "of": stream.name, "group": self.group, "factors": formulas},
            )
        self._runs = partial(FeedRunner, snapshot_every=snapshot_every)
        self._running: Runner | None = None

    @property
    def schema(self) -> Any:
        """Of the rows of factors: symbol, time, outputs."""
        return self._factors.schema

    @property
    def symbols(self) -> tuple[Symbol, ...]:
        """The universe of the run in hand, or of the last one."""
        return self._in_hand.ticks.universe.symbols

    @property
    def cold(self) -> dict[str, int]:
        """Ticks that outputs still need until they are warm for every symbol; warm ones are left out."""
        live = self._in_hand.ticks.universe.live
        return dict(self.program.lookback) if live is None else live.cold

    @property
    def _in_hand(self) -> FactorWindow:
        runner = self._runner
        found = self._factors if runner is None else runner._emitter
        assert isinstance(found, FactorWindow)
        return found

    def run(self, **limits: Any) -> FeedStatistics:
        """Follow the stream, until told to stop; what it makes goes to `into`.

        Takes   limits: `until`, `max_windows`, `stop`, `timeout`, `blocking`, `flush`: as for `apply` of windows;
                flush: complete the ticks that wait when it ends.
        Raises  as `apply`; FactorError if there is no `into`.
        """
        return self.apply(None, **limits)

    async def arun(self, **limits: Any) -> FeedStatistics:
        """As `run`, in a thread of its own. Cancelled, it stops after the tick in hand, which is done."""
        found = await self.aapply(None, **limits)
        assert isinstance(found, FeedStatistics)
        return found

    def apply(self, fn: Callable[..., Any] | None = None, **limits: Any) -> FeedStatistics:
        """As `run`, with `fn(window)` for each tick: `window.table` has its rows of factors. What `fn` returns goes to
        `into`, if there is one. Without `fn` many ticks may be appended at once.
        """
        given = limits.get("stop", self._limits["stop"])
        limits["stop"] = self._stopping if given is None else _Any(given, self._stopping)
        try:
            super().apply(fn, **limits)
        finally:
            self._stopping.clear()
        return self.statistics()

    def stop(self) -> None:
        """End the run in hand, or the next one, after the tick it is at. From any thread."""
        self._stopping.set()

    def statistics(self) -> FeedStatistics:
        """What the run in hand, or the last one, has done, and what the feed has since it began."""
        factors = self._in_hand
        ticks = factors.ticks
        return FeedStatistics(
            **{**asdict(super().statistics()), "late": factors.late},
            ticks=ticks.ticks,
            ordinal=ticks.universe.ordinal,
            symbols=len(ticks.universe.symbols),
            missing=ticks.universe.missing,
            duplicates=ticks.duplicates,
            unknown=ticks.unknown,
            waiting=len(ticks.held),
        )

    def __repr__(self) -> str:
        return f"Feed({self.stream.name!r}, group={self.group!r}, {len(self.program.outputs)} outputs)"


class _Any:
    """Set when one of several events is."""

    def __init__(self, *events: Any) -> None:
        self._events = events

    def is_set(self) -> bool:
        return any(event.is_set() for event in self._events)


def follow(
    program: Program,
    bars: Stream,
    into: str | Stream | None,
    *,
    group: str | None,
    snapshot_every: float,
    ticks: dict[str, Any],
    run: dict[str, Any],
) -> Feed:
    """See `Program.follow`; `ticks` are the options of FactorWindow, `run` those of every consumer."""
    if not isinstance(bars, Stream):
        hint = "hub.streams.get(name)"
        raise FactorError(expected="a stream of bars", got=repr(bars)[:100], where="in follow", hint=hint)
    if isinstance(snapshot_every, bool) or not isinstance(snapshot_every, int | float) or snapshot_every < 0:
        raise FactorError(expected="snapshot_every: seconds, at least 0", got=repr(snapshot_every), where="in follow")
    for name, value in run.items():
        if name not in _RUN_OPTIONS:
            known = sorted({*ticks, *_RUN_OPTIONS})
            near = difflib.get_close_matches(name, known, 1)
            raise UsageError(
                expected="an option of follow",
                got=f"{name}={value!r}",
                where=f"on stream {bars.name!r}",
                hint=f"did you mean {near[0]!r}?" if near else f"options are {', '.join(known)}",
            )
    if group is None:  # another one for each stream of factors, so that two programs do not follow as one
        group = into if isinstance(into, str) else into.name if isinstance(into, Stream) else "factors"
    return Feed(
        program,
        bars,
        Folder(bars._folder.parent.parent, create=False).stream,
        into=into,
        snapshot_every=float(snapshot_every),
        ticks=ticks,
        options={"group": group, **run},
    )

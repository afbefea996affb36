"""Which symbols a program runs for, and running it over ticks: one by one, or many at once, with the same bits."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from penstock.errors import PenstockWarning
from penstock.factor.feed.moving import Symbol, fits, joined, moved
from penstock.window.pending import Int64

if TYPE_CHECKING:
    from penstock.factor.feed.ticks import Replay
    from penstock.factor.live import Live
    from penstock.factor.program import Program

__all__ = ["Piece", "Universe", "UniverseState"]

Array = np.ndarray[Any, np.dtype[Any]]
_CELLS = 1 << 21  # values of one field at once: 16 MB of float64


class Piece(NamedTuple):
    """Outputs of the ticks from `start` to before `stop`, and of the rows from `low` to before `high`.

    codes (symbols,)      number of each column's symbol among all names;  at (rows,)  column of each row
    blocks                per output (ticks, symbols), valid until the next piece
    """

    start: int
    stop: int
    low: int
    high: int
    codes: Int64
    at: Int64
    blocks: Sequence[Array] | Array


class UniverseState(msgspec.Struct):
    """What is kept: the program's snapshot, per symbol the ordinal of its last row, symbol cells without a row."""

    live: bytes | None
    symbols: list[Symbol]
    seen: list[int]
    missing: int


class Universe:
    """The symbols of a feed and the state of its program.

    Takes   symbols: the universe, or None for those that show up, in the order in which they do; forget: rows without
            one of its own after which a symbol leaves (None: never).
    Names are numbered by whoever calls, from 0; `names` grows at its end only.
    """

    def __init__(self, program: Program, symbols: Sequence[Symbol] | None, forget: int | None = None) -> None:
        self.program = program
        self.fixed: tuple[Symbol, ...] | None = None
        self.forget = forget
        self.missing = 0
        self.live: Live | None = None
        if symbols is not None:
            self.live = program.stream(symbols)
            self.fixed = self.live.symbols
        self._seen = np.zeros(len(self.fixed or ()), np.int64)
        self._codes = np.zeros(0, np.int64)  # of the columns
        self._column = np.zeros(0, np.int64)  # of the codes, -1 for none

    @property
    def ordinal(self) -> int:
        """Ticks computed since the feed began."""
        return 0 if self.live is None else self.live.ordinal

    @property
    def symbols(self) -> tuple[Symbol, ...]:
        """The symbols of now, in the order of the columns."""
        return () if self.live is None else self.live.symbols

    @property
    def seen(self) -> Int64:
        """Per symbol the ordinal of the last tick in which it had a row."""
        return self._seen

    def columns(self, names: Sequence[Any]) -> Int64:
        """Per name its column, or -1."""
        if len(names) > len(self._column):
            self._place(names)
        return self._column

    def _place(self, names: Sequence[Any]) -> None:
        number = {name: code for code, name in enumerate(names)}
        self._codes = np.array([number.get(name, -1) for name in self.symbols], np.int64)
        self._column = np.full(len(names), -1, np.int64)
        there = self._codes >= 0
        self._column[self._codes[there]] = np.flatnonzero(there)

    def run(self, ticks: int, tick: Int64, codes: Int64, values: Array, names: Sequence[Any]) -> Iterator[Piece]:
        """Compute ticks.

        Takes   ticks: how many; tick, codes: of each row the number of its tick, ascending, and of its symbol;
                values: (inputs, rows), of the program's dtype.
        """
        at = 0
        while at < ticks:
            self._let_go(names)
            low, high = np.searchsorted(tick, [at, at + 1]).tolist()
            self._join(codes[low:high], names)
            assert self.live is not None
            stop = min(ticks, at + max(1, _CELLS // len(self.live.symbols)))
            column = self.columns(names)
            unknown = np.flatnonzero(column[codes[high:]] < 0)
            if len(unknown):
                stop = min(stop, int(tick[high + unknown[0]]))
            if self.forget is not None:
                stop = min(stop, at + int(self._seen.min()) + self.forget + 1 - self.ordinal)
            stop = max(stop, at + 1)
            high = int(np.searchsorted(tick, stop))
            columns = column[codes[low:high]]
            self.missing += (stop - at) * len(self.live.symbols) - len(columns)
            np.maximum.at(self._seen, columns, self.ordinal + tick[low:high] - at)
            blocks = self._run(stop - at, tick[low:high] - at, columns, values[:, low:high])
            yield Piece(at, stop, low, high, self._codes, columns, blocks)
            at = stop

    def _run(self, ticks: int, tick: Int64, columns: Int64, values: Array) -> Sequence[Array] | Array:
        live = self.live
        assert live is not None
        keys = len(live.symbols)
        if ticks == 1:
            for number, value in enumerate(values):
                row = np.full(keys, np.nan, self.program.dtype)
                row[columns] = value
                live.push(number, row)
            live.run()
            return live.block()[:, None]
        inputs = {}
        for name, value in zip(self.program.inputs, values, strict=True):
            block = np.full((ticks, keys), np.nan, self.program.dtype)
            block[tick, columns] = value
            inputs[name] = block
        return list(live.batch(inputs).values())

    def _join(self, codes: Int64, names: Sequence[Any]) -> None:
        """Take in the symbols among these that are new."""
        column = self.columns(names)
        new = list(dict.fromkeys(codes[column[codes] < 0].tolist()))
        if not new:
            return
        symbols = [names[code] for code in new]
        self.live = self.program.stream(symbols) if self.live is None else joined(self.live, symbols)
        self._seen = np.concatenate([self._seen, np.full(len(new), self.ordinal)])
        self._place(names)

    def _let_go(self, names: Sequence[Any]) -> None:
        live = self.live
        if live is None or self.forget is None or self.ordinal == 0:
            return
        gone = self._seen < self.ordinal - self.forget
        gone[int(self._seen.argmax())] = False  # a program needs one
        if gone.any():
            live.drop_symbols([name for name, out in zip(live.symbols, gone.tolist(), strict=True) if out])
            self._seen = self._seen[~gone]
            self._place(names)

    # -- keeping

    def save(self) -> UniverseState:
        """What `load` takes."""
        return UniverseState(
            None if self.live is None else self.live.snapshot(), list(self.symbols), self._seen.tolist(), self.missing
        )

    def load(self, state: UniverseState, names: Sequence[Any], replay: Replay) -> None:
        """Go on from what `save` gave, of this program and these symbols or of others.

        Takes   replay: what the program did not see, if it is another one, or knows further symbols.
        """
        self.missing = state.missing
        if state.live is None:
            return
        if fits(self.program, state.live, self.fixed):
            self.live, self._seen = self.program.stream(state=state.live), np.array(state.seen, np.int64)
        else:
            last = dict(zip(state.symbols, state.seen, strict=True))

            def replayed(symbols: Sequence[Symbol], ordinal: int) -> Live:
                live, found = replay(self.program, symbols, ordinal)
                seen = [last.get(name, again) for name, again in zip(symbols, found.tolist(), strict=True)]
                self._seen = np.array(seen, np.int64)
                return live

            self.live = moved(self.program, state.live, self.fixed, replayed)
            if cold := self.live.cold:
                shown = ", ".join(f"{name!r} ({rows})" for name, rows in list(cold.items())[:5])
                more = f" and {len(cold) - 5} more" if len(cold) > 5 else ""
                warnings.warn(
                    f"the log has too few ticks to warm {shown}{more}: so many further ones are needed",
                    PenstockWarning,
                    stacklevel=2,
                )
        self._place(names)

"""A stream: one row in, all outputs out, and the state in between as a value."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.errors import FactorError
from penstock.factor import frames, snapshot
from penstock.factor.graph import Node, formula

if TYPE_CHECKING:
    from penstock.factor.executor import Executor
    from penstock.factor.program import Program

__all__ = ["Live", "restore"]

Array = np.ndarray[Any, np.dtype[Any]]
Symbol = str | int


class Live:
    """The state of a program for one universe; made by `program.stream`. Serves one thread at a time.

    Either `step(close=…, volume=…)`, or `push` every input, `run`, and read `current` outputs; `batch` runs many rows.
    `ordinal` counts the rows since the stream began.
    """

    def __init__(
        self,
        program: Program,
        symbols: Sequence[Symbol],
        *,
        first: int = 0,
        labels: Mapping[str, Sequence[Any]] | None = None,
        executor: Executor | None = None,
    ) -> None:
        if first < 0:
            raise FactorError(expected="first of at least 0", got=repr(first), where="in program.stream")
        self.program = program
        self._executor = executor
        self.symbols: tuple[Symbol, ...] = _universe(symbols)
        self.ordinal = first
        self._first = first
        self._since: dict[Node, int] = {}
        self._born = [first] * len(self.symbols)
        self._labels = frames.Labels(program.labels, labels)
        self._handles = {name: i for i, name in enumerate((*program.inputs, *program.outputs))}
        self._prepare()

    def _prepare(self, state: Array | None = None) -> None:
        """Buffers and engine for the present universe."""
        keys, program = len(self.symbols), self.program
        self._engine = program.new_engine(keys, self._executor)
        if state is not None:
            self._engine.load(state)
        self._rows = list(self._engine.rows)
        self._shape = (keys,)
        self._pushed = [False] * len(program.inputs)
        self._out: Array | None = None

    # ---- one row ----

    def handle(self, name: str) -> int:
        """A number in place of an input's or output's name, for `push` and `current` in hot loops."""
        found = self._handles.get(name)
        if found is None:
            near = difflib.get_close_matches(name, self._handles, n=3)
            hint = (
                f"did you mean {' or '.join(map(repr, near))}"
                if near
                else f"inputs are {', '.join(self.program.inputs)}"
            )
            raise FactorError(f"there is no input or output {name!r}", hint=hint)
        return found

    def push(self, name: str | int, values: Any) -> None:
        """Give one input's next row.

        Takes   name: the input or its handle; values: (symbols,) numbers, NaN for missing; they are copied.
                A second push before `run` replaces the first.
        Raises  FactorError for an output, another shape or other than numbers.
        """
        at = self.handle(name) if isinstance(name, str) else name
        # What ticks are made of goes straight in: an array of the program's own kind.
        fits = type(values) is np.ndarray and values.dtype == self.program.dtype and values.shape == self._shape
        if fits and 0 <= at < len(self._rows):
            self._rows[at][:] = values
            self._pushed[at] = True
            return
        inputs = self.program.inputs
        if not 0 <= at < len(inputs):
            known = 0 <= at < len(self._handles)
            got = repr(self.program.outputs[at - len(inputs)]) if known else repr(name)
            raise FactorError(expected="an input", got=got, where="in push", hint=f"inputs are {', '.join(inputs)}")
        row = frames.floats(values, inputs[at], self.program.dtype, self._labels, "in push")
        if row.shape != (len(self.symbols),):
            raise FactorError(
                expected=f"{inputs[at]!r} of shape ({len(self.symbols)},), one value per symbol", got=str(row.shape)
            )
        self._rows[at][:] = row
        self._pushed[at] = True

    def run(self) -> None:
        """Compute the row that was pushed.

        Raises  FactorError if an input has not been pushed since the last run; the state is as before.
        """
        if not all(self._pushed):
            missing = [name for name, there in zip(self.program.inputs, self._pushed, strict=True) if not there]
            raise FactorError(
                f"no row of {', '.join(map(repr, missing))} for tick {self.ordinal}",
                hint="push every input before run; NaN for what is missing",
                missing=missing,
            )
        self._out = self._engine.tick(self.ordinal)
        self._pushed = [False] * len(self._pushed)
        self.ordinal += 1

    def current(self, name: str | int) -> Array:
        """An output of the last run: (symbols,), read-only, without a copy, valid until the next push or run."""
        at = self.handle(name) if isinstance(name, str) else name
        at -= len(self.program.inputs)
        if not 0 <= at < len(self.program.outputs):
            raise FactorError(
                expected="an output", got=repr(name), hint=f"outputs are {', '.join(self.program.outputs)}"
            )
        if self._out is None:
            raise FactorError("there is no row yet", hint="push every input and run")
        row: Array = self._out[at]
        row.flags.writeable = False
        return row

    def block(self) -> Array:
        """All outputs of the last run: (outputs, symbols), read-only, without a copy, valid until the next run."""
        if self._out is None:
            raise FactorError("there is no row yet", hint="push every input and run")
        rows = self._out.view()
        rows.flags.writeable = False
        return rows

    def step(self, /, **arrays: Any) -> dict[str, Array]:
        """One row in, all outputs out, as copies: `live.step(close=…, volume=…)`.

        Takes   per input (symbols,) numbers; further names are ignored.
        Raises  FactorError if an input is missing or unfit; the state is as before.
        """
        missing = [name for name in self.program.inputs if name not in arrays]
        if missing:
            near = [m for name in missing for m in difflib.get_close_matches(name, arrays, n=1)]
            raise FactorError(
                f"no row of {', '.join(map(repr, missing))} for tick {self.ordinal}",
                where="in step",
                hint=f"did you mean {' or '.join(map(repr, near))}" if near else "NaN stands for what is missing",
                missing=missing,
            )
        for at, name in enumerate(self.program.inputs):
            self.push(at, arrays[name])
        self.run()
        assert self._out is not None
        return dict(zip(self.program.outputs, self._out.copy(), strict=True))

    # ---- many rows ----

    def batch(self, data: Any, *, symbol: str = "symbol", time: str = "ts_event") -> Any:
        """Many rows at once, from where the stream is: `program.batch` with this state. Same bits as row by row."""
        program = self.program
        panel = frames.read(
            data, program.inputs, program.dtype, self._labels, symbols=self.symbols, symbol=symbol, time=time
        )
        out = self._engine.run(panel.inputs, self.ordinal, panel.rows)
        self.ordinal += panel.rows
        if panel.rows:
            self._out = np.array([block[-1] for block in out], program.dtype)
        self._pushed = [False] * len(self._pushed)
        return panel.wrap(dict(zip(program.outputs, out, strict=True)))

    # ---- state ----

    @property
    def cold(self) -> dict[str, int]:
        """Rows that outputs still need before they are warm for every symbol; warm ones are left out."""
        latest = max(self._born, default=self._first)
        at = self.program.warm_at(self._since, max(self._first, latest))
        return {name: rows - self.ordinal for name, rows in at.items() if rows > self.ordinal}

    def snapshot(self, path: str | os.PathLike[str] | None = None) -> bytes:
        """The state as bytes (see `snapshot.py`), also written to `path`. A row pushed but not run is not in it."""
        program = self.program
        header = snapshot.Header(
            program=program.digest,
            dtype=program.dtype.name,  # type: ignore[arg-type]
            ordinal=self.ordinal,
            first=self._first,
            symbols=list(self.symbols),
            since=self._born,
            fields=[
                snapshot.SavedField(*f.identity, self._since.get(f.node, self._first), formula(f.node, 80))
                for f in program.layout.fields
            ],
            outputs={name: formula(node, 80) for name, node in program.factors.items()},
            labels=self._labels.saved(),
        )
        data = snapshot.encode(header, self._engine.save())
        if path is not None:
            snapshot.write(data, path)
        return data

    def add_symbols(self, symbols: Iterable[Symbol]) -> None:
        """Take further symbols in, at the end of `symbols`; they start empty."""
        new = list(symbols)
        universe = _universe([*self.symbols, *new])
        state = self._engine.save()
        fresh = np.full((len(state), len(new)), np.nan, state.dtype)
        self.symbols = universe
        self._born += [self.ordinal] * len(new)
        self._prepare(np.concatenate([state, fresh], axis=1))

    def drop_symbols(self, symbols: Iterable[Symbol]) -> None:
        """Let symbols go, with their state."""
        gone = set(symbols)
        strange = gone - set(self.symbols)
        if strange:
            raise FactorError(f"{next(iter(strange))!r} is not a symbol of this stream", where="in drop_symbols")
        kept = [i for i, name in enumerate(self.symbols) if name not in gone]
        if not kept:
            raise FactorError("a stream needs at least one symbol", where="in drop_symbols")
        state = self._engine.save()[:, kept]
        self.symbols = tuple(self.symbols[i] for i in kept)
        self._born = [self._born[i] for i in kept]
        self._prepare(state)

    def __repr__(self) -> str:
        return f"Live({len(self.symbols)} symbols, {self.ordinal} rows, {len(self.program.outputs)} outputs)"


def _universe(symbols: Iterable[Symbol]) -> tuple[Symbol, ...]:
    if isinstance(symbols, str):
        raise FactorError(expected="a list of symbols", got=repr(symbols), hint=f"[{symbols!r}]")
    made: list[Symbol] = []
    for name in symbols:
        if isinstance(name, (bool, np.bool_)) or not isinstance(name, (str, int, np.integer, np.str_)):
            raise FactorError(expected="symbols that are texts or whole numbers", got=repr(name))
        made.append(int(name) if isinstance(name, np.integer) else str(name) if isinstance(name, str) else name)
    if not made:
        raise FactorError("a stream needs at least one symbol")
    if len(set(made)) != len(made):
        seen: set[Symbol] = set()
        twice = next(name for name in made if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise FactorError(f"symbol {twice!r} is given twice")
    return tuple(made)


def restore(
    program: Program,
    state: bytes | str | os.PathLike[str],
    symbols: Sequence[Symbol] | None,
    executor: Executor | None = None,
) -> Live:
    """A stream that goes on from a snapshot.

    State moves node by node (by the digest of the node's structure) and symbol by symbol; the rest starts empty.
    Raises  FactorError if bytes, dtype, all symbols or all nodes do not fit.
    """
    header, planes = snapshot.read(state)
    if header.dtype != program.dtype.name:
        raise FactorError(
            f"snapshot was made in {header.dtype}, this program computes in {program.dtype}",
            hint=f"compile with dtype={header.dtype!r}, or start without and replay the history",
        )
    there = {name: i for i, name in enumerate(header.symbols)}
    universe = header.symbols if symbols is None else symbols
    live = Live(program, universe, first=header.first, labels=header.labels, executor=executor)
    live.ordinal = header.ordinal
    mine = [i for i, name in enumerate(live.symbols) if name in there]
    theirs = [there[live.symbols[i]] for i in mine]
    if not mine:
        raise FactorError(
            f"snapshot was made for symbols {_some(header.symbols)}, this stream has {_some(live.symbols)}",
            hint="not one is in both; start without state",
        )
    rows: dict[tuple[Any, ...], tuple[int, int]] = {}
    first = 0
    for field in header.fields:
        rows[field.identity] = first, field.since
        first += field.depth * field.parts
    made = np.full((program.layout.rows, len(live.symbols)), np.nan, program.dtype)
    found = False
    for node, fields in program.layout.by_node().items():
        places = [rows.get(f.identity) for f in fields]
        if any(place is None for place in places):
            live._since[node] = live.ordinal
            continue
        found = True
        for f, place in zip(fields, places, strict=True):
            assert place is not None
            start, live._since[node] = place
            made[f.first : f.first + f.rows, mine] = planes[start : start + f.rows, theirs]
    if program.layout.fields and not found:
        have = sorted({field.formula for field in header.fields})
        want = sorted({formula(node, 80) for node in program.layout.by_node()})
        raise FactorError(
            f"snapshot was made for {_some(have)}, this program has {_some(want)}",
            hint="no operator is in both; load the program it was made with, or start without state",
            program=header.program,
        )
    live._born = [header.since[there[name]] if name in there else live.ordinal for name in live.symbols]
    live._prepare(made)
    return live


def _some(names: Sequence[Any]) -> str:
    shown = ", ".join(str(name) for name in names[:4])
    return (shown or "nothing") + (f" … ({len(names)})" if len(names) > 4 else "")

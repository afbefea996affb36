"""A stream: one row in, all outputs out, and the state in between as a value."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping, Sequence, Sized
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.errors import FactorError
from penstock.factor import frames, snapshot
from penstock.factor.graph import Node, formula

if TYPE_CHECKING:
    from penstock.factor.executor import Executor
    from penstock.factor.layout import Field
    from penstock.factor.program import Program

__all__ = ["MOST", "Live", "ordinal", "restore"]

Array = np.ndarray[Any, np.dtype[Any]]
Symbol = str | int

MOST = 1 << 24
"""Symbols of a stream."""


class Live:
    """The state of a program for one universe; made by `program.stream`. Serves one thread at a time.

    A copy (or pickle) is a stream of its own that goes on from the same state.

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
        first = ordinal(first, "in program.stream")
        self.program = program
        self._executor = executor
        self.symbols: tuple[Symbol, ...] = _universe(symbols)
        self.ordinal = first
        self._first = first
        self._restored = first
        self._since: dict[Field, int] = {}
        self._settled: list[int] | None = None
        self._born = [first] * len(self.symbols)
        self._labels = frames.Labels(program.labels, labels)
        self._handles = {name: i for i, name in enumerate((*program.inputs, *program.outputs))}
        self._prepare()

    def _prepare(self, state: Array | None = None) -> None:
        """Buffers and engine for the present universe."""
        keys, program = len(self.symbols), self.program
        self._engine = program.make_engine(keys, self._executor)
        if state is not None:
            self._engine.load(state, self.ordinal)
        self._rows = list(self._engine.rows)
        self._shape, self._dtype = (keys,), self._engine.rows.dtype
        self._groups = [i for i, name in enumerate(program.inputs) if name in program.labels]
        self._pushed = [False] * len(program.inputs)
        self._all = [True] * len(program.inputs)
        self._out: Array | None = None
        self._shown: tuple[Array | None, Array, list[Array]] = (None, self._engine.rows, [])
        self._whole = True
        self._why = "it was interrupted, or another thread is at it"

    def _failed(self, error: FactorError) -> bool:
        """Whether an engine's error is a NumPy function's, in the midst of a row; another is a closed executor's."""
        if not hasattr(error, "operator"):
            return False
        self._why = f"{error.operator} failed in row {getattr(error, 'row', self.ordinal)}"
        return True

    def _between_rows(self) -> None:
        """Refuse a state that a row has been begun and not finished in."""
        if not self._whole:
            raise FactorError(
                f"tick {self.ordinal} was begun and not finished: {self._why}",
                hint="go on from a snapshot; one thread at a time",
            )

    # ---- one row ----

    def handle(self, name: str) -> int:
        """A number in place of an input's or output's name, for `push` and `current` in hot loops."""
        found = self._handles.get(name) if isinstance(name, str) else None
        if found is None:
            near = difflib.get_close_matches(str(name), self._handles, n=3)
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
        at = name if type(name) is int else self._number(name)
        # What ticks are made of goes straight in: an array of the program's own kind.
        fits = type(values) is np.ndarray and values.dtype is self._dtype and values.shape == self._shape
        if fits and 0 <= at < len(self._rows):
            if self._groups and at in self._groups:
                self._labels.numbers(self.program.inputs[at], values)
            self._rows[at][...] = values
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

        Raises  FactorError if an input has not been pushed since the last run; the state is as before. After a
                KeyboardInterrupt within the row, or where a NumPy function fails (`f.cross_numpy`), the state is
                between two rows, and refused from then on.
        """
        if self._pushed != self._all:
            missing = [name for name, there in zip(self.program.inputs, self._pushed, strict=True) if not there]
            raise FactorError(
                f"no row of {', '.join(map(repr, missing))} for tick {self.ordinal}",
                hint="push every input before run; NaN for what is missing",
                missing=missing,
            )
        if not self._whole:
            self._between_rows()
        self._whole = False
        try:
            self._out = self._engine.tick(self.ordinal)
        except FactorError as error:
            self._whole = not self._failed(error)
            raise
        self._pushed = [False] * len(self._pushed)
        self.ordinal += 1
        self._whole = True

    def current(self, name: str | int) -> Array:
        """An output of the last run: (symbols,), read-only, without a copy, valid until the next push or run."""
        at = name if type(name) is int else self._number(name)
        at -= len(self.program.inputs)
        if not 0 <= at < len(self.program.outputs):
            raise FactorError(
                expected="an output", got=repr(name), hint=f"outputs are {', '.join(self.program.outputs)}"
            )
        if self._out is None or self._shown[0] is not self._out:
            self.block()
        return self._shown[2][at]

    def _number(self, name: str | int) -> int:
        """The handle of a name; numbers of NumPy are handles too."""
        whole = isinstance(name, (int, np.integer)) and not isinstance(name, bool)
        return int(name) if whole else self.handle(name)  # type: ignore[arg-type]

    def block(self) -> Array:
        """All outputs of the last run: (outputs, symbols), read-only, without a copy, valid until the next run."""
        if self._out is None:
            raise FactorError("there is no row yet", hint="push every input and run")
        if self._shown[0] is not self._out:
            # An engine fills the same memory in every tick, and views of it are made once.
            shown = self._out[:]
            shown.flags.writeable = False
            self._shown = self._out, shown, list(shown)
        return self._shown[1]

    def tick(self, rows: Any) -> Array:
        """One block in, one block out, in one call: what `push`, `run` and `block` do.

        Takes   rows: (inputs, symbols) numbers, in the order of `program.inputs`, NaN for missing; they are copied.
        Returns as `block`: (outputs, symbols), read-only, valid until the next run.
        Raises  FactorError for another shape or other than numbers; the state is as before.
        Cost    for an array of the program's dtype no memory is taken between this call and its result.
        """
        there = self._engine.rows
        if type(rows) is not np.ndarray or rows.dtype != there.dtype or rows.shape != there.shape:
            inputs = ", ".join(self.program.inputs)
            rows = frames.floats(rows, f"rows of {inputs}", self.program.dtype, self._labels, "in tick")
            if rows.shape != there.shape:
                raise FactorError(
                    expected=f"rows of shape {there.shape}: one each of {inputs}", got=str(rows.shape), where="in tick"
                )
        for i in self._groups:
            self._labels.numbers(self.program.inputs[i], rows[i])
        there[...] = rows
        self._pushed = self._all
        self.run()
        return self.block()

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
        self._between_rows()
        try:
            for at, name in enumerate(self.program.inputs):
                self.push(at, arrays[name])
        except FactorError:
            self._pushed = [False] * len(self._pushed)  # or a later run would take half of this row
            raise
        self.run()
        assert self._out is not None
        return dict(zip(self.program.outputs, self._out.copy(), strict=True))

    # ---- many rows ----

    def batch(self, data: Any, *, symbol: str = "symbol", time: str = "ts_event") -> Any:
        """Many rows at once, from where the stream is: `program.batch` with this state. Same bits as row by row.

        Raises  FactorError as `program.batch`, and for symbols that are not the stream's; the state is as before.
                After a KeyboardInterrupt within the rows, or where a NumPy function fails, the state is of no use,
                and refused from then on.
        """
        self._between_rows()
        program = self.program
        panel = frames.read(
            data,
            program.inputs,
            program.dtype,
            self._labels,
            symbols=self.symbols,
            symbol=symbol,
            time=time,
            outputs=program.outputs,
        )
        program.check_executor(self._executor)
        self._whole = False
        try:
            out = self._engine.run(panel.inputs, self.ordinal, panel.rows)
        except FactorError as error:
            self._failed(error)
            raise
        self.ordinal += panel.rows
        self._whole = True
        if panel.rows:
            self._out = np.array([block[-1] for block in out], program.dtype)
        self._pushed = [False] * len(self._pushed)
        return panel.wrap(dict(zip(program.outputs, out, strict=True)))

    # ---- state ----

    @property
    def cold(self) -> dict[str, int]:
        """Rows that outputs still need before they are warm for every symbol; warm ones are left out."""
        program = self.program
        born = max(self._born, default=self._first)
        at = {name: born + rows for name, rows in program.lookback.items()}
        if self._since:
            warm = self._warm_at()
            at = {name: max(row, warm[program.roots[name]]) for name, row in at.items()}
        return {name: rows - self.ordinal for name, rows in at.items() if rows > self.ordinal}

    def _warm_at(self) -> dict[Node, int]:
        """Per node the row from which its values are right, for symbols that have been there from the first row."""
        since: dict[Node, int] = {}
        for node, used in self.program.layout.uses.items():
            each = [(p.field, p.shift) for one in used.values() if isinstance(one, tuple) for p in one]
            each += [(one, 0) for one in used.values() if not isinstance(one, tuple)]
            since[node] = max((self._since[field] + shift for field, shift in each), default=self._first)
        return self.program.warm_at(since, self._first, self._restored)

    def _right_since(self) -> list[int]:
        """Per field of the layout the row from which its values are right."""
        if self._settled is None:
            layout = self.program.layout.fields
            self._settled = [self._first + rows for rows in self.program.field_lookback]
            if self._since:
                warm = self._warm_at()
                # What was right when it was restored: then the field tells since when it has been.
                later = {node: row for node, row in warm.items() if row > self._restored}
                self._settled = [max(self._since[f], later.get(f.node, 0)) for f in layout]
        return self._settled

    def snapshot(self, path: str | os.PathLike[str] | None = None) -> bytes:
        """The state as bytes (see `snapshot.py`), also written to `path`. A row pushed but not run is not in it."""
        self._between_rows()
        rows, layout = self.program.saved_text
        data = snapshot.pack(
            self._engine.save(self.ordinal),
            ordinals=(self.ordinal, self._first),
            born=self._born,
            since=self._right_since(),
            rows=rows,
            universe=(list(self.symbols), self._labels.saved()),
            digests=(self.program.digest, layout),
        )
        if path is not None:
            snapshot.write(data, path)
        return data

    def add_symbols(self, symbols: Iterable[Symbol]) -> None:
        """Take further symbols in, at the end of `symbols`; they start empty."""
        self._between_rows()
        new = _universe(symbols, some=False)
        universe = _universe([*self.symbols, *new])
        state = self._engine.save(self.ordinal)
        fresh = np.full((len(state), len(new)), np.nan, state.dtype)
        self.symbols = universe
        self._born += [self.ordinal] * len(new)
        self._prepare(np.concatenate([state, fresh], axis=1))

    def drop_symbols(self, symbols: Iterable[Symbol]) -> None:
        """Let symbols go, with their state."""
        self._between_rows()
        gone = set(_universe(symbols, some=False, twice=True))
        strange = gone - set(self.symbols)
        if strange:
            raise FactorError(f"{next(iter(strange))!r} is not a symbol of this stream", where="in drop_symbols")
        kept = [i for i, name in enumerate(self.symbols) if name not in gone]
        if not kept:
            raise FactorError("a stream needs at least one symbol", where="in drop_symbols")
        state = self._engine.save(self.ordinal)[:, kept]
        self.symbols = tuple(self.symbols[i] for i in kept)
        self._born = [self._born[i] for i in kept]
        self._prepare(state)

    def __reduce__(self) -> tuple[Any, ...]:
        # Addresses of memory must not be copied: another stream goes on from this one's state, without its threads.
        return restore, (self.program, self.snapshot(), None)

    def __copy__(self) -> Live:
        return restore(self.program, self.snapshot(), None, self._executor)

    def __deepcopy__(self, memo: object) -> Live:
        return self.__copy__()

    def __repr__(self) -> str:
        return f"Live({len(self.symbols)} symbols, {self.ordinal} rows, {len(self.program.outputs)} outputs)"


def ordinal(value: object, where: str) -> int:
    """`value` as the number of a row in its stream.

    Raises  FactorError unless it is a whole number from 0 to 2 ** 62: the rows after it must have numbers too.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 0 <= value <= 1 << 62:
        raise FactorError(expected="first a whole number from 0 to 2 ** 62", got=repr(value), where=where)
    return int(value)


def _universe(symbols: Iterable[Symbol], *, some: bool = True, twice: bool = False) -> tuple[Symbol, ...]:
    """Symbols as they are kept; `some`: at least one; `twice`: may be repeated."""
    if isinstance(symbols, (str, bytes)) or not isinstance(symbols, Iterable):
        hint = f"[{symbols!r}]" if isinstance(symbols, str) else None
        raise FactorError(expected="a list of symbols", got=repr(symbols), hint=hint)
    if isinstance(symbols, (set, frozenset)) and not twice:
        raise FactorError(
            expected="symbols in order", got="a set", hint="rows are given in their order: sorted(symbols)"
        )
    if hasattr(symbols, "to_pylist"):  # of Arrow
        symbols = symbols.to_pylist()
    if isinstance(symbols, Sized) and len(symbols) > MOST:
        raise FactorError(expected=f"at most {MOST:,} symbols", got=f"{len(symbols):,}")
    made: list[Symbol] = []
    for name in symbols:
        if isinstance(name, (bool, np.bool_)) or not isinstance(name, (str, int, np.integer, np.str_)):
            raise FactorError(expected="symbols that are texts or whole numbers", got=repr(name))
        if isinstance(name, str) and not _is_text(name):
            raise FactorError(expected="symbols that are Unicode text", got=ascii(name))
        if not isinstance(name, str) and not -(1 << 63) <= name < 1 << 63:
            raise FactorError(expected="symbols of at most 64 bits", got=f"one of {int(name).bit_length()} bits")
        made.append(int(name) if isinstance(name, np.integer) else str(name) if isinstance(name, str) else name)
    if some and not made:
        raise FactorError("a stream needs at least one symbol")
    if not twice and len(set(made)) != len(made):
        seen: set[Symbol] = set()
        again = next(name for name in made if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise FactorError(f"symbol {again!r} is given twice")
    return tuple(made)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


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
    if not isinstance(state, (bytes, bytearray, memoryview, str, os.PathLike)):
        raise FactorError(expected="the bytes of a snapshot, or its file", got=type(state).__name__)
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
    # Of older snapshots nobody knows which of the values in a field are right: all of them are counted from the first.
    live._restored = header.ordinal if header.settled else header.first
    mine = [i for i, name in enumerate(live.symbols) if name in there]
    theirs = [there[live.symbols[i]] for i in mine]
    if not mine:
        raise FactorError(
            f"snapshot was made for symbols {_some(header.symbols)}, this stream has {_some(live.symbols)}",
            hint="not one is in both; start without state",
        )
    rows: dict[tuple[Any, ...], tuple[int, snapshot.SavedField]] = {}
    first = 0
    for field in header.fields:
        rows[_what(field)] = first, field
        first += field.depth * field.parts
    made = np.full((program.layout.rows, len(live.symbols)), np.nan, program.dtype)
    found = False
    for f in program.layout.fields:
        place = rows.get(_what(f))
        if place is None:
            live._since[f] = live.ordinal
            continue
        found = True
        start, saved = place
        # Of past rows the latest stand last, in both; fewer than wanted are a later beginning.
        count = min(f.rows, saved.depth * saved.parts)
        live._since[f] = saved.since if count == f.rows else max(saved.since, live.ordinal - count)
        stop = start + saved.depth * saved.parts
        made[f.first + f.rows - count : f.first + f.rows, mine] = planes[stop - count : stop, theirs]
    if program.layout.fields and not found:
        have = sorted({field.formula for field in header.fields})
        want = sorted({formula(f.node, 80) for f in program.layout.fields})
        raise FactorError(
            f"snapshot was made for {_some(have)}, this program has {_some(want)}",
            hint="nothing is in both; load the program it was made with, or start without state",
            program=header.program,
        )
    live._born = [header.since[there[name]] if name in there else live.ordinal for name in live.symbols]
    live._prepare(made)
    return live


def _what(field: Field | snapshot.SavedField) -> tuple[Any, ...]:
    """What rows are of: past rows of one node fit however many there are, parts of a cell must be as many."""
    digest, name, depth, parts, ring = field.identity
    return (digest, name, ring) if ring else (digest, name, ring, depth, parts)


def _some(names: Sequence[Any]) -> str:
    shown = ", ".join(str(name) for name in names[:4])
    return (shown or "nothing") + (f" … ({len(names)})" if len(names) > 4 else "")

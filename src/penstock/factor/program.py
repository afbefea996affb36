"""Programs: compiled factors, over history (`batch`) and tick by tick (`stream`)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import numpy as np
import xxhash

from penstock.errors import FactorError
from penstock.factor import frames, snapshot
from penstock.factor import ops as _ops
from penstock.factor.executor import Executor
from penstock.factor.factors import Factors
from penstock.factor.graph import Node, digests, formula
from penstock.factor.layout import Layout
from penstock.factor.live import MOST, Live, ordinal, restore
from penstock.factor.lookback import endless, lookbacks, own
from penstock.factor.machine import Engine
from penstock.factor.passes import PASSES, check
from penstock.factor.plan import Plan, cut
from penstock.factor.table import TABLE, Kind

if TYPE_CHECKING:
    from penstock.factor.feed import Feed
    from penstock.factor.reason import Reason
    from penstock.log import Stream

__all__ = ["Program", "compile"]

assert _ops  # fills the table

Array = np.ndarray[Any, np.dtype[Any]]
Symbol = str | int


Maker: TypeAlias = "Callable[[int, Executor | None], Engine]"


def _numpy(plan: Plan, layout: Layout, dtype: np.dtype[Any]) -> Maker:
    from penstock.factor.machine_numpy import NumpyEngine

    return partial(NumpyEngine, plan, layout, dtype)


def _llvm(plan: Plan, layout: Layout, dtype: np.dtype[Any]) -> Maker:
    from penstock.factor.llvm.engine import LlvmCode

    return LlvmCode(plan, layout, dtype)


_ENGINES = {"llvm": _llvm, "numpy": _numpy}
"""What makes machines of a plan, by name: the first is taken unless one is asked for, the last needs no compiler."""


def compile(
    factors: Mapping[str, object],
    *,
    dtype: str | np.dtype[Any] | type = "float64",
    engine: str | None = None,
    checked: bool = False,
) -> Program:
    """A program that computes `factors`.

    Takes   factors: a `Factors`, or a mapping of names to expressions or texts;
            dtype: "float64" or "float32", of all computation and state;
            engine: "llvm" for machine code, the default where llvmlite is installed, or "numpy"; both give the same
            bits;  checked: verify the graph after each pass.
    Raises  FactorError for no factors, a dtype or engine there is not, a graph that does not fit the table.
    """
    named = factors if isinstance(factors, Factors) else Factors(_mapping(factors))
    try:
        kind = np.dtype(dtype)
    except TypeError:
        kind = np.dtype(object)
    if kind not in (np.dtype("float32"), np.dtype("float64")):
        raise FactorError(expected="dtype 'float64' or 'float32'", got=repr(dtype))
    if engine is None:
        engine = "llvm" if find_spec("llvmlite") else "numpy"
    if not isinstance(engine, str) or engine not in _ENGINES:
        raise FactorError(expected=f"an engine of {', '.join(map(repr, _ENGINES))}", got=repr(engine))
    if engine == "llvm" and not find_spec("llvmlite"):
        raise FactorError(
            "engine 'llvm' takes llvmlite, which is not installed",
            hint='pip install llvmlite, or leave engine out: "numpy" gives the same bits, slower',
        )
    if not named:
        raise FactorError("there is no factor to compile", hint="f.Factors(name=expression, ...)")
    return Program(named, kind, engine, checked)


def _again(factors: Factors, dtype: str, engine: str | None) -> Program:
    return compile(factors, dtype=dtype, engine=engine)


def _mapping(factors: object) -> Mapping[str, object]:
    if isinstance(factors, Mapping):
        return factors
    hint = "name it: f.Factors(alpha=expression)" if isinstance(factors, (Node, str)) else None
    raise FactorError(expected="f.Factors or a mapping of names to expressions", got=type(factors).__name__, hint=hint)


class Program:
    """Compiled factors; made by `compile`. It holds no data and serves any number of streams and threads.

    `inputs`, `outputs`: names in order. `lookback`: per output the number of rows after which its value no longer
    depends on what was before the first row. It is an upper bound: a value may be there earlier (`where` chooses a
    branch that is warm already). `warmup`: the largest. `endless`: outputs with an operator that never forgets (an
    exponential mean), which `lookback` does not count. `history`: per pass its name, its sentence and what the outputs
    were after it.
    """

    def __init__(self, factors: Factors, dtype: np.dtype[Any], engine: str, checked: bool) -> None:
        self.factors = factors
        self.dtype = dtype
        self.engine = engine
        outputs: dict[str, Node] = dict(factors)
        self.history: list[tuple[str, str, dict[str, Node]]] = [("written", "as it was given", outputs)]
        if checked:
            check(outputs, after="parsing")
        for one in PASSES:
            outputs = one.run(outputs, dtype)
            self.history.append((one.name, one.sentence, outputs))
            if checked:
                check(outputs, after=f"{one.name} ({one.sentence})")
        self.roots = outputs
        self.plan = cut(outputs)
        self._digests = digests(outputs.values(), lambda op: TABLE[op].version if op in TABLE else 1)
        self.layout = Layout.of(self.plan.nodes, self._digests)
        self.inputs: tuple[str, ...] = tuple(str(node.attrs[0][1]) for node in self.plan.inputs)
        self.outputs: tuple[str, ...] = tuple(outputs)
        both = [name for name in self.outputs if name in self.inputs]
        if both:
            raise FactorError(f"{both[0]!r} is an input and an output", hint="give the factor another name")
        text = ";".join(f"{name}={self._digests[node]}" for name, node in outputs.items())
        self.digest = xxhash.xxh3_128_hexdigest(f"{dtype}|{text}".encode())
        rows = lookbacks(self.plan.nodes)
        self.lookback = {name: rows[node] for name, node in outputs.items()}
        self.warmup = max(self.lookback.values())
        self.field_lookback = tuple(rows[f.node] for f in self.layout.fields)
        forever: set[Node] = set()
        for node in self.plan.nodes:
            if endless(node) or any(arg in forever for arg in node.args):
                forever.add(node)
        self.endless = tuple(name for name, node in outputs.items() if node in forever)
        groups: set[int] = set()
        others: set[int] = set()
        for node in self.plan.nodes:
            names = [p.name for p in TABLE[node.op].operands] if node.op in TABLE else []
            for name, arg in zip(names, node.args, strict=True):
                (groups if name == "group" and TABLE[node.op].kind is Kind.CROSS else others).add(id(arg))
        others |= {id(node) for node in self.plan.outputs}
        self.new_engine: Maker = _ENGINES[engine](self.plan, self.layout, dtype)
        """A machine with empty state for that many symbols, and the threads it may use."""
        self.labels = tuple(
            name
            for name, n in zip(self.inputs, self.plan.inputs, strict=True)
            if id(n) in groups and id(n) not in others
        )

    def warm_at(self, since: Mapping[Node, int], first: int, restored: int) -> dict[Node, int]:
        """Per node the ordinal from which its values are right, if all that it has kept is since `since[node]`.

        What was right before `restored` is counted in `since` already, where it is kept, and does not matter elsewhere.
        """
        at: dict[Node, int] = {}
        for node in self.plan.nodes:
            start = since.get(node, first)
            at[node] = max(
                (
                    max(at[arg] if at[arg] > restored else start, start) + rows
                    for arg, rows in zip(node.args, own(node), strict=True)
                ),
                default=first,
            )
        return at

    @cached_property
    def saved_text(self) -> tuple[bytes, bytes]:
        """What snapshots say of the state's rows, and the layout's digest: the same in all of them."""
        fields = [snapshot.SavedField(*f.identity, 0, formula(f.node, 80)) for f in self.layout.fields]
        text = snapshot.rows_text(fields, {name: formula(node, 80) for name, node in self.factors.items()})
        return text, snapshot.layout_digest(self.dtype.name, (field.identity for field in fields))

    def make_engine(self, keys: int, executor: Executor | None) -> Engine:
        """A machine with empty state for that many symbols.

        Raises  FactorError for what is no executor, a closed one, and a state that does not fit into memory.
        """
        self.check_executor(executor)
        try:
            return self.new_engine(keys, executor)
        except MemoryError:
            size = self.layout.rows * keys * self.dtype.itemsize
            raise FactorError(
                f"a state of {self.layout.rows} values for {keys} symbols, {size / 2**30:.1f} GiB, is too much memory",
                hint="shorter windows, or fewer symbols at a time; program.describe() lists the state",
            ) from None

    @staticmethod
    def check_executor(executor: object) -> None:
        """Refuse what cannot compute now."""
        if executor is not None and not isinstance(executor, Executor):
            raise FactorError(
                expected="an Executor", got=repr(executor), hint="with f.Executor(threads=2) as executor: …"
            )
        if executor is not None and executor.closed:
            raise FactorError("this executor is closed", hint="make another one")

    def batch(
        self,
        data: Any,
        *,
        symbol: str = "symbol",
        time: str = "ts_event",
        first: int = 0,
        executor: Executor | None = None,
    ) -> Any:
        """The factors over history.

        Takes   data: a dict of (rows, symbols) arrays, or a long Arrow, polars or pandas frame with a row per symbol
                and time; columns that are not inputs are ignored; a missing cell is NaN;
                symbol, time: the frame's columns; first: ordinal of the first row in its stream, for the very
                bits that a stream which began `first` rows earlier has once it is warm;
                executor: threads to compute with (the NumPy engine has no use for them).
        Returns the same kind: a dict of (rows, symbols) arrays, or a frame with the rows of `data` in their order,
                columns symbol, time and the outputs. The first rows of an output are
                NaN until all that it needs is there: for at most `lookback` rows, where no input is missing.
        Raises  FactorError for missing or unfit columns, unequal shapes, two rows of one symbol and time.
        """
        first = ordinal(first, "in program.batch")
        labels = frames.Labels(self.labels)
        panel = frames.read(
            data, self.inputs, self.dtype, labels, symbols=None, symbol=symbol, time=time, outputs=self.outputs
        )
        engine = self.make_engine(len(panel.symbols or ()), executor)
        return panel.wrap(dict(zip(self.outputs, engine.run(panel.inputs, first, panel.rows), strict=True)))

    def stream(
        self,
        symbols: Sequence[Symbol] | None = None,
        *,
        n: int | None = None,
        state: bytes | str | os.PathLike[str] | None = None,
        first: int = 0,
        executor: Executor | None = None,
    ) -> Live:
        """The factors row by row.

        Takes   symbols: the universe, in the order of the arrays; or n: that many, unnamed;
                state: a snapshot or its file, of this or another program: state moves operator by operator and
                symbol by symbol, and `live.cold` tells what had to start empty. Without `symbols` the snapshot's
                are taken;
                first: ordinal of the first row (a snapshot knows its own);
                executor: threads to compute with, mostly for `live.batch`: a tick has little to share and waits for
                them at every cross-sectional stage; measure before you give one.
        Raises  FactorError for no, doubled or unfit symbols, or a snapshot that does not fit.
        """
        if symbols is not None and n is not None:
            raise FactorError("symbols and n are both given", hint="n is for symbols without names")
        if n is not None:
            if isinstance(n, bool) or not isinstance(n, (int, np.integer)):
                raise FactorError(expected="n a whole number of symbols", got=repr(n), where="in program.stream")
            if n > MOST:
                raise FactorError(expected=f"n at most {MOST:,}", got=f"{n:,}", where="in program.stream")
            symbols = range(n)
        if state is not None:
            if first:
                raise FactorError("state and first are both given", hint="a snapshot knows its own ordinal")
            return restore(self, state, symbols, executor)
        if symbols is None:
            raise FactorError(
                "a stream needs its symbols", hint="program.stream(['AAPL', 'MSFT']) or program.stream(n=16)"
            )
        return Live(self, symbols, first=first, executor=executor)

    def follow(
        self,
        bars: Stream,
        into: str | Stream | None = None,
        *,
        group: str | None = None,
        symbols: Sequence[Symbol] | None = None,
        symbol: str = "symbol",
        time: str | None = None,
        lateness: Any = None,
        idle: Any = None,
        late: str = "drop",
        every: Any = None,
        rows: str = "present",
        forget: int | None = None,
        snapshot_every: float = 1.0,
        **run: Any,
    ) -> Feed:
        """The factors of a stream of bars, as they come: `program.follow(bars, into="factors").run()`.

        Takes   bars: a stream with columns for symbol, time and the program's inputs;
                into: the stream for rows of factors, or its name; made if need be. Each row once, also when this is
                killed at any instant. None: for `feed.apply(function)`;
                group: whose position in `bars` this is; default the name of `into`, else "factors";
                symbols: the universe, default the symbols that show up; symbol, time: columns;
                lateness, idle, late: when a tick is complete, and what becomes of rows that come after that;
                every: the time between ticks, for absent ones to be computed too; rows: "present" or "all";
                forget: ticks without a row after which a symbol leaves (see `FactorWindow` for all of these);
                snapshot_every: seconds between two snapshots, at least 1, and more where taking one is slow;
                run: start, retries, on_error, blocking, standby, flush, until, max_windows, stop, timeout, clock: as
                of every consumer (see `penstock.window.streaming.Streaming`).
        Returns a Feed; nothing runs before `feed.run()`.
        Raises  FactorError for a stream that lacks what the program needs, and options that cannot be; SchemaMismatch
                if `into` holds other rows.
        """
        from penstock.factor.feed.feed import follow

        ticks = {
            "symbols": symbols, "symbol": symbol, "time": time, "lateness": lateness, "idle": idle, "late": late,
            "every": every, "rows": rows, "forget": forget,
        }  # fmt: skip
        return follow(self, bars, into, group=group, snapshot_every=snapshot_every, ticks=ticks, run=run)

    @overload
    def explain(self, name: str | None = None) -> str: ...

    @overload
    def explain(
        self,
        name: str,
        data: Any,
        *,
        symbol: Symbol | None = None,
        ts: Any = None,
        columns: tuple[str, str] = ("symbol", "ts_event"),
        first: int = 0,
    ) -> Reason: ...

    def explain(
        self,
        name: str | None = None,
        data: Any = None,
        *,
        symbol: Symbol | None = None,
        ts: Any = None,
        columns: tuple[str, str] = ("symbol", "ts_event"),
        first: int = 0,
    ) -> str | Reason:
        """How an output (or all) is computed; with `data`, what one value of it was computed from.

        Takes   data: what `batch` takes; symbol: of the value (a column's number for arrays), which may be left out
                if there is one only; ts: its time (ns, ISO text, datetime; a row's number for arrays), default the
                last; columns: the frame's symbol and time; first: as for `batch`.
        Returns without data a text: the expression after each pass, stages, state and lookback; with data a `Reason`,
                which prints as the tree of the expression with the value of every part, the rows of each window and
                the keys of each cross-section. The value has the bits that `batch` gives.
        Cost    with data: a compilation in which every part is an output, and one pass over the rows up to `ts`.
        Raises  FactorError for an output, a symbol or a time there is not.
        """
        from penstock.factor import explain

        if name is not None and name not in self.outputs:
            raise FactorError(f"there is no output {name!r}", hint=f"outputs are {', '.join(self.outputs[:20])}")
        if data is None:
            if symbol is not None or ts is not None:
                raise FactorError("a program holds no data", hint="program.explain(name, bars, symbol=…, ts=…)")
            return explain.passes(self, name)
        if name is None:
            raise FactorError(
                "name is missing: a value of which output", hint=f"outputs are {', '.join(self.outputs[:20])}"
            )
        return explain.value(self, name, data, symbol=symbol, ts=ts, columns=columns, first=first)

    def describe(self) -> str:
        """The state's layout as a table."""
        return self.layout.describe()

    def __reduce__(self) -> tuple[Any, ...]:
        # Machine code is made (or found) anew where it is read; without a compiler there, NumPy gives the same bits.
        return _again, (self.factors, self.dtype.name, self.engine if self.engine != "llvm" else None)

    def __copy__(self) -> Program:
        return self

    def __deepcopy__(self, memo: object) -> Program:
        return self

    def __repr__(self) -> str:
        size = f"{len(self.inputs)} inputs, {len(self.outputs)} outputs"
        return f"Program({size}, {self.dtype}, warm after {self.warmup} rows)"

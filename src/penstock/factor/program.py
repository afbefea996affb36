"""Programs: compiled factors, over history (`batch`) and tick by tick (`stream`)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any, TypeAlias

import numpy as np
import xxhash

from penstock.errors import FactorError
from penstock.factor import frames
from penstock.factor import ops as _ops
from penstock.factor.executor import Executor
from penstock.factor.factors import Factors
from penstock.factor.graph import Node, digests, formula, topological
from penstock.factor.layout import Layout
from penstock.factor.live import Live, restore
from penstock.factor.machine import Engine
from penstock.factor.passes import PASSES, Plan, check, cut
from penstock.factor.table import TABLE

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
    if engine not in _ENGINES:
        raise FactorError(expected=f"an engine of {', '.join(map(repr, _ENGINES))}", got=repr(engine))
    if not named:
        raise FactorError("there is no factor to compile", hint="f.Factors(name=expression, ...)")
    return Program(named, kind, engine, checked)


def _mapping(factors: object) -> Mapping[str, object]:
    if isinstance(factors, Mapping):
        return factors
    hint = "name it: f.Factors(alpha=expression)" if isinstance(factors, Node) else None
    raise FactorError(expected="f.Factors or a mapping of names to expressions", got=type(factors).__name__, hint=hint)


class Program:
    """Compiled factors; made by `compile`. It holds no data and serves any number of streams and threads.

    `inputs`, `outputs`: names in order. `lookback`: per output the rows after which a value no longer depends on
    what was before the first row; `warmup`: the largest. `endless`: outputs with an operator that never
    forgets (an exponential mean), which `lookback` does not count.
    """

    def __init__(self, factors: Factors, dtype: np.dtype[Any], engine: str, checked: bool) -> None:
        self.factors = factors
        self.dtype = dtype
        self.engine = engine
        outputs: dict[str, Node] = dict(factors)
        self._history: list[tuple[str, str, dict[str, Node]]] = [("written", "as it was given", outputs)]
        if checked:
            check(outputs, after="parsing")
        for one in PASSES:
            outputs = one.run(outputs, dtype)
            self._history.append((one.name, one.sentence, outputs))
            if checked:
                check(outputs, after=f"{one.name} ({one.sentence})")
        self._nodes = outputs
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
        self.lookback = dict(self._lookbacks())
        self.warmup = max(self.lookback.values())
        forever: set[Node] = set()
        for node in self.plan.nodes:
            if _endless(node) or any(arg in forever for arg in node.args):
                forever.add(node)
        self.endless = tuple(name for name, node in outputs.items() if node in forever)
        groups = {id(n.args[1]) for n in self.plan.nodes if n.op == "cs_group_sum"}
        others = {id(a) for n in self.plan.nodes for i, a in enumerate(n.args) if (n.op, i) != ("cs_group_sum", 1)}
        others |= {id(node) for node in self.plan.outputs}
        self.new_engine: Maker = _ENGINES[engine](self.plan, self.layout, dtype)
        """A machine with empty state for that many symbols, and the threads it may use."""
        self.labels = tuple(
            name
            for name, n in zip(self.inputs, self.plan.inputs, strict=True)
            if id(n) in groups and id(n) not in others
        )

    def _lookbacks(self) -> dict[str, int]:
        rows: dict[Node, int] = {}
        for node in self.plan.nodes:
            rows[node] = max((rows[arg] + own for arg, own in zip(node.args, _own(node), strict=True)), default=0)
        return {name: rows[node] for name, node in self._nodes.items()}

    def warm_at(self, since: Mapping[Node, int], first: int) -> dict[str, int]:
        """Per output the ordinal at which it is warm, if a node's state began at `since[node]`."""
        at: dict[Node, int] = {}
        for node in self.plan.nodes:
            start = since.get(node, first)
            own = _own(node)
            at[node] = max(
                (max(at[arg], start) + rows for arg, rows in zip(node.args, own, strict=True)), default=first
            )
        return {name: at[node] for name, node in self._nodes.items()}

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
                columns symbol, time and the outputs. Rows before `lookback` are NaN.
        Raises  FactorError for missing or unfit columns, unequal shapes, two rows of one symbol and time.
        """
        labels = frames.Labels(self.labels)
        panel = frames.read(data, self.inputs, self.dtype, labels, symbols=None, symbol=symbol, time=time)
        engine = self.new_engine(len(panel.symbols or ()), executor)
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
            symbols = range(n)
        if state is not None:
            return restore(self, state, symbols, executor)
        if symbols is None:
            raise FactorError(
                "a stream needs its symbols", hint="program.stream(['AAPL', 'MSFT']) or program.stream(n=16)"
            )
        return Live(self, symbols, first=first, executor=executor)

    def explain(self, name: str | None = None) -> str:
        """How an output (or all) is computed: the expression after each pass, stages, state and lookback."""
        names = self.outputs if name is None else (name,)
        if name is not None and name not in self._nodes:
            raise FactorError(f"there is no output {name!r}", hint=f"outputs are {', '.join(self.outputs[:20])}")
        lines: list[str] = []
        for one in names:
            endless = ", and never forgets" if one in self.endless else ""
            lines.append(f"{one}: warm after {self.lookback[one]} rows{endless}")
            before = None
            for step, sentence, outputs in self._history:
                text = formula(outputs[one], 2000)
                shown = text if text != before else "(unchanged)"
                lines.append(f"  {step:9} {sentence}\n            {shown}")
                before = text
            lines += self._stages(self._nodes[one])
        return "\n".join(lines)

    def _stages(self, root: Node) -> list[str]:
        mine = {id(node) for node in topological([root])}
        lines = []
        for number, stage in enumerate(self.plan.stages, 1):
            nodes = [node for node in stage.nodes if id(node) in mine and node.op not in ("const", "field")]
            if nodes:
                kind = "over keys" if stage.cross else "along time"
                lines.append(f"  stage {number:3} {kind}: {', '.join(node.op for node in nodes)}")
        rows = sum(f.rows for f in self.layout.fields if id(f.node) in mine)
        return [*lines, f"  state     {rows} values of {self.dtype} per symbol"]

    def describe(self) -> str:
        """The state's layout as a table."""
        return self.layout.describe()

    def __repr__(self) -> str:
        size = f"{len(self.inputs)} inputs, {len(self.outputs)} outputs"
        return f"Program({size}, {self.dtype}, warm after {self.warmup} rows)"


def _lookback(node: Node) -> int | tuple[int, ...] | None:
    operator = TABLE.get(node.op)
    return 0 if operator is None or operator.lookback is None else operator.lookback(**dict(node.attrs))


def _own(node: Node) -> tuple[int, ...]:
    """Rows that a node's own state looks back, per operand."""
    rows = _lookback(node)
    return rows if isinstance(rows, tuple) else (rows or 0,) * len(node.args)


def _endless(node: Node) -> bool:
    return _lookback(node) is None

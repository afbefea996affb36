"""How a factor is computed, and what one value of it was computed from.

    print(program.explain("alpha001"))                                          # passes, stages, state
    print(program.explain("alpha001", bars, symbol="AAPL", ts="2026-11-20T09:31:00Z"))

The second shows the expression as it was written, as a tree: every part with its value there, with the rows behind it
where it looks along time and the keys beside it where it looks over keys.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from penstock.clock import iso, time_ns
from penstock.errors import FactorError
from penstock.factor import frames
from penstock.factor.graph import Node, field, formula, topological
from penstock.factor.lookback import endless, lookbacks, own
from penstock.factor.reason import Reason, Term
from penstock.factor.table import TABLE, Kind

if TYPE_CHECKING:
    from penstock.factor.program import Program

__all__ = ["WINDOW", "passes", "value"]

Array = np.ndarray[Any, np.dtype[Any]]
Symbol = str | int

WINDOW = 1000
"""Rows of a window that are kept to be shown, the newest ones."""

_CELLS = 1 << 22
"""Values computed at once: all parts of an expression, for a stretch of rows."""


def passes(program: Program, name: str | None = None) -> str:
    """What `program.explain(name)` says."""
    lines: list[str] = []
    for one in program.outputs if name is None else (name,):
        forever = ", and never forgets" if one in program.endless else ""
        lines.append(f"{one}: warm after {program.lookback[one]} rows{forever}")
        before = None
        for step, sentence, outputs in program.history:
            text = formula(outputs[one], 2000)
            shown = text if text != before else "(unchanged)"
            lines.append(f"  {step:9} {sentence}\n            {shown}")
            before = text
        lines += _stages(program, program.history[-1][2][one])
    return "\n".join(lines)


def _stages(program: Program, root: Node) -> Iterator[str]:
    mine = {id(node) for node in topological([root])}
    for number, stage in enumerate(program.plan.stages, 1):
        nodes = [node for node in stage.nodes if id(node) in mine and node.op not in ("const", "field")]
        if nodes:
            kind = "over keys" if stage.cross else "along time"
            yield f"  stage {number:3} {kind}: {', '.join(node.op for node in nodes)}"
    rows = sum(f.rows for f in program.layout.fields if id(f.node) in mine)
    yield f"  state     {rows} values of {program.dtype} per symbol"


def value(
    program: Program,
    name: str,
    data: Any,
    *,
    symbol: Symbol | None = None,
    ts: Any = None,
    columns: tuple[str, str] = ("symbol", "ts_event"),
    first: int = 0,
) -> Reason:
    """What `program.explain(name, data, …)` says."""
    from penstock.factor.program import compile

    root = program.factors[name]
    nodes = list(topological([root]))
    place = {node: i for i, node in enumerate(nodes)}
    inputs = [str(node.attrs[0][1]) for node in nodes if node.op == "field"]
    # A dot keeps these names apart from those of inputs.
    parts = {f"term.{i}": node for i, node in enumerate(nodes) if node.op not in ("const", "field")}
    each = compile(parts, dtype=program.dtype, engine=program.engine) if parts else None
    labels = frames.Labels(each.labels if each is not None else ())
    symbol_column, time_column = columns
    panel = frames.read(
        data, inputs, program.dtype, labels, symbols=None, symbol=symbol_column, time=time_column
    )  # also says what is missing
    times = _Times(data, time_column, panel.rows)
    universe = list(panel.symbols or ())
    key = _key(universe, symbol)
    row = times.find(ts)
    back = {node: _window(node) for node in nodes}
    keep = min(row + 1, max([1, *(rows for rows in back.values() if rows)]))
    # Per node: the kept rows of the key, oldest first, and all keys at the row.
    column: dict[Node, Any] = {}
    across: dict[Node, Any] = {}
    for node, block in zip([node for node in nodes if node.op == "field"], panel.inputs, strict=True):
        column[node] = _texts(labels, node, block[row + 1 - keep : row + 1, key])
        across[node] = _texts(labels, node, block[row])
    for node in nodes:
        if node.op == "const":
            column[node] = [float(node.attrs[0][1])] * keep
    if each is not None:
        given = dict(zip(inputs, panel.inputs, strict=True))
        blocks = [given[one] for one in each.inputs]
        try:
            made = _run(each, blocks, row, key, keep, first, panel)
        except FactorError as error:
            if hasattr(error, "factor"):  # a NumPy function's, which knows the names of parts only
                error.factor, error.where = name, f"in row {getattr(error, 'row', row)} of factor {name!r}"
            raise
        for node, (kept, last) in zip(parts.values(), made, strict=True):
            column[node], across[node] = kept.tolist(), last.tolist()
    terms = []
    for node in nodes:
        read = [arg for arg in dict.fromkeys(node.args) if arg.op != "const"]
        span, over = min(back[node] or 0, keep), _over_keys(node)
        rows = [(times.show(row + 1 - i), tuple(column[arg][-i] for arg in read)) for i in range(span, 0, -1)]
        keys = [(one, tuple(across[arg][i] for arg in read)) for i, one in enumerate(universe)] if over else []
        keys.sort(key=lambda pair: _order(pair[1][0]))
        terms.append(Term(node, column[node][-1], tuple(place[arg] for arg in node.args), tuple(rows), tuple(keys)))
    lookback = program.lookback[name]
    return Reason(name, universe[key], times.show(row), row, panel.rows, lookback, tuple(terms))


def _run(
    each: Program, blocks: list[Array], row: int, key: int, keep: int, first: int, panel: frames.Panel
) -> list[tuple[Array, Array]]:
    """Per output the last `keep` rows up to `row` of a key, and all keys at `row`."""
    keys = len(panel.symbols or ())
    engine = each.new_engine(keys, None)
    step = max(1, _CELLS // (len(each.outputs) * max(1, keys)))
    kept: list[list[Array]] = [[] for _ in each.outputs]
    out: list[Array] = []
    for start in range(0, row + 1, step):
        stop = min(row + 1, start + step)
        rows = [np.ascontiguousarray(block[start:stop]) for block in blocks]
        out = engine.run(rows, first + start, stop - start)
        if stop > row + 1 - keep:
            for one, block in zip(kept, out, strict=True):
                one.append(block[max(0, row + 1 - keep - start) :, key].copy())
    return [(np.concatenate(one), block[-1]) for one, block in zip(kept, out, strict=True)]


def _alone(node: Node) -> list[Node]:
    """What the node is made of, its operands taken as inputs."""
    from penstock.factor.passes import expand

    operands = tuple(arg if arg.op == "const" else field(f"x{i}") for i, arg in enumerate(node.args))
    bare = Node(node.op, operands, node.attrs)
    return list(topological(expand({"x": bare}, np.dtype(np.float64)).values()))


def _window(node: Node) -> int | None:
    """Rows that the node itself looks at, this one included; None if it looks at this row only."""
    if node.op not in TABLE or TABLE[node.op].kind not in (Kind.WINDOWED, Kind.COMPOSITE):
        return None
    made = _alone(node)
    rows = max(lookbacks(made).values())
    if any(endless(one) for one in made):
        return min(WINDOW, rows + 5)  # all rows before have a share; the newest ones are shown
    return min(WINDOW, rows + 1) if rows or any(own(one) != (0,) * len(one.args) for one in made) else None


def _over_keys(node: Node) -> bool:
    if node.op not in TABLE or TABLE[node.op].kind not in (Kind.CROSS, Kind.COMPOSITE):
        return False
    return any(one.op in TABLE and TABLE[one.op].kind is Kind.CROSS for one in _alone(node))


def _order(value: float | str) -> tuple[bool, float, str]:
    text = isinstance(value, str)
    number = 0.0 if isinstance(value, str) else value
    return number != number, 0.0 if number != number else number, str(value) if text else ""


def _texts(labels: frames.Labels, node: Node, values: Array) -> list[Any]:
    """Values of an input, or the texts that its numbers stand for."""
    codes = {code: text for text, code in labels.codes.get(str(node.attrs[0][1]), {}).items()}
    return [codes.get(v, v) if v == v else v for v in values.tolist()] if codes else values.tolist()


def _key(universe: list[Symbol], symbol: Symbol | None) -> int:
    if not universe:
        raise FactorError("there are no rows to explain", where="in program.explain")
    if symbol is None:
        if len(universe) > 1:
            some = ", ".join(map(str, universe[:8])) + (" …" if len(universe) > 8 else "")
            raise FactorError(f"symbol is missing: the value of which of {len(universe)} symbols", hint=f"give {some}")
        return 0
    if symbol in universe:
        return universe.index(symbol)
    near = difflib.get_close_matches(str(symbol), map(str, universe), n=3, cutoff=0.5)
    some = ", ".join(map(str, universe[:8])) + (" …" if len(universe) > 8 else "")
    raise FactorError(
        f"there is no symbol {symbol!r} in the data",
        where="in program.explain",
        hint=f"did you mean {' or '.join(map(repr, near))}" if near else f"there are {some}",
    )


class _Times:
    """The times of a panel's rows, as they were given."""

    def __init__(self, data: Any, name: str, rows: int) -> None:
        self.rows = rows
        self.kind: pa.DataType | None = None
        self.values = np.arange(rows)
        self.clock = False
        table = None if isinstance(data, dict) else frames.as_arrow(data, [name])[0]
        if table is not None and rows:
            column = table[name]
            self.kind = column.type
            column = column.cast(pa.int32()) if pa.types.is_date32(column.type) else column
            self.values = np.unique(column.cast(pa.int64()).to_numpy())
            # Integers are ns since the epoch where their column says so.
            self.clock = not pa.types.is_integer(self.kind) or name.startswith("ts_")

    def _unit(self) -> int:
        if self.kind is None or pa.types.is_integer(self.kind):
            return 1
        if pa.types.is_date(self.kind):
            return 86_400_000_000_000 if pa.types.is_date32(self.kind) else 1_000_000
        return {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[self.kind.unit]

    def find(self, ts: Any) -> int:
        """The row of a time."""
        if not self.rows:
            raise FactorError("there are no rows to explain", where="in program.explain")
        if ts is None:
            return self.rows - 1
        given = ts
        if isinstance(ts, str) and ts.strip().lstrip("-").isdigit():
            ts = int(ts)
        if isinstance(ts, date) and not isinstance(ts, datetime):
            ts = ts.isoformat()
        if isinstance(ts, (int, np.integer)):
            ns = int(ts)
            if self.kind is None and ns < 0:
                ns += self.rows
        elif self.clock:
            ns = time_ns(ts, name="program.explain(ts=…)")
        else:
            raise FactorError(
                expected="the number of a row" if self.kind is None else "a number",
                got=repr(given),
                where="in program.explain(ts=…)",
            )
        unit = self._unit()
        at = int(np.searchsorted(self.values, -(-ns // unit)))
        if ns % unit == 0 and at < len(self.values) and int(self.values[at]) == ns // unit:
            return at
        nearest = min(
            range(max(0, at - 1), min(len(self.values), at + 1)), key=lambda i: abs(self.values[i] * unit - ns)
        )
        raise FactorError(
            f"there is no row at {given}",
            where=f"in data from {self.show(0)} to {self.show(self.rows - 1)}",
            hint=f"the nearest one is at {self.show(nearest)}",
        )

    def show(self, row: int) -> int | str:
        """The time of a row: ISO text, or the number it is."""
        if not self.clock:
            return int(self.values[row])
        text = iso(int(self.values[row]) * self._unit())
        whole, _, digits = text[:-1].partition(".")
        digits = digits.rstrip("0")
        return f"{whole}.{digits}Z" if digits else f"{whole}Z"

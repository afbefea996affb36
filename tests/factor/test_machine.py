"""A second reading of the steps, one number at a time: every window is made from its rows at each of them.

It is written from the text of `machine.Machine` alone and must agree with the NumPy machine to the bit: what a compiled
machine has to do as well.
"""

from __future__ import annotations

import inspect
import math
from operator import add, and_, eq, gt, lt, mul, sub, truediv
from types import SimpleNamespace

import numpy as np
import pytest

from penstock import factor as f
from penstock.factor import elementary
from penstock.factor.layout import turn
from penstock.factor.llvm.engine import LlvmEngine
from penstock.factor.llvm.machine import LlvmMachine
from penstock.factor.llvm.rows import RowMachine as CompiledRows
from penstock.factor.machine import AlongTime, Engine, Machine, OverKeys
from penstock.factor.machine_numpy import NumpyEngine, NumpyMachine
from penstock.factor.ops.windowed import SHORT
from penstock.factor.reproducible import row_sums
from penstock.factor.table import TABLE, Kind

f.operators()


class ScalarMachine:
    """One key of one row. `kept` holds per field and key its values, past rows with the oldest first."""

    def __init__(self, layout, dtype, keys):
        self.type = np.dtype(dtype).type
        self.kept = {(f.name, f.node, key): [self.type(np.nan)] * f.rows for f in layout.fields for key in range(keys)}
        self.nan = self.type(np.nan)
        self.double = np.dtype(dtype) == np.float64
        self.ordinal = self.key = 0

    def look(self, past):
        """The rows looked back on, the oldest first."""
        rows = self.kept[past.field.name, past.field.node, self.key]
        return rows[len(rows) - past.shift - past.rows : len(rows) - past.shift]

    def where(self, mask, x, y):
        kind = next((type(v) for v in (x, y) if isinstance(v, np.floating)), self.type)
        return kind(x) if mask else kind(y)

    def present(self, x):
        return x == x

    def finite(self, x):
        return np.isfinite(x)

    def abs(self, x):
        return np.abs(x)

    def sqrt(self, x):
        return np.sqrt(x)

    def floor(self, x):
        return np.floor(x)

    def log(self, x):
        return elementary.log(self, x)

    def exp(self, x):
        return elementary.exp(self, x)

    def pow(self, x, y):
        return elementary.pow(self, x, y)

    def wide(self, x):
        return np.float64(x)

    def narrow(self, x):
        return self.type(x)

    def exponent(self, x):
        if not np.isfinite(x):
            return np.float64(1024)
        return np.float64(max(math.frexp(x)[1] - 1, -1023) if x else -1023)

    def fraction(self, x):
        return np.abs(np.float64(math.frexp(x)[0] * 2)) if np.isfinite(x) and x else np.float64(1)

    def power_of_two(self, x):
        return np.float64(2.0 ** int(x))

    def delay(self, past, x):
        return self.look(past[0])[0]

    def scan(self, cell, step, x):
        kept = self.kept[cell.name, cell.node, self.key]
        kept[0] = step(kept[0], x)
        return kept[0]

    def combine(self, monoid, a, b, na, nb):
        return tuple(self.type(v) for v in monoid.combine(self, a, b, self.type(na), self.type(nb)))

    def window(self, state, monoid, n, *xs):
        row = tuple(self.type(v) for v in monoid.lift(self, *xs))
        earlier = zip(*(self.look(past) for past in state.past), strict=True) if n > 1 else []
        rows = [tuple(self.type(v) for v in monoid.lift(self, *old)) for old in earlier]
        turns = turn(monoid.name, n, state.past) if n > 1 else 0
        p = n - 1 if n <= SHORT else (self.ordinal + turns) % n
        before, block = rows[: n - 1 - p], [*rows[n - 1 - p :], row]
        prefix = block[0]
        for j, one in enumerate(block[1:], 1):
            prefix = self.combine(monoid, prefix, one, j, 1)
        if not before:
            return prefix
        suffix = before[-1]
        for j, one in enumerate(before[-2::-1], 1):
            suffix = self.combine(monoid, one, suffix, 1, j)
        return self.combine(monoid, suffix, prefix, n - 1 - p, p + 1)

    def fold(self, state, n, x, start, step):
        for old in self.look(state.past[0]) if n > 1 else []:
            start = step(start, old)
        return start

    def order(self, state, n, x, places):
        rows = self.look(state.past[0]) if n > 1 else []
        ranked = sorted(v + self.type(0) for v in [*rows, x])
        if any(v != v for v in ranked):
            return tuple(self.nan for _ in places)
        return tuple(ranked[place] for place in places)


class Row(list):
    """The keys of a row; arithmetic is key by key."""


def _each(one):
    def method(self, other):
        others = other if isinstance(other, list) else [other] * len(self)
        return Row(one(x, y) for x, y in zip(self, others, strict=True))

    return method


for _one in (add, sub, mul, truediv, lt, gt, eq, and_):
    setattr(Row, f"__{_one.__name__.strip('_')}__", _each(_one))


class RowMachine:
    """Cross-sectional words over the list of a row's keys."""

    def __init__(self, dtype):
        self.type = np.dtype(dtype).type
        self.nan = self.type(np.nan)

    def present(self, x):
        return [v == v for v in x]

    def finite(self, x):
        return Row(np.isfinite(v) for v in x)

    def abs(self, x):
        return Row(abs(v) for v in x)

    def sqrt(self, x):
        return Row(np.sqrt(v) for v in x)

    def where(self, mask, x, y):
        xs, ys = (v if isinstance(v, list) else [self.type(v)] * len(mask) for v in (x, y))
        return Row(a if there else b for there, a, b in zip(mask, xs, ys, strict=True))

    def row_count(self, x):
        return Row([self.type(sum(v == v for v in x))] * len(x))

    def row_sum(self, x):
        return Row([self.type(row_sums(np.array([x], np.float64))[0, 0])] * len(x))

    def row_order(self, x):
        place = lambda v: 1 + sum(u < v for u in x) + (sum(u == v for u in x) - 1) / 2  # noqa: E731
        return [self.type(place(v)) if v == v else self.type(np.nan) for v in x]

    def row_quantile(self, x, q):
        ranked = sorted(v + self.type(0) for v in x if v == v)
        if not ranked:
            return [self.type(np.nan)] * len(x)
        place = (len(ranked) - 1) * q
        low = int(np.floor(place))
        below, above = ranked[low], ranked[min(low + 1, len(ranked) - 1)]
        part = self.type(place - low)
        made = below if below == above or part == 0 else below + (above - below) * part
        return [made] * len(x)

    def group_sum(self, x, group):
        sums = {g: self.row_sum([v for v, h in zip(x, group, strict=True) if h == g])[0] for g in set(group) if g == g}
        return [sums[g] if g == g else self.type(np.nan) for g in group]


def run_scalar(program, panel):
    """The plan row by row, node by node, key by key; the outputs and the memory."""
    rows, keys = next(iter(panel.values())).shape
    machine = ScalarMachine(program.layout, program.dtype, keys)
    across = RowMachine(program.dtype)
    states = {node: SimpleNamespace(**uses) for node, uses in program.layout.uses.items()}
    out = {name: np.empty((rows, keys), program.dtype) for name in program.outputs}
    for t in range(rows):
        machine.ordinal = t
        values = {}
        for node in program.plan.nodes:
            args, attrs = [values[arg] for arg in node.args], dict(node.attrs)
            if node.op == "const":
                values[node] = [program.dtype.type(attrs["value"])] * keys
            elif node.op == "field":
                values[node] = list(panel[attrs["name"]][t])
            elif TABLE[node.op].kind is Kind.CROSS:
                values[node] = TABLE[node.op].step(across, *map(Row, args), **attrs)
            else:
                made = []
                for key in range(keys):
                    machine.key = key
                    state = [states[node]] if TABLE[node.op].state else []
                    step = TABLE[node.op].step
                    made.append(program.dtype.type(step(machine, *state, *[arg[key] for arg in args], **attrs)))
                values[node] = made
        for name, node in zip(program.outputs, program.plan.outputs, strict=True):
            out[name][t] = values[node]
        for field in program.layout.fields:
            if field.ring:
                for key in range(keys):
                    past = machine.kept[field.name, field.node, key]
                    past[:] = [*past[1:], values[field.node][key]]
    logical = [[v for f in program.layout.fields for v in machine.kept[f.name, f.node, key]] for key in range(keys)]
    return out, np.array(logical, program.dtype).T


def bits(x):
    x = np.where(np.isnan(x), x.dtype.type(np.nan), x)
    return np.ascontiguousarray(x).view(f"u{x.dtype.itemsize}")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.skipif(np.lib.NumpyVersion(np.__version__) < "2.0.0", reason="float32 scalars times floats were float64")
def test_a_second_reading_gives_the_same_bits(dtype):
    rng = np.random.default_rng(6)
    rows, keys = 23, 5
    panel = {}
    for name in "abc":
        x = rng.normal(2, 1, (rows, keys)).round(1) + rng.choice([0, 0, 1e-9], (rows, keys))
        for value in (0.0, -0.0, np.nan, np.inf, -np.inf, 1e-320, 1e30):
            x[rng.random(x.shape) < 0.02] = value
        panel[name] = x.astype(dtype)
    nodes = f.fields(*"abc")
    outputs = {}
    for operator in TABLE.values():
        for n in (1, 4, 6, 9):
            attrs = {
                p.name: {"Rows": n, "Share": 0.3, "Number": 2.0, "Flag": True}[p.kind] for p in operator.attributes
            }
            if all(attrs[p.name] >= (p.least or 0) for p in operator.attributes):
                outputs[f"{operator.name}_{n}"] = operator(*nodes[: len(operator.operands)], **attrs)
    outputs["late"] = f.ts_corr(f.delay(nodes[0], 3), f.delay(nodes[1] + 1, 2), 7)
    program = f.compile(outputs, dtype=dtype)
    live = program.stream(n=keys)
    want = live.batch(panel)
    with np.errstate(all="ignore"):
        got, memory = run_scalar(program, panel)
    for name in program.outputs:
        assert (bits(got[name]) == bits(want[name])).all(), name
    assert (bits(memory) == bits(live._engine.save(rows))).all()


def test_machines_have_all_words():
    pairs = (
        (Machine, NumpyMachine),
        (Engine, NumpyEngine),
        (Engine, LlvmEngine),
        (AlongTime, LlvmMachine),
        (OverKeys, CompiledRows),
    )
    for protocol, made in pairs:
        for name, method in inspect.getmembers(protocol, inspect.isfunction):
            if not name.startswith("_") and (made is not CompiledRows or name.startswith(("row", "group"))):
                theirs = inspect.signature(getattr(made, name)).parameters
                assert list(inspect.signature(method).parameters) == list(theirs), name
                if len(theirs) > 3:
                    assert method.__doc__, name

"""The NumPy reading of the operator table: the living definition, and the machine without a compiler.

A value is an array (rows, keys), (rows, 1) or (1, 1) of a chunk of rows; a tick is a chunk of one row. Everything is
IEEE arithmetic on the same operands in the same order whatever the chunk, so its bits do not depend on the chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.factor.elementary import Elementary
from penstock.factor.functions import Functions, is_function
from penstock.factor.layout import Field, Layout, Past, turn
from penstock.factor.ops.windowed import SHORT
from penstock.factor.plan import Plan
from penstock.factor.reproducible import group_sums, row_sums
from penstock.factor.table import TABLE, Monoid

if TYPE_CHECKING:
    from penstock.factor.machine import Engine, Machine

__all__ = ["NumpyEngine", "NumpyMachine"]

Array = np.ndarray[Any, np.dtype[Any]]


class _Past:
    """An operand's rows before this one: row t of a stream in slot t mod depth of `ring` (depth, keys)."""

    def __init__(self, ring: Array, past: Past) -> None:
        self.ring = ring
        self.rows = past.rows
        self.shift = past.shift
        self.turn = past.turn

    def before(self, ordinal: int, rows: int) -> Array:
        """The first `rows` of the rows looked back on, the oldest first."""
        found: Array = self.ring[(ordinal - self.shift - self.rows + np.arange(rows)) % len(self.ring)]
        return found


class NumpyMachine(Elementary):
    """Blocks of rows as NumPy arrays; `ordinal` and `rows` say which rows are being computed."""

    def __init__(self, dtype: np.dtype[Any], keys: int) -> None:
        self.dtype = dtype
        self.keys = keys
        self.ordinal = 0
        self.rows = 1
        self.nan = dtype.type(np.nan)
        self.double = dtype == np.float64

    def constant(self, value: float) -> Array:
        return np.full((1, 1), value, self.dtype)

    def block(self, x: Any) -> Array:
        """`x` at full size (rows, keys)."""
        return np.broadcast_to(np.asarray(x, self.dtype), (self.rows, self.keys))

    def where(self, mask: Any, x: Any, y: Any) -> Array:
        chosen: Array = np.where(mask, self._typed(x), self._typed(y))
        return chosen

    def _typed(self, x: Any) -> Any:
        return x if isinstance(x, np.ndarray) else self.dtype.type(x)

    def present(self, x: Any) -> Any:
        return x == x

    def finite(self, x: Any) -> Any:
        return np.isfinite(x)

    def abs(self, x: Any) -> Any:
        return np.abs(x)

    def sqrt(self, x: Any) -> Any:
        return np.sqrt(x)

    def floor(self, x: Any) -> Any:
        return np.floor(x)

    def wide(self, x: Any) -> Array:
        return np.asarray(x, np.float64)

    def narrow(self, x: Any) -> Array:
        return np.asarray(x).astype(self.dtype, copy=False)

    def exponent(self, x: Any) -> Array:
        bits = np.ascontiguousarray(x).view(np.int64)
        return (((bits >> 52) & 0x7FF) - 1023).astype(np.float64)

    def fraction(self, x: Any) -> Array:
        bits = np.ascontiguousarray(x).view(np.int64)
        return ((bits & ((1 << 52) - 1)) | (1023 << 52)).view(np.float64)

    def power_of_two(self, x: Any) -> Array:
        return np.ascontiguousarray((np.asarray(x).astype(np.int64) + 1023) << 52).view(np.float64)

    # ---- along time ----

    def delay(self, past: Sequence[_Past], x: Any) -> Array:
        (one,) = past
        if self.rows <= one.rows:
            return one.before(self.ordinal, self.rows)
        out: Array = np.concatenate([one.before(self.ordinal, one.rows), self.block(x)[: -one.rows]])
        return out

    def _history(self, past: Sequence[_Past], xs: Sequence[Any]) -> list[Array]:
        """Per operand the rows before this chunk in order of time, then the chunk's."""
        return [
            np.concatenate([one.before(self.ordinal, one.rows), self.block(x)])
            for one, x in zip(past, xs, strict=False)
        ]

    def scan(self, cell: Array, step: Callable[[Any, Any], Any], x: Any) -> Array:
        x = self.block(x)
        out = np.empty(x.shape, self.dtype)
        state = cell[0, 0]
        for row in range(self.rows):
            state = out[row] = step(state, x[row])
        cell[0, 0] = state
        return out

    def window(self, state: Any, monoid: Monoid, n: int, *xs: Any) -> tuple[Array, ...]:
        blocks = [self.block(x) for x in xs]
        if n > SHORT:
            if state.window == len(state.summaries):
                state.summaries.append(self._remake(state, monoid, n))
            suffixes, prefix = state.summaries[state.window]
            state.window += 1
            lifted = [self.block(part) for part in monoid.lift(self, *blocks)]
            return self._ring_window(suffixes, prefix, monoid, turn(monoid.name, n, state.past), lifted)
        if n == 1:
            return tuple(self.block(part) for part in monoid.lift(self, *blocks))
        history = self._history(state.past, blocks)
        past = [monoid.lift(self, *(rows[j : j + self.rows] for rows in history)) for j in range(n)]
        summary = past[0]
        for j in range(1, n):
            summary = monoid.combine(self, summary, past[j], self.dtype.type(j), self.dtype.type(1))
        return tuple(self.block(part) for part in summary)

    def _remake(self, state: Any, monoid: Monoid, n: int) -> tuple[Array, Array]:
        """Suffixes and prefix from the past rows, as they would be had the window seen them."""
        one, number = self.dtype.type(1), self.dtype.type
        phase = (self.ordinal + turn(monoid.name, n, state.past)) % n
        lifted = monoid.lift(self, *(past.before(self.ordinal, n - 1) for past in state.past))
        ring = np.full((monoid.parts, n, self.keys), self.nan, self.dtype)
        prefix = np.full((monoid.parts, self.keys), self.nan, self.dtype)
        for part, x in enumerate(lifted):
            rows = np.broadcast_to(np.asarray(x, self.dtype), (n - 1, self.keys))
            ring[part, phase + 1 :], ring[part, :phase] = rows[: n - 1 - phase], rows[n - 1 - phase :]
        self._sweep(ring[:, phase + 1 :], monoid)
        summary: Sequence[Array] = tuple(ring[:, 0])
        for j in range(1, phase):
            summary = monoid.combine(self, summary, tuple(ring[:, j]), number(j), one)
        for part, value in enumerate(summary if phase else ()):
            prefix[part] = value
        return ring, prefix

    def _ring_window(
        self, ring: Array, prefix: Array, monoid: Monoid, turn: int, lifted: list[Array]
    ) -> tuple[Array, ...]:
        """Slot j of `ring` (parts, n, keys): the block's lifted row j once seen, until then the last block's suffix."""
        out = np.empty((monoid.parts, self.rows, self.keys), self.dtype)
        row, n = 0, ring.shape[1]
        while row < self.rows:
            phase = (self.ordinal + turn + row) % n
            blocks = (self.rows - row) // n
            if phase == 0 and blocks:
                stop = row + blocks * n
                self._whole_blocks(ring, prefix, monoid, [x[row:stop] for x in lifted], out[:, row:stop])
            else:
                stop = min(self.rows, row + n - phase)
                self._part_block(ring, prefix, monoid, phase, [x[row:stop] for x in lifted], out[:, row:stop])
            row = stop
        return tuple(out)

    def _part_block(
        self, ring: Array, prefix: Array, monoid: Monoid, phase: int, lifted: list[Array], out: Array
    ) -> None:
        """Rows of one block from `phase` on."""
        one, number, n, rows = self.dtype.type(1), self.dtype.type, ring.shape[1], len(lifted[0])
        state: Sequence[Array] = tuple(prefix)
        running = np.empty_like(out)
        for i in range(rows):
            row = tuple(x[i] for x in lifted)
            state = monoid.combine(self, state, row, number(phase + i), one) if phase + i else row
            for part, value in enumerate(state):
                running[part, i] = value
        early = min(rows, n - 1 - phase)  # rows before the block's last one reach into the block before
        if early:
            after = (np.arange(early) + (phase + 1)).astype(self.dtype)[:, None]
            suffix = tuple(ring[:, phase + 1 : phase + 1 + early])
            merged = monoid.combine(self, suffix, tuple(running[:, :early]), number(n) - after, after)
            for part, value in enumerate(merged):
                out[part, :early] = value
        out[:, early:] = running[:, early:]
        prefix[:] = running[:, -1]
        for part, x in enumerate(lifted):
            ring[part, phase : phase + rows] = x
        if phase + rows == n:
            self._sweep(ring, monoid)

    def _sweep(self, ring: Array, monoid: Monoid) -> None:
        """Turn the rows of a finished block into its suffixes; `ring` is (parts, n, …)."""
        n, one, number = ring.shape[1], self.dtype.type(1), self.dtype.type
        for j in range(n - 2, -1, -1):
            merged = monoid.combine(self, tuple(ring[:, j]), tuple(ring[:, j + 1]), one, number(n - 1 - j))
            for part, value in enumerate(merged):
                ring[part, j] = value

    def _whole_blocks(self, ring: Array, prefix: Array, monoid: Monoid, lifted: list[Array], out: Array) -> None:
        """Several whole blocks at once: the same merges as row by row, for all blocks side by side."""
        n, one, number = ring.shape[1], self.dtype.type(1), self.dtype.type
        # (parts, n, blocks, keys): a block's row j of all blocks is one stretch of memory per block.
        rows = np.stack([x.reshape(-1, n, self.keys).swapaxes(0, 1) for x in lifted])
        running = np.empty_like(rows)
        running[:, 0] = rows[:, 0]
        for j in range(1, n):
            merged = monoid.combine(self, tuple(running[:, j - 1]), tuple(rows[:, j]), number(j), one)
            for part, value in enumerate(merged):
                running[part, j] = value
        self._sweep(rows, monoid)
        before = np.concatenate([ring[:, :, None], rows[:, :, :-1]], axis=2)
        after = np.arange(1, n).astype(self.dtype)[:, None, None]
        merged = monoid.combine(self, tuple(before[:, 1:]), tuple(running[:, :-1]), number(n) - after, after)
        target = out.reshape(monoid.parts, -1, n, self.keys).swapaxes(1, 2)
        for part, value in enumerate(merged):
            target[part, :-1] = value
        target[:, -1] = running[:, -1]
        ring[:] = rows[:, :, -1]
        prefix[:] = running[:, -1, -1]

    def fold(self, state: Any, n: int, x: Any, start: Any, step: Callable[[Any, Any], Any]) -> Any:
        if n == 1:
            return self.block(start)
        (history,) = self._history(state.past, [self.block(x)])
        for j in range(n - 1):
            start = step(start, history[j : j + self.rows])
        return start

    def order(self, state: Any, n: int, x: Any, places: Sequence[int]) -> tuple[Array, ...]:
        x = self.block(x)
        if n == 1:
            return tuple(x + 0.0 for _ in places)
        (history,) = self._history(state.past, [x])
        history = history + self.dtype.type(0.0)  # -0 and 0 sort as they please, so make them one
        out = np.empty((len(places), self.rows, self.keys), self.dtype)
        step = max(1, (1 << 20) // (n * self.keys))
        for first in range(0, self.rows, step):
            part = history[first : first + min(step, self.rows - first) + n - 1]
            ranked = np.sort(np.lib.stride_tricks.sliding_window_view(part, n, axis=0), axis=-1)
            missing = np.isnan(ranked[..., -1])
            for i, place in enumerate(places):
                out[i, first : first + len(ranked)] = np.where(missing, self.nan, ranked[..., place])
        return tuple(out)

    # ---- over the keys of a row ----

    def row_count(self, x: Any) -> Array:
        count: Array = (~np.isnan(self.block(x))).sum(axis=1, keepdims=True).astype(self.dtype)
        return count

    def row_sum(self, x: Any) -> Array:
        return row_sums(self.block(x).astype(np.float64)).astype(self.dtype)

    def row_order(self, x: Any) -> Array:
        x = self.block(x)
        by = np.argsort(x, axis=1)
        ranked = np.take_along_axis(x, by, axis=1)
        edge = ranked[:, 1:] != ranked[:, :-1]
        place = np.arange(self.keys)
        first = np.zeros(x.shape, np.int64)
        first[:, 1:] = np.where(edge, place[1:], 0)
        first = np.maximum.accumulate(first, axis=1)
        last = np.full(x.shape, self.keys - 1)
        last[:, :-1] = np.where(edge, place[:-1], self.keys - 1)
        last = np.minimum.accumulate(last[:, ::-1], axis=1)[:, ::-1]
        out = np.empty(x.shape, self.dtype)
        np.put_along_axis(out, by, ((first + last) * 0.5 + 1.0).astype(self.dtype), axis=1)
        return self.where(np.isnan(x), self.nan, out)

    def row_quantile(self, x: Any, q: float) -> Array:
        x = self.block(x)
        ranked = np.sort(x + self.dtype.type(0.0), axis=1)
        last = (~np.isnan(x)).sum(axis=1, keepdims=True) - 1
        place = np.maximum(last, 0) * q
        low = np.floor(place).astype(np.int64)
        part = (place - low).astype(self.dtype)
        below = np.take_along_axis(ranked, low, axis=1)
        above = np.take_along_axis(ranked, np.minimum(low + 1, np.maximum(last, 0)), axis=1)
        return self.where((below == above) | (part == 0), below, below + (above - below) * part)

    def group_sum(self, x: Any, group: Any) -> Array:
        x, group = self.block(x), self.block(group)
        known = ~np.isnan(group)
        labels, code = np.unique(group[known], return_inverse=True)
        row = np.broadcast_to(np.arange(self.rows)[:, None], group.shape)[known]
        bins = row * len(labels) + code.reshape(-1)
        sums = group_sums(x[known].astype(np.float64), bins, self.rows * len(labels))
        out = np.full(x.shape, self.nan, self.dtype)
        out[known] = sums[bins].astype(self.dtype)
        return out


class NumpyEngine:
    """A plan run by the NumPy machine, in chunks that stay in the cache."""

    CHUNK = 1 << 16
    """Values per array and chunk; the fewest rows are 32."""

    def __init__(self, plan: Plan, layout: Layout, dtype: np.dtype[Any], keys: int, executor: object = None) -> None:
        self.machine = NumpyMachine(dtype, keys)
        self.planes = np.full((layout.rows, keys), np.nan, dtype)
        self.rows = np.full((len(plan.inputs), keys), np.nan, dtype)
        self._fields = layout.fields
        self._states: list[SimpleNamespace] = []
        slot = {node: i for i, node in enumerate(plan.nodes)}
        self._outputs = [slot[node] for node in plan.outputs]
        self._slots = len(slot)
        self._constants: list[tuple[int, Array]] = []
        self._inputs: list[int] = [slot[node] for node in plan.inputs]
        self._functions = Functions(plan, dtype, keys)
        self._calls: list[tuple[int, Any, tuple[Any, ...], list[int], dict[str, Any], list[int]]] = []
        for node in plan.nodes:
            if node.op == "const":
                self._constants.append((slot[node], self.machine.constant(dict(node.attrs)["value"])))  # type: ignore[arg-type]
            elif node.op != "field":
                operator = TABLE[node.op]
                state: tuple[Any, ...] = ()
                if operator.state is not None:
                    state = (self._state(layout.uses[node]),)
                dead = [slot[last] for last in plan.last_use.get(node, ())]
                step = operator.step
                if is_function(node):
                    step = partial(self._functions.rows, self._functions.numbers[node])
                call = (slot[node], step, state, [slot[a] for a in node.args], dict(node.attrs), dead)
                self._calls.append(call)

        self._rings = {slot[field.node]: self._view(field)[0] for field in layout.fields if field.ring}

    def _view(self, field: Field) -> Array:
        return self.planes[field.first : field.first + field.rows].reshape(field.parts, field.depth, -1)

    def _state(self, uses: Mapping[str, Field | tuple[Past, ...]]) -> SimpleNamespace:
        """What a step gets as its state; summaries of its past rows, one per window, are made when first wanted."""
        made = SimpleNamespace(summaries=[], window=0)
        for name, used in uses.items():
            if isinstance(used, Field):
                setattr(made, name, self._view(used))
            else:
                setattr(made, name, [_Past(self._view(p.field)[0], p) for p in used])
        self._states.append(made)
        return made

    def tick(self, ordinal: int) -> Array:
        """As `Engine.tick`."""
        return np.concatenate(self._chunk([row[None] for row in self.rows], ordinal, 1))

    def run(self, inputs: Sequence[Array], ordinal: int, rows: int) -> list[Array]:
        """As `Engine.run`; any number of rows."""
        step = max(32, self.CHUNK // max(1, self.machine.keys))
        if rows <= step:
            return self._chunk(inputs, ordinal, rows)
        out = [np.empty((rows, self.machine.keys), self.machine.dtype) for _ in self._outputs]
        for first in range(0, rows, step):
            stop = min(rows, first + step)
            part = self._chunk([x[first:stop] for x in inputs], ordinal + first, stop - first)
            for whole, piece in zip(out, part, strict=True):
                whole[first:stop] = piece
        return out

    def _chunk(self, inputs: Sequence[Array], ordinal: int, rows: int) -> list[Array]:
        machine = self.machine
        machine.ordinal, machine.rows = ordinal, rows
        values: list[Any] = [None] * self._slots
        # Past rows are read by many; they take this chunk's when all are done.
        coming: list[tuple[Array, Array]] = []

        def known(at: int, value: Any) -> None:
            values[at] = value
            ring = self._rings.get(at)
            if ring is not None:
                coming.append((ring, machine.block(value)[-len(ring) :].copy()))

        for at, constant in self._constants:
            known(at, constant)
        for at, rows_in in zip(self._inputs, inputs, strict=True):
            known(at, rows_in)
        with np.errstate(all="ignore"):
            for at, step, state, args, attrs, dead in self._calls:
                for one in state:
                    one.window = 0
                known(at, step(machine, *state, *[values[i] for i in args], **attrs))
                for i in dead:
                    values[i] = None
        self._functions.check()
        for ring, last in coming:
            ring[(ordinal + rows - len(last) + np.arange(len(last))) % len(ring)] = last
        out = []
        for at in self._outputs:
            block = machine.block(values[at]).copy()
            block[np.isnan(block)] = machine.nan  # one NaN: payload and sign depend on the order of operands
            out.append(block)
        return out

    def save(self, ordinal: int) -> Array:
        """As `Engine.save`."""
        copy = self.planes.copy()
        for field in self._fields:
            if field.ring:
                copy[field.first : field.first + field.rows] = np.roll(
                    self._view(field)[0], -(ordinal % field.depth), 0
                )
        copy[np.isnan(copy)] = self.machine.nan
        return copy

    def load(self, state: Array, ordinal: int) -> None:
        """As `Engine.load`."""
        self.planes[:] = state
        for field in self._fields:
            if field.ring:
                ring = self._view(field)[0]
                ring[:] = np.roll(ring, ordinal % field.depth, 0)
        for one in self._states:
            one.summaries.clear()


if TYPE_CHECKING:
    _machine: type[Machine] = NumpyMachine
    _engine: type[Engine] = NumpyEngine

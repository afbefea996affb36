"""Plans run by compiled code: memory, one call per tick or stretch of rows, and the state as a value."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.factor.executor import SYSCALL, Executor
from penstock.factor.layout import Layout
from penstock.factor.llvm.loop import CONTEXT
from penstock.factor.llvm.module import lanes_of, write
from penstock.factor.llvm.pieces import scratch_bytes
from penstock.factor.passes import Plan
from penstock.native import jit

if TYPE_CHECKING:
    from penstock.factor.machine import Engine

__all__ = ["LlvmCode", "LlvmEngine"]

Array = np.ndarray[Any, np.dtype[Any]]

_Run = ctypes.CFUNCTYPE(None, ctypes.c_void_p, *[ctypes.c_int64] * 2)


def _aligned(count: int, dtype: np.dtype[Any]) -> Array:
    """Memory on a cache line's edge."""
    raw = np.empty(count * dtype.itemsize + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + count * dtype.itemsize].view(dtype)


class LlvmCode:
    """A plan's machine code; makes engines for any number of keys."""

    def __init__(self, plan: Plan, layout: Layout, dtype: np.dtype[Any]) -> None:
        self.plan, self.layout, self.dtype = plan, layout, dtype
        self.module = write(plan, layout, dtype)
        self.native = jit.compile_text(self.module.text)
        # A row of the layout is kept where `Past.place` looks for it.
        self.rows = np.arange(layout.rows)
        for field in layout.fields:
            if field.ring and field.parts > 1:
                rows = np.arange(field.rows).reshape(field.depth, field.parts).T.reshape(-1)
                self.rows[field.first : field.first + field.rows] = field.first + rows
        self.address = self.native.address("run")
        # A call through ctypes releases the interpreter's lock.
        self.run = _Run(self.address)

    def __call__(self, keys: int, executor: Executor | None = None) -> LlvmEngine:
        return LlvmEngine(self, keys, executor)


class _Contexts:
    """What compiled code is told in each thread, and planes for chunks of `rows` rows."""

    def __init__(self, engine: LlvmEngine, rows: int) -> None:
        code, size, blocks = engine.code, engine.code.dtype.itemsize, engine.blocks
        module, layout = code.module, code.layout
        self.rows = rows
        # An odd number of lines from block to block, or all blocks would fall into the same few cache sets.
        block = (module.planes * rows | 1) * 64
        parts = engine.executor.threads if engine.executor is not None else 1
        if not module.crosses:
            parts = min(parts, max(1, blocks))  # no waiting for each other, so that some may have nothing to do
        threads = engine.executor.threads if engine.executor is not None else 1
        room = blocks * block if module.crosses else min(blocks, engine.TILE) * block * threads
        scratch = -(-scratch_bytes(engine.keys, engine.lanes) // 64) * 64
        self._planes = _aligned(room, np.dtype(np.uint8))
        self._scratch = _aligned(scratch * threads, np.dtype(np.uint8))
        self._gate = _aligned(32, np.dtype(np.int64))
        self._gate[:] = 0
        self._inputs = np.zeros(max(1, len(code.plan.inputs)), np.int64)
        self._outputs = np.zeros(max(1, len(code.plan.outputs)), np.int64)
        self._words = np.zeros((threads, -(-len(CONTEXT) // 8) * 8), np.int64)
        for i in range(threads):
            words = {
                "planes": self._planes.ctypes.data + (0 if module.crosses else room // threads * i),
                "plane_rows": rows,
                "plane_block": block,
                "state": engine.state.ctypes.data,
                "state_block": layout.rows * engine.lanes * size,
                "extra": engine._extra.ctypes.data,
                "extra_block": module.extra_rows * engine.lanes * size,
                "keys": engine.keys,
                "blocks": blocks,
                "inputs": self._inputs.ctypes.data,
                "input_row": engine.keys * size,
                "outputs": self._outputs.ctypes.data,
                "output_row": engine.keys * size,
                "tile": engine.TILE,
                "scratch": self._scratch.ctypes.data + scratch * i,
                "lo": blocks * min(i, parts) // parts,
                "hi": blocks * min(i + 1, parts) // parts,
                "part": i,
                "parts": threads,
                "gate": self._gate.ctypes.data,
                "syscall": SYSCALL[0],
            }
            self._words[i, : len(CONTEXT)] = [words[name] for name in CONTEXT]
        self._run, self._address, self._first = code.run, code.address, self._words.ctypes.data
        self._executor = engine.executor if threads > 1 else None
        self._each = self._words.ctypes.data + self._words.strides[0] * np.arange(threads, dtype=np.int64)
        self._each_at = self._each.ctypes.data

    def arrays(self, inputs: list[int], outputs: list[int]) -> None:
        """Addresses of the first row of each input and output."""
        self._inputs[: len(inputs)] = inputs
        self._outputs[: len(outputs)] = outputs

    def call(self, ordinal: int, rows: int) -> None:
        if self._executor is None:
            self._run(self._first, ordinal, rows)
        else:
            self._executor.call(self._address, self._each_at, ordinal, rows)


class LlvmEngine:
    """A plan with memory for its state; see `machine.Engine`."""

    ROWS = 128
    """Rows of a chunk, if its planes stay small."""

    PLANE = 1 << 17
    """Values of a plane of a chunk where all keys are computed before the next chunk; at least 16 rows."""

    TILE = 16
    """Key blocks that go through functions along time together: what passes between these stays in the cache."""

    CALL = 1 << 27
    """Values (of all nodes) computed in one call at most, so that Ctrl-C is heard."""

    def __init__(self, code: LlvmCode, keys: int, executor: Executor | None = None) -> None:
        self.code, self.keys, self.executor = code, keys, executor
        module, dtype, layout = code.module, code.dtype, code.layout
        self.lanes = lanes_of(dtype)
        self.blocks = -(-keys // self.lanes)
        self.state = _aligned(self.blocks * layout.rows * self.lanes, dtype)
        self.state[:] = np.nan
        whole = np.dtype(f"i{dtype.itemsize}")
        self._extra = _aligned(self.blocks * module.extra_rows * self.lanes, whole)
        self._extra[:] = np.iinfo(whole).max
        self.rows = np.full((len(code.plan.inputs), keys), np.nan, dtype)
        self._out = np.empty((len(code.plan.outputs), keys), dtype)
        self._tick = _Contexts(self, 1)
        self._tick.arrays([row.ctypes.data for row in self.rows], [row.ctypes.data for row in self._out])
        self._many: _Contexts | None = None

    def tick(self, ordinal: int) -> Array:
        """As `Engine.tick`."""
        self._tick.call(ordinal, 1)
        return self._out

    def run(self, inputs: Sequence[Array], ordinal: int, rows: int) -> list[Array]:
        """As `Engine.run`."""
        out = [np.empty((rows, self.keys), self.code.dtype) for _ in self.code.plan.outputs]
        chunk = min(self.ROWS, max(16, self.PLANE // max(1, self.keys))) if self.code.module.crosses else self.ROWS
        chunk = max(1, min(rows, chunk))
        if self._many is None or self._many.rows != chunk:
            self._many = _Contexts(self, chunk)
        step = max(chunk, self.CALL // max(1, self.keys * len(self.code.plan.nodes)))
        row = self.keys * self.code.dtype.itemsize
        for first in range(0, rows, step):
            past = first * row
            self._many.arrays([x.ctypes.data + past for x in inputs], [x.ctypes.data + past for x in out])
            self._many.call(ordinal + first, min(step, rows - first))
        return out

    def save(self) -> Array:
        """As `Engine.save`."""
        lanes, rows = self.lanes, self.code.layout.rows
        logical = self.state.reshape(self.blocks, rows, lanes).swapaxes(0, 1)[self.code.rows]
        logical = logical.reshape(rows, self.blocks * lanes)[:, : self.keys].copy()
        logical[np.isnan(logical)] = np.nan
        return logical

    def load(self, state: Array) -> None:
        """As `Engine.load`."""
        lanes, rows = self.lanes, self.code.layout.rows
        padded = np.full((rows, self.blocks * lanes), np.nan, self.code.dtype)
        padded[:, : self.keys] = state
        blocks = padded.reshape(rows, self.blocks, lanes).swapaxes(0, 1)
        self.state.reshape(self.blocks, rows, lanes)[:, self.code.rows] = blocks
        extra = self._extra.reshape(self.blocks, self.code.module.extra_rows, lanes)
        for made in self.code.module.sorted:
            field = made.field
            ring = padded[field.first : field.first + field.rows]
            image = made.rows(ring).reshape(field.rows, self.blocks, lanes).swapaxes(0, 1)
            extra[:, made.first : made.first + field.rows] = image


if TYPE_CHECKING:
    _engine: type[Engine] = LlvmEngine

"""Plans run by compiled code: memory, one call per tick or stretch of rows, and the state as a value."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.factor.executor import SYSCALL, Executor
from penstock.factor.functions import Functions
from penstock.factor.layout import Layout
from penstock.factor.llvm.loop import CONTEXT
from penstock.factor.llvm.module import lanes_of, write
from penstock.factor.llvm.pieces import scratch_bytes
from penstock.factor.plan import Plan
from penstock.native import jit, pages

if TYPE_CHECKING:
    from penstock.factor.machine import Engine

__all__ = ["LlvmCode", "LlvmEngine"]

Array = np.ndarray[Any, np.dtype[Any]]

_Run = ctypes.CFUNCTYPE(None, ctypes.c_void_p, *[ctypes.c_int64] * 2)
_Call = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 2, ctypes.c_void_p)
_Start = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)
_Move = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)


def _aligned(count: int, dtype: np.dtype[Any]) -> Array:
    """Memory on a cache line's edge."""
    raw = np.empty(count * dtype.itemsize + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + count * dtype.itemsize].view(dtype)


def _caller(functions: Functions, planes: Array, stride: int, lanes: int) -> Any:
    """What compiled code calls for a row of a NumPy function: its number, the row's, and addresses in the planes."""
    base, keys, dtype = planes.ctypes.data, functions.keys, functions.dtype
    shape, strides = (-(-keys // lanes), lanes), (stride, dtype.itemsize)

    whole, rest = divmod(keys, lanes)

    def call(number: int, ordinal: int, table: int) -> None:
        if not keys:
            return
        # An exception must not leave here: there is compiled code outside.
        try:
            places = (ctypes.c_int64 * (len(functions.nodes[number].args) + 1)).from_address(table)
            rows: list[Array] = [np.ndarray(shape, dtype, planes, place - base, strides) for place in places]
            made = functions.row(number, ordinal, [row.flatten()[:keys] for row in rows[:-1]])
            rows[-1][:whole] = made[: whole * lanes].reshape(whole, lanes)
            rows[-1][whole:, :rest] = made[whole * lanes :]
        except BaseException as error:
            functions.stop(error)

    return _Call(call)


class LlvmCode:
    """A plan's machine code; makes engines for any number of keys."""

    def __init__(self, plan: Plan, layout: Layout, dtype: np.dtype[Any]) -> None:
        self.plan, self.layout, self.dtype = plan, layout, dtype
        self.module = write(plan, layout, dtype)
        self.native = jit.compile_text(self.module.text)
        self.address = self.native.address("run")
        # A call through ctypes releases the interpreter's lock.
        self.run = _Run(self.address)
        self.start = _Start(self.native.address("state_start"))
        self.load = _Move(self.native.address("state_load"))
        self.save = _Move(self.native.address("state_save"))

    def __call__(self, keys: int, executor: Executor | None = None) -> LlvmEngine:
        return LlvmEngine(self, keys, executor)


class _Contexts:
    """What compiled code is told in each thread, and planes for chunks of `rows` rows."""

    def __init__(self, engine: LlvmEngine, rows: int, threads: int) -> None:
        code, size, blocks = engine.code, engine.code.dtype.itemsize, engine.blocks
        module = code.module
        self.rows = rows
        # An odd number of lines from block to block, or all blocks would fall into the same few cache sets.
        block = (module.planes * rows | 1) * 64
        self.threads = threads
        tile = engine.TILE if rows > 1 else engine.TICK
        room = blocks * block if module.crosses else min(blocks, tile) * block * threads
        scratch = -(-scratch_bytes(engine.keys, engine.lanes) // 64) * 64
        self._planes = _aligned(room, np.dtype(np.uint8))
        self._scratch = _aligned(scratch * threads, np.dtype(np.uint8))
        self._gate = _aligned(32, np.dtype(np.int64))
        self._gate[:] = 0
        self._inputs = np.zeros(max(1, len(code.plan.inputs)), np.int64)
        self._outputs = np.zeros(max(1, len(code.plan.outputs)), np.int64)
        self._functions = engine.functions
        # As long as these contexts, whose planes it reads and writes.
        self._called = _caller(engine.functions, self._planes, block, engine.lanes) if engine.functions.nodes else None
        self._words = np.zeros((threads, -(-len(CONTEXT) // 8) * 8), np.int64)
        for i in range(threads):
            words = {
                "planes": self._planes.ctypes.data + (0 if module.crosses else room // threads * i),
                "plane_rows": rows,
                "plane_block": block,
                "state": engine.state.ctypes.data,
                "state_block": module.rows * 64,
                "keys": engine.keys,
                "blocks": blocks,
                "inputs": self._inputs.ctypes.data,
                "input_row": engine.keys * size,
                "outputs": self._outputs.ctypes.data,
                "output_row": engine.keys * size,
                "tile": min(tile, max(1, blocks // (4 * threads))) if threads > 1 else tile,
                "scratch": self._scratch.ctypes.data + scratch * i,
                "lo": 0,
                "hi": blocks,
                "parts": threads,
                "side": i % 2,
                "gate": self._gate.ctypes.data,
                "syscall": SYSCALL[0],
                "function": ctypes.cast(self._called, ctypes.c_void_p).value or 0 if self._called else 0,
                "row": 0,
            }
            self._words[i, : len(CONTEXT)] = [words[name] for name in CONTEXT]
        self._run, self._address, self.first = code.run, code.address, self._words.ctypes.data
        self._executor = engine.executor
        self._each = self._words.ctypes.data + self._words.strides[0] * np.arange(threads, dtype=np.int64)
        self._each_at = self._each.ctypes.data

    def arrays(self, inputs: list[int], outputs: list[int]) -> None:
        """Addresses of the first row of each input and output."""
        self._inputs[: len(inputs)] = inputs
        self._outputs[: len(outputs)] = outputs

    def call(self, ordinal: int, rows: int) -> None:
        if self._executor is None or self.threads == 1:
            if self._executor is not None:
                self._executor.check()
            self._run(self.first, ordinal, rows)
        else:
            self._executor.call(self._address, self._each_at, ordinal, rows, self._gate.ctypes.data, self.threads)
        if self._called is not None:
            self._functions.check()


class LlvmEngine:
    """A plan with memory for its state; see `machine.Engine`."""

    ROWS = 128
    """Rows of a chunk at most."""

    NEAR = 1 << 19
    """Bytes of a key block's planes, so that what passes between functions stays in a processor's own cache."""

    PLANE = 1 << 17
    """Values of a plane where all keys are computed before the next chunk."""

    CACHE = 1 << 24
    """Bytes of all planes there, up to which they stay in a cache."""

    FAR = 32
    """Rows of a chunk at least, where planes do not: longer chunks pass over the state less often."""

    SHARE = 300_000
    """Values (of all nodes) for which a thread is woken: some 100 µs."""

    TILE = 16
    """Key blocks that go through functions along time together: what passes between these stays in the cache."""

    TICK = 64
    """Key blocks in a tick, where planes have one row, and coming back to a function's code is what costs."""

    CALL = 1 << 21
    """Values (of all nodes) computed in the first call of a run; then as many as take `HEARD`."""

    HEARD = 0.2
    """Seconds a call may take, so that Ctrl-C is heard: what a value costs depends on its window."""

    def __init__(self, code: LlvmCode, keys: int, executor: Executor | None = None) -> None:
        self.code, self.keys, self.executor = code, keys, executor
        dtype = code.dtype
        self.lanes = lanes_of(dtype)
        self.blocks = -(-keys // self.lanes)
        self.state = _aligned(self.blocks * code.module.rows * self.lanes, dtype)
        self._ready = False
        self.functions = Functions(code.plan, dtype, keys)
        self.rows = np.full((len(code.plan.inputs), keys), np.nan, dtype)
        self._out = np.empty((len(code.plan.outputs), keys), dtype)
        self._tick = _Contexts(self, 1, self._threads(1))
        self._tick.arrays([row.ctypes.data for row in self.rows], [row.ctypes.data for row in self._out])
        self._many: _Contexts | None = None

    def _begin(self, ordinal: int) -> None:
        if not self._ready:
            self.code.start(self._tick.first, ordinal)
            self._ready = True

    def _threads(self, rows: int) -> int:
        """How many threads are worth while for what is done before they meet at the end."""
        most = self.executor.threads if self.executor is not None else 1
        return min(most, max(1, rows * self.keys * len(self.code.plan.nodes) // self.SHARE))

    @classmethod
    def near(cls, planes: int) -> int:
        """Rows of a chunk of which a key block's planes stay near; at least 16, as calls over keys take so many."""
        return min(cls.ROWS, max(16, cls.NEAR // (planes * 64) // 16 * 16))

    def _chunk(self) -> int:
        """Rows of a chunk."""
        module = self.code.module
        rows = self.near(module.planes)
        if not module.crosses:
            return rows
        if self.blocks > self.CACHE // (rows * module.planes * 64):
            rows = max(rows, self.FAR)
        return min(rows, max(16, self.PLANE // max(1, self.keys)))

    def tick(self, ordinal: int) -> Array:
        """As `Engine.tick`."""
        if not self._ready:
            self._begin(ordinal)
        self._tick.call(ordinal, 1)
        return self._out

    def run(self, inputs: Sequence[Array], ordinal: int, rows: int) -> list[Array]:
        """As `Engine.run`."""
        self._begin(ordinal)
        out = pages.arrays(len(self.code.plan.outputs), (rows, self.keys), self.code.dtype)
        chunk = max(1, min(rows, self._chunk()))
        threads = self._threads(chunk if self.code.module.crosses else rows)
        if self._many is None or (self._many.rows, self._many.threads) != (chunk, threads):
            self._many = _Contexts(self, chunk, threads)
        step = max(chunk, self.CALL // max(1, self.keys * len(self.code.plan.nodes)))
        row = self.keys * self.code.dtype.itemsize
        first = 0
        while first < rows:
            past, count, began = first * row, min(step, rows - first), perf_counter()
            self._many.arrays([x.ctypes.data + past for x in inputs], [x.ctypes.data + past for x in out])
            self._many.call(ordinal + first, count)
            first += count
            fits = self.HEARD / max(perf_counter() - began, 1e-6)
            step = max(chunk, int(step * min(fits, 8.0)) // chunk * chunk)
        return out

    def save(self, ordinal: int) -> Array:
        """As `Engine.save`."""
        self._begin(ordinal)
        state = np.empty((self.code.layout.rows, self.keys), self.code.dtype)
        self.code.save(self._tick.first, state.ctypes.data, ordinal)
        return state

    def load(self, state: Array, ordinal: int) -> None:
        """As `Engine.load`."""
        state = np.ascontiguousarray(state, self.code.dtype)
        self.code.load(self._tick.first, state.ctypes.data, ordinal)
        self._ready = True


if TYPE_CHECKING:
    _engine: type[Engine] = LlvmEngine

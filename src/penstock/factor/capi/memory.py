"""A stream's memory: one piece, a header of words at its beginning, and the context of the compiled code in it.

The same setup as `LlvmEngine` and its contexts make in Python, for one thread.
"""

from __future__ import annotations

from penstock.factor.capi.library import I8, Facts, Function, Library
from penstock.factor.llvm.engine import LlvmEngine
from penstock.factor.llvm.loop import CONTEXT
from penstock.factor.llvm.pieces import scratch_bytes
from penstock.native.emit import I64, PTR, Value, kind

__all__ = ["CONTEXT_AT", "LINE", "MOST", "WORDS", "allocate", "get", "many", "set_context", "set_word"]

LINE = 64
"""Bytes of a key block's row, on every processor."""

MOST = 1 << 24
"""Symbols of a stream."""

WORDS = (
    *("owner", "keys", "blocks", "ordinal", "first", "ran", "universe", "universe_size"),
    *("state", "rows", "out", "inputs", "outputs", "planes", "scratch", "gate", "pushed", "born", "since"),
)
CONTEXT_AT = len(WORDS)
_HEADER = -(-8 * (len(WORDS) + len(CONTEXT)) // LINE) * LINE
_POINTERS = {"owner", "universe", *WORDS[8:]}


def get(fn: Function, name: str, stream: Value | None = None) -> Value:
    """A word of the stream."""
    of = PTR if name in _POINTERS else I64
    return fn.load(of, fn.at(fn["stream"] if stream is None else stream, WORDS.index(name), I64), 8)


def set_word(fn: Function, name: str, value: Value | int, stream: Value | None = None) -> None:
    """Change a word of the stream."""
    place = fn.at(fn["stream"] if stream is None else stream, WORDS.index(name), I64)
    fn.store(value if isinstance(value, Value) else fn.number(I64, value), place, 8)


def _planes(fn: Function, facts: Facts, blocks: Value, rows: Value | int) -> tuple[Value, Value]:
    """Bytes from key block to key block, and of all planes, for chunks of so many rows."""
    module = facts.module
    block = (fn.like(I64, rows) * module.planes | 1) * LINE
    tile = _tile(rows)
    held = blocks if module.crosses else fn.select(blocks < tile, blocks, tile)
    return block, held * block


def _tile(rows: Value | int) -> int:
    """Key blocks that go along time together: in a tick, or in longer chunks."""
    return LlvmEngine.TICK if isinstance(rows, int) else LlvmEngine.TILE


def set_context(
    fn: Function, at: Value, stream: Value, rows: Value | int, planes: Value, inputs: Value, outputs: Value
) -> None:
    """Write what the compiled code is told, for chunks of so many rows."""
    facts = fn.library.facts
    keys, blocks = get(fn, "keys", stream), get(fn, "blocks", stream)
    block, _ = _planes(fn, facts, blocks, rows)
    words: dict[str, Value | int] = {
        "planes": planes,
        "plane_rows": rows,
        "plane_block": block,
        "state": get(fn, "state", stream),
        "state_block": facts.module.rows * LINE,
        "keys": keys,
        "blocks": blocks,
        "inputs": inputs,
        "input_row": keys * facts.size,
        "outputs": outputs,
        "output_row": keys * facts.size,
        "tile": _tile(rows),
        "scratch": get(fn, "scratch", stream),
        "lo": 0,
        "hi": blocks,
        "part": 0,
        "parts": 1,
        "side": 0,
        "gate": get(fn, "gate", stream),
        "syscall": 0,
        "function": 0,
        "row": 0,
    }
    for i, name in enumerate(CONTEXT):
        value = words[name]
        fn.store(value if isinstance(value, Value) else fn.number(I64, value), fn.at(at, i, I64), 8)


def allocate(library: Library) -> None:
    """Write `allocate(keys)`: a stream whose state is not begun; NULL if there is no memory."""
    facts = library.facts
    size = facts.size
    scratch = [scratch_bytes(1 << power, LINE // size) for power in range(MOST.bit_length())]
    table = library.constant("scratch_bytes", "i64", [str(-(-room // LINE) * LINE) for room in scratch])
    library.globals.append("@program = internal constant [8 x i64] zeroinitializer, align 64")

    fn = library.function("allocate", PTR, keys=I64)
    keys = fn["keys"]
    lanes = LINE // size
    blocks = (keys + (lanes - 1)) >> (lanes.bit_length() - 1)
    power = 64 - fn.call(I64, "llvm.ctlz.i64", keys - 1, fn.number(kind("i1"), False))
    _, planes = _planes(fn, facts, blocks, 1)
    rooms: dict[str, Value | int] = {
        "state": blocks * (facts.module.rows * LINE),
        "rows": keys * (facts.inputs * size),
        "out": keys * (facts.outputs * size),
        "inputs": facts.inputs * 8,
        "outputs": facts.outputs * 8,
        "planes": planes,
        "scratch": fn.load(I64, fn.at(fn.place(table), power, I64), 8),
        "gate": 256,
        "pushed": facts.inputs,
        "born": keys * 8,
        "since": len(facts.layout.fields) * 8,
    }
    end = fn.like(I64, _HEADER)
    places = {}
    for name, room in rooms.items():
        places[name] = end
        end = fn.up(end + room, LINE)
    stream = fn.libc("aligned_alloc", LINE, end)
    with fn.when(stream == fn.null, seldom=True):
        fn.give(fn.null)
    for name in ("ordinal", "first", "ran", "universe_size"):
        set_word(fn, name, 0, stream)
    set_word(fn, "owner", fn.place("@program"), stream)
    set_word(fn, "universe", fn.null, stream)
    set_word(fn, "keys", keys, stream)
    set_word(fn, "blocks", blocks, stream)
    at = {name: fn.at(stream, place, 1) for name, place in places.items()}
    for name, place in at.items():
        set_word(fn, name, place, stream)
    for name in ("gate", "pushed"):
        fn.libc("memset", at[name], fn.number(kind("i32"), 0), rooms[name])
    for row, what, count in (("rows", "inputs", facts.inputs), ("out", "outputs", facts.outputs)):
        with fn.loop(0, count) as i:
            fn.store(fn.at(at[row], i * (keys * size), I8), fn.at(at[what], i, I64), 8)
    set_context(fn, fn.at(stream, CONTEXT_AT, I64), stream, 1, at["planes"], at["inputs"], at["outputs"])
    fn.give(stream)


def many(library: Library) -> None:
    """Write `many(stream, inputs, outputs, rows)`: advance by rows > 0; false without memory for planes."""
    facts = library.facts
    size = facts.size
    fn = library.function("many", kind("i1"), stream=PTR, inputs=PTR, outputs=PTR, rows=I64)
    keys, rows, stream = get(fn, "keys"), fn["rows"], fn["stream"]
    near, planes_of = LlvmEngine.near(facts.module.planes), facts.module.planes * LINE
    chunk: Value = fn.like(I64, near)
    if facts.module.crosses:
        chunk = fn.select(get(fn, "blocks") > LlvmEngine.CACHE // (near * planes_of), max(near, LlvmEngine.FAR), chunk)
        fits = fn.put(I64, f"udiv i64 {LlvmEngine.PLANE}, {keys.text}")
        fits = fn.select(fits < 16, 16, fits)
        chunk = fn.select(fits < chunk, fits, chunk)
    chunk = fn.select(rows < chunk, rows, chunk)
    _, room = _planes(fn, facts, get(fn, "blocks"), chunk)
    planes = fn.libc("aligned_alloc", LINE, room)
    with fn.when(planes == fn.null, seldom=True):
        fn.give(0)
    context = fn.variable(kind("i64", 1 << (len(CONTEXT) - 1).bit_length()))
    at = Value(fn, PTR, context.place)
    set_context(fn, at, stream, chunk, planes, fn["inputs"], fn["outputs"])
    ordinal = get(fn, "ordinal")
    with fn.plain_floats():
        fn.own("run", None, at, ordinal, rows)
    fn.libc("free", planes)
    # The last row is what `get` shows next.
    with fn.loop(0, facts.outputs) as i:
        given = fn.load(PTR, fn.at(fn["outputs"], i, I64), 8)
        last = fn.at(given, (rows - 1) * (keys * size), 1)
        fn.libc("memcpy", fn.at(get(fn, "out"), i * (keys * size), 1), last, keys * size)
    fn.libc("memset", get(fn, "pushed"), fn.number(kind("i32"), 0), facts.inputs)
    set_word(fn, "ordinal", ordinal + rows)
    set_word(fn, "ran", 1)
    fn.give(1)

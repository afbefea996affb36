"""Functions of streams: create, push, run, get, many rows at once."""

from __future__ import annotations

import msgspec

from penstock.factor.capi.library import I8, Function, Library
from penstock.factor.capi.memory import CONTEXT_AT, MOST, get, set_word
from penstock.factor.capi.program import is_program
from penstock.native.emit import BOOL, I32, I64, PTR, Value

__all__ = ["is_stream", "stream"]


def is_stream(fn: Function) -> None:
    """Refuse what is no stream of this library."""
    fn.refuse(fn["stream"] == fn.null, "BAD_CALL", "stream is NULL")
    wrong = get(fn, "owner") != fn.place("@program")
    fn.refuse(wrong, "OTHER_PROGRAM", "stream was made by another library, or has been destroyed")


def stream(library: Library) -> None:
    """Write the functions of streams, without those of snapshots."""
    _number(library)
    _create(library)
    _handles(library)
    _ticks(library)
    _rows(library)


def _number(library: Library) -> None:
    """`number(stream)`: symbols 0, 1, 2 …, as a snapshot tells them; false if there is no memory."""
    library.constant("field_lookback", "i64", [str(rows) for rows in library.facts.program.field_lookback])
    labels = msgspec.json.encode({name: [] for name in library.facts.program.labels})
    before, after = b'{"symbols":[', b'],"labels":' + labels + b"}"
    fn = library.function("number", BOOL, stream=PTR)
    keys = get(fn, "keys")
    text = fn.libc("malloc", keys * 9 + (len(before) + len(after) + 64))
    with fn.when(text == fn.null, seldom=True):
        fn.give(0)
    fn.libc("memcpy", text, fn.text(before), len(before))
    end = fn.variable(I64, len(before))
    form = fn.text("%lld,")
    with fn.loop(0, keys) as i:
        wrote = fn.libc("snprintf", fn.at(text, end.get(), 1), 32, form, i)
        end.set(end.get() + fn.cast("sext", wrote, "i64"))
    end.set(end.get() - 1)  # the last comma
    fn.libc("memcpy", fn.at(text, end.get(), 1), fn.text(after), len(after))
    set_word(fn, "universe", text)
    set_word(fn, "universe_size", end.get() + len(after))
    fn.give(1)


def _new(fn: Function, symbols: Value, first: Value) -> Value:
    """A new stream, or an error."""
    facts = fn.library.facts
    wrong = (symbols < 1) | (symbols > MOST)
    fn.refuse(wrong, "BAD_CALL", f"expected 1 to {MOST} symbols, got %lld", symbols)
    fn.refuse(first < 0, "BAD_CALL", "expected first of at least 0, got %lld", first)
    made = fn.own("allocate", PTR, symbols)
    fn.refuse(made == fn.null, "NO_MEMORY", "no memory for a stream of %lld symbols", symbols)
    set_word(fn, "ordinal", first, made)
    set_word(fn, "first", first, made)
    fn.own("empty", None, made)
    with fn.loop(0, symbols) as i:
        fn.store(first, fn.at(get(fn, "born", made), i, I64), 8)
    with fn.loop(0, len(facts.layout.fields)) as i:
        rows = fn.load(I64, fn.at(fn.place("@field_lookback"), i, I64), 8)
        fn.store(first + rows, fn.at(get(fn, "since", made), i, I64), 8)
    return made


def _create(library: Library) -> None:
    fn = library.export("stream_create", I32, program=PTR, symbols=I64, first=I64, stream=PTR)
    is_program(fn)
    fn.refuse(fn["stream"] == fn.null, "BAD_CALL", "stream is NULL; give the place where it is to be put")
    made = _new(fn, fn["symbols"], fn["first"])
    with fn.when(~fn.own("number", BOOL, made), seldom=True):
        fn.libc("free", made)
        fn.fail("NO_MEMORY", "no memory for a stream of %lld symbols", fn["symbols"])
    fn.store(made, fn["stream"], 8)
    fn.give(0)

    fn = library.export("stream_destroy", None, stream=PTR)
    with fn.when(fn["stream"] == fn.null):
        fn.give()
    with fn.when(get(fn, "owner") != fn.place("@program")):
        fn.give()
    set_word(fn, "owner", fn.null)
    fn.libc("free", get(fn, "universe"))
    fn.libc("free", fn["stream"])
    fn.give()

    for name, word in (("symbols", "keys"), ("ordinal", "ordinal")):
        fn = library.export(f"stream_{name}", I64, stream=PTR)
        is_stream(fn)
        fn.give(get(fn, word))


def _handles(library: Library) -> None:
    facts = library.facts
    fn = library.export("stream_handle", I32, stream=PTR, name=PTR)
    is_stream(fn)
    fn.refuse(fn["name"] == fn.null, "BAD_CALL", "name is NULL")
    with fn.loop(0, facts.inputs + facts.outputs) as i:
        here = fn.load(PTR, fn.at(fn.place("@names"), i, I64), 8)
        with fn.when(fn.libc("strcmp", here, fn["name"]) == 0):
            fn.give(fn.cast("trunc", i, "i32"))
    asked = " and ".join(f"{library.prefix}_program_{what}" for what in ("input", "output"))
    hint = f"{asked} tell those of {facts.inputs} inputs and {facts.outputs} outputs"
    fn.fail("UNKNOWN_NAME", f"there is no input or output '%.200s'; {hint}", fn["name"])


def _named(fn: Function, handle: Value) -> Value:
    return fn.load(PTR, fn.at(fn.place("@names"), fn.cast("zext", handle, "i64"), I64), 8)


def _no_handle(fn: Function) -> None:
    both = fn.library.facts.inputs + fn.library.facts.outputs
    wrong = fn.compare("uge", fn["handle"], both)
    fn.refuse(wrong, "BAD_CALL", f"there is no handle %d; they are 0 to {both - 1}", fn["handle"])


def _ticks(library: Library) -> None:
    facts = library.facts

    fn = library.export("stream_push", I32, stream=PTR, handle=I32, values=PTR)
    is_stream(fn)
    handle = fn["handle"]
    _no_handle(fn)
    wrong = fn.compare("uge", handle, facts.inputs)
    with fn.when(wrong, seldom=True):
        fn.fail("BAD_CALL", "'%s' is an output; only inputs are pushed", _named(fn, handle))
    fn.refuse(fn["values"] == fn.null, "BAD_CALL", "values is NULL")
    number, row = fn.cast("zext", handle, "i64"), get(fn, "keys") * facts.size
    fn.libc("memcpy", fn.at(get(fn, "rows"), number * row, 1), fn["values"], row)
    fn.store(fn.number(I8, 1), fn.at(get(fn, "pushed"), number, I8), 1)
    fn.give(0)

    fn = library.export("stream_run", I32, stream=PTR)
    is_stream(fn)
    pushed, ordinal = get(fn, "pushed"), get(fn, "ordinal")
    with fn.loop(0, facts.inputs) as i, fn.when(fn.load(I8, fn.at(pushed, i, I8), 1) == 0, seldom=True):
        name = _named(fn, fn.cast("trunc", i, "i32"))
        fn.fail("NOT_READY", "no row of '%s' for tick %lld; push every input, NaN for what is missing", name, ordinal)
    with fn.plain_floats():
        fn.own("run", None, fn.at(fn["stream"], CONTEXT_AT, I64), ordinal, fn.number(I64, 1))
    fn.libc("memset", pushed, fn.number(I32, 0), facts.inputs)
    set_word(fn, "ordinal", ordinal + 1)
    set_word(fn, "ran", 1)
    fn.give(0)

    fn = library.export("stream_get", PTR, stream=PTR, handle=I32)
    is_stream(fn)
    handle = fn["handle"]
    _no_handle(fn)
    with fn.when(handle < facts.inputs, seldom=True):
        fn.fail("BAD_CALL", "'%s' is an input; only outputs are read", _named(fn, handle))
    fn.refuse(get(fn, "ran") == 0, "NOT_READY", "there is no row yet; push every input and run")
    number = fn.cast("zext", handle - facts.inputs, "i64")
    fn.give(fn.at(get(fn, "out"), number * (get(fn, "keys") * facts.size), 1))


def _can_batch(fn: Function, keys: Value) -> None:
    """Refuse arrays that are not there."""
    facts = fn.library.facts
    rows = fn["rows"]
    most = fn.put(I64, f"udiv i64 {2**62}, {(keys * facts.size).text}")
    fn.refuse((rows < 0) | (rows > most), "BAD_CALL", "expected 0 to %lld rows, got %lld", most, rows)
    for what, count in (("inputs", facts.inputs), ("outputs", facts.outputs)):
        if not count:
            continue
        fn.refuse(fn[what] == fn.null, "BAD_CALL", f"{what} is NULL")
        with fn.loop(0, count) as i:
            missing = fn.load(PTR, fn.at(fn[what], i, I64), 8) == fn.null
            at = i if what == "inputs" else i + facts.inputs
            with fn.when(missing, seldom=True):
                name = fn.load(PTR, fn.at(fn.place("@names"), at, I64), 8)
                fn.fail("BAD_CALL", f"{what}[%lld] is NULL: no array of '%s'", i, name)


def _rows(library: Library) -> None:
    arrays = {"inputs": PTR, "outputs": PTR, "rows": I64}
    names = ("inputs", "outputs", "rows")

    fn = library.export("stream_batch", I32, stream=PTR, **arrays)
    is_stream(fn)
    keys = get(fn, "keys")
    _can_batch(fn, keys)
    with fn.when(fn["rows"] == 0):
        fn.give(0)
    done = fn.own("many", BOOL, fn["stream"], *(fn[name] for name in names))
    fn.refuse(~done, "NO_MEMORY", "no memory for rows of %lld symbols", keys)
    fn.give(0)

    fn = library.export("batch_run", I32, program=PTR, **arrays, symbols=I64, first=I64)
    is_program(fn)
    symbols = fn["symbols"]
    fn.refuse((symbols < 1) | (symbols > MOST), "BAD_CALL", f"expected 1 to {MOST} symbols, got %lld", symbols)
    _can_batch(fn, symbols)
    made = _new(fn, symbols, fn["first"])
    known = fn.variable(BOOL, True)
    with fn.when(fn["rows"] > 0):
        known.set(fn.own("many", BOOL, made, *(fn[name] for name in names)))
    fn.libc("free", made)
    fn.refuse(~known.get(), "NO_MEMORY", "no memory for rows of %lld symbols", symbols)
    fn.give(0)

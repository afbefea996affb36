"""The state as bytes, the same that Python's `live.snapshot()` gives; see `penstock/factor/snapshot.py`."""

from __future__ import annotations

from penstock.factor.capi.library import Function, Library
from penstock.factor.capi.memory import MOST, get, set_word
from penstock.factor.capi.program import is_program
from penstock.factor.capi.stream import is_stream
from penstock.factor.graph import formula
from penstock.factor.snapshot import MAGIC, START, VERSION, SavedField, layout_digest, rows_text
from penstock.native.emit import I32, I64, PTR, Value

__all__ = ["snapshot"]

_AT = {"version": 8, "size": 12, "ordinal": 16, "first": 24, "keys": 32, "fields": 40, "rows": 48}
_AT |= {"rows_text": 56, "universe": 64, "program": 80, "layout": 96}
_DIGEST = 16


def snapshot(library: Library) -> None:
    """Write `stream_snapshot` and `stream_restore`."""
    facts = library.facts
    made = facts.program
    saved = [SavedField(*f.identity, 0, formula(f.node, 80)) for f in made.layout.fields]
    text = rows_text(saved, {name: formula(node, 80) for name, node in made.factors.items()})
    layout = layout_digest(made.dtype.name, (f.identity for f in made.layout.fields))
    # What never changes in this program's snapshots, numbers of 0 in place of those which do.
    start = START.pack(
        *(MAGIC, VERSION, facts.size, 0, 0, 0, len(saved), made.layout.rows, len(text), 0),
        *(bytes.fromhex(made.digest), layout),
    )
    _take(library, start, text)
    _restore(library, start)


def _number(fn: Function, data: Value, name: str) -> Value:
    return fn.load(I64, fn.at(data, _AT[name], 1), 1)


def _since(fn: Function, stream: Value, data: Value, *, out: bool) -> Value:
    """Copy the ordinals at which symbols and fields began; where they end in the snapshot."""
    at = fn.at(data, START.size, 1)
    fields = fn.like(I64, len(fn.library.facts.layout.fields))
    for name, count in (("born", get(fn, "keys", stream)), ("since", fields)):
        mine = get(fn, name, stream)
        fn.libc("memcpy", *((at, mine) if out else (mine, at)), count * 8)
        at = fn.at(at, count * 8, 1)
    return at


def _take(library: Library, start: bytes, text: bytes) -> None:
    facts = library.facts
    layout = facts.layout
    fn = library.export("stream_snapshot", I64, stream=PTR, data=PTR, size=I64)
    is_stream(fn)
    data, stream, keys, names = fn["data"], fn["stream"], get(fn, "keys"), get(fn, "universe_size")
    state = keys * (layout.rows * facts.size)
    body = (keys + len(layout.fields)) * 8 + names + state + (START.size + len(text))
    whole = body + _DIGEST
    with fn.when(data == fn.null):
        fn.refuse(fn["size"] != 0, "BAD_CALL", "data is NULL; with size 0 the bytes that are needed are told")
        fn.give(whole)
    small = fn.compare("ult", fn["size"], whole)
    fn.refuse(small, "BAD_CALL", "expected room for %lld bytes, got %zu", whole, fn["size"])
    fn.libc("memcpy", data, fn.text(start), START.size)
    changing = {"ordinal": get(fn, "ordinal"), "first": get(fn, "first"), "keys": keys, "universe": names}
    for name, value in changing.items():
        fn.store(value, fn.at(data, _AT[name], 1), 1)
    at = _since(fn, stream, data, out=True)
    fn.libc("memcpy", at, fn.text(text), len(text))
    at = fn.at(at, len(text), 1)
    fn.libc("memcpy", at, get(fn, "universe"), names)
    fn.own("save", None, stream, fn.at(at, names, 1))
    fn.own("xxh3", None, data, body, fn.at(data, body, 1))
    fn.give(whole)


def _restore(library: Library, start: bytes) -> None:
    facts = library.facts
    layout = facts.layout
    fn = library.export("stream_restore", I32, program=PTR, data=PTR, size=I64, stream=PTR)
    is_program(fn)
    data, size = fn["data"], fn["size"]
    fn.refuse(data == fn.null, "BAD_CALL", "data is NULL")
    fn.refuse(fn["stream"] == fn.null, "BAD_CALL", "stream is NULL; give the place where it is to be put")
    least = START.size + _DIGEST
    cut = "take a new snapshot, or create a stream without"
    fn.refuse(fn.compare("ult", size, 8), "BAD_SNAPSHOT", f"expected at least {least} bytes, got %zu; {cut}", size)
    wrong = fn.libc("memcmp", data, fn.text(start), len(MAGIC)) != 0
    fn.refuse(wrong, "BAD_SNAPSHOT", f"the bytes are no factor snapshot, which starts with {MAGIC.decode()}")
    fn.refuse(fn.compare("ult", size, least), "BAD_SNAPSHOT", f"expected at least {least} bytes, got %zu; {cut}", size)
    version = fn.load(I32, fn.at(data, _AT["version"], 1), 1)
    other = f"expected snapshot version {VERSION}, got version %u; restore it in Python and take a new one"
    fn.refuse(version != VERSION, "BAD_SNAPSHOT", other, version)
    keys, fields, rows = (_number(fn, data, name) for name in ("keys", "fields", "rows"))
    texts, names = _number(fn, data, "rows_text"), _number(fn, data, "universe")
    value = fn.load(I32, fn.at(data, _AT["size"], 1), 1)
    # Bounded before they are multiplied, so that no sum of them goes round.
    wild = fn.compare("ugt", keys, MOST) | fn.compare("ugt", fields, size) | fn.compare("ugt", value, 8)
    wild = wild | fn.compare("ugt", rows, 2**32) | fn.compare("ugt", texts, size) | fn.compare("ugt", names, size)
    wild = wild | fn.compare("ugt", size, 2**56)
    fn.refuse(wild, "BAD_SNAPSHOT", f"the header does not fit its %zu bytes; {cut}", size)
    state = keys * rows * fn.cast("zext", value, "i64")
    body = (keys + fields) * 8 + texts + names + state + START.size
    fn.refuse(size != body + _DIGEST, "BAD_SNAPSHOT", f"expected %lld bytes, got %zu; {cut}", body + _DIGEST, size)
    digest = Value(fn, PTR, fn.variable(I64.of(2)).place)
    fn.own("xxh3", None, data, body, digest)
    wrong = fn.libc("memcmp", digest, fn.at(data, body, 1), _DIGEST) != 0
    fn.refuse(wrong, "BAD_SNAPSHOT", f"the digest does not match the bytes; {cut}")
    theirs = fn.select(value == 4, fn.text("float32"), fn.text("float64"))
    own = f"this library computes in {facts.program.dtype.name}"
    fn.refuse(value != facts.size, "OTHER_PROGRAM", f"snapshot was made in %s, {own}; build with its dtype", theirs)
    where = fn.at(data, _AT["layout"], 1)
    layouts = layout_digest(facts.program.dtype.name, (f.identity for f in layout.fields))
    wrong = fn.libc("memcmp", where, fn.text(layouts), _DIGEST) != 0
    message = "snapshot was made for layout %016llx%016llx of program %016llx%016llx"
    mine = f"this library has layout {layouts.hex()} of program {facts.program.digest}"
    digests = [_hex(fn, where, 0), _hex(fn, where, 8)]
    digests += [_hex(fn, fn.at(data, _AT["program"], 1), offset) for offset in (0, 8)]
    moved = "restore it in Python, where state moves operator by operator, and take a new one"
    fn.refuse(wrong, "OTHER_PROGRAM", f"{message}, {mine}; {moved}", *digests)
    ordinal, first = _number(fn, data, "ordinal"), _number(fn, data, "first")
    wrong = (fields != len(layout.fields)) | (rows != layout.rows) | (keys < 1) | (ordinal < 0) | (first < 0)
    fn.refuse(wrong, "BAD_SNAPSHOT", f"the header contradicts itself; {cut}")

    made = fn.own("allocate", PTR, keys)
    fn.refuse(made == fn.null, "NO_MEMORY", "no memory for a stream of %lld symbols", keys)
    text = fn.libc("malloc", names + 1)
    with fn.when(text == fn.null, seldom=True):
        fn.libc("free", made)
        fn.fail("NO_MEMORY", "no memory for a stream of %lld symbols", keys)
    for name, number in (("ordinal", ordinal), ("first", first), ("universe", text), ("universe_size", names)):
        set_word(fn, name, number, made)
    at = fn.at(_since(fn, made, data, out=False), texts, 1)
    fn.libc("memcpy", text, at, names)
    with fn.plain_floats():
        fn.own("load", None, made, fn.at(at, names, 1))
    fn.store(made, fn["stream"], 8)
    fn.give(0)


def _hex(fn: Function, place: Value, offset: int) -> Value:
    """Eight bytes of a digest as the number whose hexadecimal form shows them in order."""
    return fn.intrinsic("bswap", fn.load(I64, fn.at(place, offset, 1), 1))

"""The loops of bars as LLVM text. What each computes is said by the NumPy code it stands in for, and tested to the bit.

fold      rows into cells                       `cells.fold`
collect   bars out of pages of cells            `open.OpenBars.close`
scan      are times in order, values usable     `input.Reader`
number    numbers of dictionary codes, integers `symbols.Symbols`
find, add strings in a hash table, by bytes     `symbols.Symbols`
seek      places in the table of open bars      `open.Table`

No float is regrouped or contracted. Every address computed from a value that was read is checked before.
"""

from __future__ import annotations

from typing import Any

from penstock.native.emit import BOOL, I32, I64, PTR, Code, Value, Variable, kind, module
from penstock.window.bars.cells import EMPTY_WORDS, PLACE, WORDS

__all__ = ["LANES", "collect", "fold", "number", "scan", "seek", "strings", "text"]

Functions = list[tuple[Code, str]]
LANES = 8
_DOUBLE = kind("double")
_INFINITY = float("inf")
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)  # multiplicative hashing: Knuth, The Art of Computer Programming 3, 6.4


def text(*wanted: tuple[Any, ...]) -> str:
    """A module of all functions of these: each the name of a function here, and its arguments."""
    return module(*(made for name, *facts in wanted for made in globals()[name](*facts)))


def _parameter(code: Code, name: str) -> Value:
    return Value(code, PTR if name.islower() else I64, f"%{name}")


def _signature(names: str) -> str:
    """Parameters: addresses in lower case, numbers with a capital."""
    return ", ".join(f"{'ptr' if name.islower() else 'i64'} %{name}" for name in names.split())


def fold(one: bool, volume: str, amount: bool, trades: bool) -> Functions:
    """The loop of `cells.fold`, for any order of rows.

    Call    fold(cells, Runs, stops, bases, at, time, open, high, low, close, volume, amount, trades).
    Takes   one: all prices of a row are the same column; volume: "int64", "float64", "" for none; amount: whether
            there is a column of amounts (price x volume where not); trades: whether there is one of counts.
    Run r are the rows up to stops[r]; the cell of row i in it is bases[r] + at[i].
    """
    code = Code()
    names = "cells Runs stops bases at time open high low close volume amount trades"
    given = {name: _parameter(code, name) for name in names.split()}
    begin = code.variable(I64, 0)
    with code.loop(0, given["Runs"]) as run:
        stop = code.load(I64, code.at(given["stops"], run, I64))
        base = code.at(given["cells"], code.load(I64, code.at(given["bases"], run, I64)), 8 * WORDS)
        with code.loop(begin.get(), stop) as row:
            cell = code.at(base, code.load(I64, code.at(given["at"], row, I64)), 8 * WORDS)
            place = {name: code.at(cell, number, I64) for name, number in PLACE.items()}

            def column(name: str, of: str = "double", row: Value = row) -> Value:
                return code.load(kind(of), code.at(given[name], row, kind(of)))

            time = column("time", "i64")
            close = column("close")
            opens, high, low = (close,) * 3 if one else (column(name) for name in ("open", "high", "low"))
            with code.when(time < code.load(I64, place["first"]), seldom=True):
                code.store(time, place["first"])
                code.store(opens, place["open"])
            with code.when(time >= code.load(I64, place["last"])):
                code.store(time, place["last"])
                code.store(close, place["close"])
            for name, price, better in (("high", high, "ogt"), ("low", low, "olt")):
                # Of equal ones (0.0 and -0.0 are) the later stays, as in NumPy on x86; so does NaN.
                held = code.load(_DOUBLE, place[name])
                code.store(code.select(code.compare(better, held, price), held, price), place[name])
                with code.when(code.compare("uno", held, held), seldom=True):
                    code.store(held, place[name])
            if volume:
                base_kind = I64 if volume == "int64" else _DOUBLE
                size = column("volume", base_kind.base)
                code.store(code.load(base_kind, place["volume"]) + size, place["volume"])
                number = code.cast("sitofp", size, "double") if base_kind is I64 else size
                more = column("amount") if amount else close * number
                code.store(code.load(_DOUBLE, place["amount"]) + more, place["amount"])
            count = column("trades", "i64") if trades else code.number(I64, 1)
            code.store(code.load(I64, place["trades"]) + count, place["trades"])
        begin.set(stop)
    return [(code, code.function("void", "fold", _signature(names)))]


def collect() -> Functions:
    """Two loops over the cells of pages: to count those in use, and to move them out.

    Call    count(cells, Pages, pages, Width); page k begins at cell pages[k]. take(…, Count, which, symbol, columns)
            gives page and symbol of each, its words as columns of Count, and leaves the cell empty.
    """
    counting, taking = Code(), Code()
    names = "cells Pages pages Width"
    done = []
    for code, name, more in ((counting, "count", ""), (taking, "take", " Count which symbol columns")):
        given = {parameter: _parameter(code, parameter) for parameter in (names + more).split()}
        found = code.variable(I64, 0)
        with code.loop(0, given["Pages"]) as page:
            base = code.at(given["cells"], code.load(I64, code.at(given["pages"], page, I64)), 8 * WORDS)
            with code.loop(0, given["Width"]) as symbol:
                cell = code.at(base, symbol, 8 * WORDS)
                used = code.load(I64, code.at(cell, PLACE["trades"], I64)) != 0
                if more:
                    with code.when(used):
                        to = found.get()
                        code.store(page, code.at(given["which"], to, I64))
                        code.store(symbol, code.at(given["symbol"], to, I64))
                        for number, empty in enumerate(EMPTY_WORDS.tolist()):
                            word = code.at(cell, number, I64)
                            column = code.at(given["columns"], given["Count"] * number, I64)
                            code.store(code.load(I64, word), code.at(column, to, I64))
                            code.store(code.number(I64, empty), word)
                        found.set(to + 1)
                else:
                    found.set(found.get() + code.cast("zext", used, "i64"))
        done.append((code, code.function("i64", name, _signature(names + more), f"i64 {found.get().text}")))
    return done


def scan(size: str) -> Functions:
    """In one pass what NumPy needs six for.

    Call    scan(Count, time, price, size, most) -> the sum of 1: times decrease, 2: a price is not finite, 4: a size
            is negative or not finite. most[0] is then the greatest size, if integer, at least 0.
    Takes   size: "int64", "float64", "" for none.
    """
    code = Code()
    names = "Count time price size most"
    count, times, prices, sizes, most = (_parameter(code, name) for name in names.split())
    flags = {lanes: [code.variable(BOOL.of(lanes), False) for _ in range(3)] for lanes in (LANES, 0)}
    greatest = {lanes: code.variable(I64.of(lanes), 0) for lanes in (LANES, 0)}

    def mark(lanes: int, flag: int, bad: Value) -> None:
        held = flags[lanes][flag]
        held.set(held.get() | bad)

    def infinite(x: Value) -> Value:
        return code.compare("uge", code.intrinsic("fabs", x), _INFINITY)

    def order(row: Value, lanes: int) -> None:
        here = code.at(times, row, I64)
        mark(lanes, 0, code.load(I64.of(lanes), here, 8) > code.load(I64.of(lanes), code.at(here, 1, I64), 8))

    def values(row: Value, lanes: int) -> None:
        mark(lanes, 1, infinite(code.load(_DOUBLE.of(lanes), code.at(prices, row, I64), 8)))
        if size == "int64":
            whole = code.load(I64.of(lanes), code.at(sizes, row, I64), 8)
            mark(lanes, 2, whole < 0)
            held = greatest[lanes].get()
            greatest[lanes].set(code.select(held < whole, whole, held))
        elif size:
            real = code.load(_DOUBLE.of(lanes), code.at(sizes, row, I64), 8)
            mark(lanes, 2, infinite(real) | (real < 0.0))

    code.sweep(code.select(count > 0, count - 1, 0), LANES, order)
    code.sweep(count, LANES, values)
    found = code.number(I64, 0)
    for flag in range(3):
        bits = code.put(kind(f"i{LANES}"), f"bitcast <{LANES} x i1> {flags[LANES][flag].get().text} to i{LANES}")
        found = found | code.select(code.compare("une", bits, 0) | flags[0][flag].get(), code.number(I64, 1 << flag), 0)
    wide, single = code.reduce("smax", greatest[LANES].get()), greatest[0].get()
    code.store(code.select(wide < single, single, wide), most)
    return [(code, code.function("i64", "scan", _signature(names), f"i64 {found.text}"))]


def number(of: str, signed: bool) -> Functions:
    """A look into a table for each row, and at what was found there.

    Call    number(Count, codes, Base, table, Size, out) makes out[i] = table[codes[i] - Base], -1 outside the table;
            below 0 if any of them is.
    Takes   of: the integer type of the codes.
    """
    code = Code()
    names = "Count codes Base table Size out"
    count, codes, base, table, size, out = (_parameter(code, name) for name in names.split())
    found = code.variable(I64, 0)
    with code.loop(0, count) as row:
        value = code.load(kind(of), code.at(codes, row, kind(of)))
        place = (value if of == "i64" else code.cast("sext" if signed else "zext", value, "i64")) - base
        inside = code.compare("ult", place, size)
        given = code.select(inside, code.load(I64, code.at(table, code.select(inside, place, 0), I64)), -1)
        code.store(given, code.at(out, row, I64))
        found.set(found.get() | given)
    return [(code, code.function("i64", "number", _signature(names), f"i64 {found.get().text}"))]


def seek() -> Functions:
    """The loop of `open.Table._seek`.

    Call    seek(Count, keys, table, Bits, out); the table has room.
    """
    code = Code()
    names = "Count keys table Bits out"
    count, keys, table, bits, out = (_parameter(code, name) for name in names.split())
    shift = 64 - bits
    mask = (code.number(I64, 1) << bits) - 1
    with code.loop(0, count) as row:
        key = code.load(I64, code.at(keys, row, I64))
        at = code.variable(I64, (key * _GOLDEN) >> shift)
        with code.while_() as done:
            place = code.at(table, at.get(), I64)
            there = code.load(I64, place)
            free = there == -1
            code.store(code.select(free, key, there), place)
            code.leave(done, free | (there == key))
            at.set((at.get() + 1) & mask)
        code.store(at.get(), code.at(out, row, I64))
    return [(code, code.function("void", "seek", _signature(names)))]


def strings(of: str) -> Functions:
    """Two loops over strings: to find them in a hash table, and to enter them.

    Call    find(Count, offsets, data, End, table, Bits, ours, text, out) gives numbers, -1 for strings that are not
            there; below 0 if any is -1. add(…, First) enters the strings as First, First + 1, …; there is room.
    Takes   of: integer type of the offsets. The strings are as Arrow keeps them, data of End bytes; ours, text:
            offsets (i32) and bytes of the strings in the table, by number.
    A place of the table: a word, then (bytes << 32 | number), -1 where free. The word of up to 8 bytes is the string
    itself, of more its hash.
    """
    common = "Count offsets data End table Bits ours text out"
    find, add = Code(), Code()
    done = []
    for code, name, names in ((find, "find", common), (add, "add", f"{common} First")):
        given = {parameter: _parameter(code, parameter) for parameter in names.split()}
        missing = code.variable(I64, 0)
        with code.loop(0, given["Count"]) as row:
            start, stop = (code.load(kind(of), code.at(given["offsets"], i, kind(of))) for i in (row, row + 1))
            if of != "i64":
                start, stop = code.cast("sext", start, "i64"), code.cast("sext", stop, "i64")
            length = stop - start
            here = code.at(given["data"], start, 1)
            word = _word(code, here, length, start + 8 <= given["End"])
            at = _place(code, word, length, given["Bits"])
            if name == "find":
                number = _found(code, given, at, word, here, length)
                code.store(number, code.at(given["out"], row, I64))
                missing.set(missing.get() | number)
            else:
                with code.while_() as free:
                    place = code.at(given["table"], at.get(), 16)
                    code.leave(free, code.load(I64, code.at(place, 1, I64)) == -1)
                    at.set(_next(code, at.get(), given["Bits"]))
                place = code.at(given["table"], at.get(), 16)
                code.store(word, place)
                code.store(length << 32 | given["First"] + row, code.at(place, 1, I64))
        done.append((code, code.function("i64", name, _signature(names), f"i64 {missing.get().text}")))
    return done


def _word(code: Code, here: Value, length: Value, near: Value) -> Value:
    """Up to 8 bytes as they are, zeros behind; the hash of more. near: whether 8 bytes can be read."""
    word = code.variable(I64, 0)
    with code.when(near):
        word.set(code.load(I64, here, 1))
    with code.when(~near, seldom=True), code.loop(0, code.select(length < 8, length, 8)) as byte:
        one = code.cast("zext", code.load(kind("i8"), code.at(here, byte, 1)), "i64")
        word.set(word.get() | one << (byte << 3))
    short = length < 8
    mask = code.select(short, (code.number(I64, 1) << code.select(short, length << 3, 0)) - 1, -1)
    word.set(word.get() & mask)
    with code.when(length > 8):
        mixed = code.variable(I64, word.get() * _GOLDEN)
        with code.loop(8, length, 8) as byte:
            # The last eight may overlap those before.
            back = length - 8
            more = code.load(I64, code.at(here, code.select(byte < back, byte, back), 1), 1)
            both = mixed.get() ^ more
            mixed.set((both ^ both >> 32) * _GOLDEN)
        word.set(mixed.get())
    return word.get()


def _place(code: Code, word: Value, length: Value, bits: Value) -> Variable:
    """Where the search of a string begins."""
    mixed = (word ^ word >> 32 ^ length << 56) * _GOLDEN
    return code.variable(I64, ((mixed ^ mixed >> 32) * _GOLDEN) >> (64 - bits))


def _next(code: Code, at: Value, bits: Value) -> Value:
    return (at + 1) & ((code.number(I64, 1) << bits) - 1)


def _found(code: Code, given: dict[str, Value], at: Variable, word: Value, here: Value, length: Value) -> Value:
    """The number of a string, -1 when it is not in the table."""
    number = code.variable(I64, -1)
    with code.while_() as done:
        place = code.at(given["table"], at.get(), 16)
        tag = code.load(I64, code.at(place, 1, I64))
        code.leave(done, tag == -1)
        with code.when((code.load(I64, place) == word) & (tag >> 32 == length)):
            number.set(tag & 0xFFFFFFFF)
            with code.when(length > 8):
                begin = code.cast("sext", code.load(I32, code.at(given["ours"], number.get(), I32)), "i64")
                begin = code.at(given["text"], begin, 1)
                with code.loop(0, length, 8) as byte:
                    back = length - 8
                    at_most = code.select(byte < back, byte, back)
                    ours, theirs = (code.load(I64, code.at(text, at_most, 1), 1) for text in (begin, here))
                    number.set(code.select(ours == theirs, number.get(), -1))
        code.leave(done, number.get() >= 0)
        at.set(_next(code, at.get(), given["Bits"]))
    return number.get()

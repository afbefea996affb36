"""Functions of the program, and of errors."""

from __future__ import annotations

from penstock.factor.capi.cpu import Target, refuse_others
from penstock.factor.capi.library import ABI, MESSAGE, STATUS, Function, Library
from penstock.factor.snapshot import layout_digest
from penstock.native.emit import I32, I64, PTR, Kind

__all__ = ["errors", "is_program", "program"]


def errors(library: Library) -> None:
    """Write `last_message`, `error_text` and `status_text`."""
    library.globals.append(f"@message = internal thread_local global [{MESSAGE} x i8] zeroinitializer")
    fn = library.function("last_message", PTR)
    fn.give(fn.call(PTR, "llvm.threadlocal.address.p0", fn.place("@message")))

    fn = library.export("error_text", PTR)
    fn.give(fn.own("last_message", PTR))

    fn = library.export("status_text", PTR, status=I32)
    for name, (code, _) in STATUS.items():
        with fn.when(fn["status"] == code):
            fn.give(fn.text(f"{library.prefix.upper()}_{name}"))
    fn.give(fn.text("a code that this library does not give"))

    fn = library.export("abi_version", I32)
    fn.give(ABI)


def is_program(fn: Function) -> None:
    """Refuse what `program_open` did not give."""
    program, opened = fn["program"], f"{fn.library.prefix}_program_open"
    fn.refuse(program == fn.null, "BAD_CALL", f"program is NULL; give the one of {opened}")
    fn.refuse(program != fn.place("@program"), "OTHER_PROGRAM", "program was opened by another library")


def program(library: Library, target: Target) -> None:
    """Write the functions of the program."""
    facts = library.facts
    made = facts.program
    kind = made.dtype.name
    layout = layout_digest(kind, (field.identity for field in made.layout.fields)).hex()

    fn = library.export("program_open", I32, abi=I32, program=PTR)
    fn.refuse(fn["program"] == fn.null, "BAD_CALL", "program is NULL; give the place where it is to be put")
    wanted = "the caller was compiled for version %u of the functions, this library has"
    hint = f"{wanted} {ABI}; compile with the header that came with it"
    fn.refuse(fn["abi"] != ABI, "OTHER_ABI", hint, fn["abi"])
    refuse_others(fn, target)
    fn.store(fn.place("@program"), fn["program"], 8)
    fn.give(0)

    fn = library.export("program_close", None, program=PTR)
    fn.give()

    for name, text in (("dtype", kind), ("digest", made.digest), ("layout", layout)):
        fn = library.export(f"program_{name}", PTR, program=PTR)
        is_program(fn)
        fn.give(fn.text(text))

    warm = library.constant("lookbacks", "i64", [str(made.lookback[name]) for name in made.outputs])
    numbers: tuple[tuple[str, Kind, int], ...] = (
        ("itemsize", I32, facts.size),
        ("inputs", I32, facts.inputs),
        ("outputs", I32, facts.outputs),
        ("warmup", I64, made.warmup),
    )
    for name, result, number in numbers:
        fn = library.export(f"program_{name}", result, program=PTR)
        is_program(fn)
        fn.give(number)
    table = library.constant("names", "ptr", [library.text(name) for name in (*made.inputs, *made.outputs)])
    for what, count, first in (("input", facts.inputs, 0), ("output", facts.outputs, facts.inputs)):
        fn = library.export(f"program_{what}", PTR, program=PTR, number=I32)
        is_program(fn)
        _in_range(fn, what, count)
        fn.give(fn.load(PTR, fn.at(fn.place(table), fn.cast("zext", fn["number"], "i64") + first, I64), 8))
    fn = library.export("program_lookback", I64, program=PTR, number=I32)
    is_program(fn)
    _in_range(fn, "output", len(made.outputs))
    fn.give(fn.load(I64, fn.at(fn.place(warm), fn.cast("zext", fn["number"], "i64"), I64), 8))


def _in_range(fn: Function, what: str, count: int) -> None:
    wrong = fn.compare("uge", fn["number"], count)
    fn.refuse(wrong, "BAD_CALL", f"there is no {what} %d; their numbers are 0 to {count - 1}", fn["number"])

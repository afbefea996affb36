"""What the runtime is written with: functions that can refuse a call, constants, and the facts of the program."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

from penstock.factor.layout import Layout
from penstock.factor.llvm.module import Module
from penstock.factor.program import Program
from penstock.native.emit import I32, I64, PTR, Code, Kind, Value, kind

__all__ = ["ABI", "I8", "MESSAGE", "STATUS", "Facts", "Function", "Library"]

ABI = 1
"""Version of the functions and their arguments."""

MESSAGE = 512
"""Bytes of an error message, the closing 0 included."""

STATUS = {
    "OK": (0, "all is well"),
    "BAD_CALL": (-1, "an argument that cannot be meant: NULL, out of range, an output where an input belongs"),
    "UNKNOWN_NAME": (-2, "no input or output of that name"),
    "NOT_READY": (-3, "an input was not pushed, or nothing has been run yet"),
    "BAD_SNAPSHOT": (-4, "bytes that are no snapshot, cut or changed"),
    "OTHER_PROGRAM": (-5, "a snapshot of other state, or an object of another library"),
    "NO_MEMORY": (-6, "the system gives no more memory"),
    "OTHER_ABI": (-7, "the caller was compiled with the header of another version"),
    "OTHER_CPU": (-8, "the library was built for a processor that this one is not"),
}
"""Codes of the errors, by name, and what each is for."""

I8 = kind("i8")

_MXCSR = 0x1F80
"""The control word with which a process begins: all exceptions masked, to nearest, nothing flushed."""

Argument: TypeAlias = "Value | int"

_LIBC = {
    "aligned_alloc": ("ptr", "i64, i64"),
    "free": ("void", "ptr"),
    "malloc": ("ptr", "i64"),
    "memcmp": ("i32", "ptr, ptr, i64"),
    "memcpy": ("ptr", "ptr, ptr, i64"),
    "memset": ("ptr", "ptr, i32, i64"),
    "snprintf": ("i32", "ptr, i64, ptr, ..."),
    "strcmp": ("i32", "ptr, ptr"),
}


@dataclass(frozen=True, slots=True)
class Facts:
    """The program a library is for, and the text of its code."""

    program: Program
    module: Module

    @property
    def size(self) -> int:
        """Bytes of a value."""
        return self.program.dtype.itemsize

    @property
    def layout(self) -> Layout:
        return self.program.layout

    @property
    def inputs(self) -> int:
        return len(self.program.inputs)

    @property
    def outputs(self) -> int:
        return len(self.program.outputs)


@dataclass
class Library:
    """The runtime's text while it is written."""

    facts: Facts
    prefix: str = "ps"
    attributes: str = ""
    x86: bool = False
    public: list[str] = field(default_factory=list)
    globals: list[str] = field(default_factory=list)
    functions: list[Function] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    _texts: dict[bytes, str] = field(default_factory=dict)

    def constant(self, name: str, of: str, values: list[str]) -> str:
        """A table of the library; its name."""
        inside = ", ".join(f"{of} {value}" for value in values or ["zeroinitializer"])
        self.globals.append(f"@{name} = internal constant [{max(1, len(values))} x {of}] [{inside}], align 64")
        return f"@{name}"

    def text(self, text: str | bytes) -> str:
        """A constant text, closed by 0; its name. One text is kept once."""
        raw = text.encode() if isinstance(text, str) else text
        if raw not in self._texts:
            name = self._texts[raw] = f"@text_{len(self._texts)}"
            inside = "".join(chr(b) if 32 <= b < 127 and b not in b'"\\' else f"\\{b:02X}" for b in raw + b"\0")
            self.globals.append(f'{name} = internal unnamed_addr constant [{len(raw) + 1} x i8] c"{inside}"')
        return self._texts[raw]

    def function(self, name: str, result: Kind | None, /, **parameters: Kind) -> Function:
        """A function of this library only."""
        made = Function(self, name, result, parameters)
        self.functions.append(made)
        return made

    def export(self, name: str, result: Kind | None, /, **parameters: Kind) -> Function:
        """A function for callers, under the library's prefix."""
        self.public.append(f"{self.prefix}_{name}")
        made = Function(self, f"{self.prefix}_{name}", result, parameters, public=True)
        self.functions.append(made)
        return made

    def render(self) -> str:
        """The module."""
        texts = [made.render() for made in self.functions]
        declared = {f"declare {_LIBC[name][0]} @{name}({_LIBC[name][1]})" for name in self.used}
        declared |= {need for made in self.functions for need in made.needs}
        tail = f'attributes #0 = {{ nounwind "no-builtins" {self.attributes} }}\n'
        tail += '!0 = !{!"branch_weights", i32 1, i32 30}\n'
        return "\n".join([*sorted(declared), *self.globals, *texts, tail])


class Function(Code):
    """A function while it is written: its parameters by name, results in the middle, errors."""

    def __init__(
        self, library: Library, name: str, result: Kind | None, parameters: dict[str, Kind], *, public: bool = False
    ) -> None:
        super().__init__()
        self.library = library
        self.name_ = name
        self.result = result
        self.parameters = parameters
        self.public = public

    def __getitem__(self, name: str) -> Value:
        return Value(self, self.parameters[name], f"%{name}")

    @property
    def null(self) -> Value:
        return Value(self, PTR, "null")

    def place(self, name: str) -> Value:
        """The address of a table or function of the library."""
        return Value(self, PTR, name)

    def text(self, text: str | bytes) -> Value:
        return self.place(self.library.text(text))

    def give(self, value: Argument | None = None) -> None:
        """Return from here."""
        if self.result is None:
            self.do("ret void")
        else:
            made = self.like(self.result, 0 if value is None else value)
            self.do(f"ret {self.result.text} {made.text}")

    def libc(self, name: str, *args: Argument) -> Value:
        """A call of the C library."""
        self.library.used.add(name)
        result, parameters = _LIBC[name]
        kinds = [kind(text) if text != "..." else None for text in parameters.split(", ")]
        given = []
        for i, value in enumerate(args):
            of = kinds[i] if i < len(kinds) else None
            made = value if isinstance(value, Value) and of is None else self.like(of or I64, value)
            given.append(f"{made.kind.text} {made.text}")
        how = f"{result} ({parameters})" if "..." in parameters else result
        call = f"call {how} @{name}({', '.join(given)})"
        if result == "void":
            self.do(call)
            return self.null
        return self.put(kind(result), call)

    def own(self, name: str, result: Kind | None, *args: Value) -> Value:
        """A call of a function of the library, or of the program's code."""
        if result is not None:
            return self.call(result, name, *args)
        self.do(f"call void @{name}({', '.join(f'{a.kind.text} {a.text}' for a in args)})")
        return self.null

    def fail(self, status: str, message: str, *args: Argument) -> None:
        """Leave with an error: its code (or NULL), and its message in `printf`'s form for this thread to ask for."""
        code = STATUS[status][0]
        last = self.own("last_message", PTR)
        self.libc("snprintf", last, MESSAGE, self.text(f"{self.name_}: {message}"), *args)
        self.give(self.null if self.result is PTR else code)

    def refuse(self, when: Value, status: str, message: str, *args: Argument) -> None:
        """`fail` if a condition holds."""
        with self.when(when, seldom=True):
            self.fail(status, message, *args)

    def up(self, value: Value, to: int) -> Value:
        """The next multiple of `to`, a power of two."""
        return (value + (to - 1)) & -to

    @contextmanager
    def plain_floats(self) -> Iterator[None]:
        """Denormals kept, rounded to nearest, whatever the caller's thread has set: `-ffast-math` sets otherwise."""
        if not self.library.x86:
            yield
            return
        self.needs |= {f"declare void @llvm.x86.sse.{what}mxcsr(ptr)" for what in ("st", "ld")}
        before = self.variable(I32)
        plain = self.variable(I32)
        self.do(f"call void @llvm.x86.sse.stmxcsr(ptr {before.place})")
        plain.set(_MXCSR)
        self.do(f"call void @llvm.x86.sse.ldmxcsr(ptr {plain.place})")
        yield
        self.do(f"call void @llvm.x86.sse.ldmxcsr(ptr {before.place})")

    def render(self) -> str:
        """The function's text."""
        result = self.result.text if self.result is not None else "void"
        given = ", ".join(f"{of.text} %{name}" for name, of in self.parameters.items())
        how = "" if self.public else "internal "
        last = "  ret void" if self.result is None else "  unreachable"
        lines = [*self.sections["alloca"], *self.sections["entry"], *self.lines]
        return "\n".join([f"define {how}{result} @{self.name_}({given}) #0 {{", "start:", *lines, last, "}"])

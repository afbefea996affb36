"""All of the runtime, as the text of one module beside the program's own."""

from __future__ import annotations

from penstock.factor.capi.cpu import PLAIN, Target, floors
from penstock.factor.capi.library import Facts, Library
from penstock.factor.capi.memory import allocate, many
from penstock.factor.capi.program import errors, program
from penstock.factor.capi.snapshot import snapshot
from penstock.factor.capi.state import DECLARED, state
from penstock.factor.capi.stream import stream
from penstock.factor.capi.xxh3 import xxh3

__all__ = ["write"]


def write(facts: Facts, target: Target, prefix: str = "ps") -> tuple[str, list[str]]:
    """The runtime of a library, and the names of the functions that callers use."""
    library = Library(facts, prefix, PLAIN if target.x86 else "", target.x86)
    errors(library)
    program(library, target)
    allocate(library)
    many(library)
    stream(library)
    state(library)
    xxh3(library)
    snapshot(library)
    # The program's own module has the loop.
    loop = "declare void @run(ptr, i64, i64)"
    return "\n".join([library.render(), loop, *DECLARED, floors(target)]), library.public

"""The state as a value: rows in the layout's order, one value per symbol, every NaN the same; and back.

The program's own code knows where its state lies (`llvm/memory.py`); here it is called for a stream.
"""

from __future__ import annotations

from penstock.factor.capi.library import Function, Library
from penstock.factor.capi.memory import CONTEXT_AT, get
from penstock.native.emit import I64, PTR

__all__ = ["DECLARED", "state"]

DECLARED = (
    "declare void @state_start(ptr, i64)",
    "declare void @state_load(ptr, ptr, i64)",
    "declare void @state_save(ptr, ptr, i64)",
)
"""Functions of the program's module."""


def state(library: Library) -> None:
    """Write `empty(stream)`, `save(stream, to)` and `load(stream, from)`."""
    fn = library.function("empty", None, stream=PTR)
    _call(fn, "state_start")
    fn = library.function("save", None, stream=PTR, planes=PTR)
    _call(fn, "state_save")
    fn = library.function("load", None, stream=PTR, planes=PTR)
    _call(fn, "state_load")


def _call(fn: Function, name: str) -> None:
    planes = [fn["planes"]] if "planes" in fn.parameters else []
    fn.own(name, None, fn.at(fn["stream"], CONTEXT_AT, I64), *planes, get(fn, "ordinal"))
    fn.give()

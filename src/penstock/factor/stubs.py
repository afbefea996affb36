"""The stub file of this package, written from the table: `python -m penstock.factor.stubs` renews `__init__.pyi`.

Operators are found by `__getattr__`, which no editor follows; the stub gives it their signatures and sentences.
"""

from __future__ import annotations

from pathlib import Path

from penstock.factor import ops as _ops
from penstock.factor.table import ALIASES, TABLE, Operator

__all__ = ["render"]

assert _ops  # fills the table

_HEAD = """\
# Written by `python -m penstock.factor.stubs` from the operator table; a test compares them.

from typing import TypeAlias

from penstock.factor import evaluate as evaluate
from penstock.factor.executor import Executor as Executor
from penstock.factor.export import build as build
from penstock.factor.factors import Factors as Factors
from penstock.factor.feed import FactorWindow as FactorWindow
from penstock.factor.feed import Feed as Feed
from penstock.factor.graph import Node as Node
from penstock.factor.graph import constant as constant
from penstock.factor.graph import field as field
from penstock.factor.graph import fields as fields
from penstock.factor.libraries import library as library
from penstock.factor.live import Live as Live
from penstock.factor.ops.windowed import window_state as window_state
from penstock.factor.program import Program as Program
from penstock.factor.program import compile as compile
from penstock.factor.table import Cell as Cell
from penstock.factor.table import Flag as Flag
from penstock.factor.table import Monoid as Monoid
from penstock.factor.table import Number as Number
from penstock.factor.table import Operator as Operator
from penstock.factor.table import Ring as Ring
from penstock.factor.table import Rows as Rows
from penstock.factor.table import Series as Series
from penstock.factor.table import Share as Share
from penstock.factor.table import composite as composite
from penstock.factor.table import cross as cross
from penstock.factor.table import cross_numpy as cross_numpy
from penstock.factor.table import elementwise as elementwise
from penstock.factor.table import windowed as windowed
from penstock.factor.text import parse as parse

_Operand: TypeAlias = Node | float

def operators() -> dict[str, Operator]: ...
"""
_WORDS = {"Series": "_Operand", "Rows": "int", "Share": "float", "Number": "float", "Flag": "bool"}


def render() -> str:
    """The text of `__init__.pyi`."""
    return _HEAD + "".join(_function(TABLE[name]) for name in sorted(TABLE)) + _aliases()


def _function(operator: Operator) -> str:
    parts = []
    for p in operator.operands + operator.attributes:
        default = "" if p.required else f" = {p.default!r}"
        parts.append(f"{p.name}: {_WORDS[p.kind]}{default}")
    summary = operator.doc.partition("\n")[0]
    return f'def {operator.name}({", ".join(parts)}) -> Node:\n    """{summary}"""\n\n'


def _aliases() -> str:
    return "".join(f"{alias} = {name}\n" for alias, name in sorted(ALIASES.items()))


if __name__ == "__main__":
    Path(__file__).with_name("__init__.pyi").write_text(render(), "utf-8")

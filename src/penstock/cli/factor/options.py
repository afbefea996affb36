"""What most `penstock factor` commands are told: which factors, of which dtype, by which engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from penstock.cli.tree import debug_option, json_option

if TYPE_CHECKING:
    from pathlib import Path

    from penstock.factor import Program

__all__ = ["compiled", "factor_options", "native_of", "program_options"]

F = TypeVar("F", bound=Callable[..., Any])

DTYPES = ("float64", "float32")
ENGINES = ("llvm", "numpy")


def factor_options(function: F) -> F:
    """FACTORS, -e, --json, --debug."""
    text = 'An expression, also "name = expression".  [may be given again]'
    function = json_option(debug_option(function))
    function = click.option("-e", "--expression", "expressions", metavar="TEXT", multiple=True, help=text)(function)
    return click.argument("factors", nargs=-1, shell_complete=_libraries)(function)


def program_options(function: F) -> F:
    """--dtype, --engine."""
    text = "What computes.  [default: llvm where llvmlite is installed]"
    function = click.option("--engine", type=click.Choice(ENGINES), help=text)(function)
    option = click.option(
        "--dtype", type=click.Choice(DTYPES), default="float64", show_default=True, help="Of all values."
    )
    return option(function)


def compiled(
    factors: tuple[str, ...], expressions: tuple[str, ...], dtype: str, engine: str | None, *, checked: bool = False
) -> Program:
    """The program of what was given.   Cost  about a second for a hundred factors, once."""
    from penstock.cli.factor.given import factors_of
    from penstock.cli.progress import progress
    from penstock.errors import UsageError
    from penstock.factor import compile as compile_

    if engine == "llvm":
        from importlib.util import find_spec

        if not find_spec("llvmlite"):
            raise UsageError("the engine llvm needs llvmlite", hint="pip install llvmlite, or --engine numpy")
    found = factors_of(factors, expressions)
    with progress(f"compiling {len(found)} factors"):
        return compile_(found, dtype=dtype, engine=engine, checked=checked)


def native_of(program: Program) -> tuple[int, Path | None, bool] | None:
    """Of compiled code its bytes, the file it is kept in, and whether it was there; None of the NumPy engine."""
    native = getattr(program.new_engine, "native", None)
    return None if native is None else (native.size, native.file, native.cached)


def _libraries(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Libraries and their factors, for a shell that completes one."""
    from penstock.errors import PenstockError
    from penstock.factor import library
    from penstock.factor.libraries import LIBRARIES

    name, colon, chosen = incomplete.partition(":")
    if not colon:
        return [one for one in LIBRARIES if one.startswith(name)]
    before, comma, last = chosen.rpartition(",")
    try:
        return [f"{name}:{before}{comma}{one}" for one in library(name) if one.startswith(last)]
    except PenstockError:
        return []

"""`penstock factor list` and `explain`: what there is, how it is computed, and what one value came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import click

from penstock.cli import out
from penstock.cli.factor.data import Rows, data_options, load
from penstock.cli.factor.options import compiled, factor_options, program_options
from penstock.cli.outcome import say
from penstock.errors import FactorError, UsageError

if TYPE_CHECKING:
    from penstock.factor import Factors, Program

__all__ = ["explain", "factor_facts", "library_facts", "list_", "operator_facts", "passes_facts"]


@click.command("list", short_help="List libraries, factors, operators.")
@click.option("--operators", is_flag=True, help="Operators instead; FACTORS are then shell patterns of their names.")
@factor_options
def list_(factors: tuple[str, ...], expressions: tuple[str, ...], operators: bool, as_json: bool) -> None:
    """List the libraries; or the factors of FACTORS with formula, inputs and lookback; or the operators.

    FACTORS are libraries (alpha101, alpha158, alpha360, ta), a choice of one (alpha101:alpha001,alpha00*), files
    (mine.py, mine.py:name, mine.factors, mine.toml), or expressions.
    """
    if operators:
        if expressions:
            raise UsageError("--operators lists operators, not expressions", hint="leave -e out")
        _show(operator_facts(factors or ("*",)), as_json, ["NAME", "CALL", "WHAT IT IS"], ["name", "call", "summary"])
    elif factors or expressions:
        from penstock.cli.factor.given import factors_of, sources_of

        found = factor_facts(factors_of(factors, expressions), sources_of(factors))
        for one in found:
            one["warm"] = f"{one['lookback']}+" if one["endless"] else str(one["lookback"])
            one["reads"] = ", ".join(one["inputs"]) or "-"
            one["shown"] = one["source"] or one["formula"]
        header = ["NAME", "LOOKBACK", "INPUTS", "FORMULA"]
        keys = ["name", "warm", "reads", "shown"]
        _show(found, as_json, header, keys, hide=("warm", "reads", "shown"), right=(1,))
    else:
        found = library_facts()
        _show(found, as_json, ["LIBRARY", "FACTORS", "WHAT IT IS"], ["name", "factors", "summary"], right=(1,))


def _show(
    rows: Sequence[dict[str, Any]],
    as_json: bool,
    header: list[str],
    keys: list[str],
    *,
    hide: Sequence[str] = (),
    right: Sequence[int] = (),
) -> None:
    if as_json:
        for row in rows:
            out.print_json({key: value for key, value in row.items() if key not in hide})
        return
    cells = [[str(row[key]) for key in keys] for row in rows]
    room = out.width()
    if room is not None and cells:  # the last column takes what is left
        used = sum(max(len(header[i]), *(len(row[i]) for row in cells)) + 2 for i in range(len(keys) - 1))
        room = max(20, room - used)
        cells = [[*row[:-1], row[-1] if len(row[-1]) <= room else row[-1][: room - 1] + "…"] for row in cells]
    out.write(out.grid(header, cells, right=right))


def library_facts() -> list[dict[str, Any]]:
    """What `list` tells of each library."""
    from penstock.factor import library
    from penstock.factor.libraries import LIBRARIES

    return [{"name": name, "factors": len(library(name)), "summary": text} for name, text in LIBRARIES.items()]


def factor_facts(factors: Factors, sources: Mapping[str, str]) -> list[dict[str, Any]]:
    """What `list` tells of each factor; `sources`: formulas as they were published, by name."""
    from penstock.factor import compile as compile_
    from penstock.factor.graph import formula, topological

    program = compile_(factors, engine="numpy")
    endless = set(program.endless)
    return [
        {
            "name": name,
            "formula": formula(node, 2000),
            "source": sources.get(name),
            "inputs": [str(one.attrs[0][1]) for one in topological([node]) if one.op == "field"],
            "lookback": program.lookback[name],
            "endless": name in endless,
        }
        for name, node in factors.items()
    ]


def operator_facts(patterns: Sequence[str]) -> list[dict[str, Any]]:
    """What `list --operators` tells of each operator whose name or alias matches one of the patterns."""
    import difflib

    from penstock.factor import operators

    table = operators()
    found = {}
    for pattern in patterns:
        names = {name: [name, *record.aliases] for name, record in table.items()}
        like = [name for name, all_ in names.items() if any(fnmatchcase(one, pattern) for one in all_)]
        if not like:
            near = difflib.get_close_matches(pattern, [one for all_ in names.values() for one in all_], n=3)
            hint = f"did you mean {' or '.join(near)}" if near else "penstock factor list --operators lists all"
            raise UsageError(f"there is no operator {pattern!r}", hint=hint)
        found.update(dict.fromkeys(like))
    return [
        {
            "name": name,
            "call": table[name].usage(),
            "kind": table[name].kind.value,
            "summary": table[name].doc.partition("\n")[0],
            "aliases": list(table[name].aliases),
            "nan": table[name].nan,
        }
        for name in table
        if name in found
    ]


@click.command(short_help="Show how factors are computed, or what one value came from.")
@factor_options
@program_options
@data_options
@click.option("--symbol", "of", metavar="SYMBOL", help="Of the value to explain.")
@click.option("--at", metavar="TIME", help="Of the value to explain.  [default: the last]")
def explain(
    factors: tuple[str, ...],
    expressions: tuple[str, ...],
    dtype: str,
    engine: str | None,
    of: str | None,
    at: str | None,
    as_json: bool,
    **source: Any,
) -> None:
    """Show the expression of FACTORS after each pass, its stages, state and lookback.

    With rows (--data or --stream) show what one value came from: the expression as a tree, every part with its value
    for --symbol at --at, the rows of each window and the keys of each cross-section.
    """
    rows = Rows(**source)
    if not rows.given:
        if of is not None or at is not None:
            raise UsageError("--symbol and --at ask for a value of rows", hint="--data FILE or --stream NAME")
        # Nothing is run: the engine that needs no compiler says the same.
        program = compiled(factors, expressions, dtype, engine or "numpy")
        if as_json:
            for name in program.outputs:
                out.print_json(passes_facts(program, name))
        else:
            out.write("\n".join(program.explain(name) + "\n" for name in program.outputs))
        return
    program = compiled(factors, expressions, dtype, engine)
    table = load(rows, program.inputs)
    for number, name in enumerate(program.outputs):
        reason = program.explain(name, table, symbol=_symbol(table, rows, of), ts=at, columns=(rows.symbol, rows.time))
        if as_json:
            out.print_json(reason.facts())
        else:
            out.write(("\n" if number else "") + f"{reason}\n")
    if not table.num_rows:
        say("there are no rows")


def _symbol(table: Any, rows: Rows, of: str | None) -> Any:
    """The symbol as its column has it: a number where those are numbers."""
    import pyarrow.types as types

    if of is not None and types.is_integer(table.schema.field(rows.symbol).type):
        try:
            return int(of)
        except ValueError:
            raise FactorError(
                expected="a number: symbols are numbers here", got=repr(of), where="in --symbol"
            ) from None
    return of


def passes_facts(program: Program, name: str) -> dict[str, Any]:
    """What `explain --json` tells of a factor without rows."""
    from penstock.factor.graph import formula

    steps = [
        {"pass": step, "sentence": sentence, "formula": formula(outputs[name], 2000)}
        for step, sentence, outputs in program.history
    ]
    return {
        "factor": name,
        "lookback": program.lookback[name],
        "endless": name in program.endless,
        "passes": steps,
        "text": program.explain(name),
    }

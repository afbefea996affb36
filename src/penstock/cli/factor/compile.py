"""`penstock factor compile`: into the cache, with what it took and what came out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from penstock.cli import out
from penstock.cli.factor.options import compiled, factor_options, native_of, program_options

if TYPE_CHECKING:
    from penstock.factor import Program

__all__ = ["compile_", "facts_of"]


@click.command("compile", short_help="Compile into the cache, and say what came out.")
@factor_options
@program_options
@click.option("--checked", is_flag=True, help="Verify the expressions after each pass.")
def compile_(
    factors: tuple[str, ...],
    expressions: tuple[str, ...],
    dtype: str,
    engine: str | None,
    checked: bool,
    as_json: bool,
) -> None:
    """Compile FACTORS: inputs, outputs, stages, state per symbol, size of the code, and where it is kept.

    The next program of these factors, in any process of this user, then starts in milliseconds. PENSTOCK_CACHE names
    another folder for compiled code; empty, it is kept nowhere.
    """
    from time import perf_counter

    before = perf_counter()
    program = compiled(factors, expressions, dtype, engine, checked=checked)
    facts = facts_of(program, perf_counter() - before)
    if as_json:
        out.print_json(facts)
        return
    lines = [
        ("factors", f"{len(program.outputs):,}: {_some(program.outputs)}"),
        ("inputs", ", ".join(program.inputs) or "none"),
        ("warm", f"after {program.warmup:,} rows" + _forever(program)),
        ("engine", f"{program.engine}, {program.dtype}"),
        ("stages", f"{facts['stages']:,}, {facts['operators']:,} operators"),
        ("state", f"{out.size(facts['state_bytes'])} per symbol, {program.layout.rows:,} values"),
        ("digest", program.digest),
    ]
    if facts["code_bytes"] is not None:
        kept = "from the cache, " if facts["cached"] else ""
        lines.append(("code", f"{out.size(facts['code_bytes'])}, {kept}{facts['file'] or 'kept nowhere'}"))
    lines.append(("time", f"{facts['seconds']:.3f} s"))
    out.write("".join(f"{name:9}{text}\n" for name, text in lines))


def facts_of(program: Program, seconds: float) -> dict[str, Any]:
    """What `compile --json` tells."""
    native = native_of(program)
    size, file, cached = native if native is not None else (None, None, False)
    return {
        "factors": len(program.outputs),
        "outputs": list(program.outputs),
        "inputs": list(program.inputs),
        "lookback": program.lookback,
        "warmup": program.warmup,
        "endless": list(program.endless),
        "engine": program.engine,
        "dtype": program.dtype.name,
        "stages": len(program.plan.stages),
        "operators": sum(node.op not in ("const", "field") for node in program.plan.nodes),
        "state_values": program.layout.rows,
        "state_bytes": program.layout.rows * program.dtype.itemsize,
        "code_bytes": size,
        "file": None if file is None else str(file),
        "cached": cached,
        "digest": program.digest,
        "seconds": seconds,
    }


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names) if len(names) <= 8 else f"{', '.join(names[:4])} … {names[-1]}"


def _forever(program: Program) -> str:
    return f"; {len(program.endless):,} never forget" if program.endless else ""

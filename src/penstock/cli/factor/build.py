"""`penstock factor build`: a library for C, or for any language that calls C."""

from __future__ import annotations

from typing import Any

import click

from penstock.cli import out
from penstock.cli.factor.options import DTYPES, factor_options
from penstock.cli.outcome import say

__all__ = ["build"]


@click.command(short_help="Write factors as a C library.")
@factor_options
@click.option(
    "-o", "--output", metavar="FILE", required=True, help="libNAME.so, NAME.o, or NAME.h for the header alone."
)
@click.option("--dtype", type=click.Choice(DTYPES), default="float64", show_default=True, help="Of all values.")
@click.option("--cpu", metavar="CPU", default="native", show_default=True, help="What it must run on.")
@click.option("--prefix", metavar="WORD", default="ps", show_default=True, help="Of all names.")
@click.option("--header", metavar="FILE", help="[default: penstock.h beside FILE]")
def build(
    factors: tuple[str, ...],
    expressions: tuple[str, ...],
    output: str,
    dtype: str,
    cpu: str,
    prefix: str,
    header: str | None,
    as_json: bool,
) -> None:
    """Write FACTORS as a shared library or an object file, with its header: no Python is needed to use it.

    CPU is native for this processor, baseline for every one of its family, or x86-64-v2, x86-64-v3, x86-64-v4. The
    bits are the same for all.
    """
    from pathlib import Path

    from penstock.cli.factor.given import factors_of
    from penstock.cli.progress import progress
    from penstock.factor import export

    found = factors_of(factors, expressions)
    place = None if header is None else Path(header).expanduser()
    with progress(f"building {len(found)} factors"):
        built = export.build(found, Path(output).expanduser(), dtype=dtype, cpu=cpu, prefix=prefix, header=place)
    files = {"library": built.library, "object": built.object, "header": built.header}
    if as_json:
        facts: dict[str, Any] = {name: None if file is None else str(file) for name, file in files.items()}
        out.print_json({**facts, "digest": built.digest, "cpu": built.cpu, "note": built.note})
        return
    for name, file in files.items():
        if file is not None:
            out.write(f"{name:9}{file}\n")
    out.write(f"{'cpu':9}{built.cpu}\n{'digest':9}{built.digest}\n")
    if built.note:
        say(built.note)

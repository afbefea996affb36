"""`penstock store compact`: rows into data files, small files into large ones, now."""

from __future__ import annotations

from typing import Any

import click

from penstock.cli import out
from penstock.cli.outcome import say
from penstock.cli.progress import progress
from penstock.cli.store.where import opened, path_names, stored

__all__ = ["compact"]


@click.command(short_help="Roll and compact now.")
@click.argument("path", default="", shell_complete=path_names)
@click.option("--due", is_flag=True, help="Only what is due, as the server does it all the time.")
@stored()
def compact(path: str, due: bool, as_json: bool, **where: Any) -> None:
    """Put all rows of the table PATH, or of every table, into data files, join small ones, remove replaced ones."""
    import msgspec

    failed: list[str] = []

    def tell(table: str, error: Exception) -> None:
        failed.append(table)
        say(f"table {table!r} was not compacted: {error}")

    with opened(where) as store, progress("compacting") as done:
        found = store.maintain(path or None, force=not due, progress=lambda rows, total: done(rows), failed=tell)
    for name, made in found.items():
        facts = {"table": name, **msgspec.to_builtins(made)}
        if as_json:
            out.print_json(facts)
            continue
        rolled, joined = facts["rolled"], facts["compacted"]
        out.write(
            f"{name}: rolled {out.rows_text(rolled['rows'])}, joined {joined['before']} files into {joined['after']},"
            f" removed {facts['vacuumed']}\n"
        )
    if failed:
        click.get_current_context().exit(1)

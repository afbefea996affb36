"""`penstock store compact` and `drop`: files made larger, and history removed."""

from __future__ import annotations

from typing import Any

import click

from penstock.cli import out
from penstock.cli.outcome import say
from penstock.cli.progress import progress
from penstock.cli.questions import agreed
from penstock.cli.store.where import opened, path_names, stored

__all__ = ["compact", "drop"]


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


@click.command(short_help="Remove a table, or a key of it.")
@click.argument("path", shell_complete=path_names)
@click.option("--yes", is_flag=True, help="Do not ask.")
@stored()
def drop(path: str, yes: bool, as_json: bool, **where: Any) -> None:
    """Remove the table or key PATH, rows and history, for everybody. Asks on a terminal, else --yes is needed."""
    with opened(where) as store:
        keys = store.ls(path)
        what = f"key {path!r}" if keys == [path] else f"table {path!r} with {out.count(len(keys))} keys"
        if keys:  # else there is nothing to agree to: dropping says what is near
            agreed(what, yes)
        store.drop(path)
    if as_json:
        out.print_json({"path": path, "keys": len(keys)})
    else:
        out.write(f"dropped {what}\n")

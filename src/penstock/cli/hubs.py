"""Which hub and which stream a command means, and what the index tells of a stream without reading rows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pathlib import Path

    from penstock.hub import Hub

__all__ = ["Recent", "open_hub", "recent", "stream_names", "where_of"]

_ENTRIES = 8192
_WINDOW_NS = 10_000_000_000


def where_of(hub: str | None) -> str | None:
    """The folder meant: the command's --hub, else that of a group before it, or $PENSTOCK_HUB; None: the default."""
    context = click.get_current_context(silent=True)
    return hub or (context.find_root().obj if context is not None else None)


@contextmanager
def open_hub(hub: str | None, *, create: bool = False) -> Iterator[Hub]:
    """The hub of a command; only commands that write make one."""
    from penstock.hub import open as open_

    with open_(where_of(hub), create=create) as opened:
        yield opened


@dataclass(frozen=True, slots=True)
class Recent:
    """The latest appends: time of the last one (ns UTC), and rows per second over at most the ten seconds before it.

    Both None for a stream without rows; `rate` None too when only one append lies in them.
    """

    last_ns: int | None = None
    rate: float | None = None


def recent(folder: Path) -> Recent:
    """The latest appends of a stream.   Cost  at most the last MiB of one index file."""
    import numpy as np

    from penstock.log.format import ENTRY_BYTES, ENTRY_DTYPE, Kind, index_name
    from penstock.log.segment import firsts

    for first in reversed(firsts(folder)):
        try:
            with (folder / index_name(first)).open("rb") as file:
                count = os.fstat(file.fileno()).st_size // ENTRY_BYTES
                file.seek(max(0, count - _ENTRIES) * ENTRY_BYTES)
                entries = np.frombuffer(file.read(min(count, _ENTRIES) * ENTRY_BYTES), ENTRY_DTYPE)
        except FileNotFoundError:
            continue  # dropped by a retention meanwhile
        entries = entries[(entries["kind"] == Kind.ROWS) & (entries["rows"] > 0)]
        if len(entries):
            last = int(entries["appended"][-1])
            late = entries[entries["appended"] > last - _WINDOW_NS]
            span = last - int(late["appended"][0])
            # The first append only opens the span: its own rows came before it.
            rate = float(late["rows"][1:].sum()) * 1e9 / span if span > 0 else None
            return Recent(last, rate)
    return Recent()


def stream_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of streams, for a shell that completes one."""
    from penstock.errors import PenstockError

    try:
        with open_hub(ctx.params.get("hub") or ctx.find_root().params.get("hub")) as hub:
            return [name for name in hub.streams.list() if name.startswith(incomplete)]
    except PenstockError:
        return []

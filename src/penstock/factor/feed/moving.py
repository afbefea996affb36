"""State from one program, or one set of symbols, to another: snapshots in, a stream out.

A stream that goes on must give the bits of one that had always been as it is now. What a symbol's state would be if it
had never had a row is computed (`absent`), and what an operator's state would be is replayed (`moved`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from penstock.factor import snapshot

if TYPE_CHECKING:
    from penstock.factor.live import Live
    from penstock.factor.program import Program

__all__ = ["Symbol", "absent", "fits", "joined", "moved"]

Symbol = str | int
Planes = np.ndarray[Any, np.dtype[Any]]
_ROWS = 4096  # at once


def absent(program: Program, first: int, ordinal: int) -> Planes:
    """The state, (layout rows, 1), of a symbol without a row since `first`, before the row number `ordinal`.

    Cost    as many rows of one symbol as the program looks back; all of them where an output never forgets.
    """
    start = first if program.endless else max(first, ordinal - program.warmup)
    live = program.stream(n=1, first=start)
    while live.ordinal < ordinal:
        rows = min(_ROWS, ordinal - live.ordinal)
        block = np.full((rows, 1), np.nan, program.dtype)
        live.batch(dict.fromkeys(program.inputs, block))
    return snapshot.decode(live.snapshot())[1]


def joined(live: Live, symbols: Sequence[Symbol]) -> Live:
    """The stream with further symbols at its end, as if they had been in it from the start without a row."""
    header, planes = snapshot.decode(live.snapshot())
    column = absent(live.program, header.first, header.ordinal)
    wider = np.concatenate([planes, np.repeat(column, len(symbols), axis=1)], axis=1)
    header = msgspec.structs.replace(
        header,
        symbols=[*header.symbols, *symbols],
        since=[*header.since, *[header.ordinal] * len(symbols)],
    )
    return live.program.stream(state=snapshot.encode(header, wider))


def fits(program: Program, state: bytes, symbols: Sequence[Symbol] | None) -> bool:
    """Whether a snapshot is of this very program and, if they are given, these symbols."""
    header, _ = snapshot.decode(state)
    return header.program == program.digest and (symbols is None or header.symbols == list(symbols))


def moved(
    program: Program, state: bytes, symbols: Sequence[Symbol] | None, replayed: Callable[[Sequence[Symbol], int], Live]
) -> Live:
    """A stream that goes on from a snapshot of another program, or of other symbols.

    Takes   symbols: those of now; None: the snapshot's;
            replayed: gives a stream of these symbols that stands at this ordinal, run over as many rows as can be had.
    State moves operator by operator and symbol by symbol; what the snapshot does not have comes from the replay, and so
    does what it has for fewer rows than that.
    """
    old, planes = snapshot.decode(state)
    fresh = replayed(old.symbols if symbols is None else symbols, old.ordinal)
    new, made = snapshot.decode(fresh.snapshot())
    if old.dtype != new.dtype:
        return fresh
    there = {name: i for i, name in enumerate(old.symbols)}
    mine = [i for i, name in enumerate(new.symbols) if name in there]
    theirs = [there[new.symbols[i]] for i in mine]
    places: dict[tuple[Any, ...], tuple[int, int]] = {}
    row = 0
    for field in old.fields:
        places[field.identity] = row, field.since
        row += field.depth * field.parts
    kept: dict[str, bool] = {}  # an operator's fields move together
    for field in new.fields:
        place = places.get(field.identity)
        kept[field.node] = kept.get(field.node, True) and place is not None and place[1] <= field.since
    row, fields = 0, []
    for field in new.fields:
        rows = field.depth * field.parts
        if kept[field.node]:
            start, began = places[field.identity]
            made[row : row + rows, mine] = planes[start : start + rows, theirs]
            field = msgspec.structs.replace(field, since=began)
        fields.append(field)
        row += rows
    since = [old.since[there[name]] if name in there else new.first for name in new.symbols]
    header = msgspec.structs.replace(new, first=old.first, since=since, fields=fields)
    return program.stream(state=snapshot.encode(header, made))

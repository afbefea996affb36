"""Two handlers over the same history: do they give the same messages?"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from penstock.plant.handlers.host import Handler, Outcome

__all__ = ["Difference", "diff"]


@dataclass(frozen=True, slots=True)
class Difference:
    """How far two handlers agreed.

    arrays    arrays of messages given to both;  messages  what the old one made of them;
    first     the first difference: number of the array, offset of its first row, what each gave; None if there is none
    """

    arrays: int
    messages: int
    first: tuple[int, int, Any, Any] | None

    def __bool__(self) -> bool:
        return self.first is not None


async def diff(
    old: str | os.PathLike[str],
    new: str | os.PathLike[str],
    arrays: Iterable[tuple[int, list[dict[str, Any]]]],
    **options: Any,
) -> Difference:
    """Run both over the same arrays, in step, until they differ.

    Takes   arrays: (offset, messages) in order;  options: as `Handler` takes them.
    A failure counts as what a handler gave: two that fail alike are alike.
    Raises  HandlerError if one does not load.
    """
    handlers = Handler(old, **options), Handler(new, **options)
    count = made = 0
    try:
        for one in handlers:
            await one.start()
        for offset, given in arrays:
            gave = [_shown(outcome) for outcome in await asyncio.gather(*(one(given) for one in handlers))]
            if gave[0] != gave[1]:
                return Difference(count + 1, made, (count, offset, *_narrow(*gave)))
            count += 1
            made += len(gave[0]) if isinstance(gave[0], list) else 0
    finally:
        for one in handlers:
            await one.stop()
    return Difference(count, made, None)


def _shown(outcome: Outcome) -> Any:
    if outcome.failure is not None:
        return {"failed": outcome.failure.kind, "text": outcome.failure.text}
    extra = [{"published": name, "rows": rows} for name, rows in outcome.published]
    return [*outcome.messages, *extra]


def _narrow(old: Any, new: Any) -> tuple[Any, Any]:
    """Of two lists only the first messages that differ; None where one is shorter."""
    if not (isinstance(old, list) and isinstance(new, list)):
        return old, new
    for i in range(max(len(old), len(new))):
        pair = (old[i] if i < len(old) else None), (new[i] if i < len(new) else None)
        if pair[0] != pair[1]:
            return pair
    return old, new

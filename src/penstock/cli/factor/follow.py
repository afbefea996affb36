"""`penstock factor run --follow`: a consumer of a stream of bars that makes a stream of factors."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from penstock.cli import out
from penstock.cli.factor.data import Rows
from penstock.cli.hubs import open_hub
from penstock.cli.out import rows_text
from penstock.cli.outcome import Terminated, say
from penstock.cli.stream.when import when
from penstock.errors import UsageError

if TYPE_CHECKING:
    from penstock.factor import Program
    from penstock.factor.feed import Feed

__all__ = ["follow", "follow_facts"]


def follow(program: Program, rows: Rows, into: str, options: dict[str, Any], as_json: bool) -> None:
    """Run until told to stop; `options`: as of `program.follow` and its `run`, None for those not given."""
    if rows.stop is not None:
        raise UsageError("--follow has no --stop", hint="--timeout ends it when no row came for so long")
    with open_hub(rows.hub) as hub:
        stream = hub.streams.get(str(rows.stream), create=False)
        given = {name: value for name, value in options.items() if value is not None}
        if rows.start is not None:
            given["start"] = when(rows.start)
        if sys.stderr.isatty() and "timeout" not in given:
            say(f"following {stream.name!r}; Ctrl-C ends")
        feed = program.follow(stream, into, symbol=rows.symbol, time=rows.time, **given)
        made = hub.streams.get(into)
        first = made.next_offset
        try:
            feed.run()
        except (KeyboardInterrupt, Terminated):
            # Counted in the stream: the feed's own count may be a batch behind.
            say(f"stopped; {_followed(follow_facts(feed, into, made.next_offset - first))}")
            raise
        facts = follow_facts(feed, into, made.next_offset - first)
        if as_json:
            out.print_json(facts)
        else:
            out.write(_followed(facts) + "\n")


def _followed(facts: dict[str, Any]) -> str:
    late = f", {facts['late']:,} rows came too late" if facts["late"] else ""
    done = f"appended {rows_text(facts['rows'])} to {facts['stream']!r}{late}"
    return f"{done}; {facts['ticks']:,} ticks of {facts['symbols']:,} symbols since it began"


def follow_facts(feed: Feed, into: str, rows: int) -> dict[str, Any]:
    """What `run --follow --json` tells at its end."""
    found = feed.statistics()
    counts = {name: getattr(found, name) for name in ("ticks", "symbols", "missing", "late", "duplicates", "waiting")}
    return {"stream": into, "rows": rows, **counts}

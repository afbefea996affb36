"""`penstock demo`: a market through streams, bars and factors, live on the terminal or as plain lines."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from penstock.cli import out
from penstock.cli.outcome import DIFFERENCE, Terminated, say
from penstock.cli.tree import debug_option

if TYPE_CHECKING:
    from penstock.app import Demo, DemoResult, Market

__all__ = ["command_name", "demo", "next_steps"]

_DATA = "demo-data"
_PACE = 'How fast trades are replayed: "max", or such as "60x".  [default: max; live, all in about 8 s]'
_WATCH_S, _ROWS_S = 8.0, 60_000


@click.command(short_help="See it work, on real trades.")
@click.option(
    "--data", metavar="DIR", default=_DATA, show_default=True, help="Folder of its hub; an earlier demo's goes."
)
@click.option("--pace", metavar="PACE", help=_PACE)
@click.option("--limit", metavar="N", type=click.IntRange(min=1), help="Only the first N trades.")
@click.option("--synthetic", is_flag=True, help="A made-up market, the same every time: needs no network.")
@click.option("--headless", is_flag=True, help="Plain lines instead of the live view; always so without a terminal.")
@click.option("--json", "as_json", is_flag=True, help="A summary as one JSON object on the last line of stdout.")
@debug_option
def demo(data: str, pace: str | None, limit: int | None, synthetic: bool, headless: bool, as_json: bool) -> int:
    """Replay half a million real trades: bars, live factors, and a proof that live is history to the bit.

    Trades of one future and daily prices of five shares, fetched once, go through streams in a fresh hub. Consumers,
    each with its own group, make 1-minute bars of the trades and factors of the bars, exactly once; at the end the
    factors are computed once more over all bars at once and compared. The exit code is 1 if a single bit differs.
    """
    from penstock.app import Demo, load_market
    from penstock.connect.pace import speed_of

    if pace is not None:
        speed_of(pace)  # what cannot be meant is said before anything is fetched
    folder = Path(data).expanduser()
    live = not headless and not as_json and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    tell = say if as_json or live else _line
    market = load_market(synthetic=synthetic, limit=limit, tell=tell)
    with Demo(folder, market, pace=pace or (_watchable(market) if live else "max")) as running:
        try:
            running.start()
            if live:
                from penstock.cli.demo_view import show

                show(running)
            else:
                _plain(running, tell)
            result = running.result()
        except (KeyboardInterrupt, Terminated):
            running.stop()
            say(f"stopped; what was made is in {_place(folder)}: {command_name()} stream ls --hub {_quoted(folder)}")
            raise
    if as_json:
        out.print_json(result.as_dict())
    elif live:
        from penstock.cli.demo_view import show_result

        show_result(result, summary(result), next_steps(folder))
    else:
        for line in [*summary(result), "next:", *(f"  {step}" for step in next_steps(folder))]:
            _line(line)
    return DIFFERENCE if result.bits_differ else 0


def _watchable(market: Market) -> str:
    """A pace at which there is something to see, and not for long."""
    first, last = market.span_ns
    seconds = min(_WATCH_S, market.trades.num_rows / _ROWS_S)
    return f"{max(1.0, (last - first) / 1e9 / seconds):.0f}x"


def _line(text: str) -> None:
    click.echo(text)


def _plain(running: Demo, tell: Callable[[str], None]) -> None:
    """A line about once a second."""
    market = running.market
    tell(f"replaying {market.trades.num_rows:,} {market.source} into {_place(running.folder)}")
    last = time.monotonic()
    while not running.wait(0.1):
        if time.monotonic() - last >= 1.0:
            last = time.monotonic()
            rows = running.statistics().rows
            tell(", ".join(f"{name} {count:,}" for name, count in rows.items()))


def summary(result: DemoResult) -> list[str]:
    """What was done, in a few lines."""
    values = f"{result.values:,} values"
    same = f"live = history: {values}, 0 bits differ"
    differ = f"live is not history: {values}, {result.bits_differ:,} bits differ"
    panel = f", {result.daily:,} daily bars" if result.daily else ""
    return [
        f"{result.trades:,} trades{panel}: {result.bars:,} one-minute bars, "
        f"{result.factors + result.ranks:,} rows of factors",
        f"{_long(result.market_hours)} of trading in {result.seconds:.1f} s, "
        f"{result.rows_per_second:,} trades a second",
        differ if result.bits_differ else same,
        f"data: {_place(Path(result.data))}",
    ]


def _long(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 1 else f"{hours * 60:.1f} minutes"


def next_steps(folder: Path) -> list[str]:
    """Commands that work on what the demo has made."""
    command, hub = command_name(), _quoted(folder)
    return [
        f"{command} stream ls --hub {hub}",
        f"{command} stream tail bars --hub {hub}",
        f"{command} stream info factors --hub {hub}",
        f"{command} stream read factors --hub {hub} -o factors.parquet",
    ]


def command_name() -> str:
    """How this command is called from where the user stands."""
    there = Path(sys.executable).with_name("penstock")
    found = shutil.which("penstock")
    if found is not None and there.exists() and os.path.samefile(found, there):
        return "penstock"
    if there.exists():
        return shlex.quote(_short(there))
    return f"{shlex.quote(_short(Path(sys.executable)))} -m penstock"


def _short(path: Path) -> str:
    """Relative where that is shorter to read: the path is below the current folder."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _quoted(folder: Path) -> str:
    return shlex.quote(_short(folder))


def _place(folder: Path) -> str:
    return _short(folder) or "."

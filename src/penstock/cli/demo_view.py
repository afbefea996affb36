"""The demo's live view: what streams hold, how fast they grow, the last bars and factors. It only reads the streams."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any

from penstock.clock import utc

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

    from penstock.app import Demo, DemoResult, DemoStatistics

__all__ = ["View", "show", "show_result"]

_FRAME_S = 0.125
_RATE_S = 1.0
_MADE_BY = {"bars": ("trades", "1-minute bars"), "factors": ("bars", "along time"), "ranks": ("", "across shares")}


def show(running: Demo) -> None:
    """Draw until the demo is done; the last picture stays."""
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False)
    view = View(running, console)
    with Live(console=console, auto_refresh=False, transient=False) as live:
        done = False
        while not done:
            done = running.wait(_FRAME_S)
            live.update(view.picture(), refresh=True)


class View:
    """Pictures of a demo, each from the streams as they are at that moment."""

    def __init__(self, running: Demo, console: Console) -> None:
        self._demo = running
        self._console = console
        self._seen: deque[tuple[float, dict[str, int]]] = deque()

    def picture(self) -> RenderableType:
        """What there is to see now, no wider and no higher than the terminal."""
        from rich.console import Group
        from rich.text import Text

        now = self._demo.statistics()
        rates = self._rates(now)
        parts: list[RenderableType] = [self._title(), Text(), self._bar(now), Text(), self._streams(now, rates)]
        # Lines that are left under the head and the first table, one of them for the cursor.
        rest = self._console.height - 7 - len(now.rows)
        if rest >= 5:
            parts += [Text(), self._last("bars", 5 if rest >= 19 else 3)]
        if rest >= 10:
            parts += [Text(), self._last("factors", 3)]
        if rest >= 17:
            parts += [Text(), self._last("ranks", 5)]
        return Group(*parts)

    def _title(self) -> RenderableType:
        from rich.text import Text

        market = self._demo.market
        first, last = (f"{utc(ns):%Y-%m-%d %H:%M}" for ns in market.span_ns)
        lines = (("penstock demo", "bold"), (f"   {market.source}\n{'':16}{first} to {last} UTC", "dim"))
        return Text.assemble(*lines, no_wrap=True, overflow="ellipsis")

    def _bar(self, now: DemoStatistics) -> RenderableType:
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        done = now.rows["trades"]
        row = Table.grid(padding=(0, 1), expand=False)
        counts = f"{done:,} of {now.total:,} trades"
        clock = f"{now.seconds:.1f} s"
        wide = max(10, min(60, self._console.width - len(counts) - len(clock) - 4))
        bar = ProgressBar(
            now.total, done, width=wide, style="bright_black", complete_style="cyan", finished_style="cyan"
        )
        row.add_row(bar, counts, f"[dim]{clock}[/]")
        return row

    def _rates(self, now: DemoStatistics) -> dict[str, float]:
        """Rows per second over the last second."""
        at = time.monotonic()
        self._seen.append((at, now.rows))
        while len(self._seen) > 2 and self._seen[1][0] <= at - _RATE_S:
            self._seen.popleft()
        before, rows = self._seen[0]
        if at == before:
            return dict.fromkeys(rows, 0.0)
        return {name: (count - rows[name]) / (at - before) for name, count in now.rows.items()}

    def _streams(self, now: DemoStatistics, rates: dict[str, float]) -> Table:
        table = self._table("stream", ">rows", ">rows/s", "made by", ">to do", least=(8, 9, 9, 15, 9))
        for name, count in now.rows.items():
            group = name if name in now.lag else None
            rate = "·" if now.finished or rates[name] < 0.5 else f"{rates[name]:,.0f}"
            lag = "" if group is None else f"{now.lag[group]:,}"
            made = "the source" if group is None else f"{self._demo.reads(name)} → {name}"
            table.add_row(f"[bold]{name}[/]", f"{count:,}", rate, f"[dim]{made}[/]", lag)
        return table

    def _table(self, *heads: str, least: tuple[int, ...] = ()) -> Table:
        """A quiet table; ">" before a head sets its column to the right. `least`: widths, so that nothing jumps."""
        from rich.table import Table

        gap = 2 if self._console.width >= 90 else 1
        table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="dim")
        for i, head in enumerate(heads):
            right = head.startswith(">")
            wide = least[i] if i < len(least) else None
            table.add_column(head.removeprefix(">"), justify="right" if right else "left", no_wrap=True, min_width=wide)
        return table

    def _last(self, name: str, count: int) -> Table:
        """The last rows of a stream, newest last: its symbol, its time, its numbers."""
        stream = self._demo.stream(name)
        stop = stream.next_offset
        found = stream.read(max(0, stop - count), stop)
        names = ["open", "high", "low", "close", "volume", "trade_count"] if name == "bars" else found.schema.names[2:]
        heads = [{"trade_count": "trades"}.get(column, column) for column in names]
        table = self._table(f"last {name}", "", *(f">{head}" for head in heads), least=(12, 11, *[8] * len(heads)))
        rows = found.to_pylist()
        for row in rows:
            numbers = [_number(row[column], name != "bars") for column in names]
            table.add_row(f"[bold]{row['symbol']}[/]", f"[dim]{_moment(row['ts_event'])}[/]", *numbers)
        for _ in range(count - len(rows)):  # so that the picture does not jump
            table.add_row("[dim]·[/]")
        return table


def _moment(ns: int) -> str:
    at = utc(ns)
    return f"{at:%Y-%m-%d}" if (at.hour, at.minute) in ((4, 0), (5, 0)) else f"{at:%m-%d %H:%M}"


def _number(value: Any, signed: bool) -> str:
    if value is None or value != value:
        return "[dim]·[/]"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:+.4f}" if signed else f"{value:,.2f}"


def show_result(result: DemoResult, summary: list[str], steps: list[str]) -> None:
    """The summary, four lines, and what to try next."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    made, speed, proof, data = summary
    console.print()
    console.print(Text(made), soft_wrap=True)
    console.print(Text(speed), soft_wrap=True)
    console.print(Text(proof, "bold red" if result.bits_differ else "bold green"), soft_wrap=True)
    console.print(Text(data), soft_wrap=True)
    console.print()
    console.print(Text("try next", "dim"))
    for step in steps:
        console.print(Text(f"  {step}"), soft_wrap=True)

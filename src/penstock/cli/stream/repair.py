"""`penstock stream repair`: is every byte what was written, and if not, mend what can be mended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from penstock.cli import out
from penstock.cli.hubs import open_hub, stream_names
from penstock.cli.outcome import DIFFERENCE
from penstock.cli.progress import progress
from penstock.cli.tree import shared

if TYPE_CHECKING:
    from penstock.log.check import Report

__all__ = ["facts_of", "repair"]


@click.command(short_help="Check every byte of a stream, and mend it.")
@click.argument("name", shell_complete=stream_names)
@click.option("--check", "only_check", is_flag=True, help="Only look; change nothing.")
@click.option(
    "--give-up", is_flag=True, help="Mark rows that cannot be read as lost, so that readers go on behind them."
)
@shared()
def repair(name: str, only_check: bool, give_up: bool, hub: str | None, as_json: bool) -> int:
    """Check every byte of the stream NAME, and mend what can be mended.

    No row that can be read is lost by it. Rows whose bytes are not what was written stay unreadable, unless --give-up
    marks them as lost: readers then pass over them with a warning, and their bytes are kept in a .bad file. Producers
    and consumers may run meanwhile. The exit code is 1 if something is wrong, or is left wrong.
    """
    from penstock.log.check import check
    from penstock.log.repair import repair as mend

    if only_check and give_up:
        click.get_current_context().fail("--check changes nothing; leave out --give-up")
    with open_hub(hub) as opened:
        folder = opened.streams.path(name)
        with progress(f"checking {name}"):
            report = check(folder) if only_check else mend(folder, give_up=give_up)
    if as_json:
        out.print_json(facts_of(name, report))
    else:
        out.write(_page(name, report, only_check))
    return 0 if report.is_good else DIFFERENCE


def facts_of(name: str, report: Report) -> dict[str, Any]:
    """What a report says, in JSON's types."""
    keys = ("segments", "entries", "rows", "lost", "bytes", "first_offset", "next_offset", "leftovers", "mended")
    problems = [
        {
            "damage": problem.damage.name.lower(),
            "file": problem.file,
            "position": problem.position,
            "first": problem.first,
            "stop": problem.stop,
            "loses": problem.loses,
        }
        for problem in report.problems
    ]
    facts = {key: getattr(report, key) for key in keys}
    return {"stream": name, "good": report.is_good, **facts, "problems": problems}


def _page(name: str, report: Report, only_check: bool) -> str:
    lines = [f"mended: {text}" for text in report.mended]
    lines += [f"{'found' if only_check else 'left'}: {problem}" for problem in report.problems]
    segments = "1 segment" if report.segments == 1 else f"{report.segments:,} segments"
    looked = f"{out.rows_text(report.rows)} in {segments}, {out.size(report.bytes)} read"
    if report.lost:
        looked += f"; {out.rows_text(report.lost)} given up"
    if report.leftovers:
        looked += f"; harmless leftovers: {', '.join(report.leftovers)}"
    if report.is_good:
        return "\n".join([*lines, f"stream {name!r} is whole: {looked}"]) + "\n"
    losing = sum(problem.loses for problem in report.problems)
    number = f"{len(report.problems)} problem{'s' * (len(report.problems) != 1)}"
    lines.append(f"stream {name!r} has {number}: {looked}")
    if only_check and losing < len(report.problems):
        lines.append("next step: the same without --check mends what loses no rows")
    elif losing:
        lines.append("next step: restore the files from a copy, or give these rows up with --give-up")
    return "\n".join(lines) + "\n"

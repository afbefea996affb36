"""`penstock feed replay`: a recording, at its own pace or faster, with a plant in front of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from penstock.cli import out
from penstock.cli.outcome import Terminated, say
from penstock.cli.plant.options import home, log_option, serve_hub, serving, serving_options, started
from penstock.errors import UsageError

if TYPE_CHECKING:
    from penstock.connect import Dataset
    from penstock.hub import Hub

__all__ = ["DATASETS", "replay"]

DATASETS = ("emini", "market")


@click.command(short_help="A recording at its pace, and a plant that serves it.")
@click.argument("dataset", required=False)
@click.option("--stream", metavar="NAME", help="Replay a stream of --hub instead of a file.")
@click.option("--hub", metavar="DIR", help="Hub of --stream.  [default: $PENSTOCK_HUB, else ./penstock-data]")
@click.option(
    "--pace", metavar="PACE", default="recorded", show_default=True, help='"recorded", "max", or such as "60x".'
)
@click.option("--into", metavar="NAME", help="Stream that is served.  [default: by the file's or stream's name]")
@click.option("--ev", metavar="EVENT", help="Event of its messages.  [default: by its columns]")
@click.option("--schema", metavar="SCHEMA", help="Columns: trades, quotes, bars, or a file that has them.")
@click.option("--time", "time_column", metavar="COLUMN", help="The column with the time.  [default: ts_event]")
@click.option("--tz", metavar="ZONE", help="Of times that have none, such as America/New_York.")
@click.option("--rename", metavar="OLD=NEW", multiple=True, help="A column under another name.")
@click.option("--start", metavar="TIME", help="Leave out what is before that.")
@click.option("--stop", metavar="TIME", help="Leave out what is from there on.")
@click.option(
    "--loop", metavar="N", type=click.IntRange(min=0), default=1, help="So often; 0 without end.  [default: 1]"
)
@click.option("--again", is_flag=True, help="From the beginning, whatever was replayed before.")
@click.option("--exit", "exits", is_flag=True, help="End when all is replayed, instead of serving on.")
@serving(5000)
@click.option("--data", metavar="DIR", help="Hub that keeps what was sent.  [default: one of this user's]")
@log_option
def replay(dataset: str | None, exits: bool, data: str | None, into: str | None, ev: str | None, **given: Any) -> None:
    """Replay DATASET, a file, a folder or a pattern of files, or `emini` (real trades of a future), or `market`.

    Rows go out with the time between them that was between their times. Started again, it goes on behind the last row
    that was sent.
    """
    from penstock.hub import open as open_

    options = serving_options(given)
    if (dataset is None) == (given["stream"] is None):
        click.get_current_context().fail("give either a DATASET or --stream NAME")
    folder = home(f"replay-{options['port']}") if data is None else Path(data).expanduser()
    name = into or given["stream"] or _name(str(dataset))
    with _Source(dataset, given) as source, open_(folder) as hub:
        _make(hub, name, source, ev)
        with started(serve_hub(hub, [name]), options) as service:
            say(f"replay of {dataset or given['stream']} at {service.url}; data in {folder}; Ctrl-C ends")
            stream = hub.streams.get(name, create=False)
            first = stream.next_offset
            try:
                source.stream(stream)
                sent = stream.next_offset - first
                say(f"all is replayed: {out.rows_text(sent)}" + ("" if exits else "; serving on"))
                if not sent and not exits and first:
                    say("it was replayed before; --again begins anew")
                if not exits:
                    service.wait()
            except (KeyboardInterrupt, Terminated):
                say(f"stopped; {out.rows_text(stream.next_offset - first)} sent")
                raise


class _Source:
    """The rows, and the hub they are in, if they are in one."""

    def __init__(self, dataset: str | None, given: dict[str, Any]) -> None:
        self._dataset, self._given = dataset, given
        self._hub: Hub | None = None

    def __enter__(self) -> Dataset:
        from penstock.connect import Dataset
        from penstock.connect.samples import emini_trades, market

        given = self._given
        options: dict[str, Any] = {
            "pace": given["pace"],
            "time": given["time_column"],
            "tz": given["tz"],
            "start": given["start"],
            "stop": given["stop"],
            "loop": given["loop"] or None,
            "resume": not given["again"],
            "rename": dict(map(_pair, given["rename"])) or None,
        }
        if given["schema"] is not None:
            from penstock.cli.stream.schemas import schema_of

            options["schema"] = schema_of(given["schema"])
        if given["stream"] is not None:
            return self._of_stream(given, options)
        if self._dataset in DATASETS:
            batches = emini_trades() if self._dataset == "emini" else market()
            return Dataset(batches, name=self._dataset, **options)
        return Dataset(str(self._dataset), **options)

    def _of_stream(self, given: dict[str, Any], options: dict[str, Any]) -> Dataset:
        from penstock.cli.hubs import where_of
        from penstock.connect import Dataset
        from penstock.hub import open as open_
        from penstock.records import is_document

        self._hub = open_(where_of(given["hub"]), create=False)
        stream = self._hub.streams.get(given["stream"], create=False)
        if is_document(stream.schema):
            raise UsageError(
                expected="a stream with columns",
                got=f"{stream.name!r}, which has documents",
                hint="`penstock plant serve` serves it as it is",
            )
        options.setdefault("schema", stream.schema)
        rows = _Batches(lambda: (chunk.batch for chunk in stream.chunks("start")))
        return Dataset(rows, name=f"{self._hub.path}#{stream.name}", **options)

    def __exit__(self, *_: object) -> None:
        if self._hub is not None:
            self._hub.close()


class _Batches:
    """Batches that can be read more than once."""

    def __init__(self, make: Any) -> None:
        self._make = make

    def __iter__(self) -> Iterator[Any]:
        return iter(self._make())


def _pair(text: str) -> tuple[str, str]:
    old, equals, new = text.partition("=")
    if not equals or not old or not new:
        raise UsageError(expected="OLD=NEW", got=repr(text), where="in --rename")
    return old, new


def _name(dataset: str) -> str:
    found = Path(dataset).name.split(".")[0].strip("*?[]")
    return found or "replay"


def _make(hub: Hub, name: str, source: Dataset, ev: str | None) -> None:
    """The stream, with the columns of the source."""
    attributes = None if ev is None else {"event": ev}
    hub.streams.get(name, schema=source.schema, attributes=attributes)

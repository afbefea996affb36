"""`penstock stream ls` and `info`: what there is, how it grows, who reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from penstock.cli import out
from penstock.cli.hubs import open_hub, recent, stream_names
from penstock.cli.outcome import say
from penstock.cli.tree import shared

if TYPE_CHECKING:
    from penstock.hub import Hub
    from penstock.log import Stream

__all__ = ["facts_of", "groups_of", "groups_table", "info", "ls"]


@click.command(short_help="List streams.")
@click.argument("pattern", default="*")
@shared()
def ls(pattern: str, hub: str | None, as_json: bool) -> None:
    """List streams whose names match PATTERN (a shell pattern, default all).

    RATE is that of the last appends, within ten seconds. Behind a group stands how many rows it has still to do.
    """
    from penstock.clock import WALL
    from penstock.errors import PenstockError

    with open_hub(hub) as opened:
        names = opened.streams.list(pattern)
        now, rows = WALL.now_ns(), []
        failed: PenstockError | None = None
        for name in names:
            try:
                facts = facts_of(opened, name)
            except PenstockError as error:  # the others are still worth listing
                failed = error
                say(f"warning: {error}")
                continue
            if as_json:
                out.print_json(facts)
                continue
            lags = ", ".join(f"{group} {out.count(place['lag'])}" for group, place in facts["groups"].items())
            kind = str(facts["kind"]).removeprefix("stream.")
            last = out.age(facts["last_append_ns"], now)
            numbers = [out.count(facts["rows"]), out.size(facts["bytes"]), out.rate(facts["rate"])]
            rows.append([name, kind, *numbers, last, lags or "-"])
        if rows:
            header = ["STREAM", "KIND", "ROWS", "SIZE", "RATE", "LAST APPEND", "GROUPS (LAG)"]
            out.write(out.grid(header, rows, right=(2, 3, 4)))
        elif not names:
            what = "no streams" if pattern == "*" else f"no streams like {pattern!r}"
            say(f"{what} in {opened.path}")
        if failed is not None:
            click.get_current_context().exit(1)


def facts_of(hub: Hub, name: str) -> dict[str, Any]:
    """What `ls` and `info` tell of a stream, in JSON's types."""
    from penstock.clock import iso

    stream = hub.streams.get(name, create=False)
    metadata = stream.metadata()
    latest = recent(hub.streams.path(name))
    return {
        "name": name,
        "kind": metadata.kind,
        "rows": metadata.rows,
        "bytes": metadata.bytes,
        "first_offset": metadata.first_offset,
        "next_offset": metadata.next_offset,
        "segments": metadata.segments,
        "created": metadata.created.isoformat(),
        "last_append": None if latest.last_ns is None else iso(latest.last_ns),
        "last_append_ns": latest.last_ns,
        "rate": latest.rate,
        "groups": groups_of(stream),
    }


def groups_of(stream: Stream) -> dict[str, dict[str, int]]:
    """Per group its `offset`, `lag` and `low`.

    offset  up to which all that rows could bring about is done;  lag  how many rows follow it
    low     the lowest row that it may need again, because a window that is still open began there
    """
    metadata = stream.metadata()
    found = {}
    for name, low in metadata.groups.items():
        offset = max(stream.position(name).offset, low)
        found[name] = {"offset": offset, "lag": max(0, metadata.next_offset - offset), "low": low}
    return found


def _flat(attributes: dict[str, Any]) -> dict[str, str]:
    """Attributes as texts; those that are objects member by member."""
    import msgspec

    found: dict[str, str] = {}
    for key, value in attributes.items():
        members = (
            {f"{key}.{name}": member for name, member in value.items()} if isinstance(value, dict) else {key: value}
        )
        for name, member in members.items():
            found[name] = member if isinstance(member, str) else msgspec.json.encode(member).decode()
    return found


def groups_table(groups: dict[str, dict[str, int]]) -> str:
    """What `groups_of` found, as text."""
    rows = [[name, *(out.count(place[key]) for key in ("offset", "lag", "low"))] for name, place in groups.items()]
    return out.grid(["GROUP", "DONE TO", "LAG", "NEEDS FROM"], rows, right=(1, 2, 3))


@click.command(short_help="Show all about one stream.")
@click.argument("name", shell_complete=stream_names)
@shared()
def info(name: str, hub: str | None, as_json: bool) -> None:
    """Show all about the stream NAME: schema, attributes, offsets, segments, groups, how it is kept."""
    from penstock.log.meta import Meta

    with open_hub(hub) as opened:
        metadata = opened.streams.metadata(name)
        options = Meta.load(opened.streams.path(name)).options
        facts = {**facts_of(opened, name), "schema": metadata.as_dict()["schema"], "attributes": metadata.attributes}
    keep = options.retention
    facts["durability"] = options.durability
    facts["retention"] = {"age_s": None, "bytes": keep.max_bytes, "until": keep.until}
    if keep.age_ns is not None:
        facts["retention"]["age_s"] = keep.age_ns / 1e9
    facts["segment_bytes"] = options.segment_bytes
    facts["max_row_bytes"] = options.max_row_bytes
    facts["max_batch_bytes"] = options.max_batch_bytes
    if as_json:
        out.print_json(facts)
    else:
        out.write(_page(facts))


def _page(facts: dict[str, Any]) -> str:
    from penstock.clock import WALL

    keep = facts["retention"]
    limits = [] if keep["age_s"] is None else [f"{keep['age_s']:,.0f} s"]
    limits += [] if keep["bytes"] is None else [out.size(keep["bytes"])]
    limits += [] if keep["until"] is None else [f"what group {keep['until']!r} has done"]
    offsets = f"{out.count(facts['first_offset'])} to {out.count(facts['next_offset'])}"
    segments = "1 segment" if facts["segments"] == 1 else f"{facts['segments']} segments"
    last = facts["last_append"]
    lines = {
        "stream": facts["name"],
        "kind": facts["kind"],
        "created": facts["created"],
        "rows": f"{out.count(facts['rows'])}, offsets {offsets}",
        "size": f"{out.size(facts['bytes'])} in {segments} of at most {out.size(facts['segment_bytes'])}",
        "last append": "-" if last is None else f"{last} ({out.age(facts['last_append_ns'], WALL.now_ns())})",
        "rate": out.rate(facts["rate"]),
        "durability": facts["durability"],
        "retention": " and ".join(limits) or "everything is kept",
    }
    text = "".join(f"{key:<13}{value}\n" for key, value in lines.items())
    for title, entries in (("attributes", _flat(facts["attributes"])), ("columns", facts["schema"])):
        if entries:
            wide = max(map(len, entries))
            text += f"\n{title}\n" + "".join(f"  {key:<{wide}}  {value}\n" for key, value in entries.items())
    if facts["groups"]:
        text += "\n" + groups_table(facts["groups"])
    return text

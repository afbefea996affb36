"""`penstock tail`: messages of a plant, a line each."""

from __future__ import annotations

import json
from typing import Any

import click

from penstock.cli import out
from penstock.cli.outcome import say
from penstock.cli.plant.options import ca_of, count_option, log_option, subscribing
from penstock.cli.stream.when import WHEN, when
from penstock.cli.tree import json_option

__all__ = ["tail"]


@click.command(short_help="Print the messages of a plant.")
@subscribing("--uri", "*")
@click.option("--since", metavar=WHEN, help="First what was sent since then.  [default: only what comes]")
@click.option("--seq", is_flag=True, help="With the stream and the offset of each message.")
@click.option("--snapshot", is_flag=True, help="First the latest message of each symbol.")
@click.option(
    "--conflate",
    metavar="MS",
    is_flag=False,
    flag_value="0",
    type=click.IntRange(0, 3_600_000),
    help="Only the latest of each symbol: at most every MS ms, or, without a number, whenever this is behind.",
)
@click.option("--plain", is_flag=True, help="Say only the market's own words, to servers that know no others.")
@click.option("--statuses", is_flag=True, help="Print statuses, too.")
@count_option("messages")
@click.option("--timeout", metavar="SECONDS", type=click.FloatRange(min=0), help="End when nothing came for so long.")
@json_option
@log_option
def tail(
    uri: str,
    patterns: str,
    token: str | None,
    ca: str | None,
    since: str | None,
    conflate: int | None,
    statuses: bool,
    count: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Print what a plant sends, a JSON object on a line, as it came.

    When the plant restarts, it goes on behind the last message: nothing is missed, and nothing comes twice.
    """
    from penstock.plant import subscribe

    line = _compact if as_json else _spaced
    told = _Told(uri, line if statuses else None)
    subscription = subscribe(
        uri,
        patterns,
        token=token,
        tls=ca_of(ca),
        since=when(since),
        conflate=False if conflate is None else conflate or True,
        on_status=told,
        on_lost=lambda text: say(f"{text}; looking for it"),
        **options,
    )
    left = count
    with subscription:
        for found in subscription.frames():
            assert isinstance(found, list)
            messages = found if left is None else found[:left]
            out.write(b"".join(map(line, messages)))
            if left is not None:
                left -= len(messages)
                if not left:
                    return


def _spaced(message: dict[str, Any]) -> bytes:
    return json.dumps(message, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def _compact(message: dict[str, Any]) -> bytes:
    import msgspec

    return msgspec.json.encode(message) + b"\n"


class _Told:
    """Statuses: what people should know goes to stderr."""

    def __init__(self, uri: str, line: Any) -> None:
        self._uri, self._line = uri, line
        self._connections = 0

    def __call__(self, status: dict[str, Any]) -> None:
        kind = status.get("status")
        if self._line is not None:
            out.write(self._line(status))
        if kind == "connected":
            self._connections += 1
            if self._connections > 1:
                say(f"connected again to {self._uri}")
        elif kind not in ("auth_success", "success", "auth_failed", "error", "max_connections"):
            say(f"the plant says {kind}: {status.get('message', '')}")

"""`penstock plant ask`: a question to the handler behind a plant."""

from __future__ import annotations

from typing import Any

import click

from penstock.cli import out
from penstock.cli.plant.options import log_option

__all__ = ["ask"]


@click.command(short_help="Ask the handler behind a plant.")
@click.argument("question")
@click.option("--uri", metavar="URL", default="ws://127.0.0.1:5001", show_default=True, help="Of the handler's plant.")
@click.option("--token", metavar="KEY", help="Key of the plant.  [default: $PENSTOCK_TOKEN]")
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    show_default=True,
    help="How long the answer may take.",
)
@log_option
def ask(question: str, uri: str, token: str | None, timeout: float) -> None:
    """Ask the handler's onask, and print what it answers as JSON. QUESTION is JSON, or any other text as it is."""
    from penstock.plant.ask import ask as ask_

    out.print_json(ask_(uri, _value(question), token=token, timeout=timeout))


def _value(text: str) -> Any:
    import msgspec

    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text

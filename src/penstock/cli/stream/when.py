"""Where to begin and end: "start", "end", an offset or a time, as it is typed."""

from __future__ import annotations

__all__ = ["COLUMNS", "WHEN", "columns_of", "when"]

WHEN = "start|end|OFFSET|TIME"
COLUMNS = 'Columns, such as "symbol,price"; "_offset" and "_created" may be among them.'


def when(text: str | None) -> int | str | None:
    """What the log takes: a number for an offset, else the text, which it reads as "start", "end" or a time."""
    if text is None:
        return None
    try:
        return int(text.replace("_", "").replace(",", ""))
    except ValueError:
        return text


def columns_of(text: str | None) -> list[str] | None:
    """The names of a list with commas."""
    if text is None:
        return None
    return [name.strip() for name in text.split(",") if name.strip()]

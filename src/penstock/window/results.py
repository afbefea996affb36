"""Where the results of a consumer go: into a stream, its errors to `<stream>.errors`, late rows to `<stream>.late`.

Each append carries the place in the input it was made from, so that what is there is also known to be done.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable
from typing import Any

import pyarrow as pa

from penstock.errors import UnknownStream
from penstock.log import Stream
from penstock.records import ERRORS
from penstock.window.history import Output
from penstock.window.pending import Rows

__all__ = ["Place", "Results", "text_of"]

Place = tuple[int, int]
"""(position, index) of a window; they grow along a run."""


class Results:
    """The outlets of one run.

    Takes   into: gives the stream for results, made if need be; who: the name that results carry (`History.who`).
    """

    def __init__(
        self,
        stream: Stream,
        group: str,
        who: str,
        *,
        into: Callable[[], Stream] | None,
        open_stream: Callable[..., Stream],
    ) -> None:
        self._name, self._group, self._who = stream.name, group, who
        self._open_stream = open_stream
        self._into = None if into is None else Output(into)
        self._errors = Output(lambda: open_stream(f"{self._name}.errors", schema=ERRORS))
        self._late: Output | None = None
        self._late_schema: pa.Schema | None = None
        found = self._last(f"{self._name}.late", self._late_who)
        self._late_from = 0 if found is None else found[0]

    @property
    def is_wanted(self) -> bool:
        """Whether results go anywhere."""
        return self._into is not None

    def done(self, committed: Place) -> Place:
        """The last place of those committed and those that left a result or an error."""
        found = [committed, self._last(f"{self._name}.errors", self._who)]
        if self._into is not None:
            found.append(self._into.stream.last_origin(self._who))
        return max(place for place in found if place is not None)

    def put(self, result: Any, place: Place) -> int:
        """Append a result; returns its number of rows."""
        assert self._into is not None
        return len(self._into.append(result, (self._who, *place)))

    def tell(self, error: Exception, place: Place, rows: range, key: Any, attempts: int) -> None:
        """Append an error, which the rows of this span of offsets led to."""
        row = {
            "stream": self._name,
            "consumer": self._group,
            "first_offset": rows.start,
            "next_offset": rows.stop,
            "key": None if key is None else _clean(str(key)),
            "error": type(error).__name__,
            "message": _clean(text_of(error)),
            "detail": _clean("".join(traceback.format_exception(error)))[-20_000:],
            "attempts": attempts,
        }
        self._errors.append([row], (self._who, *place))

    def put_late(self, pieces: Iterable[Rows]) -> None:
        """Append late rows, each once."""
        for rows in pieces:
            keep = rows.offsets >= self._late_from
            batch = rows.batch if keep.all() else rows.batch.filter(pa.array(keep))
            if batch.num_rows:
                if self._late is None or self._late_schema is None or not self._late_schema.equals(batch.schema):
                    self._late, self._late_schema = Output(self._late_opener(batch.schema)), batch.schema
                self._late.append(batch, (self._late_who, int(rows.offsets[-1]) + 1, 0))

    def _late_opener(self, schema: pa.Schema) -> Callable[[], Stream]:
        return lambda: self._open_stream(f"{self._name}.late", schema=schema)

    @property
    def _late_who(self) -> str:
        # A name of its own: results may go to the same stream, and late rows run ahead of the windows.
        return f"{self._who}\0late"

    def _last(self, name: str, who: str) -> Place | None:
        try:
            return self._open_stream(name, create=False).last_origin(who)
        except UnknownStream:
            return None


def text_of(error: BaseException) -> str:
    """`str(error)`, also of one that has none."""
    try:
        return str(error)
    except Exception:
        return "(its text cannot be made)"


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()

"""Everything that can go wrong, as one tree.

    PenstockError
    ├── UsageError (ValueError)        a call that cannot be meant: unknown option, bad unit, empty name
    ├── RecordError (ValueError)       data that does not fit
    │   ├── TypeMismatch (TypeError)   a value of another type than its column
    │   ├── SchemaMismatch             a schema that is not the stream's and does not widen it
    │   └── RowTooLarge                one row over the stream's limit
    ├── StreamError                    a stream that cannot do what was asked
    │   ├── UnknownStream (KeyError)
    │   ├── OffsetError (IndexError)   negative, or already expired
    │   └── GroupBusy                  another consumer holds the group
    ├── StorageError                   the disk, not the data
    │   ├── CorruptSegment             bytes that are not what was written
    │   ├── CorruptFile                the same, of a table's data file
    │   ├── DiskFull (OSError)
    │   └── ReadOnly (OSError)
    ├── WindowError                    a window or bar definition that cannot work
    ├── ConsumerFailed                 the user's function raised and `on_error="stop"`
    ├── FactorError                    a factor that cannot be built or run
    ├── CompileError                   code of ours that LLVM refuses, or lacks: please report it
    ├── HandlerError                   a handler that cannot be loaded, or whose worker cannot be kept alive
    ├── StoreError                     a table or key that cannot do what was asked
    │   ├── KeyNotFound (KeyError)     no such table, or no such key in it
    │   └── FrameTooLarge              a frame over the memory that there is for frames
    └── SourceError                    a feed, a file or a package that cannot be read

Each error keeps its facts as attributes (`expected`, `got`, `where`, `hint`, and what its class names);
`str(error)` makes the one sentence: expected, got, where, next step.
"""

from __future__ import annotations

__all__ = [
    "CompileError",
    "ConsumerFailed",
    "CorruptFile",
    "CorruptSegment",
    "DiskFull",
    "FactorError",
    "FrameTooLarge",
    "GroupBusy",
    "HandlerError",
    "KeyNotFound",
    "OffsetError",
    "PenstockError",
    "PenstockWarning",
    "ReadOnly",
    "RecordError",
    "RowTooLarge",
    "SchemaMismatch",
    "SourceError",
    "StorageError",
    "StoreError",
    "StreamError",
    "TypeMismatch",
    "UnknownStream",
    "UsageError",
    "WindowError",
]


class PenstockError(Exception):
    """Base of all. Give either `problem`, or `expected` and `got`.

    Takes   problem: the sentence's first half when "expected X, got Y" would not say it;
            expected, got: texts (values already by `repr`);
            where: place with its preposition ("at trades[3].price", "in stream 'trades'");
            hint: the next step; facts: further attributes of the error.
    """

    def __init__(
        self,
        problem: str | None = None,
        *,
        expected: str | None = None,
        got: str | None = None,
        where: str | None = None,
        hint: str | None = None,
        **facts: object,
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.expected = expected
        self.got = got
        self.where = where
        self.hint = hint
        for name, value in facts.items():
            setattr(self, name, value)

    def __str__(self) -> str:
        parts = [self.problem] if self.problem else []
        if self.expected is not None:
            parts.append(f"expected {self.expected}, got {self.got}")
        text = ": ".join(parts)
        if self.where:
            text += f" - {self.where}"
        if self.hint:
            text += f"; {self.hint}"
        return text

    # Facts live in __dict__, so the default reduce (class, args, __dict__) brings all of them to another process.


class UsageError(PenstockError, ValueError):
    """A call that cannot be meant."""


class RecordError(PenstockError, ValueError):
    """Data that does not fit where it was put."""


class TypeMismatch(RecordError, TypeError):
    """A value whose type is not its column's."""


class SchemaMismatch(RecordError):
    """A schema that is neither the stream's nor a widening of it; `column`, `stream` say where."""


class RowTooLarge(RecordError):
    """One row larger than the stream accepts; `size`, `limit` in bytes."""


class StreamError(PenstockError):
    """A stream that cannot do what was asked."""


class UnknownStream(StreamError, KeyError):
    """No stream of that name; `near` holds similar names."""

    __str__ = PenstockError.__str__  # KeyError would show the repr


class OffsetError(StreamError, IndexError):
    """An offset that was never given or is no longer kept."""


class GroupBusy(StreamError):
    """Another consumer holds this group; `pid` is its process."""


class StorageError(PenstockError):
    """The disk could not do its part; what was acknowledged before stays."""


class CorruptSegment(StorageError):
    """Stored bytes are not what was written; `file`, `position`, `first`, `stop` (offsets) say which."""


class CorruptFile(StorageError):
    """A table's data file is not what was written; `table`, `file` say which. Other files are read as before."""


class DiskFull(StorageError, OSError):
    """No space left. `kept`: offsets of those parts of a large table that were committed; the rest left no trace."""

    __str__ = PenstockError.__str__


class ReadOnly(StorageError, OSError):
    """The folder cannot be written to."""

    __str__ = PenstockError.__str__


class WindowError(PenstockError, ValueError):
    """A window, bar or session definition that cannot work."""


class ConsumerFailed(PenstockError):
    """The consumer's function raised; the cause is chained, `offsets` names the window."""


class FactorError(PenstockError, ValueError):
    """A factor that cannot be built or run."""


class CompileError(PenstockError):
    """Generated code that LLVM refuses, or that lacks a function: a mistake of ours, not of the caller."""


class HandlerError(PenstockError):
    """A handler that cannot be loaded, or whose worker cannot be kept alive."""


class StoreError(PenstockError):
    """A table that cannot do what was asked."""


class KeyNotFound(StoreError, KeyError):
    """No table of that name, or no such key in it; `near` holds similar ones."""

    __str__ = PenstockError.__str__  # KeyError would show the repr


class FrameTooLarge(StoreError):
    """A frame larger than the memory there is for frames; `size`, `limit` in bytes. It was not read."""


class SourceError(PenstockError):
    """A source or sink that cannot be read or written."""


class PenstockWarning(UserWarning):
    """Something was repaired, dropped or degraded; the text says what and how much."""

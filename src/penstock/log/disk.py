"""What the file system says, as this package's errors."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from penstock.errors import DiskFull, ReadOnly, StorageError

__all__ = ["replacing", "storage", "storage_error", "sync_folder"]

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def storage_error(error: OSError, folder: Path, wanted: str, *, kept: range | None = None) -> StorageError:
    """The DiskFull, ReadOnly or StorageError that says what `error` means.

    Takes   folder: where it happened; wanted: what there should have been room for ("512 bytes", "a new stream");
            kept: offsets that the refused call had committed before; the error's `kept`.
    """
    where = f"in {folder}"
    kept = range(0) if kept is None else kept
    if error.errno in FULL:
        held = "nothing of this was kept; free some space, or set a retention, and try again"
        if kept:
            held = f"offsets {kept.start} to {kept.stop} were kept; free some space and append the rest"
        free = "no room"
        with contextlib.suppress(OSError):
            stat = os.statvfs(folder)
            free = f"{stat.f_bavail * stat.f_frsize} bytes free"
        found: StorageError = DiskFull(expected=f"room for {wanted}", got=free, where=where, hint=held, kept=kept)
    elif error.errno in FORBIDDEN:
        found = ReadOnly(
            expected="a writable folder",
            got=repr(os.strerror(error.errno or 0)),
            where=where,
            hint="reading works; to write, change the folder's permissions or copy the hub",
        )
    else:
        found = StorageError(
            expected=f"the file system to take {wanted}",
            got=str(error),
            where=where,
            hint="look at the disk",
            kept=kept,
        )
    found.__cause__ = error
    return found


@contextlib.contextmanager
def storage(folder: Path, wanted: str) -> Iterator[None]:
    """Turn what the file system refuses into `storage_error`; FileNotFoundError passes, its meaning is the caller's."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise storage_error(error, folder, wanted) from error


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def replacing(path: Path, temporary: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of `path` in one step, durably, when the block ends; if it raises, nothing changes.

    Takes   temporary: where it is written meanwhile, on the same file system.
    """
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)

"""Where data files lie: a folder of this machine; `remote.RemoteFiles` is the same for an object store."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from penstock.log.disk import storage, sync_folder

__all__ = ["Files", "LocalFiles"]


class Files(Protocol):
    """Where data files lie: a folder, or an object store."""

    def source(self, path: str) -> Any: ...

    def write(self, path: str, data: pa.Buffer) -> None: ...


@dataclass(frozen=True, slots=True)
class LocalFiles:
    """A folder of this machine."""

    folder: Path

    def source(self, path: str) -> Any:
        """What pyarrow reads. Raises FileNotFoundError."""
        return pa.OSFile(f"{self.folder}/{path}", "rb")

    def write(self, path: str, data: pa.Buffer) -> None:
        """Write a new file so that it survives a lost power supply."""
        target = self.folder / path
        with storage(self.folder, f"a data file of {data.size} bytes"):
            made = not target.parent.exists()
            target.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            try:
                view = memoryview(data)
                while len(view):
                    view = view[os.write(fd, view) :]
                os.fsync(fd)
            except BaseException:
                target.unlink(missing_ok=True)
                raise
            finally:
                os.close(fd)
            sync_folder(target.parent)
            if made:
                sync_folder(self.folder)

"""The command line, as a process and in this one."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock.hub import Hub
from penstock_tests.waiting import PATIENCE_S

SRC = str(Path(penstock.__file__).parent.parent)


@dataclass(frozen=True)
class Ran:
    """What a call did."""

    code: int
    out: str
    err: str
    raw: bytes = b""

    @property
    def json(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to stand in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def hub(place: Path) -> Iterator[Hub]:
    """The default hub of that folder."""
    with penstock.open(place / "penstock-data") as opened:
        yield opened


class _Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def call(place: Path) -> Callable[..., Ran]:
    """`call("stream", "ls")` runs the command in this process; `terminal`: stdin and stdout are terminals."""
    from penstock.cli import main

    def run(*args: object, stdin: bytes = b"", terminal: bool = False) -> Ran:
        kind = _Terminal if terminal else io.TextIOWrapper
        given = kind(io.BufferedReader(io.BytesIO(stdin)), "utf-8")  # type: ignore[arg-type]
        out = kind(io.BytesIO(), "utf-8", write_through=True)
        err = io.StringIO()
        before = sys.stdin
        sys.stdin = given
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = main([str(arg) for arg in args])
        finally:
            sys.stdin = before
        raw = out.buffer.getvalue()  # type: ignore[attr-defined]
        return Ran(code, raw.decode("utf-8", "replace"), err.getvalue(), raw)

    return run


def environment(**more: str) -> dict[str, str]:
    """For processes: this package, and nothing that changes how output looks."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_") and k not in ("NO_COLOR", "COLUMNS")}
    path = [SRC, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**kept, "PYTHONPATH": os.pathsep.join(path), **more}


@pytest.fixture(name="environment")
def environment_of_processes() -> Callable[..., dict[str, str]]:
    """`environment(NAME="value")`: for processes of this package."""
    return environment


@pytest.fixture
def spawn(place: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """`spawn("stream", "tail", "x")` starts the command as a process with pipes; it is ended with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*args: object, stdout: Any = subprocess.PIPE, **more: str) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        command = [sys.executable, "-m", "penstock", *map(str, args)]
        process = subprocess.Popen(command, stdin=pipe, stdout=stdout, stderr=pipe, cwd=place, env=environment(**more))
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


@pytest.fixture
def shell(spawn: Callable[..., subprocess.Popen[bytes]]) -> Callable[..., Ran]:
    """`shell("stream", "ls")` runs the command as a process to its end."""

    def run(*args: object, stdin: bytes = b"", **more: str) -> Ran:
        process = spawn(*args, **more)
        out, err = process.communicate(stdin, timeout=PATIENCE_S)
        return Ran(process.returncode, out.decode(), err.decode(), out)

    return run

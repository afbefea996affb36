"""Commands of the plant as processes: where they serve, what they print, how they end."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from penstock_tests.waiting import PATIENCE_S, until


def url_of(process: subprocess.Popen[bytes]) -> str:
    """Where it serves, as it says on stderr."""
    assert process.stderr is not None
    said = b""
    for line in process.stderr:
        said += line
        if b" at ws" in line:
            return line.split(b" at ")[1].split(b";")[0].split(b": ")[0].decode()
    raise AssertionError(said.decode())


def lines(process: subprocess.Popen[bytes], count: int) -> list[Any]:
    assert process.stdout is not None
    return [json.loads(process.stdout.readline()) for _ in range(count)]


def ended(process: subprocess.Popen[bytes], number: int) -> tuple[int, str]:
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, err.decode()


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    """Helpers: tests of one folder cannot import from one another."""
    average = Path(__file__).parents[3] / "examples" / "avg.kg"
    return SimpleNamespace(AVERAGE=average, url_of=url_of, lines=lines, ended=ended, wait_until=until)

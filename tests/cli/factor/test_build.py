from __future__ import annotations

import ctypes
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock import factor as f

Call = Callable[..., Any]


def test_a_library(call: Call, mine: Path, place: Path, need: Callable[[object, str], None]) -> None:
    need(shutil.which("cc"), "a linker")
    found = call("factor", "build", "mine.py", "-o", "libmine.so", "--dtype", "float32")
    assert found.code == 0
    lines = dict(line.split(None, 1) for line in found.out.splitlines())
    program = f.compile(
        {"reversal": "-rank(ts_delta(close, 5))", "trend": "close / mean(close, 10) - 1"}, dtype="float32"
    )
    assert lines["library"] == "libmine.so"
    assert lines["header"] == "penstock.h"
    assert lines["digest"] == program.digest
    assert found.err.startswith("penstock: compile with cc ")
    assert ctypes.CDLL(str(place / "libmine.so")).ps_program_open
    assert "ps_program_open" in (place / "penstock.h").read_text()


def test_an_object_and_a_header(call: Call, place: Path) -> None:
    args = ["-e", "x = rank(close)", "--cpu", "baseline", "--prefix", "mine", "--json"]
    (found,) = call("factor", "build", *args, "-o", "x.o", "--header", "inc.h").json
    assert (found["library"], found["object"], found["header"]) == (None, "x.o", "inc.h")
    assert (place / "x.o").read_bytes()[:4] == b"\x7fELF"
    assert "mine_program_open" in (place / "inc.h").read_text()
    (found,) = call("factor", "build", *args, "-o", "y.h").json
    assert (found["library"], found["object"], found["header"]) == (None, None, "y.h")


@pytest.mark.parametrize(
    "args, code, message",
    [
        (["-e", "close"], 2, "missing option '-o'"),
        (["-o", "x.so"], 2, "no factors are given"),
        (["-e", "close", "-o", "x.dat"], 1, "expected a file that ends in .so, .o or .h, got 'x.dat'"),
        (["-e", "close", "-o", "x.o", "--cpu", "z80"], 1, "got 'z80'"),
        (["-e", "close", "-o", "no/x.o"], 1, "there is no folder 'no' to put 'x.o' into"),
    ],
    ids=range(5),
)
def test_bad_calls(call: Call, args: list[str], code: int, message: str) -> None:
    found = call("factor", "build", *args)
    assert (found.code, found.out) == (code, "")
    assert message in found.err
    assert len(found.err.splitlines()) == 1

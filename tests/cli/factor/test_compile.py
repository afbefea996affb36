from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock import factor as f

Call = Callable[..., Any]


def test_what_came_out(call: Call, mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "code"))
    found = call("factor", "compile", "mine.py", "--dtype", "float32", "--checked")
    assert (found.code, found.err) == (0, "")
    lines = dict(line.split(None, 1) for line in found.out.splitlines())
    assert lines["factors"] == "2: reversal, trend"
    assert lines["inputs"] == "close"
    assert lines["warm"] == "after 9 rows"
    assert lines["engine"] == "llvm, float32"
    assert lines["state"] == "36 B per symbol, 9 values"
    (again,) = call("factor", "compile", "mine.py", "--dtype", "float32", "--json").json
    program = f.compile(
        {"reversal": "-rank(ts_delta(close, 5))", "trend": "close / mean(close, 10) - 1"}, dtype="float32"
    )
    assert again["cached"]
    assert again["file"] in lines["code"]
    assert Path(again["file"]).parent == tmp_path / "code"
    assert Path(again["file"]).stat().st_size > again["code_bytes"] > 0
    assert (again["digest"], again["lookback"], again["inputs"]) == (program.digest, program.lookback, ["close"])
    assert (again["state_values"], again["state_bytes"], again["stages"]) == (9, 36, 3)


def test_without_a_cache(call: Call, mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_CACHE", "")
    assert "kept nowhere" in call("factor", "compile", "mine.py").out


def test_the_other_engine(call: Call) -> None:
    (found,) = call("factor", "compile", "-e", "ts_ema(close, 5)", "--engine", "numpy", "--json").json
    assert (found["engine"], found["code_bytes"], found["file"], found["cached"]) == ("numpy", None, None, False)
    assert "1 never forget" in call("factor", "compile", "-e", "ts_ema(close, 5)", "--engine", "numpy").out


def test_a_library(call: Call) -> None:
    found = call("factor", "compile", "alpha158", "--engine", "numpy")
    assert "158: KMID, KLEN, KMID2, KUP … VSUMD60" in found.out


def test_without_llvmlite(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "llvmlite" else real(name, *a))
    found = call("factor", "compile", "-e", "close", "--engine", "llvm")
    assert (found.code, found.err) == (
        2,
        "penstock: the engine llvm needs llvmlite; pip install llvmlite, or --engine numpy\n",
    )


@pytest.mark.parametrize(
    "args, code, message",
    [
        (["-e", "ts_mean(close, 0)"], 2, "n must be at least 1, got 0"),
        (["-e", "close = close"], 1, "'close' is an input and an output; give the factor another name"),
        (["-e", "close", "--dtype", "float16"], 2, "invalid value for '--dtype'"),
        (["-e", "close", "--engine", "cuda"], 2, "invalid value for '--engine'"),
        (["a.py"], 2, "expected a file of factors, got none of that name - at a.py"),
    ],
    ids=range(5),
)
def test_bad_calls(call: Call, args: list[str], code: int, message: str) -> None:
    found = call("factor", "compile", *args)
    assert (found.code, found.out) == (code, "")
    assert message in found.err


def test_as_a_process(shell: Call, mine: Path) -> None:
    found = shell("factor", "compile", "mine.py", "--json")
    assert (found.code, found.err) == (0, "")
    assert found.json[0]["outputs"] == ["reversal", "trend"]
    assert shell("factor", "compile", "nothing.py").code == 2

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from penstock import factor as f

Call = Callable[..., Any]


def test_libraries(call: Call) -> None:
    found = call("factor", "list")
    assert (found.code, found.err) == (0, "")
    assert found.out.splitlines()[1] == "alpha101      101  the 101 formulas of arXiv 1601.00991"
    assert [(one["name"], one["factors"]) for one in call("factor", "list", "--json").json] == [
        ("alpha101", 101),
        ("alpha158", 158),
        ("alpha360", 360),
        ("ta", len(f.library("ta"))),
    ]


def test_factors(call: Call, mine: Path) -> None:
    found = call("factor", "list", "alpha101:alpha012", "mine.py", "ta:ema")
    assert (found.code, found.err) == (0, "")
    lines = found.out.splitlines()
    assert lines[0].split() == ["NAME", "LOOKBACK", "INPUTS", "FORMULA"]
    assert lines[1].split(None, 4)[:4] == ["alpha012", "1", "volume,", "close"]
    assert "sign(delta(volume, 1)) * (-1 * delta(close, 1))" in lines[1]
    assert lines[3].split(None, 3) == ["trend", "9", "close", "close / ts_mean(close, n=10) - 1"]
    assert "+" in lines[4].split()[1]
    assert call("factor", "list", "mine.py", "--json").json[1] == {
        "name": "trend",
        "formula": "close / ts_mean(close, n=10) - 1",
        "source": None,
        "inputs": ["close"],
        "lookback": 9,
        "endless": False,
    }
    assert len(call("factor", "list", "alpha360", "--json").json) == 360


def test_a_terminal_is_not_overrun(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    found = call("factor", "list", "alpha101:alpha00*", terminal=True)
    assert max(map(len, found.out.splitlines())) == 80
    assert "\033" not in found.out


def test_operators(call: Call) -> None:
    found = call("factor", "list", "--operators")
    assert len(found.out.splitlines()) == len([n for n in f.operators()]) + 1
    assert call("factor", "list", "--operators", "stddev", "ts_m[ai]n", "--json").json == [
        {
            "name": "ts_min",
            "call": "ts_min(x, n)",
            "kind": "windowed",
            "summary": "The smallest of the last n rows; the older of equal zeros.",
            "aliases": ["Min", "rolling_min"],
            "nan": "NaN while the window holds one",
        },
        *call("factor", "list", "--operators", "ts_std", "--json").json,
    ]
    found = call("factor", "list", "--operators", "ts_men")
    assert (found.code, found.out) == (2, "")
    assert "there is no operator 'ts_men'; did you mean ts_mean" in found.err
    found = call("factor", "list", "--operators", "-e", "close")
    assert (found.code, found.err) == (2, "penstock: --operators lists operators, not expressions; leave -e out\n")


def test_passes(call: Call) -> None:
    found = call("factor", "explain", "alpha101:alpha003", "alpha101:alpha012")
    program = f.compile(f.library("alpha101").select("alpha003", "alpha012"))
    assert found.out == "\n".join(f"{program.explain(name)}\n" for name in program.outputs)
    (one,) = call("factor", "explain", "alpha101:alpha012", "--json").json
    assert (one["factor"], one["lookback"], one["endless"]) == ("alpha012", 1, False)
    assert [step["pass"] for step in one["passes"]] == ["written", "expand", "simplify"]
    assert one["text"] == program.explain("alpha012")


@pytest.mark.parametrize("file", ["bars.csv", "bars.parquet", "bars.arrow"])
def test_a_value(call: Call, bars: pa.Table, mine: Path, file: str) -> None:
    given = ["--data", file, "--symbol", "IBM", "--at", "2024-01-02T14:50:00Z"]
    found = call("factor", "explain", "mine.py:mine", *given)
    assert (found.code, found.err) == (0, "")
    program = f.compile(f.Factors(reversal="-rank(ts_delta(close, 5))", trend="close / mean(close, 10) - 1"))
    reasons = [program.explain(name, bars, symbol="IBM", ts="2024-01-02T14:50Z") for name in program.outputs]
    assert found.out == "\n".join(f"{one}\n" for one in reasons)
    got = call("factor", "explain", "mine.py:mine", *given, "--json").json
    assert got == [one.facts() for one in reasons]
    assert got[1]["value"] == np.array(program.batch(bars)["trend"])[20 * 3 + 1]


def test_a_value_of_a_stream(call: Call, hub: Any, bars: pa.Table) -> None:
    hub.streams.get("bars", schema=bars.schema).append(bars)
    given = ["-e", "rank(close)", "--symbol", "MSFT", "--json"]
    (one,) = call("factor", "explain", *given, "--stream", "bars").json
    assert (one["row"], one["rows"]) == (39, 40)
    (one,) = call("factor", "explain", *given, "--stream", "bars", "--stop", 30).json
    assert (one["row"], one["rows"]) == (9, 10)
    (early,) = call("factor", "explain", *given, "--stream", "bars", "--at", "2024-01-02T14:39:00Z").json
    assert early["value"] == one["value"]


def test_symbols_that_are_numbers(call: Call, place: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"id": [1, 2], "t": [0, 0], "close": [5.0, 6.0]}), place / "x.parquet")
    given = ["-e", "close", "--data", "x.parquet", "--symbol-column", "id", "--time-column", "t", "--json"]
    assert call("factor", "explain", *given, "--symbol", "2").json[0]["value"] == 6
    found = call("factor", "explain", *given, "--symbol", "two")
    assert (found.code, found.out) == (1, "")
    assert "expected a number: symbols are numbers here, got 'two' - in --symbol" in found.err


@pytest.mark.parametrize(
    "args, code, message",
    [
        (["explain", "-e", "close", "--symbol", "IBM"], 2, "--symbol and --at ask for a value of rows; --data FILE or"),
        (["explain", "-e", "close", "--data", "bars.csv"], 1, "symbol is missing: the value of which of 3 symbols"),
        (["explain", "-e", "close", "--data", "bars.csv", "--symbol", "IBN"], 1, "did you mean 'IBM'"),
        (["explain", "-e", "close", "--data", "bars.csv", "--symbol", "IBM", "--at", "noon"], 2, "expected a time"),
        (["explain", "-e", "close", "--data", "bars.csv", "--symbol", "IBM", "--at", "2030-01-01"], 1, "no row at"),
        (["explain"], 2, "no factors are given; give a library"),
        (["list", "nothing"], 2, "expected factors, got 'nothing'"),
        (["list", "mine.py:mime"], 2, "did you mean mine"),
        (["lst"], 2, "no command 'lst': did you mean 'list'"),
        (["list", "--dtype", "float64"], 2, "no such option"),
    ],
    ids=range(10),
)
def test_bad_calls(call: Call, bars: pa.Table, mine: Path, args: list[str], code: int, message: str) -> None:
    found = call("factor", *args)
    assert (found.code, found.out) == (code, "")
    assert found.err.startswith("penstock: ")
    assert len(found.err.splitlines()) == 1
    assert message in found.err


def test_completion(call: Call) -> None:
    from penstock.cli.factor.options import _libraries

    assert _libraries(None, None, "alpha1") == ["alpha101", "alpha158"]  # type: ignore[arg-type]
    assert _libraries(None, None, "alpha158:KMID,KL") == [
        "alpha158:KMID,KLEN",
        "alpha158:KMID,KLOW",
        "alpha158:KMID,KLOW2",
    ]  # type: ignore[arg-type]
    assert _libraries(None, None, "nothing:x") == []  # type: ignore[arg-type]


def test_alone_it_shows_its_commands(call: Call) -> None:
    found = call("factor")
    assert (found.code, found.out) == (2, "")
    assert "Write factors as a C library." in found.err

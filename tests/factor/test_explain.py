from __future__ import annotations

import datetime
import json

import numpy as np
import pyarrow as pa
import pytest

from penstock import factor as f
from penstock.errors import FactorError, UsageError

START = 1_704_205_800_000_000_000  # 2024-01-02T14:30:00Z
MINUTE = 60_000_000_000
SYMBOLS = ["AAPL", "IBM", "MSFT"]


def bars(rows=40, seed=1, symbols=SYMBOLS):
    rng = np.random.default_rng(seed)
    close = 100 + rng.normal(size=(rows, len(symbols))).cumsum(0)
    return pa.table(
        {
            "symbol": symbols * rows,
            "ts_event": np.repeat(START + MINUTE * np.arange(rows), len(symbols)),
            "open": (close + rng.normal(size=close.shape)).reshape(-1),
            "close": close.reshape(-1),
            "volume": rng.integers(1, 1000, close.size),
            "sector": ["tech", "tech", None] * rows if len(symbols) == 3 else ["tech"] * close.size,
        }
    )


def bits(x):
    return np.float64(x).view("u8")


def test_the_tree_of_a_value():
    close, volume = f.fields("close", "volume")
    program = f.compile({"a": f.rank(f.ts_delta(close, 2)) - f.log(volume) * 0.5})
    data = pa.table(
        {
            "symbol": ["A", "B"] * 3,
            "ts_event": np.repeat(START + MINUTE * np.arange(3), 2),
            "close": [10.0, 20.0, 11.0, 19.0, 13.0, 25.0],
            "volume": [1, 1, 1, 1, 1, 1],
        }
    )
    assert str(program.explain("a", data, symbol="A")) == "\n".join(
        [
            "a of A at 2024-01-02T14:32:00Z = 0.5   (row 2 of 3; warm after 2 rows)",
            "cs_rank(ts_delta(close, n=2)) - log(volume) * 0.5 = 0.5",
            "├─ cs_rank(ts_delta(close, n=2)) = 0.5",
            "│  │      2 keys  ts_delta(close, n=2)",
            "│  │    > A                          3",
            "│  │      B                          5",
            "│  └─ ts_delta(close, n=2) = 3",
            "│     │    3 rows                close",
            "│     │    2024-01-02T14:30:00Z     10",
            "│     │    2024-01-02T14:31:00Z     11",
            "│     │    2024-01-02T14:32:00Z     13",
            "│     └─ close = 13",
            "└─ log(volume) * 0.5 = 0",
            "   └─ log(volume) = 0",
            "      └─ volume = 1",
        ]
    )


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("engine", ["llvm", "numpy"])
def test_values_are_those_of_batch(dtype, engine):
    data = bars()
    names = ["alpha001", "alpha004", "alpha012", "alpha013", "alpha026"]
    chosen = f.library("alpha101").select(*names) | {"e": f.ts_ema(f.field("close"), 5)}
    data = data.append_column("low", data["close"]).append_column("high", data["open"])
    program = f.compile(chosen, dtype=dtype, engine=engine)
    for first in (0, 7):
        panel = program.batch(data, first=first)
        for row, symbol in ((39, 1), (25, 0), (3, 2)):
            for name in program.outputs:
                reason = program.explain(name, data, symbol=SYMBOLS[symbol], ts=START + row * MINUTE, first=first)
                assert bits(reason.value) == bits(panel[name][row * 3 + symbol].as_py())
                assert (reason.row, reason.rows, reason.symbol) == (row, 40, SYMBOLS[symbol])


def test_rows_of_a_window_and_keys_of_a_cross_section():
    data = bars()
    program = f.compile({"a": "ts_std(close, 5)", "b": "indneutralize(close, sector)", "c": "ts_ema(close, 9)"})
    close = np.array(data["close"]).reshape(-1, 3)
    reason = program.explain("a", data, symbol="IBM", ts="2024-01-02T14:40Z")
    assert [values for _, values in reason.terms[-1].rows] == [(x,) for x in close[6:11, 1].tolist()]
    assert reason.terms[-1].rows[0][0] == "2024-01-02T14:36:00Z"
    assert reason.terms[-1].keys == ()
    reason = program.explain("b", data, symbol="IBM")
    assert {key: values for key, values in reason.terms[-1].keys} == {
        "AAPL": (close[39, 0], "tech"),
        "IBM": (close[39, 1], "tech"),
        "MSFT": (close[39, 2], pytest.approx(float("nan"), nan_ok=True)),
    }
    assert "sector = tech" in str(reason)
    assert reason.terms[-1].rows == ()
    assert len(program.explain("c", data, symbol="IBM").terms[-1].rows) == 5  # it never forgets: the newest ones
    first = program.explain("a", data, symbol="IBM", ts=START)
    assert len(first.terms[-1].rows) == 1
    assert "= NaN   (row 0 of 40; warm after 4 rows)" in str(first)


def test_long_windows_and_wide_rows_are_shown_in_part():
    data = bars(60, symbols=[f"S{i:02}" for i in range(30)])
    program = f.compile({"a": "rank(close)", "b": "ts_mean(close, 50)"})
    text = str(program.explain("a", data, symbol="S07"))
    assert "> S07" in text
    assert "…" in text
    assert text.count(" S") <= 10
    text = str(program.explain("b", data, symbol="S07"))
    assert "50 rows" in text
    assert text.count("2024-01-02T") == 11


def test_shared_parts_are_shown_once():
    x = f.field("close")
    for _ in range(60):
        x = x + x
    reason = f.compile({"a": x}).explain("a", {"close": np.ones((1, 1))})
    assert reason.value == 2.0**60
    assert len(reason.terms) == 61
    text = str(f.compile({"a": "(close - 1) * log(close - 1)"}).explain("a", {"close": np.full((1, 1), 2.0)}))
    assert text.splitlines()[-1] == "   └─ close - 1 = 1   (as above)"


@pytest.mark.parametrize(
    "expression, value", [("close", 3.0), ("2 + 3", 5.0), ("nan_to(close / 0 - close / 0, 7)", 7.0)], ids=str
)
def test_expressions_without_parts(expression, value):
    assert f.compile({"a": expression}).explain("a", {"close": np.full((4, 1), 3.0)}).value == value


def test_deep_expressions():
    x = f.field("close")
    for i in range(3000):
        x = x + float(i % 7)
    reason = f.compile({"a": x}, engine="numpy").explain("a", {"close": np.ones((2, 1))})
    assert len(str(reason).splitlines()) == 3002
    assert reason.value == 1 + sum(i % 7 for i in range(3000))


def test_facts_are_json():
    reason = f.compile({"a": "rank(ts_delta(close, 1))"}).explain("a", bars(), symbol="AAPL")
    facts = json.loads(json.dumps(reason.facts()))
    assert [facts[key] for key in ("factor", "symbol", "ts", "row", "rows", "lookback")] == [
        "a", "AAPL", "2024-01-02T15:09:00Z", 39, 40, 1,
    ]  # fmt: skip
    assert facts["terms"][-1]["op"] == "cs_rank"
    assert facts["terms"][facts["terms"][-1]["args"][0]]["term"] == "ts_delta(close, n=1)"
    assert [key["symbol"] for key in facts["terms"][-1]["keys"]] != []


def test_all_kinds_of_data():
    import pandas
    import polars

    data = bars()
    program = f.compile({"a": "ts_mean(close, 3)"})
    want = program.explain("a", data, symbol="IBM").value
    assert program.explain("a", polars.from_arrow(data), symbol="IBM").value == want
    assert program.explain("a", data.to_pandas(), symbol="IBM").value == want
    matrix = {"close": np.array(data["close"]).reshape(-1, 3)}
    reason = program.explain("a", matrix, symbol=1)
    assert (reason.value, reason.ts, reason.symbol) == (want, 39, 1)
    assert program.explain("a", matrix, symbol=1, ts=-1).value == want
    day = pandas.DataFrame(
        {"ticker": ["A"] * 3, "date": pandas.date_range("2024-01-02", periods=3), "close": [1.0, 2.0, 6.0]}
    )
    for ts in ("2024-01-04", datetime.date(2024, 1, 4), day["date"][2].tz_localize("UTC"), np.datetime64("2024-01-04")):
        assert program.explain("a", day, ts=ts, columns=("ticker", "date")).value == 3.0
    arrow = pa.table({"ticker": ["A"] * 3, "date": pa.array(range(3), pa.date32()), "close": [1.0, 2.0, 6.0]})
    reason = program.explain("a", arrow, ts="1970-01-03", columns=("ticker", "date"))
    assert (reason.value, reason.ts) == (3.0, "1970-01-03T00:00:00Z")
    numbered = pa.table({"symbol": ["A"] * 3, "tick": [5, 6, 9], "close": [1.0, 2.0, 6.0]})
    assert program.explain("a", numbered, ts="9", columns=("symbol", "tick")).ts == 9


@pytest.mark.parametrize(
    "given, message",
    [
        ({"symbol": "IBN"}, "there is no symbol 'IBN' in the data - in program.explain; did you mean 'IBM'"),
        ({"symbol": 3}, "there is no symbol 3 in the data - in program.explain; there are AAPL, IBM, MSFT"),
        ({}, "symbol is missing: the value of which of 3 symbols; give AAPL, IBM, MSFT"),
        (
            {"symbol": "IBM", "ts": "2024-01-02T14:30:20Z"},
            "there is no row at 2024-01-02T14:30:20Z - in data from 2024-01-02T14:30:00Z to 2024-01-02T15:09:00Z; the nearest one is at 2024-01-02T14:30:00Z",
        ),
        ({"symbol": "IBM", "ts": 0}, "the nearest one is at 2024-01-02T14:30:00Z"),
        ({"symbol": "IBM", "ts": START * 2}, "the nearest one is at 2024-01-02T15:09:00Z"),
        ({"symbol": "IBM", "columns": ("symbol", "date")}, "field 'date' missing"),
    ],
    ids=range(7),
)
def test_what_is_not_there(given, message):
    with pytest.raises(FactorError) as raised:
        f.compile({"a": "rank(close)"}).explain("a", bars(), **given)
    assert message in str(raised.value)


def test_bad_calls():
    program = f.compile({"a": "rank(close)"})
    with pytest.raises(FactorError, match="there is no output 'b'; outputs are a"):
        program.explain("b", bars())
    with pytest.raises(FactorError, match="name is missing: a value of which output; outputs are a"):
        program.explain(None, bars())
    with pytest.raises(FactorError, match="a program holds no data; program.explain"):
        program.explain("a", symbol="IBM")
    with pytest.raises(UsageError, match="expected a time with its zone, got 'noon'"):
        program.explain("a", bars(), symbol="IBM", ts="noon")
    with pytest.raises(FactorError, match="expected the number of a row, got 'noon'"):
        program.explain("a", {"close": np.ones((2, 1))}, ts="noon")
    with pytest.raises(FactorError, match="there are no rows to explain"):
        program.explain("a", bars().slice(0, 0), symbol="IBM")
    with pytest.raises(FactorError, match="there are no rows to explain"):
        program.explain("a", {"close": np.ones((0, 1))}, symbol=0)
    with pytest.raises(FactorError, match="'close' missing"):
        program.explain("a", bars().drop(["close"]), symbol="IBM")

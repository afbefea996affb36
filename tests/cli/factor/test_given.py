from __future__ import annotations

import sys
from pathlib import Path

import pytest

from penstock import factor as f
from penstock.cli.factor.given import factors_of, sources_of
from penstock.errors import FactorError, SourceError, UsageError


def test_libraries_and_choices_of_them() -> None:
    assert list(factors_of(["alpha101"])) == list(f.library("alpha101"))
    assert list(factors_of(["alpha101:alpha003,alpha001"])) == ["alpha003", "alpha001"]
    assert list(factors_of(["alpha101:alpha00[12]", "ta:rsi"])) == ["alpha001", "alpha002", "rsi"]
    assert list(factors_of(["alpha101:alpha001,alpha00[12]"])) == ["alpha001", "alpha002"]
    assert list(factors_of(["alpha101:alpha1"])) == ["alpha001"]
    assert factors_of(["alpha101:alpha001", "alpha101:alpha001"]) == f.library("alpha101").select("alpha001")
    assert sources_of(["alpha158:KMID", "x"])["KMID"] == "($close - $open) / $open"


def test_expressions(place: Path) -> None:
    close = f.field("close")
    assert factors_of(["rank(close)"]) == f.Factors(factor=f.rank(close))
    assert factors_of([], ["close"]) == f.Factors(factor=close)
    assert factors_of(["a = rank(close)", "-close"], ["b=$close == 1", "close*2"]) == f.Factors(
        {"a": f.rank(close), "factor1": -close, "b": close == 1, "factor2": close * 2}
    )


def test_files_of_python(place: Path, mine: Path) -> None:
    assert list(factors_of(["mine.py"])) == ["reversal", "trend"]
    assert list(factors_of(["mine.py:known"])) == ["alpha012"]
    assert list(factors_of(["mine.py:alone,mine", str(mine)])) == ["alone", "reversal", "trend"]
    (place / "beside.py").write_text("WINDOW = 7\n")
    (place / "other.py").write_text(
        "import beside\nfrom penstock import factor as f\nd = {'a': f.ts_mean(f.field('close'), beside.WINDOW)}\n"
        "one = f.Factors(x='close')\ntwo = f.Factors(y='open')\nsame = two\n"
    )
    path = list(sys.path)
    assert factors_of(["other.py:d"]) == f.Factors(a="ts_mean(close, 7)")
    assert list(factors_of(["other.py"])) == ["x", "y"]
    assert sys.path == path
    sys.modules.pop("beside")


def test_what_a_file_prints_is_no_result(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "loud.py").write_text("print('hello')\nfrom penstock import factor as f\nx = f.Factors(a='close')\n")
    factors_of(["loud.py"])
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "hello\n")


def test_files_of_lines(place: Path) -> None:
    (place / "a.factors").write_text(
        "# mine\n_adv = ts_mean(volume, 20)   # a part\n\nliq = volume /\n   _adv\ntwice = liq * 2\n"
    )
    assert factors_of(["a.factors"]) == f.Factors(
        liq="volume / ts_mean(volume, 20)", twice="volume / ts_mean(volume, 20) * 2"
    )
    assert list(factors_of(["a.factors:twice"])) == ["twice"]
    (place / "c.factors").write_text("_均值 = ts_mean(收盘, 20)\n动量 = 收盘 / _均值\n", encoding="utf-8")
    assert factors_of(["c.factors"], ["é = 收盘"]) == f.Factors({"动量": "收盘 / ts_mean(收盘, 20)", "é": "收盘"})
    (place / "a.toml").write_text('trend = "close / Mean($close, 5)"\none = 1\n')
    assert factors_of(["a.toml"]) == f.Factors(trend="close / ts_mean(close, 5)", one=1)
    (place / "b.toml").write_text('[factors]\n"x.y" = "close"\n')
    assert list(factors_of(["b.toml"])) == ["x.y"]


@pytest.mark.parametrize(
    "given, message",
    [
        ([], "no factors are given; give a library"),
        (["alpha11"], "expected factors, got 'alpha11'; did you mean alpha101 or alpha158"),
        (["nothing"], 'an input column alone is -e "nothing"'),
        (["mine.pi"], "expected factors, got 'mine.pi'; did you mean mine.py"),
        (["alpha101:alpha1001"], "library 'alpha101' has no factor 'alpha1001'; did you mean alpha101"),
        (["alpha101:beta*"], "library 'alpha101' has no factor like 'beta*'; penstock factor list alpha101"),
        (["min.py"], "expected a file of factors, got none of that name - at min.py; did you mean mine.py"),
        (["folder.py"], "expected a file of factors, got a folder - at folder.py"),
        (["data.bin"], "expected a file named .py, .toml, .factors, .txt, got 'data.bin'"),
        (["mine.py:mime"], "expected factors called 'mime', got nothing of that name - in mine.py; did you mean mine"),
        (["mine.py:f"], "expected factors called 'f', got a module - in mine.py"),
        (["empty.py"], "there is no Factors in the file - at empty.py; mine = f.Factors("),
        (["lines.factors:b"], "there is no factor 'b' - in lines.factors; it has aaa"),
        (["rank(close"], "expected ',' or ')', got 'the end' - in factor 'factor', at column 11"),
        (
            ["rnk(close)"],
            "there is no operator 'rnk' - in factor 'factor', at column 1, near 'rnk(close)'; did you mean rank",
        ),
        (["symbol = close"], "a factor cannot be called 'symbol'"),
    ],
    ids=range(16),
)
def test_words_that_are_nothing(place: Path, mine: Path, given: list[str], message: str) -> None:
    (place / "folder.py").mkdir()
    (place / "data.bin").write_bytes(b"x")
    (place / "empty.py").write_text("x = 1\n")
    (place / "lines.factors").write_text("aaa = close\n")
    with pytest.raises(UsageError) as raised:
        factors_of(given)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("a.factors", "x = close\ny = rnk(close)\n", "there is no operator 'rnk' - at a.factors:2, at column 1"),
        (
            "a.factors",
            "x = close\n\nclose + 1\n",
            "expected name = expression, got 'close + 1' - at a.factors:3; indent",
        ),
        ("a.factors", "  close\n", "expected name = expression, got '  close' - at a.factors:1"),
        ("a.factors", "x = close\nx = open\n", "there are two factors called 'x' - at a.factors:2; rename one"),
        ("a.factors", "x = close\nsymbol = open\n", "a factor cannot be called 'symbol' - at a.factors:2"),
        ("a.factors", "_x = close\n", "there is no factor in the file - at a.factors"),
        ("a.txt", "x =\n", "the expression is empty - at a.txt:1"),
        ("a.toml", 'x = "close"\ny = true\n', "expected an expression for 'y', got True - at a.toml:2"),
        ("a.toml", '[x]\ny = "close"\n', "expected an expression for 'x', got a table - at a.toml:1"),
        ("a.toml", 'a = "close"\n\nb = "ts_mean(close, 0)"\n', "n must be at least 1, got 0 - at a.toml:3"),
        ("a.py", "from penstock import factor as f\nx = f.Factors(\n   a='ts_mean(close)')\n", "at a.py:"),
    ],
    ids=range(11),
)
def test_lines_that_cannot_be_read(place: Path, name: str, text: str, message: str) -> None:
    (place / name).write_text(text)
    with pytest.raises(FactorError) as raised:
        factors_of([name])
    assert message in str(raised.value)


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("a.toml", b"x = \n", "the file is no TOML: "),
        ("a.factors", b"x = \xff\n", "expected text in UTF-8, got byte 0xff - at a.factors"),
        ("a.py", b"x = 1\nif x\n", "the file is no Python: expected ':' - at "),
        ("a.py", b"raise SystemExit(3)\n", "the file raised SystemExit: 3 - at a.py:1"),
        ("a.py", b"x = 1\n\ny = x / 0\n", "the file raised ZeroDivisionError: division by zero - at a.py:3"),
        (
            "a.py",
            b"import nothing_at_all\n",
            "the file raised ModuleNotFoundError: No module named 'nothing_at_all' - at a.py:1",
        ),
    ],
    ids=range(6),
)
def test_files_that_are_none(place: Path, name: str, text: bytes, message: str) -> None:
    (place / name).write_bytes(text)
    with pytest.raises(SourceError) as raised:
        factors_of([name])
    assert message in str(raised.value)

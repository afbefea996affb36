from __future__ import annotations

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import UsageError
from penstock.plant.patterns import EVERY, Pattern, Wanted, split


@pytest.mark.parametrize(
    "text", ["AM.AAPL", "AM.A*", "AM.*", "*.AAPL", "*.A*", "*", "T.BRK.B", "Q.O:SPY251219C00650000"]
)
def test_a_pattern_reads_as_it_was_written(text: str) -> None:
    assert str(Pattern.parse(text)) == text


def test_every_has_two_names() -> None:
    assert Pattern.parse("*.*") == Pattern.parse("*") == EVERY


@pytest.mark.parametrize("text", ["", "AM", "AM.", ".AAPL", "A*.AAPL", "AM.A*B", "AM.A B", "AM.**", "A M.X", "AM.\x00"])
def test_what_is_no_pattern(text: str) -> None:
    with pytest.raises(UsageError, match=r"expected a channel such as AM.AAPL, AM.A\*, AM.\* or \*"):
        Pattern.parse(text)


names = st.text("ABC.", min_size=1, max_size=4)
events = st.sampled_from(["A", "AM", "T"])
patterns = st.builds(
    lambda e, s, star: f"{e}.{s}{star}", st.one_of(events, st.just("*")), names, st.sampled_from(["", "*"])
)


@given(st.lists(patterns, max_size=5), st.lists(patterns, max_size=3), events, names)
def test_wanted_matches_as_shell_patterns_do(texts: list[str], but: list[str], event: str, symbol: str) -> None:
    wanted = Wanted(map(Pattern.parse, texts), map(Pattern.parse, but))
    key = f"{event}.{symbol}"

    def fits(text: str) -> bool:
        left, _, right = text.partition(".")
        return left in ("*", event) and fnmatch.fnmatchcase(symbol, right)

    assert wanted.matches(event, symbol) == (any(map(fits, texts)) and not any(map(fits, but))), key
    if wanted.takes_all(event):
        assert wanted.matches(event, symbol)


def test_equal_sets_are_one() -> None:
    one = Wanted([Pattern.parse("AM.A"), Pattern.parse("T.*")])
    two = Wanted([Pattern.parse("T.*"), Pattern.parse("AM.A")])
    assert one == two
    assert hash(one) == hash(two)
    assert one != Wanted(one.patterns, [EVERY])


def test_lists() -> None:
    assert split(" AM.A , T.B,,AM.A ") == ["AM.A", "T.B"]

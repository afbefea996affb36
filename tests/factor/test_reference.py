from __future__ import annotations

import re
from pathlib import Path

import pytest

from penstock import factor as f
from penstock.factor import reference

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("page", reference.PAGES)
def test_pages_are_what_the_table_says(page):
    assert (DOCS / page).read_text("utf-8") == reference.PAGES[page](), "python -m penstock.factor.reference docs"


def test_every_operator_and_alias_is_there():
    text = reference.operators()
    for name, operator in f.operators().items():
        if reference._own(operator):
            assert f"`{operator.usage()}`" in text
            assert all(f"`{alias}`" in text for alias in operator.aliases), name


def test_state_in_docstrings_is_that_of_the_layout():
    for name, operator in f.operators().items():
        said = reference.sections(operator)[1]
        if reference._own(operator) and "State" in said:
            cells = re.sub(r" cells? per key\.?", "", said["State"])
            assert reference._state(operator) == ("1 value" if cells == "1" else f"{cells} values"), name


def test_sections_of_a_docstring():
    text, said = reference.sections(f.operators()["ts_cov"])
    assert text == "The sample covariance (ddof 1) of the last n rows."
    assert said == {
        "State": "2 n - 2 cells per key.",
        "Cost": "O(1) per row.",
        "Source": "Chan, Golub, LeVeque (1979).",
        "Unit": "that of x times that of y.",
    }


def test_operators_of_users_stay_out():
    @f.composite()
    def only_in_this_test(x: f.Series) -> f.Node:
        """Nothing."""
        return x

    try:
        assert "only_in_this_test" not in reference.operators()
    finally:
        from penstock.factor.table import TABLE

        del TABLE["only_in_this_test"]


def test_ta_functions_are_listed():
    from penstock.factor.libraries import ta

    text = reference.libraries()
    assert "| `rsi(x, n=14)` | Wilder's relative strength" in text
    assert all(f"`{name}`" in text or f"`{name}(" in text for name in f.library("ta"))
    assert "`build" not in text
    assert ta.rsi.__name__ in text

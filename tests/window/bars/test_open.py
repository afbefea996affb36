"""Where cells lie: pages, the hash table, and going from one to the other. What is in them is tested with Bars."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.window.bars import Bars
from penstock.window.bars.open import OpenBars, Pages, Store, Table

pages = st.integers(0, 4)
rows = st.lists(st.tuples(pages, st.integers(0, 30)), min_size=1, max_size=40)


@settings(deadline=None)
@given(st.sampled_from(["pages", "table"]), st.lists(st.tuples(rows, st.sets(pages)), max_size=12), st.integers(0, 99))
def test_a_store_is_a_dict_of_page_and_symbol(kind: str, steps: list[Any], spread: int) -> None:
    store: Store = Pages(32, "int64") if kind == "pages" else Table("int64")
    store.reserve(5)
    if isinstance(store, Table):
        # Many at once, so that the table is rebuilt with others in it.
        spread *= 20
    model: dict[tuple[int, int], int] = {}
    for used, emptied in steps:
        wide = 32 if kind == "pages" else spread + 32
        found = [(page, symbol + shift) for page, symbol in used for shift in range(0, wide - 31, 7)]
        which = np.array([page for page, _ in found])
        at = store.at(np.arange(5), which, np.array([symbol for _, symbol in found]))
        np.add.at(store.cells.trades, at, 1)
        for pair in found:
            model[pair] = model.get(pair, 0) + 1
        numbers = np.array(sorted(emptied), np.intp)
        if len(numbers):
            page, symbol, at = store.find(numbers)
            place = {int(number): i for i, number in enumerate(numbers)}
            expected = sorted((place[p], s, count) for (p, s), count in model.items() if p in place)
            got = zip(page.tolist(), symbol.tolist(), store.cells.trades[at].tolist(), strict=True)
            assert list(got) == expected
            store.clear(numbers, at)
            model = {pair: count for pair, count in model.items() if pair[0] not in place}
    assert np.count_nonzero(store.cells.trades) == len(model)


def test_keys_that_meet_in_one_place_go_on_to_the_next() -> None:
    table = Table("int64")
    table._bits = 1
    table._keys = np.full(2, Table.FREE, np.int64)
    at = table._seek(np.array([5, 9, 5, 9, 5]))
    assert at[0] == at[2] == at[4]
    assert at[1] == at[3]
    assert at[0] != at[1]


def feed(bars: Bars, time: Any, symbol: Any) -> list[pa.RecordBatch]:
    count = len(time)
    columns = {"symbol": symbol, "ts_event": time, "price": np.arange(count) / 4, "size": np.ones(count, np.int64)}
    table = pa.table(columns)
    return [*(bars.update(part) for part in table.to_batches(max_chunksize=500)), bars.flush()]


@pytest.mark.parametrize("shape", ["growing", "shrinking", "far apart"])
def test_stores_change_with_the_input_and_bars_do_not(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(4)
    count = 6000
    time = np.sort(random.integers(0, 3000, count)) + random.integers(0, 40, count)
    reach = np.linspace(2, 3000, count)
    if shape == "shrinking":
        reach = reach[::-1]
    if shape == "far apart":
        time = np.sort(random.integers(0, 10**6, count))
    symbol = (random.random(count) * reach).astype(np.int64)
    lateness = "60ns"

    def run(dense: int, per_row: int) -> tuple[list[pa.RecordBatch], set[str]]:
        monkeypatch.setattr(OpenBars, "DENSE", dense)
        monkeypatch.setattr(OpenBars, "PER_ROW", per_row)
        kinds = set()
        bars = Bars("10ns", lateness=lateness)
        take = OpenBars.add

        def watched(self: OpenBars, *given: Any) -> None:
            take(self, *given)
            kinds.add(type(self._store).__name__)

        monkeypatch.setattr(OpenBars, "add", watched)
        out = feed(bars, time, symbol)
        monkeypatch.setattr(OpenBars, "add", take)
        return out, kinds

    dense, kinds = run(1 << 40, 0)
    assert kinds == {"Pages"}
    sparse, kinds = run(0, 0)
    assert kinds == {"Table"}
    mixed, kinds = run(20_000, 0)
    assert kinds == {"Pages", "Table"} or shape == "far apart"
    assert dense == sparse == mixed


def test_one_store_holds_bars_of_few_rows_without_growing() -> None:
    bars = Bars("1s")
    for second in range(200):
        time = np.full(50, second * 10**9)
        feed(bars, time, np.arange(50) + second)
    assert isinstance(bars._open._store, Pages)
    assert len(bars._open._store.cells) <= 1024

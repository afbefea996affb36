from __future__ import annotations

from penstock import factor as f
from penstock.factor.graph import topological
from penstock.factor.lookback import endless, lookbacks, own


def test_rows_add_up_along_the_deepest_path():
    x, y = f.fields("x", "y")
    node = f.ts_corr(f.ts_delay(x, 3), f.ts_sum(y, 5), 10) + f.ts_ema(x, 9)
    rows = lookbacks(topological([node]))
    assert rows[node] == 4 + 9
    assert rows[f.ts_delay(x, 3)] == 3
    assert rows[x] == 0


def test_each_operand_has_its_own():
    x, y = f.fields("x", "y")
    assert own(f.ts_absdev(x, y, 5)) == (4, 0)
    assert own(x + y) == (0, 0)
    assert own(x) == ()
    assert own(f.ts_ema(x, 5)) == (0,)
    assert endless(f.ts_ema(x, 5))
    assert not endless(f.ts_sum(x, 5))

from __future__ import annotations

import numpy as np
import pytest

from penstock import factor as f
from penstock.errors import FactorError
from penstock.factor.graph import Node, digests, formula
from penstock.factor.layout import Layout, turn
from penstock.factor.machine_numpy import NumpyEngine
from penstock.factor.passes import PASSES, check, expand, simplify
from penstock.factor.plan import cut
from penstock.factor.rules import RULES

close, volume = f.fields("close", "volume")
F64 = np.dtype("float64")


def simple(node):
    return simplify(expand({"x": node}, F64), F64)["x"]


GOLDEN = [
    (close * 1, "close"),
    (1 * close, "close"),
    (close / 1, "close"),
    (close**1, "close"),
    (close - 0, "close"),
    (close + 0, "close + 0"),
    (close + -0.0, "close"),
    (close - f.constant(-0.0), "close - (-0.0)"),
    (close * -1, "-close"),
    (-1 * close, "-close"),
    (close / -1, "-close"),
    (f.neg(-close), "close"),
    (abs(-close), "abs(close)"),
    (abs(abs(close)), "abs(close)"),
    (close - -volume, "close + volume"),
    (close + -volume, "close - volume"),
    (close**2, "close * close"),
    (close**0.5, "sqrt(close)"),
    (f.delay(f.delay(f.delay(close, 1), 2), 3), "ts_delay(close, n=6)"),
    (f.ts_sum(close, 1), "close"),
    (f.ts_max(close, 1), "close"),
    (f.where(1, close, volume), "close"),
    (f.where(0, close, volume), "volume"),
    (f.where(float("nan"), close, volume), "nan"),
    (f.constant(2) * 3 + close, "6 + close"),
    (f.sqrt(f.constant(2)) + close, "1.4142135623730951 + close"),
    (f.constant(1) / 0 + close, "inf + close"),
    (-1 * f.correlation(close, volume, 5), "-ts_corr(close, volume, n=5)"),
    (f.signed_power(close, 2), "sign(close) * (abs(close) * abs(close))"),
    (f.rank(close), "cs_order(close) / cs_count(close)"),
    (f.ts_returns(close), "close / ts_delay(close, n=1) - 1"),
]


@pytest.mark.parametrize("node, text", GOLDEN)
def test_golden(node, text):
    assert formula(simple(node)) == text


def test_constants_are_computed_in_the_programs_dtype():
    third = f.constant(1) / 3
    assert simplify({"x": third}, np.dtype("float32"))["x"].attrs[0][1] == np.float32(1) / np.float32(3)
    assert simplify({"x": third}, F64)["x"].attrs[0][1] == 1 / 3


def run(outputs, panel, dtype):
    plan = cut(outputs)
    layout = Layout.of(plan.nodes, digests(outputs.values()))
    rows, keys = next(iter(panel.values())).shape
    engine = NumpyEngine(plan, layout, np.dtype(dtype), keys)
    return engine.run([panel[str(node.attrs[0][1])] for node in plan.inputs], 0, rows)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_every_rule_keeps_every_bit(dtype):
    rng = np.random.default_rng(0)
    specials = [0.0, -0.0, np.nan, np.inf, -np.inf, 1.0, -1.0, 5e-324, 1e-40, 1e300, 3.5]
    panel = {
        name: np.concatenate([rng.choice(specials, (200, 5)), rng.normal(0, 3, (100, 5))])
        for name in ("close", "volume")
    }
    with np.errstate(over="ignore"):
        panel = {name: x.astype(dtype) for name, x in panel.items()}
    # pow's constant exponents are its definition, not a rewrite of what NumPy's pow gives.
    written = {
        f"x{i}": node for i, (node, _) in enumerate(GOLDEN) if "**" not in formula(node) and node.op != "signed_power"
    }
    plain = expand(written, np.dtype(dtype))
    made = simplify(plain, np.dtype(dtype))
    for (name, node), one, two in zip(plain.items(), run(plain, panel, dtype), run(made, panel, dtype), strict=True):
        assert (one.view(f"u{one.itemsize}") == two.view(f"u{two.itemsize}")).all(), (name, formula(node))


def test_every_rule_is_used_and_says_what_it_does():
    fired = set()
    for node, _ in GOLDEN:
        stack = [node]
        while stack:
            one = stack.pop()
            fired |= {rule.__name__ for rule in RULES if rule(one) is not None}
            stack += one.args
    assert fired == {rule.__name__ for rule in RULES}
    assert all(rule.__doc__ for rule in RULES)
    assert all(one.sentence for one in PASSES)


def test_shared_parts_stay_shared():
    rank = f.rank(close)
    plan = cut(simplify(expand({"a": rank, "b": rank + 1, "c": f.rank(close) * 2}, F64), F64))
    assert sum(node.op == "cs_order" for node in plan.nodes) == 1


def test_stages_alternate_and_respect_dependence():
    node = f.rank(f.ts_sum(f.demean(f.ts_delta(close, 2)), 3) + f.zscore(volume))
    plan = cut(simplify(expand({"x": node}, F64), F64))
    stage = {id(n): i for i, s in enumerate(plan.stages) for n in s.nodes}
    for i, one in enumerate(plan.stages):
        for n in one.nodes:
            assert all(stage[id(arg)] < i or (not one.cross and stage[id(arg)] == i) for arg in n.args)
    place = {id(n): i for i, n in enumerate(plan.nodes)}
    assert all(place[id(arg)] < place[id(n)] for n in plan.nodes for arg in n.args)
    assert {n.op for n in plan.inputs} == {"field"}


def test_values_die_after_their_last_use_and_outputs_do_not():
    plan = cut({"a": f.ts_sum(close + 1, 3), "b": close + 1})
    dying = {formula(n) for dead in plan.last_use.values() for n in dead}
    assert dying == {"close"}


def test_check_names_pass_and_factor():
    with pytest.raises(FactorError, match="does not fit its operator - in factor 'bad' after expand"):
        check({"bad": Node("ts_sum", (close,), (("m", 3),))}, after="expand")
    with pytest.raises(FactorError, match="there is no operator 'nothing'"):
        check({"bad": Node("nothing", (close,))}, after="expand")


def layout_of(outputs):
    outputs = simplify(expand(outputs, F64), F64)
    plan = cut(outputs)
    return Layout.of(plan.nodes, digests(plan.outputs)), plan


def test_layout_is_a_table_of_what_was_seen():
    layout, _ = layout_of({"a": f.ts_var(close, 6), "b": f.ts_sum(f.delay(volume, 2), 3), "c": f.ema(close, 5)})
    assert layout.describe() == "\n".join(
        [
            "       rows   depth parts  field",
            "       0..4       5     1  close.rows",
            "       5..8       4     1  volume.rows",
            "       9..9       1     1  ts_ema(close, span=5).mean",
            "10 rows per key",
        ]
    )


def test_all_that_looks_back_on_an_operand_shares_its_rows():
    windows = {f"w{n}": f.ts_corr(close, volume, n) + f.ts_rank(close, n) + f.ts_mean(close, n) for n in (2, 10, 30)}
    layout, plan = layout_of({**windows, "late": f.ts_max(f.delay(f.delay(close, 3), 4), 9), "one": f.ts_sum(close, 1)})
    assert [(formula(field.node), field.depth) for field in layout.fields] == [("close", 29), ("volume", 29)]
    looks = {(past.rows, past.shift) for uses in layout.uses.values() for past in uses.get("past", ())}
    assert looks == {(1, 0), (9, 0), (29, 0), (7, 0), (8, 7)}
    assert set(layout.by_node()) == {node for node in plan.nodes if layout.uses.get(node)}
    assert all(layout.by_node().values())


def test_a_constant_has_past_rows_too():
    layout, _ = layout_of({"a": f.ts_sum(f.constant(2.0), 4)})
    assert [(formula(field.node), field.depth) for field in layout.fields] == [("2", 3)]


def turns(outputs):
    """Per windowed node where its blocks begin, in a program of these outputs."""
    uses = layout_of(outputs)[0].uses
    return {formula(node): turn(node.op, dict(node.attrs)["n"], used["past"]) for node, used in uses.items()}


def test_blocks_of_long_windows_do_not_end_in_one_row():
    many = turns({f"{name}{n}": f.ts_sum(f.field(name), n) for name in "abcd" for n in (5, 20)})
    assert [many[f"ts_sum({name}, n=5)"] for name in "abcd"] == [0, 0, 0, 0]
    assert len({many[f"ts_sum({name}, n=20)"] for name in "abcd"}) > 2
    # A number of the operand, whatever else a program holds.
    assert turns({"x": f.ts_sum(f.field("c"), 20)})["ts_sum(c, n=20)"] == many["ts_sum(c, n=20)"]


def test_windows_of_one_operand_end_their_blocks_in_different_rows():
    names, sizes = ("ts_sum", "ts_max", "ts_min"), (10, 20, 30, 60)
    found = turns({f"{name}{n}": getattr(f, name)(f.field("c"), n) for name in names for n in sizes})
    assert len({found[f"{name}(c, n=60)"] for name in names}) > 1
    # Or every block of 60 rows would end together with one of 10, 20 and 30.
    assert any(found[f"{name}(c, n=60)"] % n != found[f"{name}(c, n={n})"] for name in names for n in sizes)

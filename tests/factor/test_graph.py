from __future__ import annotations

import copy
import gc
import pickle

import numpy as np
import pytest

from penstock import factor as f
from penstock.errors import FactorError
from penstock.factor.graph import Node, constant, digests, formula, topological

close, volume = f.fields("close", "volume")


def test_equal_expressions_are_one_node():
    assert close + 1 is close + 1.0
    assert f.ts_std(close, 20) is f.stddev(close, n=20)
    assert close + volume is not volume + close
    assert constant(0.0) is not constant(-0.0)
    assert constant(float("nan")) is constant(float("nan"))
    assert f.field("close") is close


def test_a_dead_node_leaves_the_table():
    from penstock.factor.graph import _interned

    gc.collect()
    before = len(_interned)
    node = close * 12345.678
    assert len(_interned) == before + 2
    del node
    gc.collect()
    assert len(_interned) == before


def test_numpy_scalars_are_numbers_on_either_side():
    assert np.float64(2) * close is 2 * close
    assert close - np.int64(3) is close - 3


def test_every_operator_sign_builds_a_node():
    made = {
        "add": close + volume,
        "sub": close - volume,
        "mul": close * volume,
        "div": close / volume,
        "pow": close**volume,
        "neg": -close,
        "abs": abs(close),
        "lt": close < volume,
        "le": close <= volume,
        "gt": close > volume,
        "ge": close >= volume,
        "eq": close == volume,
        "ne": close != volume,
        "and_": close & volume,
        "or_": close | volume,
        "not_": ~close,
    }
    for name, node in made.items():
        assert node.op == name
    reflected = [2 + close, 2 - close, 2 * close, 2 / close, 2**close]
    assert [node.op for node in reflected] == ["add", "sub", "mul", "div", "pow"]
    assert +close is close
    assert (1 - close).args[1] is close


def test_truth_of_a_node_is_refused_with_advice():
    with pytest.raises(FactorError, match=r"truth of close > 1 is not known.*use f.where\(condition, a, b\)"):
        bool(close > 1)
    with pytest.raises(FactorError, match="& | ~"):
        _ = (close > 1) and (volume > 1)
    with pytest.raises(FactorError, match="is not known"):
        _ = 1 < close < 2


def test_nodes_cannot_be_iterated_or_changed():
    with pytest.raises(FactorError, match="cannot be iterated"):
        list(close)
    with pytest.raises(FactorError, match="immutable, cannot set 'op'"):
        close.op = "x"
    with pytest.raises(FactorError, match="immutable"):
        del close.op


@pytest.mark.parametrize("value", ["open", None, [1, 2], np.ones(3), True, np.True_, 1 + 2j, object()])
def test_other_operands_are_refused(value):
    with pytest.raises(FactorError, match=r"expected a factor expression or a number, got .* - in operand of \+"):
        _ = close + value
    with pytest.raises(FactorError, match="in operand x of ts_sum"):
        f.ts_sum(value, 3)


def test_a_text_operand_gets_the_hint():
    with pytest.raises(FactorError, match=r'f\.field\("close"\).*f\.parse'):
        f.rank("close")


@pytest.mark.parametrize("name", ["a b", "", "1x", "close!", None, 3])
def test_field_names_are_identifiers(name):
    with pytest.raises(FactorError, match="expected a field name of letters, digits and _"):
        f.field(name)


def test_copies_and_pickles_are_the_same_node():
    node = f.rank(close) - volume
    assert copy.copy(node) is node
    assert copy.deepcopy({"x": node})["x"] is node
    assert pickle.loads(pickle.dumps(node)) is node


def test_topological_gives_operands_first_and_each_once():
    node = (close + 1) * (close + 1) - close
    order = list(topological([node, node]))
    assert len(order) == len({id(n) for n in order}) == 5
    assert order[-1] is node
    place = {id(n): i for i, n in enumerate(order)}
    assert all(place[id(arg)] < place[id(n)] for n in order for arg in n.args)


def test_digests_depend_on_structure_only():
    one = digests([f.ts_std(close, 20) / volume])
    two = digests([volume * 1, f.ts_std(close, 20) / volume])
    node = f.ts_std(close, 20) / volume
    assert one[node] == two[node]
    assert one[node] != digests([f.ts_std(close, 21) / volume])[f.ts_std(close, 21) / volume]
    assert digests([close], lambda op: 2)[close] != digests([close])[close]


@pytest.mark.parametrize(
    "node, text",
    [
        (close + volume * 2, "close + volume * 2"),
        ((close + volume) * 2, "(close + volume) * 2"),
        (close - (volume - 1), "close - (volume - 1)"),
        (close - volume - 1, "close - volume - 1"),
        (close / (volume / 2), "close / (volume / 2)"),
        (-(close**2), "-close ** 2"),
        ((-close) ** 2, "(-close) ** 2"),
        (close**volume**2, "close ** volume ** 2"),
        ((close**volume) ** 2, "(close ** volume) ** 2"),
        ((close > 1) & (volume < 2) | ~close, "close > 1 & volume < 2 | ~close"),
        ((close & volume) > 1, "(close & volume) > 1"),
        (close * -1.5, "close * (-1.5)"),
        (f.ts_quantile(close, 5, 0.25), "ts_quantile(close, n=5, q=0.25)"),
        (f.ts_rank(close, 5, pct=True), "ts_rank(close, n=5, pct=True)"),
        (f.where(close > 1, -close, 0), "where(close > 1, -close, 0)"),
        (close * 1e300, "close * 1e+300"),
        (~(close > volume), "~(close > volume)"),
        (-(close - 1), "-(close - 1)"),
    ],
)
def test_formula_reads_back(node, text):
    assert formula(node) == text
    assert f.parse(text) is node


def test_formula_of_a_huge_graph_is_short():
    node = close
    for _ in range(200):
        node = node * node + 1
    assert len(formula(node, 100)) < 2000
    assert "…" in repr(node)


def test_a_graph_deeper_than_the_stack():
    node = close
    for i in range(10_000):
        node = node + (i % 7)
    assert sum(1 for _ in topological([node])) == 10_008
    program = f.compile({"deep": f.rank(node)}, checked=True)
    out = program.batch({"close": np.array([[1.0, 2.0]])})
    assert out["deep"].tolist() == [[0.5, 1.0]]
    assert "…" in program.explain("deep")
    assert isinstance(node, Node)
    del node, program

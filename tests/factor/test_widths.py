"""Operators over keys, for every number of keys at which a machine does something else: the same bits as the definition."""

from __future__ import annotations

import numpy as np
import pytest

from penstock import factor as f
from penstock.factor.table import TABLE

f.operators()
OVER_KEYS = sorted(name for name in TABLE if name.startswith("cs_"))
ATTRIBUTES = {
    "cs_quantile": [{"q": 0.0}, {"q": 0.3}, {"q": 1.0}],
    "cs_scale": [{"a": 2.0}],
    "cs_winsorize": [{"q": 0.0}, {"q": 0.1}, {"q": 0.5}],
    "cs_bucket": [{"n": 2}, {"n": 7}],
}
WIDTHS = {
    "a few": [*range(1, 36)],
    "some": [63, 64, 65, 127, 128, 129, 190, 191, 192, 193, 194],
    "many": [255, 256, 257, 511, 512, 513, 1023, 1024, 1025, 2047, 2048, 2049, 4096, 5000],
    "very many": [20_000, 70_000],
}
NAN = {
    "float64": (np.uint64, (0x7FF0000000000001, 0xFFF8000000000000, 0x7FFFFFFFFFFFFFFF)),
    "float32": (np.uint32, (0x7F800001, 0xFFC00000, 0x7FFFFFFF)),
}


def rows(dtype, keys):
    """Ties, huge numbers, one value, both zeros, denormals, infinities, nothing, and NaN of any bits."""
    rng = np.random.default_rng(keys)
    kind = np.finfo(dtype)
    x = rng.normal(0, 1, (9, keys))
    x[0] = x[0].round()
    x[1] *= 1e30
    x[2] = 5
    x[3] = np.where(rng.random(keys) < 0.5, 0.0, -0.0)
    x[4] = rng.integers(0, 3, keys) * kind.smallest_subnormal
    x[5][rng.random(keys) < 0.3] = np.inf
    x[5][rng.random(keys) < 0.3] = -np.inf
    x[6] = np.nan
    x[7] = 1 + rng.integers(-9, 9, keys) * kind.eps
    x = x.astype(dtype)
    word, bits = NAN[dtype]
    for value in bits:
        x[8].view(word)[rng.random(keys) < 0.1] = value
    group = rng.integers(-1, 4, x.shape).astype(dtype)
    group[1], group[3] = x[0], x[3]  # labels are any numbers; both zeros are one
    group[2].view(word)[rng.random(keys) < 0.2] = bits[0]
    group[8] = rng.normal(0, 1, keys)  # a group each
    return (x, group) if keys < 10_000 else (x[[0, 5, 8]], group[[0, 5, 8]])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kind", ["a few", "some", "many", pytest.param("very many", marks=pytest.mark.slow)])
def test_every_number_of_keys(dtype, kind):
    a, b = f.fields("a", "b")
    outputs = {
        f"{name}{i}": TABLE[name](*[a, b][: len(TABLE[name].operands)], **attrs)
        for name in OVER_KEYS
        for i, attrs in enumerate(ATTRIBUTES.get(name, [{}]))
    }
    code, definition = (f.compile(outputs, dtype=dtype, engine=engine) for engine in ("llvm", "numpy"))
    with f.Executor(threads=3) as crew:
        for keys in WIDTHS[kind]:
            x, group = rows(dtype, keys)
            want = definition.batch({"a": x, "b": group})
            for executor in (None, crew):
                got = code.batch({"a": x, "b": group}, executor=executor)
                assert not [name for name in want if got[name].tobytes() != want[name].tobytes()], (keys, executor)
            order = np.random.default_rng(keys).permutation(keys)
            mixed = code.batch({"a": x[:, order].copy(), "b": group[:, order].copy()})
            assert not [name for name in want if mixed[name].tobytes() != want[name][:, order].tobytes()], keys

"""Each script of examples/ runs, and says what its head promises."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from penstock_tests.waiting import PATIENCE_S

EXAMPLES = Path(__file__).parent.parent / "examples"
SAYS = {
    "avg.py": "{'ev': 'AVG', 'a': 20.25}",
    "words.py": "100 results, as without the kill",
    "bars.py": "100,000 trades, ",
    "alphas.py": " values, 0 differ between history and ticks",
    "factors_live.py": " rows of 3 factors, the bits of history",
}


def test_each_example_has_a_test() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(SAYS)


@pytest.mark.parametrize("name", sorted(SAYS))
def test_it_runs(name: str, tmp_path: Path) -> None:
    here = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent / "src")}
    done = subprocess.run(
        [sys.executable, EXAMPLES / name],
        cwd=tmp_path,
        env=here,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert SAYS[name] in done.stdout
    assert list(tmp_path.iterdir()) == []

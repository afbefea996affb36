from __future__ import annotations

import os
import select
import sys
from pathlib import Path

import pytest

from penstock.testing import kill_at
from penstock_tests.waiting import PATIENCE_S


def test_killed_at_its_mark(tmp_path: Path) -> None:
    code = "import time\nprint('one', flush=True)\nprint('two', flush=True)\ntime.sleep(600)"
    assert kill_at([sys.executable, "-c", code], "two") == ["one", "two"]


def test_its_children_too(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print('child', child.pid, flush=True)\nchild.wait()"
    )
    (line,) = kill_at([sys.executable, "-c", code], "child")
    try:
        child = os.pidfd_open(int(line.split()[1]))
    except ProcessLookupError:
        return  # dead and buried
    with open(child):
        assert select.select([child], [], [], PATIENCE_S)[0], "the child lives"


def test_no_mark() -> None:
    with pytest.raises(AssertionError, match=r"'two' was not printed \(exit code 3\); the process said:\none"):
        kill_at([sys.executable, "-c", "print('one'); raise SystemExit(3)"], "two")
    with pytest.raises(AssertionError, match="'never' was not printed"):
        kill_at([sys.executable, "-c", "import time; time.sleep(600)"], "never", timeout=0.2, env=dict(os.environ))

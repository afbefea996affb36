"""The example of docs/c-abi.md: its commands, its program, what it prints."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import penstock
from penstock.factor.capi.library import STATUS

PAGE = (Path(__file__).parents[2] / "docs" / "c-abi.md").read_text()


def blocks(kind):
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.M | re.S)


def test_the_example_builds_and_prints_what_it_says(tmp_path, need):
    need(shutil.which("cc"), "cc, the system's C compiler")
    build, commands = blocks("sh")[0], blocks("sh")[1]
    words = shlex.split(build)
    assert words[0] == "penstock"
    there = {**os.environ, "PYTHONPATH": str(Path(penstock.__file__).parents[1])}
    subprocess.run([sys.executable, "-m", *words], cwd=tmp_path, env=there, check=True, capture_output=True)
    (tmp_path / "live.c").write_text(blocks("c")[0])
    strict = commands.replace("cc ", "cc -Wall -Wextra -Werror ", 1)
    done = subprocess.run(["sh", "-ec", strict], cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout == blocks("text")[0]


def test_every_code_has_its_row():
    rows = re.findall(r"^\| `PS_(\w+)` \| (.*) \|$", PAGE, re.M)
    assert [name for name, _ in rows] == [name for name in STATUS if name != "OK"]

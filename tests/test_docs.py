"""What the documents show, runs; what the map lists, is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import penstock

ROOT = Path(__file__).parent.parent
SRC = Path(penstock.__file__).parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
ENTRY = re.compile(r"^\| `([a-z_]+(?:\.py|/))` \| (\S.*\S) \|$", re.MULTILINE)


@pytest.fixture(autouse=True)
def own_operators() -> Iterator[None]:
    """What a page adds to the operator table goes with it."""
    penstock.factor.operators()
    tables = penstock.factor.table.TABLE, penstock.factor.table.ALIASES
    before = [dict(table) for table in tables]
    yield
    for table, names in zip(tables, before, strict=True):
        table.clear()
        table.update(names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of one page share their names, in order; those marked `no-run` are only compiled."""
    text = page.read_text()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PENSTOCK_HUB", str(tmp_path / "hub"))
    names: dict[str, object] = {"__name__": "__main__"}
    for found in BLOCK.finditer(text):
        mark, source = found[1].strip(), found[2]
        assert mark in ("", "no-run"), f"unknown mark {mark!r}"
        line = text.count("\n", 0, found.start(2))
        code = compile("\n" * line + source, str(page), "exec")
        if mark != "no-run":
            exec(code, names)


def test_map_lists_what_is_there_in_order() -> None:
    listed = [entry[1] for entry in ENTRY.finditer((ROOT / "docs" / "map.md").read_text())]
    there = {
        p.name + ("/" if p.is_dir() else "") for p in SRC.iterdir() if p.name[0] not in "_." and p.name != "py.typed"
    }
    assert set(listed) == there
    order = ["errors.py", "clock.py", "tokens.py", "native/", "records/", "log/", "window/", "hub.py", "factor/"]
    order += ["work/", "step/", "connect/", "store/", "plant/", "app/", "web/", "cli/", "testing/"]
    assert listed == [name for name in order if name in there]


def test_links_inside_the_project_lead_somewhere() -> None:
    links = [(page, target) for page in PAGES for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())]
    broken = [f"{page.relative_to(ROOT)} -> {target}" for page, target in links if not (page.parent / target).exists()]
    assert broken == []

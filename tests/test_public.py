"""Every module says what it offers, offers it, and explains it."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest

import penstock


@pytest.fixture(autouse=True)
def own_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking at `penstock.streams` opens the default hub."""
    monkeypatch.setenv("PENSTOCK_HUB", str(tmp_path / "hub"))


MODULES = ["penstock", *(m.name for m in pkgutil.walk_packages(penstock.__path__, "penstock."))]


@pytest.mark.parametrize("name", MODULES)
def test_all_names_exist_and_are_explained(name: str) -> None:
    module = importlib.import_module(name)
    assert (module.__doc__ or "").strip(), f"{name} has no docstring"
    names = getattr(module, "__all__", None)
    assert names is not None, f"{name} has no __all__"
    assert len(set(names)) == len(names), f"{name}.__all__ has a name twice"
    silent = []
    for public in names:
        found = getattr(module, public)
        if not (inspect.isclass(found) or inspect.isroutine(found) or inspect.ismodule(found)):
            continue
        text = found.__doc__
        # A class whose objects each explain themselves has a property there.
        if not isinstance(text, property) and not (text or "").strip():
            silent.append(public)
    assert silent == [], f"{name}: names without a docstring"


def test_top_level_is_what_it_says() -> None:
    offered = set(penstock._MODULES) | set(penstock._NAMES) | {"__version__"}
    assert set(penstock.__all__) == offered
    assert offered <= set(dir(penstock))
    for name in penstock._MODULES:
        assert getattr(penstock, name) is importlib.import_module(f"penstock.{name}")
    assert penstock.Window is importlib.import_module("penstock.window").Window


def test_editors_see_what_python_sees() -> None:
    tree = ast.parse(Path(penstock.__file__).read_text())
    block = next(n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    typed = {alias.asname or alias.name for node in block.body for alias in getattr(node, "names", [])}
    assert typed == set(penstock.__all__) - {"__version__"}


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="module 'penstock' has no attribute 'nothing'"):
        _ = penstock.nothing

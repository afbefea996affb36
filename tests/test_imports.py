"""Imports point up the list of docs/map.md only, and nothing heavy is imported before it is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import penstock

SRC = Path(penstock.__file__).parent
ORDER = [
    *("errors", "clock", "tokens", "native", "records", "log", "window", "hub", "factor", "work", "step"),
    *("connect", "store", "plant", "app", "web", "cli", "testing"),
]
NEVER_AT_TOP = {"polars", "pandas", "duckdb"}
ONLY_IN_CLI = {"rich", "click"}


def modules() -> list[tuple[str, Path]]:
    found = []
    for path in sorted(SRC.rglob("*.py")):
        parts = path.relative_to(SRC.parent).with_suffix("").parts
        found.append((".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    return found


def imports(name: str, path: Path, *, top_only: bool = False) -> Iterator[tuple[int, str]]:
    """(line, module) of every import; `from penstock import log` is penstock.log."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    todo: list[ast.AST] = [ast.parse(path.read_text())]
    while todo:
        node = todo.pop()
        if top_only and (isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or is_type_checking(node)):
            continue
        todo += list(ast.iter_child_nodes(node))
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                kept = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*kept, *([node.module] if node.module else [])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                is_module = (SRC.parent / (full.replace(".", "/") + ".py")).exists() or (
                    SRC.parent / full.replace(".", "/")
                ).is_dir()
                yield node.lineno, full if base == "penstock" and is_module else base


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def part(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_every_part_has_its_place_in_the_list() -> None:
    parts = {part(name) for name, _ in modules()} - {"", "__main__"}
    assert parts - set(ORDER) == set()


def test_imports_point_up() -> None:
    wrong = []
    for name, path in modules():
        own = part(name)
        if own in ("", "__main__"):
            continue  # the lazy top level sees all
        for line, target in imports(name, path):
            if target.split(".")[0] != "penstock" or part(target) in ("", own):
                continue
            if ORDER.index(part(target)) > ORDER.index(own):
                wrong.append(f"{path.relative_to(SRC)}:{line} imports {target}, which stands below {own}")
    assert wrong == []


def test_nothing_heavy_at_module_top() -> None:
    wrong = []
    for name, path in modules():
        for line, target in imports(name, path, top_only=True):
            package = target.split(".")[0]
            if package in NEVER_AT_TOP or (package in ONLY_IN_CLI and part(name) != "cli"):
                wrong.append(f"{path.relative_to(SRC)}:{line} imports {package}")
    assert wrong == []


def test_import_penstock_loads_nothing_else() -> None:
    code = (
        "import sys, penstock\n"
        "print([m for m in sys.modules if m.startswith('penstock.')]"
        " + [m for m in ('numpy', 'pyarrow', 'msgspec', 'asyncio') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"

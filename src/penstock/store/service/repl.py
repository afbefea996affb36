"""A prompt on a store: numbers, names, rows, queries, plots. Lines come from a terminal or through a pipe."""

from __future__ import annotations

import cmd
import contextlib
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.errors import PenstockError, UsageError
from penstock.records import event_times
from penstock.store.service import complete
from penstock.store.service.plot import plot

__all__ = ["Prompt", "history_file", "run"]

_ROWS = 10
_MOST = 60
_COMMANDS: Final = {
    "describe": ("describe KEY", "of each column the number of values, of missing ones, least, mean and largest."),
    "evict": ("evict [PATH]", "let go of frames held in memory, of a table or key, or all."),
    "exit": ("exit", "leave; so does Ctrl-D."),
    "head": ("head KEY [N]", "the first rows, 10."),
    "help": ("help", "this list."),
    "ls": ("ls [PREFIX]", "tables, or the keys of a table; patterns such as historical/minute/A* pick some."),
    "plot": ("plot KEY COLUMN", "the column over time."),
    "query": ("query SQL", 'tables by their names in double quotes: query select max(close) from "historical/minute".'),
    "schema": ("schema KEY", "columns and their types."),
    "stats": ("stats [LEVEL]", "memory, configuration, requests; 1 also frames and tables, 2 also keys."),
    "tail": ("tail KEY [N]", "the last rows, 10."),
}
_QUERIES = ("select", "with", "from", "describe")


def history_file() -> Path:
    """Where lines are kept: below $XDG_STATE_HOME/penstock, by default ~/.local/state/penstock."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base, "penstock", "store_history")


def run(store: Any, stdin: IO[str] | None = None, stdout: IO[str] | None = None, stderr: IO[str] | None = None) -> int:
    """Take commands until `exit` or the end of the input; 1 if, without a terminal, one of them failed.

    Takes   store: a Client or a Desk; the streams: the process's own by default.
    """
    prompt = Prompt(store, stdin or sys.stdin, stdout or sys.stdout, stderr or sys.stderr)
    if not prompt.is_terminal:
        prompt.cmdloop()
        return 1 if prompt.failed else 0
    with _history():
        prompt.greet()
        while True:
            try:
                prompt.cmdloop()
                return 0
            except KeyboardInterrupt:  # leaves the line, not the prompt
                prompt.stdout.write("\n")


@contextlib.contextmanager
def _history() -> Iterator[None]:
    try:
        import readline
    except ImportError:  # a Python without it still has a prompt
        yield
        return
    path = history_file()
    readline.set_completer_delims(" \t\n,")  # a path is one word
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        readline.read_history_file(path)
    readline.set_history_length(2000)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            readline.write_history_file(path)
            path.chmod(0o600)


class Prompt(cmd.Cmd):
    """The commands; `do_<name>` is one, `_COMMANDS` says what `help` shows.

    Takes   store: a Client or a Desk; stdin, stdout, stderr: results go to stdout, errors to stderr.
    """

    def __init__(self, store: Any, stdin: IO[str], stdout: IO[str], stderr: IO[str]) -> None:
        from rich.console import Console

        super().__init__(stdin=stdin, stdout=stdout)
        self.store, self.failed = store, 0
        self.is_terminal = stdin.isatty() and stdout.isatty()
        self.use_rawinput = self.is_terminal
        self.prompt = "store> " if self.is_terminal else ""
        wide = None if stdout.isatty() else 240
        self._out = Console(file=stdout, width=wide, highlight=False, soft_wrap=False)
        self._err = Console(file=stderr, highlight=False, soft_wrap=True)

    def greet(self) -> None:
        """The first lines on a terminal."""
        self._out.print(f"store {self.store.name}", style="bold", markup=False)
        self._out.print("help lists the commands, Tab completes, Ctrl-D ends")

    # -- a line

    def onecmd(self, line: str) -> bool:
        """Run a line; what goes wrong is told, and the prompt goes on."""
        try:
            return bool(super().onecmd(line.strip().rstrip(";")))
        except PenstockError as error:
            self._fail(str(error))
        except (pa.ArrowException, ValueError, OverflowError) as error:
            self._fail(f"{type(error).__name__}: {error}")
        return False

    def _fail(self, text: str) -> None:
        self.failed += 1
        self._err.print(text.replace("\n", " "), style="red", markup=False)

    def emptyline(self) -> bool:
        """Nothing; the standard way would repeat the last command."""
        return False

    def default(self, line: str) -> None:
        """SQL, or a command that there is not."""
        if line.split(" ", 1)[0].lower() in _QUERIES:
            self.do_query(line)
            return
        if line.startswith("#"):
            return
        raise UsageError(expected=f"a command of {', '.join(_COMMANDS)}", got=repr(line.split(" ", 1)[0]), where="here")

    def _words(self, line: str, least: int, most: int, usage: str) -> list[str]:
        words = shlex.split(line)
        if not least <= len(words) <= most:
            raise UsageError(expected=usage, got=f"{len(words)} words", where="here")
        return words

    # -- commands

    def do_stats(self, line: str) -> None:
        (level,) = self._words(line, 0, 1, "stats [LEVEL]") or ["0"]
        found = self.store.stats(int(level) if level.isdigit() else level)
        tables = found.pop("store", {}).get("table", {})
        held = found.pop("held", [])
        rows = [(f"{part}.{name}", _plain(v)) for part, about in found.items() for name, v in about.items()]
        self._table(["", ""], rows, right=(1,), head=False)
        if held:
            self._table(["FRAME", "START", "END"], [(f["path"], _plain(f["start"]), _plain(f["end"])) for f in held])
        if tables:
            names = ("rows", "hot_rows", "files", "bytes", "first_time", "last_time")
            cells = [(name, *(_plain(t[n]) for n in names)) for name, t in tables.items()]
            self._table(["TABLE", *(n.upper() for n in names)], cells, right=(1, 2, 3, 4))
        keys = [(f"{name}/{key}", str(n)) for name, t in tables.items() for key, n in t.get("keys", {}).items()]
        if keys:
            self._table(["KEY", "ROWS"], keys, right=(1,))

    def do_ls(self, line: str) -> None:
        (prefix,) = self._words(line, 0, 1, "ls [PREFIX]") or [""]
        for path in self.store.ls(prefix):
            self._out.print(path, markup=False)

    def do_head(self, line: str) -> None:
        frame, count = self._rows(line, "head KEY [N]")
        self._frame(frame.slice(0, count))

    def do_tail(self, line: str) -> None:
        frame, count = self._rows(line, "tail KEY [N]")
        self._frame(frame.slice(max(0, frame.num_rows - count)))

    def _rows(self, line: str, usage: str) -> tuple[pa.Table, int]:
        words = self._words(line, 1, 2, usage)
        if len(words) > 1 and not words[1].isdigit():
            raise UsageError(expected="a number of rows", got=repr(words[1]), where="here")
        return self.store.read(words[0]), int(words[1]) if len(words) > 1 else _ROWS

    def do_schema(self, line: str) -> None:
        (path,) = self._words(line, 1, 1, "schema KEY")
        self._table(["COLUMN", "TYPE"], [(field.name, str(field.type)) for field in self.store.schema(path)])

    def do_describe(self, line: str) -> None:
        (path,) = self._words(line, 1, 1, "describe KEY")
        frame = self.store.read(path)
        rows = [_described(field, frame.column(field.name)) for field in frame.schema]
        self._table(["COLUMN", "VALUES", "MISSING", "LEAST", "MEAN", "LARGEST"], rows, right=(1, 2, 3, 4, 5))

    def do_query(self, line: str) -> None:
        if not line.strip():
            raise UsageError(expected="query SQL", got="nothing", where="here")
        self._frame(self.store.sql(line))

    def do_plot(self, line: str) -> None:
        path, column = self._words(line, 2, 2, "plot KEY COLUMN")
        time = next((n for n in self.store.schema(path).names if n.startswith("ts_") or n == "time"), None)
        if time is None:
            raise UsageError(expected="a column of event times, ts_…", got="none", where=f"in {path!r}")
        frame = self.store.read(path, columns=list(dict.fromkeys([time, column])))
        wide = max(20, min(self._out.width, 100) - 16)
        self._out.print(plot(event_times(frame, time), frame.column(column), width=wide), markup=False, end="")

    def do_evict(self, line: str) -> None:
        (path,) = self._words(line, 0, 1, "evict [PATH]") or [""]
        self._out.print(f"{self.store.evict(path)} bytes")

    def do_help(self, arg: str) -> None:
        for name, (usage, text) in _COMMANDS.items():
            if arg in ("", name):
                self._out.print(f"{usage:<18} {text}", markup=False)

    def completenames(self, text: str, *ignored: Any) -> list[str]:
        return [name for name in _COMMANDS if name.startswith(text)]

    def do_exit(self, line: str) -> bool:
        return True

    do_quit = do_exit

    def do_EOF(self, line: str) -> bool:
        if self.is_terminal:
            self.stdout.write("\n")
        return True

    # -- completion: cmd asks `complete_<name>` for what follows the command

    def _complete_path(self, text: str, line: str, begin: int, end: int) -> list[str]:
        return complete.paths(self.store, text)

    complete_ls = complete_head = complete_tail = _complete_path
    complete_schema = complete_describe = complete_evict = _complete_path

    def complete_plot(self, text: str, line: str, begin: int, end: int) -> list[str]:
        """A path, then a column of it."""
        words = line[:begin].split()
        return complete.paths(self.store, text) if len(words) < 2 else complete.columns(self.store, words[1], text)

    def complete_query(self, text: str, line: str, begin: int, end: int) -> list[str]:
        """Tables in quotes, and columns of those that stand in the query."""
        quote = '"' if text.startswith('"') else ""
        found = [f'"{name}"' for name in self.store.ls() if name.startswith(text.strip('"'))] if quote else []
        for name in self.store.ls() if not quote else []:
            if f'"{name}"' in line:
                found += complete.columns(self.store, name, text)
        return found

    # -- output

    def _table(self, header: list[str], rows: list[Any], *, right: tuple[int, ...] = (), head: bool = True) -> None:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, show_header=head, header_style="bold", padding=(0, 2, 0, 0))
        for at, name in enumerate(header):
            table.add_column(name, justify="right" if at in right else "left", no_wrap=True)
        for row in rows:
            table.add_row(*(Text(str(cell)) for cell in row))
        self._out.print(table)

    def _frame(self, frame: pa.Table) -> None:
        shown = frame.slice(0, _MOST)
        numbers = tuple(i for i, f in enumerate(frame.schema) if _is_number(f.type))
        columns = [_cells(field, shown.column(i)) for i, field in enumerate(frame.schema)]
        self._table(frame.schema.names, list(zip(*columns, strict=True)), right=numbers)
        if frame.num_rows > _MOST:
            self._out.print(f"… {frame.num_rows - _MOST} more rows", style="dim")


def _is_number(type_: pa.DataType) -> bool:
    return bool(pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_))


def _plain(value: Any) -> str:
    return "-" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)


def _cells(field: pa.Field, column: pa.ChunkedArray) -> list[str]:
    if field.name.startswith("ts_") and pa.types.is_int64(field.type):
        column = column.cast(pa.timestamp("ns", "UTC"))
    if pa.types.is_timestamp(column.type):
        return [text or "-" for text in column.cast(pa.string()).to_pylist()]
    show: Callable[[Any], str] = (lambda v: format(v, ".10g")) if pa.types.is_floating(column.type) else str
    return ["-" if value is None else show(value) for value in column.to_pylist()]


def _described(field: pa.Field, column: pa.ChunkedArray) -> tuple[str, ...]:
    counts = str(len(column) - column.null_count), str(column.null_count)
    ends = ("-", "-", "-")
    with contextlib.suppress(pa.ArrowException):
        found = pc.min_max(column)
        low, high = (_cells(field, pa.chunked_array([[found[n].as_py()]], column.type))[0] for n in ("min", "max"))
        mean = "-"
        if _is_number(field.type) and not field.name.startswith("ts_") and len(column) > column.null_count:
            mean = format(float(np.float64(pc.mean(column).as_py())), ".10g")
        ends = (low, mean, high)
    return field.name, *counts, *ends

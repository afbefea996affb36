from __future__ import annotations

import io
import sys
import threading

import pytest

from penstock.cli import progress as module
from penstock.cli.progress import progress
from penstock_tests.waiting import PATIENCE_S


class Terminal(io.StringIO):
    """Says when something was drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn = threading.Event()

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if "rows" in text:
            self.drawn.set()
        return super().write(text)


def test_nothing_is_drawn_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    err = io.StringIO()
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setattr(module, "_PATIENCE_S", 0.0)
    with progress("rows", 10) as done:
        done(5)
    assert err.getvalue() == ""


def test_what_is_quick_draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    err = Terminal()
    monkeypatch.setattr(sys, "stderr", err)
    with progress("rows", 10) as done:
        done(10)
    assert err.getvalue() == ""


@pytest.mark.parametrize("total", [100, None])
def test_what_takes_long_draws_a_bar_and_takes_it_away(monkeypatch: pytest.MonkeyPatch, total: int | None) -> None:
    err = Terminal()
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(module, "_PATIENCE_S", 0.0)
    with progress("rows", total) as done:
        done(5)
        assert err.drawn.wait(PATIENCE_S)
        done(50)
    assert "\x1b[2K" in err.getvalue()  # the line is erased at the end

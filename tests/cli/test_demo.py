from __future__ import annotations

import contextlib
import json
import os
import pty
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import penstock as ps
from penstock.cli.demo import command_name, next_steps
from penstock_tests.waiting import PATIENCE_S

Call = Callable[..., Any]
Spawn = Callable[..., subprocess.Popen[bytes]]
SMALL = ("--synthetic", "--limit", "20000")


def test_headless_with_json(shell: Call, place: Path) -> None:
    found = shell("demo", *SMALL, "--headless", "--json", "--data", "d")
    assert found.code == 0, found.err
    (result,) = found.json
    assert (result["trades"], result["synthetic"], result["bits_differ"], result["data"]) == (20_000, True, 0, "d")
    assert result["bars"] == result["factors"] == result["ranks"] > 0
    assert result["seconds"] > 0
    assert result["rows_per_second"] == pytest.approx(20_000 / result["seconds"], rel=0.01)
    assert found.err.startswith("penstock: replaying 20,000 made-up trades of 8 shares into d\n")
    with ps.open(place / "d", create=False) as hub:
        assert len(hub.streams.get("trades", create=False)) == 20_000


def test_plain_lines_without_a_terminal(call: Call, place: Path) -> None:
    found = call("demo", *SMALL)
    assert found.code == 0, found.err
    lines = found.out.splitlines()
    assert lines[0] == "replaying 20,000 made-up trades of 8 shares into demo-data"
    assert "live = history: " in found.out
    assert ", 0 bits differ" in found.out
    assert "data: demo-data" in lines
    assert "\x1b" not in found.out
    assert (place / "demo-data").is_dir()


def test_what_it_says_to_try_next_works(call: Call, place: Path) -> None:
    assert call("demo", *SMALL).code == 0
    steps = next_steps(Path("demo-data"))
    assert len(steps) >= 4
    for step in steps:
        words = shlex.split(step.removeprefix(command_name()))
        found = call(*words)
        assert (found.code, bool(found.out or "wrote" in found.err)) == (0, True), (step, found.err)
    assert (place / "factors.parquet").exists()


def test_it_is_run_again_over_its_own_data_and_not_over_others(call: Call, place: Path) -> None:
    for _ in range(2):
        assert call("demo", "--synthetic", "--limit", "100", "--data", "d").code == 0
    call("stream", "append", "mine", "--hub", "d", stdin=b'{"a":1}')
    found = call("demo", "--synthetic", "--limit", "100", "--data", "d")
    assert (found.code, found.err.count("\n")) == (1, 1)
    assert "expected only streams that the demo made, got 'mine'" in found.err
    (place / "e").mkdir()
    (place / "e" / "x").touch()
    found = call("demo", "--synthetic", "--limit", "100", "--data", "e")
    assert (found.code, "expected an empty folder, or one that an earlier demo made" in found.err) == (1, True)


@pytest.mark.parametrize(
    "args, said",
    [
        (["--pace", "5y"], "got '5y' - in pace"),
        (["--limit", "0"], "0 is not in the range"),
        (["x"], "unexpected extra argument"),
    ],
)
def test_calls_that_cannot_be_meant(call: Call, place: Path, args: list[str], said: str) -> None:
    found = call("demo", "--synthetic", *args)
    assert (found.code, said in found.err) == (2, True), found.err
    assert not (place / "demo-data").exists()


def test_a_bit_that_differs_is_exit_code_1(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    from penstock.app import demo_factors

    monkeypatch.setattr(demo_factors, "compare", lambda *args: demo_factors.Comparison(100, 3))
    found = call("demo", "--synthetic", "--limit", "100")
    assert found.code == 1
    assert "live is not history: 200 values, 6 bits differ" in found.out


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_it_says_where_the_data_is(spawn: Spawn, place: Path, number: int, code: int) -> None:
    process = spawn("demo", "--synthetic", "--headless", "--pace", "60x", "--data", "d")
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(b"trades "):  # it runs
            break
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == code
    assert err.startswith(b"penstock: stopped; what was made is in d: ")
    assert err.count(b"\n") == 1
    with ps.open(place / "d", create=False) as hub:
        assert len(hub.streams.get("trades", create=False)) > 0


def test_without_a_network_it_says_so_and_goes_on(shell: Call, place: Path) -> None:
    offline = {"XDG_CACHE_HOME": str(place / "cache"), "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0"}
    found = shell("demo", "--limit", "1000", "--json", **offline)
    assert found.code == 0, found.err
    assert found.json[0]["synthetic"] is True
    assert "penstock: no real trades: " in found.err
    assert "penstock: going on with a made-up market\n" in found.err


class Screen:
    """The demo on a terminal of a size, and what it drew."""

    def __init__(self, environment: Call, place: Path, *args: str, columns: int, lines: int, **more: str) -> None:
        import fcntl
        import struct
        import termios

        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        command = [sys.executable, "-m", "penstock", "demo", *args]
        env = {**environment(TERM="xterm-256color"), **more}
        env.pop("LINES", None)
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, cwd=place, env=env, start_new_session=True
        )
        os.close(slave)
        self.drawn = b""

    def read(self) -> bool:
        """Some more of it; False at the end."""
        with contextlib.suppress(OSError):  # EIO: the other side is closed
            data = os.read(self.master, 65536)
            self.drawn += data
            return bool(data)
        return False

    def end(self) -> tuple[int, str]:
        while self.read():
            pass
        code = self.process.wait(PATIENCE_S)
        os.close(self.master)
        return code, self.drawn.decode()


@pytest.mark.parametrize("columns, lines", [(120, 40), (80, 40), (80, 24), (60, 12)])
def test_the_live_view_fits_its_terminal(environment: Call, place: Path, columns: int, lines: int) -> None:
    import re

    screen = Screen(environment, place, *SMALL, "--pace", "max", columns=columns, lines=lines)
    code, drawn = screen.end()
    assert code == 0, drawn
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", drawn)
    view, _, summary = plain.rpartition("20,000 trades:")
    assert "penstock demo   made-up trades of 8 shares" in view
    assert "trades → bars" in view
    assert all(len(line) <= columns for part in view.split("\n") for line in part.split("\r"))
    assert ("last bars" in view) == (lines >= 24)
    assert "live = history: " in summary
    assert "try next" in summary
    assert drawn.count("\x1b[?25l") == drawn.count("\x1b[?25h") > 0  # the cursor comes back


def test_no_color_means_none(environment: Call, place: Path) -> None:
    screen = Screen(environment, place, *SMALL, "--pace", "max", columns=100, lines=40, NO_COLOR="1")
    code, drawn = screen.end()
    assert code == 0
    assert "\x1b[36m" not in drawn
    assert "\x1b[1;32m" not in drawn
    assert "\x1b[32m" not in drawn


def test_ctrl_c_in_the_live_view(environment: Call, place: Path) -> None:
    screen = Screen(environment, place, "--synthetic", "--pace", "60x", columns=100, lines=40)
    while b"trades" not in screen.drawn:
        assert screen.read(), screen.drawn
    screen.process.send_signal(signal.SIGINT)
    code, drawn = screen.end()
    assert code == 130
    assert "penstock: stopped; what was made is in demo-data: " in drawn
    assert "Traceback" not in drawn
    assert drawn.count("\x1b[?25l") == drawn.count("\x1b[?25h")


@pytest.mark.slow
def test_the_whole_demo_on_real_trades(shell: Call, need: Callable[[object, str], None]) -> None:
    found = shell("demo", "--headless", "--json")
    assert found.code == 0, found.err
    result = json.loads(found.out.splitlines()[-1])
    need(not result["synthetic"], "the package index, for the real sample data")
    assert result["source"] == "real trades of the E-mini S&P 500 future"
    assert (result["trades"], result["bars"], result["factors"]) == (500_000, 2264, 2264)
    assert (result["daily"], result["ranks"]) == (12_154, 12_154)
    assert (result["values"], result["bits_differ"]) == (2264 * 6 + 12_154 * 4, 0)


def test_how_the_command_is_called_from_here(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = place / "some folder" / "bin"
    programs.mkdir(parents=True)
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    monkeypatch.setenv("PATH", "/nowhere")
    assert command_name() == "'some folder/bin/python' -m penstock"
    (programs / "penstock").touch(mode=0o755)
    assert command_name() == "'some folder/bin/penstock'"
    monkeypatch.setenv("PATH", str(programs))
    assert command_name() == "penstock"
    assert next_steps(Path("my data"))[0] == "penstock stream ls --hub 'my data'"

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock.hub import Hub
from penstock_tests.waiting import PATIENCE_S

Call = Callable[..., Any]
Spawn = Callable[..., subprocess.Popen[bytes]]


def test_version_and_help_are_quick(shell: Call) -> None:
    found = shell("--version")
    assert (found.code, found.out, found.err) == (0, "penstock 0.1.0\n", "")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = shell("--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert found.code == 0
    assert "stream" in found.out
    # The promise is 200 ms on a quiet machine; what is tested, in processor time, is that nothing heavy is imported.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2.0


def test_help_imports_nothing_heavy(place: Path, environment: Call) -> None:
    code = (
        "import sys\nfrom penstock.cli import main\ncode = main(['--help'])\nassert code == 0\n"
        "print([m for m in ('numpy', 'pyarrow', 'rich', 'msgspec', 'asyncio', 'sqlite3') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment())
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines()[-1] == "[]"


def test_an_error_is_one_line_and_exit_code_1(shell: Call, hub: Hub) -> None:
    hub.streams.get("trades")
    found = shell("stream", "info", "trads")
    assert found.code == 1
    assert found.out == ""
    assert found.err == f"penstock: no stream 'trads' - in hub {hub.path}; did you mean 'trades'?\n"


def test_debug_shows_where_an_error_came_from(shell: Call, hub: Hub) -> None:
    assert "Traceback" not in shell("stream", "info", "x").err
    for found in (shell("stream", "info", "x", "--debug"), shell("stream", "info", "x", PENSTOCK_DEBUG="1")):
        assert found.code == 1
        assert "Traceback" in found.err
        assert "UnknownStream: no stream 'x'" in found.err
    assert "Traceback" not in shell("stream", "info", "x", PENSTOCK_DEBUG="0").err


@pytest.mark.parametrize(
    "args, said",
    [
        (["stream", "tail"], "missing argument 'NAME'; see penstock stream tail --help"),
        (["stream", "tail", "x", "--foo"], "no such option"),
        (["strem"], "no command 'strem': did you mean 'stream' or 'store'; see penstock --help"),
        (["stream", "lss"], "no command 'lss': did you mean 'ls'; see penstock stream --help"),
        (["stream", "frobnicate"], "there are ls, info, tail"),
        (["stream", "tail", "x", "-n", "many"], "'many' is not a valid integer"),
        (["stream", "tail", "x", "-n", "1", "--start", "0"], "--start and -n say both where to begin; give one"),
    ],
)
def test_a_call_that_cannot_be_meant_is_exit_code_2(call: Call, args: list[str], said: str) -> None:
    found = call(*args)
    assert found.code == 2
    assert found.err.startswith("penstock: ")
    assert said in found.err
    assert found.err.count("\n") == 1


def test_an_argument_the_library_refuses_is_a_wrong_call_too(call: Call, hub: Hub) -> None:
    hub.streams.get("x")
    found = call("stream", "tail", "x", "--start", "yesterday")
    assert found.code == 2
    assert 'expected an offset, "start", "end", or a time with its zone, got \'yesterday\'' in found.err


def test_no_command_shows_the_commands_and_is_a_wrong_call(call: Call) -> None:
    for args in ([], ["stream"]):
        found = call(*args)
        assert (found.code, found.out) == (2, "")
        assert "Commands:" in found.err


def test_an_unexpected_error_is_one_line_too(call: Call, monkeypatch: pytest.MonkeyPatch, hub: Hub) -> None:
    import penstock.hub

    def broken(self: object, pattern: str) -> list[str]:
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr(penstock.hub.Streams, "list", broken)
    found = call("stream", "ls")
    assert found.code == 1
    assert found.err == "penstock: unexpected ZeroDivisionError: two lines; run it again with --debug to see where\n"


def test_what_the_system_says_is_told_with_its_place(call: Call, hub: Hub) -> None:
    hub.streams.get("x").append({"a": 1})
    found = call("stream", "read", "x", "-o", "no/such/folder/x.csv")
    assert found.code == 1
    assert found.err == "penstock: no such file or directory - at no/such/folder\n"


def test_warnings_are_lines_on_stderr(call: Call, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    import warnings

    import penstock.hub
    from penstock.errors import PenstockWarning

    def warned(self: object, pattern: str) -> list[str]:
        warnings.warn("12 bytes were cut", PenstockWarning, stacklevel=1)
        return []

    monkeypatch.setattr(penstock.hub.Streams, "list", warned)
    found = call("stream", "ls", "--json")
    assert (found.code, found.out) == (0, "")
    assert found.err.startswith("penstock: warning: 12 bytes were cut\n")


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_quietly_with_their_codes(spawn: Spawn, hub: Hub, number: int, code: int) -> None:
    hub.streams.get("x").append({"a": 1})
    process = spawn("stream", "tail", "x", "--follow")
    assert process.stdout is not None
    assert process.stdout.readline() == b'{"a":1}\n'
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out, err) == (code, b"", b"")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_goes_away_ends_it_quietly(spawn: Spawn, hub: Hub, unbuffered: str) -> None:
    hub.streams.get("x").append([{"a": i, "text": "x" * 100} for i in range(50_000)])
    process = spawn("stream", "read", "x", "--json", PYTHONUNBUFFERED=unbuffered)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().startswith(b'{"a":0')
    process.stdout.close()
    assert process.wait(timeout=PATIENCE_S) == 141
    assert process.stderr.read() == b""


def test_a_host_program_keeps_its_signal_handler_and_its_threads_may_call(call: Call, hub: Hub) -> None:
    import threading

    before = signal.getsignal(signal.SIGTERM)
    assert call("stream", "ls").code == 0
    assert signal.getsignal(signal.SIGTERM) is before
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(call("stream", "ls").code))
    thread.start()
    thread.join()
    assert codes == [0]


def test_a_full_disk_behind_stdout_is_an_error_and_no_traceback(spawn: Spawn, hub: Hub) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    hub.streams.get("x").append({"a": 1})
    with open("/dev/full", "wb") as full:
        process = spawn("stream", "tail", "x", stdout=full)
        _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert err == b"penstock: no space left on device\n"

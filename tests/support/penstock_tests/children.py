"""Processes that are forked, killed at any instant or at a known place, and started again."""

from __future__ import annotations

import os
import random
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from penstock.errors import PenstockWarning
from penstock_tests.waiting import until

__all__ = ["Point", "die_at", "ended", "points", "quiet", "relay", "spawn", "storm"]

Point = Callable[[pytest.MonkeyPatch, int], None]
"""`point(patch, n)`: this process ends right before, or right after, the n-th call of something."""

_INTERRUPTED = -signal.SIGINT % 256


@contextmanager
def quiet() -> Iterator[None]:
    """Killed producers leave bytes that the next one cuts off, and says so. Everything else is an error."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*no append had committed", PenstockWarning)
        yield


def spawn(path: Path, job: Callable[[], object]) -> int:
    """A child that does `job`; what it raises is in `path`."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that there are threads; none of them works for the child
        child = os.fork()
    if child:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        return child
    code = _INTERRUPTED  # also of one that is interrupted again while it ends
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        with quiet():
            job()
        code = 0
    except KeyboardInterrupt:
        pass
    except BaseException:
        code = 1
        with (path / "failed").open("a") as file:
            traceback.print_exc(file=file)
    finally:
        os._exit(code)


def ended(path: Path, child: int) -> int:
    """Its exit code; an error of its own is one of the test."""
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    _must_not_have_failed(path)
    return code


def _must_not_have_failed(path: Path) -> None:
    assert not (path / "failed").exists(), (path / "failed").read_text()


def _kill(path: Path, child: int, by: signal.Signals) -> None:
    os.kill(child, by)
    if by is signal.SIGKILL:
        assert ended(path, child) == -by
        return
    again = time.monotonic() + 1
    while os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        time.sleep(0.001)
        if time.monotonic() > again:  # Python drops an interrupt that comes while it tidies up an object
            os.kill(child, by)
            again = time.monotonic() + 1
    assert ended(path, child) == _INTERRUPTED


def storm(
    path: Path,
    jobs: Mapping[str, tuple[int, Callable[[], object]]],
    kills: int,
    *,
    enough: Callable[[], bool],
    mean_s: float = 1 / 12,
    signals: Sequence[signal.Signals] = (signal.SIGKILL,),
) -> None:
    """Run the jobs side by side, and `kills` times kill one and start it again; at last all of them.

    Takes   jobs: name → (how often it is the victim, what it does); mean_s: the mean time between two kills;
            enough: whether what they have done suffices. On a loaded machine they are given the time they need.
    """
    rng = random.Random()
    weights = [weight for weight, _ in jobs.values()]
    children = {name: spawn(path, job) for name, (_, job) in jobs.items()}
    try:
        for _ in range(kills):
            name = rng.choices(list(jobs), weights)[0]
            time.sleep(min(rng.expovariate(1 / mean_s), 5 * mean_s))  # which instant it is is the point
            _kill(path, children.pop(name), rng.choice(signals))
            children[name] = spawn(path, jobs[name][1])
        until(enough)
    finally:
        for child in children.values():
            os.kill(child, signal.SIGKILL)
        for child in children.values():
            os.waitpid(child, 0)
    _must_not_have_failed(path)


def points(places: Sequence[tuple[Any, str]]) -> dict[str, Point]:
    """Before and after each of these methods."""
    return {
        f"{name} {'after' if after else 'before'}": _dying_at(thing, name, after=after)
        for thing, name in places
        for after in (False, True)
    }


def _dying_at(thing: Any, name: str, *, after: bool) -> Point:
    def point(patch: pytest.MonkeyPatch, call: int) -> None:
        real = getattr(thing, name)
        left = [call]

        def dying(*args: Any, **options: Any) -> Any:
            left[0] -= 1
            if not left[0] and not after:
                os._exit(9)
            found = real(*args, **options)
            if not left[0]:
                os._exit(9)
            return found

        patch.setattr(thing, name, dying)

    return point


def relay(
    path: Path, point: Point, deaths: int, *, before: Callable[[], object], make: Callable[[int], Callable[[], object]]
) -> int:
    """Processes that each end at the point, one call later than the one before; returns how many did.

    Takes   before: what is done before each; make: a process's job by its number from 1 on, not begun.
    """
    died = 0
    for call in range(1, deaths + 1):
        with quiet():
            before()

        def job(call: int = call) -> None:
            with pytest.MonkeyPatch.context() as patch:
                run = make(call)
                point(patch, call)
                run()

        code = ended(path, spawn(path, job))
        assert code in (0, 9)
        died += code == 9
    return died


def die_at(call: str, number: int) -> None:
    """For a forked child: its call of `os.call` after so many others is a SIGKILL."""
    real, left = getattr(os, call), [number]

    def dying(*arguments: object, **options: object) -> object:
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)

    setattr(os, call, dying)

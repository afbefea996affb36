"""What all tests share."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import penstock as ps

# No deadline, and no limit on how long examples take to make: a loaded machine is no failure. In CI the examples are
# the same in every run.
settings.register_profile(
    "penstock",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=os.environ.get("CI") == "true",
)
settings.load_profile("penstock")

KEYS = ("MASSIVE_API_KEY", "POLYGON_API_KEY", "APCA_API_KEY_ID", "APCA_API_SECRET_KEY")


def pytest_configure(config: pytest.Config) -> None:
    """Tests neither see nor change what a user of this machine has set, compiled and kept; pip alone is the user's.

    Here, not in a fixture: modules of tests compile when they are imported, and the workers of xdist, which inherit
    the environment, then have one cache of compiled code.
    """
    if hasattr(config, "workerinput"):
        return
    # A shell's background job is born deaf to Ctrl-C, and so would all children be.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    home = Path(tempfile.mkdtemp(prefix="penstock-tests-"))
    config.add_cleanup(lambda: shutil.rmtree(home, ignore_errors=True))
    for name in [name for name in os.environ if name.startswith("PENSTOCK_") or name in KEYS]:
        del os.environ[name]
    # Some hundred processes are started: each would compile all that it imports.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    for variable, usual in (("XDG_CACHE_HOME", ".cache"), ("XDG_CONFIG_HOME", ".config"), ("XDG_DATA_HOME", "")):
        users, ours = Path(os.environ.get(variable) or os.path.expanduser(f"~/{usual}")), home / variable.lower()
        (ours / "penstock").mkdir(parents=True)
        kept = [users / "pip", *(users / "penstock").glob("*.whl")] if usual else []  # sample data comes by pip
        for path in filter(Path.exists, kept):
            (ours / path.relative_to(users)).symlink_to(path)
        os.environ[variable] = str(ours)


def _need(condition: object, reason: str) -> None:
    if condition:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must have what this test needs: {reason}")
    pytest.skip(reason)


@pytest.fixture
def need() -> Callable[[object, str], None]:
    """`need(condition, reason)`: skip with the reason when something is not there; with CI=true, fail."""
    return _need


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[ps.Hub]:
    """An empty one of the test's own."""
    with ps.open(tmp_path / "hub") as found:
        yield found

"""Handlers: a user's function over messages, in a process of its own with limits on time and memory.

    handler = Handler("avg.kg")                  # or "alerts.py", "alerts.py:spread", "package.module:function"
    await handler.start()
    outcome = await handler([{"ev": "AM", "sym": "AAPL", "c": 190.1}])
    outcome.messages, outcome.failure

wire      frames between a plant and a worker
normal    what a handler returns, as messages
python    functions of Python modules and files
klong     programs in Klong
worker    the process: load, call, limits
host      the plant's side: start, call, kill, restart, reload
diff      two handlers over the same history
"""

from __future__ import annotations

from penstock.plant.handlers.diff import Difference, diff
from penstock.plant.handlers.host import Failure, Handler, HandlerStatistics, Outcome

__all__ = ["Difference", "Failure", "Handler", "HandlerStatistics", "Outcome", "diff"]

"""Programs in Klong on docs/handlers.md give what stands below them, for three bars."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from penstock.plant.handlers import Handler
from penstock_tests.waiting import PATIENCE_S

PAGE = (Path(__file__).parents[3] / "docs" / "handlers.md").read_text()
BLOCKS = re.findall(r"^```klong\n(.*?)^```\n\n```json\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
BARS = [{"ev": "AM", "sym": s, "c": c} for s, c in (("AAPL", 10.5), ("MSFT", 20.25), ("TSLA", 30.0))]


def test_each_program_has_its_result() -> None:
    assert len(BLOCKS) == PAGE.count("```klong\n") >= 4
    assert BLOCKS[0][0] == (Path(__file__).parents[3] / "examples" / "avg.kg").read_text()


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_it_gives_what_stands_below_it(number: int, tmp_path: Path) -> None:
    program, result = BLOCKS[number]
    path = tmp_path / "page.kg"
    path.write_text(program)

    async def run() -> list[Any]:
        handler = Handler(path, timeout=PATIENCE_S)
        await handler.start()
        try:
            outcome = await handler(BARS)
            assert outcome.failure is None
            if "onask" in program:
                assert (await handler.ask("MSFT")).answer == 20.25
            return outcome.messages
        finally:
            await handler.stop()

    assert asyncio.run(run()) == json.loads(result)

"""The market's own clients, as their users use them, against a plant."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import itertools
from types import SimpleNamespace
from typing import Any

import pytest
from websockets.asyncio.client import connect

from penstock.hub import Hub
from penstock.plant import Service, Tokens, serve
from penstock_tests.talks import Inbox, subscribed
from penstock_tests.waiting import PATIENCE_S, reaches

CLIENTS = ["massive", "polygon"]


@pytest.fixture(params=CLIENTS)
def vendor(request: pytest.FixtureRequest) -> Any:
    return importlib.import_module(request.param)


class Run(Inbox):
    """A vendor's client that runs, and what it has received."""

    def __init__(self, vendor: Any, port: int, *subscriptions: str, key: str = "k", **options: Any) -> None:
        super().__init__()
        self.client = vendor.WebSocketClient(
            api_key=key,
            feed=f"127.0.0.1:{port}",
            market="stocks",
            secure=False,
            subscriptions=list(subscriptions),
            **options,
        )

    async def __aenter__(self) -> Run:
        async def take(messages: list[Any]) -> None:
            self.add(*messages)

        # Their pause before the second attempt is up to 5 s: shortened where the library lets its users do so.
        known = "reconnect_delays" in inspect.signature(connect.__init__).parameters
        options = {"reconnect_delays": lambda: itertools.repeat(0.05)} if known else {}
        self.task = asyncio.create_task(self.client.connect(take, **options))
        return self

    async def __aexit__(self, *_: object) -> None:
        if not self.task.done():
            await self.close()
        elif self.client.websocket is not None:
            await self.client.websocket.close()  # it leaves its connection open when it raises AuthError

    async def close(self) -> None:
        await self.client.close()
        await asyncio.wait_for(self.task, PATIENCE_S)


def test_typed_objects(vendor: Any, service: Service, bars: Any, trades: Any, hub: Hub, kit: SimpleNamespace) -> None:
    bars.append(kit.bar("AAPL", 0))

    async def main() -> list[Any]:
        # What the plant has not looked at yet when somebody subscribes is live to them.
        await reaches(lambda: service.call(lambda: service.server.plant.feeds["bars"].position) == 1)
        async with Run(vendor, service.port, "AM.*", "T.AAPL") as run:
            await subscribed(service, "AM.*", "T.AAPL")
            bars.append([kit.bar("AAPL", 1), kit.bar("MSFT", 1)])
            trades.append([kit.trade("MSFT", 1), kit.trade("AAPL", 2, sequence=7)])
            await run.until(lambda got: len(got) >= 3)
            return run.got

    got = sorted(asyncio.run(main()), key=lambda m: (m.event_type, m.symbol))
    models = importlib.import_module(f"{vendor.__name__}.websocket.models")
    assert [type(m) for m in got] == [models.EquityAgg, models.EquityAgg, models.EquityTrade]
    apple, microsoft, sold = got
    assert (apple.symbol, microsoft.symbol, sold.symbol) == ("AAPL", "MSFT", "AAPL")
    assert (apple.open, apple.high, apple.low, apple.close, apple.vwap) == (11.0, 13.0, 10.0, 12.0, 10.5)
    assert (apple.volume, apple.average_size) == (101, 10)
    begin = kit.START // 1_000_000 + 60_000
    assert (apple.start_timestamp, apple.end_timestamp) == (begin, begin + 60_000)
    assert (sold.price, sold.size, sold.timestamp, sold.sequence_number) == (12.0, 3, kit.START // 1_000_000, 7)


def test_quotes(vendor: Any, hub: Hub, kit: SimpleNamespace) -> None:
    import penstock as ps

    quotes = hub.streams.get("quotes", schema=ps.records.QUOTES)

    async def main(service: Service) -> Any:
        async with Run(vendor, service.port, "Q.AAPL") as run:
            await subscribed(service, "Q.AAPL")
            quotes.append(
                {"symbol": "AAPL", "ts_event": kit.START, "bid_px": 1.5, "ask_px": 2.5, "bid_sz": 3, "ask_sz": 4}
            )
            await run.until(bool)
            return run.got[0]

    with serve(hub, port=0) as service:
        quote = asyncio.run(main(service))
    assert (quote.bid_price, quote.bid_size, quote.ask_price, quote.ask_size) == (1.5, 3, 2.5, 4)
    assert quote.timestamp == kit.START // 1_000_000


def test_subscribe_and_unsubscribe_while_it_runs(
    vendor: Any, service: Service, bars: Any, kit: SimpleNamespace
) -> None:
    async def main() -> list[str]:
        async with Run(vendor, service.port, "AM.AAPL") as run:
            await subscribed(service, "AM.AAPL")
            bars.append([kit.bar("AAPL", 1), kit.bar("MSFT", 1)])
            await run.until(bool)
            run.client.subscribe("AM.MSFT")
            run.client.unsubscribe("AM.AAPL")
            await subscribed(service, "AM.MSFT")
            bars.append([kit.bar("AAPL", 2), kit.bar("MSFT", 2)])
            await run.until(lambda got: len(got) > 1)
            return [m.symbol for m in run.got]

    assert asyncio.run(main()) == ["AAPL", "MSFT"]


def test_wrong_key(vendor: Any, hub: Hub, bars: Any, tmp_path: Any) -> None:
    tokens = Tokens(tmp_path / "tokens.json")
    tokens.add("me")

    async def main(service: Service) -> None:
        async with Run(vendor, service.port, "AM.*", key="wrong") as run:
            await run.task

    error = importlib.import_module(f"{vendor.__name__}.exceptions").AuthError
    with serve(hub, port=0, tokens=tokens) as service, pytest.raises(error, match="authentication failed"):
        asyncio.run(main(service))


def test_right_key(vendor: Any, hub: Hub, bars: Any, tmp_path: Any, kit: SimpleNamespace) -> None:
    tokens = Tokens(tmp_path / "tokens.json")
    key = tokens.add("me")

    async def main(service: Service) -> None:
        async with Run(vendor, service.port, "AM.*", key=key) as run:
            await subscribed(service, "AM.*")
            bars.append(kit.bar("AAPL", 1))
            await run.until(bool)

    with serve(hub, port=0, tokens=tokens) as service:
        asyncio.run(main(service))


def test_restart_of_the_plant(vendor: Any, hub: Hub, bars: Any, kit: SimpleNamespace) -> None:
    async def main(first: Service) -> list[str]:
        async with Run(vendor, first.port, "AM.*") as run:
            await subscribed(first, "AM.*")
            bars.append(kit.bar("A", 1))
            await run.until(bool)
            await asyncio.to_thread(first.stop)
            with serve(hub, port=first.port) as second:
                await subscribed(second, "AM.*")
                bars.append(kit.bar("B", 2))
                await run.until(lambda got: len(got) > 1)
                await run.close()
                return [m.symbol for m in run.got]

    with serve(hub, port=0) as first:
        assert asyncio.run(main(first)) == ["A", "B"]


def test_unknown_channel_is_told(vendor: Any, service: Service, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with Run(vendor, service.port, "AM.*", "NOPE.*", verbose=True) as run:
            await subscribed(service, "AM.*")
            await reaches(lambda: "no such channel: NOPE.*" in caplog.text)
            assert run.got == []

    with caplog.at_level("DEBUG", "WebSocketClient"):
        asyncio.run(main())

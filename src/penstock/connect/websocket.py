"""A WebSocket server as a source: market data of Massive, Polygon or Alpaca, a plant, or any server that sends JSON."""

from __future__ import annotations

import random
import threading
import time as _time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urlsplit

import pyarrow as pa
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.sync.client import ClientConnection, connect

from penstock.clock import WALL, Clock, iso
from penstock.connect.base import Target
from penstock.connect.dialects import BadFrame, Dialect, dialect_of, is_loopback, shown
from penstock.connect.intake import SKIP_MESSAGES, Intake
from penstock.connect.shape import Bad
from penstock.connect.times import zone_of
from penstock.errors import PenstockWarning, SourceError, UsageError

__all__ = ["WebSocket", "WebSocketStatistics"]

_LOOK_S: Final = 0.1
_READY_S: Final = 10.0
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 30.0
_LOST: Final = (OSError, ConnectionClosed, InvalidHandshake, EOFError)


@dataclass(frozen=True, slots=True)
class WebSocketStatistics:
    """Of the run that goes on, or of the last one.

    frames, bytes      received;  rows, batches  appended;  skipped  messages that did not fit, with on_bad="skip"
    connections        made;  gaps, gap_ns  times without a connection to a server that gives nothing to go on from
    last_ns            when the last frame came
    """

    frames: int = 0
    bytes: int = 0
    rows: int = 0
    batches: int = 0
    skipped: int = 0
    connections: int = 0
    gaps: int = 0
    gap_ns: int = 0
    last_ns: int = 0


class WebSocket:
    """Messages of a WebSocket server, as a source.

        WebSocket("wss://socket.massive.com/stocks", subscribe="AM.*", token=KEY).stream(bars)
        WebSocket("wss://…", subscribe="AM.*,T.AAPL").stream({"bars": bars, "trades": trades})
        WebSocket("wss://…", dialect="json", hello=[{"op": "subscribe"}], path="data").stream(documents)

    Takes   url; dialect: "massive" (or "polygon"), which a plant speaks too, "alpaca", or "json";
            subscribe: "AM.*,T.AAPL" or a list; of Alpaca also {"bars": ["*"], "trades": ["AAPL"]};
            token: the key, of Alpaca "KEY:SECRET" or (key, secret). By default $MASSIVE_API_KEY or $POLYGON_API_KEY,
            $APCA_API_KEY_ID and $APCA_API_SECRET_KEY, if the server is the vendor's or on this machine, else
            $PENSTOCK_TOKEN;
            documents: True to keep messages as JSON documents instead of rows of BARS, TRADES and QUOTES;
            schema: of the rows, by default the stream's if it has one, else its kind's; of "json", documents;
            hello, path, rename, time, unit, tz: of "json": what to say first, where the rows are ("data.items"), other
            names for fields, and the field with the event time, which becomes `ts_event`;
            headers: of the request;
            on_bad: "stop" (default) appends what stands before the first message that does not fit and raises; "skip"
            counts it, gives it to `errors` (a stream, or a function of a list of dicts) and goes on;
            reconnect: False to end when the server closes, and raise when the connection is lost; patience: seconds
            for which a lost server is looked for, None for ever; silence: seconds without a message after which the
            connection is made anew; ping_seconds: between heartbeats;
            max_message: bytes; max_rows: of one append; compression: offer permessage-deflate;
            name: by which a stream remembers how far it has come in a plant's streams, by default the URL;
            on_status: called with {"status", "message"} of what is a warning otherwise: gaps, a slow consumer.
    Raises  UsageError for options that cannot be meant. `stream`: SourceError when no server answers at first, when it
            refuses key, connection or subscription, is lost longer than `patience`, or sends what does not fit.
    Edges   Messages that came together are appended together. From a plant each row comes exactly once, whatever is
            killed: it goes on behind the last row appended. Other servers begin anew after a lost connection: what
            was missed is a gap, told and counted. Keys are in no message, nor in `repr`.
    """

    def __init__(
        self,
        url: str,
        *,
        dialect: str = "massive",
        subscribe: str | Sequence[str] | Mapping[str, Sequence[str]] = (),
        token: str | tuple[str, str] | None = None,
        documents: bool = False,
        schema: pa.Schema | None = None,
        hello: Sequence[Any] = (),
        path: str | None = None,
        rename: Mapping[str, str] | None = None,
        time: str | None = None,
        unit: str = "ns",
        tz: str | None = None,
        headers: Mapping[str, str] | None = None,
        on_bad: str = "stop",
        errors: Any = None,
        reconnect: bool = True,
        patience: float | None = None,
        silence: float | None = None,
        ping_seconds: float = 20.0,
        max_message: int = 8 << 20,
        max_rows: int = 16_384,
        compression: bool = False,
        name: str | None = None,
        on_status: Callable[[dict[str, Any]], object] | None = None,
        clock: Clock = WALL,
    ) -> None:
        if not isinstance(url, str) or not url.startswith(("ws://", "wss://")):
            raise UsageError(
                expected="a URL such as wss://socket.massive.com/stocks", got=repr(url), where="in WebSocket"
            )
        if on_bad not in ("stop", "skip"):
            raise UsageError(expected="'stop' or 'skip'", got=repr(on_bad), where="in on_bad")
        for option, value in (("max_message", max_message), ("max_rows", max_rows)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UsageError(expected="a number of at least 1", got=repr(value), where=f"in {option}")
        if dialect != "json" and (rename or time):
            raise UsageError(f"rename= and time= are for dialect='json', not {dialect!r}", where="in WebSocket")
        self.url = url
        self._dialect: Dialect = dialect_of(dialect, url, token, subscribe, hello, path, headers or {})
        self._on_status = on_status
        self._reconnect, self._patience, self._silence = reconnect, patience, silence
        self._ping, self._max_message, self._max_rows = ping_seconds, max_message, max_rows
        self._compression, self._clock = compression, clock
        self.name = name or shown(url)
        self._statistics = WebSocketStatistics()
        self._intake = Intake(
            self.name,
            self._dialect,
            documents=documents,
            schema=schema,
            shaping={"rename": rename, "time": time, "unit": unit, "zone": zone_of(tz)},
            on_bad=on_bad,
            errors=errors,
        )
        self._cut_ns = 0  # when a connection was lost, until it is told
        self._is_plant = False

    def __repr__(self) -> str:
        return f"WebSocket({shown(self.url)!r})"

    def statistics(self) -> WebSocketStatistics:
        """Counters of the run that goes on, or of the last one."""
        took = self._intake
        return replace(self._statistics, rows=took.rows, batches=took.batches, skipped=took.skipped)

    def stream(
        self, stream: Target | Mapping[str, Target], *, stopping: threading.Event | None = None
    ) -> WebSocketStatistics:
        """Append what comes, until `stopping` is set (looked at ten times a second) or the server ends it.

        Takes   stream: for rows of one kind, or for documents; or streams by event ("AM"), kind ("bars", "trades",
                "quotes") or "*" for the rest. An empty stream without a schema gets that of its kind.
        """
        targets = dict(stream) if isinstance(stream, Mapping) else {"*": stream}
        self._intake.open(targets)
        self._cut_ns = 0
        halt = stopping or threading.Event()
        self._statistics = WebSocketStatistics()
        pause, lost_at = _FIRST_PAUSE_S, 0.0
        while not halt.is_set():
            frames = self._statistics.frames
            try:
                with connect(self.url, **self._options()) as connection:
                    self._talk(connection, halt)
                return self.statistics()
            except InvalidURI as error:
                raise SourceError(f"no server can be at {shown(self.url)}: {error}") from None
            except _Retry as error:
                problem: Exception = error
            except _LOST as error:
                if _is_end(error) and not self._reconnect:
                    return self.statistics()
                problem = error
            if self._dialect.is_live:
                self._cut_ns = self._cut_ns or self._statistics.last_ns
            if self._statistics.frames > frames + 2 or not lost_at:  # more than a greeting: it works
                pause, lost_at = _FIRST_PAUSE_S, _time.monotonic()
            self._lost(problem, _time.monotonic() - lost_at)
            self._clock.wait(halt, pause * random.uniform(0.5, 1.0))  # not in step with all the others
            pause = min(pause * 2, _LONGEST_PAUSE_S)
        return self.statistics()

    # -- one connection

    def _options(self) -> dict[str, Any]:
        return {
            "additional_headers": self._dialect.headers,
            "compression": "deflate" if self._compression else None,
            "max_size": self._max_message,
            "max_queue": 64,
            "open_timeout": 10,
            "close_timeout": 1,
            "ping_interval": self._ping,
            "ping_timeout": self._ping,
            "proxy": None if is_loopback(urlsplit(self.url).hostname or "") else True,
        }

    def _talk(self, connection: ClientConnection, halt: threading.Event) -> None:
        self._statistics = replace(self._statistics, connections=self._statistics.connections + 1)
        self._is_plant = False
        for words in self._dialect.begin():
            connection.send(words)
        ready_by = _time.monotonic() + _READY_S
        heard_at = _time.monotonic()
        while not halt.is_set():
            rows = 0
            try:
                data = connection.recv(_LOOK_S)
                # What has come meanwhile goes into the same append.
                while True:
                    rows += self._take(data, connection)
                    if rows >= self._max_rows:
                        break
                    data = connection.recv(0)
            except TimeoutError:
                pass
            finally:
                self._intake.flush()
            now = _time.monotonic()
            if rows:
                heard_at = now
            if not self._dialect.is_live and now > ready_by:
                raise _Retry(f"nothing is subscribed within {_READY_S:g} s")
            if self._silence is not None and now - heard_at > self._silence:
                raise _Retry(f"silent for {self._silence:g} s")

    def _take(self, data: str | bytes, connection: ClientConnection) -> int:
        """A frame; returns the messages in it."""
        now, old = self._clock.now_ns(), self._statistics
        self._statistics = replace(old, frames=old.frames + 1, bytes=old.bytes + len(data), last_ns=now)
        try:
            heard = self._dialect.received(data)
        except BadFrame as error:
            self._intake.bad(
                [
                    Bad(
                        self.name,
                        self._intake.number,
                        None,
                        None,
                        "messages",
                        str(error),
                        SKIP_MESSAGES,
                        str(data[:200]),
                    )
                ]
            )
            return 0
        except SourceError as error:
            if getattr(error, "status", "") == "max_connections" and self._cut_ns:
                raise _Retry(str(error)) from None  # the server has not noticed yet that we were cut
            raise
        for reply in heard.replies:
            connection.send(reply)
        for note in heard.notes:
            self._tell(note.kind, note.text)
        if heard.begins and not self._is_plant:
            self._is_plant, self._cut_ns = True, 0
            connection.send(self._dialect.resume(self._intake.begins(heard.begins)))
        elif self._cut_ns and self._dialect.is_live:
            self._gap(now)
        if heard.messages:
            self._intake.hold(heard.messages, now, is_plant=self._is_plant)
        return len(heard.messages)

    def _gap(self, now: int) -> None:
        """What was missed while there was no connection to a server that gives nothing to go on from."""
        begin, self._cut_ns = self._cut_ns, 0
        old = self._statistics
        self._statistics = replace(old, gaps=old.gaps + 1, gap_ns=old.gap_ns + now - begin)
        text = f"nothing came from {iso(begin)} to {iso(now)}: the connection was lost"
        self._tell("gap", text)
        self._intake.report([{"source": self.name, "gap": text, "from_ns": begin, "to_ns": now}])

    def _tell(self, kind: str, text: str) -> None:
        if self._on_status is not None:
            self._on_status({"status": kind, "message": text})
        else:
            warnings.warn(f"{kind}: {text} - at {shown(self.url)}", PenstockWarning, stacklevel=2)

    def _lost(self, error: Exception, seconds: float) -> None:
        """Say what there is to say about a connection that was lost; returns to try again."""
        reason = _reason(error)
        sent = getattr(error, "sent", None)
        if sent is not None and sent.code == 1009:
            raise SourceError(
                expected=f"messages of at most {self._max_message} bytes",
                got="a larger one",
                where=f"at {shown(self.url)}",
                hint="set max_message=",
            ) from error
        if not self._statistics.connections:
            raise SourceError(f"no server answers at {shown(self.url)}: {reason}") from error
        if not self._reconnect or (self._patience is not None and seconds >= self._patience):
            raise SourceError(f"the server at {shown(self.url)} was lost: {reason}") from error


class _Retry(Exception):
    """The connection is of no use any more."""


def _is_end(error: Exception) -> bool:
    """Whether the server has closed properly: there is no more."""
    received = getattr(error, "rcvd", None)
    return received is not None and received.code in (1000, 1001)


def _reason(error: Exception) -> str:
    if isinstance(error, InvalidStatus):
        return f"HTTP {error.response.status_code} {error.response.reason_phrase}"
    return str(error) or type(error).__name__

"""What a plant counts, and how Prometheus reads it (text format 0.0.4)."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Final

from penstock.plant.outbox import OutboxStatistics

if TYPE_CHECKING:
    from penstock.plant.plant import Plant

__all__ = ["Metrics", "prometheus"]

_BOUNDS_NS: Final = tuple(int(b * 1e6) for b in (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 500, 1000, 10_000))


class Metrics:
    """Counters of a plant, since it was made.

    rows       published, and `bursts` of them;  replayed  rows read for histories;  received  messages of clients
    connects, refused, behind   connections, those refused, times a subscriber had to catch up
    gone       of subscribers that left: messages, frames, bytes, missed
    """

    def __init__(self) -> None:
        self.rows = self.bursts = self.replayed = self.received = 0
        self.connects = self.refused = self.behind = 0
        self.latency = [0] * (len(_BOUNDS_NS) + 1)
        self.latency_sum = self.latency_last = 0
        self.gone = dict.fromkeys(("messages", "frames", "bytes", "missed"), 0)

    def published(self, rows: int, lag_ns: int) -> None:
        """`rows` were published `lag_ns` after the last of them was appended."""
        self.rows += rows
        self.bursts += 1
        self.latency[bisect_left(_BOUNDS_NS, lag_ns)] += 1
        self.latency_sum += lag_ns
        self.latency_last = lag_ns

    def left(self, found: OutboxStatistics) -> None:
        """A subscriber left; what it got stays counted."""
        for name in self.gone:
            self.gone[name] += getattr(found, name)


def prometheus(plant: Plant) -> str:
    """The text that Prometheus reads."""
    lines: list[str] = []

    def family(name: str, kind: str, text: str, *samples: tuple[str, float]) -> None:
        lines.append(f"# HELP penstock_plant_{name} {text}")
        lines.append(f"# TYPE penstock_plant_{name} {kind}")
        lines.extend(f"penstock_plant_{name}{labels} {value}" for labels, value in samples)

    m = plant.metrics
    outboxes = [subscriber.outbox.statistics() for subscriber in plant.subscribers]

    def total(name: str) -> int:
        return m.gone[name] + sum(int(getattr(found, name)) for found in outboxes)

    family("subscribers", "gauge", "Connected clients.", ("", len(plant.subscribers)))
    family("connections_total", "counter", "Connections since the start.", ("", m.connects))
    family("refused_total", "counter", "Connections over the limit of their key.", ("", m.refused))
    family("rows_total", "counter", "Rows published.", ("", m.rows))
    family("replayed_rows_total", "counter", "Rows read from the log for histories.", ("", m.replayed))
    family("received_total", "counter", "Messages from clients.", ("", m.received))
    family("messages_total", "counter", "Messages delivered.", ("", total("messages")))
    family("frames_total", "counter", "Frames written.", ("", total("frames")))
    family("bytes_total", "counter", "Bytes written.", ("", total("bytes")))
    family("missed_total", "counter", "Messages that slow subscribers missed.", ("", total("missed")))
    family("behind_total", "counter", "Times a subscriber went back to the log.", ("", m.behind))
    queued = sum(found.queued_bytes for found in outboxes)
    family("queued_bytes", "gauge", "Bytes waiting in outboxes.", ("", queued))
    feeds = [(f"{{stream={_quoted(feed.name)}}}", feed) for feed in plant.feeds.values()]
    family("stream_position", "gauge", "Offset up to which a stream is published.",
           *((labels, feed.position) for labels, feed in feeds))  # fmt: skip
    buckets, count = list[tuple[str, float]](), 0
    for bound, found in zip(_BOUNDS_NS, m.latency, strict=False):
        count += found
        buckets.append((f'_bucket{{le="{bound / 1e9:g}"}}', count))
    buckets += [('_bucket{le="+Inf"}', m.bursts), ("_sum", m.latency_sum / 1e9), ("_count", m.bursts)]
    family("append_to_publish_seconds", "histogram", "From append to publication, the last row of a burst.", *buckets)
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'

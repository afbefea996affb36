"""Questions of clients to whatever stands behind a plant: counted, and answered in its own time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from penstock.plant.limits import Limits
from penstock.plant.protocol import answer, status
from penstock.plant.session import Question

if TYPE_CHECKING:
    from penstock.plant.subscriber import Subscriber

__all__ = ["Answer", "Questions"]

Answer = Callable[[Any, str | None], None]
"""Takes what a handler answers, or why it does not."""


class Questions:
    """Those that wait for an answer, by client."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._waiting: Counter[Subscriber] = Counter()

    def ask(self, subscriber: Subscriber, question: Question, on_ask: Callable[[Any, Answer], object] | None) -> None:
        """Have it answered by `on_ask(params, answer)`.

        `answer(value, None)` or `answer(None, error text)` is to be called once, in the plant's thread.
        """
        waiting = self._waiting[subscriber]
        if on_ask is None:
            self._answer(subscriber, question, None, "nobody behind this plant answers questions")
        elif waiting >= self._limits.questions:
            self._answer(subscriber, question, None, f"too many questions: the limit is {waiting}")
        else:
            self._waiting[subscriber] += 1

            def reply(value: Any, error: str | None) -> None:
                if subscriber in self._waiting:  # else it has gone
                    self._waiting[subscriber] -= 1
                    self._answer(subscriber, question, value, error)

            on_ask(question.params, reply)

    def forget(self, subscriber: Subscriber) -> None:
        """It has gone: nobody wants the answers any more."""
        self._waiting.pop(subscriber, None)

    def _answer(self, subscriber: Subscriber, question: Question, value: Any, error: str | None) -> None:
        frame = answer(question.id, value) if error is None else b""
        if len(frame) > self._limits.outbox_bytes:
            error = f"the answer has {len(frame)} bytes, the limit is {self._limits.outbox_bytes}"
        subscriber.tell(frame if error is None else status("ask_error", error, id=question.id))
        subscriber.outbox.flush()

"""Feedback of one project that its agent has not answered yet: who waits for it, and which is which."""

from collections.abc import Iterator
from hashlib import blake2b
from typing import Any, Final

import attrs

from broker.actors.futures import ReplyTo
from broker.actors.ref import LoopRef
from broker.clock import Timer
from broker.errors import BrokerError
from broker.ids import new_id
from broker.operations import Feedback

__all__ = ["EACH", "OPEN", "WAITING", "Feedbacks", "OpenFeedback"]

OPEN: Final = 256
"""Feedback that may wait in one project ..."""
EACH: Final = 16
"""... of one asker, so that nobody takes the places of all others ..."""
WAITING: Final = 16
"""... and how often the same may be asked for while it does."""


@attrs.define(eq=False)
class OpenFeedback:
    """One that waits; what was said in it is not kept.

    Attributes:
        told: its name as the agent was told it.
        asker: whose it is: a user, or the connection or the request of somebody who has no name.
        user: the user, if there is one.
        feedback_id: what the asker calls it.
        digest: of what was said.
        timer: ends the waiting.
        waiting: where the answer goes, and the connection there; None for a request over HTTP.
    """

    told: str
    asker: object
    user: str | None
    feedback_id: str
    digest: bytes
    timer: Timer | None = None
    waiting: list[tuple[ReplyTo, LoopRef[Any] | None]] = attrs.field(factory=list)

    def check(self, digest: bytes) -> None:
        """Refuse to take something else for it, or too many who wait.

        Raises:
            BrokerError: `conflict`, `overloaded`.
        """
        if digest != self.digest:
            raise BrokerError("conflict", field="$.payload.feedback_id")
        if len(self.waiting) >= WAITING:
            raise BrokerError("overloaded", "Its answer is waited for often enough.", retry_after=1.0)

    def answer(self, value: Any) -> bool:
        """Answer all who wait; tell whether any of them is there still."""
        for reply_to, _ in self.waiting:
            reply_to.set(value)
        return any(follower is None or not follower.actor_stopped.is_set() for _, follower in self.waiting)

    def refuse(self, error: BrokerError) -> None:
        """Tell all who wait that there is no answer, and why."""
        for reply_to, _ in self.waiting:
            reply_to.set_exception((BrokerError, error, None))


class Feedbacks:
    """All that wait in one project."""

    def __init__(self) -> None:
        self._by_asker: dict[tuple[object, str], OpenFeedback] = {}
        self._by_id: dict[str, OpenFeedback] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[OpenFeedback]:
        return iter(list(self._by_id.values()))

    def find(self, message: Feedback) -> OpenFeedback | None:
        """Return what the asker has asked before under this name, if it still waits.

        Raises:
            BrokerError: `conflict`: something else was asked; `overloaded`.
        """
        found = self._by_asker.get((_asker_of(message), message.feedback_id))
        if found is not None:
            found.check(_digest_of(message))
        return found

    def add(self, message: Feedback) -> OpenFeedback:
        """Open another one; where two askers chose one name, the agent hears a name of ours for the second.

        Raises:
            BrokerError: `overloaded`: too many are open.
        """
        asker = _asker_of(message)
        of_asker = sum(known == asker for known, _ in self._by_asker)
        if len(self) >= OPEN or of_asker >= EACH:
            raise BrokerError("overloaded", "Too much feedback waits for an answer already.", retry_after=1.0)
        told = message.feedback_id if message.feedback_id not in self._by_id else new_id()
        opened = OpenFeedback(told, asker, message.by.user, message.feedback_id, _digest_of(message))
        self._by_asker[asker, message.feedback_id] = self._by_id[told] = opened
        return opened

    def close(self, told: str) -> OpenFeedback | None:
        """Return what the agent knows by this name, which waits no longer; None if it did not."""
        opened = self._by_id.pop(told, None)
        if opened is not None:
            del self._by_asker[opened.asker, opened.feedback_id]
            if opened.timer is not None:
                opened.timer.cancel()
        return opened


def _asker_of(message: Feedback) -> object:
    """Return whose it is; a request over HTTP of somebody who has no name is nobody else's."""
    if message.by.user is not None:
        return message.by.user
    return object() if message.follower is None else message.follower


def _digest_of(message: Feedback) -> bytes:
    return blake2b(message.data, digest_size=16).digest()

"""The turns that wait: bounded, visible, in the order in which they will run, and not for ever (PROTOCOL section 3)."""

from collections import deque
from collections.abc import Iterator
from math import inf

from broker.messages import SlotAnswer
from broker.turns.commands import AskSlot
from broker.turns.ending import AGENT_GONE, Ending, error_of, span, timed_out
from broker.turns.rules import TurnRules
from broker.turns.turn import Turn

__all__ = ["Waiting"]


class Waiting:
    """The queue of one session.

    The first of it may have asked for one of its agent's places. It goes on waiting in the queue until one
    is granted, and may wait no longer than an agent may take to start while there is no agent at all.

    Attributes:
        due: when the first of them has waited for too long; infinity for never.
    """

    def __init__(self, rules: TurnRules) -> None:
        self.due = inf
        self._limit = rules.queue_limit
        self._deadlines = rules.deadlines
        self._turns: deque[Turn] = deque()
        self._asking: Turn | None = None
        self._asks = 0
        self._served_by = inf

    def __len__(self) -> int:
        return len(self._turns)

    def __iter__(self) -> Iterator[Turn]:
        return iter(self._turns)

    @property
    def full(self) -> bool:
        """Whether no further turn may wait."""
        return len(self._turns) >= self._limit

    def add(self, turn: Turn, *, first: bool) -> None:
        """Let a turn wait, behind the others or before them."""
        if first:
            self._turns.appendleft(turn)
        else:
            self._turns.append(turn)
        self._count()

    def remove(self, turn: Turn) -> None:
        """Let a turn wait no more."""
        self._turns.remove(turn)
        self._count()

    def take(self) -> Turn:
        """Return the turn that comes next; it waits no more."""
        turn = self._turns.popleft()
        self._count()
        return turn

    def asks(self) -> AskSlot | None:
        """Return what has to be asked now; None if the first has asked for a place already, or none waits."""
        if not self._turns or self._asking is not None:
            return None
        self._asking = self._turns[0]
        self._asks += 1
        return AskSlot(self._asking.turn_id, self._asks)

    def hear(self, answer: SlotAnswer, now: float) -> bool:
        """Take what became of the place that was asked for; False if it is not wanted any more.

        Only the last ask counts: what a turn was granted before it stood back may be another session's by now.
        """
        if self._asking is None or (answer.turn_id, answer.number) != (self._asking.turn_id, self._asks):
            return False
        if answer.state != "unserved":
            self._served_by = inf
        elif self._served_by == inf:
            self._served_by = now + (self._deadlines.start or inf)
        self._count()
        return True

    def overdue(self, now: float) -> list[tuple[Turn, Ending]]:
        """Take out the turns that have waited for too long, and say how each ends."""
        if now < self.due:
            return []
        limit = self._deadlines.queue or inf
        gone = [(turn, self._too_late()) for turn in self._turns if now >= turn.accepted_at + limit]
        if now >= self._served_by and self._asking is not None and now < self._asking.accepted_at + limit:
            gone.append((self._asking, self._unserved()))
        for turn, _ in gone:
            self._turns.remove(turn)
        self._count()
        return gone

    # -- inside -------------------------------------------------------------------------------------

    def _too_late(self) -> Ending:
        cause = timed_out("queue", self._deadlines)
        return Ending(outcome="timed_out", deadline="queue", reason=cause.reason)

    def _unserved(self) -> Ending:
        reason = f"there was no agent to take the turn for {span(self._deadlines.start)}"
        error = error_of(AGENT_GONE, reason, retryable=True)
        return Ending(outcome="failed", deadline="start", reason=reason, error=error)

    def _count(self) -> None:
        """Find out when the first of them is due; a place is asked for on behalf of the first alone."""
        if self._asking is not None and (not self._turns or self._turns[0] is not self._asking):
            self._asking = None
        if self._asking is None:
            self._served_by = inf
        first = min((turn.accepted_at for turn in self._turns), default=inf)
        self.due = min(first + (self._deadlines.queue or inf), self._served_by)

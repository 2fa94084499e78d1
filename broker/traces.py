"""Where a reply went: for each recent turn, what was done with it, by whom and when.

A ring in memory, fed by every actor on the way. It holds ids, times and reasons, never what was said.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

import attrs

__all__ = ["Step", "Trace", "Traces"]

TURNS: Final = 5_000
"""Turns that are remembered; the oldest is forgotten first."""
OTHERS: Final = 1_000
"""Refused messages and failed requests that are remembered: apart, so that no flood of them pushes out turns."""
MEMORY: Final = 16 * 1024 * 1024
"""Bytes that the traces of turns may take, and those of other things besides, by the estimates below."""
STEPS: Final = 100
"""Steps kept of one trace: the first half and the newest, since both its beginning and its end matter."""
REASON: Final = 300
"""Characters kept of a reason."""
SAME: Final = 16
"""Traces that one id leads to, the newest: a client's is unique for one user in one session only (P4)."""
PARTS: Final = 4
"""Of a step: when, where, what, and why."""
USUAL: Final = 16
"""Steps of a turn with which nothing special happens; to count their bytes one by one would cost more than them."""
STEP: Final = 128
"""Bytes that a step takes, without its reason."""
TRACE: Final = 512 + USUAL * STEP
"""Bytes that a trace takes, its ids, their index entries and the usual steps with it."""


@attrs.frozen
class Step:
    """Something that was done.

    Attributes:
        at: when, in milliseconds since the epoch.
        where: who did it: `socket`, `session`, `store`, `bridge`, `agent`, ...
        what: a word for it, such as `accepted`.
        reason: why, in words, where it did not simply go on.
    """

    at: int
    where: str
    what: str
    reason: str | None = None


@attrs.define(eq=False)
class Trace:
    """All that is remembered of one message and of the turn that came of it, or of one request that failed.

    Attributes:
        trace_id: of a turn its id, of a failed request its trace id; None for a message that became no turn.
        session_id: the session it was for, if any.
        client_msg_id: the client's id of the message, if any.
        user: who sent it, None for anonymous; empty if that is not known.
        is_turn: whether it was accepted.
        left_out: steps in the middle that were too many to keep.
        size: bytes it takes, estimated.
        log: the steps as they are kept: the four parts of one after those of the other, since thousands of
            small objects that live for a while are what keeps a garbage collector busy.
    """

    trace_id: str | None
    session_id: str | None
    client_msg_id: str | None
    user: str | None
    _ring: "_Ring"
    is_turn: bool = False
    left_out: int = 0
    size: int = TRACE
    log: list[Any] = attrs.Factory(list)

    @property
    def steps(self) -> list[Step]:
        """What was done, in the order in which it happened."""
        return [Step(*self.log[i : i + PARTS]) for i in range(0, len(self.log), PARTS)]

    @property
    def ended(self) -> bool:
        """Whether nothing more is to be done: the turn has ended, or what is no turn was refused or has failed."""
        if self.is_turn:
            return "ended" in self.log[2::PARTS]
        return bool(self.log) and self.log[-2] in {"refused", "failed"}

    def add(self, at: int, where: str, what: str, reason: str | None) -> None:
        """Add a step."""
        reason = reason and reason[:REASON]
        self.log += (at, where, what, reason)
        size = len(reason or "") + (STEP if len(self.log) > USUAL * PARTS else 0)
        if len(self.log) > STEPS * PARTS:
            middle = STEPS // 2 * PARTS
            size -= STEP + len(self.log[middle + PARTS - 1] or "")
            del self.log[middle : middle + PARTS]
            self.left_out += 1
        self.size += size
        self._ring.grow(size)

    def move(self, ring: "_Ring") -> None:
        """Be kept in this ring."""
        if self._ring is not ring:
            self.leave()
            self._ring = ring
            ring.put(self)

    def leave(self) -> None:
        """Be kept no more."""
        self._ring.remove(self)


class _Ring:
    """Traces in the order of their coming, bounded in number and in bytes; `forget` is told of one that has to go."""

    def __init__(self, most: int, memory: int, forget: Callable[[Trace], None]) -> None:
        self._most = most
        self._memory = memory
        self._forget = forget
        self._size = 0
        self._traces: OrderedDict[Trace, None] = OrderedDict()

    def put(self, trace: Trace) -> None:
        self._traces[trace] = None
        self.grow(trace.size)

    def remove(self, trace: Trace) -> None:
        del self._traces[trace]
        self._size -= trace.size

    def grow(self, size: int) -> None:
        self._size += size
        while self._size > self._memory or len(self._traces) > self._most:
            self._forget(next(iter(self._traces)))


_Message = tuple[str | None, str | None, str | None]
"""Session, the client's id, and the user: what one message is told from all others by (P4)."""


class Traces:
    """The traces of one broker.

    Args:
        now: the wall clock, milliseconds since the epoch.
        turns: turns that are kept.
        others: refused messages and failed requests that are kept.
        memory: bytes that each of the two may take.
    """

    def __init__(self, now: Callable[[], int], turns: int = TURNS, others: int = OTHERS, memory: int = MEMORY) -> None:
        self._now = now
        self._turns = _Ring(turns, memory, self._forget)
        self._others = _Ring(others, memory, self._forget)
        self._by_id: dict[str, Trace] = {}
        self._by_message: dict[_Message, Trace] = {}

    def receive(self, where: str, *, session_id: str, client_msg_id: str, user: str | None) -> None:
        """Note that a message came; one that is sent again is noted where it was before."""
        self._of_message(session_id, client_msg_id, user).add(self._now(), where, "received", None)

    def refuse(self, where: str, reason: str, *, session_id: str, client_msg_id: str, user: str | None) -> None:
        """Note that a message was refused; if it is no turn it is kept with the others from now on."""
        trace = self._of_message(session_id, client_msg_id, user)
        if not trace.is_turn:
            trace.move(self._others)
        trace.add(self._now(), where, "refused", reason)

    def begin(self, turn_id: str, *, session_id: str, client_msg_id: str, user: str | None) -> None:
        """Begin the trace of a turn that was accepted; it goes on from what was noted of the message it came by."""
        if turn_id in self._by_id:
            return
        trace = self._by_message.get((session_id, client_msg_id, user))
        if trace is None or trace.is_turn:
            trace = self._make(self._turns, session_id, client_msg_id, user)
        else:
            trace.move(self._turns)
        trace.trace_id, trace.is_turn = turn_id, True
        self._by_id[turn_id] = trace

    def fail(self, trace_id: str, where: str, reason: str) -> None:
        """Begin the trace of a request that failed inside the broker; its asker knows it by this id alone."""
        trace = self._make(self._others, None, None, "")
        trace.trace_id = trace_id
        self._by_id[trace_id] = trace
        trace.add(self._now(), where, "failed", reason)

    def note(self, trace_id: str, where: str, what: str, reason: str | None = None) -> None:
        """Add a step to the trace of a turn; one that is not remembered any more is left alone."""
        trace = self._by_id.get(trace_id)
        if trace is None:
            return
        log = trace.log
        if reason is None and len(log) < USUAL * PARTS:  # which it has room for anyway: the way of nearly all steps
            log += (self._now(), where, what, None)
        else:
            trace.add(self._now(), where, what, reason)

    def find(self, some_id: str) -> Trace | None:
        """Return the newest trace of a turn, a message, a session or a request that failed; None if there is none."""
        return next(iter(self.known_as(some_id)), None)

    def known_as(self, some_id: str) -> list[Trace]:
        """Return the traces that an id leads to, newest first: several of a session, or of a client's id (P4)."""
        # Looked through rather than indexed: a person asks now and then, and messages come all the time.
        every = self._by_message.values()
        found = [trace for trace in every if some_id in {trace.client_msg_id, trace.session_id}][: -SAME - 1 : -1]
        trace = self._by_id.get(some_id)
        return found if trace is None or trace in found else [trace, *found]

    def _of_message(self, session_id: str, client_msg_id: str, user: str | None) -> Trace:
        trace = self._by_message.get((session_id, client_msg_id, user))
        return trace or self._make(self._turns, session_id, client_msg_id, user)

    def _make(self, ring: _Ring, session_id: str | None, client_msg_id: str | None, user: str | None) -> Trace:
        trace = Trace(None, session_id, client_msg_id, user, ring)
        if client_msg_id is not None:
            self._by_message.pop((session_id, client_msg_id, user), None)  # so that what is newest stands last
            self._by_message[session_id, client_msg_id, user] = trace
        ring.put(trace)
        return trace

    def _forget(self, trace: Trace) -> None:
        trace.leave()
        self._by_id.pop(trace.trace_id or "", None)
        message = (trace.session_id, trace.client_msg_id, trace.user)
        if self._by_message.get(message) is trace:
            del self._by_message[message]

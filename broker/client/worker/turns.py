"""The turns a worker has: what the broker says to them, what they say to the broker, how each ends."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any, Final, Literal

import attrs

from broker.client.worker.faults import TurnFailed
from broker.client.worker.turn import Turn
from broker.client.worker.voice import Voice
from broker.client.worker.wire import ApprovalAnswer, Ping, Said, TurnCancel, TurnResume, TurnStart, frame

__all__ = ["Turns"]

log = logging.getLogger("broker.client")

Perform = Callable[[Turn], Coroutine[Any, Any, str]]
"""Answers a turn and returns its stop reason."""

_FAIRNESS: Final = 16
"""Frames that one turn may send before the others have theirs."""
_WIDTH: Final = 500
"""Characters of an error's message."""
_WORD: Final = 200
"""Characters of a stop reason or a code; the broker takes no more."""


@attrs.define(eq=False)
class _Run:
    """One turn.

    Attributes:
        cause: who wants it to end before it is done: a person, or this worker as it stops.
        held: whether its frames wait until the broker says from where it wants them.
        mark: the ping behind which its last frame is known to have arrived; 0 if that was not sent yet.
    """

    turn: Turn
    voice: Voice
    task: asyncio.Task[str]
    cause: Literal["person", "worker"] | None = None
    held: bool = False
    mark: int = 0

    @property
    def told(self) -> bool:
        """Whether it has ended and all of it has been sent."""
        return not self.voice.open and self.voice.outbox.sent == self.voice.outbox.head

    @property
    def waiting(self) -> bool:
        """Whether there is something to be sent."""
        return not self.held and self.voice.outbox.sent < self.voice.outbox.head


class Turns:
    """Up to `capacity` turns at the same time, each its own task, whatever becomes of the link.

    Args:
        perform: answers a turn.
        capacity: turns at the same time.

    Attributes:
        wake: set when there is something to be sent.
        idle: set while there is no turn, not even one whose end the broker may not have.
        stopping: whether new turns are refused.
    """

    def __init__(self, perform: Perform, capacity: int) -> None:
        self.wake = asyncio.Event()
        self.idle = asyncio.Event()
        self.idle.set()
        self.stopping = False
        self._perform = perform
        self._capacity = capacity
        self._runs: dict[str, _Run] = {}
        self._marks = 0
        self._hear: Final[dict[type[Said], Callable[[Any], bytes | None]]] = {
            TurnStart: self._start,
            TurnCancel: self._cancel,
            TurnResume: self._resume,
            ApprovalAnswer: self._answered,
            Ping: lambda _: frame("pong", {}),
        }

    # -- what the broker says ------------------------------------------------------------------------

    def hear(self, said: Said) -> bytes | None:
        """Do what the broker says, and return a frame to answer it with, if there is one."""
        hear = self._hear.get(type(said))
        return None if hear is None else hear(said)

    def _start(self, start: TurnStart) -> bytes | None:
        if start.turn_id in self._runs:
            log.warning("the broker started turn %s twice", start.turn_id)
            return None
        if self.stopping:
            return frame("turn_error", {"turn_id": start.turn_id, **_unavailable("The worker is stopping.")})
        if sum(run.voice.open for run in self._runs.values()) >= self._capacity:
            full = _unavailable("The worker has as many turns as it can take.")
            return frame("turn_error", {"turn_id": start.turn_id, **full})
        voice = Voice(start.turn_id, self.wake.set)
        voice.accept()
        turn = Turn(start, voice)
        # Not a TaskGroup's: a turn that fails is no reason to end the others, and its end is told in `_ended`.
        task = asyncio.get_running_loop().create_task(self._perform(turn), name=f"turn {start.turn_id}")
        self._runs[start.turn_id] = run = _Run(turn, voice, task)
        self.idle.clear()
        task.add_done_callback(partial(self._ended, run))
        return None

    def _cancel(self, cancel: TurnCancel) -> None:
        run = self._runs.get(cancel.turn_id)
        if run is None:
            return  # its end is there already, or on its way
        if run.held:  # the broker has given it up, and wants nothing of it but the end
            run.held = False
            run.voice.skip()
        if run.voice.open:
            run.cause = "person"
            run.task.cancel()

    def _resume(self, resume: TurnResume) -> None:
        run = self._runs.get(resume.turn_id)
        if run is not None:
            run.voice.outbox.rewind(resume.seq)
            run.held, run.mark = False, 0
            self.wake.set()

    def _answered(self, answer: ApprovalAnswer) -> None:
        run = self._runs.get(answer.turn_id)
        if run is not None:
            run.voice.answered(answer.approval_id, answer.option_id)

    # -- the link ------------------------------------------------------------------------------------

    def names(self) -> list[dict[str, Any]]:
        """Return the turns that go on here, as a hello tells of them."""
        return [{"turn_id": turn_id, "seq": run.voice.outbox.head} for turn_id, run in self._runs.items()]

    def unsent(self) -> Iterator[bytes]:
        """Yield frames that are to be sent, a few of each turn; `wake` stays set if there are more."""
        for run in [run for run in self._runs.values() if run.waiting]:
            yield from run.voice.take(_FAIRNESS)
        if any(run.waiting for run in self._runs.values()):
            self.wake.set()

    def mark(self) -> int:
        """Return the number of a ping that is to be sent now, whose pong says that turns' ends arrived; 0 for none."""
        told = [run for run in self._runs.values() if run.told and not run.mark]
        if not told:
            return 0
        self._marks += 1
        for run in told:
            run.mark = self._marks
        return self._marks

    def arrived(self, mark: int) -> None:
        """Forget the turns whose end the broker has: it reads in order, and has answered a ping that came later."""
        for run in [run for run in self._runs.values() if 0 < run.mark <= mark]:
            self._forget(run)

    def lost(self) -> None:
        """Take all that is kept for unsent, since what was on its way may not have arrived, and wait for the broker."""
        for run in self._runs.values():
            run.voice.outbox.rewind()
            run.held, run.mark = True, 0

    def abandon(self) -> None:
        """Give up the turns that the broker did not take up again over the new link: for it they are lost."""
        for run in [run for run in self._runs.values() if run.held]:
            log.warning("the broker has given up turn %s while it could not be reached", run.turn.turn_id)
            self._drop(run)

    # -- how a turn ends -----------------------------------------------------------------------------

    def drain(self) -> None:
        """Take no new turns."""
        self.stopping = True
        self.wake.set()

    def stop(self) -> None:
        """End the turns that run, because the worker does."""
        self.stopping = True
        for run in self._runs.values():
            if run.voice.open:
                run.cause = run.cause or "worker"
                run.task.cancel()

    def cut(self) -> bool:
        """Say the end of the turns that run on though they were cancelled; tell whether there are any."""
        running = [run for run in self._runs.values() if run.voice.open]
        for run in running:
            log.warning("turn %s does not end though it was cancelled", run.turn.turn_id)
            if run.cause == "person":
                run.voice.end("turn_end", {"stop_reason": "cancelled"})
            else:
                run.voice.end("turn_error", _unavailable("The worker was stopped."))
        return bool(running)

    def _ended(self, run: _Run, task: asyncio.Task[str]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, TurnFailed):
            log.error("turn %s failed", run.turn.turn_id, exc_info=error)
        if not run.voice.open:
            return
        if run.cause == "person":
            run.voice.end("turn_end", {"stop_reason": "cancelled"})
        elif run.cause == "worker":
            run.voice.end("turn_error", _unavailable("The worker was stopped."))
        elif error is not None:
            run.voice.end("turn_error", _fault_of(error))
        elif task.cancelled():
            run.voice.end("turn_error", {"code": "agent_unavailable", "message": "The answer cancelled itself."})
        else:
            run.voice.end("turn_end", {"stop_reason": _words(task.result(), _WORD)})

    def close(self) -> None:
        """Let go of all turns: nobody will hear of them any more."""
        for run in list(self._runs.values()):
            self._drop(run)

    def _drop(self, run: _Run) -> None:
        self._forget(run)
        run.voice.close()
        run.task.cancel()

    def _forget(self, run: _Run) -> None:
        del self._runs[run.turn.turn_id]
        if not self._runs:
            self.idle.set()


def _fault_of(error: BaseException) -> dict[str, Any]:
    if isinstance(error, TurnFailed):
        code, message = _words(error.code, _WORD), _words(error.message, _WIDTH)
        return {"code": code, "message": message, "retryable": bool(error.retryable)}
    name, words = type(error).__name__, _words(error, _WIDTH)
    return {"code": "agent_unavailable", "message": f"{name}: {words}" if words else name}


def _words(value: object, most: int) -> str:
    """Return what a worker's author gave us as text that a frame may carry, whatever it is: the end has to be told."""
    try:
        text = str(value)
    except Exception:  # noqa: BLE001 - its `__str__` is the author's too
        text = ""
    return text[:most].encode(errors="replace").decode()


def _unavailable(message: str) -> dict[str, Any]:
    return {"code": "unavailable", "message": message, "retryable": True}

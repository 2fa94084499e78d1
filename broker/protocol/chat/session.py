"""One session as a client of `chat.v1.json` is told it: messages, variables, where the turns stand, what went wrong."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Final

import attrs
import msgspec

from broker.errors import ERRORS, BrokerError
from broker.messages import Record
from broker.protocol.chat.errors import error_content
from broker.protocol.chat.records import read_answer, read_end, read_fields, read_said, read_view
from broker.protocol.chat.turns import Execution, TurnView
from broker.protocol.chat.wire import RESERVED, Tag, write

__all__ = ["ChatSession"]

_AGAIN: Final = "Send it again under a new messageId."
_PERHAPS_AGAIN: Final = "Look whether it was done after all, then send it again under a new messageId."
_ENDS: Final = {
    "completed": ("agent_unavailable", "The agent ended without an answer.", _AGAIN),
    "failed": ("agent_unavailable", "The agent failed.", _AGAIN),
    "timed_out": ("timeout", "The agent took too long.", _AGAIN),
    "lost": ("agent_unavailable", "The agent was lost.", _PERHAPS_AGAIN),
}
"""What is said of a turn that ended without an answer, where its record does not say it better. Of one that was
cancelled nothing is: whoever cancelled it wanted no answer."""
_PIECES: Final = {"message.delta": "delta", "thought.delta": "thought"}
"""What pieces of an answer are called, which only those are told who want them."""


@attrs.define
class _Turn:
    """What an answer is worded with: the message that it answers.

    Attributes:
        tag: that message.
        whole: whether all of the turn was told here, so that it is known what was not.
        answered: whether it has an answer.
    """

    tag: Tag
    whole: bool = False
    answered: bool = False


class ChatSession:
    """One session, for one connection.

    What it remembers is bounded by what the session has open: its turns that run or wait, and their questions.

    Args:
        session_id: which.
        now: returns milliseconds since the epoch.

    Attributes:
        shown: whether it is subscribed to; otherwise it is being opened.
    """

    def __init__(self, session_id: str, now: Callable[[], int]) -> None:
        self.shown = False
        self._stream = False
        self._id = session_id
        self._now = now
        self._known = 0  # the number up to which variables and state were told by what the session said of itself
        self._turns: dict[str | None, _Turn] = {}
        self._execution = Execution()

    # -- what it says of itself ------------------------------------------------------------------------

    def open(self, answer: bytes, *, stream: bool) -> Iterator[bytes]:
        """Tell where the session stands, and its variables; what was said in it follows.

        Args:
            answer: what the session says of itself.
            stream: whether answers are to be told while they are being written, too.

        Raises:
            MsgspecError: that is not what sessions say.
        """
        view, fields = read_view(answer), read_fields(answer)
        self.shown, self._stream, self._known = True, stream, view.head
        self._execution.take_up(view.turn, view.queue, view.approvals)
        self._take_up(turn for turn in (view.turn, *view.queue) if turn is not None)
        del fields["variables"]
        yield self._of_itself("session.open", fields)
        yield self._standing("variables", {"set": view.variables, "variables": view.variables}, "variables")

    def _take_up(self, views: Iterable[TurnView]) -> None:
        """Remember the turns that have not ended, of which it is not known how much will be told; and no others."""
        known, self._turns = self._turns, {}
        for view in views:
            turn = known.get(view.turn_id)
            tag = Tag("user", view.client_msg_id, self._id) if turn is None else turn.tag
            self._turns[view.turn_id] = _Turn(tag)

    def begin_anew(self, epoch: str, head: int, floor: int) -> bytes:
        """Tell that what was told before counts no more."""
        self._turns.clear()
        return self._of_itself("session.reset", {"epoch": epoch, "head": head, "floor": floor})

    def catch_up(self, head: int) -> bytes:
        """Tell that all that was said before has been told."""
        return self._of_itself("session.caught_up", {"head": head})

    # -- what happens in it ----------------------------------------------------------------------------

    def tell(self, record: Record) -> Iterable[bytes]:
        """Tell one record."""
        if self._is_news(record):
            self._execution.follow(record)
        return self._TELLERS.get(record.kind, ChatSession._happened)(self, record)

    def _is_news(self, record: Record) -> bool:
        """Tell whether the session had not said by itself what a record says of variables and turns."""
        return record.seq > self._known

    def _said(self, record: Record) -> Iterator[bytes]:
        said, edited = read_said(record.data), record.kind == "turn.edited"
        if not (edited and record.turn_id in self._turns):
            tag = Tag("user", said.client_msg_id, self._id, said.action_id)
            self._turns[record.turn_id] = _Turn(tag, whole=not edited)
        metadata: dict[str, Any] = {key: value for key, value in said.metadata.items() if key not in RESERVED}
        metadata["author"] = said.author
        if edited:
            metadata["edited"] = True
        yield self._of(record, "user", "message", said.content, said.client_msg_id, metadata)

    def _answered(self, record: Record) -> Iterator[bytes]:
        answer, replaced = read_answer(record.data), record.kind == "message.replaced"
        if answer.thought:
            return
        turn = self._turns.get(record.turn_id)
        if turn is not None and answer.content != b'""':
            turn.answered = True
        metadata = {"replaced": True} if replaced else {}
        yield self._of(record, "assistant", "message", answer.content, answer.message_id, metadata)

    def _piece(self, record: Record) -> Iterator[bytes]:
        if self._stream:
            piece = read_answer(record.data)
            yield self._of(record, "assistant", _PIECES[record.kind], piece.text, piece.message_id)

    def _changed(self, record: Record) -> Iterator[bytes]:
        if self._is_news(record):
            yield self._of(record, "system", "variables", msgspec.Raw(record.data))

    def _debugged(self, record: Record) -> Iterator[bytes]:
        yield self._of(record, "system", "debug", msgspec.Raw(record.data))

    def _happened(self, record: Record) -> Iterator[bytes]:
        if self._is_news(record):
            content = self._state(record.kind, record.turn_id, msgspec.Raw(record.data))
            yield self._of(record, "system", "state", content)

    def _passed_over(self, _: Record) -> Iterable[bytes]:
        return ()

    def _ended(self, record: Record) -> Iterator[bytes]:
        """Say so, and if nobody has answered, that too: silence is no answer."""
        yield from self._happened(record)
        turn = self._turns.pop(record.turn_id, None) or _Turn(Tag("user", None, self._id))
        end = read_end(record.data)
        unanswered = end.empty or (turn.whole and not turn.answered)
        if end.outcome not in _ENDS or (end.outcome == "completed" and not unanswered):
            return
        code, sentence, recovery = _ENDS[end.outcome]
        code = end.error["code"] if end.error.get("code") in ERRORS else code
        error = BrokerError(code, end.error.get("message") or end.reason or sentence)
        yield self._write(
            *("system", "error", error_content(error, turn.tag, recovery)),
            message_id=f"{record.seq}:error",
            at=record.at,
            action_id=turn.tag.action_id,
            metadata={"seq": record.seq, "turnId": record.turn_id, "outcome": end.outcome},
        )

    # -- wording -----------------------------------------------------------------------------------------

    def _of_itself(self, event: str, data: Mapping[str, Any]) -> bytes:
        content = self._state(event, self._execution.running, data)
        return self._standing("state", content, event)

    def _standing(self, kind: str, content: Any, name: str) -> bytes:
        """Return a message about how the session stands."""
        at, metadata = self._now(), {"seq": self._known}
        return self._write("system", kind, content, message_id=f"{self._known}:{name}", at=at, metadata=metadata)

    def _state(self, event: str, turn_id: str | None, data: Any) -> dict[str, Any]:
        turn = self._turns.get(turn_id)
        message_id = None if turn is None else turn.tag.message_id
        state = self._execution.state
        return {"event": event, "state": state, "turnId": turn_id, "messageId": message_id, "data": data}

    def _of(
        self,
        record: Record,
        role: str,
        kind: str,
        content: Any,
        message_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> bytes:
        """Return a message that tells of a record."""
        turn = self._turns.get(record.turn_id)
        return self._write(
            *(role, kind, content),
            message_id=message_id or str(record.seq),
            at=record.at,
            action_id=None if turn is None else turn.tag.action_id,
            metadata={**(metadata or {}), "seq": record.seq, "turnId": record.turn_id},
        )

    def _write(self, role: str, kind: str, content: Any, *, message_id: str, **rest: Any) -> bytes:
        own_id = f"{self._id}:{message_id}" if role == "system" else message_id
        return write(role, kind, content, message_id=own_id, session_id=self._id, **rest)

    _TELLERS: ClassVar[dict[str, "Teller"]] = {
        "user.message": _said,
        "turn.edited": _said,
        "turn.ended": _ended,
        "message.completed": _answered,
        "message.replaced": _answered,
        "message.delta": _piece,
        "thought.delta": _piece,
        "variables.changed": _changed,
        "debug": _debugged,
        "session.opened": _passed_over,
        "withheld": _passed_over,
    }
    """What is told of a record, by its kind; of all others, that it happened."""


Teller = Callable[[ChatSession, Record], Iterable[bytes]]

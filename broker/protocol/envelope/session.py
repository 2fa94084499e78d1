"""One session as one client of `envelope.v1.json` follows it: what of its log it is told, and how.

The log is told in its order. What a client has been told once is passed over when it comes again, except for the
turns that it has asked for anew: of those the replies come again, and their end.
"""

from collections.abc import Container, Iterator
from typing import Any, Final

import attrs
import msgspec

from broker.messages import Record
from broker.protocol.envelope.answers import Opened
from broker.protocol.envelope.texts import Text, Texts, failed_end
from broker.protocol.envelope.voice import Voice
from broker.protocol.envelope.wire import RESERVED, block_of
from broker.protocol.outgoing import SessionReset

__all__ = ["Followed", "Turn"]

_CONVERSATION: Final = frozenset({"user.message", "message.completed", "turn.ended"})
"""What is told anew where that is asked for."""
_HIDDEN: Final = frozenset({"withheld"})
_STREAMED: Final = frozenset({"message.delta", "thought.delta"})


class _Said(msgspec.Struct):
    """The data of a message's record."""

    content: msgspec.Raw
    message_id: str
    client_msg_id: str = ""
    author: str | None = None
    metadata: dict[str, msgspec.Raw] = {}


class _Delta(msgspec.Struct):
    message_id: str
    text: msgspec.Raw


_read_said: Final = msgspec.json.Decoder(_Said).decode
_read_delta: Final = msgspec.json.Decoder(_Delta).decode
_read_any: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder().encode


@attrs.define(eq=False)
class Turn:
    """A turn that has not ended, as far as this client has been told.

    Attributes:
        id: the id of the text that it answers.
        author: whose text that is.
        whole: whether the client has been told of it from its beginning.
        told: the number of the last reply it was told; 0 for none.
        answered: whether there was any.
        text: that text, if it is one of this client's that waits for its end.
        seq: the number that it begins with; known of those with a text.
    """

    id: str
    author: str | None
    whole: bool
    told: int = 0
    answered: bool = False
    text: Text | None = None
    seq: int = 0

    def marks(self, user: str | None) -> dict[str, Any]:
        """Return the metadata of all that is said of it to this user.

        Two users may give their texts the same id: what answers another's says whose it is.
        """
        own = self.text is not None or self.author == user
        whose = {} if own else {"author": msgspec.Raw(_encode(self.author))}
        return {"replyTo": self.id, "late": True if self.text is not None and self.text.late else None, **whose}


@attrs.define(eq=False)
class Followed:
    """One session.

    Attributes:
        session_id: its id.
        opens: requests to attach to it that are on their way.
        open: whether it is followed.
        epoch: which log of that name it is.
        last: the number of the last record that came.
        stream: whether the client wants to hear the agent speak.
        announce: whether it wants to know when it has caught up.
        turns: those that have not ended.
        again: those that are being told anew: the number they begin with.
        next: those that are to be told anew when that is done.
        waiting: texts that are to be said as soon as it is open, with the payload of their `turn.start`.
    """

    session_id: str
    _voice: Voice
    _texts: Texts
    opens: int = 0
    open: bool = False
    epoch: str = ""
    last: int = 0
    stream: bool = False
    announce: bool = False
    turns: dict[str, Turn] = attrs.Factory(dict)
    again: dict[str, int] = attrs.Factory(dict)
    next: dict[str, int] = attrs.Factory(dict)
    waiting: list[tuple[Text, bytes]] = attrs.Factory(list)

    # -- where it stands ------------------------------------------------------------------------------

    def attach(self, opened: Opened, after: int) -> None:
        """Take note of where the log is told from: after `after`, if that is possible.

        What this client waits for and would miss by that is told anew.
        """
        before, other = self.last, opened.epoch != self.epoch
        self.open, self.epoch = True, opened.epoch
        if not opened.recovered:
            self.last = opened.floor - 1
        else:
            self.last = opened.head if after == -1 else after
        seen = {view.turn_id: view for view in (*opened.queue, opened.turn) if view is not None}
        self._pass_over(self.last > before or other, other, seen)
        for view in seen.values():
            self.turns.setdefault(view.turn_id, Turn(view.client_msg_id, view.user, whole=view.state == "queued"))

    def _pass_over(self, missed: bool, other: bool, going_on: Container[str]) -> None:
        """See to the turns that are known, where the log is told from elsewhere.

        Args:
            missed: whether some of it is not told at all.
            other: whether it is another log than it was.
            going_on: the turns that have not ended.
        """
        asked = {*self.again, *self.next}
        self.again.clear()
        self.next.clear()
        for turn_id, turn in list(self.turns.items()):
            turn.told = min(turn.told, self.last)
            if turn.text is None:
                if missed and turn_id not in going_on:
                    del self.turns[turn_id]
            elif other or (turn.seq <= self.last and (missed or turn_id in asked)):
                turn.whole, self.next[turn_id] = False, turn.seq

    def take(self, text: Text, turn_id: str, seq: int, *, duplicate: bool) -> None:
        """Take note of the turn that came of a text; if it is not told from its beginning, it is told anew."""
        text.turn_id = turn_id
        fresh = Turn(text.id, self._texts.user, whole=not duplicate and seq > self.last)
        turn = self.turns.setdefault(turn_id, fresh)
        turn.text, turn.seq = text, seq
        if not turn.whole and turn_id not in self.again:
            self.next[turn_id] = seq

    def begin_again(self) -> bool:
        """Tell whether there is something to be told anew, and nothing in the way of that: one thing at a time."""
        if not self.open or self.opens or self.again or not self.next:
            return False
        self.again, self.next = self.next, {}
        return True

    def interrupt(self) -> None:
        """Have all told anew from its beginning that was being told anew."""
        for turn_id in self.again:
            self.turns[turn_id].whole = False
        self.next = {**self.again, **self.next}
        self.again = {}

    def close(self) -> None:
        """Forget what was known of it, since it is followed no longer."""
        self.open = False
        for known in (self.turns, self.again, self.next):
            known.clear()

    @property
    def start(self) -> int:
        """The number after which it has to be told once more, so that nothing is missed."""
        return min([self.last, *(max(seq - 1, 0) for seq in self.again.values())])

    def reset(self, value: SessionReset) -> bytes:
        """Return what is said where the log does not go on from where the client was.

        Empty if it only does not reach back to what was asked for anew.
        """
        gone = value.floor - 1
        if not self.announce and value.epoch == self.epoch and gone <= self.last:
            return b""
        self.epoch, self.last = value.epoch, gone
        data = {"epoch": value.epoch, "head": value.head, "floor": value.floor}
        return self._voice.event("session.reset", data, session_id=self.session_id)

    def give_up(self) -> Iterator[Text]:
        """Return the texts that were asked for anew, and whose turn has not come again from its beginning."""
        for turn_id in self.again:
            turn = self.turns.get(turn_id)
            if turn is not None and turn.text is not None and not turn.whole:
                del self.turns[turn_id]
                yield turn.text
        self.again.clear()

    # -- what its log says ----------------------------------------------------------------------------

    def tell(self, record: Record) -> bytes:
        """Return what is said of a record; empty if nothing is."""
        wanted, anew = record.turn_id in self.again, record.seq <= self.last
        if anew and not wanted:
            return b""
        self.last = max(self.last, record.seq)
        if record.kind in _CONVERSATION:
            # Of what is asked for anew everything comes in its order, from where it begins, once that is there.
            hold = record.turn_id in self.next or (wanted and self.opens)
            return b"" if hold else self._converse(record)
        if anew or record.kind in _HIDDEN:
            return b""
        if record.kind in _STREAMED:
            return self._delta(record) if self.stream else b""
        return self._voice.record(self.session_id, record, self._marks(record))

    def _converse(self, record: Record) -> bytes:
        match record.kind:
            case "user.message":
                return self._user_message(record)
            case "message.completed":
                return self._reply(record)
        return self._ended(record)

    def _marks(self, record: Record) -> dict[str, Any]:
        turn = self.turns.get(record.turn_id or "")
        return {} if turn is None else turn.marks(self._texts.user)

    def _user_message(self, record: Record) -> bytes:
        said = _read_said(record.data)
        turn = self.turns.setdefault(record.turn_id or "", Turn(said.client_msg_id, said.author, whole=True))
        turn.whole = True
        if turn.text is not None:
            return b""  # its sender has it
        theirs = {key: value for key, value in said.metadata.items() if key not in RESERVED}
        return self._voice.of_log(
            self.session_id,
            record,
            block_of(said.content),
            {**theirs, "author": said.author},
            message_id=said.client_msg_id,
            kind="text",
            sender="user",
            to="ai",
        )

    def _reply(self, record: Record) -> bytes:
        turn = self.turns.get(record.turn_id or "")
        if turn is not None:
            if record.seq <= turn.told:
                return b""
            turn.told, turn.answered = record.seq, True
        said = _read_said(record.data)
        return self._of_agent(record, block_of(said.content), said.message_id, self._marks(record))

    def _delta(self, record: Record) -> bytes:
        if record.kind == "thought.delta":
            return self._voice.record(self.session_id, record, self._marks(record))
        delta = _read_delta(record.data)
        marks = {**self._marks(record), "partial": True}
        return self._of_agent(record, {"delta": delta.text}, delta.message_id, marks)

    def _of_agent(self, record: Record, content: Any, message_id: str, marks: dict[str, Any]) -> bytes:
        return self._voice.of_log(
            self.session_id, record, content, marks, message_id=message_id, kind="text", sender="ai"
        )

    def _ended(self, record: Record) -> bytes:
        turn = self.turns.pop(record.turn_id or "", None)
        self.again.pop(record.turn_id or "", None)
        if turn is None:
            return self._voice.record(self.session_id, record)
        marks = turn.marks(self._texts.user)
        if turn.text is None:
            return self._voice.record(self.session_id, record, marks)
        self._texts.end(turn.text)
        trouble = failed_end(_read_any(record.data), answered=turn.answered)
        marks["final"] = True
        if trouble is None:
            return self._voice.record(self.session_id, record, marks)
        return self._voice.of_log(self.session_id, record, {"event": "error", "data": trouble}, marks)

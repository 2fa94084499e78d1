"""What connections do in a run: have messages echoed, and hold conversations."""

import time
from typing import Any, Final

import attrs
import msgspec

from broker.cli.benchmark.peer import Ask, Heard, Peer, Refusal
from broker.cli.benchmark.tally import Sequence, Tally
from broker.ids import new_id

__all__ = ["TITLE", "Conversation", "Echoes"]

TITLE: Final = "broker bench"
"""What sessions are called that a run makes."""

_now: Final = time.perf_counter


class _Number(msgspec.Struct):
    """A message that carries its number."""

    n: int


_number: Final = msgspec.json.Decoder(_Number).decode


@attrs.define
class Echoes:
    """Has messages echoed, and sends the next when it is due, whether the last was answered or not."""

    _peer: Peer
    _tally: Tally
    _text: str
    _waiting: dict[int, float] = attrs.field(factory=dict, init=False)
    _order: Sequence = attrs.field(factory=Sequence, init=False)

    async def joined(self) -> None:
        """Do nothing: an echo needs nothing."""

    @property
    def remains(self) -> bool:
        """Whether there is something of it at the broker."""
        return False

    async def act(self, number: int, due: float) -> None:
        """Send a message with its number."""
        self._tally.sent += 1
        self._waiting[number] = due
        await self._peer.tell(str(number), "echo", {"n": number, "text": self._text})

    def hear(self, heard: Heard) -> None:
        """Take an echo, which carries its number itself, or an error, which names the request."""
        if heard.type == "error":
            self._tally.fail(str(heard.field("code")))
        elif heard.type != "response":
            return
        try:
            number = _number(heard.data).n if heard.type == "response" else int(heard.id or "")
        except (msgspec.DecodeError, ValueError):
            self._tally.fail("unreadable")
            return
        self._order.take(number, self._tally)
        due = self._waiting.pop(number, None)
        if due is not None:
            self._tally.answered += 1
            self._tally.observe("answer", _now() - due)

    def cut(self) -> None:
        """Count what was not answered as lost: nobody sends an echo again."""
        self._tally.lost += len(self._waiting)
        self._waiting.clear()

    def open(self) -> int:
        """Return how many were not answered yet."""
        return len(self._waiting)

    def close(self) -> None:
        """Count what was not answered as lost."""
        self.cut()

    async def leave(self, ask: Ask) -> None:
        """Do nothing: an echo leaves nothing."""


@attrs.define
class Conversation:
    """Holds a conversation in a session of its own, a turn at a time, and resumes it like any client.

    The log's records are what is counted: each has its number, and a turn has one end (PROTOCOL section 1).
    """

    _peer: Peer
    _tally: Tally
    _text: str
    _agent: str | None
    _session_id: str | None = attrs.field(default=None, init=False)
    _epoch: Any = attrs.field(default=None, init=False)
    _log: Sequence = attrs.field(factory=Sequence, init=False)
    _message: str | None = attrs.field(default=None, init=False)
    _is_answered: bool = attrs.field(default=False, init=False)
    _turn_id: str | None = attrs.field(default=None, init=False)
    _due: float = attrs.field(default=0.0, init=False)
    _spoke: bool = attrs.field(default=False, init=False)

    async def joined(self) -> None:
        """Make the session, or attach to it again and ask again what was not answered."""
        if self._session_id is not None:
            resume = {"session_id": self._session_id, "after_seq": self._log.highest, "epoch": self._epoch}
            try:
                await self._peer.ask("session.attach", resume)
            except Refusal as e:
                if e.code != "not_found":
                    raise
                self._lose()
                self._session_id = None
            else:
                await self._say_again()
                return
        self._session_id = new_id()  # ours, so that it can be deleted even if the answer is lost
        wanted = {
            "session_id": self._session_id,
            "title": TITLE,
            **({} if self._agent is None else {"agent": self._agent}),
        }
        made = await self._peer.ask("session.create", wanted)
        self._epoch = made.field("epoch")
        self._log = Sequence(made.field("head") + 1)

    @property
    def remains(self) -> bool:
        """Whether there is a session that was not deleted."""
        return self._session_id is not None

    async def act(self, number: int, due: float) -> None:
        """Start a turn, unless one is under way: what is due then is left out."""
        if self._message is not None:
            self._tally.left_out += 1
            return
        self._tally.sent += 1
        self._message, self._turn_id, self._is_answered, self._spoke = new_id(), None, False, False
        self._due = due
        await self._say_again()

    def hear(self, heard: Heard) -> None:
        """Take the answer to a turn, or a record of the log."""
        if heard.id is not None:
            if heard.id == self._message:
                self._answered(heard)
        elif heard.event == "session.reset":
            self._lose()
            self._epoch, self._log = heard.field("epoch"), Sequence(heard.field("floor"))
        elif heard.seq is not None and heard.session_id == self._session_id:
            self._log.take(heard.seq, self._tally)
            self._record(heard)

    def cut(self) -> None:
        """Do nothing: the session goes on, and is attached to again."""

    def open(self) -> int:
        """Return 1 for a turn that has not ended, and how many records are missing."""
        return (self._message is not None) + self._log.missing

    def close(self) -> None:
        """Count a turn without an end, and records that never came, as lost."""
        self._tally.lost += self.open()

    async def leave(self, ask: Ask) -> None:
        """Delete the session."""
        if self._session_id is None:
            return
        try:
            await ask("session.delete", {"session_id": self._session_id})
        except Refusal as e:
            if e.code != "not_found":
                raise
        self._session_id = None

    # -- inside -----------------------------------------------------------------------------------------

    async def _say_again(self) -> None:
        """Send what is not answered, under the same id, so that it is one turn however often it is sent (P4)."""
        if self._message is not None and not self._is_answered:
            turn = {"session_id": self._session_id, "client_msg_id": self._message, "content": self._text}
            await self._peer.tell(self._message, "turn.start", turn)

    def _answered(self, heard: Heard) -> None:
        if heard.type == "error":
            self._tally.answered += 1
            self._tally.fail(str(heard.field("code")))
            self._message = None
        elif not self._is_answered:
            self._is_answered = True
            self._tally.answered += 1
            self._tally.observe("accepted", _now() - self._due)

    def _record(self, heard: Heard) -> None:
        """Look at a record of the turn under way, whose message names it: its answer may be lost with a link."""
        if heard.event == "user.message" and heard.field("client_msg_id") == self._message:
            self._turn_id = heard.turn_id
        elif heard.turn_id is None or heard.turn_id != self._turn_id:
            return
        elif heard.event in {"message.delta", "thought.delta"} and not self._spoke:
            self._spoke = True
            self._tally.observe("first token", _now() - self._due)
        elif heard.event == "turn.ended":
            self._tally.observe("turn", _now() - self._due)
            self._tally.end(str(heard.field("outcome")))
            self._message = None

    def _lose(self) -> None:
        """Count as lost what was under way: the broker has forgotten the session, or its log."""
        self.close()
        self._log, self._message = Sequence(), None

"""The sessions that one client of `envelope.v1.json` follows, and its texts in them, from their coming to their end."""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, Final

import msgspec

from broker.errors import BrokerError
from broker.ids import new_id
from broker.protocol.dialect import Later, Reaction
from broker.protocol.envelope.answers import ACCEPTED, OPENED, Asked
from broker.protocol.envelope.cancels import Cancels
from broker.protocol.envelope.openings import Openings
from broker.protocol.envelope.requests import Opening, open_payload, opening_of, start_payload
from broker.protocol.envelope.session import Followed
from broker.protocol.envelope.texts import TICKS, Text, Texts
from broker.protocol.envelope.voice import Voice
from broker.protocol.envelope.wire import Wire
from broker.protocol.outgoing import CaughtUp, Request, SessionDetached, SessionRecord, SessionReset
from broker.protocol.refusals import NO_LONGER, is_gone

__all__ = ["Sessions"]

WAITING: Final = 1 << 20
"""Bytes of texts that may wait for their session to be opened; a single one may have more."""
_FROM_NOW_ON: Final = Opening(after_seq=-1)
_NOT_KEPT: Final = BrokerError("not_found", "The reply is not kept any more.", hint="send it again under a new id")
_encode: Final = msgspec.json.Encoder().encode


class Sessions:
    """The sessions of one connection.

    Args:
        timeout: seconds within which a text has a reply or an error.
        voice: words what is said.

    Attributes:
        current: the session of messages that name none: the one that was named last.
        texts: the texts that have not come to their end.
    """

    def __init__(self, timeout: float, voice: Voice) -> None:
        self.current: str | None = None
        self.texts = Texts()
        self._tick = timeout / TICKS
        self._ticking = False
        self._voice = voice
        self._sessions: dict[str, Followed] = {}
        self._openings = Openings()
        self._cancels = Cancels()

    # -- opening --------------------------------------------------------------------------------------

    def init(self, wire: Wire) -> Request:
        """Return what opens the session that an `init` names; without a name it is a new one.

        Raises:
            BrokerError: `invalid_message`, `overloaded`.
        """
        opening = opening_of(wire)
        session_id = wire.session_id or new_id()
        payload = open_payload(session_id, opening)
        self._openings.check(len(payload))
        self.current = session_id
        session = self._session(self.current)
        refused, handled = partial(self._not_opened, session, wire.id), partial(self._init_handled, session, wire)
        asked = Asked(wire.id, partial(self._inited, session, opening, wire), refused, handled)
        return self._openings.ask(session, "session.open", payload, asked, wire.type)

    def _session(self, session_id: str) -> Followed:
        session = self._sessions.get(session_id)
        if session is None:
            session = self._sessions[session_id] = Followed(session_id, self._voice, self.texts)
        return session

    def _open_quietly(self, session: Followed, text_id: str) -> Request:
        """Return what opens a session for a text, from now on."""
        then, refused = partial(self._opened, session, _FROM_NOW_ON), partial(self._not_opened, session, None)
        payload = open_payload(session.session_id, _FROM_NOW_ON)
        return self._openings.ask(session, "session.open", payload, Asked(text_id, then, refused))

    def _look_up(self, session: Followed, message_id: str | None) -> Request:
        """Return what opens a session, from now on, if it is there."""
        then, refused = partial(self._opened, session, _FROM_NOW_ON), partial(self._not_there, session)
        payload = open_payload(session.session_id, _FROM_NOW_ON)
        return self._openings.ask(session, "session.attach", payload, Asked(message_id, then, refused))

    def _not_there(self, session: Followed, error: BrokerError) -> Iterator[Reaction]:
        for _, asked in self._cancels.of_session(session.session_id):
            yield from asked.refused(error)
        yield from self._left_alone(session)

    def _inited(self, session: Followed, opening: Opening, wire: Wire, data: bytes) -> Iterator[Reaction]:
        opened = OPENED.decode(data)
        session.stream, session.announce = opening.stream, True
        told = {"sessionId": opened.session_id, **msgspec.structs.asdict(opened)}
        del told["session_id"]
        marks = {"replyTo": wire.id, "final": True}
        yield self._voice.say(told, marks, kind="init", session_id=session.session_id)
        yield from self._opened(session, opening, data)

    def _init_handled(self, session: Followed, wire: Wire, data: bytes) -> Iterator[Reaction]:
        """Tell what a handler has answered, who has opened nothing."""
        yield self._voice.answer(wire, data, final=True)
        yield from self._left_alone(session)

    def _opened(self, session: Followed, opening: Opening, data: bytes) -> Iterator[Reaction]:
        session.attach(OPENED.decode(data), opening.after_seq or 0)
        self._sessions[session.session_id] = session
        waiting, session.waiting = session.waiting, []
        for text, start in waiting:
            yield self._start(text, start)
        yield from self._tell_again(session)
        yield from self._resume_cancels(session)

    def _left_alone(self, session: Followed) -> Iterator[Reaction]:
        """See to a session that was not opened after all: what waits for it has it opened."""
        if session.opens:
            return
        if session.open:
            yield from self._stay_open(session)
        elif session.waiting:
            yield self._open_quietly(session, session.waiting[0][0].id)
        else:
            self._sessions.pop(session.session_id, None)
            yield from self._resume_cancels(session)

    def _stay_open(self, session: Followed) -> Iterator[Reaction]:
        """Go on as before with what was being told anew, and held back for what did not come."""
        session.interrupt()
        yield from self._tell_again(session)

    def _not_opened(self, session: Followed, init_id: str | None, error: BrokerError) -> Iterator[Reaction]:
        if init_id is not None:
            marks = {"replyTo": init_id, "final": True}
            yield self._voice.error(error, marks, session_id=session.session_id)
        if session.open and is_gone(error):
            yield from self._lose(session, error)
        if session.opens:
            return
        if session.open:
            yield from self._stay_open(session)
            return
        self._sessions.pop(session.session_id, None)
        for _, asked in self._cancels.of_session(session.session_id):
            yield from asked.refused(error)
        waiting, session.waiting = session.waiting, []
        for text, _ in waiting:
            yield from self._refused(text, error)

    # -- the way of a text ----------------------------------------------------------------------------

    def text(self, wire: Wire, whole: bytes) -> Request:
        """Return what begins the way of a text: it is held until its time has begun to run.

        Raises:
            BrokerError: `invalid_message`, `overloaded`.
        """
        session_id = wire.session_id or self.current or new_id()
        start = start_payload(wire, session_id)
        text = self.texts.send(session_id, wire.id or "")
        self.current = session_id
        refused, handled = partial(self._refused, text), partial(self._handled, text, wire)
        offer = Asked(wire.id, partial(self._unclaimed, text, start), refused, handled)
        offered = Request("ping", b"{}", offer, wire.type, whole, looked=True)
        came = Asked(wire.id, partial(self._came, offered), refused)
        return Request("turn.start", start, came, wire.type, held=True)

    def _came(self, offered: Request, _: bytes) -> Iterator[Reaction]:
        """Offer a text to a handler; where there is none, a `ping` is answered in that one's place."""
        yield from self._watch()
        yield offered

    def _handled(self, text: Text, wire: Wire, data: bytes) -> Iterator[Reaction]:
        final = self.texts.answered(text)
        yield self._voice.answer(wire, data, final=final)
        if final:
            yield from self._resume(self._cancels.of_text(text.session_id, text.id), text)

    def _unclaimed(self, text: Text, start: bytes, _: bytes) -> Iterator[Reaction]:
        """Start the turn of a text that no handler wanted, in its session."""
        session = self._session(text.session_id)
        if session.open:
            yield self._start(text, start)
            return
        if session.waiting and sum(len(waiting) for _, waiting in session.waiting) + len(start) > WAITING:
            said = "The session is still being opened, and too much waits for it."
            yield from self._refused(text, BrokerError("overloaded", said, retry_after=1.0))
            return
        session.waiting.append((text, start))
        if not session.opens:
            yield self._open_quietly(session, text.id)

    def _start(self, text: Text, start: bytes) -> Request:
        asked = Asked(text.id, partial(self._accepted, text), partial(self._refused, text))
        return Request("turn.start", start, asked, looked=True)

    def _accepted(self, text: Text, data: bytes) -> Iterator[Reaction]:
        accepted = ACCEPTED.decode(data)
        told = msgspec.structs.asdict(accepted)
        told["turnId"] = told.pop("turn_id")
        yield self._voice.event("accepted", told, {"replyTo": text.id}, session_id=text.session_id)
        session = self._sessions.get(text.session_id)
        if session is None or not session.open:
            yield from self._refused(text, NO_LONGER)
            return
        text.sends -= 1
        session.take(text, accepted.turn_id, accepted.seq, duplicate=accepted.duplicate)
        yield from self._tell_again(session)
        yield from self._resume(self._cancels.of_text(text.session_id, text.id), text)

    def _refused(self, text: Text, error: BrokerError) -> Iterator[Reaction]:
        session = self._sessions.get(text.session_id)
        if session is not None and session.open and is_gone(error):
            yield from self._lose(session, error)
        final = self.texts.answered(text)
        marks = {"replyTo": text.id, "final": True if final else None}
        yield self._voice.error(error, marks, session_id=text.session_id)
        if final:
            yield from self._resume(self._cancels.of_text(text.session_id, text.id), text)

    # -- what is to be cancelled ----------------------------------------------------------------------

    def cancel(self, session_id: str, text_id: str, payload: bytes, asked: Asked) -> Request:
        """Return what begins a cancel by the id of a text: it is held until it is known which turn that has become.

        Args:
            session_id: the session.
            text_id: the text's id; where it is none of the user's, it is taken for that of a turn.
            payload: of `turn.cancel`, with that id.
            asked: takes the answer.
        """
        come = Asked(asked.id, partial(self._cancel, session_id, text_id, asked), asked.refused)
        return Request("turn.cancel", payload, come, held=True)

    def _cancel(self, session_id: str, text_id: str, asked: Asked, _: bytes = b"") -> Iterator[Reaction]:
        text, session = self.texts.find(session_id, text_id), self._sessions.get(session_id)
        is_open = session is not None and session.open
        if is_open and (text is None or text.turn_id is not None):
            turn_id = self._turn_of(session_id, text_id) or text_id
            yield Request("turn.cancel", _encode({"session_id": session_id, "turn_id": turn_id}), asked)
            return
        try:
            self._cancels.wait(session_id, text_id, asked)
        except BrokerError as e:
            yield from asked.refused(e)
            return
        if text is None and (session is None or not session.opens):
            yield self._look_up(self._session(session_id), asked.id)

    def _turn_of(self, session_id: str, text_id: str) -> str | None:
        """Return the turn that a text has become: one of this connection's, else of this user's; never another's."""
        text = self.texts.find(session_id, text_id)
        if text is not None:
            return text.turn_id
        turns, user = self._sessions[session_id].turns, self.texts.user
        return next((turn_id for turn_id, turn in turns.items() if (turn.id, turn.author) == (text_id, user)), None)

    def _resume(self, cancels: Iterable[Asked], text: Text) -> Iterator[Reaction]:
        for asked in cancels:
            yield from self._cancel(text.session_id, text.id, asked)

    def _resume_cancels(self, session: Followed) -> Iterator[Reaction]:
        """Go on with all that waits in a session that is open now, or is not being opened any more."""
        for text_id, asked in self._cancels.of_session(session.session_id):
            yield from self._cancel(session.session_id, text_id, asked)

    # -- what was sent before -------------------------------------------------------------------------

    def _tell_again(self, session: Followed) -> Iterator[Reaction]:
        """Have the log told once more, from where the turns began that are asked for anew, if there are any."""
        if not session.begin_again():
            return
        payload = {"session_id": session.session_id, "after_seq": session.start, "epoch": session.epoch}
        text = session.turns[next(iter(session.again))].text
        refused = partial(self._not_told_again, session)
        asked = Asked(None if text is None else text.id, lambda _: (), refused)
        yield self._openings.ask(session, "session.attach", _encode(payload), asked)

    def _not_told_again(self, session: Followed, error: BrokerError) -> Iterator[Reaction]:
        if is_gone(error):
            yield from self._lose(session, error)
        for text in session.give_up():
            yield self._end(text, error)
        yield from self._tell_again(session)

    # -- what is told ---------------------------------------------------------------------------------

    def tell(self, value: SessionRecord | SessionReset | CaughtUp | SessionDetached) -> Iterator[Reaction]:
        """Say what a client has to know of a session that it follows."""
        session = self._sessions.get(value.session_id)
        if session is None:
            return
        match value:
            case SessionRecord(_, record):
                if said := session.tell(record):
                    yield said
            case CaughtUp(_, head):
                yield from self._caught_up(session, head)
            case SessionReset():
                if said := session.reset(value):
                    yield said
            case SessionDetached():
                yield self._voice.event("session.detached", NO_LONGER.as_data(), session_id=session.session_id)
                yield from self._lose(session, NO_LONGER)

    def _caught_up(self, session: Followed, head: int) -> Iterator[Reaction]:
        if session.opens:
            return  # somebody has attached once more, so there is more to come
        for text in session.give_up():
            yield self._end(text, _NOT_KEPT)
        yield from self._tell_again(session)
        if session.announce and not session.opens:
            session.announce = False
            yield self._voice.event("session.caught_up", {"head": head}, session_id=session.session_id)

    def _lose(self, session: Followed, error: BrokerError) -> Iterator[Reaction]:
        """Forget a session, whose turns the client will hear nothing more of."""
        session.close()
        if not session.opens:
            self._sessions.pop(session.session_id, None)
        for text in self.texts.of(session.session_id):
            if text.turn_id is not None:
                yield self._end(text, error)

    def _end(self, text: Text, error: BrokerError) -> bytes:
        self.texts.end(text)
        return self._voice.error(error, {"replyTo": text.id, "final": True}, session_id=text.session_id)

    # -- time -----------------------------------------------------------------------------------------

    def due(self, token: Any) -> Iterator[Reaction]:
        """Ask once more for what was refused for a moment, or look whose time is over."""
        match token:
            case Request():
                yield token
            case None:
                self._ticking = False
                yield from self._pass_time()
        yield from self._watch()

    def _pass_time(self) -> Iterator[Reaction]:
        """Tell the senders of texts whose time is over that they will hear later."""
        for text in self.texts.tick():
            said = "No answer came in time." if text.turn_id is None else "The turn goes on; its reply comes later."
            error = BrokerError("timeout", said, hint="wait for it, or cancel it")
            yield self._voice.error(error, {"replyTo": text.id}, session_id=text.session_id)

    def _watch(self) -> Iterator[Reaction]:
        if not self._ticking and self.texts.watched:
            self._ticking = True
            yield Later(self._tick, None)

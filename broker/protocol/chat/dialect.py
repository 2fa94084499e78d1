"""`chat.v1.json`: conversations with an agent, with their variables and where they stand pushed to who subscribes.

The design is seed 004 (PROTOCOL section 6). Both ways a message is `{messageId, sessionId, role, content, actionId,
metadata, timestamp}`. What people say has the role `user`, what agents say `assistant`, everything else `system`, and
`metadata.kind` says what it is.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import attrs
import msgspec

from broker.errors import BrokerError
from broker.protocol.chat.asked import (
    OF_SESSIONS,
    Leaving,
    Opening,
    ask,
    is_plain,
    open_named,
    opening,
    session_of,
    speak,
)
from broker.protocol.chat.errors import error_content
from broker.protocol.chat.notices import notice, reply
from broker.protocol.chat.session import ChatSession
from broker.protocol.chat.waiting import Budget, Hall, Waiting
from broker.protocol.chat.wire import Tag, options_of, read, salvage
from broker.protocol.dialect import Later, Reaction
from broker.protocol.outgoing import (
    CaughtUp,
    Due,
    Entered,
    Failure,
    Outgoing,
    Request,
    Response,
    SessionDetached,
    SessionRecord,
    SessionReset,
)
from broker.protocol.refusals import NO_LONGER, is_gone, pause

__all__ = ["ChatDialect", "ChatFormat"]


class ChatFormat:
    """The format, as one shared object.

    Args:
        now: returns milliseconds since the epoch.
    """

    name = "chat.v1.json"

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now

    def decode(self, text: bytes) -> Request:
        """Read one message, as the first of a connection; raises as `ChatDialect.decode`."""
        return self.dialect({}).decode(text)

    def salvage_id(self, text: bytes) -> Tag | None:
        """Return which message was refused, as far as that can be read."""
        return salvage(text)

    def encode(self, value: Outgoing) -> bytes:
        """Return the value as a connection is told it that has subscribed to nothing."""
        return next((said for said in self.dialect({}).tell(value) if isinstance(said, bytes)), b"")

    def dialect(self, query: Mapping[str, str]) -> "ChatDialect":
        """Return the end of a new connection."""
        return ChatDialect(query, self._now)


class ChatDialect:
    """One connection's end: which sessions it has subscribed to, and what waits until one of them is open.

    Args:
        query: the URL's parameters: `sessionId` and, for that one, what a message's metadata may say.
        now: returns milliseconds since the epoch.
    """

    def __init__(self, query: Mapping[str, str], now: Callable[[], int]) -> None:
        self._query = query
        self._now = now
        self._named: str | None = query.get("sessionId")
        self._own = self._named  # what messages are about that name no session
        self._sessions: dict[str, ChatSession] = {}
        self._hall = Hall()
        self._openings = Budget()

    # -- what the client says ----------------------------------------------------------------------------

    def decode(self, text: bytes) -> Request:
        """Read one message.

        Raises:
            BrokerError: `invalid_json`, `invalid_message` with the field that is wrong, or `overloaded`: too many
                wait until their sessions are open, or too many sessions are being opened.
        """
        said = read(text)
        options = options_of(said)
        kind = "user" if said.role == "user" else options.kind or ""
        tag = Tag(kind, said.message_id, said.session_id or self._own, said.action_id)
        if said.role == "user" or kind == "subscribe":
            self._own = self._own or session_of(tag)
        if kind == "subscribe":
            return self._subscribe(opening(tag, options))
        request = speak(said, options, tag) if said.role == "user" else ask(said, tag)
        if not self._must_wait(tag):
            return self._let_go(request)
        request.text = text
        waiting = Waiting(request, opening(tag, options))
        self._hall.expect(waiting)
        return attrs.evolve(request, id=waiting, held=True)

    def salvage_id(self, text: bytes) -> Tag | None:
        """Return which message was refused, as far as that can be read."""
        return salvage(text)

    def _subscribe(self, wanted: Opening) -> Request:
        self._openings.take(len(wanted.payload))
        self._prepare(session_of(wanted.tag))
        return attrs.evolve(wanted, counted=True).request()

    def _let_go(self, request: Request) -> Request:
        """Return what is asked for now; a session that is left is not followed from here, so what comes next waits."""
        tag = request.id
        if isinstance(tag, Tag) and tag.kind == "unsubscribe":
            request.id = Leaving(tag, self._sessions.pop(session_of(tag), None))
        return request

    def _must_wait(self, tag: Tag) -> bool:
        """Tell whether a message has to wait until its session is open, so that all are done in their order.

        What is said opens it, if nothing else does; what is asked otherwise needs no subscription.
        """
        if tag.kind not in OF_SESSIONS or tag.session_id is None:
            return False
        session = self._sessions.get(tag.session_id)
        if session is None:
            return tag.kind == "user" or tag.session_id in self._hall
        return not session.shown or tag.session_id in self._hall

    def _prepare(self, session_id: str) -> ChatSession:
        """Return a session that is to be shown."""
        return self._sessions.setdefault(session_id, ChatSession(session_id, self._now))

    # -- what the client is told -------------------------------------------------------------------------

    def tell(self, value: Outgoing | Entered | Due) -> Iterable[Reaction]:
        """Say what there is to say, and open what has to be open."""
        match value:
            case SessionRecord(session_id, record):
                session = self._shown(session_id)
                return () if session is None else session.tell(record)
            case Response():
                return self._answer(value)
            case Failure(tag, error):
                return self._refuse(tag, error)
            case Entered() | Due():
                return self._go_on(value)
        return self._notice(value)

    def _go_on(self, value: Entered | Due) -> Iterator[Reaction]:
        """Open the session that the URL names, or try once more to open one."""
        if isinstance(value, Due):
            if isinstance(value.token, Opening):  # rather than what is held, of which there is nothing to say
                yield value.token.request()
        elif self._named is not None and self._named not in self._sessions:
            self._prepare(self._named)
            yield open_named(self._named, self._query).request()

    def _answer(self, answer: Response) -> Iterator[Reaction]:
        match answer.id:
            case Waiting() as waiting:
                yield from self._come_round(waiting)
            case Opening() as wanted:
                yield from self._open(wanted, answer)
            case Leaving(tag):
                yield self._done(tag, answer.data)
            case Tag(kind="user") as tag if (
                not answer.handled and self._shown(session_of(tag)) and is_plain(answer.data)
            ):
                pass  # its author sees it like everybody else
            case tag:
                yield self._done(tag, answer.data)

    def _shown(self, session_id: str) -> ChatSession | None:
        session = self._sessions.get(session_id)
        return None if session is None or not session.shown else session

    def _done(self, tag: Tag, data: bytes) -> bytes:
        return reply("pong" if tag.kind == "ping" else "done", msgspec.Raw(data), tag, self._now())

    def _come_round(self, waiting: Waiting) -> Iterator[Reaction]:
        """Take what has passed the gates, and wait with it if need be."""
        session = self._sessions.get(waiting.session_id)
        if session is not None and session.shown:
            request = self._let_go(self._hall.let_go(waiting))
            request.looked = True
            yield request
            return
        self._hall.hold(waiting)
        if session is None:
            self._prepare(waiting.session_id)
            yield waiting.opening.request()

    def _open(self, wanted: Opening, answer: Response) -> Iterator[Reaction]:
        """Show a session, and see to what waits for it: if a handler was asked instead, that has it opened itself."""
        session_id = session_of(wanted.tag)
        session = self._over(wanted)
        if answer.handled:
            yield self._done(wanted.tag, answer.data)
        else:
            session = self._prepare(session_id)
            yield from session.open(answer.data, stream=wanted.stream)
        if session is not None and not session.shown:
            del self._sessions[session_id]
        for waiting in self._hall.kept(session_id):
            yield from self._come_round(waiting)

    def _over(self, wanted: Opening) -> ChatSession | None:
        """Take note that an opening has come to its end; return its session."""
        if wanted.counted:
            self._openings.give_back(len(wanted.payload))
        return self._sessions.get(session_of(wanted.tag))

    def _refuse(self, tag: Any, error: BrokerError) -> Iterator[Reaction]:
        match tag:
            case Waiting():
                yield self._error(error, self._hall.let_go(tag).id)
            case Opening():
                yield from self._stay_closed(tag, error)
            case Leaving(tag, session):
                if session is not None:
                    self._sessions.setdefault(session_of(tag), session)
                yield from self._refuse(tag, error)
            case _:
                if tag is not None and is_gone(error):
                    self._sessions.pop(tag.session_id, None)
                yield self._error(error, tag)

    def _stay_closed(self, wanted: Opening, error: BrokerError) -> Iterator[Reaction]:
        """Tell everybody who waits for a session that it cannot be opened, unless it can be in a moment."""
        seconds = pause(error, wanted.tries)
        if seconds is not None:
            yield Later(seconds, attrs.evolve(wanted, tries=wanted.tries + 1))
            return
        session_id = session_of(wanted.tag)
        session = self._over(wanted)
        if session is not None and (not session.shown or is_gone(error)):
            del self._sessions[session_id]
        tags = [self._hall.let_go(waiting).id for waiting in self._hall.kept(session_id)]
        for tag in tags if wanted.tag in tags else [wanted.tag, *tags]:
            yield self._error(error, tag)

    def _notice(self, value: Outgoing) -> Iterator[bytes]:
        match value:
            case CaughtUp(session_id, head) if session := self._shown(session_id):
                yield session.catch_up(head)
            case SessionReset(session_id, epoch, head, floor) if session := self._shown(session_id):
                yield session.begin_anew(epoch, head, floor)
            case SessionDetached(session_id):
                self._sessions.pop(session_id, None)
                yield self._error(NO_LONGER, Tag("subscribe", None, session_id))
            case _:
                yield from notice(value, self._now())

    def _error(self, error: BrokerError, tag: Tag | None) -> bytes:
        return reply("error", error_content(error, tag or Tag()), tag or Tag(), self._now())

"""What is said with one agent process: the greeting, and which of its sessions each line is for; no loop.

An agent names the session in all it says of one. It may say something of a session before it has answered
the request for that, so what cannot be placed yet is kept until no such request is open.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec
from loguru import logger

from broker.agents.acp.jsonrpc import METHOD_NOT_FOUND, MISREAD, Answer, Answered, Misread, Peer, RpcError
from broker.agents.acp.wire import AUTH_REQUIRED, CANCELLED, Known, hello, known_of
from broker.errors import BrokerError

__all__ = ["EARLY_BYTES", "EARLY_LIMIT", "Guest", "Switchboard"]

EARLY_LIMIT: Final = 1000
"""Reports that are kept for a session which is being opened."""
EARLY_BYTES: Final = 1024 * 1024
"""Their bytes."""
ABANDONED_LIMIT: Final = 10_000
"""Sessions that are known to have been left while they were at work."""

_LOUD_OFFENCES: Final = 3
_LOGGED_WIDTH: Final = 500


class _Ids(msgspec.Struct, frozen=True, rename="camel"):
    session_id: str = ""
    update: msgspec.Raw = msgspec.Raw()
    request_id: msgspec.Raw = msgspec.Raw()


_IDS = msgspec.json.Decoder(_Ids)


class Guest(Protocol):
    """Who has a session at the agent."""

    def told(self, method: str, params: msgspec.Raw) -> None:
        """Take a notification; of `session/update` the `update` alone."""

    def asked(self, key: str, method: str, params: msgspec.Raw) -> None:
        """Take a question, and answer it by `key`."""

    def withdrawn(self, key: str) -> bool:
        """Take back a question, if it was this guest's."""


class Switchboard:
    """The line to one process, from its greeting to its end.

    Attributes:
        known: what the agent says of itself, once it has answered the greeting.
        heard: how many lines it has said.

    Args:
        offer: the newest version of the protocol to offer.
        up: told once it has answered the greeting.
        down: told, instead, that talking on makes no sense.
    """

    def __init__(self, offer: int, *, up: Callable[[], None], down: Callable[[BrokerError], None]) -> None:
        self.known = Known()
        self.heard = 0
        self._offer = offer
        self._up = up
        self._down = down
        self._peer: Peer | None = None
        self._guests: dict[str, Guest] = {}
        self._opening = 0
        self._early: deque[tuple[str, str, msgspec.Raw]] = deque()
        self._early_bytes = 0
        self._abandoned: dict[str, None] = {}
        self._offences = 0

    # -- the greeting and the end --------------------------------------------------------------------

    def begin(self, write: Callable[[bytes], None]) -> None:
        """Greet the agent; `write` takes lines for it."""
        self._peer = Peer(write, self._asked, self._told)
        self._greet()

    def _greet(self) -> None:
        self.call("initialize", hello(self._offer), self._greeted)

    def _greeted(self, answer: Answer) -> None:
        if isinstance(answer, RpcError) and self._offer > 1 and answer.code != AUTH_REQUIRED:
            # An agent should answer an offer it does not know with what it knows; one that refuses it gets another.
            self._offer = 1
            self._greet()
            return
        try:
            self.known = known_of(answer, self._offer)
        except BrokerError as e:
            self._down(e)
            return
        self._up()

    def end(self) -> None:
        """Hear and say nothing any more."""
        self._peer = None
        self._guests.clear()

    # -- what is said to the agent -------------------------------------------------------------------

    def call(self, method: str, params: Any, answered: Answered) -> int | None:
        """Send a request, and return its number for `waive`."""
        return None if self._peer is None else self._peer.call(method, params, answered)

    def waive(self, number: int) -> None:
        """Forget who waits for the answer to a request."""
        if self._peer is not None:
            self._peer.waive(number)

    def notify(self, method: str, params: Any) -> None:
        """Send a notification."""
        if self._peer is not None:
            self._peer.notify(method, params)

    def answer(self, key: str, result: Any) -> None:
        """Answer one of its questions."""
        if self._peer is not None:
            self._peer.answer(key, result)

    def refuse(self, key: str, code: int, message: str) -> None:
        """Answer one of its questions with an error."""
        if self._peer is not None:
            self._peer.refuse(key, code, message)

    # -- whose sessions there are --------------------------------------------------------------------

    def expect(self) -> None:
        """Keep what cannot be placed: a session is being opened."""
        self._opening += 1

    def expected(self) -> None:
        """Keep no longer what cannot be placed, once for each `expect`."""
        self._opening -= 1
        if not self._opening:
            self._early.clear()
            self._early_bytes = 0

    def place(self, session_id: str, guest: Guest) -> None:
        """Let `guest` have what is said of this session, also what was said of it before."""
        self._guests[session_id] = guest
        early, self._early = self._early, deque()
        self._early_bytes = 0
        for item in early:
            if item[0] not in {session_id, ""}:
                self._keep(*item)
                continue
            try:
                self._hand(guest, item[1], item[2])
            except Misread as e:
                self._pass_over(bytes(item[2]), e)

    def displace(self, session_id: str) -> None:
        """Pass over what is said of this session from now on."""
        self._guests.pop(session_id, None)

    def dismiss(self, session_id: str, *, at_work: bool) -> None:
        """Give a session up; one that may still be at work is never taken up again, or both would be heard as one."""
        self.displace(session_id)
        if self.known.closes:
            self.call("session/close", {"sessionId": session_id}, lambda answer: self._closed(session_id, answer))
        elif at_work:
            self._abandon(session_id)

    def _closed(self, session_id: str, answer: Answer) -> None:
        if isinstance(answer, RpcError):
            self._abandon(session_id)

    def _abandon(self, session_id: str) -> None:
        self._abandoned[session_id] = None
        if len(self._abandoned) > ABANDONED_LIMIT:
            del self._abandoned[next(iter(self._abandoned))]

    def abandoned(self, session_id: str) -> bool:
        """Tell whether this session was given up while it was at work, or is somebody else's."""
        return session_id in self._abandoned or session_id in self._guests

    # -- what the agent says -------------------------------------------------------------------------

    def feed(self, line: bytes) -> None:
        """Take one line of the agent's; one that makes no sense is passed over and logged."""
        if self._peer is None:
            return
        self.heard += 1
        if not line.strip():
            return
        try:
            self._peer.feed(line)
        except Misread as e:
            self._pass_over(line, e)

    def _told(self, method: str, params: msgspec.Raw) -> None:
        ids = _ids(params)
        if method == "$/cancel_request":
            key = _key(ids.request_id)
            any(guest.withdrawn(key) for guest in tuple(self._guests.values()))
        elif not method.startswith("$/"):
            said = ids.update if method == "session/update" else params
            guest = self._guest(ids.session_id)
            if guest is not None:
                self._hand(guest, method, said)
            else:
                self._keep(ids.session_id, method, said)

    def _guest(self, session_id: str) -> Guest | None:
        """Return whose session it is; what names none is for the only one there is."""
        if not session_id and len(self._guests) == 1:
            return next(iter(self._guests.values()))
        return self._guests.get(session_id)

    @staticmethod
    def _hand(guest: Guest, method: str, said: msgspec.Raw) -> None:
        try:
            guest.told(method, said)
        except MISREAD as e:
            raise Misread(f"{method[:64]} cannot be read") from e

    def _keep(self, session_id: str, method: str, said: msgspec.Raw) -> None:
        size = len(bytes(said))
        if not self._opening or len(self._early) >= EARLY_LIMIT or self._early_bytes + size > EARLY_BYTES:
            logger.debug("passed over {} of the agent's, for a session that is not open", method[:64])
            return
        # A copy of its own, because what was decoded keeps the whole line it stood in.
        self._early.append((session_id, method, msgspec.Raw(bytes(said))))
        self._early_bytes += size

    def _asked(self, key: str, method: str, params: msgspec.Raw) -> None:
        guest = self._guest(_ids(params).session_id) if method == "session/request_permission" else None
        if method != "session/request_permission":
            self.refuse(key, METHOD_NOT_FOUND, f"method not found: {method[:64]}")
        elif guest is None:
            self.answer(key, CANCELLED)
        else:
            guest.asked(key, method, params)

    def _pass_over(self, line: bytes, complaint: Misread) -> None:
        self._offences += 1
        level = "WARNING" if self._offences <= _LOUD_OFFENCES else "DEBUG"
        logger.log(level, "passed over {} bytes of the agent's: {}", len(line), complaint)
        logger.debug("what was passed over: {}", line[:_LOGGED_WIDTH].decode(errors="replace"))


def _key(request_id: msgspec.Raw) -> str:
    """Return the id of a question of the agent's, as it spells it."""
    try:
        return bytes(request_id).decode()
    except MISREAD as e:
        raise Misread("a question taken back that cannot be read") from e


def _ids(params: msgspec.Raw) -> _Ids:
    """Read whom a message is about; one that does not say is about nobody in particular."""
    try:
        return _IDS.decode(params)
    except MISREAD:
        return _Ids()

"""A client's connection to the broker: made once, kept until it is left (PROTOCOL section 2)."""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Final, Self

from broker.client.backoff import Backoff
from broker.client.caller import Caller
from broker.client.dial import Dial, socket_of
from broker.client.errors import BrokerError, Closed, Conflict, Refused
from broker.client.hub import Hub
from broker.client.inbox import Inbox
from broker.client.line import ClientLink
from broker.client.rooms import Room
from broker.client.sessions import Session
from broker.client.tokens import GetToken, Tokens
from broker.client.values import Notification, State
from broker.client.wire import FRAME_LIMIT, SUBPROTOCOL, Identity
from broker.ids import new_id

__all__ = ["Connection", "connect"]

log = logging.getLogger("broker.client")

TIMEOUT: Final = 60.0
HEARTBEAT: Final = 20.0
PAUSES: Final = (0.5, 20.0)


def connect(
    url: str,
    *,
    token: str | GetToken | None = None,
    patience: float = 0.0,
    timeout: float = TIMEOUT,
    heartbeat: float = HEARTBEAT,
    pauses: tuple[float, float] = PAUSES,
) -> "Connection":
    """Connect to a broker, for as long as the `async with` block runs.

    ::

        async with connect("ws://127.0.0.1:3000/ws") as broker:
            session = await broker.create_session()
            turn = await session.send("Hello!")
            print(await turn.text())

    If the link breaks it is made again, by itself: after anything up to half a second, then ever later, up to 20 s;
    when the broker restarts, within a second or when that says. What is followed is taken up where it was. A close
    with 4500 to 4999 is for good: whatever waits raises `Refused`, with its code and reason.

    Args:
        url: the broker's socket, such as ws://127.0.0.1:3000/ws, or wherever its HTTP begins: https://example.org.
        token: a token; or a function, asynchronous or not, that gives one whenever one is needed: for each handshake,
            and before the time of a JWT is over, so that the link need not break for it.
        patience: seconds to go on trying if the broker is not there at first; `math.inf` for as long as it takes.
        timeout: seconds that an answer may take, where a call says nothing else.
        heartbeat: seconds of silence after which the broker is pinged; half as long again, and the link is made anew.

        pauses: before it tries again it waits anything up to the first of these, in seconds; the bound doubles with
            each failure, up to the second.

    Raises:
        ValueError: `url` is no address of a broker.

    Raises (entering the block):
        Disconnected: nobody is there.
        Refused: the broker will not have us.
    """
    tokens, hub = Tokens(token), Hub()
    dial = Dial(socket_of(url), tokens, SUBPROTOCOL, FRAME_LIMIT, heartbeat)
    return Connection(ClientLink(dial, tokens, hub, patience, Backoff(*pauses)), hub, timeout)


class Connection:
    """A connection; see `connect`, which makes it."""

    def __init__(self, link: ClientLink, hub: Hub, timeout: float) -> None:
        self._link = link
        self._hub = hub
        self._caller = Caller(link, timeout)
        self._keeping: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Connection to {self._link.name}, {self.state.name}>"

    async def __aenter__(self) -> Self:
        if self._keeping is not None:
            raise RuntimeError("a connection is entered once")
        loop = asyncio.get_running_loop()
        self._keeping = loop.create_task(self._link.keep(), name="broker connection")
        self._keeping.add_done_callback(self._over)
        ready = loop.create_task(self._link.ready())
        try:
            await asyncio.wait({self._keeping, ready}, return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            await self._leave()
            raise
        finally:
            ready.cancel()
            await asyncio.gather(ready, return_exceptions=True)
        if self._keeping.done():
            self._keeping.result()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._leave()

    @property
    def state(self) -> State:
        """How the connection is now."""
        return self._hub.state

    @property
    def identity(self) -> Identity:
        """Who the broker says this connection is."""
        return self._link.identity or Identity()

    # -- what one asks for ------------------------------------------------------------------------------

    async def request(
        self,
        action: str,
        payload: Any = None,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - it also says whether there was a link
    ) -> Any:
        """Ask for any action, one of a plugin for example, and return the `data` of the answer.

        Raises:
            BrokerError: the broker's refusal, as the class for its code.
            Disconnected: there was no link in time, or it broke before the answer: it may have been done.
            TimedOut: no answer came in time: it may have been done, or be done yet.
            Refused: the broker will not have us any more.
        """
        return await self._caller.once(action, {} if payload is None else payload, within=timeout)

    async def create_session(
        self,
        *,
        agent: str | None = None,
        title: str | None = None,
        variables: Mapping[str, Any] | None = None,
        workspace_dir: str | None = None,
        session_id: str | None = None,
        ephemeral: bool = False,
    ) -> Session:
        """Make a session, and follow it.

        Args:
            agent: the profile of the agent to talk to; the broker's default if left out.
            title: for people.
            variables: what the agent is told beside what is said.
            workspace_dir: the directory it is about, on the broker's machine.
            session_id: an id of your own, of letters, digits and `._~-`; one is made if left out.
            ephemeral: whether it is closed when this link ends.

        Raises:
            BrokerError: the broker does not make it.
            Disconnected, TimedOut: no answer came; it may have been made.
        """
        wanted = session_id or new_id()
        more = {"agent": agent, "title": title, "variables": variables, "workspace_dir": workspace_dir}
        payload: dict[str, Any] = {
            "session_id": wanted,
            **{name: value for name, value in more.items() if value is not None},
        }
        if ephemeral:
            payload["ephemeral"] = True
        session = self.session(wanted)
        session.made = await self._make(payload, again=session_id is None and not ephemeral)
        session.follow()
        await asyncio.sleep(0)  # so that it is asked for before whatever is said first, which then comes live
        return session

    def session(self, session_id: str) -> Session:
        """Return a session by its id; nothing is asked yet. Of one id there is one object at a time."""
        session = self._hub.sessions.get(session_id)
        if session is None:
            session = self._hub.sessions[session_id] = Session(self._caller, session_id)
        return session

    async def sessions(self, *, limit: int = 50, cursor: str | None = None) -> dict[str, Any]:
        """Return a page of one's own sessions, newest first: `{"sessions": […], "cursor"?}`."""
        payload = {"limit": limit} | ({} if cursor is None else {"cursor": cursor})
        answer: dict[str, Any] = await self._caller.again("session.list", payload)
        return answer

    async def join(
        self,
        room: str,
        *,
        after_seq: int | None = None,
        epoch: str | None = None,
        events: Iterable[str] | None = None,
    ) -> Room:
        """Join a room, until one leaves it.

        Args:
            room: its name.
            after_seq: give what its log holds behind this number first; 0 for all of it.
            epoch: the log that this number is of.
            events: the names of those that one wants; all if left out.

        Raises:
            BrokerError: one may not; or not by now: `TimedOut`.
            Refused: the broker will not have us any more.
        """
        if (before := self._hub.rooms.get(room)) is not None:
            before.drop()
        forget = self._hub.forget
        joined = Room(self._caller, room, after_seq=after_seq, epoch=epoch, events=events, on_left=forget)
        self._hub.rooms[room] = joined
        try:
            await joined.enter(within=self._caller.timeout)
        except BaseException:
            joined.drop()
            raise
        return joined

    def notifications(self) -> Inbox[Notification]:
        """Iterate over what the broker says from now on that belongs to no session and no room."""
        return self._hub.listen(self._hub.notes)

    def states(self) -> Inbox[State]:
        """Iterate over the states that the connection enters from now on, also before the block is entered."""
        return self._hub.listen(self._hub.watchers)

    async def _make(self, payload: dict[str, Any], *, again: bool) -> dict[str, Any] | None:
        """Make a session; where its id is new, ask again if the link breaks, and find it made by the first asking."""
        ask = self._caller.again if again else self._caller.once
        try:
            made: dict[str, Any] = await ask("session.create", payload)
        except Conflict as e:
            if not again or e.code != "session_exists":
                raise
            return None
        return made

    def _over(self, keeping: "asyncio.Task[None]") -> None:
        error = None if keeping.cancelled() else keeping.exception()
        if error is not None and not isinstance(error, Refused | BrokerError):
            log.error("the connection to %s failed", self._link.name, exc_info=error)
        why = error if isinstance(error, Exception) else Closed()
        self._link.finish(why)
        self._hub.end(why)

    async def _leave(self) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        await self._hub.ended()

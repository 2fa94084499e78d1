"""Who is told what the broker says: sessions, rooms, and whoever listens to the rest (PROTOCOL section 2)."""

import asyncio
import weakref
from typing import Any, TypeVar

from broker.client.errors import Closed, Refused
from broker.client.followed import Followed
from broker.client.inbox import Inbox
from broker.client.rooms import Room
from broker.client.sessions import Session
from broker.client.values import Notification, State
from broker.client.wire import Message

__all__ = ["Hub"]


T = TypeVar("T")

_STATE_BYTES = 100


class Hub:
    """All that is followed over one connection; a `broker.client.line.Listener`.

    Attributes:
        sessions: those that somebody has, by their ids.
        rooms: those that were joined, by their names.
        notes: who listens to what belongs to none of them.
        watchers: who wants to know how the connection is.
        state: how it is.
    """

    def __init__(self) -> None:
        self.sessions: weakref.WeakValueDictionary[str, Session] = weakref.WeakValueDictionary()
        self.rooms: dict[str, Room] = {}
        self.notes: weakref.WeakSet[Inbox[Notification]] = weakref.WeakSet()
        self.watchers: weakref.WeakSet[Inbox[State]] = weakref.WeakSet()
        self.state = State("closed")
        self._is_over = False

    def listen(self, listeners: weakref.WeakSet[Inbox[T]]) -> Inbox[T]:
        """Return a new one of these listeners."""
        inbox: Inbox[T] = Inbox()
        if self._is_over:
            inbox.end()
        listeners.add(inbox)
        return inbox

    def linked(self) -> None:
        """Take up what is followed, over a new link."""
        for followed in self._followed():
            followed.linked()

    def unlinked(self) -> None:
        """Note that nothing is followed for now."""
        for followed in self._followed():
            followed.unlinked()

    def heard(self, message: Message, size: int) -> None:
        """Give to whom it concerns what the broker says of its own."""
        if message.session_id is not None:
            if (session := self.sessions.get(message.session_id)) is not None:
                session.hear(message, size)
        elif message.room is not None:
            if (room := self.rooms.get(message.room)) is not None:
                room.hear(message, size)
        else:
            note = Notification(message.event, message.data, message.sender)
            for inbox in list(self.notes):
                inbox.take(note, size)

    def entered(self, state: State) -> None:
        """Tell of a state."""
        self.state = state
        for inbox in list(self.watchers):
            inbox.take(state, _STATE_BYTES)

    def end(self, why: Exception) -> None:
        """Have everything end that is iterated over: by itself if we leave, else by raising why."""
        self._is_over = True
        for followed in self._followed():
            followed.end(why)
        for inbox in list(self.notes):
            inbox.end(None if isinstance(why, Closed) else why)
        self.entered(State("closed", why.code if isinstance(why, Refused) else None, str(why)))
        for watcher in list(self.watchers):
            watcher.end()

    def forget(self, room: Room) -> None:
        """Take a room off, that was left."""
        if self.rooms.get(room.room) is room:
            del self.rooms[room.room]

    async def ended(self) -> None:
        """Wait until nothing goes on any more."""
        entering = [followed.entering for followed in self._followed()]
        await asyncio.gather(*filter(None, entering), return_exceptions=True)

    def _followed(self) -> list[Followed[Any]]:
        return [*self.sessions.values(), *self.rooms.values()]

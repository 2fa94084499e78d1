"""A room as a member has it: its events, and who is there (PROTOCOL section 2a)."""

from collections.abc import Callable, Iterable
from typing import Any

from broker.client.caller import Caller
from broker.client.errors import Closed, error_of
from broker.client.followed import Followed
from broker.client.reader import Reader
from broker.client.values import Event, Page, event_of
from broker.client.wire import Message

__all__ = ["Room"]


class Room(Followed[Event]):
    """One room, of which this program is a member until it leaves, across reconnects.

    ::

        room = await broker.join("team")
        await room.publish("message", {"text": "Hello, everybody."})
        async for event in room:
            print(event.sender["user"], event.data)

    To iterate over the room gives each event once, from the joining on, wherever it was left before; `events` makes
    an iterator of its own. In a room that keeps a history nothing is missed between two connections, and who reads
    slowly is caught up; in one that does not, what is published while there is no connection is gone.

    Args:
        caller: asks the broker.
        room: its name.
        after_seq: begin behind this number of its log; None for what is to come.
        epoch: the log that this number is of.
        events: the names of those that are wanted; None for all.
        on_left: called when it is left.
    """

    def __init__(
        self,
        caller: Caller,
        room: str,
        *,
        after_seq: int | None,
        epoch: str | None,
        events: Iterable[str] | None,
        on_left: Callable[["Room"], object],
    ) -> None:
        super().__init__(caller, f"room {room}")
        self._on_left = on_left
        self._is_left = False
        self.room = room
        self.epoch = epoch
        self.seq = after_seq or 0
        self._begun = after_seq is not None
        self._names = None if events is None else sorted(set(events))
        self._sparse = self._names is not None
        self._events = Reader(self, -1 if after_seq is None else after_seq, epoch=epoch)

    def __repr__(self) -> str:
        return f"<Room {self.room}>"

    def __aiter__(self) -> Reader[Event]:
        return self._events

    def events(self, *, after_seq: int = -1, epoch: str | None = None) -> Reader[Event]:
        """Iterate over what comes, or over the room's log from behind `after_seq` on, and then over what comes.

        Raises (while iterating):
            LogReset: something was missed for good; iterate over the same iterator again to go on.
            BrokerError: the room is no longer open to you.
            Refused: there is no connection any more.
        """
        return Reader(self, after_seq, epoch=epoch, wants=self._is_wanted)

    async def publish(self, event: str, data: Any = None) -> dict[str, Any]:
        """Publish an event, for all members and ourselves; return `{"delivered", "seq"?}`.

        Raises:
            Disconnected, TimedOut: no answer came; it may have been published.
        """
        payload = {"room": self.room, "event": event, "data": data}
        answer: dict[str, Any] = await self._caller.once("room.publish", payload)
        return answer

    async def members(self) -> list[dict[str, Any]]:
        """Return who is there: `{"connection_id", "user"}` each."""
        answer = await self._caller.again("room.presence", {"room": self.room})
        members: list[dict[str, Any]] = answer["members"]
        return members

    async def history(self, *, before_seq: int | None = None, limit: int = 100) -> Page[Event]:
        """Return a page of the room's log, from its end or from below `before_seq`, oldest first."""
        place = {} if before_seq is None else {"before_seq": before_seq}
        answer = await self._caller.again("room.history", {"room": self.room, "limit": limit, **place})
        return Page(map(self._event, answer["events"]), answer.get("before_seq"))

    async def leave(self) -> None:
        """Be no member any more: iterators over the room end."""
        self.drop()
        await self._caller.again("room.leave", {"room": self.room})

    def drop(self) -> None:
        """Take nothing more of what comes."""
        self._is_left = True
        self._on_left(self)
        self.end(Closed(f"{self.name} was left."))

    # -- what the broker says ---------------------------------------------------------------------------

    def hear(self, message: Message, size: int) -> None:
        """Take what the broker says of this room."""
        if message.event == "room.left":
            self.end(error_of(message.data))
        elif message.event == "room.event":
            event = event_of(self.room, message.data, message.seq, message.sender, message.at)
            if message.seq is None:
                self._take_loose(event, size)
            else:
                self._take(message.seq, event, size)

    async def _ask(self) -> None:
        if self._is_left:
            raise Closed(f"{self.name} was left.")
        payload: dict[str, Any] = {"room": self.room}
        if self._begun:
            payload["after_seq"] = self.seq
        if self.epoch is not None:
            payload["epoch"] = self.epoch
        if self._names is not None:
            payload["events"] = self._names
        await self._caller.until("room.join", payload, self._landed)

    def _landed(self, answer: Any) -> None:
        if not self._begun:
            self._begun = True
            self._entered(answer["epoch"], answer["head"], answer["head"])
        elif answer["recovered"]:
            self._entered(answer["epoch"], self.seq, answer["head"])
        else:
            self.epoch, self.head = answer["epoch"], answer["head"]
            self._restart(0, somewhere=True)  # where the log begins now is not said
            self._entered(answer["epoch"], 0, answer["head"])

    async def _history(self, before: int, limit: int) -> list[tuple[int, Event]]:
        payload = {"room": self.room, "before_seq": before, "limit": limit}
        answer = await self._caller.until("room.history", payload)
        return [(event["seq"], self._event(event)) for event in answer["events"]]

    def _event(self, said: Any) -> Event:
        return event_of(self.room, said["data"], said["seq"], said["from"], said["at"])

    def _is_wanted(self, event: Event) -> bool:
        return self._names is None or event.event in self._names

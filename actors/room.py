"""The room actor: members, presence, and a log of events where history is kept."""

from typing import Any, Final

from broker.actors.following import Follow, FollowAnswer, Following, Passing, Unfollowing
from broker.actors.lifecycle import Gone, MayStop, Sweep
from broker.actors.log import HISTORY_BYTES, LogActor
from broker.actors.loop import handles
from broker.actors.options import RoomOptions
from broker.actors.ref import LoopRef
from broker.errors import BrokerError
from broker.ids import new_id
from broker.messages import Record
from broker.operations import Feedback, Join, Leave, Presence, Publish, RoomHistory
from broker.protocol.outgoing import RoomEvent
from broker.protocol.parcel import Parcel

__all__ = ["Room"]

TRIM_EVERY: Final = 8
"""A room is trimmed once it has grown by one part in so many beyond its history: rarely, and a little at a time."""


class Room(LogActor):
    """One room. Its members follow its log, if it has one; without one, events are told and forgotten."""

    def __init__(self, name: str, options: RoomOptions) -> None:
        super().__init__(f"room:{name}", options)
        self._name = name
        self._options = options
        self._members: dict[LoopRef[Any], dict[str, str | None]] = {}
        self._passing: list[RoomEvent] = []

    async def setup(self) -> None:
        """Take up the room's log where there is one, or begin it with the first event."""
        if not self._options.history:
            self.epoch = new_id()
            return
        await self._store.flush()  # what an earlier incarnation wrote may be on its way
        log = await self._store.read("log", self.log)
        if log is None:
            self.epoch = self._create = new_id()
        else:
            self.epoch, self.head, self.floor = log.epoch, log.head, log.floor
            self._durable_head = log.head

    def on_drained(self) -> None:
        """Write what is to be kept, and tell the members what is not, in one parcel."""
        if self._passing:
            passing, self._passing = Passing(self.log, Parcel(tuple(self._passing))), []
            for follower in list(self._followers):
                self._tell(follower, passing)
        if self.head - self.floor >= self._options.history * (1 + 1 / TRIM_EVERY) and self._options.history:
            self.floor = self._new_floor = self.head - self._options.history + 1
        if self._create is None or self.head:  # a room nobody ever spoke in leaves no trace
            super().on_drained()

    @property
    def population(self) -> int:
        """How many members it has; for a look at it on the same loop."""
        return len(self._members)

    @handles(Join)
    def _join(self, message: Join) -> None:
        self._members[message.follower] = {"connection_id": message.connection_id, "user": message.by.user}
        position = self.locate(-1 if message.after_seq is None else message.after_seq, message.epoch)
        answer = {
            "room": self._name,
            "epoch": self.epoch,
            "head": self._durable_head,
            "members": list(self._members.values()),
            "recovered": position.recovered,
        }
        note = Following(self.log, self.actor_ref, position.after, message.events)
        self.answer_later().set(FollowAnswer(answer, note))
        self.serve(message.follower, position.after)

    @handles(Leave)
    def _leave(self, message: Leave) -> FollowAnswer:
        self.forget_follower(message.follower)
        return FollowAnswer({}, Unfollowing(self.log))

    @handles(Publish)
    def _publish(self, message: Publish) -> dict[str, Any] | None:
        if not self._options.history:
            event = RoomEvent(self._name, None, message.event, message.sender, message.data, self._clock.now())
            self._passing.append(event)
            return {"delivered": len(self._members)}
        seq = self.write(message.event, message.data, author=message.sender)
        self.reply_after_commit(self.durably({"seq": seq, "delivered": len(self._members)}))
        return None

    @handles(Feedback)
    def _feedback(self, message: Feedback) -> None:
        raise BrokerError("agent_unavailable", "No agent serves projects here.", hint="projects.agent")

    @handles(Presence)
    def _presence(self, message: Presence) -> dict[str, Any]:
        return {"members": list(self._members.values())}

    @handles(RoomHistory)
    def _history(self, message: RoomHistory) -> list[Record] | None:
        if not self._options.history:
            return []
        before = min(message.before_seq or self._durable_head + 1, self._durable_head + 1)
        self.answer_from(self._read_history(before, message.limit))
        return None

    async def _read_history(self, before: int, limit: int) -> list[Record]:
        page: list[Record] = await self._store.read(
            "records_before", self.log, before, limit=limit, max_bytes=HISTORY_BYTES
        )
        return [record for record in page if record.seq >= self.floor]

    @handles(Follow)
    def _take_back(self, message: Follow) -> None:
        """Take back a member that an earlier incarnation of this actor had."""
        self._members[message.follower] = {"connection_id": message.connection_id, "user": message.by.user}
        self.take_follower(message)

    @handles(MayStop)
    def _may_stop(self, message: MayStop | None = None) -> bool:
        return not self._members and self.settled

    @handles(Sweep)
    def _sweep(self, message: Sweep) -> None:
        self.forget_dead()
        if self._may_stop():
            self._options.registry(Gone(self.log, self.actor_ref))

    def forget_follower(self, follower: LoopRef[Any]) -> None:
        """Let go of a member."""
        super().forget_follower(follower)
        self._members.pop(follower, None)

    def present(self, record: Record) -> RoomEvent:
        """Return the event as members are told it."""
        return RoomEvent(self._name, record.seq, record.kind, record.author or b"null", record.data, record.at)

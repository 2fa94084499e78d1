"""What connections do in a run: publish into rooms that they share, and hear each other."""

import time
from typing import Any, Final

import attrs
import msgspec

from broker.cli.benchmark.peer import Ask, Heard, Peer
from broker.cli.benchmark.tally import Sequence, Tally
from broker.ids import new_id

__all__ = ["Lobby", "Member"]

_now: Final = time.perf_counter


class _Published(msgspec.Struct):
    """An event of a room as it was published: by whom, which of his, and when it was due."""

    by: int
    n: int
    at: float


class _Event(msgspec.Struct):
    data: _Published


_event: Final = msgspec.json.Decoder(_Event).decode


@attrs.define
class Lobby:
    """What the members of all rooms share: how many events each has published that were accepted."""

    name: str = attrs.field(factory=lambda: f"bench-{new_id()}")
    size: int = 10
    published: dict[int, int] = attrs.field(factory=dict)

    def room_of(self, index: int) -> str:
        """Return the room of a connection."""
        return f"{self.name}-{index // self.size}"

    def others(self, index: int) -> range:
        """Return the connections in the room of this one, itself too."""
        first = index - index % self.size
        return range(first, first + self.size)


@attrs.define
class Member:
    """Publishes into a room, an event at a time, and hears what all its members publish."""

    _peer: Peer
    _tally: Tally
    _text: str
    _lobby: Lobby
    _heard: dict[int, Sequence] = attrs.field(factory=dict, init=False)
    _number: int = attrs.field(default=0, init=False)
    _due: float | None = attrs.field(default=None, init=False)
    _last: int | None = attrs.field(default=None, init=False)
    _epoch: Any = attrs.field(default=None, init=False)

    async def joined(self) -> None:
        """Join, after the last event that was heard if there was one."""
        wanted: dict[str, Any] = {"room": self._room}
        if self._last is not None:
            wanted |= {"after_seq": self._last, "epoch": self._epoch}
        answer = await self._peer.ask("room.join", wanted)
        self._epoch = answer.field("epoch")

    @property
    def remains(self) -> bool:
        """Whether there is something of it at the broker: a member is one as long as it is linked."""
        return False

    async def act(self, number: int, due: float) -> None:
        """Publish the next event, unless the last one is not answered yet."""
        if self._due is not None:
            self._tally.left_out += 1
            return
        self._tally.sent += 1
        self._due = due
        data = {"by": self._peer.index, "n": self._number + 1, "at": self._due, "text": self._text}
        await self._peer.tell("publish", "room.publish", {"room": self._room, "event": "bench", "data": data})

    def hear(self, heard: Heard) -> None:
        """Take the answer to what was published, or an event."""
        if heard.id == "publish":
            self._answered(heard)
        elif heard.event == "room.event" and heard.room == self._room:
            self._last = heard.seq or self._last
            try:
                said = _event(heard.data).data
            except msgspec.DecodeError:
                self._tally.fail("unreadable")
                return
            self._heard.setdefault(said.by, Sequence()).take(said.n, self._tally)
            self._tally.observe("delivery", _now() - said.at)

    def cut(self) -> None:
        """Take an event that was not answered as published: whether it was, nobody knows."""
        if self._due is not None:
            self._publish()

    def open(self) -> int:
        """Return how many events are still to come, with the answer to one's own."""
        members = self._lobby.others(self._peer.index)
        coming = sum(max(0, self._lobby.published.get(one, 0) - self._highest(one)) for one in members)
        return coming + sum(one.missing for one in self._heard.values()) + (self._due is not None)

    def close(self) -> None:
        """Count the events that never came as lost."""
        self._tally.lost += self.open()

    async def leave(self, ask: Ask) -> None:
        """Leave the room."""
        await ask("room.leave", {"room": self._room})

    # -- inside -----------------------------------------------------------------------------------------

    @property
    def _room(self) -> str:
        return self._lobby.room_of(self._peer.index)

    def _highest(self, member: int) -> int:
        heard = self._heard.get(member)
        return 0 if heard is None else heard.highest

    def _answered(self, heard: Heard) -> None:
        if self._due is None:
            return
        self._tally.answered += 1
        if heard.type == "error":
            self._tally.fail(str(heard.field("code")))
            self._due = None  # the number is used again: it was not published
        else:
            self._tally.observe("answer", _now() - self._due)
            self._publish()

    def _publish(self) -> None:
        self._number += 1
        self._lobby.published[self._peer.index] = self._number
        self._due = None

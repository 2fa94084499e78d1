"""One tap: what a client is shown of that which goes through the broker, and what of it waits."""

import fnmatch
import re
from collections import deque
from typing import Any, Final

import attrs
import msgspec

from broker.actors.connection import Connection
from broker.actors.ref import LoopRef
from broker.hooks import Peer
from broker.ids import new_id
from broker.protocol import payloads
from broker.protocol.outgoing import Tapped
from broker.protocol.parcel import Parcel

__all__ = ["Item", "Tap"]

WAITING: Final = 256
"""Notifications that may wait for one of them."""
WAITING_BYTES: Final = 1 << 20
SHOWN: Final = 4096
"""Bytes of what was said that are shown."""

_encode: Final = msgspec.json.Encoder().encode


@attrs.frozen(eq=False)
class Item:
    """Something that went through.

    Attributes:
        facts: what is told of it, without what it says; what is None is left out.
        data: JSON of what it says; None where that is not shown.
    """

    facts: dict[str, Any]
    data: bytes | None

    @property
    def names(self) -> tuple[str, ...]:
        """What a pattern is compared with."""
        named = (self.facts["name"], self.facts.get("session_id"), self.facts.get("room"))
        return tuple(name for name in named if name is not None)

    def text(self) -> bytes:
        """Return it as JSON, an object, what it says cut if that is long."""
        shown = {name: value for name, value in self.facts.items() if value is not None}
        if self.data is not None:
            shown["data"] = _said(self.data)
            if len(self.data) > SHOWN:
                shown["cut"] = True
        return _encode(shown)


def _said(data: bytes) -> Any:
    """Return what was said, for JSON: itself; as text where that is cut, or no JSON, which nobody has looked at yet."""
    if len(data) <= SHOWN:
        try:
            return msgspec.json.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            pass
    return data[:SHOWN].decode(errors="ignore")


class Tap:
    """One client that watches.

    Args:
        peer: who it is.
        ref: its connection.
        wanted: what it wants to see.
        portion: bytes that may wait in its connection.
    """

    def __init__(self, peer: Peer, ref: LoopRef[Connection], wanted: payloads.Tap, portion: int) -> None:
        self.name = new_id()
        self.debug = "debug" in peer.principal.scopes
        self._ref = ref
        self._what = frozenset(wanted.what)
        self._matches = re.compile(fnmatch.translate(wanted.pattern)).match
        self._portion = portion
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._missed = 0

    def wants(self, item: Item) -> bool:
        """Tell whether this is what it wants to see."""
        return item.facts["what"] in self._what and any(map(self._matches, item.names))

    def put(self, text: bytes) -> None:
        """Have it told, in its time; what has waited longest is left out if there is no room."""
        self._waiting.append(text)
        self._size += len(text)
        while len(self._waiting) > WAITING or self._size > WAITING_BYTES:
            self._size -= len(self._waiting.popleft())
            self._missed += 1

    def flush(self) -> bool:
        """Tell as much as its connection has room for; return whether something is left."""
        connection = self._ref.actor
        if connection is None or self._ref.actor_stopped.is_set():
            return False
        room = self._portion - connection.outbox_bytes()
        told: list[Tapped] = []
        while self._waiting and room > 0:
            text = self._waiting.popleft()
            self._size -= len(text)
            room -= len(text)
            if self._missed:
                text = b'%b,"missed":%d}' % (text[:-1], self._missed)
                self._missed = 0
            told.append(Tapped(text))
        if told:
            self._ref.tell(Parcel(tuple(told)), urgent=True)
        return bool(self._waiting)

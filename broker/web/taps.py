"""What goes through the broker, for administrators who watch it (`tap`): messages, records, events, connections.

While nobody watches there is none of it: the hooks are as empty as they were. Who watches is told beside everybody else
and never instead of them: what a slow one has no room for is counted and left out.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from loguru import logger

from broker.actors.connection import Connection
from broker.actors.ref import LoopRef
from broker.clock import Clock, Timer, rfc3339
from broker.errors import BrokerError
from broker.extensions.bound import Bound
from broker.extensions.dispatch import Hooks
from broker.hooks import Inbound, Peer
from broker.messages import Record
from broker.protocol import payloads
from broker.protocol.native import NATIVE
from broker.protocol.parcel import withheld
from broker.web.tap import Item, Tap

__all__ = ["LIMIT", "Taps"]

LIMIT: Final = 16
"""Taps that there may be at the same time."""
PORTION: Final = 1 << 16
"""Bytes that may wait in a client's connection; the rest waits here, where it can be left out."""
PAUSE: Final = 0.05
"""Seconds for which notifications gather."""
SCOPE: Final = "admin"
UNREADABLE: Final = "unreadable"
"""What a message is called that says nothing that could be understood."""
SAYABLE: Final = frozenset(
    {
        *("ping", "echo", "broadcast", "send", "get_connections", "trace", "tap", "untap"),
        *("session.create", "session.open", "session.attach", "session.detach", "session.close", "session.delete"),
        *("session.list", "session.history", "session.update", "session.share", "session.configure"),
        *("turn.start", "turn.edit", "turn.drop", "turn.cancel", "approval.answer"),
        *("room.join", "room.leave", "room.publish", "room.presence", "room.history", "project.feedback"),
    }
)
"""Actions whose payloads are shown. Whatever else is asked for may bring a credential: `auth`, what plugins take."""

_encode: Final = msgspec.json.Encoder().encode


class _About(msgspec.Struct):
    """What a message says of what it is about."""

    session_id: str | None = None
    turn_id: str | None = None
    room: str | None = None


class _Author(msgspec.Struct):
    """Who published an event."""

    connection_id: str | None = None
    user: str | None = None


_about: Final = msgspec.json.Decoder(_About).decode
_author: Final = msgspec.json.Decoder(_Author).decode


class Taps:
    """All that watch one broker.

    Args:
        hooks: where what goes through is told of.
        clock: time.
        outbox_bytes: what may wait for a client before it is cut.
    """

    def __init__(self, hooks: Hooks, clock: Clock, outbox_bytes: int) -> None:
        self._hooks = hooks
        self._clock = clock
        self._portion = min(PORTION, outbox_bytes // 4)
        self._taps: dict[str, Tap] = {}
        self._timer: Timer | None = None
        told: Sequence[tuple[str, Callable[..., None]]] = (
            ("message", self._message),
            ("committed", self._committed),
            ("connected", self._connected),
            ("disconnected", self._disconnected),
        )
        self._bound = [(hook, Bound("tap", hook, _contained(call))) for hook, call in told]

    def open(self, peer: Peer, ref: LoopRef[Connection], wanted: payloads.Tap) -> str:
        """Begin to show a client what it wants to see, in the place of what it has wanted so far; return the tap's id.

        Raises:
            BrokerError: `forbidden` without the scope `admin`, `invalid_message` in a format that has no word for it,
                `overloaded`.
        """
        if SCOPE not in peer.principal.scopes:
            raise BrokerError("forbidden", f"This takes the scope {SCOPE}.")
        if peer.protocol != NATIVE.name:
            raise BrokerError("invalid_message", f"Only {NATIVE.name} has a word for what a tap shows.")
        if len(self._taps) >= LIMIT and peer.connection_id not in self._taps:
            raise BrokerError("overloaded", f"There are {LIMIT} taps already.", retry_after=10.0)
        if not self._taps:
            for hook, bound in self._bound:
                self._hooks.add(hook, bound)
        tap = self._taps[peer.connection_id] = Tap(peer, ref, wanted, self._portion)
        return tap.name

    def end(self, connection_id: str) -> None:
        """Show a client nothing any more. Idempotent."""
        if self._taps.pop(connection_id, None) is None or self._taps:
            return
        for hook, bound in self._bound:
            self._hooks.remove(hook, bound)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def recheck(self, peer: Peer) -> None:
        """Look at a client again that may have become somebody who may see less."""
        tap = self._taps.get(peer.connection_id)
        if tap is None:
            return
        tap.debug = "debug" in peer.principal.scopes
        if SCOPE not in peer.principal.scopes:
            tap.put(Item({"at": self._now(), "what": "ended", "name": "forbidden"}, None).text())
            tap.flush()
            self.end(peer.connection_id)

    # -- what goes through ----------------------------------------------------------------------------

    def _message(self, message: Inbound) -> None:
        if message.derived:
            return
        peer, about = message.peer, _read(message.payload)
        facts = {
            **self._facts("message", message.action or UNREADABLE, peer.connection_id or None, peer.principal.user),
            "session_id": about.session_id,
            "room": about.room,
            "turn_id": about.turn_id,
            "protocol": peer.protocol,
            "kind": message.kind if message.kind != message.action else None,
            "size": message.size,
        }
        said = message.payload if message.action in SAYABLE and message.payload else None
        self._show(Item(facts, said))

    def _committed(self, log: str, records: Sequence[Record]) -> None:
        kind, _, name = log.partition(":")
        for record in records:
            if kind == "room":
                author = _author(record.author) if record.author else _Author()
                facts = self._facts("event", record.kind, author.connection_id, author.user)
                self._show(Item({**facts, "room": name, "seq": record.seq, "size": len(record.data)}, record.data))
                continue
            stand_in = withheld(record)
            instead = None if stand_in is record else self._record(name, stand_in)
            self._show(self._record(name, record), instead)

    def _record(self, session_id: str, record: Record) -> Item:
        facts = {
            **self._facts("record", record.kind),
            "session_id": session_id,
            "turn_id": record.turn_id,
            "seq": record.seq,
            "size": len(record.data),
        }
        return Item(facts, record.data)

    def _connected(self, peer: Peer) -> None:
        said = _encode({"address": peer.address, "protocol": peer.protocol})
        self._show(Item(self._facts("connection", "connected", peer.connection_id, peer.principal.user), said))

    def _disconnected(self, peer: Peer, code: int) -> None:
        facts = self._facts("connection", "disconnected", peer.connection_id, peer.principal.user)
        self._show(Item(facts, _encode({"code": code})))

    def _facts(self, what: str, name: str, connection_id: str | None = None, user: str | None = None) -> dict[str, Any]:
        return {"at": self._now(), "what": what, "name": name, "connection_id": connection_id, "user": user}

    def _now(self) -> str:
        return rfc3339(self._clock.now())

    # -- telling --------------------------------------------------------------------------------------

    def _show(self, item: Item, instead: Item | None = None) -> None:
        """Have everybody told who wants to see it; those without the scope `debug` of what there is instead."""
        texts: dict[Item, bytes] = {}
        for tap in self._taps.values():
            shown = item if instead is None or tap.debug else instead
            if tap.wants(shown):
                if shown not in texts:
                    texts[shown] = shown.text()
                tap.put(texts[shown])
        if texts and self._timer is None:
            self._timer = self._clock.call_later(PAUSE, self._flush)

    def _flush(self) -> None:
        self._timer = None
        left = [tap.flush() for tap in self._taps.values()]
        if any(left):
            self._timer = self._clock.call_later(PAUSE, self._flush)


def _contained(call: Callable[..., None]) -> Callable[..., None]:
    """Return the call with its failures kept from whoever is on his way: who watches is never felt."""

    def tell(*args: Any) -> None:
        try:
            call(*args)
        except Exception as e:  # noqa: BLE001 - as above
            logger.opt(exception=e).error("what goes through the broker could not be shown")

    return tell


def _read(payload: bytes) -> _About:
    try:
        return _about(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _About()  # it names nothing that we know, or not as we know it

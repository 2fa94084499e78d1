"""What connections, messages, turns and errors there were, a line each: JSON, for people and for machines.

docs/message-log.md is its manual. Lines are made on the event loop and written by a thread, so a slow disk holds up
nobody; what it cannot keep up with is left out, counted and said. The plugin only watches: whatever becomes of the
log, everything else goes on.
"""

import asyncio
import errno
import fnmatch
import logging
import os
import re
import stat
from asyncio import Task
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import attrs
import msgspec
from msgspec import Meta

from broker.hooks import Answered, Broker, Duration, Failure, Inbound, Peer, Plugin, Size, TurnEnded

log = logging.getLogger(__name__)

Group = Literal["connections", "messages", "turns", "errors", "performance"]
Text = Annotated[str, Meta(min_length=1, max_length=256)]

GROUPS: Final[tuple[Group, ...]] = ("connections", "messages", "turns", "errors", "performance")
SAYING: Final = ("turn.start", "turn.edit", "room.publish", "broadcast", "send")
"""Actions that say something to somebody; with any other one the content may be a secret of its plugin's."""
NEVER: Final = frozenset({"auth", ""})
"""Actions of which nothing is written: what is given to the one is a token, and what is given to none may be one."""
ALWAYS: Final = frozenset({"time", "event", "lines"})
"""Fields that each line keeps."""
LONGEST: Final = 256
"""Characters of an id, a name or a sentence that is logged."""
WAITING: Final = 8 << 20
"""Bytes of lines that may wait for the disk."""
PRIVATE: Final = 0o600
_UNSAFE: Final = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""What steers a terminal or reorders what is read, and JSON leaves as it is."""

_encode: Final = msgspec.json.Encoder().encode


@attrs.frozen(kw_only=True)
class MessageLogSettings:
    """What stands under `message_log:`.

    Attributes:
        path: The file, relative to the working directory; null for the broker's own log.
        events: Which events have lines.
        fields: Fields that a line has beside its time and event, of those that there are; none named: all.
        content: How many characters of what people say a message's line has; 0 for none.
        content_of: Actions whose content that is: of the broker's own that say something by pattern, others by their
            full names; never that of `auth`, nor of what no action is known for.
        slow: Answers that took less than this have no line of their own.
        max_bytes: Size at which the file is put aside and a new one begun.
        keep: Files put aside that are kept, the newest.
    """

    path: Text | None = "messages.log"
    events: tuple[Group, ...] = GROUPS
    fields: tuple[Text, ...] = ()
    content: Annotated[int, Meta(ge=0, le=16384)] = 0
    content_of: tuple[Text, ...] = SAYING
    slow: Duration = 0.0
    max_bytes: Annotated[Size, Meta(ge=1024)] = 64 << 20
    keep: Annotated[int, Meta(ge=0, le=1000)] = 5


class Names(msgspec.Struct):
    """What a payload says it is about."""

    session_id: Any = None
    room: Any = None
    turn_id: Any = None
    client_msg_id: Any = None


_names: Final = msgspec.json.Decoder(Names).decode


class File:
    """The file, and those put aside before it; all but `open` is called in a thread.

    Args:
        path: where it is.
        most: bytes at which it is put aside.
        keep: how many of those are kept.
    """

    def __init__(self, path: Path, most: int, keep: int) -> None:
        self.path = path
        self._most = most
        self._keep = keep
        self._file = -1

    def open(self) -> None:
        """Open it, and make it if need be.

        Raises:
            OSError: it cannot be written, or is no file.
        """
        # Not blocking: a pipe that nobody reads would hold up whoever opens it.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        file = os.open(self.path, flags, PRIVATE)
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise OSError(errno.EINVAL, "it is no file")
        self._file = file

    def close(self) -> None:
        """Close it."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def write(self, lines: bytes) -> None:
        """Append whole lines, all or none.

        Raises:
            OSError: that cannot be done now.
        """
        size = self._make_ready(len(lines))
        try:
            rest = memoryview(lines)
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError:
            os.ftruncate(self._file, size)  # half a line would spoil the next one
            raise

    def _make_ready(self, more: int) -> int:
        """Open a file that was taken away, begin a new one after a full one; return the bytes that it has."""
        if self._file >= 0 and not self._is_here():
            self.close()
        if self._file < 0:
            self.open()
        size = os.fstat(self._file).st_size
        if not size or size + more <= self._most:
            return size
        self.close()
        self._put_aside()
        self.open()
        return 0

    def _is_here(self) -> bool:
        mine = os.fstat(self._file)
        try:
            there = self.path.lstat()
        except FileNotFoundError:
            return False
        return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)

    def _put_aside(self) -> None:
        if not self._keep:
            self.path.unlink()
            return
        for number in range(self._keep - 1, 0, -1):
            if self._aside(number).exists():
                self._aside(number).replace(self._aside(number + 1))
        self.path.replace(self._aside(1))

    def _aside(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")


class MessageLog(Plugin):
    """Writes what happens, a line of JSON each."""

    version = "1.0"
    Settings = MessageLogSettings
    settings: MessageLogSettings

    def __init__(self, settings: MessageLogSettings, broker: Broker) -> None:
        super().__init__(settings, broker)
        self._file: File | None = None
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._left_out = 0  # lines since it was last said
        self._failing = False
        self._writing: Task[None] | None = None
        self._unlisten: Callable[[], None] | None = None
        self._take(settings)

    def _take(self, settings: MessageLogSettings) -> None:
        self.settings = settings
        self._groups = frozenset(settings.events)
        self._fields = frozenset(settings.fields) | ALWAYS if settings.fields else None
        # A pattern may match what nobody has thought of, such as a misspelt `auth`; a full name was thought of.
        matching = (name for name in SAYING for pattern in settings.content_of if fnmatch.fnmatchcase(name, pattern))
        self._shown = frozenset(settings.content_of).union(matching)

    async def start(self) -> None:
        """Open the file.

        Raises:
            ValueError: it cannot be written.
        """
        if self.settings.path is not None:
            settings = self.settings
            self._file = File(Path(self.settings.path), settings.max_bytes, settings.keep)
            try:
                await asyncio.to_thread(self._file.open)
            except OSError as e:
                raise ValueError(f"path: {self.settings.path} cannot be written: {e.strerror or e}") from e
        # A listener, since a gate that fails refuses; what is refused before is among the errors.
        self._unlisten = self.broker.on("message", self._message)

    async def stop(self) -> None:
        """Write what is left."""
        if self._unlisten is not None:
            self._unlisten()
        if self._writing is not None:
            await self._writing
        if self._file is not None:
            await asyncio.to_thread(self._file.close)

    def reload(self, settings: MessageLogSettings) -> bool:
        """Take over what is logged; where it goes takes a restart."""
        where = ("path", "max_bytes", "keep")
        if any(getattr(settings, name) != getattr(self.settings, name) for name in where):
            return False
        self._take(settings)
        return True

    # -- what happens -------------------------------------------------------------------------------

    def connected(self, peer: Peer) -> None:
        """Log that somebody came."""
        if "connections" in self._groups:
            self._add("connected", **_who(peer))

    def disconnected(self, peer: Peer, code: int) -> None:
        """Log that somebody left."""
        if "connections" in self._groups:
            self._add("disconnected", **_who(peer), close=int(code))

    def _message(self, message: Inbound) -> None:
        if "messages" not in self._groups or message.derived:
            return
        line = {**_who(message.peer), **_what(message.action, message.kind, message.id), "size": message.size}
        if message.action.casefold() not in NEVER and message.payload:
            line |= _about(message.payload)
            if self.settings.content and message.action in self._shown:
                line["content"] = _head(message.payload, self.settings.content)
        self._add("message", **line)

    def answered(self, answer: Answered) -> None:
        """Log how long an answer took, and what was refused."""
        refused = answer.error is not None and "errors" in self._groups
        timed = answer.seconds >= self.settings.slow and "performance" in self._groups
        if not refused and not timed:
            return
        line = {**_who(answer.peer), **_what(answer.action, answer.kind, answer.id), "size": answer.size}
        milliseconds = round(answer.seconds * 1000, 3)
        if timed and answer.action:
            code = "ok" if answer.error is None else answer.error.code
            self._add("answer", **line, ms=milliseconds, outcome=code)
        if refused and answer.error is not None:
            error = answer.error
            self._add("error", **line, code=error.code, text=_cut(error.message), hint=_cut(error.hint))

    def turn_ended(self, turn: TurnEnded) -> None:
        """Log how a turn ended."""
        if "turns" in self._groups:
            ids = {"session": turn.session_id, "turn": turn.turn_id, "agent": turn.agent}
            self._add("turn", **ids, outcome=turn.outcome, ms=round(turn.seconds * 1000, 3))

    def failed(self, failure: Failure) -> None:
        """Log that something broke; what it was is in the broker's own log, under the same trace id."""
        if "errors" in self._groups:
            what = type(failure.error).__name__
            self._add("failure", where=_cut(failure.where), error=what, trace=failure.trace_id)

    # -- lines --------------------------------------------------------------------------------------

    def _add(self, event: str, /, **fields: Any) -> None:
        line: dict[str, Any] = {"time": _rfc3339(self.broker.now()), "event": event}
        keep = self._fields
        line |= {k: v for k, v in fields.items() if v is not None and (keep is None or k in keep)}
        text = _encode(line)
        if self._file is None:
            log.info("%s", text.decode())
        elif self._bytes + len(text) > WAITING:
            self._leave_out(1)
            self._complain("the disk does not keep up")
        else:
            self._lines.append(text)
            self._bytes += len(text)
            if self._writing is None:
                self._writing = self.broker.spawn(self._write(self._file), name="write the message log")

    async def _write(self, file: File) -> None:
        """Write until nothing is left; what comes meanwhile is the next batch."""
        try:
            while self._lines:
                batch, self._lines = self._lines, deque()
                try:
                    await asyncio.to_thread(file.write, self._said(batch))
                except OSError as e:
                    self._leave_out(len(batch))
                    self._complain(f"{file.path}: {e.strerror or e}")
                else:
                    self._recover(file)
                finally:
                    self._bytes -= sum(map(len, batch))
        finally:
            self._writing = None

    def _said(self, batch: deque[bytes]) -> bytes:
        text = b"\n".join((*batch, b"")).decode()
        return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode()

    def _leave_out(self, lines: int) -> None:
        self._left_out += lines
        self.broker.stats.dropped["message_log"] += lines

    def _complain(self, why: str) -> None:
        if not self._failing:
            self._failing = True
            log.error("the message log is not whole, lines are left out: %s", why)

    def _recover(self, file: File) -> None:
        """Say, there and in the broker's log, how much is missing, once it can be said."""
        if not self._failing:
            return
        lines, self._left_out, self._failing = self._left_out, 0, False
        log.warning("the message log goes on in %s; %d lines were left out", file.path, lines)
        self._add("left_out", lines=lines)


@lru_cache(maxsize=16)
def _rfc3339(at: int) -> str:
    """Write milliseconds since the epoch as the wire does; what happens together carries the same time."""
    return datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _who(peer: Peer) -> dict[str, Any]:
    return {
        "connection": peer.connection_id or None,
        "user": peer.principal.user,
        "address": peer.address or None,
        "protocol": peer.protocol,
    }


def _what(action: str, kind: str, request: Any) -> dict[str, Any]:
    return {
        "action": _cut(action) or None,
        "kind": _cut(kind) if kind != action else None,
        "id": None if request is None else _cut(str(request)),
    }


def _about(payload: bytes) -> dict[str, Any]:
    """Return which session, room and turn a payload names, and under which id it may be sent again."""
    try:
        names = _names(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
    found = {
        "session": names.session_id,
        "room": names.room,
        "turn": names.turn_id,
        "client_msg_id": names.client_msg_id,
    }
    return {name: _cut(value) for name, value in found.items() if isinstance(value, str)}


def _head(payload: bytes, characters: int) -> str:
    return payload[: characters * 4].decode(errors="ignore")[:characters]


def _cut(text: str | None) -> str | None:
    return None if text is None else text[:LONGEST]

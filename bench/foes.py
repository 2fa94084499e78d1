"""Attackers, one at a time and from an address of their own: `python -m bench.foes pings 8080 5`.

Each goes on for so many seconds, coming back when it is closed, and prints as JSON how it fared. It sends what was made
before, and runs only when nobody else on its core wants to: it is to cost the broker's time, and not the victims'.
"""

import argparse
import json
import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress

import attrs

from bench.frames import CLOSE, PING, PONG, frame, handshake, split
from bench.servers import take_core
from bench.tokens import token_of

__all__ = ["FOES", "QUIET", "Fate"]

_ADDRESS = "127.0.0.2"
_AT_ONCE = 1 << 16
_KIB = 1024
_PAUSE = 0.05
"""Between two attempts to come back after a refusal: who comes at once is `churn`."""


@attrs.define
class Fate:
    """How an attacker fared.

    Attributes:
        ends: how each of its connections ended, and how often: a close code, a status, `reset`, or `open` at the end.
        first: seconds until the first of them ended; None if none did.
        sent: bytes that the broker took.
    """

    ends: dict[str, int] = attrs.field(factory=dict)
    first: float | None = None
    sent: int = 0

    def end(self, how: str, after: float) -> None:
        """Note the end of a connection."""
        self.ends[how] = self.ends.get(how, 0) + 1
        if self.first is None and how != "open":
            self.first = after


class Ended(Exception):  # noqa: N818 - it is what was to be seen
    """The broker ended a connection; says how."""


class Foe:
    """One connection of an attacker.

    Args:
        port: of the broker.
        token: what it shows; None for nothing.
        receive: bytes the system may keep for it unread; 0 for as many as usual.
    """

    def __init__(self, port: int, token: str | None = None, receive: int = 0) -> None:
        self.sent = 0
        self.sock = socket.socket()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if receive:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        self.sock.bind((_ADDRESS, 0))
        self.sock.settimeout(5)
        self.sock.connect(("127.0.0.1", port))
        self._port, self._token = port, token
        self._rest = b""

    def upgrade(self) -> None:
        """Shake hands.

        Raises:
            Ended: it was refused.
        """
        self.sock.sendall(handshake(self._port, token=self._token))
        head = b""
        while b"\r\n\r\n" not in head:
            if not (data := self.sock.recv(_AT_ONCE)):
                raise Ended("no answer")
            head += data
        head, _, self._rest = head.partition(b"\r\n\r\n")
        status = head.split(b" ", 2)[1].decode()
        if status != "101":
            raise Ended(status)
        self.sock.setblocking(False)

    def push(self, data: bytes, until: float, *, reads: bool) -> None:
        """Send all of this, reading what comes meanwhile if it reads.

        Raises:
            Ended: the broker closed it.
        """
        view = memoryview(data)
        while view and (left := until - time.monotonic()) > 0:
            readable, writable, _ = select.select([self.sock] if reads else [], [self.sock], [], left)
            if readable:
                self.read()
            if writable:
                done = self.sock.send(view[:_AT_ONCE])
                self.sent += done
                view = view[done:]

    def idle(self, seconds: float, *, reads: bool) -> None:
        """Do nothing for a while; raises as `push`."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if select.select([self.sock] if reads else [], [], [], left)[0]:
                self.read()

    def read(self, size: int = _AT_ONCE) -> None:
        """Read at most so much.

        Raises:
            Ended: there was a close frame, or the end.
        """
        data = self.sock.recv(size)
        if not data:
            raise Ended("cut")
        self._rest = split(self._rest + data, self._heard)

    def last_words(self) -> None:
        """Read all there is, to know how it ended; raises as `read`."""
        while select.select([self.sock], [], [], 0.5)[0]:
            self.read()

    @staticmethod
    def _heard(opcode: int, data: bytes, start: int, _end: int) -> None:
        if opcode == CLOSE:
            raise Ended(str(int.from_bytes(data[start : start + 2], "big")))


Attack = Callable[[Foe, float], None]
"""What one connection does until that time."""


# -- floods -----------------------------------------------------------------------------------------


def _flood(unit: bytes, first: bytes = b"") -> Attack:
    """Send the same for ever."""
    block = unit * max(1, _AT_ONCE // len(unit))

    def attack(foe: Foe, until: float) -> None:
        foe.push(first, until, reads=True)
        while time.monotonic() < until:
            foe.push(block, until, reads=True)

    return attack


def _request(text: str, request_id: str = "1") -> bytes:
    payload = {"id": request_id, "type": "request", "action": "echo", "payload": {"text": text}}
    return frame(json.dumps(payload, separators=(",", ":")).encode())


_UNFINISHED_TEXT = b"\x01\x80" + bytes(4)
_EMPTY_PIECE = b"\x00\x80" + bytes(4)

# -- who does not read ------------------------------------------------------------------------------

_LARGE = _request("x" * 64 * _KIB)
_EACH = 0.08
"""Seconds between two large requests: twelve a second are allowed by messages and by bytes."""


def _unread(foe: Foe, until: float) -> None:
    while time.monotonic() < until:
        foe.push(_LARGE, until, reads=False)
        foe.idle(_EACH, reads=False)


def _trickle(foe: Foe, until: float) -> None:
    while time.monotonic() < until:
        foe.push(_LARGE, until, reads=False)
        foe.idle(_EACH, reads=False)
        with suppress(BlockingIOError):
            foe.read(8)  # 100 bytes a second


def _stalled(foe: Foe, until: float) -> None:
    while time.monotonic() < until:
        foe.push(frame(b"broker", PONG), until, reads=False)
        foe.push(_LARGE, until, reads=False)
        foe.idle(_EACH, reads=False)


# -- who breaks the protocol ------------------------------------------------------------------------


def _unmasked(foe: Foe, until: float) -> None:
    foe.push(b"\x81\x05hello", until, reads=True)
    foe.idle(until - time.monotonic(), reads=True)


def _huge_close(foe: Foe, until: float) -> None:
    foe.push(frame(b"\x03\xe8" + b"x" * 60 * _KIB, CLOSE), until, reads=True)
    foe.idle(until - time.monotonic(), reads=True)


# -- attackers --------------------------------------------------------------------------------------


def _again(attack: Attack, receive: int = 0) -> Callable[[int, float], Fate]:
    """Attack by one connection at a time."""

    def fight(port: int, until: float) -> Fate:
        fate = Fate()
        while time.monotonic() < until:
            begun = time.monotonic()
            how = _once(attack, port, until, fate, receive)
            fate.end(how, time.monotonic() - begun)
            time.sleep(_PAUSE)
        return fate

    return fight


def _once(attack: Attack, port: int, until: float, fate: Fate, receive: int) -> str:
    foe = Foe(port, token_of(-1), receive)
    with closing(foe.sock):
        try:
            foe.upgrade()
            try:
                attack(foe, until)
            except (ConnectionError, BlockingIOError):
                foe.last_words()
                return "reset"
            foe.last_words()
        except Ended as end:
            return str(end)
        except ConnectionError:
            return "reset"
        finally:
            fate.sent += foe.sent
    return "open"


def _churn(port: int, until: float) -> Fate:
    """Come and go as fast as can be."""
    fate = Fate()
    while time.monotonic() < until:
        begun = time.monotonic()
        foe = Foe(port, token_of(-1))
        with closing(foe.sock):
            try:
                foe.upgrade()
                fate.end("left", time.monotonic() - begun)
            except Ended as end:
                fate.end(str(end), time.monotonic() - begun)
            except (ConnectionError, TimeoutError):
                fate.end("reset", time.monotonic() - begun)
    return fate


def _crowd(count: int, begin: bytes, drip: bytes = b"") -> Callable[[int, float], Fate]:
    """Open so many lines and let them hang, with a few bytes each second."""

    def fight(port: int, until: float) -> Fate:
        fate, begun = Fate(), time.monotonic()
        lines = {foe.sock: foe for foe in _lines(port, count, begin)}
        while lines and (left := until - time.monotonic()) > 0:
            for sock in select.select(list(lines), [], [], min(left, 1.0))[0]:
                fate.end(_said(sock), time.monotonic() - begun)
                del lines[sock]
                sock.close()
            for sock in lines if drip else ():
                with suppress(OSError):
                    sock.send(drip)
        for sock in lines:
            fate.end("open", 0.0)
            sock.close()
        return fate

    return fight


def _lines(port: int, count: int, begin: bytes) -> Iterator[Foe]:
    for _ in range(count):
        foe = Foe(port)
        foe.sock.setblocking(False)
        with suppress(OSError):
            foe.sock.send(begin)
        yield foe


def _said(sock: socket.socket) -> str:
    try:
        data = sock.recv(_AT_ONCE)
    except OSError:
        return "reset"
    return data.split(b" ", 2)[1].decode() if data.startswith(b"HTTP/") else "cut"


def _elsewhere(_: int, until: float) -> Fate:
    """Burn time and leave the broker alone: what the others cost just by running."""
    while time.monotonic() < until:
        pass
    return Fate()


FOES: dict[str, Callable[[int, float], Fate]] = {
    "nobody": _elsewhere,
    "pings": _again(_flood(frame(b"", PING))),
    "empty fragments": _again(_flood(_EMPTY_PIECE, _UNFINISHED_TEXT)),
    "one-byte texts": _again(_flood(frame(b"x"))),
    "one-byte JSON": _again(_flood(frame(b"1"))),
    "small requests": _again(_flood(_request("x"))),
    "64 KiB texts": _again(_flood(_LARGE)),
    "unread": _again(_unread, receive=4 * _KIB),
    "trickling reader": _again(_trickle, receive=4 * _KIB),
    "stalled, faking pongs": _again(_stalled, receive=4 * _KIB),
    "100 half handshakes": _crowd(100, b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: ", b"a"),
    "500 silent lines": _crowd(500, b""),
    "churn": _churn,
    "unmasked": _again(_unmasked),
    "huge close": _again(_huge_close),
}
"""Each attacker by name; takes the port and the time at which to stop."""

QUIET = frozenset({"unread", "trickling reader", "stalled, faking pongs", "100 half handshakes", "500 silent lines"})
"""Those that only time gives away."""


def main() -> None:
    """Be one attacker."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=FOES)
    parser.add_argument("port", type=int)
    parser.add_argument("seconds", type=float)
    options = parser.parse_args()
    take_core()
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    print("ready", flush=True)
    fate = FOES[options.name](options.port, time.monotonic() + options.seconds)
    print(json.dumps(attrs.asdict(fate)))


if __name__ == "__main__":
    main()

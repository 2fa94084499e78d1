"""Accepting connections ourselves, so that a crowd meets a closed door and not an empty pocket.

asyncio takes a thousand connections off the queue before it shows us the first; when the descriptors are used up it
writes a traceback for each of them (python/cpython#151615), and uvloop cuts them without a word. Here each is
counted before the next is taken, and one too many gets an answer.
"""

import asyncio
import errno
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

from loguru import logger

from broker.clock import Clock
from broker.errors import BrokerError
from broker.logs import limited
from broker.tasks import spawn
from broker.web.admission import Admission, Guest
from broker.web.deadlines import Deadlines
from broker.web.problems import problem

__all__ = ["LINGERING", "Listener", "bind", "written"]

BACKLOG: Final = 1024
BURST: Final = 32
"""Connections taken in one tick, so that those that are inside have their turn."""
REST_SECONDS: Final = 0.25
"""How long nothing is accepted after the system could not give us a connection."""
LINGERING: Final = 16
"""Connections that are turned away and not closed yet, at most."""
LINGER_SECONDS: Final = 1.0
HEARD: Final = 1 << 16
_GONE: Final = frozenset({errno.ECONNABORTED, errno.EPERM, errno.EPROTO, errno.ENETDOWN, errno.EHOSTUNREACH})
"""Errors of accept that are one connection's own (accept(2))."""


class _Refused:
    """A connection that was answered and turned away, and that may take a moment to read the answer.

    Closed at once with something unread, a socket is reset, and the answer may be lost (RFC 9112 section 9.6).
    """

    def __init__(self, sock: socket.socket, lingering: Deadlines) -> None:
        self._sock = sock
        self._lingering = lingering

    def answer(self, answer: bytes) -> None:
        """Say why, and wait for the other end to close."""
        try:
            self._sock.send(answer)
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._sock.close()
            return
        asyncio.get_running_loop().add_reader(self._sock, self._hear)
        self._lingering.add(self)

    def late(self) -> None:
        """Close."""
        asyncio.get_running_loop().remove_reader(self._sock)
        self._lingering.discard(self)
        self._sock.close()

    def _hear(self) -> None:
        try:
            more = self._sock.recv(HEARD)
        except BlockingIOError:
            return
        except OSError:
            more = b""
        if not more:
            self.late()


class Listener:
    """Takes the connections of a bound socket.

    Args:
        sock: bound, and listening from `start` on.
        admission: who may come in.
        serve: returns the protocol of a connection that was let in; it calls `Admission.leave` when that ends.
        clock: time.
    """

    def __init__(
        self,
        sock: socket.socket,
        admission: Admission,
        serve: Callable[[Guest], asyncio.Protocol],
        clock: Clock,
    ) -> None:
        self._sock = sock
        self._admission = admission
        self._serve = serve
        self._clock = clock
        self._lingering = Deadlines(LINGER_SECONDS, clock)
        self._open = False

    def start(self) -> None:
        """Begin to accept."""
        self._sock.setblocking(False)
        self._sock.listen(BACKLOG)
        self._open = True
        self._resume()

    def stop(self) -> None:
        """Accept nothing more, and close."""
        if self._open:
            asyncio.get_running_loop().remove_reader(self._sock)
        self._open = False
        self._sock.close()
        while (one := self._lingering.pop()) is not None:
            one.late()
        self._lingering.stop()

    def _resume(self) -> None:
        if self._open:
            asyncio.get_running_loop().add_reader(self._sock, self._accept)

    def _accept(self) -> None:
        for _ in range(BURST):
            try:
                sock, address = self._sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as e:
                if e.errno not in _GONE:
                    self._rest(e)
                    return
            else:
                self._receive(sock, str(address[0]))

    def _rest(self, error: OSError) -> None:
        """Leave the queue alone for a moment: what is missing is not there again in the next tick."""
        limited("accept").error("connections cannot be accepted: {}", error.strerror or error)
        asyncio.get_running_loop().remove_reader(self._sock)
        self._clock.call_later(REST_SECONDS, self._resume)

    def _receive(self, sock: socket.socket, address: str) -> None:
        sock.setblocking(False)
        try:
            guest = self._admission.admit(address)
        except BrokerError as e:
            self._turn_away(sock, e)
        else:
            spawn(self._let_in(sock, guest), name=f"let in {address}")

    async def _let_in(self, sock: socket.socket, guest: Guest) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(partial(self._serve, guest), sock)
        except OSError as e:
            logger.debug("a connection was lost as it was let in: {}", e)
            self._admission.leave(guest)
            sock.close()

    def _turn_away(self, sock: socket.socket, error: BrokerError) -> None:
        if len(self._lingering) >= LINGERING and (oldest := self._lingering.pop()) is not None:
            oldest.late()
        with suppress(OSError):
            _Refused(sock, self._lingering).answer(written(error))


def bind(host: str, port: int) -> socket.socket:
    """Return a socket at an address, on which nobody listens yet.

    Raises:
        OSError: the address cannot be had.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, proto, _, address = found[0]
    sock = socket.socket(family, kind, proto)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def written(error: BrokerError) -> bytes:
    """Return a refusal as a whole response, after which the connection is closed."""
    response = problem(error)
    body = bytes(response.body or b"")  # type: ignore[arg-type]
    head = [f"HTTP/1.1 {response.status} {response.reason}", *(f"{k}: {v}" for k, v in response.headers.items())]
    return "\r\n".join([*head, f"Content-Length: {len(body)}", "Connection: close", "", ""]).encode() + body

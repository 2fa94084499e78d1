"""The load generator: many raw sockets on one loop, cheap enough to leave the server the bottleneck."""

import asyncio
from collections.abc import Callable
from typing import Self, cast

from bench.frames import CLOSE, PING, PONG, TEXT, frame, handshake, split

__all__ = ["Client", "Crowd", "Hear", "LoadError"]

Hear = Callable[["Client", bytes, int, int], None]
"""Takes a client and where in its bytes a text message begins and ends."""

_AT_ONCE = 100
_PATIENCE = 30.0


class LoadError(Exception):
    """The server did something that makes a measurement worthless: it refused, closed, or fell silent."""


def _deaf(_client: "Client", _data: bytes, _start: int, _end: int) -> None:
    """Hear nothing."""


class Client(asyncio.Protocol):
    """One socket.

    Attributes:
        hear: called with every text message.
        index: the socket's place in its crowd.
        failure: what went wrong, None while nothing did.
    """

    __slots__ = ("_on_frame", "_open", "_rest", "_write", "failure", "hear", "index", "opened", "transport")

    def __init__(self, port: int, index: int, hear: Hear, token: str | None) -> None:
        self.index = index
        self.hear = hear
        self.failure: str | None = None
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport
        self._open = handshake(port, token=token)
        self._rest = b""
        self._on_frame = self._frame_received

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the upgrade."""
        self.transport = cast("asyncio.Transport", transport)
        self._write = self.transport.write
        self._write(self._open)

    def data_received(self, data: bytes) -> None:
        """Read the answer to the upgrade once, then frames."""
        if self._rest:
            data = self._rest + data
        if self._open:
            head, found, data = data.partition(b"\r\n\r\n")
            if not found:
                self._rest = head
                return
            self._upgraded(head)
        self._rest = split(data, self._on_frame) if data else b""

    def connection_lost(self, exc: Exception | None) -> None:
        """Remember it: no measurement here ends a connection before its crowd leaves."""
        self._fail(f"connection lost: {exc or 'closed by the server'}")

    def send(self, framed: bytes) -> None:
        """Send one frame made by `frames.frame`."""
        self._write(framed)

    def _upgraded(self, head: bytes) -> None:
        self._open = b""
        status, _, _ = head.partition(b"\r\n")
        if b" 101 " not in status + b" ":
            self._fail(f"handshake refused: {status.decode(errors='replace')}")
        elif not self.opened.done():
            self.opened.set_result(None)

    def _frame_received(self, opcode: int, data: bytes, start: int, end: int) -> None:
        if opcode == TEXT:
            self.hear(self, data, start, end)
        elif opcode == PING:
            self.send(frame(data[start:end], PONG))
        elif opcode == CLOSE:
            code = int.from_bytes(data[start : start + 2], "big")
            self._fail(f"closed with {code}: {data[start + 2 : end].decode(errors='replace')}")

    def _fail(self, reason: str) -> None:
        self.failure = self.failure or reason
        if not self.opened.done():
            self.opened.set_exception(LoadError(reason))


class Crowd:
    """Some clients of one server; an asynchronous context in which they are connected.

    Args:
        port: where the server listens on 127.0.0.1.
        count: how many sockets.
        greeted: whether the server speaks first; the crowd is there when everybody has heard it.
        token: makes the token that the client of this index shows; None for a server that asks for none.
    """

    def __init__(self, port: int, count: int, *, greeted: bool, token: Callable[[int], str] | None = None) -> None:
        self.clients: list[Client] = []
        self._port = port
        self._count = count
        self._greeted = greeted
        self._token = token
        self._waiting = 0
        self._heard = asyncio.Event()

    async def __aenter__(self) -> Self:
        for first in range(0, self._count, _AT_ONCE):
            async with asyncio.timeout(_PATIENCE):
                await asyncio.gather(*(self._join(i) for i in range(first, min(first + _AT_ONCE, self._count))))
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self.clients:
            client.transport.abort()
        # The loop closes an aborted transport in its next rounds.
        await asyncio.sleep(0.05)

    async def ask(self, message: Callable[[Client], str]) -> list[bytes]:
        """Let every client send its `message`, wait for a response to each, and return them in order.

        Raises:
            LoadError: a server answered with an error, or not at all.
        """
        answers: dict[int, bytes] = {}

        def hear(client: Client, data: bytes, start: int, end: int) -> None:
            text = data[start:end]
            if b'"type":"response"' in text or b'"type":"error"' in text:
                answers[client.index] = text
                self._one_less()

        self._expect(len(self.clients))
        for client in self.clients:
            client.hear = hear
            client.send(frame(message(client).encode()))
        await self._all_heard()
        refused = next((text for text in answers.values() if b'"type":"error"' in text), None)
        if refused is not None:
            raise LoadError(f"the server refused: {refused.decode()}")
        return [answers[client.index] for client in self.clients]

    def listen(self, hear: Hear) -> None:
        """Let `hear` have every message from here on."""
        for client in self.clients:
            client.hear = hear

    def be_deaf(self) -> None:
        """Ignore what still arrives."""
        self.listen(_deaf)

    def check(self) -> None:
        """Raise a `LoadError` if a connection was lost."""
        for client in self.clients:
            if client.failure is not None:
                raise LoadError(client.failure)

    async def _join(self, index: int) -> None:
        loop = asyncio.get_running_loop()
        greeted = loop.create_future()

        def hear(_client: Client, _data: bytes, _start: int, _end: int) -> None:
            if not greeted.done():
                greeted.set_result(None)

        token = None if self._token is None else self._token(index)
        _, client = await loop.create_connection(
            lambda: Client(self._port, index, hear, token), "127.0.0.1", self._port
        )
        self.clients.append(client)
        await client.opened
        if self._greeted:
            await greeted
        client.hear = _deaf

    def _expect(self, count: int) -> None:
        self._waiting = count
        self._heard.clear()

    def _one_less(self) -> None:
        self._waiting -= 1
        if self._waiting <= 0:
            self._heard.set()

    async def _all_heard(self) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._heard.wait()
        except TimeoutError:
            self.check()
            raise LoadError(f"{self._waiting} answers did not come in {_PATIENCE:.0f} s") from None

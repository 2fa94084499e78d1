"""What is done with the frames of a client, and how its connection ends."""

from typing import Final, Literal

from aiohttp import web

from broker.actors.connection import Connection
from broker.actors.connection_mail import Hang, Pinged
from broker.actors.ref import LoopRef
from broker.errors import BrokerError, CloseCode
from broker.hooks import Control
from broker.protocol.frames import close_frame
from broker.protocol.incoming import NO_CODE, Violation
from broker.web.passage import Passage
from broker.web.reader import FrameSocket

__all__ = ["ABNORMAL", "Receiver"]

ABNORMAL: Final = 1006
"""The close code of a connection that ended without one (RFC 6455 section 7.4.1)."""

UNDECLARED: Final = 20 * 1024
"""Bytes that a message of one may have that has still to say who it is: a token, and little else."""


class Receiver:
    """Hands on what a client sends: messages to its caller, the rest to its connection.

    Frames that are no messages pass the plugins' gates first. One that refuses and says with which code closes the
    connection; otherwise a refused ping is not answered, and all else goes its way.

    Args:
        caller: the reading half of the client.
    """

    __slots__ = ("_caller", "_ref", "text")

    def __init__(self, caller: Passage) -> None:
        self._caller = caller
        self._ref: LoopRef[Connection] = caller.ref
        self.text = self._take if caller.services.settings.heartbeat.idle else caller.take

    def _take(self, text: bytes) -> None:
        """Note that the client is not idle, and take its message."""
        if self._ref.actor is not None:
            self._ref.actor.spoke = True
        self._caller.take(text)

    async def receive(self, socket: FrameSocket, request: web.Request) -> int:
        """Read the client to its end; return the close code that it ended with."""
        caller = self._caller
        limit = caller.services.settings.limits.message_bytes
        reader = socket.reader(request, self, limit if caller.deadline is None else min(limit, UNDECLARED))
        caller.reader = reader
        reader.start()
        code = await reader.ended
        ours = None if self._ref.actor is None else self._ref.actor.close_code
        if ours is not None or code is None:
            return ours or ABNORMAL
        transport = request.transport
        if transport is not None and not transport.is_closing():
            transport.write(close_frame(CloseCode.NORMAL if code == NO_CODE else code))
        return code

    def binary(self, data: bytes) -> None:
        """Close the connection: messages are text (PROTOCOL section 2c)."""
        self._hang(Hang(CloseCode.UNSUPPORTED_DATA))

    def ping(self, payload: bytes) -> None:
        """Have a ping answered after all that was said before it."""
        if self._passes("ping", len(payload)) and self._ref.is_alive():
            self._ref.tell(Pinged(payload), urgent=True)

    def pong(self, payload: bytes) -> None:
        """Note that the peer is there."""
        if self._ref.actor is not None:
            self._ref.actor.ponged(payload)
        self._passes("pong", len(payload))

    def piece(self, size: int) -> None:
        """Let plugins see a fragment."""
        self._passes("piece", size)

    def violation(self, violation: Violation) -> None:
        """Close the connection, and say why."""
        self._hang(Hang(violation.code, violation.reason, last=True))

    def closing(self) -> bool:
        """Tell whether we said good-bye; what was under way is not heard any more."""
        connection = self._ref.actor
        return connection is None or connection.close_code is not None

    def _passes(self, kind: Literal["ping", "pong", "piece"], size: int) -> bool:
        hooks = self._caller.services.hooks
        if not hooks.control:
            return True
        try:
            hooks.check_control(Control(self._caller.peer, kind, size))
        except BrokerError as e:
            if e.close is not None:
                self._hang(Hang(e.close, e.message))
            return False
        return True

    def _hang(self, message: Hang) -> None:
        if self._ref.is_alive():
            self._ref.tell(message, urgent=True)

"""A client's link to the broker: requests and their answers, and who it is while it is linked (PROTOCOL section 2)."""

import asyncio
import logging
import random
from datetime import datetime
from typing import Any, Final, Protocol

from aiohttp import ClientError, WSMsgType

from broker.client.backoff import Backoff
from broker.client.calls import Calls, Landed
from broker.client.dial import Dial, Socket
from broker.client.errors import BrokerError, Closed, Disconnected, Refused, TooLarge
from broker.client.link import End, Link
from broker.client.tokens import Tokens
from broker.client.values import State
from broker.client.wire import Identity, Message, identity_of, read, request
from broker.clock import Clock, SystemClock
from broker.errors import CloseCode

__all__ = ["ClientLink", "Listener"]

log = logging.getLogger("broker.client")

WELCOME_SECONDS: Final = 10.0
"""For the broker's first message."""
RESTART_SECONDS: Final = 1.0
"""The longest pause after a restart of the broker that did not say when it will be back."""
AHEAD: Final = 0.8
"""How much of a token's time passes before it is renewed."""
RENEW_SECONDS: Final = 1.0
"""The shortest time between two tokens."""


class Listener(Protocol):
    """Who is told of what happens on the link."""

    def linked(self) -> None:
        """There is a link, and the broker has said who we are."""

    def unlinked(self) -> None:
        """There is none any more."""

    def heard(self, message: Message, size: int) -> None:
        """The broker said something of its own."""

    def entered(self, state: State) -> None:
        """The connection is in another state."""


class ClientLink(Link):
    """Keeps a client linked.

    Args:
        dial: opens sockets.
        tokens: what is shown.
        listener: who is told.
        patience: seconds to go on trying before there was a first link.
        backoff: how long to pause between tries.
        clock: time.

    Attributes:
        identity: who the broker said we are, on the newest link; None before the first.
        leaving: whether the broker has said that it is about to restart.
    """

    def __init__(
        self,
        dial: Dial,
        tokens: Tokens,
        listener: Listener,
        patience: float,
        backoff: Backoff,
        clock: Clock | None = None,
    ) -> None:
        clock = clock or SystemClock()
        super().__init__(dial, backoff, clock)
        self._tokens = tokens
        self._listener = listener
        self._until = clock.monotonic() + patience
        self._socket: Socket | None = None
        self._welcome = asyncio.Event()
        self._gate = asyncio.Event()  # open, or never again
        self._down = asyncio.Event()
        self._calls = Calls()
        self._retry_after: float | None = None
        self._over: Exception | None = None
        self.identity: Identity | None = None
        self.leaving = False

    # -- asking -----------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether there is a link now."""
        return self._socket is not None

    async def ready(self) -> None:
        """Wait for the link.

        Raises:
            Closed, Refused: there will be none.
        """
        while self._socket is None:
            if isinstance(self._over, Refused):
                raise Refused(self._over.reason, self._over.code)
            if self._over is not None:
                raise Closed
            await self._gate.wait()

    async def loss(self) -> None:
        """Wait until the link of now is lost."""
        await self._down.wait()

    async def ask(self, action: str, payload: Any, landed: Landed | None = None) -> Any:
        """Ask over the link of now, and return the answer.

        Raises:
            BrokerError: the broker's refusal.
            Disconnected: there is no link, or it broke before the answer.
            TypeError, ValueError: the payload is no JSON.
        """
        socket = self._socket
        if socket is None:
            raise Disconnected
        call = self._calls.begin(landed)
        try:
            text = request(call.id, action, payload)
            if self.identity is not None and len(text) > (most := self.identity.max_message_bytes):
                raise TooLarge("too_large", f"The message has {len(text)} bytes; the broker takes {most}.")
            await socket.send_frame(text, WSMsgType.TEXT)
            return await call.future
        except (ClientError, ConnectionResetError):
            self._unlink()  # the reading half will hear why
            raise Disconnected("The connection broke before the request was sent.") from None
        finally:
            self._calls.end(call)

    def finish(self, why: Exception) -> None:
        """Be over for good."""
        if self._over is None:
            self._over = why
            self._unlink()
            self._gate.set()

    # -- what is said over it ---------------------------------------------------------------------------

    def trying(self) -> None:
        """Say so."""
        self._listener.entered(State("connecting"))

    async def begin(self, socket: Socket) -> None:
        """Wait to be welcomed."""
        self._welcome.clear()
        self._retry_after = None
        self.leaving = False

    async def attend(self, socket: Socket) -> None:
        """See that a welcome comes, and that who we are does not expire."""
        try:
            async with asyncio.timeout(WELCOME_SECONDS):
                await self._welcome.wait()
        except TimeoutError:
            log.warning("%s lets us in, and says nothing", self.name)
            await socket.close(code=CloseCode.HEARTBEAT_MISSED, message=b"no welcome came")
            return
        if self._tokens.fresh:
            await self._stay()

    async def take(self, socket: Socket, text: bytes) -> None:
        """Take what the broker says: an answer, or something of its own."""
        try:
            message = read(text)
        except ValueError as e:
            log.warning("%s", e)
            return
        if message.type != "notification":
            if (error := self._calls.take(message)) is not None:
                self.complain(f"{error.code}: {error.words}")
                log.warning("the broker refuses a message: %s", error.words)
        elif message.event == "welcome":
            self._enter(socket, message)
        elif message.event == "restarting":
            said = message.data.get("retry_after") if isinstance(message.data, dict) else None
            self._retry_after = said if isinstance(said, int | float) and said >= 0 else RESTART_SECONDS
            self.leaving = True
            self._tell(message, len(text))
        else:
            self._tell(message, len(text))

    def lost(self, end: End | None) -> None:
        """Fail what waits for an answer."""
        self._unlink()

    def pause(self, end: End) -> float:
        """Return how long to wait: as long as the broker said, or not long if it restarts, or ever longer."""
        if not self._dial.proved and self._clock.monotonic() >= self._until:
            what = "connection to" if end.opened else "broker at"
            raise Disconnected(f"There is no {what} {self.name}: {end}.")
        delay = self._backoff.pause()
        if end.code == CloseCode.SERVICE_RESTART:
            delay = random.uniform(0, RESTART_SECONDS) if self._retry_after is None else self._retry_after  # noqa: S311
        self._retry_after = None
        self._listener.entered(State("waiting", end.code, end.reason, delay))
        return delay

    def _enter(self, socket: Socket, message: Message) -> None:
        try:
            self.identity = identity_of(message.data)
        except ValueError as e:
            log.warning("a welcome that cannot be read: %s", e)
            return
        self._socket = socket
        self._welcome.set()
        self._down.clear()
        self._gate.set()
        self.welcomed(f" as {self.identity.user}" if self.identity.user else "")
        self._listener.entered(State("open"))
        self._listener.linked()

    def _tell(self, message: Message, size: int) -> None:
        try:
            self._listener.heard(message, size)
        except Exception:  # a message that makes no sense is no reason to hear nothing more
            log.exception("%s could not be taken", message.event)

    def _unlink(self) -> None:
        if self._socket is None:
            return
        self._socket = None
        self._down.set()
        if self._over is None:
            self._gate.clear()
        self._calls.lose()
        self._listener.unlinked()

    # -- who we are -------------------------------------------------------------------------------------

    async def _stay(self) -> None:
        """Show a new token before the time of the last one is over; if there is none, the broker will say so."""
        expiry = self._tokens.expiry
        while expiry is not None:
            left = expiry - self._clock.now() / 1000
            await self._sleep(max(RENEW_SECONDS, left * AHEAD))
            try:
                answer = await self.ask("auth", {"token": await self._tokens.get()})
                expiry = _until(answer)
            except Disconnected:
                return
            except (BrokerError, ConnectionError) as e:
                log.warning("the token could not be renewed: %s", e)


def _until(answer: Any) -> float | None:
    """Return until when somebody may stay, in seconds since the epoch; None for good."""
    try:
        return datetime.fromisoformat(answer["expires_at"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return None

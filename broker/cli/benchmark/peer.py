"""One connection of a run: a socket that is read as it comes, and made again when it breaks."""

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, Protocol

import attrs
import msgspec
from aiohttp import ClientError, ClientSession, ClientWebSocketResponse, WSCloseCode, WSMsgType, WSServerHandshakeError

from broker.cli.benchmark.tally import Tally
from broker.errors import may_reconnect
from broker.nearby import Nearby
from broker.tasks import spawn

__all__ = ["Ask", "Heard", "Part", "Peer", "Refusal"]

PATIENCE: Final = 10.0
"""Seconds for a handshake, and for an answer to what has to be asked before the first message."""
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 5.0
"""Bounds of the pause between two tries to come back, in seconds: any length up to a bound that doubles."""
_encode: Final = msgspec.json.Encoder().encode


class Heard(msgspec.Struct):
    """A message of the broker, as far as a run looks at it (PROTOCOL section 2)."""

    type: str
    id: str | None = None
    event: str = ""
    session_id: str = ""
    turn_id: str | None = None
    room: str = ""
    seq: int | None = None
    data: msgspec.Raw = msgspec.Raw(b"null")

    def field(self, name: str) -> Any:
        """Return a field of its data; None if there is none of that name."""
        data = msgspec.json.decode(self.data)
        return data.get(name) if isinstance(data, dict) else None


_read: Final = msgspec.json.Decoder(Heard).decode


class Refusal(Exception):  # noqa: N818 - what the broker says, not what went wrong here
    """The broker refuses what has to be done before the first message; `code` is its word for why."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


Ask = Callable[[str, Any], Awaitable[Heard]]
"""Asks the broker for an action with a payload, as `Peer.ask`."""


class Part(Protocol):
    """What one connection does in a run."""

    @property
    def remains(self) -> bool:
        """Whether there is something of it at the broker that `leave` takes away."""

    async def joined(self) -> None:
        """Do what has to be done whenever the link is there; raises `Refusal`."""

    async def act(self, number: int, due: float) -> None:
        """Send the next message, of this number; what it takes counts from when it was due, by `perf_counter`."""

    def hear(self, heard: Heard) -> None:
        """Take what came."""

    def cut(self) -> None:
        """Take note that the link was lost."""

    def open(self) -> int:
        """Return how much is still to come."""

    def close(self) -> None:
        """Count as lost what is still to come: the run is over."""

    async def leave(self, ask: Ask) -> None:
        """Leave nothing behind at the broker, which is asked over this link or another; raises `Refusal`."""


@attrs.define(eq=False)
class Peer:
    """One connection.

    Attributes:
        index: its place among all, from 0.
        part: what it does; set before it connects.
        up: set while the link is there.
        gone: whether the broker has sent it away for good.
    """

    index: int
    _target: Nearby
    _http: ClientSession
    _tally: Tally
    part: Part = attrs.field(init=False)
    up: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)
    gone: bool = attrs.field(default=False, init=False)
    _welcomed: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)
    _socket: ClientWebSocketResponse | None = attrs.field(default=None, init=False)
    _reader: "asyncio.Task[None] | None" = attrs.field(default=None, init=False)
    _asked: dict[str, asyncio.Future[Heard]] = attrs.field(factory=dict, init=False)
    _ids: Callable[[], int] = attrs.field(factory=lambda: itertools.count(1).__next__, init=False)

    async def connect(self) -> None:
        """Make the link, and do what has to be done on it.

        Raises:
            Refusal: the broker does not want that.
            OSError, aiohttp.ClientError, TimeoutError: there is no link.
        """
        async with asyncio.timeout(PATIENCE):
            self._welcomed.clear()
            self._socket = await self._shake_hands()
            self._reader = spawn(self._listen(self._socket), name=f"bench reader {self.index}")
            try:
                await self._welcome(self._reader)
                await self.part.joined()
            except BaseException:
                await self.leave()
                raise
        self.up.set()

    async def stay(self) -> None:
        """Come back whenever the link is lost, until cancelled or sent away for good."""
        while self._reader is not None:
            await asyncio.wait([self._reader])  # not to be cancelled with us
            self.up.clear()
            self.part.cut()
            if self._sent_away():
                self.gone = True
                self.up.set()  # who waits for the link is to see that there will be none
                return
            self._tally.reconnects += 1
            await self._come_back()

    async def leave(self) -> None:
        """Close the link."""
        if self._socket is not None:
            await self._socket.close()
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)

    async def ask(self, action: str, payload: Any) -> Heard:
        """Send a request and return the answer.

        Raises:
            Refusal: it is an error.
            TimeoutError: none came.
        """
        request_id = f"ask{self._ids()}"
        answer = self._asked[request_id] = asyncio.get_running_loop().create_future()
        try:
            await self.tell(request_id, action, payload)
            async with asyncio.timeout(PATIENCE):
                heard: Heard = await answer
        finally:
            del self._asked[request_id]
        if heard.type == "error":
            raise Refusal(str(heard.field("code")))
        return heard

    async def tell(self, request_id: str, action: str, payload: Any) -> None:
        """Send a request; its answer goes to `part`. If the link is broken the reading half hears of it."""
        request = {"id": request_id, "type": "request", "action": action, "payload": payload}
        if self._socket is not None:
            with suppress(ClientError, ConnectionError):
                await self._socket.send_str(_encode(request).decode())

    # -- inside -----------------------------------------------------------------------------------------

    async def _shake_hands(self) -> ClientWebSocketResponse:
        token = self._target.token
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        try:
            return await self._http.ws_connect(
                self._target.ws, protocols=("broker.v1.json",), headers=headers, max_msg_size=1 << 26
            )
        except WSServerHandshakeError as e:
            status = e.status  # the error holds the request with the token in it: it ends here
        raise Refusal(f"http_{status}")

    async def _welcome(self, reader: "asyncio.Task[None]") -> None:
        """Wait until the broker has let us in, with its first message (PROTOCOL section 2)."""
        welcome = asyncio.ensure_future(self._welcomed.wait())
        try:
            await asyncio.wait([reader, welcome], return_when=asyncio.FIRST_COMPLETED)
        finally:
            welcome.cancel()
        if not self._welcomed.is_set():
            code = None if self._socket is None else self._socket.close_code
            raise Refusal(f"closed_{code or int(WSCloseCode.ABNORMAL_CLOSURE)}")

    async def _listen(self, socket: ClientWebSocketResponse) -> None:
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                self._hear(message.data)
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(Refusal("connection_lost"))

    def _hear(self, text: str) -> None:
        try:
            heard = _read(text)
        except msgspec.DecodeError:
            self._tally.fail("unreadable")
            return
        answer = self._asked.get(heard.id or "")
        if heard.event == "welcome":
            self._welcomed.set()
        elif answer is None:
            self.part.hear(heard)
        elif not answer.done():
            answer.set_result(heard)

    def _sent_away(self) -> bool:
        code = None if self._socket is None else self._socket.close_code
        if code not in {None, WSCloseCode.OK, WSCloseCode.ABNORMAL_CLOSURE}:
            self._tally.fail(f"closed_{code}")
        return code is not None and not may_reconnect(code)

    async def _come_back(self) -> None:
        bound = _FIRST_PAUSE
        while True:
            await asyncio.sleep(random.uniform(0, bound))  # noqa: S311 - spreads load, guards nothing
            bound = min(2 * bound, _LONGEST_PAUSE)
            try:
                await self.connect()
            except (Refusal, ClientError, OSError, TimeoutError) as e:
                self._tally.fail(e.code if isinstance(e, Refusal) else "not_reachable")
            else:
                return

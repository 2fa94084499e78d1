"""A client of any of the designs: JSON over a WebSocket, with nothing of the broker in it."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

from aiohttp import ClientWebSocketResponse, WSMsgType

PATIENCE = 20.0
"""Seconds after which a message that is waited for will not come, on a machine that is busy with other tests."""

Message = dict[str, Any]


def anything(_: Message) -> bool:
    """Take whatever comes."""
    return True


class Client:
    """One connection; what is not asked for is kept until it is."""

    def __init__(self, socket: ClientWebSocketResponse) -> None:
        self.socket = socket
        self.heard: list[Message] = []

    async def say(self, **message: Any) -> None:
        """Send a message; a key that ends with an underscore is sent without it, such as `from_`."""
        await self.send({key.removesuffix("_"): value for key, value in message.items()})

    async def send(self, message: Any) -> None:
        """Send a message; text is sent as it is."""
        await self.socket.send_str(message if isinstance(message, str) else json.dumps(message))

    async def take(self, wanted: Callable[[Message], bool] = anything) -> Message:
        """Return the oldest message that is wanted, heard already or still to come."""
        for index, message in enumerate(self.heard):
            if wanted(message):
                return self.heard.pop(index)
        async with asyncio.timeout(PATIENCE):
            while True:
                frame = await self.socket.receive()
                assert frame.type is WSMsgType.TEXT, (frame, self.heard)
                new: Message = json.loads(frame.data)
                if wanted(new):
                    return new
                self.heard.append(new)

    async def taking(self, count: int, wanted: Callable[[Message], bool] = anything) -> list[Message]:
        """Return as many messages as that, in the order in which they came."""
        return [await self.take(wanted) for _ in range(count)]

    async def closed(self) -> int | None:
        """Read to the end, and return the code with which the other side closes; None if the line just broke."""
        async with asyncio.timeout(PATIENCE):
            while (frame := await self.socket.receive()).type is WSMsgType.TEXT:
                self.heard.append(json.loads(frame.data))
        return frame.data if frame.type is WSMsgType.CLOSE else self.socket.close_code

    async def leave(self) -> None:
        """Close as a polite client does."""
        await self.socket.close()

    def drop(self) -> None:
        """Vanish without a good-bye."""
        assert self.socket._response.connection is not None
        transport = self.socket._response.connection.transport
        assert transport is not None
        transport.abort()

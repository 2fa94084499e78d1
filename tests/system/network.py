"""A network that can fail: a TCP proxy which cuts lines, or keeps them up and carries nothing."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self

__all__ = ["Network"]


class Network:
    """Carries bytes between whoever comes to `port` and the broker, on a thread of its own: some tests have no loop.

    Args:
        target: the broker's port; read anew for each line, since a broker that starts again may have another.

    Attributes:
        port: where to come to.
        lines: how many came so far.
    """

    def __init__(self, target: Callable[[], int]) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.lines = 0
        self.port = 0
        self._thread = threading.Thread(target=self._loop.run_forever, name="network")

    def __enter__(self) -> Self:
        self._thread.start()
        server = self._do(asyncio.start_server(self._carry, "127.0.0.1", 0))
        self._server: asyncio.Server = server
        self.port = server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def cut(self) -> None:
        """Reset every line there is; new ones are carried."""
        self._do(self._reset())

    def freeze(self) -> None:
        """Carry nothing any more, and end nothing: what a telephone in a tunnel has for a connection."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def thaw(self) -> None:
        """Carry again: what was written meanwhile, too."""
        self._loop.call_soon_threadsafe(self._flowing.set)

    def heal(self) -> None:
        """Carry new lines; those that were frozen stay dead."""
        self._do(self._forget())

    def _do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.lines += 1
        flowing = self._flowing
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target())
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, back}
        self._writers |= ends
        try:
            await asyncio.gather(_pump(reader, back, flowing), _pump(there, writer, flowing))
        finally:
            self._writers -= ends
            for end in ends:
                end.transport.abort()

    async def _reset(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _forget(self) -> None:
        self._flowing = asyncio.Event()
        self._flowing.set()

    async def _close(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flowing: asyncio.Event) -> None:
    """Carry one way; the end of one way ends the line."""
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            await flowing.wait()
            writer.write(data)
            await writer.drain()
    writer.transport.abort()

"""A broker with one more door, `/`: what comes is said again, word for word, text and binary.

Autobahn's fuzzing client wants to hear its own frames. Everything here is the broker's own (the handshake, the frame
reader, the receiver, the connection that writes) but for what is done with a message.

    python tests/system/autobahn/echo.py CONFIG    prints the port of that door
"""

import asyncio
import sys
from pathlib import Path

import attrs
from aiohttp import web

from broker import config
from broker.actors.connection import Connection
from broker.actors.loop import handles
from broker.app import App
from broker.extensions.loader import load as load_plugins
from broker.hooks import Peer
from broker.messages import Principal
from broker.protocol.frames import text_frame
from broker.protocol.incoming import BINARY, TEXT
from broker.protocol.native import NATIVE
from broker.web.passage import Passage
from broker.web.reader import FrameSocket
from broker.web.receiver import Receiver

PEER = Peer("autobahn", Principal(), "127.0.0.1", "")


@attrs.frozen
class Said:
    """What is to be said again."""

    payload: bytes
    binary: bool


class Parrot(Connection):
    """Says what it is told."""

    @handles(Said)
    def _repeat(self, said: Said) -> None:
        frame = bytearray(text_frame(said.payload, self._window_bits))
        frame[0] ^= TEXT ^ BINARY if said.binary else 0
        self._speak(bytes(frame), 1)


class Ear(Passage):
    """Takes any text."""

    def take(self, text: bytes) -> None:
        """Say it again."""
        self.ref.tell(Said(text, binary=False), urgent=True)


class Ears(Receiver):
    """Takes binary messages too."""

    def binary(self, data: bytes) -> None:
        """Say it again."""
        self._ref.tell(Said(data, binary=True), urgent=True)


async def serve(file: Path) -> None:
    """Run until the process is ended."""
    loaded = config.load(file, {}, {})
    app = App(loaded.settings, load_plugins(loaded.settings, loaded.file))
    await app.start()

    async def echo(request: web.Request) -> FrameSocket:
        socket = FrameSocket("", compress=True)
        await socket.prepare(request)
        transport = request.transport
        if transport is not None:
            ref = Parrot.start(PEER, NATIVE, transport, int(socket.compress), app.services.connection)
            try:
                await Ears(Ear(app.services, {}, PEER, NATIVE, ref)).receive(socket, request)
            finally:
                transport.close()
                if ref.actor is not None:
                    ref.actor.stop()
        return socket

    door = web.Application()
    door.router.add_get("/", echo)
    runner = web.AppRunner(door, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    sys.stdout.write(f"{runner.addresses[0][1]}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    try:
        import uvloop
    except ImportError:
        asyncio.run(serve(Path(sys.argv[1])))
    else:
        uvloop.run(serve(Path(sys.argv[1])))

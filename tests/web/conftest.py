"""What tests of the web's edge share: a whole broker in this process, and a socket without a library."""

import asyncio
import base64
import json
import os
import socket as sockets
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import pytest

from broker import config
from broker.app import App
from broker.extensions.loader import load as load_plugins

PATIENCE = 20.0
BASE = {
    "listen": {"port": 0},
    "store": {"url": "memory:"},
    "agents": {"echo": {"kind": "echo"}, "endless": {"kind": "echo", "delay": "1h"}},
}


def merged(base: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with those of `more` in their place, block by block."""
    both = {**base, **more}
    for key in base.keys() & more.keys():
        if isinstance(base[key], Mapping) and isinstance(more[key], Mapping):
            both[key] = merged(base[key], more[key])
    return both


Start = Callable[..., Awaitable[App]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Start brokers on free ports, with the memory store; what is given is laid over `BASE`, block by block."""
    apps: list[App] = []

    async def start_app(**settings: Any) -> App:
        file = tmp_path / "config.yaml"
        file.write_text(json.dumps(merged(BASE, settings)))
        loaded = config.load(file, {}, {})
        app = App(loaded.settings, load_plugins(loaded.settings, loaded.file))
        await app.start()
        apps.append(app)
        return app

    yield start_app
    for app in apps:
        await app.stop()


@pytest.fixture
async def app(start: Start) -> App:
    """A broker with nothing special about it."""
    return await start()


PEOPLE = '''
from broker.hooks import Handshake, Plugin, Principal


class People(Plugin):
    """Takes everybody for who they say they are: `?name=ann&scopes=api+admin`; nobody is somebody without scopes."""

    def on_handshake(self, handshake: Handshake):
        scopes = handshake.query.get("scopes", "")
        return Principal(user=handshake.query.get("name"), scopes=frozenset(scopes.split()))
'''


@pytest.fixture
def people(tmp_path: Path) -> dict[str, Any]:
    """The settings of a broker that believes what names people give."""
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "people.py").write_text(PEOPLE)
    return {"plugins": {"people": {}}}


Get = Callable[..., Awaitable[tuple[int, Any, Any]]]


@pytest.fixture
async def get() -> AsyncIterator[Get]:
    """Ask for a path: `(status, headers, body)`, JSON already read."""
    async with aiohttp.ClientSession() as session:

        async def ask(app: App, path: str, method: str = "GET", **options: Any) -> tuple[int, Any, Any]:
            async with session.request(method, f"http://127.0.0.1:{app.port}{path}", **options) as answer:
                body = await answer.read()
                return answer.status, answer.headers, json.loads(body) if "json" in answer.content_type else body

        yield ask


def frame(first: int, payload: bytes) -> bytes:
    """Return a client's frame; `first` is the first byte: FIN, the reserved bits and the opcode."""
    size = len(payload)
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 1 << 16:
        head = struct.pack("!BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, size)
    mask = os.urandom(4)
    return head + mask + bytes(byte ^ mask[i & 3] for i, byte in enumerate(payload))


@attrs.define
class Raw:
    """A socket that speaks WebSocket by hand, so that it can do what no library would."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    head: str

    @property
    def status(self) -> int:
        """The status of the answer to the handshake."""
        return int(self.head.split()[1])

    def headers(self) -> dict[str, str]:
        """Return the headers of the answer to the handshake, with lower-case names."""
        pairs = (line.partition(": ") for line in self.head.splitlines()[1:] if line)
        return {name.lower(): value for name, _, value in pairs}

    async def body(self) -> Any:
        """Return the JSON that a refused handshake was answered with."""
        async with asyncio.timeout(PATIENCE):
            return json.loads(await self.reader.readexactly(int(self.headers()["content-length"])))

    def send(self, first: int, payload: bytes) -> None:
        """Send one frame."""
        self.writer.write(frame(first, payload))

    def say(self, action: str, payload: Any = None, request_id: str = "r") -> None:
        """Send one request."""
        request = {"id": request_id, "type": "request", "action": action, "payload": payload}
        self.send(0x81, json.dumps(request).encode())

    async def frame(self) -> tuple[int, bytes]:
        """Return the first byte and the payload of the next frame."""
        async with asyncio.timeout(PATIENCE):
            first, size = await self.reader.readexactly(2)
            if size == 126:
                (size,) = struct.unpack("!H", await self.reader.readexactly(2))
            elif size == 127:
                (size,) = struct.unpack("!Q", await self.reader.readexactly(8))
            return first, await self.reader.readexactly(size)

    async def message(self) -> Any:
        """Return the next message; anything but a text frame is an error."""
        first, payload = await self.frame()
        assert first == 0x81, (first, payload)
        return json.loads(payload)

    async def end(self) -> int | None:
        """Read to the end, answer a close frame, and return its code; None if there was none."""
        code = None
        try:
            while True:
                first, payload = await self.frame()
                if first == 0x88:
                    (code,) = struct.unpack("!H", payload[:2]) if payload else (1005,)
                    self.send(0x88, payload[:2])
        except (asyncio.IncompleteReadError, ConnectionError):
            return code


Knock = Callable[..., Awaitable[Raw]]


@pytest.fixture
async def knock() -> AsyncIterator[Knock]:
    """Shake hands by hand, with headers as keyword arguments; one that is None is left out."""
    opened: list[Raw] = []

    async def open_raw(port: int, path: str = "/ws", rcvbuf: int = 0, **headers: str | None) -> Raw:
        sock = sockets.socket()
        if rcvbuf:
            sock.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, rcvbuf)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        reader, writer = await asyncio.open_connection(sock=sock, limit=rcvbuf or 1 << 16)
        fields: dict[str, str | None] = {
            "Host": f"127.0.0.1:{port}",
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
        writer.write("\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode())
        async with asyncio.timeout(PATIENCE):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
        raw = Raw(reader, writer, head)
        opened.append(raw)
        return raw

    yield open_raw
    for raw in opened:
        raw.writer.transport.abort()
    await asyncio.gather(*(raw.writer.wait_closed() for raw in opened), return_exceptions=True)

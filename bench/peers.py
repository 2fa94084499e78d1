"""What we compare ourselves with: the same job in bare aiohttp on uvloop, as anybody would write it.

Run one with `python -m bench.peers echo 8080`.
"""

import argparse
import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from queue import SimpleQueue

import uvloop
from aiohttp import WSMsgType, web

__all__ = ["PEERS"]

_sockets: set[web.WebSocketResponse] = set()
_log: web.AppKey["Log"] = web.AppKey("log")


async def echo(request: web.Request) -> web.WebSocketResponse:
    """Send every message back."""
    ws = web.WebSocketResponse()
    await ws.prepare(request)
    async for msg in ws:
        if msg.type is WSMsgType.TEXT:
            await ws.send_str(msg.data)
    return ws


async def fanout(request: web.Request) -> web.WebSocketResponse:
    """Send every message to everybody, its sender too."""
    ws = web.WebSocketResponse()
    await ws.prepare(request)
    _sockets.add(ws)
    try:
        async for msg in ws:
            if msg.type is WSMsgType.TEXT:
                for other in list(_sockets):
                    await other.send_str(msg.data)
    finally:
        _sockets.discard(ws)
    return ws


async def append(request: web.Request) -> web.WebSocketResponse:
    """Append every message to a SQLite file, and send it back once it is on the disk."""
    log = request.app[_log]
    ws = web.WebSocketResponse()
    await ws.prepare(request)
    async for msg in ws:
        if msg.type is WSMsgType.TEXT:
            log.append(ws, msg.data)
    return ws


class Log:
    """One thread that writes all that waits in one transaction, and answers after its commit."""

    def __init__(self, path: Path) -> None:
        self._waiting: SimpleQueue[tuple[web.WebSocketResponse, str] | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._path = path
        self._thread = threading.Thread(target=self._write)
        self._thread.start()

    def append(self, ws: web.WebSocketResponse, text: str) -> None:
        """Hand a message to the writer."""
        self._waiting.put((ws, text))

    def close(self) -> None:
        """Stop the writer."""
        self._waiting.put(None)
        self._thread.join()

    def _write(self) -> None:
        db = sqlite3.connect(self._path, isolation_level=None)
        db.executescript(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
            "CREATE TABLE log (seq INTEGER PRIMARY KEY, data TEXT NOT NULL)",
        )
        while (item := self._waiting.get()) is not None:
            batch = [item]
            for _ in range(min(self._waiting.qsize(), 1000)):
                if (item := self._waiting.get()) is None:
                    return
                batch.append(item)
            db.execute("BEGIN")
            db.executemany("INSERT INTO log (data) VALUES (?)", [(text,) for _, text in batch])
            db.execute("COMMIT")
            self._loop.call_soon_threadsafe(self._answer, batch)

    def _answer(self, batch: list[tuple[web.WebSocketResponse, str]]) -> None:
        self._loop.create_task(self._send(batch))

    @staticmethod
    async def _send(batch: list[tuple[web.WebSocketResponse, str]]) -> None:
        for ws, text in batch:
            if not ws.closed:
                await ws.send_str(text)


PEERS = {"echo": echo, "fanout": fanout, "append": append}


async def ready(_request: web.Request) -> web.Response:
    """Say that the peer is up."""
    return web.Response(text="ready")


def _application(name: str, path: Path) -> web.Application:
    app = web.Application()
    app.router.add_get("/ws", PEERS[name])
    app.router.add_get("/readyz", ready)

    async def log(app: web.Application) -> AsyncIterator[None]:
        app[_log] = Log(path)
        yield
        app[_log].close()

    if name == "append":
        app.cleanup_ctx.append(log)
    return app


def main() -> None:
    """Serve one peer on the loopback address until it is terminated."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=PEERS)
    parser.add_argument("port", type=int)
    parser.add_argument("--file", type=Path, default=Path("peer.db"))
    options = parser.parse_args()
    app = _application(options.name, options.file)
    loop = uvloop.new_event_loop()
    web.run_app(app, host="127.0.0.1", port=options.port, access_log=None, print=None, loop=loop, shutdown_timeout=1)


if __name__ == "__main__":
    main()

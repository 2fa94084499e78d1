"""An agents-server that counsels: it remembers in variables how far it is, and shows those who debug what it thinks."""

import asyncio
import json
import sys
from typing import Any

from aiohttp import WSMsgType, web

SUBPROTOCOL = "agents.v1.json"


async def serve(request: web.Request) -> web.WebSocketResponse:
    """Serve the broker for as long as it stays."""
    socket = web.WebSocketResponse(protocols=[SUBPROTOCOL])
    await socket.prepare(request)
    await say(socket, "hello", {"agent": "counsel", "version": "1", "capacity": 4})
    async for frame in socket:
        if frame.type is not WSMsgType.TEXT:
            break
        message = json.loads(frame.data)
        if message["type"] == "turn_start":
            await answer(socket, message["data"])
        elif message["type"] == "ping":
            await say(socket, "pong", {})
    return socket


async def answer(socket: web.WebSocketResponse, turn: dict[str, Any]) -> None:
    """Answer one turn, with a question more each time."""
    step = turn["variables"].get("step", 0) + 1
    about = {"turn_id": turn["turn_id"]}
    await say(socket, "debug", {**about, "seq": 1, "model": "stand-in", "prompt": f"step {step}: {turn['content']}"})
    await say(socket, "variables", {**about, "seq": 2, "session_id": turn["session_id"], "set": {"step": step}})
    if turn["content"] == "nothing":
        await say(socket, "turn_end", {**about, "seq": 3})
        return
    await say(socket, "delta", {**about, "seq": 3, "text": f"Question {step}: "})
    await say(socket, "delta", {**about, "seq": 4, "text": f"why {turn['content']}?"})
    await say(socket, "turn_end", {**about, "seq": 5})


async def say(socket: web.WebSocketResponse, kind: str, data: dict[str, Any]) -> None:
    """Send a frame."""
    await socket.send_json({"type": kind, "data": data})


async def main() -> None:
    """Listen on a free port, and say on which."""
    app = web.Application()
    app.router.add_get("/agents", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    sys.stdout.write(f"ws://127.0.0.1:{port}/agents\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())

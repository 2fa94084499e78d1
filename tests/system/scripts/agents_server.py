"""An agents-server as seed 002 draws it: the broker dials in, and it is told of projects, answers, and speaks.

Run with a port, 0 for any. It prints a line of JSON for its port and for every frame of the broker's about projects;
a line of JSON on its input is sent to the broker. Feedback is answered at once, unless it says to wait.
"""

import asyncio
import json
import sys
import time
from datetime import UTC, datetime
from typing import Any

from aiohttp import WSMsgType, web

FOR_PROJECTS = {"project_update", "project_status_sync", "user_feedback"}


def envelope(kind: str, project: str | None, data: Any, frame_id: str | None = None) -> dict[str, Any]:
    """Return a message of the design."""
    return {
        "type": kind,
        "projectGuid": project,
        "data": data,
        "timestamp": datetime.now(UTC).isoformat(),
        "id": frame_id or str(time.time_ns()),
    }


def tell(line: Any) -> None:
    """Tell the test something."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


async def serve(request: web.Request) -> web.WebSocketResponse:
    """Talk to the broker."""
    socket = web.WebSocketResponse(protocols=["agents.v1.json"])
    await socket.prepare(request)
    await socket.send_json(envelope("hello", None, {"agent": "planner", "version": "1.0"}))
    request.app["sockets"].append(socket)
    async for message in socket:
        if message.type is not WSMsgType.TEXT:
            break
        frame = json.loads(message.data)
        if frame["type"] == "ping":
            await socket.send_json(envelope("pong", None, {}))
        if frame["type"] not in FOR_PROJECTS:
            continue
        tell(frame)
        if frame["type"] == "user_feedback" and frame["data"] != "wait":
            answer = {"heard": frame["data"]}
            await socket.send_json(envelope("user_feedback_response", frame["projectGuid"], answer, frame["id"]))
    request.app["sockets"].remove(socket)
    return socket


async def obey(app: web.Application) -> None:
    """Send the broker what comes in, line by line."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        frame = json.loads(line)
        for socket in app["sockets"]:
            await socket.send_json(envelope(frame["type"], frame["projectGuid"], frame["data"]))


async def main() -> None:
    """Serve until killed."""
    app = web.Application()
    app["sockets"] = []
    app.router.add_get("/agents", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", int(sys.argv[1]), reuse_address=True)
    await site.start()
    tell({"port": runner.addresses[0][1]})
    await obey(app)


asyncio.run(main())

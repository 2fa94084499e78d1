"""An application as seed 003 draws it: the module inside of it, with handlers, a message of its own, and events."""

import asyncio
import sys
from typing import Any

from aiohttp import web

from broker import Broker

broker = Broker(
    {
        "heartbeat": {"interval": "30s"},
        "listen": {"max_connections": 1000},
        "limits": {"message_timeout": "1s"},
        "store": {"url": "memory:"},
    },
    plugins=["metrics"],
)
events: list[str] = []


async def process_text(message: dict[str, Any], context: Any) -> Any:
    """Answer a text in the agent's place."""
    words = message["content"]["text"]
    if words == "raise":
        raise ValueError("a fault of the host's")
    if words == "sleep":
        await asyncio.sleep(60)
    if words == "greet":
        await broker.send(context.peer.connection_id, {"type": "response", "content": {"text": "Hello"}})
        return None
    if words == "typed":
        return {"type": "response", "content": {"text": "typed"}, "metadata": {"mood": "good"}}
    return {"text": words.upper(), "id": message["id"]}


def order(message: dict[str, Any], context: Any) -> Any:
    """Answer a type of the host's own."""
    return {"content": {"ordered": message["content"]["what"], "by": context.peer.protocol}}


async def told(_: web.Request) -> web.Response:
    """Tell what the host has heard."""
    return web.json_response({"events": events, "here": len(await broker.connections())})


broker.register_handler("text", process_text)
broker.register_handler("order", order)
broker.on("connection", lambda peer: events.append(f"connection {peer.connection_id}"))
broker.on("disconnection", lambda peer, code: events.append(f"disconnection {code}"))
broker.on("error", lambda failure: events.append(f"error {type(failure.error).__name__}"))

app = web.Application()
app.router.add_get("/told", told)
broker.setup(app, prefix="/chat")

if __name__ == "__main__":
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]))

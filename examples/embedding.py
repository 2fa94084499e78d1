"""A chat beside an application's own pages: `python examples/embedding.py`, then open http://127.0.0.1:8080/broker/chat."""

import sys
from collections import Counter

from aiohttp import web

from broker import Broker

broker = Broker({"store": {"url": "memory:"}, "agents": {"echo": {"kind": "echo"}}}, plugins=["metrics"])
visits = Counter()


async def add(message, context):
    await context.send({"note": f"adding for {context.peer.address}"})
    return {"sum": sum(message["payload"]["numbers"])}


def count(peer):
    visits[peer.protocol] += 1


async def home(_):
    return web.json_response({"visits": visits, "here": len(await broker.connections())})


broker.register_handler("add", add, timeout=5)
broker.on("connection", count)

app = web.Application()
app.router.add_get("/", home)
broker.setup(app, prefix="/broker")

if __name__ == "__main__":
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]) if sys.argv[1:] else 8080)

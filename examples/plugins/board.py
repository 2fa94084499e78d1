"""A board on which everybody who is connected may put up what they are doing."""

from typing import Annotated

import attrs
from aiohttp import web
from msgspec import Meta

from broker.hooks import Peer, Plugin, Route


@attrs.frozen
class Note:
    """What a client sends."""

    text: Annotated[str, Meta(max_length=200)]


class Board(Plugin):
    """Answers the action `board.put`, tells the room `board` of it, and shows all notes to backends at `/board`."""

    version = "1.0"

    def __init__(self, settings, broker):
        super().__init__(settings, broker)
        self.notes: dict[str, dict[str, str | None]] = {}

    def actions(self):
        return {"board.put": self.put}

    def routes(self):
        return [Route("GET", "/board", self.show, scope="api")]

    async def put(self, peer: Peer, note: Note):
        self.notes[peer.connection_id] = {"user": peer.principal.user, "text": note.text}
        await self.broker.publish("board", "put", self.notes[peer.connection_id])
        return {"notes": len(self.notes)}

    async def disconnected(self, peer: Peer, code: int):
        if gone := self.notes.pop(peer.connection_id, None):
            await self.broker.publish("board", "gone", gone)

    async def show(self, request: web.Request) -> web.Response:
        return web.json_response({"asked_by": request["principal"].user, "notes": list(self.notes.values())})

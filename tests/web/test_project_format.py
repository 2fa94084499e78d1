"""`project.v1.json` in a broker: what plugins add to it, and what reaches its clients from elsewhere."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from broker.app import App

PATIENCE = 20.0
CREW = '''
from broker.errors import BrokerError
from broker.hooks import Inbound, Plugin


class Crew(Plugin):
    """Deploys projects, lets nobody leave one, and notes what kinds of messages it was shown."""

    def __init__(self, settings, broker):
        super().__init__(settings, broker)
        self.kinds = []

    def on_message(self, inbound: Inbound) -> None:
        self.kinds.append(inbound.kind)

    def actions(self):
        return {"deploy": self.deploy, "leave_project": lambda peer, payload: {"stay": True}}

    def deploy(self, peer, payload):
        if payload == "seen":
            return self.kinds
        if payload == "refused":
            raise BrokerError("conflict", field="$.payload.version")
        return {"deployed": payload}
'''

Start = Callable[..., Awaitable[App]]
Dial = Callable[..., Awaitable[Any]]
Visit = Callable[[App], Awaitable["Visitor"]]


class Visitor:
    """A client of the format."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def hear(self) -> dict[str, Any]:
        """Return the next message."""
        async with asyncio.timeout(PATIENCE):
            message: dict[str, Any] = json.loads(await self.socket.recv())
        return message

    async def ask(self, kind: str, data: Any = None, project: str | None = None) -> dict[str, Any]:
        """Send a message, and return the next one that comes."""
        await self.socket.send(json.dumps({"type": kind, "projectGuid": project, "data": data, "id": "q"}))
        return await self.hear()


@pytest.fixture
async def visit() -> AsyncIterator[Visit]:
    """Open clients of the format."""
    sockets: list[ClientConnection] = []

    async def open_client(app: App) -> Visitor:
        url, offer = f"ws://127.0.0.1:{app.port}/ws", [Subprotocol("project.v1.json")]
        sockets.append(await connect(url, subprotocols=offer, ping_interval=None, compression=None))
        return Visitor(sockets[-1])

    yield open_client
    await asyncio.gather(*(socket.close() for socket in sockets), return_exceptions=True)


@pytest.fixture
async def crewed(start: Start, tmp_path: Path) -> App:
    """A broker whose plugin knows a type that the design does not, and another way to do one that it does."""
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "crew.py").write_text(CREW)
    return await start(plugins={"crew": {}})


async def test_a_type_that_a_plugin_has_registered_is_answered_by_it(crewed: App, visit: Visit) -> None:
    visitor = await visit(crewed)
    answer = await visitor.ask("deploy", {"version": 2}, "p1")
    assert answer == {
        "type": "deploy_response",
        "projectGuid": "p1",
        "data": {"deployed": {"version": 2}},
        "timestamp": answer["timestamp"],
        "id": "q",
    }
    refused = await visitor.ask("deploy", "refused")
    assert refused["type"] == "error"
    assert (refused["data"]["code"], refused["data"]["field"]) == ("conflict", "$.data.version")


async def test_a_type_of_the_design_may_be_a_plugins_too(crewed: App, visit: Visit) -> None:
    answer = await (await visit(crewed)).ask("leave_project", None, "p1")
    assert (answer["type"], answer["data"]) == ("leave_project_response", {"stay": True})


async def test_gates_are_told_the_type_that_the_client_used(crewed: App, visit: Visit) -> None:
    visitor = await visit(crewed)
    await visitor.ask("join_project", None, "p1")
    await visitor.ask("dance")
    assert (await visitor.ask("deploy", "seen"))["data"] == ["join_project", "dance", "deploy"]


async def test_what_others_send_to_this_connection_or_to_all_is_a_project_message(
    app: App, visit: Visit, dial: Dial
) -> None:
    visitor, native = await visit(app), await dial(app.port)
    people = await native.do("get_connections")
    assert people["count"] == 2
    (other,) = {each["connection_id"] for each in people["connections"]} - {native.welcome["connection_id"]}
    sender = {"connection_id": native.welcome["connection_id"], "user": None}
    await native.do("send", to={"connections": [other]}, data={"n": 1})
    await native.do("broadcast", n=2)
    for event, number in [("message", 1), ("broadcast", 2)]:
        heard = await visitor.hear()
        assert heard.keys() == {"type", "data", "timestamp", "id"}
        assert heard["type"] == "project_message"
        assert heard["data"] == {"event": event, "from": sender, "data": {"n": number}}


async def test_before_a_restart_nothing_is_said_but_the_close_code(app: App, visit: Visit) -> None:
    visitor = await visit(app)
    assert (await visitor.ask("ping"))["type"] == "pong"
    draining = asyncio.ensure_future(app.drain())
    with pytest.raises(ConnectionClosed) as end:
        await visitor.hear()
    await draining
    assert end.value.rcvd is not None
    assert end.value.rcvd.code == 1012

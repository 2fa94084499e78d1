"""Clients of different formats in one room see the same things in the same order."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import attrs
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from broker.app import App

PATIENCE = 20.0
GUID = "7f3c"
ROOM = f"project:{GUID}"
OWN_TYPES = {"project_stage_update", "project_message", "project_status_change", "agent_message"}

Start = Callable[..., Awaitable[App]]
Get = Callable[..., Awaitable[tuple[int, Any, Any]]]


@attrs.frozen
class Seen:
    """An event of a room, whatever the format it was told in."""

    seq: int | None
    at: str
    event: str
    data: Any


class Viewer:
    """One who is in the room; native, unless it is a `ProjectViewer`."""

    protocol = "broker.v1.json"

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.seen: list[Seen] = []

    async def _say(self, message: dict[str, Any]) -> None:
        await self.socket.send(json.dumps(message))

    async def _hear(self) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE):
            message: dict[str, Any] = json.loads(await self.socket.recv())
        event = self.event_of(message)
        if event is not None:
            self.seen.append(event)
        return message

    async def sees(self, count: int) -> list[Seen]:
        """Return all that it has seen, once that is so many."""
        while len(self.seen) < count:
            await self._hear()
        return self.seen

    async def _answer(self, kind: str) -> dict[str, Any]:
        while (message := await self._hear())["type"] != kind:
            assert message["type"] != "error", message
        return message

    async def join(self, **more: Any) -> dict[str, Any]:
        """Join the room, and return the answer's data."""
        payload = {"room": ROOM, **more}
        await self._say({"type": "request", "id": "j", "action": "room.join", "payload": payload})
        data: dict[str, Any] = (await self._answer("response"))["data"]
        return data

    async def quiet(self) -> None:
        """See that nothing else is on its way."""
        await self._say({"type": "request", "id": "p", "action": "ping"})
        await self._answer("response")

    async def publish(self, event: str, data: Any) -> None:
        """Publish to the room, and wait for no answer."""
        payload = {"room": ROOM, "event": event, "data": data}
        await self._say({"type": "request", "action": "room.publish", "payload": payload})

    def event_of(self, message: dict[str, Any]) -> Seen | None:
        """Return the event that a message tells, if it tells one."""
        if message.get("event") != "room.event":
            return None
        return Seen(message.get("seq"), message["at"], message["data"]["event"], message["data"]["data"])


class ProjectViewer(Viewer):
    """A client of seed 002."""

    protocol = "project.v1.json"

    async def join(self, **more: Any) -> dict[str, Any]:
        """Join the project, and return the answer's data."""
        await self._say({"type": "join_project", "projectGuid": GUID, "id": "j", "data": more})
        data: dict[str, Any] = (await self._answer("join_project_response"))["data"]
        return data

    async def quiet(self) -> None:
        """See that nothing else is on its way."""
        await self._say({"type": "ping"})
        await self._answer("pong")

    def event_of(self, message: dict[str, Any]) -> Seen | None:
        """Return the event that a message tells, if it tells one."""
        if message["type"] not in OWN_TYPES:
            return None
        assert message["projectGuid"] == GUID
        kind, data = message["type"], message["data"]
        if kind == "project_message" and isinstance(data, dict) and data.keys() == {"event", "from", "data"}:
            kind, data = data["event"], data["data"]
        guid, colon, number = message["id"].rpartition(":")
        assert not colon or guid == GUID
        return Seen(int(number) if colon else None, message["timestamp"], kind, data)


Enter = Callable[..., Awaitable[Any]]


@pytest.fixture
async def enter() -> AsyncIterator[Enter]:
    """Connect viewers, to be called with a port and a class."""
    sockets: list[ClientConnection] = []

    async def open_viewer(port: int, kind: type[Viewer] = Viewer) -> Viewer:
        url, offer = f"ws://127.0.0.1:{port}/ws", [Subprotocol(kind.protocol)]
        sockets.append(await connect(url, subprotocols=offer, ping_interval=None, compression=None))
        return kind(sockets[-1])

    yield open_viewer
    await asyncio.gather(*(socket.close() for socket in sockets), return_exceptions=True)


@pytest.fixture
async def both(app: App, enter: Enter) -> list[Any]:
    """A native viewer and one of projects, not in the room yet."""
    return [await enter(app.port), await enter(app.port, ProjectViewer)]


def numbered(seen: list[Seen]) -> list[int | None]:
    return [event.seq for event in seen]


async def test_what_everybody_publishes_is_seen_by_both_in_the_same_order(
    app: App, enter: Enter, both: list[Any], get: Get
) -> None:
    for viewer in both:
        await viewer.join()
    publishers = [await enter(app.port) for _ in range(3)]
    names = [*sorted(OWN_TYPES), "tide", "message"]

    async def publish(who: int) -> None:
        for number in range(20):
            await publishers[who].publish(names[(who + number) % len(names)], {"who": who, "number": number})

    async def publish_over_http() -> None:
        for number in range(20):
            body = {"event": names[number % len(names)], "data": [number]}
            status, _, _ = await get(app, f"/api/v1/rooms/{ROOM}/events", "POST", json=body)
            assert status == 201

    await asyncio.gather(*map(publish, range(3)), publish_over_http())
    native, project = [await viewer.sees(80) for viewer in both]
    assert native == project
    assert numbered(native) == list(range(1, 81))
    assert {event.event for event in native} == set(names)


async def test_with_the_same_filter_both_see_the_same_part(app: App, enter: Enter, both: list[Any]) -> None:
    wanted = ["agent_message", "tide"]
    for viewer in both:
        await viewer.join(events=wanted)
    publisher = await enter(app.port)
    for number, event in enumerate(["agent_message", "project_message", "tide", "message", "agent_message"]):
        await publisher.publish(event, number)
    native, project = [await viewer.sees(3) for viewer in both]
    assert native == project
    assert [(event.seq, event.event) for event in native] == [(1, "agent_message"), (3, "tide"), (5, "agent_message")]
    for viewer in both:
        await viewer.quiet()
        assert len(viewer.seen) == 3


@pytest.mark.parametrize("wanted", [None, ["agent_message"]])
async def test_who_comes_back_sees_what_it_has_missed_and_no_more(
    app: App, enter: Enter, both: list[Any], wanted: list[str] | None
) -> None:
    more = {} if wanted is None else {"events": wanted}
    stayed, left = both
    joined = [await viewer.join(**more) for viewer in both]
    assert joined[0]["epoch"] == joined[1]["epoch"]
    publisher = await enter(app.port)

    async def publish(*numbers: int) -> None:
        for number in numbers:
            await publisher.publish("project_message" if number % 2 else "agent_message", number)

    await publish(1, 2)
    before = list(await left.sees(2 if wanted is None else 1))
    left.socket.transport.abort()
    await publish(3, 4)
    await stayed.sees(4 if wanted is None else 2)  # so that they are published while nobody of projects is there
    back = await enter(app.port, ProjectViewer)
    answer = await back.join(after_seq=before[-1].seq, epoch=joined[1]["epoch"], **more)
    assert (answer["recovered"], answer["head"]) == (True, 4)
    await publish(5, 6)
    count = 6 if wanted is None else 3
    assert before + await back.sees(count - len(before)) == await stayed.sees(count)
    await back.quiet()
    assert len(back.seen) == count - len(before)


async def test_who_names_another_epoch_is_told_so_and_sees_all_there_is(app: App, enter: Enter) -> None:
    publisher, viewer = await enter(app.port), await enter(app.port, ProjectViewer)
    await publisher.publish("agent_message", 1)
    await publisher.quiet()
    answer = await viewer.join(after_seq=1, epoch="another")
    assert answer["recovered"] is False
    assert [(event.seq, event.data) for event in await viewer.sees(1)] == [(1, 1)]


async def test_where_no_history_is_kept_both_see_the_same_all_the_same(start: Start, enter: Enter) -> None:
    app = await start(rooms={"history": 0})
    both = [await enter(app.port), await enter(app.port, ProjectViewer)]
    for viewer in both:
        await viewer.join()
    publisher = await enter(app.port)
    for number in range(10):
        await publisher.publish("project_message", number)
    native, project = [await viewer.sees(10) for viewer in both]
    assert native == project
    assert numbered(native) == [None] * 10

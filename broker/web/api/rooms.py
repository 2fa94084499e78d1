"""Rooms over HTTP."""

from typing import Any, Final

from broker import operations as ops
from broker.actors.requests import Live
from broker.actors.room import Room
from broker.clock import rfc3339
from broker.hooks import Permission
from broker.messages import LogRow
from broker.protocol import payloads
from broker.protocol.checks import check_name
from broker.web.api import answers
from broker.web.api.endpoint import Call, endpoint
from broker.web.api.paging import paged, place
from broker.web.views import encode_events

PREFIX: Final = "room:"


@endpoint("GET", "/rooms", "room.list", payloads.Listing, answer=answers.Rooms)
async def list_rooms(call: Call, listing: payloads.Listing) -> Any:
    """List the rooms that have members or a log, by name; those whose history one may not read are left out."""
    after, most = place(listing.cursor), listing.limit + 1
    kept: list[LogRow] = await call.services.store.read("rooms", after, limit=most)
    places: dict[str, Any] = await call.ask(Live())
    live = {log.removeprefix(PREFIX): ref.actor for log, ref in places.items() if log.startswith(PREFIX)}
    logs = {row.name.removeprefix(PREFIX): row for row in kept}
    names = sorted({*logs, *(name for name, room in live.items() if name > after and _is_peopled(room))})[:most]
    page = paged("rooms", names, listing.limit, lambda name: name)
    hooks = call.services.hooks
    seen = [name for name in page["rooms"] if await hooks.permits(Permission(call.by, "room.history", name))]
    return {**page, "rooms": [_room_data(name, live.get(name), logs.get(name)) for name in seen]}


def _is_peopled(room: Room | None) -> bool:
    return room is not None and room.population > 0


def _room_data(name: str, room: Room | None, log: LogRow | None) -> answers.Room:
    data: answers.Room = {"room": name, "members": 0 if room is None else room.population}
    if log is not None:
        data["head"], data["updated_at"] = log.head, rfc3339(log.updated_at)
    return data


@endpoint("GET", "/rooms/{room}/events", "room.history", payloads.RoomHistory, answer=answers.Events, resource="room")
async def list_events(call: Call, history: payloads.RoomHistory) -> Any:
    """Read a room's log: the newest events, or those before a number."""
    check_name(history.room, "room")
    operation = ops.RoomHistory(call.by, history.before_seq, history.limit)
    return encode_events(await call.services.ask_room(history.room, operation))


@endpoint(
    *("POST", "/rooms/{room}/events", "room.publish", payloads.Publish),
    answer=answers.Published,
    status=201,
    resource="room",
    errors=("overloaded",),
)
async def publish(call: Call, event: payloads.Publish) -> Any:
    """Publish an event to a room: to its members, and to its log if it keeps one."""
    check_name(event.room, "room")
    check_name(event.event, "$.event")
    operation = ops.Publish(call.by, call.sender, event.event, bytes(event.data))
    return await call.services.ask_room(event.room, operation)

"""What is measured against bare aiohttp: each function is a row of the table, and yields its lines."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import attrs

from bench.frames import frame
from bench.load import Client, Crowd
from bench.report import Line, Mark
from bench.rounds import Round, converse, fan_out
from bench.servers import GUARDED, OPEN, Server, broker, peer
from bench.tokens import token_of

__all__ = ["Plan", "echo", "fanout", "guarded_echo", "guarded_idle", "idle", "publish", "request"]

_TEXT = "the quick brown fox jumps over the lazy dog once more"
_KIB = 1024
_RESPONSE = b'"type":"response"'


@attrs.frozen
class Plan:
    """How to measure.

    Attributes:
        folder: for databases; on a disk, or an fsync means nothing.
        rounds: of each row.
        seconds: of each round.
        sockets: held open to weigh an idle one.
    """

    folder: Path
    rounds: int
    seconds: float
    sockets: int


Pairs = list[tuple[Round, Round]]
Side = tuple[Server, Crowd]


def request(request_id: str, action: str, **payload: object) -> str:
    """Return a request of the native protocol (PROTOCOL section 2)."""
    envelope = {"id": request_id, "type": "request", "action": action, "payload": payload}
    return json.dumps(envelope, separators=(",", ":"))


async def _alternate(plan: Plan, ours: Callable[[], Awaitable[Round]], theirs: Callable[[], Awaitable[Round]]) -> Pairs:
    """Take turns, so that whatever else the machine does weighs on both."""
    return [(await ours(), await theirs()) for _ in range(plan.rounds)]


@asynccontextmanager
async def _crowds(plan: Plan, rival: str, count: int, config: Path = OPEN) -> AsyncIterator[tuple[Side, Side]]:
    async with AsyncExitStack() as stack:
        ours = stack.enter_context(broker(plan.folder, config))
        theirs = stack.enter_context(peer(rival, plan.folder))
        crowd = await stack.enter_async_context(_ours(ours, count, config))
        other = await stack.enter_async_context(Crowd(theirs.port, count, greeted=theirs.greets))
        yield (ours, crowd), (theirs, other)


def _ours(server: Server, count: int, config: Path) -> Crowd:
    return Crowd(server.port, count, greeted=server.greets, token=token_of if config == GUARDED else None)


async def echo(plan: Plan) -> AsyncIterator[Line]:
    """100 sockets, each with one message of about 120 bytes in flight."""
    async for line in _echo(plan, "echo, 100 sockets", OPEN, Mark("ratio", "<=", 1.5)):
        yield line


async def guarded_echo(plan: Plan) -> AsyncIterator[Line]:
    """The same with tokens, limits and metrics on; the peer has none of them."""
    async for line in _echo(plan, "guarded echo, 100 sockets", GUARDED, Mark("ratio", "<=", 1.6)):
        yield line


async def _echo(plan: Plan, title: str, config: Path, mark: Mark) -> AsyncIterator[Line]:
    message = frame(request("1", "echo", text=_TEXT).encode())
    async with _crowds(plan, "echo", 100, config) as (ours, theirs):
        pairs = await _alternate(
            plan,
            lambda: converse(*ours, lambda _client, _number: message, _RESPONSE, 1, plan.seconds),
            lambda: converse(*theirs, lambda _client, _number: message, _TEXT.encode(), 1, plan.seconds),
        )
    yield _cpu_line(title, "message", pairs, mark)
    yield _rate_line(title, "messages", pairs)


async def fanout(plan: Plan) -> AsyncIterator[Line]:
    """One sender, a thousand receivers, the sender among them."""
    message = request("1", "broadcast", text=_TEXT).encode()
    async with _crowds(plan, "fanout", 1000) as (ours, theirs):
        for in_flight, limit in ((1, 1.3), (8, 1.0)):
            pairs = await _alternate(
                plan,
                lambda n=in_flight: fan_out(*ours, message, _TEXT.encode(), n, plan.seconds),  # type: ignore[misc]
                lambda n=in_flight: fan_out(*theirs, message, _TEXT.encode(), n, plan.seconds),  # type: ignore[misc]
            )
            title = f"fan-out 1 to 1000, {in_flight} in flight"
            yield _cpu_line(title, "delivery", pairs, Mark("ratio", "<=", limit))
            yield _rate_line(title, "deliveries", pairs)


async def publish(plan: Plan) -> AsyncIterator[Line]:
    """100 sockets publish to rooms with history, 4 in flight each; a reply comes after the fsync of its event.

    The peer appends to one table of a file, with the same settings of SQLite and nothing else to do.
    """
    for title, rooms, mark in (
        ("durable publish, 100 rooms of 1", 100, Mark("ours", ">=", 25_000)),
        ("durable publish, 10 rooms of 10", 10, None),
    ):
        async with _crowds(plan, "append", 100) as (ours, theirs):
            names = [f"bench-{index % rooms}" for index in range(100)]
            await ours[1].ask(lambda client, names=names: request("join", "room.join", room=names[client.index]))  # type: ignore[misc]
            events = [frame(request("1", "room.publish", room=name, data={"text": _TEXT}).encode()) for name in names]

            def event(client: Client, _number: int, events: list[bytes] = events) -> bytes:
                return events[client.index]

            pairs = await _alternate(
                plan,
                lambda: converse(*ours, event, _RESPONSE, 4, plan.seconds),
                lambda: converse(*theirs, event, _TEXT.encode(), 4, plan.seconds),
            )
        yield _rate_line(title, "appends", pairs, mark)
        yield _cpu_line(title, "append", pairs)
        for part in (0.5, 0.99):
            yield _latency_line(title, part, pairs)


async def idle(plan: Plan) -> AsyncIterator[Line]:
    """Memory of a socket that does nothing, each time on a new server."""
    yield await _idle(plan, f"idle socket, of {plan.sockets:,}", OPEN, Mark("ours", "<=", 18))


async def guarded_idle(plan: Plan) -> AsyncIterator[Line]:
    """Memory of a socket that has said who it is and does nothing; each has a user and a token of its own."""
    yield await _idle(plan, f"guarded idle socket, of {plan.sockets:,}", GUARDED, Mark("ours", "<=", 20))


async def _idle(plan: Plan, title: str, config: Path, mark: Mark) -> Line:
    weights = []
    for _ in range(2):
        with broker(plan.folder, config) as ours:
            weight = await _weigh(ours, _ours(ours, plan.sockets, config), plan.sockets)
        with peer("echo", plan.folder) as theirs:
            crowd = Crowd(theirs.port, plan.sockets, greeted=theirs.greets)
            weights.append((weight, await _weigh(theirs, crowd, plan.sockets)))
    return Line(title, "KiB", [a for a, _ in weights], [b for _, b in weights], mark=mark)


async def _weigh(server: Server, crowd: Crowd, count: int) -> float:
    before = server.memory()
    async with crowd:
        await asyncio.sleep(1)
        crowd.check()
        return (server.memory() - before) / count / _KIB


def _cpu_line(title: str, what: str, pairs: Pairs, mark: Mark | None = None) -> Line:
    return Line(title, f"CPU us/{what}", [a.cpu_each for a, _ in pairs], [b.cpu_each for _, b in pairs], mark=mark)


def _rate_line(title: str, what: str, pairs: Pairs, mark: Mark | None = None) -> Line:
    return Line(title, f"{what}/s", [a.rate for a, _ in pairs], [b.rate for _, b in pairs], best="most", mark=mark)


def _latency_line(title: str, part: float, pairs: Pairs) -> Line:
    ours, theirs = ([each.percentile(part) for each in side] for side in zip(*pairs, strict=True))
    return Line(title, f"ms p{part * 100:.0f}", ours, theirs)

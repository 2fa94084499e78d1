"""What only a broker does, measured without a peer: whole turns, and the way from an agent to a browser."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from itertools import count

from bench.frames import frame
from bench.load import Client, Crowd, LoadError
from bench.report import Line, Mark
from bench.rounds import converse
from bench.rows import Plan, request
from bench.servers import broker

__all__ = ["agent", "first_word", "turns"]

_ENDED = b'"event":"turn.ended"'
_DELTA = b'"event":"message.delta"'
_STAMP = re.compile(rb"t=(\d{20})")
_PATIENCE = 20.0

_salt = count()


async def _sessions(crowd: Crowd, profile: str) -> list[str]:
    answers = await crowd.ask(lambda _client: request("create", "session.create", agent=profile))
    return [json.loads(answer)["data"]["session_id"] for answer in answers]


def _turn(session_id: str, key: str, content: str) -> bytes:
    return frame(request("1", "turn.start", session_id=session_id, client_msg_id=key, content=content).encode())


async def turns(plan: Plan) -> AsyncIterator[Line]:
    """100 sessions, a turn of one word after the other; every record is on the disk before it is shown."""
    title = "whole turns, 100 sessions"
    rounds = []
    with broker(plan.folder) as server:
        async with Crowd(server.port, 100, greeted=True) as crowd:
            ids = await _sessions(crowd, "echo")
            for _ in range(plan.rounds):
                salt = next(_salt)

                def turn(client: Client, number: int, salt: int = salt) -> bytes:
                    return _turn(ids[client.index], f"{salt}-{number}", "hi")

                rounds.append(await converse(server, crowd, turn, _ENDED, 1, plan.seconds))
    yield Line(title, "turns/s", [r.rate for r in rounds], best="most", mark=Mark("ours", ">=", 4000))
    yield Line(title, "CPU us/turn", [r.cpu_each for r in rounds])
    for part in (0.5, 0.99):
        yield Line(title, f"ms p{part * 100:.0f}", [r.percentile(part) for r in rounds])


async def first_word(plan: Plan) -> AsyncIterator[Line]:
    """One turn at a time on a quiet broker: from the send to the agent's first word, and to the end."""
    first, whole = [], []
    with broker(plan.folder) as server:
        async with Crowd(server.port, 10, greeted=True) as crowd:
            ids = await _sessions(crowd, "echo")
            for number in range(200):
                client = crowd.clients[number % 10]
                to_word, to_end = await _timed_turn(client, _turn(ids[client.index], str(number), "hi"))
                first.append(to_word)
                whole.append(to_end)
    for title, times in (("turn.start to first word, one at a time", first), ("turn.start to turn.ended", whole)):
        yield _percentile(title, times, 0.5)
        yield _percentile(title, times, 0.99)


async def _timed_turn(client: Client, turn: bytes) -> tuple[float, float]:
    """Return the milliseconds until the first word and until the end."""
    ended = asyncio.get_running_loop().create_future()
    words: list[float] = []

    def hear(_client: Client, data: bytes, start: int, end: int) -> None:
        at = time.perf_counter()
        if data.find(_DELTA, start, end) >= 0:
            words.append(at)
        elif data.find(_ENDED, start, end) >= 0:
            ended.set_result(at)

    client.hear = hear
    begun = time.perf_counter()
    client.send(turn)
    async with asyncio.timeout(_PATIENCE):
        at = await ended
    return (words[0] - begun) * 1e3, (at - begun) * 1e3


async def agent(plan: Plan) -> AsyncIterator[Line]:
    """From a word leaving an agent in a child process to its arrival at the browser's socket.

    Through the pipe, the session and the disk. Spaced words are messages of their own and never wait to
    be merged; streamed ones come every 5 ms and may wait for up to 40 ms (PROTOCOL section 3a).
    """
    with broker(plan.folder) as server:
        async with Crowd(server.port, 5, greeted=True) as crowd:
            ids = await _sessions(crowd, "clock")
            await _hear_agents(crowd, ids, "spaced 1")
            spaced = await _hear_agents(crowd, ids, "spaced 100")
            streamed = await _hear_agents(crowd, ids, "stream 400")
    yield _percentile("agent to browser, separate words", spaced, 0.5, Mark("ours", "<=", 2))
    yield _percentile("agent to browser, separate words", spaced, 0.99)
    yield _percentile("agent to browser, 200 words/s merged", streamed, 0.5)
    yield _percentile("agent to browser, 200 words/s merged", streamed, 0.99)


async def _hear_agents(crowd: Crowd, ids: list[str], prompt: str) -> list[float]:
    """Let all agents talk at once, and return how many milliseconds each word was on its way."""
    ended = asyncio.Semaphore(0)
    times: list[float] = []

    def hear(_client: Client, data: bytes, start: int, end: int) -> None:
        if data.find(_DELTA, start, end) >= 0:
            now = time.monotonic_ns()
            times.extend((now - int(stamp)) / 1e6 for stamp in _STAMP.findall(data, start, end))
        elif data.find(_ENDED, start, end) >= 0:
            ended.release()

    crowd.listen(hear)
    salt = next(_salt)
    for client in crowd.clients:
        client.send(_turn(ids[client.index], f"agent-{salt}", prompt))
    async with asyncio.timeout(_PATIENCE):
        for _ in crowd.clients:
            await ended.acquire()
    crowd.check()
    if not times:
        raise LoadError("the agent said nothing")
    return times


def _percentile(title: str, times: list[float], part: float, mark: Mark | None = None) -> Line:
    value = sorted(times)[min(int(len(times) * part), len(times) - 1)]
    return Line(title, f"ms p{part * 100:.0f}", [value], mark=mark)

"""One round of each kind of load: let a crowd talk for a while, and count."""

import asyncio
import time
from collections.abc import Callable

import attrs

from bench.frames import frame
from bench.load import Client, Crowd, LoadError
from bench.servers import Server

__all__ = ["Round", "converse", "fan_out"]

_WARM_UP = 0.2
# A busy disk may hold an fsync for longer than a round; that is a slow round, not a failed one.
_STALLS = 10
_ERROR = b'"type":"error"'


@attrs.frozen
class Round:
    """What one round of load came to.

    Attributes:
        count: messages that came back.
        seconds: how long it took.
        cpu: seconds of CPU the server used meanwhile.
        latencies: seconds from sending to the answer, where they were taken; sorted.
    """

    count: int
    seconds: float
    cpu: float
    latencies: list[float] = attrs.field(factory=list)

    @property
    def cpu_each(self) -> float:
        """Microseconds of the server's CPU per message."""
        return self.cpu * 1e6 / self.count

    @property
    def rate(self) -> float:
        """Messages per second."""
        return self.count / self.seconds

    def percentile(self, part: float) -> float:
        """Milliseconds within which that part of the answers came."""
        return self.latencies[min(int(len(self.latencies) * part), len(self.latencies) - 1)] * 1e3


class Tally:
    """Counts while a round runs; the warm-up before it is not counted."""

    def __init__(self) -> None:
        self.count = 0
        self.latencies: list[float] = []
        self.error: bytes | None = None

    async def run(self, server: Server, crowd: Crowd, seconds: float) -> Round:
        """Count for that long, with the load already under way.

        Raises:
            LoadError: a connection was lost, an error was answered, or nothing came.
        """
        await asyncio.sleep(_WARM_UP)
        self.latencies.clear()
        count, cpu, begun = self.count, server.cpu(), time.perf_counter()
        for _ in range(_STALLS):
            await asyncio.sleep(seconds)
            if self.count > count or self.error is not None:
                break
        took, cpu, count = time.perf_counter() - begun, server.cpu() - cpu, self.count - count
        crowd.check()
        if self.error is not None:
            raise LoadError(f"the server answered {self.error.decode()}")
        if not count:
            raise LoadError("nothing came back")
        return Round(count, took, cpu, sorted(self.latencies))


def _is_error(tally: Tally, data: bytes, start: int, end: int) -> None:
    if data.find(_ERROR, start, end) >= 0:
        tally.error = data[start:end]


async def fan_out(server: Server, crowd: Crowd, message: bytes, mark: bytes, in_flight: int, seconds: float) -> Round:
    """The first client keeps `in_flight` messages on their way to everybody; counts those that arrive."""
    tally = Tally()
    sender, everybody, framed = crowd.clients[0], len(crowd.clients), frame(message)
    due = everybody
    going = True

    def hear(_client: Client, data: bytes, start: int, end: int) -> None:
        nonlocal due
        if data.find(mark, start, end) < 0:
            _is_error(tally, data, start, end)
            return
        tally.count += 1
        if tally.count == due and going:
            due += everybody
            sender.send(framed)

    crowd.listen(hear)
    for _ in range(in_flight):
        sender.send(framed)
    result = await tally.run(server, crowd, seconds)
    going = False
    await _drain(lambda: tally.count)
    crowd.be_deaf()
    return result


async def converse(
    server: Server, crowd: Crowd, message: Callable[[Client, int], bytes], mark: bytes, in_flight: int, seconds: float
) -> Round:
    """Every client keeps `in_flight` messages on their way, and sends the next when one was answered.

    Answers are taken to come in the order of the questions of one client, which makes a latency one
    subtraction; every conversation measured here has that order.

    Args:
        server: whose CPU is counted.
        crowd: who talks.
        message: what a client says as its nth message, framed.
        mark: bytes that every awaited answer holds, and nothing else.
        in_flight: messages of one client that wait for their answers.
        seconds: how long.
    """
    tally = Tally()
    now = time.perf_counter
    sent_at = [[0.0] * in_flight for _ in crowd.clients]
    said = [0] * len(crowd.clients)
    heard = [0] * len(crowd.clients)
    going = True

    def say(client: Client, at: float) -> None:
        index = client.index
        number = said[index]
        said[index] = number + 1
        sent_at[index][number % in_flight] = at
        client.send(message(client, number))

    def hear(client: Client, data: bytes, start: int, end: int) -> None:
        if data.find(mark, start, end) < 0:
            _is_error(tally, data, start, end)
            return
        at = now()
        index = client.index
        number = heard[index]
        heard[index] = number + 1
        tally.count += 1
        tally.latencies.append(at - sent_at[index][number % in_flight])
        if going:
            say(client, at)

    crowd.listen(hear)
    for client in crowd.clients:
        for _ in range(in_flight):
            say(client, now())
    result = await tally.run(server, crowd, seconds)
    going = False
    await _drain(lambda: tally.count)
    crowd.be_deaf()
    return result


async def _drain(count: Callable[[], int]) -> None:
    """Return when nothing more comes, so that the next round begins on a quiet server."""
    last = -1
    while count() != last:
        last = count()
        await asyncio.sleep(0.05)

"""`python -m bench.attacks`: what one attacker at a time costs twenty honest clients, and how it fares itself.

Attacker and victims share the last core, on which the attacker gives way, and the broker has the others. What sharing
costs by itself is the row `nobody`, whose attacker computes and leaves the broker alone.
"""

import argparse
import asyncio
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import uvloop

from bench.foes import FOES, QUIET, Fate
from bench.frames import frame
from bench.load import Client, Crowd
from bench.rows import request
from bench.servers import Server, broker, take_core
from bench.tokens import SECRET, token_of

_CONFIG = Path(__file__).with_name("attacked.yaml")
_VICTIMS = 20
_ECHOES = 400.0
"""Echoes a second of all victims."""
_TURNS = 8.0
"""Turns a second of all victims."""
_CALM = 2.0
_LOOK = 0.05
_MIB = 1 << 20
_SLOWEST = 20.0
"""Milliseconds that a victim's p99 may reach."""
_SOONEST = 2.0
"""Seconds within which an attacker is to be closed."""
_PATIENCE = 8.0
"""The same for one that only time gives away: until it missed a heartbeat, or its handshake took too long."""


@attrs.define
class Felt:
    """What the victims felt for a while: seconds from asking to the answer.

    Attributes:
        echoes: of echoes.
        turns: from the request to start a turn to its end, as its session shows it.
        lost: what was asked and not answered.
    """

    echoes: list[float] = attrs.field(factory=list)
    turns: list[float] = attrs.field(factory=list)
    lost: int = 0


class Victims:
    """Honest clients that echo and take turns at a steady pace, whatever happens.

    Args:
        crowd: their connections.
    """

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._sessions: list[str] = []
        self._asked: dict[str, float] = {}
        self._number = 0
        self._felt = Felt()

    async def begin(self) -> None:
        """Give each of them a session."""
        answers = await self._crowd.ask(lambda _: request("begin", "session.create"))
        self._sessions = [json.loads(answer)["data"]["session_id"] for answer in answers]
        self._crowd.listen(self._hear)

    async def feel(self, seconds: float) -> Felt:
        """Go on for a while, and return what was felt."""
        self._felt = felt = Felt()
        end = time.monotonic() + seconds
        await asyncio.gather(self._go_on(_ECHOES, end, self._echo), self._go_on(_TURNS, end, self._turn))
        for _ in range(100):
            if not self._asked:
                break
            await asyncio.sleep(_LOOK)
        felt.lost = len(self._asked)
        self._asked.clear()
        return felt

    async def _go_on(self, rate: float, end: float, ask: Callable[[], None]) -> None:
        due = time.monotonic()
        while due < end:
            ask()
            due += 1 / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    def _echo(self) -> None:
        self._number += 1
        client = self._crowd.clients[self._number % _VICTIMS]
        self._send(client, f"e{self._number}", request(f"e{self._number}", "echo", text="how long?"))

    def _turn(self) -> None:
        self._number += 1
        client = self._crowd.clients[self._number % _VICTIMS]
        session, said = self._sessions[client.index], f"t{self._number}"
        body = request("", "turn.start", session_id=session, client_msg_id=said, content="one two three")
        self._send(client, f"s{client.index}", body)

    def _send(self, client: Client, key: str, text: str) -> None:
        self._asked.setdefault(key, time.perf_counter())
        client.send(frame(text.encode()))

    def _hear(self, client: Client, data: bytes, start: int, end: int) -> None:
        at = time.perf_counter()
        message = json.loads(data[start:end])
        if message.get("event") == "turn.ended":
            asked = self._asked.pop(f"s{client.index}", None)
            if asked is not None:
                self._felt.turns.append(at - asked)
        elif message["type"] == "response" and message["id"].startswith("e"):
            asked = self._asked.pop(message["id"], None)
            if asked is not None:
                self._felt.echoes.append(at - asked)
        elif message["type"] == "error":
            print(f"a victim was refused: {message['data']}", file=sys.stderr)


@attrs.frozen
class Result:
    """One attack.

    Attributes:
        name: the attacker's.
        before: what the victims felt without it.
        during: what they felt with it.
        memory: the broker's bytes before, at most during, and after it.
        fate: how the attacker fared.
    """

    name: str
    before: Felt
    during: Felt
    memory: tuple[int, int, int]
    fate: Fate

    def cells(self) -> list[str]:
        """Return the row of the table."""
        first, most, after = self.memory
        ends = ", ".join(f"{how} x {times}" if times > 1 else how for how, times in self.fate.ends.items())
        return [
            self.name,
            *(f"{_part(felt.echoes, part):.2f}" for part in (0.5, 0.99) for felt in (self.before, self.during)),
            *(f"{_part(felt.turns, 0.99):.1f}" for felt in (self.before, self.during)),
            str(self.during.lost),
            *(f"{size / _MIB:.1f}" for size in (first, most - first, after - first)),
            ends,
            "" if self.fate.first is None else f"{self.fate.first:.2f}",
            self._verdict(),
        ]

    def _verdict(self) -> str:
        if _part(self.during.echoes, 0.99) > _SLOWEST or self.during.lost:
            return "slow"
        late = self.fate.first is None or self.fate.first > (_PATIENCE if self.name in QUIET else _SOONEST)
        return "late" if late and self.name != "nobody" else "met"


_HEADS = [
    *("attacker", "p50 ms", "during", "p99 ms", "during", "turn p99", "during", "lost"),
    *("MiB", "more", "kept", "how its connections ended", "first, s", ""),
]


def _part(values: list[float], part: float) -> float:
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * part), len(ordered) - 1)] * 1e3


@asynccontextmanager
async def _attacked_broker(folder: Path) -> AsyncIterator[tuple[Server, Victims]]:
    with broker(folder, _CONFIG) as server:
        async with Crowd(server.port, _VICTIMS, greeted=True, token=token_of) as crowd:
            victims = Victims(crowd)
            await victims.begin()
            await victims.feel(1.0)  # warms up whatever does
            yield server, victims
            crowd.check()


async def _attack(name: str, folder: Path, seconds: float) -> Result:
    async with _attacked_broker(folder) as (server, victims):
        before = await victims.feel(_CALM)
        first = server.memory()
        command = (sys.executable, "-m", "bench.foes", name, str(server.port), str(seconds))
        environment = {**os.environ, "BENCH_SECRET": SECRET}
        foe = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, env=environment)
        try:
            async with asyncio.timeout(seconds + 20):
                await foe.stdout.readline()  # type: ignore[union-attr] - a pipe, as was asked for
                during, most = await asyncio.gather(victims.feel(seconds), _highest(server, seconds))
                said, _ = await foe.communicate()
        finally:
            if foe.returncode is None:
                foe.kill()
        await victims.feel(1.0)
        return Result(name, before, during, (first, most, server.memory()), Fate(**json.loads(said)))


async def _highest(server: Server, seconds: float) -> int:
    most, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        most = max(most, server.memory())
        await asyncio.sleep(_LOOK)
    return most


def _table(results: Iterable[Result]) -> str:
    rows = [_HEADS, *(result.cells() for result in results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS))]
    rows.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


async def _run(names: list[str], folder: Path, seconds: float) -> list[Result]:
    results = []
    for name in names:
        print(f"attacking with {name} ...", file=sys.stderr)
        results.append(await _attack(name, folder, seconds * 2 if name in QUIET else seconds))
    return results


def main() -> None:
    """Attack and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.attacks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="attacker", help=f"of {', '.join(FOES)}; all if none is named")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each attack (5); quiet ones take twice as long")
    parser.add_argument("--dir", type=Path, default=None, help="where databases go")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in FOES]:
        parser.error(f"no such attacker: {', '.join(unknown)}; there are {', '.join(FOES)}")
    take_core()
    with (
        tempfile.TemporaryDirectory(prefix="broker-attacks-", dir=options.dir) as folder,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        results = runner.run(_run(options.names or list(FOES), Path(folder), options.seconds))
    print(_table(results))
    print(
        f"\nPython {platform.python_version()}, {os.cpu_count()} cores; {_VICTIMS} victims, {options.seconds:g} s each"
    )


if __name__ == "__main__":
    main()

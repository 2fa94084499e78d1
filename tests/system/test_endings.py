"""Every accepted turn ends, exactly once and in time, whatever its agent, the broker or the clients do (P4-P6)."""

import asyncio
import os
import random
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from signal import SIGKILL
from types import ModuleType
from typing import Any

import attrs
import psutil
import pytest

UNRULY = Path(__file__).with_name("scripts") / "unruly.py"
SEED = int(os.environ.get("ENDINGS_SEED", "20261121"))
DEADLINES = {"start": "20s", "stalled": "500ms", "idle": "1500ms", "queue": "5m", "settle": "50ms"}
WEIGHTS = {
    "fine": 36,
    "garbage": 10,
    "double": 10,
    "drop": 12,
    "die": 9,
    "vanish": 8,
    "hang": 5,
    "mute": 4,
    "deaf": 2,
    "stubborn": 4,
}
TO_CANCEL = ("deaf ", "stubborn ")
KINDS = ("acp", "dialled", "workers")
STUCK_SECONDS = 1.0

Dial = Callable[..., Awaitable[Any]]


@attrs.define(eq=False)
class Nurse:
    """Keeps the agents that the broker does not start going: those that died or hang are replaced.

    Attributes:
        commands: what each of them is started as.
        deaths: how many had to be replaced.
    """

    commands: dict[str, list[str]]
    deaths: int = 0
    _patients: dict[str, subprocess.Popen[bytes]] = attrs.Factory(dict)
    _stuck: dict[str, float] = attrs.Factory(dict)

    async def watch(self) -> None:
        """Go round until cancelled."""
        while True:
            for name in self.commands:
                self._visit(name)
            await asyncio.sleep(0.05)  # processes that stop tell nobody

    def _visit(self, name: str) -> None:
        patient = self._patients.get(name)
        if patient is not None and patient.poll() is None:
            if psutil.Process(patient.pid).status() != psutil.STATUS_STOPPED:
                self._stuck.pop(name, None)
            elif time.monotonic() - self._stuck.setdefault(name, time.monotonic()) > STUCK_SECONDS:
                patient.kill()
            return
        if patient is not None:
            self.deaths += 1
        self._patients[name] = subprocess.Popen(
            [sys.executable, UNRULY, *self.commands[name]], stdout=subprocess.DEVNULL
        )

    def end(self) -> None:
        """Let nobody live on."""
        for patient in self._patients.values():
            patient.kill()
            patient.wait(10)


@attrs.define(eq=False)
class Ward:
    """A broker with agents of every kind, its clients, and what is written down of it all."""

    broker: Any
    dial: Dial
    history: Any
    oracle: Any
    nurse: Nurse
    random: random.Random
    kinds: tuple[str, ...] = KINDS
    weights: dict[str, int] = attrs.field(factory=WEIGHTS.copy)
    clients: list[Any] = attrs.Factory(list)
    sessions: list[str] = attrs.Factory(list)
    turns: int = 0

    async def open(self, workers: ModuleType, *, turns: int, sessions: int, clients: int) -> None:
        """Start the broker, make so many sessions of each kind, and share the turns out to the clients."""
        await asyncio.to_thread(self.broker.start)
        for name in ("worker", "colleague"):
            self.nurse.commands[name] = ["worker", f"ws://127.0.0.1:{self.broker.port}/agent", "workers"]
        maker = await self.dial(self.broker.port)
        for kind in self.kinds:
            for i in range(sessions):
                self.sessions.append(f"{kind}-{i}")
                await maker.do("session.create", session_id=self.sessions[-1], agent=kind)
        await maker.leave()
        plans = self._plans(turns)
        for i in range(clients):
            own = self.sessions[i::clients]
            watched = [*own, *self.sessions[(i + 1) % clients :: clients]]
            share = [plan for plan in plans if plan[0] in own]
            evidence, seed = self.history.Evidence(f"client{i}"), self.random.getrandbits(32)
            acked, port = self.history.Acked, self.broker.port
            self.clients.append(workers.Planner(evidence, acked, port, watched, share, self._to_cancel, seed))
        self.turns = turns

    def _plans(self, turns: int) -> list[tuple[str, str, str]]:
        faults = self.random.choices(list(self.weights), list(self.weights.values()), k=turns)
        plans = []
        for i, fault in enumerate(faults):
            session_id = self.sessions[i % len(self.sessions)]
            plans.append((session_id, f"k{i}", f"{fault} {self.random.randint(4, 30)} k{i}"))
        return plans

    @staticmethod
    def _to_cancel(content: str) -> bool:
        return content.startswith(TO_CANCEL)

    async def go_through(self, kills: int) -> None:
        """Play all turns, and kill the broker so often on the way."""
        watching = asyncio.ensure_future(self.nurse.watch())
        playing = [asyncio.ensure_future(client.run(asyncio.Event())) for client in self.clients]
        try:
            for i in range(kills):
                await self._started((i + 1) * self.turns // (kills + 1), playing)
                self.broker.end(SIGKILL)
                since = time.time()
                await asyncio.to_thread(self.broker.start)
                self.oracle.gone.append((since, time.time()))
            await asyncio.gather(*playing)
        finally:
            for task in (watching, *playing):
                task.cancel()
            await asyncio.gather(watching, *playing, return_exceptions=True)

    async def _started(self, count: int, playing: list[asyncio.Future[None]]) -> None:
        while sum(client.progress for client in self.clients) < count:
            done, _ = await asyncio.wait(playing, timeout=0.01, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()

    async def read_back(self) -> dict[str, list[str]]:
        """Return every log as a client that attaches now is shown it."""
        client = await self.dial(self.broker.port)
        logs = {}
        for session_id in self.sessions:
            await client.do("session.attach", session_id=session_id)
            logs[f"session:{session_id}"] = [record.text for record in await client.records("session.caught_up")][:-1]
            await client.do("session.detach", session_id=session_id)
        await client.leave()
        return logs

    async def verdict(self) -> list[str]:
        """Return every complaint, about the logs and about what each client saw."""
        logs = await self.read_back()
        for client in self.clients:
            heads = {log: len(logs[log]) for log in client.evidence.views}
            await client.see_all(heads)
        return self.complaints(logs)

    async def judge(self) -> None:
        """Fail with every complaint, if there is any."""
        found = await self.verdict()
        assert not found, "\n".join(found)

    def complaints(self, logs: dict[str, list[str]]) -> list[str]:
        """Return the checker's and the oracle's complaints."""
        evidence = [client.evidence for client in self.clients]
        found: list[str] = self.history.complaints(logs, evidence, self.oracle.judge)
        return found

    def outcomes(self) -> Counter[str]:
        """How often each outcome was shown, by the agent that it came from."""
        seen: Counter[str] = Counter()
        for log, view in {log: view for client in self.clients for log, view in client.evidence.views.items()}.items():
            for _, text in view:
                if '"event":"turn.ended"' in text:
                    seen[text.split('"outcome":"')[1].split('"')[0]] += 1
                    seen[log.split(":")[1].split("-")[0]] += 1
        return seen


@pytest.fixture
def ward(make_broker: Callable[..., Any], dial: Dial, history: Any, oracle: Any) -> Iterator[Ward]:
    """A ward with a broker that is not started yet."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"deadlines": DEADLINES}
    agents = {
        "acp": {"kind": "acp", "command": [sys.executable, str(UNRULY), "acp"], **common},
        "dialled": {"kind": "websocket", "url": f"ws://127.0.0.1:{port}/", "reattach": "3s", **common},
        "workers": {"kind": "worker", "reattach": "1s", **common},
    }
    nurse = Nurse({"server": ["server", str(port)]})
    limits = oracle.Limits(start=20, idle=1.5, queue=300)
    yield Ward(
        make_broker(agents=agents, default_agent="acp"),
        dial,
        history,
        oracle.Oracle(limits, frozenset({"acp"})),
        nurse,
        random.Random(SEED),
    )
    nurse.end()


def survivors() -> list[int]:
    """Return the processes of ACP agents that are still there."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if [str(UNRULY), "acp"] == (process.info["cmdline"] or [])[-2:]
    ]


@pytest.mark.timeout(110)
async def test_sixty_unruly_turns_end_once_and_in_time(ward: Ward, workers: ModuleType) -> None:
    await ward.open(workers, turns=60, sessions=4, clients=3)
    await ward.go_through(kills=2)
    await ward.judge()
    outcomes = ward.outcomes()
    assert outcomes["completed"] >= 15, outcomes
    assert {"lost", "timed_out", "cancelled"} <= outcomes.keys()
    assert sum(outcomes[kind] for kind in KINDS) == 60
    assert ward.broker.end() == 0


@pytest.mark.chaos
@pytest.mark.timeout(900)
async def test_a_thousand_unruly_turns_end_once_and_in_time(ward: Ward, workers: ModuleType) -> None:
    before = set(survivors())
    await ward.open(workers, turns=1000, sessions=12, clients=6)
    await ward.go_through(kills=5)
    await ward.judge()
    outcomes = ward.outcomes()
    assert outcomes["completed"] >= 300, outcomes
    assert sum(outcomes[kind] for kind in KINDS) == 1000
    assert ward.nurse.deaths > 20
    assert ward.broker.end() == 0
    assert set(survivors()) <= before


SECOND_END = """INSERT INTO records SELECT r.log, l.head + 1, r.at, r.kind, r.turn_id, r.author, r.data
    FROM records r JOIN logs l ON l.id = r.log WHERE r.kind = 'turn.ended' ORDER BY r.log, r.seq LIMIT 1;
    UPDATE logs SET head = head + 1 WHERE id = (SELECT min(log) FROM records WHERE kind = 'turn.ended')"""
NO_END = """CREATE TEMP TABLE victim AS SELECT log, seq FROM records r JOIN logs l ON l.id = r.log
    WHERE r.kind = 'turn.ended' AND r.seq = l.head LIMIT 1;
    DELETE FROM records WHERE (log, seq) IN (SELECT log, seq FROM victim);
    UPDATE logs SET head = head - 1 WHERE id = (SELECT log FROM victim)"""
LATE = """UPDATE records SET at = at + 60000 WHERE (log, seq) IN (SELECT log, max(seq) FROM records
    WHERE kind = 'turn.ended' GROUP BY log LIMIT 1)"""
FALSE_END = """UPDATE records SET data = CAST(replace(CAST(data AS TEXT), 'completed', 'cancelled') AS BLOB)
    WHERE (log, seq) IN (SELECT log, seq FROM records WHERE kind = 'turn.ended' LIMIT 1)"""


@pytest.mark.timeout(60)
async def test_the_oracle_notices_a_second_end_a_lost_end_a_late_end_and_a_false_one(
    ward: Ward, workers: ModuleType
) -> None:
    ward.kinds, ward.weights = ("acp",), {"fine": 1}
    await ward.open(workers, turns=6, sessions=2, clients=2)
    await ward.go_through(kills=0)
    await ward.judge()
    ward.broker.end(SIGKILL)
    expected = {
        SECOND_END: "2 records turn.ended",
        NO_END: "0 records turn.ended",
        LATE: "s after its deadline",
        FALSE_END: "ended cancelled",
    }
    for fault in ward.broker.suffer(expected):
        found = ward.complaints(await ward.read_back())
        assert any(expected[fault] in text for text in found), (expected[fault], found)

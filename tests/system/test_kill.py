"""`kill -9` and power cuts under load: everything that was acknowledged is there once, in order (PROTOCOL P1-P5)."""

import asyncio
import os
import random
import shutil
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from signal import SIGKILL
from typing import Any

import attrs
import pytest

Dial = Callable[..., Awaitable[Any]]
Make = Callable[..., Any]
Disk = Callable[[Path], AbstractContextManager[Any]]

SETTINGS = {
    "agents": {"echo": {"kind": "echo"}, "slow": {"kind": "echo", "delay": "3ms"}},
    "rooms": {"history": 1_000_000},
    "heartbeat": {"interval": "60s", "timeout": "30s"},
}
SESSIONS = {"first": "echo", "second": "slow", "third": "slow"}
ROOM = "harbour"


@attrs.define
class Scene:
    """A broker, and those who work with it."""

    broker: Any
    dial: Dial
    history: Any
    random: random.Random
    workers: list[Any] = attrs.Factory(list)
    _working: list[asyncio.Future[None]] = attrs.Factory(list)

    async def open(self, module: Any, count: int) -> None:
        """Start the broker, make the sessions, and hire workers."""
        self.broker.start()
        client = await self.dial(self.broker.port)
        for session_id, agent in SESSIONS.items():
            await client.do("session.create", session_id=session_id, agent=agent)
        await client.leave()
        for number in range(count):
            evidence = self.history.Evidence(f"worker{number}")
            seed = self.random.getrandbits(32)
            acked = self.history.Acked
            self.workers.append(module.Worker(evidence, acked, self.broker.port, list(SESSIONS), ROOM, seed))

    async def work(self, lives: int, die: Callable[[], None], least: int = 25) -> None:
        """Have them work while the broker dies so often, each time after a random while."""
        stop = asyncio.Event()
        self._working = [asyncio.ensure_future(worker.run(stop)) for worker in self.workers]
        try:
            for _ in range(lives):
                await self.progress(self.random.randint(least, 4 * least))
                await asyncio.sleep(self.random.random() * 0.05)  # any moment is as good
                die()
                await asyncio.to_thread(self.broker.start)
            await self.progress(least)
            stop.set()
            async with asyncio.timeout(60):
                await asyncio.gather(*self._working)
        finally:
            for task in self._working:
                task.cancel()

    async def progress(self, steps: int) -> None:
        """Return when so much more has been done by all together."""
        goal = sum(worker.progress for worker in self.workers) + steps
        async with asyncio.timeout(60):
            while sum(worker.progress for worker in self.workers) < goal:
                done, _ = await asyncio.wait(self._working, timeout=0.002, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()  # none is done before it is told to stop, unless it failed

    async def read_back(self) -> dict[str, list[str]]:
        """Return every log's texts once all turns have ended, as a client that attaches now is shown them."""
        client = await self.dial(self.broker.port)
        logs: dict[str, list[str]] = {}
        for session_id in SESSIONS:
            await client.do("session.attach", session_id=session_id)
            taken = await client.records("session.caught_up")
            texts = [record.text for record in taken[:-1]]
            ended = sum(record["event"] == "turn.ended" for record in taken)
            asked = sum(record["event"] == "user.message" for record in taken)
            while ended < asked:
                record = await client.take(lambda message: "seq" in message)
                texts.append(record.text)
                ended += record["event"] == "turn.ended"
            logs[f"session:{session_id}"] = texts
            await client.do("session.detach", session_id=session_id)
        head = (await client.do("room.join", room=ROOM, after_seq=0))["head"]
        logs[f"room:{ROOM}"] = [(await client.event("room.event")).text for _ in range(head)]
        await client.leave()
        return logs

    async def verdict(self) -> list[str]:
        """Return the checker's complaints about all that was done and shown."""
        logs = await self.read_back()
        await asyncio.gather(
            *(worker.see_all({log: len(texts) for log, texts in logs.items()}) for worker in self.workers)
        )
        complaints: list[str] = self.history.complaints(logs, [worker.evidence for worker in self.workers])
        return complaints

    def shown(self, words: str) -> int:
        """How many of the records that a worker was shown hold these words."""
        views = self.workers[0].evidence.views.values()
        return sum(words in text for view in views for _, text in view)

    @property
    def acknowledged(self) -> int:
        """How many acknowledgements there were."""
        return sum(len(worker.evidence.acked) for worker in self.workers)


@pytest.fixture
def scene(make_broker: Make, dial: Dial, history: Any) -> Scene:
    """A scene whose seed is printed, and may be given as KILL_SEED."""
    seed = int(os.environ.get("KILL_SEED", random.SystemRandom().getrandbits(32)))
    print(f"KILL_SEED={seed}")  # noqa: T201 - pytest shows it with a failure
    return Scene(make_broker(**SETTINGS), dial, history, random.Random(seed))


def kill(scene: Scene) -> Callable[[], None]:
    """Return what kills the broker."""
    return lambda: scene.broker.end(SIGKILL) and None


# -- kill -9 -----------------------------------------------------------------------------------------


async def test_nothing_acknowledged_is_lost_when_the_broker_is_killed_under_load(scene: Scene, workers: Any) -> None:
    await scene.open(workers, 4)
    await scene.work(3, kill(scene))
    assert await scene.verdict() == []
    assert scene.acknowledged > 50
    assert all(worker.connected >= 4 for worker in scene.workers)


@pytest.mark.chaos
@pytest.mark.timeout(600)
async def test_twenty_kills_under_load_lose_nothing(scene: Scene, workers: Any) -> None:
    await scene.open(workers, 8)
    await scene.work(20, kill(scene), least=100)
    assert await scene.verdict() == []
    assert scene.acknowledged > 2000
    assert scene.shown('"outcome":"lost"') > 0  # some deaths came in the middle of turns
    assert scene.shown('"outcome":"completed"') > 500


# -- power cuts --------------------------------------------------------------------------------------


class Mains:
    """The disk that a broker writes to, and a new one with what survived after each cut."""

    def __init__(self, scene: Scene, mount: Disk, folder: Path, stack: ExitStack) -> None:
        self._scene = scene
        self._mount = mount
        self._folder = folder
        self._stack = stack
        self._cuts = 0
        self._disk = self._plug_in()

    def cut(self) -> None:
        """Cut the power, and give the broker that comes next what survived."""
        survived = self._disk.cut()
        self._scene.broker.end(SIGKILL)
        self._cuts += 1
        self._disk = self._plug_in()
        for file in survived.iterdir():
            shutil.copyfile(file, self._disk.path / file.name)
            with (self._disk.path / file.name).open("rb+") as copy:
                os.fsync(copy.fileno())
        directory = os.open(self._disk.path, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)

    def _plug_in(self) -> Any:
        disk = self._stack.enter_context(self._mount(self._folder / f"disk-{self._cuts}"))
        self._scene.broker.settings["store"] = {"url": f"sqlite:///{disk.path}/broker.db"}
        return disk


async def test_nothing_acknowledged_is_lost_when_the_power_is_cut_under_load(
    scene: Scene, workers: Any, power_cut_disk: Disk, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        mains = Mains(scene, power_cut_disk, tmp_path, stack)
        await scene.open(workers, 3)
        await scene.work(2, mains.cut)
        assert await scene.verdict() == []
        assert scene.broker.end() == 0
    assert scene.acknowledged > 40


@pytest.mark.chaos
@pytest.mark.timeout(600)
async def test_ten_power_cuts_under_load_lose_nothing(
    scene: Scene, workers: Any, power_cut_disk: Disk, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        mains = Mains(scene, power_cut_disk, tmp_path, stack)
        await scene.open(workers, 6)
        await scene.work(10, mains.cut, least=60)
        assert await scene.verdict() == []
        assert scene.broker.end() == 0


# -- the checker is no rubber stamp ------------------------------------------------------------------

LOSS = """DELETE FROM records WHERE (log, seq) = (SELECT log, seq FROM records WHERE kind = 'user.message'
    AND seq > 2 ORDER BY seq DESC LIMIT 1)"""
DOUBLE = """INSERT INTO records SELECT r.log, l.head + 1, r.at, r.kind, r.turn_id, r.author, r.data
    FROM records r JOIN logs l ON l.id = r.log WHERE l.name = 'room:harbour' AND r.seq = 3;
    UPDATE logs SET head = head + 1 WHERE name = 'room:harbour'"""
REORDER = """CREATE TEMP TABLE pair AS SELECT r.* FROM records r JOIN logs l ON l.id = r.log
    WHERE l.name = 'room:harbour' AND r.seq IN (3, 4);
    UPDATE records SET data = (SELECT data FROM pair WHERE pair.seq = 7 - records.seq)
    WHERE (log, seq) IN (SELECT log, seq FROM pair)"""
SECOND_END = """INSERT INTO records SELECT r.log, l.head + 1, r.at, r.kind, r.turn_id, r.author, r.data
    FROM records r JOIN logs l ON l.id = r.log WHERE r.kind = 'turn.ended' AND l.name = 'session:first'
    ORDER BY r.seq LIMIT 1;
    UPDATE logs SET head = head + 1 WHERE name = 'session:first'"""
TAIL = """DELETE FROM records WHERE (log, seq) IN (SELECT id, head FROM logs WHERE name = 'room:harbour');
    UPDATE logs SET head = head - 1 WHERE name = 'room:harbour'"""


async def test_the_checker_notices_a_loss_a_double_and_a_reorder(scene: Scene, workers: Any, tmp_path: Path) -> None:
    await scene.open(workers, 2)
    await scene.work(0, kill(scene), least=60)
    assert await scene.verdict() == []
    scene.broker.end(SIGKILL)
    evidence = [worker.evidence for worker in scene.workers]
    expected = {
        LOSS: "was acknowledged and is gone",
        DOUBLE: "is there 2 times",
        REORDER: "was acknowledged as",
        SECOND_END: "2 records turn.ended",
        TAIL: "was acknowledged and is gone",
    }
    for fault in scene.broker.suffer(expected):
        found = scene.history.complaints(await scene.read_back(), evidence)
        assert any(expected[fault] in text for text in found), (expected[fault], found)

"""What the tests of the pool share: agents and sessions without sockets, and time that stands still."""

import json
from collections import Counter
from typing import Any

import attrs
import pytest

from broker.agents.port import Opening
from broker.agents.remote.frames import Hello, Running
from broker.agents.remote.member import Member
from broker.agents.remote.pool import Pool
from broker.messages import (
    AgentEvent,
    Prompt,
)
from broker.testing import ManualClock

REATTACH = 30.0


class Far:
    """An agent's end of a link: what it was told, and what it says."""

    heartbeat = 15.0

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.paused = False
        self.closed: int | None = None
        self.full = False
        self.on_room = lambda: None
        self.errors: Counter[str] = Counter()
        self.member: Member

    def send(self, frame: bytes) -> None:
        self.told.append(json.loads(frame))

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def close(self, code: int, reason: str) -> None:
        self.closed = code

    def heard(self) -> list[tuple[str, Any]]:
        """Return the kinds and the data of what it was told since the last time, but not the welcome."""
        told, self.told = self.told, []
        return [(frame["type"], frame["data"]) for frame in told if frame["type"] != "welcome"]

    def turns(self) -> list[str]:
        """Return the turns that it was given since the last time."""
        return [data["turn_id"] for kind, data in self.heard() if kind == "turn_start"]

    def say(self, kind: str, /, **data: Any) -> None:
        self.member.feed(json.dumps({"type": kind, "id": "f1", "data": data}).encode())

    def says(self, kind: str, project: Any, data: str | bytes = b"{}", frame_id: Any = "f1") -> None:
        """Say something of a project, whose data is given as JSON."""
        raw = data if isinstance(data, bytes) else data.encode()
        head = json.dumps({"type": kind, "id": frame_id, "projectGuid": project}).encode()
        self.member.feed(b'%b,"data":%b}' % (head[:-1], raw))

    def refused(self) -> str:
        """Return the code with which its last frame was refused; it was told nothing else."""
        ((kind, data),) = self.heard()
        assert kind == "error"
        code: str = data["code"]
        return code


@attrs.define
class Session:
    """A session's end of a line, and all that it hears."""

    session_id: str
    line: Any
    heard: list[AgentEvent]

    def start(self, turn_id: str, content: str = "hi") -> None:
        self.line.start_turn(Prompt(self.session_id, turn_id, json.dumps(content).encode(), workspace_dir="/w"))

    def news(self) -> list[AgentEvent]:
        news, self.heard[:] = list(self.heard), []
        return news


class Floor:
    """A pool with its sessions and agents."""

    def __init__(self, reattach: float = REATTACH) -> None:
        self.clock = ManualClock()
        self.pool = Pool(reattach=reattach, clock=self.clock)
        self.capacities: list[int] = []
        self.pool.on_capacity = lambda: self.capacities.append(self.pool.capacity or 0)

    def agent(self, *running: Running, capacity: int = 1, instance: str | None = "i", origin: str = "") -> Far:
        far = Far()
        hello = Hello("coder", "1", capacity, instance, running)
        far.member = self.pool.join(hello, far, origin=origin)
        return far

    def session(self, session_id: str = "s1") -> Session:
        heard: list[AgentEvent] = []
        return Session(session_id, self.pool.open(Opening(session_id, "/w"), heard.append), heard)

    def drop(self, far: Far, *, clean: bool = False) -> None:
        self.pool.leave(far.member, "the connection broke", clean=clean)

    def started(self, **about: Any) -> tuple[Far, Session]:
        """Return an agent with one turn, `t1` of session `s1`."""
        far, session = self.agent(**about), self.session()
        session.start("t1")
        far.heard()
        return far, session


@pytest.fixture
def floor() -> Floor:
    """A pool without anybody."""
    return Floor()


@pytest.fixture
def impatient() -> Floor:
    """A pool whose turns wait for nobody."""
    return Floor(reattach=0)

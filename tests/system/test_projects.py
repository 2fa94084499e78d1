"""The data flows of seed 002, sections 5.1 to 5.3, with an agents-server that is a process of its own."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from signal import SIGKILL
from subprocess import PIPE
from typing import Any
from urllib.request import Request, urlopen
from uuid import uuid4

import attrs
import pytest

PATIENCE = 30.0
SCRIPT = Path(__file__).parent / "scripts" / "agents_server.py"
BACKEND = {"connection_id": None, "user": None}
AGENT = {"connection_id": None, "user": None, "agent": "planner"}

Dial = Callable[..., Awaitable[Any]]
Make = Callable[..., Any]


@attrs.define
class AgentsServer:
    """A running agents-server."""

    process: subprocess.Popen[str]
    port: int = 0

    def line(self) -> Any:
        """Return the next line that it prints."""
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())

    async def heard(self, kind: str, project: str) -> Any:
        """Return the next frame of the broker's, which is to be of this kind and about this project."""
        async with asyncio.timeout(PATIENCE):
            frame = await asyncio.to_thread(self.line)
        assert (frame["type"], frame["projectGuid"]) == (kind, project), frame
        return frame

    def say(self, kind: str, project: str, data: Any) -> None:
        """Have it say something of a project."""
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"type": kind, "projectGuid": project, "data": data}) + "\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        """Kill it as a crash does."""
        with self.process:
            self.process.kill()


Run = Callable[..., AgentsServer]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Start agents-servers, on a port that is free or on the one that is given."""
    servers: list[AgentsServer] = []

    def start(port: int = 0) -> AgentsServer:
        command = [sys.executable, str(SCRIPT), str(port)]
        server = AgentsServer(subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True))
        servers.append(server)
        server.port = server.line()["port"]
        return server

    yield start
    for server in servers:
        if server.process.returncode is None:
            server.kill()


def settings_for(server: AgentsServer) -> dict[str, Any]:
    """Return the settings of a broker whose projects this agents-server serves."""
    planner = {"kind": "websocket", "url": f"ws://127.0.0.1:{server.port}/agents"}
    return {
        "agents": {"planner": planner},
        "default_agent": "planner",
        "projects": {"agent": "planner", "feedback": "20s"},
    }


@attrs.define
class Scene:
    """A broker, its agents-server, and two members of one project."""

    broker: Any
    server: AgentsServer
    ann: Any
    bob: Any
    project: str = attrs.field(factory=lambda: str(uuid4()))

    @property
    def room(self) -> str:
        return f"project:{self.project}"

    async def enter(self) -> "Scene":
        """Let both be members, and the broker reach the agents-server: until then it says that nobody is there."""
        for client in (self.ann, self.bob):
            await client.do("room.join", room=self.room)
        hello = {"project": self.project, "data": "are you there"}
        async with asyncio.timeout(PATIENCE):
            while (await self.ann.ask("project.feedback", hello))["type"] == "error":
                pass
        assert (await self.heard("user_feedback"))["data"] == "are you there"
        return self

    async def heard(self, kind: str) -> Any:
        return await self.server.heard(kind, self.project)

    async def both(self) -> Any:
        """Return the next event of the project, which both members are told alike."""
        event, other = await self.ann.event("room.event"), await self.bob.event("room.event")
        assert event.text == other.text
        return event

    async def publish(self, event: str, data: Any) -> None:
        """Publish as a back end does."""
        url = f"http://127.0.0.1:{self.broker.port}/api/v1/rooms/{self.room}/events"
        body = json.dumps({"event": event, "data": data}).encode()
        request = Request(url, body, {"Content-Type": "application/json"})
        assert await asyncio.to_thread(lambda: urlopen(request, timeout=PATIENCE).status) == 201


@pytest.fixture(scope="module")
def stage(serve: Make, run: Run) -> tuple[Any, AgentsServer]:
    """A broker and its agents-server, for all tests that leave them alive."""
    server = run()
    return serve(**settings_for(server)), server


@pytest.fixture
async def scene(stage: tuple[Any, AgentsServer], dial: Dial) -> Scene:
    broker, server = stage
    return await Scene(broker, server, await dial(broker.port), await dial(broker.port)).enter()


@pytest.fixture
async def own_scene(make_broker: Make, run: Run, dial: Dial) -> Scene:
    """One whose broker and agents-server may be killed."""
    server = run()
    broker = make_broker(**settings_for(server))
    broker.start()
    return await Scene(broker, server, await dial(broker.port), await dial(broker.port)).enter()


async def test_5_1_a_stage_update_goes_from_the_back_end_to_the_members_and_the_agents_server(scene: Scene) -> None:
    await scene.publish("project_stage_update", {"stage": "design", "progress": 40})
    event = await scene.both()
    assert (event["room"], event["from"]) == (scene.room, BACKEND)
    assert event["data"] == {"event": "project_stage_update", "data": {"stage": "design", "progress": 40}}
    update = await scene.heard("project_update")
    assert update["data"] == {"event": "project_stage_update", "seq": 1, "from": BACKEND} | event["data"]
    assert (update["id"], update["timestamp"]) == (f"{scene.project}:1", event["at"])


async def test_5_2_a_message_goes_to_the_members_and_the_agents_server_whoever_writes_it(scene: Scene) -> None:
    await scene.publish("project_message", {"text": "from the back end"})
    await scene.ann.do("room.publish", room=scene.room, event="project_message", data={"text": "from ann"})
    told = [(await scene.both())["data"]["data"]["text"] for _ in range(2)]
    heard = [(await scene.heard("project_update"))["data"]["data"]["text"] for _ in range(2)]
    assert told == heard == ["from the back end", "from ann"]


async def test_5_3_what_an_agent_says_goes_to_the_members(scene: Scene) -> None:
    said = [("agent_message", {"text": "I begin."}), ("project_stage_update", 1), ("project_status_change", "busy")]
    for kind, data in said:
        scene.server.say(kind, scene.project, data)
    for kind, data in said:
        event = await scene.both()
        assert (event["data"], event["from"]) == ({"event": kind, "data": data}, AGENT)
    await scene.publish("project_message", "barrier")
    await scene.heard("project_update")  # of its own words it was told nothing before


async def test_5_3_feedback_goes_to_the_agent_and_its_answer_to_the_sender_alone(scene: Scene) -> None:
    data = {"rating": 5, "text": "更快一点"}
    answer = await scene.ann.do("project.feedback", project=scene.project, data=data, feedback_id="f1")
    assert answer == {"project": scene.project, "feedback_id": "f1", "data": {"heard": data}}
    heard = await scene.heard("user_feedback")
    assert (heard["id"], heard["data"]) == ("f1", data)
    assert heard["from"] == {"connection_id": scene.ann.welcome["connection_id"], "user": None}
    await scene.bob.silent()
    await scene.ann.silent()
    assert (await scene.bob.do("room.history", room=scene.room))["events"] == []


async def test_an_agents_server_that_dies_over_feedback_is_an_error_and_one_that_comes_back_is_told_the_status(
    own_scene: Scene, run: Run
) -> None:
    await own_scene.publish("project_status_change", {"status": "running"})
    await own_scene.heard("project_status_sync")
    asking = asyncio.ensure_future(own_scene.ann.refused("project.feedback", project=own_scene.project, data="wait"))
    await own_scene.heard("user_feedback")
    own_scene.server.kill()
    refused = await asking
    assert (refused["code"], refused["retryable"]) == ("agent_unavailable", True)
    await own_scene.publish("project_status_change", {"status": "stopped"})
    again = run(own_scene.server.port)
    sync = await again.heard("project_status_sync", own_scene.project)
    assert sync["data"]["data"] == {"status": "stopped"}
    answer = await own_scene.ann.do("project.feedback", project=own_scene.project, data="once more")
    assert answer["data"] == {"heard": "once more"}


async def test_a_broker_that_is_killed_knows_the_status_when_the_members_are_back(own_scene: Scene, dial: Dial) -> None:
    await own_scene.publish("project_status_change", {"status": "running"})
    await own_scene.heard("project_status_sync")
    await asyncio.to_thread(own_scene.broker.end, SIGKILL)
    await asyncio.to_thread(own_scene.broker.start)
    client = await dial(own_scene.broker.port)
    await client.do("room.join", room=own_scene.room)
    sync = await own_scene.heard("project_status_sync")
    assert sync["data"]["data"] == {"status": "running"}

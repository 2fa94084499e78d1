"""An agent that does what the prompt says, the bad things too, attached in any of three ways.

`unruly.py acp`: the Agent Client Protocol on stdin and stdout; one prompt at a time.
`unruly.py server PORT`: an agents-server that the broker dials, `agents.v1.json`.
`unruly.py worker URL NAME`: a worker that dials the broker, `agents.v1.json`.

A prompt is `FAULT COUNT KEY`. Its whole answer is the COUNT words `KEY.0 KEY.1 ...`, each with a space behind it;
FAULT says what goes wrong on the way. Nothing of the broker is imported here.
"""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from websockets.asyncio.client import connect
from websockets.asyncio.connection import Connection
from websockets.asyncio.server import serve
from websockets.exceptions import WebSocketException

PAUSE = 0.005
"""Between two words."""
DEAF = 12.0
STUBBORN = 4.0
"""Seconds, both longer than the broker waits after a cancel."""
REDIAL = 0.05
CAPACITY = 4
PROTOCOL = "agents.v1.json"
NOISE = ["", "null", "[1, 2", '{"half": ', '"\\ud800"', "Loading the model ... 100%", '{"jsonrpc": "2.0"}', "{}" * 50]


class Stage:
    """Where one turn is played: how its agent speaks, is stopped and goes away."""

    def __init__(self) -> None:
        self.cancelled = asyncio.Event()

    def say(self, text: str) -> None:
        raise NotImplementedError

    def settle(self, reason: str) -> None:
        raise NotImplementedError

    def noise(self) -> None:
        raise NotImplementedError

    async def vanish(self) -> None:
        raise NotImplementedError

    async def drop(self) -> None:
        """Lose the line and come back to the same turn, where the protocol has a way to."""


async def play(prompt: str, stage: Stage) -> None:
    """Do what a prompt says."""
    fault, count, key = prompt.split()
    words = [f"{key}.{i} " for i in range(int(count))]
    half = len(words) // 2
    for i, word in enumerate(words):
        if i == half and fault in MIDWAY:
            await MIDWAY[fault](stage, word)
        if stage.cancelled.is_set() and fault != "stubborn":
            stage.settle("cancelled")
            return
        stage.say(word)
        if fault == "garbage":
            stage.noise()
        await asyncio.sleep(PAUSE)
    stage.settle("end_turn")
    if fault == "double":
        stage.settle("end_turn")
        stage.say("as I said")


async def _die(_: Stage, __: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def _hang(_: Stage, __: str) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


async def _vanish(stage: Stage, _: str) -> None:
    await stage.vanish()
    await asyncio.Event().wait()


async def _drop(stage: Stage, _: str) -> None:
    await stage.drop()


async def _mute(stage: Stage, _: str) -> None:
    """Say nothing any more, but stop when told to."""
    await stage.cancelled.wait()


async def _deaf(stage: Stage, _: str) -> None:
    """Hear the cancel, and care about it only long after everybody has given up."""
    await stage.cancelled.wait()
    await asyncio.sleep(DEAF)


async def _stubborn(stage: Stage, _: str) -> None:
    """Take the cancel as a reason to say yet more."""
    await stage.cancelled.wait()
    for _ in range(round(STUBBORN / PAUSE)):
        stage.say("no ")
        await asyncio.sleep(PAUSE)


MIDWAY = {
    "die": _die,
    "hang": _hang,
    "vanish": _vanish,
    "drop": _drop,
    "mute": _mute,
    "deaf": _deaf,
    "stubborn": _stubborn,
}


# -- the Agent Client Protocol -----------------------------------------------------------------------


def write(**frame: Any) -> None:
    with contextlib.suppress(OSError):
        os.write(1, json.dumps({"jsonrpc": "2.0", **frame}).encode() + b"\n")


class AcpStage(Stage):
    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def say(self, text: str) -> None:
        chunk = {"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": text}}
        write(method="session/update", params={"sessionId": "s", "update": chunk})

    def settle(self, reason: str) -> None:
        write(id=self.number, result={"stopReason": reason})

    def noise(self) -> None:
        os.write(1, NOISE[time.monotonic_ns() % len(NOISE)].encode() + b"\n\xff\n")

    async def vanish(self) -> None:
        os.close(1)


async def speak_acp() -> None:
    reader = asyncio.StreamReader(limit=1 << 24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    stage, playing = AcpStage(0), set()
    async for line in reader:
        frame = json.loads(line)
        match frame.get("method"):
            case "initialize":
                write(id=frame["id"], result={"protocolVersion": 1})
            case "session/new":
                write(id=frame["id"], result={"sessionId": "s"})
            case "session/prompt":
                stage = AcpStage(frame["id"])
                task = asyncio.ensure_future(play(frame["params"]["prompt"][0]["text"], stage))
                playing.add(task)
                task.add_done_callback(playing.discard)
            case "session/cancel":
                stage.cancelled.set()


# -- agents.v1.json ----------------------------------------------------------------------------------


class SocketStage(Stage):
    """One turn over a socket that may be another one tomorrow.

    Attributes:
        frames: all that was said of it, numbered from 1; said again from where the broker asks.
        held: whether the line was lost, so that nothing is said until the broker asks.
    """

    def __init__(self, house: "House", turn_id: str) -> None:
        super().__init__()
        self.house = house
        self.turn_id = turn_id
        self.frames: list[dict[str, Any]] = []
        self.held = False

    def _add(self, kind: str, **data: Any) -> None:
        data = {"turn_id": self.turn_id, "seq": len(self.frames) + 1, **data}
        self.frames.append({"type": kind, "data": data})
        if not self.held:
            self.house.send(self.frames[-1])

    def resume(self, after: int) -> None:
        self.held = False
        for frame in self.frames[after:]:
            self.house.send(frame)

    def accept(self) -> None:
        self._add("turn_accepted")

    def say(self, text: str) -> None:
        self._add("delta", text=text)

    def settle(self, reason: str) -> None:
        self._add("turn_end", stop_reason=reason)
        self.house.stages.pop(self.turn_id, None)

    def noise(self) -> None:
        word = NOISE[time.monotonic_ns() % len(NOISE)]
        self.house.send({"type": "weather", "data": {"turn_id": self.turn_id, "sky": word}})
        self.house.send({"type": "delta", "data": {"turn_id": "nobody's", "seq": 1, "text": word}})

    async def vanish(self) -> None:
        self.house.stages.pop(self.turn_id, None)
        self.house.cut()

    async def drop(self) -> None:
        self.house.cut()


class House:
    """All turns of one process, over one socket at a time."""

    def __init__(self, agent: str) -> None:
        self.agent = agent
        self.stages: dict[str, SocketStage] = {}
        self._socket: Connection | None = None
        self._numbers = itertools.count(1)
        self._playing: set[asyncio.Future[None]] = set()
        self._outbox: asyncio.Queue[str] = asyncio.Queue()

    def send(self, frame: dict[str, Any]) -> None:
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._outbox.put_nowait(json.dumps({**frame, "id": f"f{next(self._numbers)}", "timestamp": at}))

    def cut(self) -> None:
        for stage in self.stages.values():
            stage.held = True
        if self._socket is not None:
            self._socket.transport.abort()

    async def serve(self, socket: Connection) -> None:
        """Live on this socket until it ends."""
        self._socket, self._outbox = socket, asyncio.Queue()
        for stage in self.stages.values():
            stage.held = True
        turns = [{"turn_id": stage.turn_id, "seq": len(stage.frames)} for stage in self.stages.values()]
        instance = f"{self.agent}-{os.getpid()}"
        hello = {"agent": self.agent, "version": "1", "capacity": CAPACITY, "instance": instance, "turns": turns}
        self.send({"type": "hello", "data": hello})
        writing = asyncio.ensure_future(self._write(socket, self._outbox))
        try:
            async for text in socket:
                self._hear(json.loads(text))
        except WebSocketException:
            pass
        finally:
            writing.cancel()

    async def _write(self, socket: Connection, outbox: "asyncio.Queue[str]") -> None:
        with contextlib.suppress(WebSocketException, OSError):
            while True:
                await socket.send(await outbox.get())

    def _hear(self, frame: dict[str, Any]) -> None:
        data = frame.get("data") or {}
        stage = self.stages.get(data.get("turn_id", ""))
        match frame["type"]:
            case "turn_start":
                stage = self.stages[data["turn_id"]] = SocketStage(self, data["turn_id"])
                stage.accept()
                task = asyncio.ensure_future(play(data["content"], stage))
                self._playing.add(task)
                task.add_done_callback(self._playing.discard)
            case "turn_cancel" if stage:
                stage.cancelled.set()
            case "turn_resume" if stage:
                stage.resume(data["seq"])
            case "ping":
                self.send({"type": "pong", "data": {}})


async def be_server(port: int) -> None:
    house = House("server")
    async with serve(house.serve, "127.0.0.1", port, subprotocols=[PROTOCOL], ping_interval=None):  # type: ignore[list-item]
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


async def be_worker(url: str, name: str) -> None:
    house = House(name)
    while True:
        with contextlib.suppress(OSError, WebSocketException, TimeoutError):
            async with connect(url, subprotocols=[PROTOCOL], ping_interval=None, close_timeout=1) as socket:  # type: ignore[list-item]
                await house.serve(socket)
        await asyncio.sleep(REDIAL)


ROLES: dict[str, Callable[..., Any]] = {
    "acp": speak_acp,
    "server": lambda port: be_server(int(port)),
    "worker": be_worker,
}

if __name__ == "__main__":
    role, *arguments = sys.argv[1:]
    asyncio.run(ROLES[role](*arguments))

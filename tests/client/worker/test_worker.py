"""A worker as a program: how many turns at once, how it stops, what it drags in, and the example of the README."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from broker.client import Refused, Turn, Worker

Door = Any
Linked = Any
Serving = Any
EXAMPLE = Path(__file__).parents[3] / "examples" / "worker.py"
STUCK = Path(__file__).parent / "scripts" / "stuck_worker.py"
END = ("turn_end", "turn_error")


async def silent(turn: Turn) -> None:
    await turn.say("begun")
    await asyncio.Event().wait()


async def test_turns_run_at_the_same_time_up_to_the_capacity(linked: Linked) -> None:
    visit = await linked(silent, capacity=2)
    assert visit.hello["capacity"] == 2
    for turn_id in ("t1", "t2"):
        await visit.start(turn_id=turn_id)
        await visit.until("delta")
    (refusal,) = await visit.answer(turn_id="t3")
    assert refusal["data"] == {
        "turn_id": "t3",
        "code": "unavailable",
        "message": "The worker has as many turns as it can take.",
        "retryable": True,
    }
    await visit.send("turn_cancel", turn_id="t1")
    await visit.until("turn_end")
    await visit.start(turn_id="t3")
    assert (await visit.until("delta"))[0]["type"] == "turn_accepted"


async def test_a_turn_that_is_started_twice_is_one(linked: Linked) -> None:
    visit = await linked(silent, capacity=2)
    await visit.start()
    await visit.start()
    frames = await visit.until("delta")
    await visit.send("ping")
    frames += await visit.until("pong")
    assert [frame["type"] for frame in frames] == ["turn_accepted", "delta", "pong"]


async def test_asked_to_stop_it_says_so_lets_turns_end_and_leaves(linked: Linked) -> None:
    stop, gate = asyncio.Event(), asyncio.Event()

    async def answer(turn: Turn) -> AsyncIterator[str]:
        yield "begun"
        await gate.wait()

    visit = await linked(answer, capacity=2, stop=stop, grace=1000)
    await visit.start()
    await visit.until("delta")
    stop.set()
    await visit.next("drain")
    (refusal,) = await visit.answer(turn_id="t2")
    assert refusal["data"]["message"] == "The worker is stopping."
    assert refusal["data"]["retryable"]
    gate.set()
    assert (await visit.until(*END))[-1]["type"] == "turn_end"
    assert (await visit.left())[0] == 1001


async def test_a_turn_that_outlasts_the_grace_ends_as_failed(linked: Linked) -> None:
    stop = asyncio.Event()
    visit = await linked(silent, stop=stop, grace=0)
    await visit.start()
    await visit.until("delta")
    stop.set()
    error = (await visit.until(*END))[-1]["data"]
    assert (error["code"], error["message"], error["retryable"]) == ("unavailable", "The worker was stopped.", True)
    assert (await visit.left())[0] == 1001


async def test_asked_to_stop_without_a_link_and_with_a_turn_it_comes_back_to_end_it(
    door: Door, serving: Serving
) -> None:
    stop, gate = asyncio.Event(), asyncio.Event()

    class Agent(Worker):
        agent = "shout"

        async def answer(self, turn: Turn) -> AsyncIterator[str]:
            yield "begun"
            await gate.wait()

    task = serving(Agent(), door.url, stop=stop, grace=1000)
    visit = await door.greet()
    await visit.start()
    await visit.until("delta")
    stop.set()
    await visit.next("drain")
    visit.drop()
    again = await door.greet()
    await again.next("drain")
    await again.send("turn_resume", turn_id="t1", seq=2)
    gate.set()
    await again.until("turn_end")
    await again.left()
    await task


async def test_to_cancel_it_is_to_stop_at_once(door: Door, serving: Serving) -> None:
    class Agent(Worker):
        agent = "shout"
        answer = staticmethod(silent)

    task = serving(Agent(), door.url)
    visit = await door.greet()
    await visit.start()
    await visit.until("delta")
    task.cancel()
    assert (await visit.until(*END))[-1]["data"]["message"] == "The worker was stopped."
    assert (await visit.left())[0] == 1001
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_sent_away_by_the_broker_it_ends_its_turns(door: Door, serving: Serving) -> None:
    """What they still have to say waits for nobody."""
    ended = asyncio.Event()

    class Agent(Worker):
        agent = "shout"

        async def answer(self, turn: Turn) -> None:
            await turn.say("begun")
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await self.part(turn)

        async def part(self, turn: Turn) -> None:
            try:
                while True:
                    await turn.say("good-bye")
            finally:
                ended.set()

    task = serving(Agent(), door.url)
    visit = await door.greet()
    await visit.start()
    await visit.until("delta")
    await visit.close(4510, "disconnected by an operator")
    with pytest.raises(Refused, match="4510"):
        await task
    async with asyncio.timeout(20):
        await ended.wait()


async def test_two_workers_of_one_class_are_two(door: Door, serving: Serving) -> None:
    class Agent(Worker):
        agent = "shout"
        answer = staticmethod(silent)

    for _ in range(2):
        serving(Agent(), door.url)
    assert (await door.greet()).hello["instance"] != (await door.greet()).hello["instance"]


class Nameless(Worker):
    pass


class Greedy(Worker):
    agent = "shout"
    capacity = 0


@pytest.mark.parametrize(
    ("worker", "options", "told"),
    [
        (Nameless, {}, r"Nameless\.agent has to name the profile that it serves"),
        (Greedy, {}, r"Greedy\.capacity has to be 1 to 10000"),
        (Nameless, {"token": "a", "get_token": lambda: "b"}, "give one"),
    ],
)
async def test_what_is_wrong_with_a_worker_is_told_before_anything_else(
    worker: type[Worker], options: dict[str, Any], told: str
) -> None:
    made = worker()
    if options:
        made.agent = "shout"
    with pytest.raises(ValueError, match=told):
        await made.serve("ws://127.0.0.1:1/agent", **options)


async def test_a_worker_without_an_answer_says_what_it_lacks(door: Door, serving: Serving) -> None:
    class Agent(Worker):
        agent = "shout"

    serving(Agent(), door.url)
    (_, error) = await (await door.greet()).answer()
    assert error["data"]["message"] == "NotImplementedError: Agent needs a method: async def answer(self, turn)"


# -- as a process -----------------------------------------------------------------------------------


def test_importing_it_brings_nothing_of_the_server() -> None:
    script = "import sys, broker.client, broker.client.api; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    modules = set(done.stdout.split())
    assert {"broker.client.worker", "broker.client.connection"} <= modules
    heavy = {
        "pykka",
        "ruamel",
        "sqlite3",
        "loguru",
        "cattrs",
        "click",
        "uvloop",
        "prometheus_client",
        "anthropic",
        "rich",
    }
    assert {name.split(".")[0] for name in modules} & heavy == set()
    ours = {name for name in modules if name.startswith("broker.") and not name.startswith("broker.client")}
    parts = {
        "broker.clock",
        "broker.errors",
        "broker.ids",
        "broker.nearby",
        "broker.projects",
        "broker.protocol",
        "broker.protocol.edge",
    }
    assert ours == parts


def test_the_example_is_twelve_lines() -> None:
    assert len(EXAMPLE.read_text().splitlines()) == 12


class Program:
    """A worker as a process of its own."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *arguments], cwd=folder, stderr=subprocess.PIPE, text=True, env={**os.environ}
        )

    async def says(self, words: str) -> None:
        """Read what it writes, up to a line with these words."""
        assert self.process.stderr is not None
        while words not in (line := await asyncio.to_thread(self.process.stderr.readline)):
            assert line, "it has ended"

    async def end(self) -> tuple[int, str]:
        """Return its exit code and what it has written."""
        _, errors = await asyncio.to_thread(self.process.communicate, timeout=20)
        return self.process.returncode, errors


@pytest.fixture
async def program(tmp_path: Path) -> AsyncIterator[Any]:
    """Start a program by its arguments; one that still runs at the end is killed."""
    started: list[Program] = []

    def start(*arguments: str) -> Program:
        started.append(Program(tmp_path, *arguments))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        await asyncio.to_thread(one.process.wait)
        if one.process.stderr is not None:
            one.process.stderr.close()


@pytest.fixture
def example(door: Door, program: Any, tmp_path: Path) -> Any:
    """Start the example of the README, as it is but for where its broker is."""

    def start(change: str = "") -> Program:
        text = EXAMPLE.read_text()
        assert '"ws://127.0.0.1:3000/agent"' in text
        text = text.replace('"ws://127.0.0.1:3000/agent"', f"{door.url!r}, grace=1000")
        (tmp_path / "worker.py").write_text(text.replace("yield", change + "yield"))
        started: Program = program("worker.py")
        return started

    return start


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
async def test_the_example_answers_and_stops_when_told(door: Door, example: Any, how: signal.Signals) -> None:
    one = example()
    visit = await door.greet()
    assert visit.hello["agent"] == "shout"
    frames = await visit.answer("hello you")
    assert "".join(frame["data"].get("text", "") for frame in frames) == "HELLO YOU "
    one.process.send_signal(how)
    assert (await visit.left())[0] == 1001
    code, errors = await one.end()
    assert code == 0, errors
    assert "linked to ws://127.0.0.1" in errors
    assert "Traceback" not in errors


async def test_a_second_signal_does_not_wait(door: Door, example: Any) -> None:
    one = example(change="await __import__('asyncio').sleep(600); ")
    visit = await door.greet()
    await visit.start()
    await visit.until("turn_accepted")
    one.process.send_signal(signal.SIGTERM)
    await visit.next("drain")
    one.process.send_signal(signal.SIGTERM)
    assert (await visit.until(*END))[-1]["data"]["message"] == "The worker was stopped."
    await visit.left()
    code, errors = await one.end()
    assert code == 0, errors


@pytest.mark.parametrize("how", ["block", "swallow"])
async def test_an_answer_that_does_not_end_is_told_as_failed_and_does_not_keep_the_process(
    door: Door, program: Any, how: str
) -> None:
    one = program(str(STUCK), door.url, "0.1")
    visit = await door.greet()
    await visit.start(how)
    await visit.until("turn_accepted")
    one.process.send_signal(signal.SIGTERM)
    assert (await visit.until(*END))[-1]["data"]["message"] == "The worker was stopped."
    assert (await visit.left())[0] == 1001
    code, errors = await one.end()
    assert code == 0, errors
    assert "the process ends without them" in errors


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_after_the_farewell_ends_the_process_at_once(
    door: Door, program: Any, how: signal.Signals
) -> None:
    one = program(str(STUCK), door.url, "1000")
    visit = await door.greet()
    await visit.start("block")
    await visit.until("turn_accepted")
    one.process.send_signal(how)
    await visit.left()
    await one.says("the worker has left")
    one.process.send_signal(how)
    code, errors = await one.end()
    assert code == -how, errors


async def test_refused_with_an_answer_that_does_not_end_it_still_ends_with_the_reason(door: Door, program: Any) -> None:
    one = program(str(STUCK), door.url, "0.1")
    visit = await door.greet()
    await visit.start("swallow")
    await visit.until("turn_accepted")
    await visit.close(4503, "forbidden")
    code, errors = await one.end()
    assert code == 1
    assert errors.strip().splitlines()[-1].endswith("Refused: the broker closed with 4503 (forbidden)")


async def test_a_worker_that_is_refused_ends_with_the_reason(door: Door, example: Any) -> None:
    one = example()
    await (await door.visit()).close(4503, "forbidden")
    code, errors = await one.end()
    assert code == 1
    assert errors.strip().splitlines()[-1].endswith("Refused: the broker closed with 4503 (forbidden)")

"""Real worker processes at a real broker's door: they answer, die, leave, and come back (PROTOCOL section 4)."""

import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any

import pytest

PATIENCE = 30.0
EXAMPLE = Path(__file__).parents[2] / "examples" / "worker.py"
CAREFUL = Path(__file__).parent / "scripts" / "careful_worker.py"
DOOR = "ws://127.0.0.1:3000/agent"
AGENTS = {"shout": {"kind": "worker", "reattach": "500ms"}}

Dial = Callable[..., Awaitable[Any]]
Make = Callable[..., Any]
Hire = Callable[[Path], subprocess.Popen[bytes]]


@pytest.fixture
def broker(make_broker: Make) -> Any:
    """A broker with one profile, which workers serve."""
    broker = make_broker(agents=AGENTS, default_agent="shout")
    broker.start()
    return broker


@pytest.fixture
def hire(broker: Any, tmp_path: Path) -> Iterator[Hire]:
    """Start a program as a worker of the broker; those that still run at the end are killed."""
    hired: list[subprocess.Popen[bytes]] = []

    def start(program: Path) -> subprocess.Popen[bytes]:
        url = f"ws://127.0.0.1:{broker.port}/agent"
        text = program.read_text()
        assert (DOOR in text) == (program == EXAMPLE)
        copy = tmp_path / program.name  # the example as it is, but for the port
        copy.write_text(text.replace(DOOR, url))
        hired.append(subprocess.Popen([sys.executable, copy, url], stderr=subprocess.DEVNULL))
        return hired[-1]

    yield start
    for process in hired:
        process.kill()
        process.wait(PATIENCE)


async def ask(client: Any, session_id: str, content: str) -> str:
    """Start a turn and return its id."""
    turn = await client.do("turn.start", session_id=session_id, client_msg_id=content, content=content)
    return str(turn["turn_id"])


async def begin(client: Any, content: str) -> tuple[str, str]:
    """Return a new session and its first turn."""
    session_id = str((await client.do("session.create"))["session_id"])
    return session_id, await ask(client, session_id, content)


async def answered(client: Any, turn_id: str) -> tuple[str, str]:
    """Return how a turn ended, and all that was said in it."""
    ended = await client.take(lambda message: message.get("event") == "turn.ended" and message["turn_id"] == turn_id)
    deltas = [m for m in client.heard if m.get("event") == "message.delta" and m["turn_id"] == turn_id]
    return ended["data"]["outcome"], "".join(delta["data"]["text"] for delta in deltas)


async def agree(client: Any, session_id: str) -> None:
    """Answer the question that the careful worker asks."""
    asked = (await client.event("approval.requested"))["data"]
    await client.do("approval.answer", session_id=session_id, approval_id=asked["approval_id"], option_id="yes")


async def test_the_example_answers(broker: Any, hire: Hire, dial: Dial) -> None:
    hire(EXAMPLE)
    client = await dial(broker.port)
    _, turn_id = await begin(client, "is anybody there")
    assert await answered(client, turn_id) == ("completed", "IS ANYBODY THERE ")


async def test_the_turn_of_a_worker_that_is_killed_is_lost_and_the_next_one_is_another_workers(
    broker: Any, hire: Hire, dial: Dial
) -> None:
    worker = hire(CAREFUL)
    client = await dial(broker.port)
    session_id, first = await begin(client, "one")
    await client.event("approval.requested")
    second = await ask(client, session_id, "two")
    worker.send_signal(SIGKILL)
    assert await answered(client, first) == ("lost", "one?")
    hire(EXAMPLE)
    assert await answered(client, second) == ("completed", "TWO ")


async def test_a_worker_that_is_asked_to_leave_ends_its_turn_first(broker: Any, hire: Hire, dial: Dial) -> None:
    worker = hire(CAREFUL)
    client = await dial(broker.port)
    session_id, first = await begin(client, "one")
    asked = (await client.event("approval.requested"))["data"]
    worker.send_signal(SIGTERM)
    await client.do("approval.answer", session_id=session_id, approval_id=asked["approval_id"], option_id="yes")
    assert await answered(client, first) == ("completed", "one? On I go.")
    assert worker.wait(PATIENCE) == 0
    second = await ask(client, session_id, "two")
    hire(EXAMPLE)
    assert await answered(client, second) == ("completed", "TWO ")


async def test_a_worker_comes_back_by_itself_to_a_broker_that_was_killed(broker: Any, hire: Hire, dial: Dial) -> None:
    """What it had in hand is over for the broker: it lets go of that, and takes the next turn."""
    worker = hire(CAREFUL)
    client = await dial(broker.port)
    session_id, first = await begin(client, "one")
    await client.event("approval.requested")
    broker.end(SIGKILL)
    broker.start()
    client = await dial(broker.port)
    await client.do("session.attach", session_id=session_id)
    assert (await answered(client, first))[0] == "lost"
    second = await ask(client, session_id, "two")
    await client.take(lambda message: message.get("event") == "approval.requested" and message["turn_id"] == first)
    await agree(client, session_id)
    assert await answered(client, second) == ("completed", "two? On I go.")
    assert worker.poll() is None


async def test_a_worker_is_told_what_was_said_before(broker: Any, hire: Hire, dial: Dial) -> None:
    hire(CAREFUL)
    client = await dial(broker.port)
    session_id, first = await begin(client, "one")
    await agree(client, session_id)
    await answered(client, first)
    outcome, said = await answered(client, await ask(client, session_id, "recall"))
    assert outcome == "completed"
    assert json.loads(said) == [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "one? On I go."},
    ]

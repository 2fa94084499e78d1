"""What the documentation of the client shows does what it says."""

import asyncio
import sys
from pathlib import Path

import broker.client
from broker.app import App

CHAT = Path(__file__).parents[2] / "examples" / "chat.py"


async def run(*command: str | Path, said: str = "") -> tuple[int | None, str, str]:
    """Run Python, and return its exit code and what it says."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdin=pipe, stdout=pipe, stderr=pipe)
    out, err = await process.communicate(said.encode())
    return process.returncode, out.decode(), err.decode()


async def test_the_program_of_the_package_runs_as_it_stands(app: App) -> None:
    assert broker.client.__doc__ is not None
    shown = broker.client.__doc__.partition("::\n")[2].partition("\nFor the HTTP API")[0]
    program = "\n".join(line.removeprefix("    ") for line in shown.splitlines())
    assert "ws://127.0.0.1:3000/ws" in program
    done = await run("-c", program.replace("127.0.0.1:3000", f"127.0.0.1:{app.port}"))
    assert done == (0, "Hello!completed\n", "")


async def test_the_example_chats_asks_and_comes_back(app: App) -> None:
    url = f"ws://127.0.0.1:{app.port}/ws"
    code, out, err = await run(CHAT, url, said="good morning\nand again\n\n")
    assert (code, err) == (0, "")
    first, *said = out.splitlines()
    assert said == ["good morning", "and again"]
    session_id = first.split()[1].rstrip(".")
    code, out, err = await run(CHAT, url, session_id, said="still there\n\n")
    assert (code, out.splitlines()[1:], err) == (0, ["still there"], "")
    code, out, err = await run(CHAT, "ws://127.0.0.1:1/ws")
    assert code == 1
    assert err.startswith("There is no broker at ws://127.0.0.1:1/ws: Connection refused.")


async def test_the_example_asks_what_the_agent_asks(app: App) -> None:
    from broker.client import connect

    async with connect(f"http://127.0.0.1:{app.port}") as client:
        session = await client.create_session(agent="faulty")
        url = f"http://127.0.0.1:{app.port}"
        code, out, err = await run(CHAT, url, session.id, said="/ask well done\n1\n\n")
        assert (code, err) == (0, "")
        assert "? " in out
        assert "well done" in out

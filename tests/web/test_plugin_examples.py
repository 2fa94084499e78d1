"""The examples of docs/plugins.md, each as it stands there, in a broker over real sockets."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from broker.app import App
from broker.hooks import TurnEnded
from broker.testing import until

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "plugins.md").read_text()

Dial = Callable[..., Awaitable[Any]]
Start = Callable[..., Awaitable[App]]
Get = Callable[..., Awaitable[tuple[int, Any, Any]]]


@pytest.fixture
def example(tmp_path: Path) -> Callable[[str], None]:
    """Put an example where drop-ins are."""

    def put(name: str) -> None:
        (tmp_path / "plugins").mkdir(exist_ok=True)
        (tmp_path / "plugins" / f"{name}.py").write_bytes((ROOT / "examples" / "plugins" / f"{name}.py").read_bytes())

    return put


async def test_who_follows_the_page_gets_the_answer_that_it_promises(tmp_path: Path, start: Start) -> None:
    section = DOCS[DOCS.index("## The first one") : DOCS.index("## Settings")]
    plugin, program = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (promised,) = re.findall(r"```json\n(.*?)```", section, re.DOTALL)
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "shout.py").write_text(plugin)
    app = await start(plugins={"shout": {}})
    (tmp_path / "ask.py").write_text(program.replace(":3000", f":{app.port}"))
    asking = await asyncio.create_subprocess_exec(
        sys.executable, tmp_path / "ask.py", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, complaints = await asyncio.wait_for(asking.communicate(), 30)
    assert complaints == b""
    welcome, answer = out.decode().splitlines()
    assert '"event":"welcome"' in welcome
    assert answer == promised.strip()


async def test_profanity_refuses_words_of_its_list_in_text_and_in_blocks(
    example: Callable[[str], None], start: Start, dial: Dial
) -> None:
    example("profanity")
    app = await start(plugins={"profanity": {"words": ["darn", "h*ck"], "message": "Not in this house."}})
    client = await dial(app.port)
    session_id = (await client.do("session.create"))["session_id"]
    bad: list[Any] = ["Darn!", "oh h*ck no", [{"type": "text", "text": "so"}, {"type": "text", "text": "darn it"}]]
    for content in bad:
        refused = await client.refused("turn.start", session_id=session_id, client_msg_id="1", content=content)
        assert (refused["code"], refused["message"]) == ("forbidden", "Not in this house.")
    fine = [{"type": "text", "text": "a darning needle"}]
    assert await client.do("turn.start", session_id=session_id, client_msg_id="2", content=fine)
    blocks = app.settings.plugins
    settings = app.plugins.check(app.settings)
    assert app.plugins.reload(blocks, settings) == []


@pytest.fixture
async def receiver() -> AsyncIterator[tuple[str, list[Any], asyncio.Event]]:
    """A service that takes a post at the second try; its URL, what it took, and when it did."""
    tried: list[Any] = []
    taken = asyncio.Event()

    async def take(request: web.Request) -> web.Response:
        tried.append((request.headers.get("Authorization"), await request.json()))
        if len(tried) == 1:
            return web.Response(status=503)
        taken.set()
        return web.Response()

    app = web.Application()
    app.router.add_post("/turns", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/turns", tried, taken
    await runner.cleanup()


async def test_the_webhook_tells_of_a_turn_and_tries_again(
    receiver: tuple[str, list[Any], asyncio.Event],
    example: Callable[[str], None],
    start: Start,
    dial: Dial,
    tmp_path: Path,
) -> None:
    url, tried, taken = receiver
    example("webhook")
    app = await start(plugins={"webhook": {"url": url, "token": "t0ken", "pause": "1ms"}})
    client = await dial(app.port)
    session_id = (await client.do("session.create"))["session_id"]
    turn = await client.do("turn.start", session_id=session_id, client_msg_id="1", content="hi")
    await asyncio.wait_for(taken.wait(), 20)
    assert tried[0] == tried[1]
    authorization, told = tried[1]
    assert authorization == "Bearer t0ken"
    assert (told["turn_id"], told["outcome"], told["agent"]) == (turn["turn_id"], "completed", "echo")


async def test_a_webhook_that_nobody_answers_costs_a_bounded_queue_and_says_so(
    example: Callable[[str], None], start: Start, get: Get
) -> None:
    example("webhook")
    app = await start(plugins={"webhook": {"url": "http://127.0.0.1:9/", "pause": "1h", "waiting": 2}})
    (webhook,) = app.plugins.instances
    assert (await get(app, "/readyz"))[0] == 200
    queue: asyncio.Queue[Any] = webhook.queue  # type: ignore[attr-defined]
    webhook.turn_ended(TurnEnded("s", "t0", "echo", "completed", 1.0))
    await until(queue.empty)  # it is tried now, and again after an hour
    for number in range(1, 9):
        webhook.turn_ended(TurnEnded("s", f"t{number}", "echo", "completed", 1.0))
    assert queue.qsize() == 2
    status, _, body = await get(app, "/readyz")
    assert status == 503
    assert "plugin webhook: its queue is full" in str(body)


async def test_the_board_takes_notes_tells_its_room_and_shows_them_to_backends(
    example: Callable[[str], None], people: dict[str, Any], start: Start, dial: Dial, get: Get
) -> None:
    example("board")
    app = await start(plugins={**people["plugins"], "board": {}})
    ann, bob = await dial(app.port, "?name=ann"), await dial(app.port, "?name=bob")
    await bob.do("room.join", room="board")
    assert await ann.do("board.put", text="thinking") == {"notes": 1}
    assert (await ann.refused("board.put", text="x" * 201))["field"] == "$.payload.text"
    event = (await bob.event("room.event"))["data"]
    assert event == {"event": "put", "data": {"user": "ann", "text": "thinking"}}
    assert (await get(app, "/board?name=ann"))[0] == 403
    shown = (await get(app, "/board?name=backend&scopes=api"))[2]
    assert shown == {"asked_by": "backend", "notes": [{"user": "ann", "text": "thinking"}]}
    await ann.leave()
    assert (await bob.event("room.event"))["data"]["event"] == "gone"
    assert (await get(app, "/board?name=backend&scopes=api"))[2]["notes"] == []

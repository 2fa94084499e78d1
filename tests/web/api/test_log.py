"""The newest lines of the log over HTTP: for administrators, and without an end that reading it would put off."""

import io
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from broker.app import App
from broker.logs import configure

Ask = Callable[..., Awaitable[Any]]
Dial = Callable[..., Awaitable[Any]]
Start = Callable[..., Awaitable[App]]


async def test_lines_are_followed_and_looked_for(app: App, ask: Ask, dial: Dial) -> None:
    app.keep_log()
    first = (await ask(app, "GET /log")).body
    client = await dial(app.port)
    found = (await ask(app, f"GET /log?after={first['next']}")).body
    (line,) = found["lines"]
    assert (line["level"], line["message"]) == ("info", "connected from 127.0.0.1 speaking broker.v1.json")
    assert line["extra"]["conn"] == client.welcome["connection_id"]
    assert (await ask(app, f"GET /log?after={found['next']}")).body == {"lines": [], "next": line["n"], "left_out": 0}
    named = (await ask(app, f"GET /log?contains={client.welcome['connection_id']}&limit=1")).body
    assert [one["n"] for one in named["lines"]] == [line["n"]]
    assert (await ask(app, "GET /log?level=error")).body["lines"] == []
    for wrong in ("level=loud", "after=-1", "limit=0", f"contains={'a' * 201}"):
        assert (await ask(app, f"GET /log?{wrong}")).status == 400


async def test_it_is_for_administrators(start: Start, people: dict[str, Any], ask: Ask) -> None:
    app = await start(**people)
    refused = await ask(app, "GET /log", who="name=backend&scopes=api")
    assert (refused.status, refused.body["code"]) == (403, "forbidden")
    assert (await ask(app, "GET /log", who="name=root&scopes=api+admin")).status == 200


async def test_reading_it_leaves_no_line_in_it(start: Start, ask: Ask) -> None:
    app = await start(log={"access": True})
    app.keep_log()
    await ask(app, "GET /stats")
    first = (await ask(app, "GET /log")).body
    assert "GET /api/v1/stats 200" in first["lines"][-1]["message"]
    for _ in range(3):
        assert (await ask(app, f"GET /log?after={first['next']}")).body["lines"] == []


async def test_it_goes_on_with_the_new_level_when_the_log_is_set_up_anew(start: Start, ask: Ask) -> None:
    written = io.StringIO()
    app = await start(log={"level": "warning"})
    app.keep_log()
    configure("debug", "json", written)
    app.keep_log()
    logging.getLogger("library").info("not severe enough")
    logging.getLogger("library").warning("severe enough")
    (line,) = (await ask(app, "GET /log")).body["lines"]
    assert (line["message"], line["logger"]) == ("severe enough", "library")
    assert "not severe enough" in written.getvalue()


async def test_what_a_secret_does_not_come_into_shows_none(start: Start, ask: Ask, dial: Dial) -> None:
    app = await start(log={"level": "debug", "access": True})
    app.keep_log()
    client = await dial(app.port)
    await client.refused("auth", token="S3CRET-TOKEN")
    await client.do("echo", password="S3CRET-TOKEN")
    assert (await ask(app, "GET /stats?token=S3CRET-TOKEN", Authorization="Bearer S3CRET-TOKEN")).status == 200
    assert "S3CRET-TOKEN" not in str((await ask(app, "GET /log")).body)

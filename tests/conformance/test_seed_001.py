"""A client of the second design (seed 001): `NewSession`, `Error`, and a session that ends with its connection."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

YAML = """
listen: {default_protocol: session.v1.json}
store: {url: "sqlite:///broker.db"}
log: {level: debug, format: json}
"""
DIRECT = "/ws"
NAMED = "/ws/session.v1.json"


@pytest.fixture(scope="module")
def broker(broker_process: Any) -> Any:
    return broker_process(YAML)


def outside(name: str, **data: Any) -> dict[str, Any]:
    return {name: data}


def inside(name: str, **data: Any) -> dict[str, Any]:
    return {"type": name, **data}


SPELLINGS = pytest.mark.parametrize("spell", [outside, inside])


def opened(message: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the type of a message and what it carries, however it is spelt."""
    if "type" in message:
        return message["type"], {key: value for key, value in message.items() if key != "type"}
    ((name, data),) = message.items()
    return name, data


async def make(client: Any, workspace: Any, spell: Any = outside) -> tuple[str, dict[str, Any]]:
    """Ask for a session."""
    await client.send(spell("NewSession", workspace_dir=str(workspace)))
    return opened(await client.take())


async def state_of(http: Any, broker: Any, session_id: str) -> str:
    async with http.get(f"{broker.url}/api/v1/sessions/{session_id}") as answer:
        return str((await answer.json())["state"])


def is_closed(http: Any, broker: Any, session: dict[str, Any]) -> Callable[[], Awaitable[bool]]:
    """Return what tells whether a session has ended."""

    async def closed() -> bool:
        return await state_of(http, broker, session["session_id"]) == "closed"

    return closed


# -- the exchange ----------------------------------------------------------------------------------


@SPELLINGS
@pytest.mark.parametrize("path", [DIRECT, NAMED])
async def test_a_session_is_made_for_a_directory(
    connect: Any, broker: Any, tmp_path: Path, spell: Any, path: str
) -> None:
    client = await connect(broker.url, path)
    await client.send(spell("NewSession", workspace_dir=str(tmp_path)))
    answer = await client.take()
    assert ("type" in answer) == (spell is inside)
    name, session = opened(answer)
    assert name == "NewSession"
    assert str(UUID(session["session_id"])) == session["session_id"]
    assert session["workspace_dir"] == str(tmp_path)
    assert datetime.fromisoformat(session["created_at"])


async def test_it_is_spoken_by_subprotocol_too(connect: Any, broker: Any, tmp_path: Path) -> None:
    client = await connect(broker.url, protocols=("session.v1.json",))
    assert client.socket.protocol == "session.v1.json"
    assert (await make(client, tmp_path))[0] == "NewSession"


async def test_nothing_is_said_before_the_client_speaks_nor_after_it_was_answered(
    connect: Any, broker: Any, tmp_path: Path
) -> None:
    client = await connect(broker.url)
    name, _ = await make(client, tmp_path)
    assert name == "NewSession"  # the first that it hears of all
    assert (await make(client, tmp_path))[0] == "Error"  # and the next is the next answer


async def test_the_connection_is_kept_for_what_comes(connect: Any, broker: Any, tmp_path: Path) -> None:
    client = await connect(broker.url)
    _, session = await make(client, tmp_path)
    await client.send(outside("Prompt", content="hi"))
    _, accepted = opened(await client.take(lambda message: "Prompt" in message))
    assert accepted["status"] in {"queued", "dispatching", "running"}
    while (update := opened(await client.take())[1])["kind"] != "turn.ended":
        assert update["session_id"] == session["session_id"]
    assert update["data"]["outcome"] == "completed"


# -- errors that end the connection ----------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["{", "", "[]", '"NewSession"', '{"NewSession": {}}', '{"NewSession": {"workspace_dir": 1}}']
)
async def test_what_cannot_be_parsed_is_told_so_and_ends_the_connection(connect: Any, broker: Any, text: str) -> None:
    client = await connect(broker.url)
    await client.send(text)
    name, error = opened(await client.take())
    assert (name, bool(error["message"])) == ("Error", True)
    assert await client.closed() == 1008


@SPELLINGS
async def test_an_unknown_type_is_told_so_and_ends_the_connection(connect: Any, broker: Any, spell: Any) -> None:
    client = await connect(broker.url)
    await client.send(spell("LoadSession", session_id="x"))
    answer = await client.take()
    assert ("type" in answer) == (spell is inside)
    name, error = opened(answer)
    assert (name, "LoadSession" in error["message"]) == ("Error", True)
    assert await client.closed() == 1008


# -- errors that do not ----------------------------------------------------------------------------


@SPELLINGS
async def test_a_missing_directory_is_an_error_and_the_connection_stays(
    connect: Any, broker: Any, tmp_path: Path, spell: Any
) -> None:
    client = await connect(broker.url)
    name, error = await make(client, tmp_path / "missing", spell)
    assert (name, bool(error["message"])) == ("Error", True)
    assert (await make(client, tmp_path, spell))[0] == "NewSession"


@SPELLINGS
async def test_a_second_session_is_an_error_and_the_first_goes_on(
    connect: Any, http: Any, broker: Any, tmp_path: Path, spell: Any
) -> None:
    client = await connect(broker.url)
    for _ in range(2):  # the second comes while the first is being made
        await client.send(spell("NewSession", workspace_dir=str(tmp_path)))
    answers = dict(opened(message) for message in await client.taking(2))
    assert "already" in answers["Error"]["message"]
    assert (await make(client, tmp_path, spell))[0] == "Error"
    assert await state_of(http, broker, answers["NewSession"]["session_id"]) == "open"


# -- the end ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["leave", "drop"])
async def test_a_session_ends_with_its_connection(
    connect: Any, http: Any, broker: Any, tmp_path: Path, how: str, eventually: Any
) -> None:
    client = await connect(broker.url)
    _, session = await make(client, tmp_path)
    assert await state_of(http, broker, session["session_id"]) == "open"
    ended = getattr(client, how)()
    if ended is not None:
        await ended
    await eventually(is_closed(http, broker, session))


async def test_a_connection_that_is_closed_for_an_error_takes_its_session_with_it(
    connect: Any, http: Any, broker: Any, tmp_path: Path, eventually: Any
) -> None:
    client = await connect(broker.url)
    _, session = await make(client, tmp_path)
    await client.send("rubbish")
    assert await client.closed() == 1008
    await eventually(is_closed(http, broker, session))


async def test_what_it_was_in_the_middle_of_is_cancelled(
    connect: Any, http: Any, broker_process: Any, tmp_path: Path, eventually: Any
) -> None:
    slow = broker_process(YAML + "agents: {echo: {kind: echo, delay: 1h}}\n")
    client = await connect(slow.url)
    _, session = await make(client, tmp_path)
    await client.send(outside("Prompt", content="one two three"))
    await client.take(lambda message: opened(message)[1].get("kind") == "turn.started")
    client.drop()

    async def outcomes() -> list[str]:
        async with http.get(f"{slow.url}/api/v1/sessions/{session['session_id']}/records") as answer:
            records = (await answer.json())["records"]
        return [record["data"]["outcome"] for record in records if record["event"] == "turn.ended"]

    await eventually(outcomes)
    assert await outcomes() == ["cancelled"]
    assert await is_closed(http, slow, session)()


async def test_connections_and_their_sessions_do_not_touch_each_other(
    connect: Any, http: Any, broker: Any, tmp_path: Path, eventually: Any
) -> None:
    clients = [await connect(broker.url) for _ in range(20)]
    made = await asyncio.gather(*(make(client, tmp_path) for client in clients))
    ids = [session["session_id"] for _, session in made]
    assert len(set(ids)) == 20
    for client in clients[1:]:
        client.drop()
    for _, session in made[1:]:
        await eventually(is_closed(http, broker, session))
    assert await state_of(http, broker, ids[0]) == "open"


async def test_errors_and_sessions_are_logged(connect: Any, broker: Any, tmp_path: Path) -> None:
    client = await connect(broker.url)
    _, session = await make(client, tmp_path)
    assert any(
        line["message"].startswith("session opened") and line.get("session") == session["session_id"]
        for line in map(json.loads, broker.log.splitlines())
    )
    assert re.search(r"speaking session\.v1\.json", broker.log)

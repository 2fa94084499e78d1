"""Seed 002 as its client: stages, messages, statuses and agents of projects, in `project.v1.json`."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import aiohttp
import jwt
import pytest
from aiohttp import ClientWebSocketResponse, WSMsgType

PATIENCE = 20.0
SECRET = "a secret of this test, of 32 bytes and more"
BACKEND = "the-key-of-the-backend-of-this-test-alone"
AGENTS = "the-key-of-the-agents-of-this-test-alone"
CONFIG = f"""
agents:
  echo: {{kind: echo}}
  planner: {{kind: worker}}
heartbeat: {{interval: 1s, timeout: 800ms}}
limits: {{message_bytes: 64KiB, errors_per_minute: 20}}
projects: {{agent: planner, feedback: 1500ms}}
plugins:
  rate_limit:
    messages: 100/s
    burst: 1
    user: {{messages: null}}
    address: {{requests: null}}
    actions: {{auth: 20/s}}
  auth:
    mode: jwt
    keys: [{{algorithm: HS256, secret: "{SECRET}"}}]
    first_message: 5s
    projects: []
    api_keys:
      backend: {{key: "{BACKEND}"}}
      agents: {{key: "{AGENTS}", scopes: [agent]}}
  content_filter: {{rules: [{{name: scripts, pattern: "(?i)<script", message: "No scripts."}}]}}
  metrics: {{}}
log: {{level: info, format: json}}
"""

OPEN = """
listen: {default_protocol: project.v1.json}
heartbeat: {interval: 500ms, timeout: 400ms, idle: 1s}
"""
"""A broker that knows its clients to speak nothing else, asks nobody who they are, and has nobody stay in silence."""

Connect = Callable[..., Awaitable[Any]]
Enter = Callable[..., Awaitable[Any]]
Message = dict[str, Any]


def token(user: str = "ann", *, seconds: float = 600, secret: str = SECRET, **claims: Any) -> str:
    """Return a JWT, as the service that knows the users makes it."""
    now = time.time()
    said = {"iss": "actor-broker", "aud": "actor-broker", "sub": user, "iat": int(now), "exp": int(now + seconds)}
    return jwt.encode({"projects": ["*"], **said, **claims}, secret, algorithm="HS256")


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


@pytest.fixture(scope="module")
def broker(broker_process: Any) -> Any:
    """The broker that all tests of this file talk to; each in projects of its own."""
    return broker_process(CONFIG)


@pytest.fixture
def enter(broker: Any, connect: Connect) -> Enter:
    """Connect as a client of this design: with a token of Ann's unless another one is given, or none."""

    async def open_client(shown: str | None = "", **options: Any) -> Any:
        headers = {} if shown is None else bearer(shown or token())
        return await connect(broker.url, protocols=["project.v1.json"], headers=headers, **options)

    return open_client


@pytest.fixture
def guid(request: pytest.FixtureRequest) -> str:
    """A project that no other test knows."""
    return f"guid-{abs(hash(request.node.nodeid)):x}"


def of(*kinds: str) -> Callable[[Message], bool]:
    """Tell messages of these types from others."""
    return lambda message: message["type"] in kinds


async def ask(client: Any, kind: str, project: str | None = None, data: Any = None, id_: str = "q") -> Message:
    """Send a message and return the one that answers it, by its id."""
    await client.say(type=kind, projectGuid=project, data=data, timestamp="2025-01-01T00:00:00Z", id=id_)
    answer: Message = await client.take(lambda message: message["id"] == id_)
    return answer


async def join(client: Any, project: str, **data: Any) -> Message:
    """Join a project, and return what the answer says."""
    answer = await ask(client, "join_project", project, data)
    assert answer["type"] == "join_project_response", answer
    said: Message = answer["data"]
    return said


async def refusal(client: Any, kind: str, project: str | None = None, data: Any = None) -> Message:
    """Have something tried that has to be refused, and return why it was."""
    answer = await ask(client, kind, project, data)
    assert answer["type"] == "error", answer
    why: Message = answer["data"]
    return why


async def silent(client: Any) -> None:
    """See that nothing came that was not asked for; a ping is the barrier."""
    assert (await ask(client, "ping", id_="barrier"))["type"] == "pong"
    assert client.heard == []


@pytest.fixture
def publish(broker: Any, http: aiohttp.ClientSession) -> Callable[..., Awaitable[Message]]:
    """Have the services behind the broker say something to a project, over HTTP."""

    async def post(project: str, event: str, data: Any) -> Message:
        url, body = f"{broker.url}/api/v1/rooms/project:{project}/events", {"event": event, "data": data}
        async with http.post(url, json=body, headers=bearer(BACKEND)) as answer:
            assert answer.status == 201, await answer.text()
            said: Message = await answer.json()
        return said

    return post


Publish = Callable[..., Awaitable[Message]]


class AgentsServer:
    """The agents-server's end of its link."""

    def __init__(self, socket: ClientWebSocketResponse) -> None:
        self.socket = socket

    async def say(self, kind: str, project: str | None = None, **data: Any) -> None:
        """Send a frame."""
        frame = {"type": kind, "id": f"{kind}-1", "projectGuid": project, "data": data, "timestamp": ""}
        await self.socket.send_json({name: value for name, value in frame.items() if value is not None})

    async def hear(self, kind: str, project: str | None = None) -> Message:
        """Return the next frame of this type, about this project if one is named."""
        async with asyncio.timeout(PATIENCE):
            while True:
                frame: Message = await self.socket.receive_json()
                if frame["type"] == kind and project in {None, frame.get("projectGuid")}:
                    return frame


@asynccontextmanager
async def linked(broker: Any, http: aiohttp.ClientSession) -> AsyncIterator[AgentsServer]:
    """Link an agents-server to the broker for as long as the block runs."""
    url, offer = f"{broker.url}/agent", ["agents.v1.json"]
    async with http.ws_connect(url, protocols=offer, headers=bearer(AGENTS)) as socket:
        server = AgentsServer(socket)
        await server.say("hello", agent="planner", version="1", capacity=2)
        await server.hear("welcome")
        yield server


@pytest.fixture
async def agents(broker: Any, http: aiohttp.ClientSession) -> AsyncIterator[AgentsServer]:
    """An agents-server that is there all the time."""
    async with linked(broker, http) as server:
        yield server


# -- 3.2.1 the life of a connection -------------------------------------------------------------------


async def test_a_client_connects_by_subprotocol_or_by_path_and_is_told_nothing_unasked(
    broker: Any, enter: Enter, connect: Connect
) -> None:
    by_offer = await enter()
    assert by_offer.socket.protocol == "project.v1.json"
    by_path = await connect(broker.url, "/ws/project.v1.json", headers=bearer(token()))
    for client in (by_offer, by_path):
        await silent(client)


async def test_every_message_of_the_server_has_the_fields_of_the_format(
    enter: Enter, publish: Publish, guid: str
) -> None:
    client = await enter()
    answers = [await ask(client, kind, guid) for kind in ("join_project", "ping", "user_feedback", "nonsense")]
    await publish(guid, "project_message", {"text": "hi"})
    for message in [*answers, await client.take(of("project_message"))]:
        assert message.keys() == {"type", "projectGuid", "data", "timestamp", "id"}
        assert message["projectGuid"] == guid
        assert datetime.fromisoformat(message["timestamp"]).tzinfo is not None
        assert message["timestamp"].endswith("Z")
        assert isinstance(message["id"], str)
        assert message["id"]


async def test_who_leaves_without_a_word_is_no_member_any_more(enter: Enter, guid: str) -> None:
    stays, goes, vanishes = [await enter() for _ in range(3)]
    for number, client in enumerate((stays, goes, vanishes), 1):
        assert len((await join(client, guid))["members"]) == number
    await goes.leave()
    vanishes.drop()
    async with asyncio.timeout(PATIENCE):
        while len((await join(stays, guid))["members"]) > 1:
            pass


async def test_what_is_no_json_or_ill_formed_is_an_error_and_the_connection_goes_on(enter: Enter, guid: str) -> None:
    client = await enter()
    for text, code, field in [
        ("{", "invalid_json", None),
        ("[]", "invalid_message", "$"),
        ('{"id":"a"}', "invalid_message", "$"),
        ('{"type":7}', "invalid_message", "$.type"),
        ('{"type":"ping","id":7}', "invalid_message", "$.id"),
        ('{"type":"ping","timestamp":7}', "invalid_message", "$.timestamp"),
        ('{"type":"join_project"}', "invalid_message", "$.projectGuid"),
        ('{"type":"join_project","projectGuid":""}', "invalid_message", "$.projectGuid"),
        ('{"type":"join_project","projectGuid":"p","data":{"events":"all"}}', "invalid_message", "$.data.events"),
        ('{"type":"user_feedback","projectGuid":"p"}', "invalid_message", "$.data"),
    ]:
        await client.send(text)
        error = await client.take()
        assert (error["type"], error["data"]["code"], error["data"].get("field")) == ("error", code, field)
        assert error["data"]["retryable"] is False
        assert error["data"]["message"]
    await join(client, guid)


async def test_an_error_names_the_message_and_the_project_it_is_about(enter: Enter) -> None:
    client = await enter()
    await client.say(type=7, projectGuid="p1", id="m1")
    error = await client.take()
    assert (error["type"], error["projectGuid"], error["id"]) == ("error", "p1", "m1")


async def test_a_message_without_id_and_timestamp_is_done_all_the_same(enter: Enter, guid: str) -> None:
    client = await enter()
    await client.say(type="join_project", projectGuid=guid)
    assert (await client.take())["type"] == "join_project_response"
    await client.say(type="ping")
    pong = await client.take()
    assert pong["type"] == "pong"
    assert pong["id"]
    assert "projectGuid" not in pong


async def test_who_comes_back_names_the_last_message_it_has_and_misses_none(
    enter: Enter, publish: Publish, guid: str
) -> None:
    client = await enter()
    epoch = (await join(client, guid))["epoch"]
    await publish(guid, "project_message", 1)
    last = await client.take(of("project_message"))
    client.drop()
    await publish(guid, "project_message", 2)
    await publish(guid, "project_stage_update", 3)
    again = await enter()
    project, _, number = last["id"].rpartition(":")
    assert project == guid
    answer = await join(again, guid, after_seq=int(number), epoch=epoch)
    assert (answer["recovered"], answer["head"]) == (True, 3)
    missed = await again.taking(2)
    assert [(message["type"], message["data"]) for message in missed] == [
        ("project_message", 2),
        ("project_stage_update", 3),
    ]
    await publish(guid, "project_message", 4)
    assert (await again.take())["data"] == 4
    await silent(again)


# -- 3.2.2 connections by project, heartbeat ----------------------------------------------------------


async def test_ping_is_answered_by_pong_with_the_same_id(enter: Enter, guid: str) -> None:
    client = await enter()
    for project in (None, guid):
        pong = await ask(client, "ping", project, id_="heartbeat-1")
        assert (pong["type"], pong["id"], pong.get("projectGuid")) == ("pong", "heartbeat-1", project)


async def test_a_connection_that_answers_no_ping_of_the_server_is_closed_and_may_come_back(enter: Enter) -> None:
    client = await enter(autoping=False)
    assert (await client.socket.receive()).type is WSMsgType.PING
    async with asyncio.timeout(PATIENCE):
        while (await client.socket.receive()).type is WSMsgType.PING:
            pass
    assert client.socket.close_code == 4000


async def test_who_says_nothing_for_too_long_is_closed(broker_process: Any, connect: Connect) -> None:
    client = await connect(broker_process(OPEN).url)
    assert (await ask(client, "ping"))["type"] == "pong"
    assert await client.closed() == 4504


async def test_members_hear_of_their_own_projects_alone(enter: Enter, publish: Publish, guid: str) -> None:
    one, both = await enter(), await enter()
    await join(one, f"{guid}-a")
    await join(both, f"{guid}-a")
    await join(both, f"{guid}-b")
    await publish(f"{guid}-a", "project_message", "to a")
    await publish(f"{guid}-b", "project_message", "to b")
    heard = await both.taking(2)
    assert {message["projectGuid"]: message["data"] for message in heard} == {f"{guid}-a": "to a", f"{guid}-b": "to b"}
    assert (await one.take())["data"] == "to a"
    await silent(one)


async def test_who_has_left_a_project_hears_of_it_no_more(enter: Enter, publish: Publish, guid: str) -> None:
    client = await enter()
    await join(client, guid)
    answer = await ask(client, "leave_project", guid)
    assert (answer["type"], answer["data"]) == ("leave_project_response", {})
    assert (await publish(guid, "project_message", 1))["delivered"] == 0
    await silent(client)


# -- 3.2.3 routing, permissions, errors ---------------------------------------------------------------


@pytest.mark.parametrize("kind", ["dance", "", "room.publish", "broadcast", "project_message", "pong"])
async def test_an_unknown_type_is_an_error_and_the_connection_goes_on(enter: Enter, guid: str, kind: str) -> None:
    client, other = await enter(), await enter()
    await join(other, guid)
    why = await refusal(client, kind, guid, {"room": f"project:{guid}", "data": 1})
    assert why["code"] == ("unknown_action" if kind else "invalid_message")
    for each in (client, other):
        await silent(each)


@pytest.mark.parametrize("claims", [{"projects": ["mine-*"]}, {"rooms": ["project:mine-*"]}])
async def test_a_project_takes_permission_to_join(
    enter: Enter, publish: Publish, guid: str, claims: dict[str, Any]
) -> None:
    client = await enter(token(**claims))
    await join(client, f"mine-{guid}")
    for kind in ("join_project", "user_feedback"):
        answer = await ask(client, kind, guid, {})
        assert (answer["type"], answer["projectGuid"], answer["data"]["code"]) == ("error", guid, "forbidden")
    await publish(guid, "project_message", "secret")
    await silent(client)


async def test_who_may_not_see_a_project_any_more_is_told_so_and_hears_no_more(
    enter: Enter, publish: Publish, guid: str
) -> None:
    client = await enter()
    await join(client, guid)
    answer = await ask(client, "auth", data={"token": token(projects=[])})
    assert answer["type"] == "auth_response"
    error = await client.take(of("error"))
    assert (error["projectGuid"], error["data"]["code"]) == (guid, "forbidden")
    await publish(guid, "project_message", "secret")
    await silent(client)


# -- 3.2.4 broadcast and filter; 4.2.2; 5.1 and 5.2 ---------------------------------------------------


@pytest.mark.parametrize("kind", ["project_stage_update", "project_message", "project_status_change", "agent_message"])
async def test_an_update_of_a_project_is_broadcast_to_all_its_members(
    enter: Enter, publish: Publish, guid: str, kind: str
) -> None:
    members = [await enter(token(user)) for user in ("ann", "bob", "cid")]
    for member in members:
        await join(member, guid)
    said = await publish(guid, kind, {"stage": "design", "progress": 0.5})
    assert (said["delivered"], said["seq"]) == (3, 1)
    heard = [await member.take() for member in members]
    assert heard[0] == heard[1] == heard[2]
    assert (heard[0]["type"], heard[0]["id"]) == (kind, f"{guid}:1")
    assert heard[0]["data"] == {"stage": "design", "progress": 0.5}


async def test_members_hear_only_the_events_that_they_have_chosen(enter: Enter, publish: Publish, guid: str) -> None:
    client = await enter()
    await join(client, guid, events=["project_stage_update", "agent_message"])
    for number, kind in enumerate(
        ["project_message", "project_stage_update", "project_status_change", "agent_message"]
    ):
        await publish(guid, kind, number)
    heard = await client.taking(2)
    assert [message["type"] for message in heard] == ["project_stage_update", "agent_message"]
    await silent(client)


async def test_an_update_with_a_name_of_its_own_comes_as_a_project_message(
    enter: Enter, publish: Publish, guid: str
) -> None:
    client = await enter()
    await join(client, guid)
    await publish(guid, "deployed", {"version": 2})
    message = await client.take()
    assert message["type"] == "project_message"
    assert (message["data"]["event"], message["data"]["data"]) == ("deployed", {"version": 2})


async def test_a_burst_of_messages_arrives_whole_and_in_order(enter: Enter, publish: Publish, guid: str) -> None:
    client = await enter()
    await join(client, guid)
    for start in range(0, 120, 40):
        await asyncio.gather(*(publish(guid, "project_message", number) for number in range(start, start + 40)))
    heard = await client.taking(120)
    assert [message["id"] for message in heard] == [f"{guid}:{number}" for number in range(1, 121)]
    assert {message["data"] for message in heard} == set(range(120))


# -- 3.2.5 and 4.2.3 the agents-server; 5.3 -----------------------------------------------------------


@pytest.mark.parametrize("kind", ["agent_message", "project_stage_update", "project_status_change"])
async def test_what_an_agent_says_reaches_the_members_of_the_project(
    enter: Enter, agents: AgentsServer, guid: str, kind: str
) -> None:
    member, other = await enter(), await enter()
    await join(member, guid)
    await join(other, f"{guid}-other")
    await agents.say(kind, guid, text="thinking", step=1)
    message = await member.take()
    assert (message["type"], message["projectGuid"]) == (kind, guid)
    assert message["data"] == {"text": "thinking", "step": 1}
    await silent(other)


async def test_what_an_agent_says_ill_is_refused_to_it_alone(enter: Enter, agents: AgentsServer, guid: str) -> None:
    member = await enter()
    await join(member, guid)
    await agents.say("agent_message", text="to no project")
    assert (await agents.hear("error"))["data"]["code"] == "invalid_message"
    await agents.say("agent_message", guid, text="to one")
    assert (await member.take())["data"] == {"text": "to one"}


async def test_the_agents_server_is_told_of_updates_and_of_the_status(
    agents: AgentsServer, publish: Publish, guid: str
) -> None:
    for kind in ("project_stage_update", "project_message", "project_status_change"):
        await publish(guid, kind, {"of": kind})
    for kind, event in [
        ("project_update", "project_stage_update"),
        ("project_update", "project_message"),
        ("project_status_sync", "project_status_change"),
    ]:
        frame = await agents.hear(kind, guid)
        assert (frame["data"]["event"], frame["data"]["data"]) == (event, {"of": event})
        assert frame["id"]
        assert frame["timestamp"]


async def test_an_agents_server_that_comes_is_told_the_status_of_projects(
    broker: Any, http: aiohttp.ClientSession, enter: Enter, publish: Publish, guid: str
) -> None:
    await join(await enter(), guid)
    await publish(guid, "project_status_change", "running")
    await publish(guid, "project_status_change", "done")
    async with linked(broker, http) as agents:
        frame = await agents.hear("project_status_sync", guid)
    assert frame["data"]["data"] == "done"


async def test_feedback_goes_to_the_agents_server_and_its_answer_to_the_sender_alone(
    enter: Enter, agents: AgentsServer, guid: str
) -> None:
    sender, other = await enter(), await enter(token("bob"))
    for client in (sender, other):
        await join(client, guid)
    await sender.say(type="user_feedback", projectGuid=guid, data={"text": "more blue"}, id="feedback-1")
    frame = await agents.hear("user_feedback", guid)
    assert (frame["data"], frame["id"]) == ({"text": "more blue"}, "feedback-1")
    await agents.say("user_feedback_response", guid, feedback_id="feedback-1", accepted=True)
    answer = await sender.take()
    assert (answer["type"], answer["projectGuid"], answer["id"]) == ("user_feedback_response", guid, "feedback-1")
    assert answer["data"]["accepted"] is True
    for client in (sender, other):
        await silent(client)


async def test_feedback_of_two_users_with_the_same_id_is_not_mixed_up(
    enter: Enter, agents: AgentsServer, guid: str
) -> None:
    ann, bob = await enter(), await enter(token("bob"))
    for client, text in [(ann, "red"), (bob, "blue")]:
        await client.say(type="user_feedback", projectGuid=guid, data=text, id="1")
        frame = await agents.hear("user_feedback", guid)
        assert frame["data"] == text
        await agents.say("user_feedback_response", guid, feedback_id=frame["id"], heard=text)
    for client, text in [(ann, "red"), (bob, "blue")]:
        answer = await client.take()
        assert (answer["id"], answer["data"]["heard"]) == ("1", text)


async def test_feedback_sent_again_is_forwarded_once_and_answered_each_time(
    enter: Enter, agents: AgentsServer, guid: str
) -> None:
    client = await enter()
    for _ in range(2):
        await client.say(type="user_feedback", projectGuid=guid, data="again", id="1")
    await silent(client)  # both have been read
    assert (await agents.hear("user_feedback", guid))["id"] == "1"
    await agents.say("user_feedback_response", guid, feedback_id="1")
    assert [message["type"] for message in await client.taking(2)] == ["user_feedback_response"] * 2
    await client.say(type="user_feedback", projectGuid=guid, data="next", id="2")
    assert (await agents.hear("user_feedback", guid))["id"] == "2"


async def test_an_answer_whose_sender_is_gone_reaches_the_user_elsewhere(
    enter: Enter, agents: AgentsServer, guid: str
) -> None:
    sender, elsewhere = await enter(), await enter()
    for client in (sender, elsewhere):
        await join(client, guid)
    await sender.say(type="user_feedback", projectGuid=guid, data="x", id="late-1")
    await agents.hear("user_feedback", guid)
    await sender.leave()
    async with asyncio.timeout(PATIENCE):
        while len((await join(elsewhere, guid))["members"]) > 1:
            pass
    await agents.say("user_feedback_response", guid, feedback_id="late-1", accepted=True)
    answer = await elsewhere.take()
    assert (answer["type"], answer["projectGuid"], answer["id"]) == ("user_feedback_response", guid, "late-1")


async def test_feedback_is_answered_by_an_error_where_there_is_no_agent(enter: Enter, guid: str) -> None:
    why = await refusal(await enter(), "user_feedback", guid, "x")
    assert (why["code"], why["retryable"]) == ("agent_unavailable", True)


async def test_feedback_that_the_agent_does_not_answer_in_time_is_answered_by_an_error(
    enter: Enter, agents: AgentsServer, guid: str
) -> None:
    reading = asyncio.ensure_future(agents.hear("nothing"))  # or it would answer no ping, and be lost
    why = await refusal(await enter(), "user_feedback", guid, "x")
    reading.cancel()
    assert why["code"] == "timeout", why


async def test_feedback_is_answered_by_an_error_when_the_agent_is_lost_meanwhile(
    broker: Any, http: aiohttp.ClientSession, enter: Enter, guid: str
) -> None:
    client = await enter()
    async with linked(broker, http) as agents:
        await client.say(type="user_feedback", projectGuid=guid, data="x", id="1")
        await agents.hear("user_feedback", guid)
    error = await client.take()
    assert (error["type"], error["id"]) == ("error", "1")
    assert (error["data"]["code"], error["data"]["retryable"]) == ("agent_unavailable", True)


# -- 6.1 who is connected -----------------------------------------------------------------------------


@pytest.mark.parametrize("shown", [token(secret=SECRET[::-1]), token(seconds=-60), "nonsense"])
async def test_a_token_that_is_not_good_is_refused(enter: Enter, shown: str) -> None:
    client = await enter(shown)
    assert await client.closed() == 4500


async def test_a_client_may_show_its_token_in_its_first_message(enter: Enter, guid: str) -> None:
    client = await enter(None)
    answer = await ask(client, "auth", data={"token": token("bob")})
    assert (answer["type"], answer["data"]["user"]) == ("auth_response", "bob")
    await join(client, guid)


async def test_who_does_anything_else_first_is_refused(enter: Enter, guid: str) -> None:
    client = await enter(None)
    assert (await refusal(client, "join_project", guid))["code"] == "unauthenticated"
    assert await client.closed() == 4500


async def test_a_connection_ends_with_its_token(enter: Enter) -> None:
    client = await enter(token(seconds=2.5))
    assert await client.closed() == 4001


# -- 6.2 what is said ---------------------------------------------------------------------------------


async def test_too_many_messages_are_refused_and_who_goes_on_is_closed(enter: Enter) -> None:
    client = await enter(token("eve"))
    for number in range(400):
        await client.send(json.dumps({"type": "ping", "id": str(number)}))
    assert await client.closed() == 4501
    errors = [message["data"] for message in client.heard if message["type"] == "error"]
    assert {error["code"] for error in errors} == {"rate_limited"}
    assert all(error["retryable"] and error["retry_after"] > 0 for error in errors)
    assert sum(message["type"] == "pong" for message in client.heard) >= 100


async def test_malicious_feedback_is_refused_and_no_agent_hears_it(
    enter: Enter, agents: AgentsServer, guid: str
) -> None:
    client = await enter()
    why = await refusal(client, "user_feedback", guid, {"text": "hi <SCRIPT>alert(1)"})
    assert why["message"] == "No scripts."
    await client.say(type="user_feedback", projectGuid=guid, data={"text": "hi"}, id="2")
    assert (await agents.hear("user_feedback"))["data"] == {"text": "hi"}


async def test_a_message_that_is_too_large_ends_the_connection(enter: Enter) -> None:
    client = await enter()
    await client.say(type="user_feedback", projectGuid="p", data="x" * (65 << 10))
    assert await client.closed() == 1009


async def test_too_many_ill_formed_messages_end_the_connection(enter: Enter) -> None:
    client = await enter()
    for _ in range(30):
        await client.send("{")
    assert await client.closed() == 4501


# -- 8 figures and logs -------------------------------------------------------------------------------


async def test_connections_messages_errors_and_response_times_are_counted(
    broker: Any, enter: Enter, http: aiohttp.ClientSession, guid: str
) -> None:
    async def figures() -> dict[str, float]:
        async with http.get(f"{broker.url}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in pairs}

    before = await figures()
    client = await enter()
    await refusal(client, "dance")
    await join(client, guid)
    after = await figures()

    def grown(name: str) -> float:
        return after[name] - before[name]

    assert after["broker_connections"] >= 1
    assert grown("broker_connections_opened_total") >= 1
    assert grown('broker_messages_total{direction="in"}') >= 1
    assert grown('broker_messages_total{direction="out"}') >= 1
    assert grown('broker_errors_total{code="unknown_action"}') >= 1
    assert grown("broker_request_seconds_count") >= 1


async def test_connections_are_logged_and_tokens_are_not(broker: Any, enter: Enter) -> None:
    shown = token("the-logged-one")
    client = await enter(shown)
    await silent(client)
    await client.leave()
    other = await enter(None)
    await ask(other, "auth", data={"token": shown})
    await silent(other)
    lines = [json.loads(line) for line in broker.log.splitlines()]
    said = [line["message"] if "message" in line else str(line) for line in lines]
    assert any("speaking project.v1.json" in text for text in said)
    assert any("disconnected with 1000" in text for text in said)
    assert shown not in broker.log
    assert SECRET not in broker.log

"""A client of the fifth design (seed 004): conversations with their variables, state and errors in `chat.v1.json`."""

import json
import uuid
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import pytest

FORMAT = "chat.v1.json"
KEYS = ["messageId", "sessionId", "role", "content", "actionId", "metadata", "timestamp"]
MIB = 1 << 20
PAGE = "https://chat.example.org"
OPEN = f"""
listen: {{default_protocol: {FORMAT}, origins: ["{PAGE}"]}}
store: {{url: "sqlite:///broker.db"}}
agents:
  echo: {{kind: echo, faults: true}}
  hasty: {{kind: echo, faults: true, deadlines: {{idle: 300ms, stalled: 0}}}}
log: {{level: debug, format: json}}
"""
GUARDED = (
    OPEN
    + """
plugins:
  auth: {mode: jwt, keys: [{algorithm: HS256, secret: !file auth.key}]}
"""
)
KEY = "k" * 64

Connect = Callable[..., Awaitable[Any]]
Message = dict[str, Any]


@pytest.fixture(scope="module")
def broker(broker_process: Any) -> Any:
    return broker_process(OPEN)


@pytest.fixture(scope="module")
def guarded(broker_process: Any) -> Any:
    """A broker that wants to know who somebody is."""
    return broker_process(GUARDED, {"auth.key": KEY})


@pytest.fixture(scope="module")
def token(guarded: Any) -> Callable[..., str]:
    """Make tokens, once for each user and his scopes."""
    made: dict[tuple[str, ...], str] = {}

    def make(user: str, *scopes: str) -> str:
        key = (user, *scopes)
        if key not in made:
            made[key] = guarded.command("gentoken", "--user", user, *(f"--scope={scope}" for scope in scopes))
        return made[key]

    return make


@pytest.fixture
def session_id() -> str:
    return str(uuid.uuid4())


def user(content: Any, session_id: str | None = None, **more: Any) -> Message:
    """Return what a person says, as the design writes it."""
    return {
        "messageId": str(uuid.uuid4()),
        "sessionId": session_id,
        "role": "user",
        "content": content,
        "actionId": None,
        "metadata": {},
        "timestamp": "2026-11-21T10:00:00.000Z",
        **more,
    }


def system(kind: str, content: Any = None, session_id: str | None = None, **metadata: Any) -> Message:
    return user(content, session_id, role="system", metadata={"kind": kind, **metadata})


def kind(name: str, **content: Any) -> Callable[[Message], bool]:
    """Pick messages of a kind whose content says this."""

    def wanted(message: Message) -> bool:
        found = message["content"]
        return message["metadata"]["kind"] == name and all(found.get(key) == value for key, value in content.items())

    return wanted


def by(role: str) -> Callable[[Message], bool]:
    return lambda message: message["role"] == role and message["metadata"]["kind"] == "message"


def at_end(message: Message) -> bool:
    return kind("state", event="turn.ended")(message)


async def enter(connect: Connect, broker: Any, session_id: str | None = None, query: str = "", **options: Any) -> Any:
    """Connect, and if a session is named wait until its past was told."""
    at = "" if session_id is None else f"?sessionId={session_id}{query}"
    client = await connect(broker.url, f"/ws{at}", **options)
    if session_id is not None:
        client.past = []
        while not kind("state", event="session.caught_up")(message := await client.take()):
            client.past.append(message)
    return client


async def ask(client: Any, content: Any, session_id: str | None = None, **more: Any) -> Message:
    """Say something, and return the answer."""
    await client.send(user(content, session_id, **more))
    return dict(await client.take(by("assistant")))


async def refused(client: Any, message: Any) -> Message:
    """Send something, and return the content of the error that comes."""
    await client.send(message)
    return dict((await client.take(kind("error")))["content"])


# -- the message -----------------------------------------------------------------------------------------


async def test_every_message_has_the_seven_fields(connect: Connect, broker: Any, session_id: str) -> None:
    client = await enter(connect, broker)
    await client.send(user("hello", session_id))
    heard = [await client.take() for _ in range(8)]
    for message in heard:
        assert list(message) == KEYS
        assert message["messageId"]
        assert message["role"] in {"user", "assistant", "system"}
        assert datetime.fromisoformat(message["timestamp"]).tzinfo
    assert len({message["messageId"] for message in heard}) == len(heard)
    assert {message["role"] for message in heard} == {"user", "assistant", "system"}


async def test_what_was_not_needed_may_be_left_out(connect: Connect, broker: Any, session_id: str) -> None:
    client = await enter(connect, broker, session_id)
    await client.send({"messageId": "m1", "role": "user", "content": "hello"})
    assert (await client.take(by("user")))["messageId"] == "m1"


async def test_it_is_spoken_by_subprotocol_and_by_path_too(connect: Connect, broker: Any) -> None:
    client = await connect(broker.url, "/ws", protocols=(FORMAT,))
    assert client.socket.protocol == FORMAT
    assert (await client.take())["content"]["protocol"] == FORMAT
    client = await connect(broker.url, f"/ws/{FORMAT}")
    assert (await client.take())["metadata"]["kind"] == "welcome"


async def test_one_mib_is_taken_and_more_ends_the_connection(connect: Connect, broker: Any, session_id: str) -> None:
    client = await enter(connect, broker, session_id)
    empty = len(json.dumps(user("", session_id)))
    await client.send(json.dumps(user("x" * (MIB - empty), session_id)))
    assert len((await client.take(by("user")))["content"]) == MIB - empty
    client = await enter(connect, broker)
    await client.send("x" * (MIB + 1))
    assert await client.closed() == 1009


# -- the connection and its sessions -----------------------------------------------------------------------


async def test_a_session_is_made_if_it_is_not_there(connect: Connect, broker: Any, session_id: str) -> None:
    client = await enter(connect, broker, session_id)
    welcome, state, variables = client.past
    assert welcome["metadata"]["kind"] == "welcome"
    assert (state["sessionId"], state["content"]["state"]) == (session_id, "idle")
    assert variables["content"]["variables"] == {}


async def test_a_session_that_is_there_is_loaded_with_its_history_and_variables(
    connect: Connect, broker: Any, session_id: str
) -> None:
    first = await enter(connect, broker, session_id)
    await ask(first, "how are you?", actionId="greet", metadata={"lang": "en"})
    await first.send(system("variables", {"set": {"mood": "calm"}}))
    await first.take(kind("variables"))
    await first.leave()
    again = await enter(connect, broker, session_id)
    told = [message for message in again.past if message["role"] != "system"]
    assert [(message["role"], message["content"]) for message in told] == [
        ("user", "how are you?"),
        ("assistant", "how are you?"),
    ]
    assert [message["actionId"] for message in told] == ["greet", "greet"]
    assert told[0]["metadata"]["lang"] == "en"
    (snapshot,) = [message for message in again.past if message["metadata"]["kind"] == "variables"]
    assert snapshot["content"]["variables"] == {"mood": "calm"}


async def test_the_first_message_opens_its_session(connect: Connect, broker: Any, session_id: str) -> None:
    client = await enter(connect, broker)
    assert (await ask(client, "one", session_id))["sessionId"] == session_id
    assert (await ask(client, "two"))["content"] == "two"


async def test_what_is_said_at_once_is_done_in_its_order(connect: Connect, broker: Any, session_id: str) -> None:
    client = await connect(broker.url, f"/ws?sessionId={session_id}")
    for number in range(10):
        await client.send(user(str(number)))
    said = await client.taking(10, by("user"))
    assert [message["content"] for message in said] == [str(number) for number in range(10)]


async def test_who_comes_back_is_told_only_what_was_missed(connect: Connect, broker: Any, session_id: str) -> None:
    first = await enter(connect, broker, session_id)
    seen = (await ask(first, "one"))["metadata"]["seq"]
    opened = next(message for message in first.past if message["metadata"]["kind"] == "state")
    first.drop()
    other = await enter(connect, broker, session_id)
    await ask(other, "two")
    await other.take(at_end)
    epoch = opened["content"]["data"]["epoch"]
    again = await enter(connect, broker, session_id, f"&after_seq={seen}&epoch={epoch}")
    assert [message["content"] for message in again.past if message["role"] != "system"] == ["two", "two"]
    lost = await enter(connect, broker, session_id, "&after_seq=5&epoch=another")
    assert any(kind("state", event="session.reset")(message) for message in lost.past)


async def test_several_sessions_share_a_connection(connect: Connect, broker: Any, session_id: str) -> None:
    client = await enter(connect, broker, session_id)
    other = str(uuid.uuid4())
    await client.send(system("subscribe", session_id=other, agent="hasty", variables={"a": 1}, title="Other"))
    snapshot = await client.take(kind("variables"))
    assert (snapshot["sessionId"], snapshot["content"]["variables"]) == (other, {"a": 1})
    assert (await ask(client, "there", other))["sessionId"] == other
    assert (await ask(client, "here"))["sessionId"] == session_id
    await client.send(system("unsubscribe", session_id=other))
    done = await client.take(kind("done"))
    assert (done["sessionId"], done["metadata"]["of"]) == (other, "unsubscribe")
    speaker = await enter(connect, broker, other)
    await ask(speaker, "is anybody there?")
    await client.send(system("ping", {"n": 1}))
    await client.take(kind("pong"))
    assert "is anybody there?" not in [message["content"] for message in client.heard]


# -- routing and broadcasting --------------------------------------------------------------------------------


async def test_a_message_goes_to_all_subscribers_and_to_nobody_else(
    connect: Connect, broker: Any, session_id: str
) -> None:
    sender, viewer = [await enter(connect, broker, session_id) for _ in range(2)]
    stranger = await enter(connect, broker, str(uuid.uuid4()))
    message = user("hello", session_id, actionId="a1")
    await sender.send(message)
    for client in (sender, viewer):
        said = await client.take(by("user"))
        assert {key: said[key] for key in KEYS[:5]} == {key: message[key] for key in KEYS[:5]}
        answer = await client.take(by("assistant"))
        assert (answer["content"], answer["actionId"]) == ("hello", "a1")
        assert answer["metadata"]["turnId"] == said["metadata"]["turnId"]
    await stranger.send(system("ping"))
    assert (await stranger.take())["metadata"]["kind"] == "pong"


async def test_the_same_messageid_is_one_message(connect: Connect, broker: Any, session_id: str) -> None:
    client = await enter(connect, broker, session_id)
    message = user("once", session_id)
    await client.send(message)
    await client.take(at_end)
    await client.send(message)
    done = await client.take(kind("done"))
    assert (done["metadata"]["inReplyTo"], done["content"]["duplicate"]) == (message["messageId"], True)
    changed = await refused(client, {**message, "content": "other"})
    assert (changed["code"], changed["category"]) == ("conflict", "conflict")


async def test_variables_are_pushed_as_snapshots(connect: Connect, broker: Any, session_id: str) -> None:
    sender, viewer = [await enter(connect, broker, session_id) for _ in range(2)]
    for change, whole in (({"a": 1, "b": 2}, {"a": 1, "b": 2}), ({"a": None}, {"b": 2})):
        await sender.send(system("variables", {"set": change}))
        for client in (sender, viewer):
            snapshot = (await client.take(kind("variables")))["content"]
            assert (snapshot["set"], snapshot["variables"]) == (change, whole)


async def test_the_execution_state_is_pushed(connect: Connect, broker: Any, session_id: str) -> None:
    client = await enter(connect, broker, session_id)
    await client.send(user("/ask it", session_id))
    asked = await client.take(kind("state", event="approval.requested"))
    assert asked["content"]["state"] == "awaiting_approval"
    data = asked["content"]["data"]
    late = await enter(connect, broker, session_id)
    opened = next(message["content"] for message in late.past if kind("state", event="session.open")(message))
    assert opened["state"] == "awaiting_approval"
    assert [one["approval_id"] for one in opened["data"]["approvals"]] == [data["approval_id"]]
    answer = {"approvalId": data["approval_id"], "optionId": data["options"][0]["option_id"]}
    await late.send(system("approval", answer, session_id))
    assert (await client.take(kind("state", event="approval.resolved")))["content"]["state"] == "running"
    assert (await client.take(at_end))["content"]["state"] == "idle"
    assert (await client.take(by("assistant")))["content"] == "it"


async def test_a_message_can_be_cancelled(connect: Connect, broker: Any, session_id: str) -> None:
    client = await enter(connect, broker, session_id)
    await client.send(user("/silence", session_id))
    turn_id = (await client.take(by("user")))["metadata"]["turnId"]
    await client.take(kind("state", event="turn.started"))
    await client.send(system("cancel", {"turnId": turn_id}))
    assert (await client.take(kind("done")))["metadata"]["of"] == "cancel"
    assert (await client.take(at_end))["content"]["data"]["outcome"] == "cancelled"


async def test_answers_are_told_as_they_are_written_to_who_wants_that(
    connect: Connect, broker: Any, session_id: str
) -> None:
    eager = await enter(connect, broker, session_id, "&stream=true")
    patient = await enter(connect, broker, session_id)
    whole = await ask(eager, "word by word")
    pieces = [message for message in eager.heard if message["metadata"]["kind"] == "delta"]
    assert "".join(piece["content"] for piece in pieces) == whole["content"] == "word by word"
    assert {piece["messageId"] for piece in pieces} == {whole["messageId"]}
    await patient.take(by("assistant"))
    assert [message for message in patient.heard if message["metadata"]["kind"] == "delta"] == []


async def test_other_formats_see_the_same_in_the_same_order(connect: Connect, broker: Any, session_id: str) -> None:
    client = await enter(connect, broker, session_id)
    native = await connect(broker.url, "/ws/broker.v1.json")
    attach = {"session_id": session_id, "after_seq": 0}
    await native.say(id="1", type="request", action="session.attach", payload=attach)
    for number in range(5):
        await client.send(user(f"chat {number}", session_id))
        start = {"session_id": session_id, "client_msg_id": str(number), "content": f"native {number}"}
        await native.say(id="2", type="request", action="turn.start", payload=start)
    mine = await client.taking(10, by("user"))
    theirs = await native.taking(10, lambda message: message.get("event") == "user.message")
    assert [(message["metadata"]["seq"], message["content"]) for message in mine] == [
        (message["seq"], message["data"]["content"]) for message in theirs
    ]


# -- errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "code", "field"),
    [
        ("{", "invalid_json", None),
        ("[]", "invalid_message", "$"),
        (user("hi", "s", messageId=5), "invalid_message", "$.messageId"),
        (user("hi", "s", role="assistant"), "invalid_message", "$.role"),
        (user("hi"), "invalid_message", "$.sessionId"),
        (user("hi", "not an id"), "invalid_message", "$.sessionId"),
        (user("", "s"), "invalid_message", "$.content"),
        (user(5, "s"), "invalid_message", "$.content"),
        (user("hi", "s", metadata={"x": "x" * 20_000}), "too_large", "$.metadata"),
        (system("", None, "s"), "invalid_message", "$.metadata.kind"),
        (system("no.such", None, "s"), "unknown_action", None),
        (system("subscribe", None, "s2", agent="nobody"), "not_found", "$.metadata.agent"),
        (system("cancel", {}, "s"), "invalid_message", "$.content"),
        (system("cancel", {"turnId": "t"}, str(uuid.uuid4())), "not_found", "$.sessionId"),
    ],
)
async def test_what_is_wrong_is_said_with_its_place_and_what_to_do(
    connect: Connect, broker: Any, message: Any, code: str, field: str | None
) -> None:
    client = await enter(connect, broker)
    error = await refused(client, message)
    assert (error["code"], error["place"]["field"]) == (code, field)
    assert error["message"]
    assert error["recovery"]
    assert error["category"] in {"request", "limit"}
    assert error["retryable"] is False
    if isinstance(message, dict) and isinstance(message["messageId"], str):
        assert error["place"]["messageId"] == message["messageId"]
        assert error["place"]["sessionId"] == message["sessionId"]
    await client.send(system("ping"))
    await client.take(kind("pong"))


@pytest.mark.parametrize(
    ("words", "agent", "code", "outcome"),
    [
        ("/fail out of ideas", "echo", "agent_unavailable", "failed"),
        ("/crash", "echo", "agent_unavailable", "lost"),
        ("/silence", "hasty", "timeout", "timed_out"),
    ],
)
async def test_an_agent_that_fails_is_no_silence(
    connect: Connect, broker: Any, session_id: str, words: str, agent: str, code: str, outcome: str
) -> None:
    client = await enter(connect, broker, session_id, f"&agent={agent}")
    message = user(words, session_id, actionId="a1")
    await client.send(message)
    error = await client.take(kind("error"))
    assert error["metadata"]["outcome"] == outcome
    assert (error["actionId"], error["content"]["code"]) == ("a1", code)
    assert error["content"]["place"] == {
        "sessionId": session_id,
        "messageId": message["messageId"],
        "actionId": "a1",
        "field": None,
    }
    assert "again" in error["content"]["recovery"]
    assert (await client.take(at_end))["content"]["data"]["outcome"] == outcome
    assert (await ask(client, "still there?"))["content"] == "still there?"


async def test_errors_are_logged_with_what_they_are_about(
    connect: Connect, broker: Any, session_id: str, eventually: Any
) -> None:
    client = await enter(connect, broker, session_id)
    await client.send(user("/crash", session_id))
    turn_id = (await client.take(by("user")))["metadata"]["turnId"]
    await client.take(kind("error"))

    async def is_logged() -> bool:
        lines = [json.loads(line) for line in broker.log.splitlines() if line.startswith("{")]
        return any({line.get("session"), line.get("turn")} == {session_id, turn_id} and line["time"] for line in lines)

    await eventually(is_logged)


# -- who may -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shown", [{}, {"headers": {"Authorization": "Bearer nonsense"}}])
async def test_who_does_not_say_who_he_is_does_not_come_in(connect: Connect, guarded: Any, shown: Any) -> None:
    client = await connect(guarded.url, "/ws?sessionId=s", **shown)
    assert await client.closed() == 4500
    assert client.heard == []


async def test_the_handshake_says_who_it_is(connect: Connect, guarded: Any, token: Any, http: Any) -> None:
    ann = token("ann")
    by_header = await connect(guarded.url, headers={"Authorization": f"Bearer {ann}"})
    by_protocol = await connect(guarded.url, protocols=[FORMAT, f"bearer.{ann}"])
    backend = {"Authorization": f"Bearer {token('svc', 'api')}"}
    async with http.post(f"{guarded.url}/api/v1/tickets", json={"user": "ann"}, headers=backend) as answer:
        ticket = (await answer.json())["ticket"]
    by_ticket = await connect(guarded.url, f"/ws?ticket={ticket}")
    for client in (by_header, by_protocol, by_ticket):
        assert (await client.take(kind("welcome")))["content"]["user"] == "ann"


async def test_a_user_gets_only_at_his_own_sessions(
    connect: Connect, guarded: Any, token: Any, session_id: str
) -> None:
    ann, bob = [
        await connect(guarded.url, headers={"Authorization": f"Bearer {token(name)}"}) for name in ("ann", "bob")
    ]
    assert (await ask(ann, "my secret", session_id))["content"] == "my secret"
    for message in (
        system("subscribe", session_id=session_id),
        user("let me in", session_id),
        system("variables", {"set": {"a": 1}}, session_id),
        system("cancel", {"turnId": "t"}, session_id),
    ):
        error = await refused(bob, message)
        assert (error["code"], error["category"], error["place"]["sessionId"]) == (
            *("forbidden", "permission"),
            session_id,
        )
    await bob.send(system("ping"))
    await bob.take(kind("pong"))
    assert {message["metadata"]["kind"] for message in bob.heard} == {"welcome"}


async def test_a_token_can_be_renewed_in_band(connect: Connect, guarded: Any, token: Any) -> None:
    client = await connect(guarded.url, headers={"Authorization": f"Bearer {token('ann')}"})
    await client.send(system("auth", {"token": token("ann", "debug")}))
    assert (await client.take(kind("done")))["content"]["scopes"] == ["debug"]
    error = await refused(client, system("auth", {"token": token("bob")}))
    assert error["code"] == "forbidden"
    assert token("bob") not in guarded.log


async def test_a_user_is_reached_on_all_of_his_connections_and_forgotten_when_he_leaves(
    connect: Connect, guarded: Any, token: Any, http: Any, eventually: Any
) -> None:
    name = f"carl-{uuid.uuid4()}"
    hers = {"Authorization": f"Bearer {token(name)}"}
    clients = [await connect(guarded.url, headers=hers) for _ in range(3)]
    for client in clients:
        await client.take(kind("welcome"))
    backend = {"Authorization": f"Bearer {token('svc', 'api')}"}
    message = {"to": {"users": [name]}, "data": {"unread": 3}}
    async with http.post(f"{guarded.url}/api/v1/send", json=message, headers=backend) as answer:
        assert (await answer.json())["delivered"] == 3
    for client in clients:
        assert (await client.take(kind("direct")))["content"] == {"unread": 3}
    clients[0].drop()
    await clients[1].leave()

    async def is_one() -> bool:
        async with http.get(f"{guarded.url}/api/v1/users/{name}/connections", headers=backend) as answer:
            return bool((await answer.json())["count"] == 1)

    await eventually(is_one)


@pytest.mark.parametrize(("origin", "status"), [(PAGE, 101), ("https://evil.example.org", 403), ("null", 403)])
async def test_only_pages_of_listed_origins_connect(http: Any, broker: Any, origin: str, status: int) -> None:
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    headers = {**upgrade, "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Origin": origin}
    async with http.get(f"{broker.url}/ws", headers=headers) as answer:
        assert answer.status == status
        answer.close()


async def test_listed_pages_may_use_the_api_and_read_its_errors(http: Any, guarded: Any, token: Any) -> None:
    api, hers = f"{guarded.url}/api/v1", {"Authorization": f"Bearer {token('svc', 'api')}"}
    for method, path, options, status in (
        ("OPTIONS", "/sessions", {"headers": {"Origin": PAGE, "Access-Control-Request-Method": "POST"}}, 204),
        ("GET", "/sessions", {"headers": {"Origin": PAGE, **hers}}, 200),
        ("GET", "/sessions", {"headers": {"Origin": PAGE}}, 401),
        ("GET", "/sessions/none/state", {"headers": {"Origin": PAGE, **hers}}, 404),
        ("POST", "/sessions", {"headers": {"Origin": PAGE, **hers}, "json": {"titel": 1}}, 400),
    ):
        async with http.request(method, api + path, **options) as answer:
            assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (status, PAGE)
    async with http.get(f"{api}/sessions", headers={"Origin": "https://evil.example.org", **hers}) as answer:
        assert answer.status == 403
        assert "Access-Control-Allow-Origin" not in answer.headers


# -- what is kept, and HTTP ----------------------------------------------------------------------------------


async def get(http: Any, broker: Any, path: str, status: int = 200) -> Any:
    async with http.get(f"{broker.url}{path}") as answer:
        assert answer.status == status
        return await answer.json()


async def test_what_was_said_can_be_read_over_http(connect: Connect, broker: Any, session_id: str, http: Any) -> None:
    client = await enter(connect, broker, session_id)
    await ask(client, "hello", actionId="greet")
    await client.send(system("variables", {"set": {"step": 1}}))
    await client.take(kind("variables"))
    api = f"/api/v1/sessions/{session_id}"
    assert (await get(http, broker, api))["session_id"] == session_id
    listed = (await get(http, broker, "/api/v1/sessions"))["sessions"]
    assert session_id in [session["session_id"] for session in listed]
    messages = (await get(http, broker, f"{api}/messages"))["messages"]
    assert [(message["role"], message["content"]) for message in messages] == [
        ("user", "hello"),
        ("assistant", "hello"),
    ]
    assert messages[0]["metadata"]["actionId"] == "greet"
    variables = await get(http, broker, f"{api}/variables")
    assert variables["variables"] == {"step": 1}
    assert [snapshot["variables"] for snapshot in variables["snapshots"]] == [{}, {"step": 1}]
    state = await get(http, broker, f"{api}/state")
    assert (state["execution"], state["position"]["event"]) == ("idle", "variables.changed")


async def test_a_backend_speaks_into_the_conversation(
    connect: Connect, broker: Any, session_id: str, http: Any
) -> None:
    client = await enter(connect, broker, session_id)
    turn = {"client_msg_id": "b1", "content": "from the backend", "metadata": {"actionId": "nightly"}}
    async with http.post(f"{broker.url}/api/v1/sessions/{session_id}/turns", json=turn) as answer:
        assert answer.status == 202
    said = await client.take(by("user"))
    assert (said["messageId"], said["actionId"], said["content"]) == ("b1", "nightly", "from the backend")


async def test_a_session_that_is_not_there_is_said_so(http: Any, broker: Any) -> None:
    problem = await get(http, broker, "/api/v1/sessions/none", 404)
    assert (problem["code"], problem["category"]) == ("not_found", "request")
    assert problem["place"] == {"field": "session_id"}
    assert "made anew" in problem["recovery"]


async def test_health_and_a_description_of_the_api_are_there(http: Any, broker: Any) -> None:
    assert (await get(http, broker, "/health"))["status"] == "ok"
    assert "/api/v1/sessions/{session_id}/variables" in (await get(http, broker, "/api/v1/openapi.json"))["paths"]


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_nothing_is_lost_when_the_broker_comes_back(
    connect: Connect, broker_process: Any, session_id: str, http: Any, how: str
) -> None:
    broker = broker_process(OPEN + "shutdown: {grace: 100ms}\n")
    client = await enter(connect, broker, session_id)
    await ask(client, "remember me", actionId="a1")
    await client.send(system("variables", {"set": {"name": "Ann"}}))
    await client.take(kind("variables"))
    await client.send(user("/silence", session_id))
    await client.take(lambda message: message["content"] == "/silence")
    getattr(broker, how)()
    broker.start()
    again = await enter(connect, broker, session_id)
    said = [message["content"] for message in again.past if message["role"] != "system"]
    assert said == ["remember me", "remember me", "/silence"]
    (snapshot,) = [message for message in again.past if message["metadata"]["kind"] == "variables"]
    assert snapshot["content"]["variables"] == {"name": "Ann"}
    (error,) = [message for message in [*again.past, *again.heard] if message["metadata"]["kind"] == "error"]
    assert error["metadata"]["outcome"] in {"lost", "cancelled"}
    variables = await get(http, broker, f"/api/v1/sessions/{session_id}/variables")
    assert variables["variables"] == {"name": "Ann"}
    assert (await ask(again, "go on"))["content"] == "go on"

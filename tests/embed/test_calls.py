"""What the application registers with its broker and asks of it: the calls that plugins have too."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from broker import Broker
from broker.errors import BrokerError
from broker.hooks import Failure, Handshake, Inbound, Peer, Permission, Plugin, Principal, TurnEnded
from broker.testing import until

MEMORY: dict[str, Any] = {"store": {"url": "memory:"}}

Dial = Callable[..., Awaitable[Any]]
Serve = Callable[..., Awaitable[Any]]


# -- handlers -----------------------------------------------------------------------------------------


async def test_a_handler_is_given_the_whole_message_and_who_sent_it(broker: Broker, serve: Serve, talk: Dial) -> None:
    async def text(message: dict[str, Any], context: Any) -> Any:
        assert await context.send({"note": 1})
        assert context.broker is broker
        return {"message": message, "from": context.peer.connection_id, "by": context.peer.protocol}

    broker.register_handler("text", text)
    client = await talk(await serve(broker))
    answer = await client.ask("text", {"a": [1]})
    assert answer["data"] == {
        "message": {"id": answer["id"], "type": "request", "action": "text", "payload": {"a": [1]}},
        "from": client.welcome["connection_id"],
        "by": "broker.v1.json",
    }
    assert (await client.event("message"))["data"] == {"note": 1}


async def test_whatever_a_handler_does_the_client_has_an_answer(broker: Broker, serve: Serve, talk: Dial) -> None:
    async def refuse(message: Any, context: Any) -> None:
        raise BrokerError("forbidden", "Not today.")

    async def hang(message: Any, context: Any) -> None:
        await asyncio.Event().wait()

    broker.register_handler("refuse", refuse)
    broker.register_handler("hang", hang, timeout=0.05)
    broker.register_handler("break", lambda message, context: 1 / 0)
    broker.register_handler("babble", lambda message, context: object())
    broker.register_handler("nothing", lambda message, context: None)
    client = await talk(await serve(broker))
    assert (await client.refused("refuse"))["message"] == "Not today."
    assert (await client.refused("hang"))["code"] == "timeout"
    for name in ("break", "babble"):
        refusal = await client.refused(name)
        assert refusal["code"] == "internal"
        assert refusal["hint"].startswith("trace ")
    assert (await client.ask("nothing"))["data"] is None
    assert broker.stats.plugin_errors == {"application": 3}
    await client.do("ping")


async def test_the_time_of_a_handler_without_one_of_its_own_is_a_setting(serve: Serve, talk: Dial) -> None:
    async def hang(message: Any, context: Any) -> None:
        await asyncio.Event().wait()

    broker = Broker({**MEMORY, "limits": {"message_timeout": "50ms"}})
    broker.register_handler("hang", hang)
    client = await talk(await serve(broker))
    assert (await client.refused("hang"))["code"] == "timeout"


async def test_handlers_come_while_it_runs_and_replace_each_other_only_on_purpose(
    broker: Broker, serve: Serve, talk: Dial
) -> None:
    client = await talk(await serve(broker))
    assert (await client.refused("late"))["code"] == "unknown_action"
    broker.register_handler("late", lambda message, context: 1)
    assert (await client.ask("late"))["data"] == 1
    with pytest.raises(ValueError, match="replace=True"):
        broker.register_handler("late", lambda message, context: 2)
    broker.register_handler("late", lambda message, context: 3, replace=True)
    assert (await client.ask("late"))["data"] == 3


def test_what_cannot_be_a_handler_or_a_listener_is_refused_at_once(broker: Broker) -> None:
    with pytest.raises(ValueError, match="the broker itself has"):
        broker.register_handler("turn.start", lambda message, context: None, replace=True)
    with pytest.raises(TypeError, match=r"must take \(message, context\)"):
        broker.register_handler("a", lambda message: None)  # type: ignore[misc,arg-type]
    with pytest.raises(ValueError, match="seconds above 0"):
        broker.register_handler("a", lambda message, context: None, timeout=0)
    with pytest.raises(ValueError, match="there are: connection, disconnection"):
        broker.on("conection", print)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"must take \(peer, code\)"):
        broker.on("disconnection", lambda peer: None)


class Strict(Plugin):
    """Lets nobody use one handler, and refuses messages that are too long."""

    def on_permission(self, check: Permission) -> None:
        if check.operation == "secret":
            raise BrokerError("forbidden")

    def on_message(self, message: Inbound) -> None:
        if message.size > 500:
            raise BrokerError("too_large")


async def test_the_gates_come_before_handlers_and_listeners(serve: Serve, talk: Dial) -> None:
    broker, heard = Broker(MEMORY, plugins=[Strict]), list[str]()
    broker.register_handler("secret", lambda message, context: "told")
    broker.on("message", lambda message: heard.append(message.action))
    client = await talk(await serve(broker))
    assert (await client.refused("secret"))["code"] == "forbidden"
    assert (await client.refused("echo", text="x" * 500))["code"] == "too_large"
    assert heard == ["secret"]


# -- events -------------------------------------------------------------------------------------------


async def test_each_event_is_told_until_nobody_listens_any_more(broker: Broker, serve: Serve, talk: Dial) -> None:
    heard: dict[str, list[Any]] = {}
    broker.register_handler("break", lambda message, context: 1 / 0)
    ends = [broker.on("connection", heard.setdefault("connection", []).append)]
    ends += [broker.on("message", heard.setdefault("message", []).append)]
    ends += [broker.on("turn", heard.setdefault("turn", []).append)]
    ends += [broker.on("error", heard.setdefault("error", []).append)]
    ends += [broker.on("disconnection", lambda peer, code: heard.setdefault("end", []).append((peer, code)))]
    server = await serve(broker)
    client = await talk(server)
    await client.do("session.create", session_id="s")
    await client.do("turn.start", session_id="s", client_msg_id="1", content="hi")
    await client.records("turn.ended")
    await client.refused("break")
    await client.leave()
    await until(lambda: "end" in heard)
    (peer,), (turn,), (error,) = heard["connection"], heard["turn"], heard["error"]
    assert isinstance(peer, Peer)
    assert isinstance(turn, TurnEnded)
    assert (turn.session_id, turn.outcome) == ("s", "completed")
    assert isinstance(error, Failure)
    assert isinstance(error.error, ZeroDivisionError)
    assert [message.action for message in heard["message"]] == ["session.create", "turn.start", "break"]
    assert heard["end"] == [(peer, 1000)]
    for end in ends:
        end()
        end()
    await (await talk(server)).do("ping")
    assert [len(told) for told in heard.values()] == [1, 3, 1, 1, 1]


async def test_a_listener_is_never_felt(broker: Broker, serve: Serve, talk: Dial) -> None:
    def refuse(message: Inbound) -> None:
        raise BrokerError("forbidden")

    async def fail(*told: Any) -> None:
        raise OSError("no disk")

    broker.on("message", refuse)
    broker.on("message", fail)
    broker.on("error", fail)
    broker.on("connection", fail)
    broker.register_handler("break", lambda message, context: 1 / 0)
    client = await talk(await serve(broker))
    assert (await client.refused("break"))["code"] == "internal"
    assert await client.do("echo", text="hi") == {"text": "hi"}
    await until(lambda: broker.stats.plugin_errors["application"] == 1 + 4 + 1 + 1)


async def test_one_function_may_listen_twice_and_stop_once(broker: Broker, serve: Serve, talk: Dial) -> None:
    heard: list[Peer] = []
    listener = heard.append
    first = broker.on("connection", listener)
    broker.on("connection", listener)
    server = await serve(broker)
    await talk(server)
    first()
    await talk(server)
    assert len(heard) == 3


async def test_a_message_costs_nothing_more_when_nobody_listens(broker: Broker, serve: Serve) -> None:
    end = broker.on("message", lambda message: None)
    await serve(broker)
    assert broker._app is not None
    assert len(broker._app.hooks.message) == 1
    end()
    assert len(broker._app.hooks.message) == 0


# -- what can be asked --------------------------------------------------------------------------------


async def test_the_application_tells_one_some_or_all(broker: Broker, serve: Serve, talk: Dial) -> None:
    server = await serve(broker)
    one, other = await talk(server), await talk(server)
    ids = [client.welcome["connection_id"] for client in (one, other)]
    assert sorted(peer.connection_id for peer in await broker.connections()) == sorted(ids)
    assert await broker.send(ids[0], {"n": 1}) == 1
    assert await broker.send(ids, {"n": 2}) == 2
    assert await broker.send("nobody", {"n": 3}) == 0
    assert [(await one.event("message"))["data"]["n"] for _ in range(2)] == [1, 2]
    assert (await other.event("message"))["data"]["n"] == 2
    assert await broker.broadcast("all") == 2
    await one.do("room.join", room="r")
    assert await broker.publish("r", "news", 1) == 1
    assert (await one.event("room.event"))["data"] == {"event": "news", "data": 1}


@pytest.mark.parametrize(
    ("room", "event", "data", "code"),
    [
        ("r", "\ud800", 1, "invalid_message"),
        ("r\ud800", "e", 1, "invalid_message"),
        ("r\n", "e", 1, "invalid_message"),
        ("r", "", 1, "invalid_message"),
        ("r" * 256, "e", 1, "invalid_message"),
        ("r", "e" * 129, 1, "invalid_message"),
        ("r", None, 1, "invalid_message"),
        ("r", 5, 1, "invalid_message"),
        ("r", "e", "x" * (1 << 20), "too_large"),
        ("r", "e", b"[" * 65 + b"]" * 65, "invalid_message"),
    ],
)
async def test_what_no_client_may_publish_the_application_may_not_either(
    broker: Broker, serve: Serve, room: Any, event: Any, data: Any, code: str
) -> None:
    await serve(broker)
    with pytest.raises(BrokerError) as refusal:
        await broker.publish(room, event, data)
    assert refusal.value.code == code
    with pytest.raises(ValueError, match="surrogates"):
        await broker.publish("r", "e", "\ud800")
    assert await broker.publish("r", "e", 1) == 1  # and nothing has become of the store


class Named(Plugin):
    """Takes everybody for who they say they are."""

    def on_handshake(self, handshake: Handshake) -> Principal:
        return Principal(user=handshake.query.get("name"), scopes=frozenset())


async def test_a_user_is_told_at_all_places(serve: Serve, talk: Dial) -> None:
    broker = Broker(MEMORY, plugins=[Named])
    server = await serve(broker)
    clients = [await talk(server, query=f"?name={name}") for name in ("ann", "ann", "bob", "cid")]
    assert await broker.send_to_user("ann", 1) == 2
    assert await broker.send_to_user(["ann", "bob"], 2) == 3
    assert await broker.send_to_user("nobody", 3) == 0
    await broker.broadcast("last")
    for client, told in zip(clients, ([1, 2], [1, 2], [2], []), strict=True):
        await client.event("broadcast")
        assert [message["data"] for message in client.heard] == told


async def test_it_can_be_asked_only_while_it_runs(broker: Broker, serve: Serve) -> None:
    with pytest.raises(RuntimeError, match="once it starts"):
        await broker.broadcast("too early")
    server = await serve(broker)
    await server.runner.cleanup()
    with pytest.raises(BrokerError) as refusal:
        await broker.broadcast("too late")
    assert refusal.value.code == "unavailable"

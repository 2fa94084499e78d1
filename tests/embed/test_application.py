"""A broker inside of an aiohttp application, under a plain aiohttp server: what is whose, from start to end."""

import asyncio
import gc
import logging
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web
from loguru import logger
from websockets.exceptions import InvalidStatus

from broker import Broker
from broker.app import CannotStart
from broker.hooks import Plugin, TurnEnded
from broker.testing import until

ROOT = Path(__file__).parents[2]
PATIENCE = 20.0
MEMORY: dict[str, Any] = {"store": {"url": "memory:"}}
AGENTS = {"echo": {"kind": "echo"}, "endless": {"kind": "echo", "delay": "1h"}}

Dial = Callable[..., Awaitable[Any]]
Serve = Callable[..., Awaitable[Any]]


# -- the application around it ------------------------------------------------------------------------


async def test_the_application_keeps_its_routes_its_middlewares_and_its_404(
    broker: Broker, serve: Serve, talk: Dial
) -> None:
    seen: list[str] = []

    @web.middleware
    async def note(request: web.Request, handler: Callable[..., Any]) -> web.StreamResponse:
        seen.append(request.path)
        response: web.StreamResponse = await handler(request)
        return response

    async def home(_: web.Request) -> web.Response:
        return web.Response(text="home")

    app = web.Application(middlewares=[note])
    broker.setup(app, prefix="/chat/")
    app.router.add_get("/", home)
    app.router.add_get("/chat/own", home)
    server = await serve(app)
    await talk(server, prefix="/chat")
    assert await server.get("/") == (200, "home")
    assert await server.get("/nowhere") == (404, "404: Not Found")
    status, problem = await server.get("/chat/nowhere")
    assert (status, problem["code"]) == (404, "not_found")
    assert (await server.get("/chat/health"))[1]["connections"] == 1
    assert seen == ["/chat/ws", "/", "/nowhere", "/chat/nowhere", "/chat/health"]


async def test_the_page_leads_to_itself_wherever_it_is(broker: Broker, serve: Serve) -> None:
    outer, inner = web.Application(), web.Application()
    broker.setup(inner, prefix="/a.b")
    outer.add_subapp("/deep", inner)
    server = await serve(outer)
    status, page = await server.get("/deep/a.b?x=1")
    assert status == 200
    assert 'src="static/console/app.js"' in page
    assert (await server.get("/deep/a.b/static/console/app.js"))[0] == 200
    assert (await server.get("/deep/a.b/livez"))[1] == {"status": "ok"}


async def test_with_an_empty_prefix_it_has_all_that_the_application_has_not(
    broker: Broker, serve: Serve, talk: Dial
) -> None:
    async def own(_: web.Request) -> web.Response:
        return web.Response(text="own")

    app = web.Application()
    app.router.add_get("/own", own)
    broker.setup(app, prefix="")
    server = await serve(app)
    assert await server.get("/own") == (200, "own")
    assert (await server.get("/"))[1].startswith("<!doctype html>")
    await (await talk(server, prefix="")).do("ping")


async def test_two_brokers_in_one_application_know_nothing_of_each_other(serve: Serve, talk: Dial) -> None:
    one, other = Broker(MEMORY, plugins=["metrics"]), Broker(MEMORY, plugins=["metrics"])
    one.register_handler("ring", lambda message, context: {"answer": "coming"})
    app = web.Application()
    one.setup(app, prefix="/one")
    other.setup(app, prefix="/one/other")
    server = await serve(app)
    clients = [await talk(server, prefix=prefix) for prefix in ("/one", "/one/other")]
    assert (await clients[0].do("ring"))["answer"] == "coming"
    assert (await clients[1].refused("ring"))["code"] == "unknown_action"
    assert [len(await broker.connections()) for broker in (one, other)] == [1, 1]
    assert await other.broadcast("here") == 1
    assert (await clients[1].event("broadcast"))["data"] == "here"
    assert await clients[0].do("echo", a=1) == {"a": 1}
    assert clients[0].heard == []


async def test_a_broker_belongs_to_one_application(broker: Broker) -> None:
    broker.setup(web.Application())
    with pytest.raises(RuntimeError, match="one application"):
        broker.setup(web.Application())


@pytest.mark.parametrize("prefix", ["broker", "/a b", "/{x}", "/%2e", "//evil"])
def test_what_is_no_prefix_is_refused(broker: Broker, prefix: str) -> None:
    app = web.Application()
    with pytest.raises(ValueError, match="such as /broker"):
        broker.setup(app, prefix=prefix)
    assert not list(app.router.routes())


async def test_what_keeps_it_from_starting_keeps_the_application_from_starting(tmp_path: Path, serve: Serve) -> None:
    settings = {"store": {"url": f"sqlite:///{tmp_path}/broker.db"}}
    before = asyncio.all_tasks()
    await serve(Broker(settings))
    mine = asyncio.all_tasks()
    with pytest.raises(CannotStart, match=r"broker\.db"):
        await serve(Broker(settings))
    assert asyncio.all_tasks() - mine == set()
    assert mine > before


class Broken(Plugin):
    """Cannot start."""

    async def start(self) -> None:
        raise OSError("no database")


async def test_a_plugin_that_cannot_start_does_so_too(serve: Serve) -> None:
    threads = set(threading.enumerate())
    with pytest.raises(CannotStart, match=r"plugins\.broken: start error: OSError: no database"):
        await serve(Broker(MEMORY, plugins=[Broken]))
    left = [thread for thread in threading.enumerate() if thread not in threads]
    ending = [thread for thread in left if not thread.name.startswith("asyncio_")]  # those are the loop's own
    for thread in ending:
        thread.join(10)
    assert [thread.name for thread in ending if thread.is_alive()] == []


def state_of_the_process() -> list[Any]:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    root = logging.getLogger()
    ours = [*root.handlers], root.level, [*logger._core.handlers]  # type: ignore[attr-defined]
    return [*handlers, *ours, gc.get_threshold(), gc.get_freeze_count(), sys.getswitchinterval()]


async def test_nothing_of_the_process_is_changed(broker: Broker, serve: Serve, talk: Dial) -> None:
    before = state_of_the_process()
    await (await talk(await serve(broker))).do("ping")
    assert state_of_the_process() == before


# -- its end ------------------------------------------------------------------------------------------


async def test_at_the_end_turns_end_clients_go_with_1012_and_nothing_is_left(serve: Serve, talk: Dial) -> None:
    ended: list[TurnEnded] = []
    broker = Broker({**MEMORY, "agents": AGENTS, "shutdown": {"grace": "100ms"}}, plugins=["rate_limit"])
    broker.on("turn", ended.append)
    tasks, threads = asyncio.all_tasks(), set(threading.enumerate())
    server = await serve(broker)
    client = await talk(server)
    await client.do("session.create", session_id="s", agent="endless")
    await client.do("turn.start", session_id="s", client_msg_id="1", content="hi")
    closed = asyncio.ensure_future(client.closed())
    await server.runner.cleanup()
    assert (await closed)[0] == 1012
    assert [event["event"] for event in client.heard if event.get("event") == "restarting"] == ["restarting"]
    assert len(ended) == 1
    await server.session.close()
    await client.leave()
    await until(lambda: asyncio.all_tasks() <= tasks)
    left = [thread.name for thread in set(threading.enumerate()) - threads]
    assert all(name.startswith("asyncio_") for name in left)  # the loop's own


async def test_an_agent_that_is_linked_does_not_hold_up_the_end_and_who_waits_for_it_is_answered(
    serve: Serve, talk: Dial
) -> None:
    agents = {**AGENTS, "planner": {"kind": "worker"}}
    settings = {"agents": agents, "projects": {"agent": "planner", "feedback": "1h"}}
    server = await serve(Broker({**MEMORY, **settings}))
    client, url = await talk(server), f"ws://127.0.0.1:{server.port}/broker/agent"
    async with ClientSession() as session, session.ws_connect(url, protocols=["agents.v1.json"]) as agent:
        await agent.send_json({"type": "hello", "data": {"agent": "planner"}})
        asking = asyncio.ensure_future(client.refused("project.feedback", project="p1", data=1))
        while (await agent.receive_json(timeout=PATIENCE))["type"] != "user_feedback":
            pass

        async def end() -> int | None:
            while not agent.closed:
                await agent.receive(timeout=PATIENCE)
            return agent.close_code

        ending = asyncio.ensure_future(end())
        async with asyncio.timeout(PATIENCE):  # aiohttp's server would wait for a minute
            await server.runner.cleanup()
        assert await ending == 1012
    assert (await asking)["code"] == "unavailable"


async def test_it_refuses_politely_before_it_is_there(broker: Broker, serve: Serve) -> None:
    """As when another part of the application's start-up takes its time, or after the broker's own clean-up."""
    server = await serve(broker)
    assert broker._app is not None
    await broker._app.front.stop()
    status, problem = await server.get("/broker/health")
    assert (status, problem["code"], problem["retry_after"]) == (503, "unavailable", 1.0)


# -- the doors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "rebound.example"}, 403),
        ({"Host": "known.example"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "https://known.example"}, 200),
    ],
)
async def test_names_and_pages_are_looked_at_as_at_its_own_door(
    serve: Serve, headers: dict[str, str], status: int
) -> None:
    server = await serve(Broker({**MEMORY, "listen": {"origins": ["https://known.example"]}}))
    assert (await server.get("/broker/api/v1/connections", headers=headers))[0] == status


async def test_a_foreign_page_s_socket_is_refused(broker: Broker, serve: Serve, talk: Dial) -> None:
    server = await serve(broker)
    with pytest.raises(InvalidStatus) as refusal:
        await talk(server, origin="https://evil.example")
    assert refusal.value.response.status_code == 403


async def test_no_more_sockets_than_allowed_and_the_application_goes_on(serve: Serve, talk: Dial) -> None:
    async def home(_: web.Request) -> web.Response:
        return web.Response(text="home")

    broker = Broker({**MEMORY, "listen": {"max_connections": 2}})
    app = web.Application()
    app.router.add_get("/", home)
    broker.setup(app)
    server = await serve(app)
    first, _ = await talk(server), await talk(server)
    with pytest.raises(InvalidStatus) as refusal:
        await talk(server)
    assert refusal.value.response.status_code == 503
    assert (await server.get("/broker/livez"))[0] == 200
    assert await server.get("/") == (200, "home")
    await first.leave()
    await until(lambda: broker.stats.connections == 1)
    await (await talk(server)).do("ping")


async def test_messages_and_bodies_are_as_large_as_its_own_settings_say(serve: Serve, talk: Dial) -> None:
    small = {"message_bytes": 2000, "outbox_bytes": "8MiB"}
    one, other = Broker({**MEMORY, "limits": small}), Broker({**MEMORY, "limits": {**small, "message_bytes": "4MiB"}})
    app = web.Application(client_max_size=10_000)
    one.setup(app, prefix="/small")
    other.setup(app, prefix="/large")
    server = await serve(app)
    body = {"data": "x" * 1_000_000}
    assert (await server.get("/large/api/v1/broadcast", "POST", json=body, expect100=True))[0] == 200
    assert (await server.get("/small/api/v1/broadcast", "POST", json={"data": "x" * 2000}))[0] == 413
    client = await talk(server, prefix="/small")
    await client.send("x" * 2001)
    assert (await client.closed())[0] == 1009


async def test_a_body_is_asked_for_once(broker: Broker, serve: Serve) -> None:
    server = await serve(broker)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    head = "POST /broker/api/v1/broadcast HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Connection: close\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n".encode())
    async with asyncio.timeout(PATIENCE):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b'{"data":1}')
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
    writer.close()
    await writer.wait_closed()


async def test_beyond_this_machine_somebody_has_to_show_a_token_or_it_was_said_that_nobody_must(serve: Serve) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: only the address is of interest
            address = probe.getsockname()[0]
        except OSError:
            pytest.skip("this machine has no address but its own")
    expected = {False: 403, True: 200}
    for insecure, status in expected.items():
        server = await serve(Broker({**MEMORY, "listen": {"insecure": insecure}}), host=address)
        async with server.session.get(f"http://{address}:{server.port}/broker/health") as answer:
            assert answer.status == status


# -- the example --------------------------------------------------------------------------------------


async def test_the_example_answers_and_stops(dial: Dial) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-u", str(ROOT / "examples/embedding.py"), "0", stdout=-1, stderr=subprocess.DEVNULL
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE), ClientSession() as session:
            port = int((await process.stdout.readline()).decode().strip("= \n").rpartition(":")[2])
            client = await dial(port, path="/broker/ws")
            assert await client.do("add", numbers=[1, 2, 3]) == {"sum": 6}
            assert (await client.event("message"))["data"] == {"note": "adding for 127.0.0.1"}
            async with session.get(f"http://127.0.0.1:{port}/") as answer:
                assert await answer.json() == {"visits": {"broker.v1.json": 1}, "here": 1}
            process.send_signal(signal.SIGTERM)
            assert (await client.closed())[0] == 1012
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()

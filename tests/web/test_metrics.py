"""What Prometheus sees of a broker at work, and who may look."""

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from pykka.messages import ProxyCall

from broker.app import App
from broker.testing import until

Start = Callable[..., Awaitable[App]]
Dial = Callable[..., Awaitable[Any]]
Get = Callable[..., Awaitable[tuple[int, Any, Any]]]
METRICS = {"plugins": {"metrics": {}}}


async def samples(app: App, get: Get) -> dict[str, float]:
    """Scrape, and return what was read by the series as it is written."""
    status, _, body = await get(app, "/metrics")
    assert status == 200
    lines = (line.rpartition(" ") for line in body.decode().splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


async def test_turns_are_counted_where_they_stand_and_no_longer_when_they_have_ended(
    start: Start, dial: Dial, get: Get
) -> None:
    app = await start(default_agent="endless", **METRICS)
    client = await dial(app.port)
    await client.do("session.create", session_id="s1")
    for number in "123":
        await client.do("turn.start", session_id="s1", client_msg_id=number, content="a b")
    await client.event("message.delta")
    await client.do("session.create", session_id="s2", agent="echo")
    await client.do("turn.start", session_id="s2", client_msg_id="1", content="a b")
    await client.event("turn.ended")
    seen = await samples(app, get)
    assert seen['broker_turns_open{state="running"}'] == 1
    assert seen['broker_turns_open{state="queued"}'] == 2
    assert seen['broker_turns_open{state="dispatching"}'] == 0
    assert seen["broker_turns_accepted_total"] == 4
    assert seen["broker_ready"] == seen["broker_store_up"] == 1
    assert seen["broker_connections_limit"] > 0
    await client.do("session.delete", session_id="s1")
    await until(lambda: not any(app.stats.turns_open.values()))
    assert (await samples(app, get))['broker_turns_open{state="queued"}'] == 0


async def test_turns_of_a_session_that_failed_are_counted_once(start: Start, dial: Dial) -> None:
    app = await start(default_agent="endless", **METRICS)
    client = await dial(app.port)
    await client.do("session.create", session_id="s1")
    for number in "12":
        await client.do("turn.start", session_id="s1", client_msg_id=number, content="a b")
    await client.event("message.delta")
    (session,) = [ref for ref in app.supervisor._children if ref.actor_class.__name__ == "Session"]
    session.tell(ProxyCall(("machine", "no_such_method"), (), {}), urgent=True)
    await until(lambda: app.stats.actor_failures["session"] == 1)
    ended = await client.event("turn.ended")
    assert ended["data"]["outcome"] == "lost"
    await client.event("message.delta")
    assert +app.stats.turns_open == {"running": 1}


async def test_agents_are_counted_by_profile(start: Start, get: Get, tmp_path: Path) -> None:
    agents = {"pool": {"kind": "worker"}, "server": {"kind": "websocket", "url": "ws://127.0.0.1:1/"}}
    app = await start(agents=agents, **METRICS)
    seen = await samples(app, get)
    queues = {'broker_agent_queue{agent="pool"}': 0, 'broker_agent_queue{agent="server"}': 0}
    assert {name: value for name, value in seen.items() if name in queues} == queues
    there = ("broker_agents_", "broker_agent_capacity")
    assert {name: value for name, value in seen.items() if name.startswith(there)} == {
        'broker_agents_linked{agent="pool"}': 0,
        'broker_agents_linked{agent="server"}': 0,
        'broker_agent_capacity{agent="pool"}': 0,
        'broker_agent_capacity{agent="server"}': 0,
    }


async def test_what_waits_for_clients_is_summed_up(start: Start, dial: Dial, get: Get) -> None:
    app = await start(**METRICS)
    client, slow = await dial(app.port), await dial(app.port)
    slow.socket.transport.pause_reading()
    payload = "x" * 100_000
    for _ in range(100):
        await client.do("send", to={"connections": [slow.welcome["connection_id"]]}, data=payload)
        if sum(app.stats.outboxes()):
            break
    seen = await samples(app, get)
    assert seen["broker_outbox_bytes"] == seen["broker_outbox_largest_bytes"] > 0
    assert seen["broker_connections"] == 2
    slow.drop()


async def test_a_scraper_elsewhere_may_call_the_broker_by_any_name(start: Start, get: Get) -> None:
    listen = {"host": "0.0.0.0", "insecure": True}
    app = await start(listen=listen, **METRICS)
    assert (await get(app, "/metrics", headers={"Host": "broker.monitoring.svc:3000"}))[0] == 200


async def test_who_may_not_read_is_told_what_to_do(start: Start, get: Get) -> None:
    app = await start(plugins={"metrics": {"allow": ["10.0.0.0/8"]}})
    status, _, body = await get(app, "/metrics")
    assert (status, body["code"]) == (403, "forbidden")
    assert "plugins.metrics.allow" in body["hint"]


async def test_who_shows_no_token_is_asked_for_one(start: Start, get: Get) -> None:
    token = "0123456789abcdef0123"
    app = await start(plugins={"metrics": {"allow": [], "token": token}})
    status, headers, body = await get(app, "/metrics")
    assert (status, body["code"], headers["WWW-Authenticate"]) == (401, "unauthenticated", "Bearer")
    assert (await get(app, "/metrics", headers={"Authorization": f"Bearer {token}"}))[0] == 200


UNWELL = '''
from broker.hooks import Plugin


class Unwell(Plugin):
    """Cannot do its work."""

    def trouble(self):
        return "my server is away"
'''


async def test_a_plugin_in_trouble_is_down_and_the_broker_not_ready(start: Start, get: Get, tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir(mode=0o755)
    (tmp_path / "plugins" / "unwell.py").write_text(UNWELL)
    app = await start(plugins={"metrics": {}, "unwell": {}})
    seen = await samples(app, get)
    assert (seen['broker_plugin_up{plugin="unwell"}'], seen['broker_plugin_up{plugin="metrics"}']) == (0, 1)
    assert seen["broker_ready"] == 0


async def test_short_delays_of_the_loop_are_kept_between_scrapes(start: Start, get: Get) -> None:
    app = await start(**METRICS)
    await until(lambda: sum(app.stats.lag_seconds.counts) > 0)
    seen = await samples(app, get)
    assert seen['broker_loop_delay_seconds_bucket{le="+Inf"}'] >= 1
    assert [name for name in seen if re.search(r"lag_seconds_bucket|lag_seconds_sum", name)] == []

"""The broker as its users start and stop it (PROTOCOL section 7)."""

import re
import signal
import socket
import sqlite3
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

Dial = Callable[..., Awaitable[Any]]
Make = Callable[..., Any]

AGENTS = {
    "echo": {"kind": "echo"},
    "slow": {"kind": "echo", "delay": "100ms"},
    "endless": {"kind": "echo", "delay": "1h"},
}


async def begin(client: Any, agent: str, content: str = "one two three four five") -> tuple[str, str]:
    """Start a turn in a new session, wait for its first words, and return both ids."""
    session_id = (await client.do("session.create", agent=agent))["session_id"]
    turn = await client.do("turn.start", session_id=session_id, client_msg_id="1", content=content)
    await client.event("message.delta")
    return session_id, turn["turn_id"]


# -- start -------------------------------------------------------------------------------------------


async def test_it_says_one_line_with_its_page_and_ctrl_c_ends_it_well(make_broker: Make, dial: Dial) -> None:
    broker = make_broker()
    line = broker.start()
    assert re.fullmatch(r"actor-broker \S+ is ready: http://127\.0\.0\.1:\d+/ \(Ctrl-C stops it\)\n", line)
    assert broker.get("/readyz") == {"status": "ok"}
    client = await dial(broker.port)
    broker.signal(signal.SIGINT)
    assert (await client.closed())[0] == 1012
    assert broker.process.stdout.read() == ""
    assert broker.wait() == 0
    assert "Traceback" not in broker.log


async def test_the_default_store_is_durable_and_memory_says_that_it_is_not(make_broker: Make, dial: Dial) -> None:
    for url, durable in [("sqlite:///broker.db", True), ("memory:", False)]:
        broker = make_broker(store={"url": url})
        broker.start()
        client = await dial(broker.port)
        session_id = (await client.do("session.create"))["session_id"]
        answer = await client.do("turn.start", session_id=session_id, client_msg_id="1", content="x")
        assert answer["durable"] is durable
        published = await client.do("room.publish", room="r", data=1)
        assert published.get("durable", True) is durable


async def test_a_weaker_sync_says_that_it_is_not_durable(make_broker: Make, dial: Dial) -> None:
    broker = make_broker(store={"sync": "normal"})
    broker.start()
    client = await dial(broker.port)
    session_id = (await client.do("session.create"))["session_id"]
    answer = await client.do("turn.start", session_id=session_id, client_msg_id="1", content="x")
    assert answer["durable"] is False


# -- what cannot start -------------------------------------------------------------------------------


def test_a_port_in_use_is_69_with_a_sentence(make_broker: Make) -> None:
    broker = make_broker()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        broker.port = taken.getsockname()[1]
        process = broker.launch()
        assert (process.stdout.read(), broker.wait()) == ("", 69)
    assert f"cannot listen on 127.0.0.1:{broker.port}: Address already in use" in broker.log
    assert "--port" in broker.log
    assert "Traceback" not in broker.log


def test_a_store_that_another_broker_has_is_69_and_names_it(make_broker: Make) -> None:
    first, second = make_broker(), make_broker()
    first.start()
    second.settings["store"] = {"url": f"sqlite:///{first.folder}/broker.db"}
    second.launch()
    assert second.wait() == 69
    assert f"another broker (process {first.process.pid})" in second.log
    assert "Traceback" not in second.log
    assert first.end() == 0
    second.start()
    assert second.end() == 0


def test_a_bad_configuration_is_78_and_nothing_is_started(make_broker: Make) -> None:
    broker = make_broker(listen={"prot": 3000}, heartbeat={"interval": "soon"})
    process = broker.launch()
    assert (process.stdout.read(), broker.wait()) == ("", 78)
    assert "did you mean 'port'?" in broker.log
    assert "heartbeat.interval" in broker.log
    assert "nothing was started" in broker.log
    assert sorted(file.name for file in broker.folder.iterdir()) == ["config.yaml", "log"]


def test_beyond_loopback_nobody_listens_without_tokens(make_broker: Make) -> None:
    broker = make_broker(listen={"host": "0.0.0.0"})
    broker.launch()
    assert broker.wait() == 78
    assert "insecure" in broker.log


# -- stop --------------------------------------------------------------------------------------------


async def test_a_running_turn_gets_its_grace_and_completes(make_broker: Make, dial: Dial) -> None:
    broker = make_broker(agents=AGENTS)
    broker.start()
    client = await dial(broker.port)
    session_id, _ = await begin(client, "slow")
    broker.signal(signal.SIGTERM)
    assert (await client.closed())[0] == 1012
    with pytest.raises(OSError, match=r"refused|503"):
        broker.get("/readyz")
    assert broker.wait() == 0
    broker.start()
    back = await dial(broker.port)
    await back.do("session.attach", session_id=session_id)
    log = await back.records("session.caught_up")
    assert log[-2]["data"]["outcome"] == "completed"
    assert log[-3]["data"]["content"] == "one two three four five"


async def test_a_turn_that_outlives_the_grace_ends_as_lost_before_the_exit(make_broker: Make, dial: Dial) -> None:
    broker = make_broker(agents=AGENTS, shutdown={"grace": "200ms"})
    broker.start()
    client = await dial(broker.port)
    session_id, turn_id = await begin(client, "endless")
    await client.leave()
    assert broker.end(signal.SIGTERM) == 0
    broker.start()
    back = await dial(broker.port)
    await back.do("session.attach", session_id=session_id)
    ends = [record for record in await back.records("session.caught_up") if record["event"] == "turn.ended"]
    assert [(end["turn_id"], end["data"]["outcome"]) for end in ends] == [(turn_id, "lost")]
    assert "was stopped" in ends[0]["data"]["reason"]


async def test_a_disk_that_hangs_does_not_keep_it_from_leaving_and_it_says_what_it_could_not_write(
    make_broker: Make, dial: Dial
) -> None:
    broker = make_broker(agents=AGENTS, shutdown={"grace": "200ms"})
    broker.start()
    client = await dial(broker.port)
    session_id, _ = await begin(client, "endless")
    assert (await client.do("room.publish", room="r", data="kept"))["seq"] == 1
    with closing(sqlite3.connect(broker.folder / "broker.db", isolation_level=None)) as lock:
        lock.execute("BEGIN IMMEDIATE")
        await client.send('{"id":"lost","type":"request","action":"room.publish","payload":{"room":"r","data":"lost"}}')
        await client.do("ping")
        assert broker.end(signal.SIGTERM) == 69
    assert broker.log.count("the store was not closed in time") == 1
    broker.start()
    back = await dial(broker.port)
    assert [event["data"]["data"] for event in (await back.do("room.history", room="r"))["events"]] == ["kept"]
    await back.do("session.attach", session_id=session_id)
    assert (await back.event("turn.ended"))["data"]["outcome"] == "lost"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_exits_at_once(make_broker: Make, dial: Dial, how: signal.Signals) -> None:
    broker = make_broker(agents=AGENTS, shutdown={"grace": "60s"})
    broker.start()
    client = await dial(broker.port)
    await begin(client, "endless")
    broker.signal(signal.SIGTERM)
    await client.event("restarting")
    assert broker.process.poll() is None
    began = time.monotonic()
    assert broker.end(how) == 1
    assert time.monotonic() - began < 5


async def test_after_kill_9_what_ran_is_lost_and_what_waited_goes_on(make_broker: Make, dial: Dial) -> None:
    broker = make_broker(agents=AGENTS)
    broker.start()
    client = await dial(broker.port)
    session_id, running = await begin(client, "endless", "a b")
    send = {"session_id": session_id, "client_msg_id": "2", "content": "c"}
    waiting = await client.do("turn.start", **send)
    assert waiting["status"] == "queued"
    broker.end(signal.SIGKILL)
    broker.start()
    back = await dial(broker.port)
    again = await back.do("turn.start", **send)
    assert (again["turn_id"], again["duplicate"]) == (waiting["turn_id"], True)
    await back.do("session.attach", session_id=session_id)
    ends = [await back.event("turn.ended") for _ in range(2)]
    assert [(end["turn_id"], end["data"]["outcome"]) for end in ends] == [
        (running, "lost"),
        (waiting["turn_id"], "completed"),
    ]


async def test_queued_turns_go_on_without_anybody_asking_for_their_session(make_broker: Make, dial: Dial) -> None:
    broker = make_broker(agents=AGENTS)
    broker.start()
    client = await dial(broker.port)
    session_id, _ = await begin(client, "endless", "a b")
    await client.do("turn.start", session_id=session_id, client_msg_id="2", content="c")
    broker.end(signal.SIGKILL)
    broker.start()
    deadline = time.monotonic() + 20
    outcomes: list[str] = []
    while len(outcomes) < 2:
        assert time.monotonic() < deadline, outcomes
        records = broker.get(f"/api/v1/sessions/{session_id}/records")["records"]
        outcomes = [record["data"]["outcome"] for record in records if record["event"] == "turn.ended"]
    assert outcomes == ["lost", "completed"]


# -- reload ------------------------------------------------------------------------------------------


def hears(broker: Any, words: str) -> None:
    """Wait until the broker has logged these words."""
    deadline = time.monotonic() + 20
    while words not in broker.log:
        assert time.monotonic() < deadline, broker.log
        broker.get("/livez")


async def test_sighup_takes_over_what_can_change_and_names_what_cannot(make_broker: Make, dial: Dial) -> None:
    broker = make_broker(log={"level": "info"})
    broker.start()
    with pytest.raises(InvalidStatus):
        await dial(broker.port, origin="https://chat.example.org")
    broker.settings["listen"] = {"origins": ["https://chat.example.org"]}
    broker.settings["rooms"] = {"history": 7}
    broker.write()
    broker.signal(signal.SIGHUP)
    hears(broker, "a restart is needed for: rooms")
    assert (await dial(broker.port, origin="https://chat.example.org")).welcome


async def test_sighup_never_takes_a_broken_file(make_broker: Make, dial: Dial) -> None:
    broker = make_broker()
    broker.start()
    broker.settings["listen"] = {"prot": 1}
    broker.write()
    broker.signal(signal.SIGHUP)
    hears(broker, "was not reloaded, the old one stays in force")
    assert "did you mean 'port'?" in broker.log
    assert (await dial(broker.port)).welcome


def test_a_sighup_during_the_start_is_kept_until_it_is_ready(make_broker: Make) -> None:
    broker = make_broker(log={"level": "info"})
    process = broker.launch()
    status = Path(f"/proc/{process.pid}/status")
    deadline = time.monotonic() + 20
    while not int(re.search(r"SigCgt:\s+(\w+)", status.read_text())[1], 16) & 1 << signal.SIGTERM - 1:
        assert time.monotonic() < deadline
    broker.settings["rooms"] = {"history": 7}
    broker.write()
    broker.signal(signal.SIGHUP)
    ready = process.stdout.readline()
    broker.port = int(re.search(r":(\d+)/", ready)[1])
    hears(broker, "a restart is needed for: rooms")

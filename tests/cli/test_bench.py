"""`broker bench`: what it counts of a broker, and of servers that lose, double and swap things."""

import json
import random
import signal
import socket
import time
from collections.abc import Callable
from typing import Any, Literal

import msgspec
import pytest
from aiohttp import ClientSession
from websockets.asyncio.server import ServerConnection, serve

from broker.cli.benchmark.parts import Echoes
from broker.cli.benchmark.peer import Heard, Peer
from broker.cli.benchmark.rooms import Lobby, Member
from broker.cli.benchmark.run import Plan, Run
from broker.cli.benchmark.tally import Sequence, Spread, Tally
from broker.nearby import Nearby

Mode = Literal["echo", "turns"]
Misbehave = Callable[[list[str]], list[str]]
"""Takes what a proper server would say next, and returns what this one says."""


# -- counting ---------------------------------------------------------------------------------------


def test_a_spread_knows_quantiles_to_two_per_cent_in_bounded_memory() -> None:
    spread, chance = Spread(), random.Random(1)
    times = [chance.lognormvariate(-6, 1.5) for _ in range(20_000)]
    for seconds in times:
        spread.observe(seconds)
    times.sort()
    for share in (0.5, 0.95, 0.99):
        assert spread.quantile(share) == pytest.approx(times[int(share * len(times))], rel=0.021)
    assert spread.as_data()["max"] == pytest.approx(times[-1], abs=1e-6)
    assert Spread().as_data() == {"count": 0, "p50": None, "p95": None, "p99": None, "max": None}


@pytest.mark.parametrize(
    ("came", "missing", "reordered", "doubled"),
    [
        ([1, 2, 3], 0, 0, 0),
        ([1, 3, 2, 4], 0, 1, 0),
        ([1, 4], 2, 0, 0),
        ([1, 1, 2, 1], 0, 0, 2),
        ([3, 2, 2, 1], 0, 2, 1),
        ([5000], 4999, 0, 0),
    ],
)
def test_a_sequence_tells_holes_from_lateness_and_doubles(
    came: list[int], missing: int, reordered: int, doubled: int
) -> None:
    sequence, tally = Sequence(), Tally()
    for number in came:
        sequence.take(number, tally)
    assert (sequence.missing, tally.reordered, tally.doubled) == (missing, reordered, doubled)


# -- a broker ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "times"),
    [
        ("echo", {"answer": 1}),
        ("turns", {"accepted": 1, "first token": 1, "turn": 1}),
        ("rooms", {"answer": 1, "delivery": 4}),
    ],
)
def test_of_a_broker_nothing_is_lost(command: Any, served: Any, mode: str, times: dict[str, int]) -> None:
    size = ("--connections", "8", "--rate", "20/s", "--for", "500ms", "--room-size", "4")
    ended = command("bench", "--mode", mode, *size, "--json", BROKER_URL=served.url)
    assert (ended.returncode, ended.stderr) == (0, "")
    report = json.loads(ended.stdout)
    assert (report["lost"], report["reordered"], report["doubled"], report["errors"]) == (0, 0, 0, {})
    assert 0 < report["answered"] == report["sent"] <= report["due"] == 80
    counts = {what: spread["count"] / report["sent"] for what, spread in report["latency"].items()}
    assert counts == times
    if mode == "turns":
        left = command("send", "--action", "session.list", BROKER_URL=served.url)
        assert "broker bench" not in left.stdout, "its sessions are deleted"


def test_a_broker_elsewhere_is_left_alone(command: Any) -> None:
    ended = command("bench", "--url", "http://192.0.2.1:3000")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "nothing was sent" in ended.stderr
    assert "--this-broker-is-mine" in ended.stderr


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_somebody_sees_how_far_it_is_and_may_stop_it(command: Any, terminal: Any, served: Any, how: int) -> None:
    flags = ("--mode", "turns", "--for", "1h", "--connections", "60", "--rate", "1/s")
    bench = terminal("bench", *flags, BROKER_URL=served.url)
    bench.until("connecting ", "turns ", "%")
    bench.process.send_signal(how)
    assert bench.wait() == 0
    assert "p99" in bench.seen
    assert max(map(len, bench.seen.rpartition("p50")[2].splitlines())) <= 80
    left = command("send", "--action", "session.list", '{"limit": 200}', BROKER_URL=served.url)
    assert "broker bench" not in left.stdout


def test_a_broker_that_answers_nothing_does_not_hold_up_who_wants_to_leave(terminal: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        bench = terminal("bench", "--for", "1h", BROKER_URL=f"http://127.0.0.1:{silent.getsockname()[1]}")
        with silent.accept()[0]:  # it has begun to connect
            bench.press("\x03")
            assert bench.wait() == 1
    assert "0:00:09" not in bench.seen, "what a handshake may take was not waited for"


async def test_times_count_from_when_a_message_was_due() -> None:
    tally = Tally()
    async with ClientSession() as http:
        peer = Peer(0, Nearby("http://127.0.0.1:1"), http, tally)
        echoes, member = Echoes(peer, tally, ""), Member(peer, tally, "", Lobby())
        for part, answer in ((echoes, b'{"n": 1}'), (member, b"{}")):
            await part.act(1, time.perf_counter() - 60)
            await part.act(2, time.perf_counter())
            part.hear(Heard("response", "1" if part is echoes else "publish", data=msgspec.Raw(answer)))
    assert tally.took["answer"].count == 2
    assert tally.took["answer"].quantile(0.1) > 59
    assert (tally.sent, tally.left_out) == (3, 1), "an echo is sent when it is due; an event waits for the last one"


# -- servers that misbehave -------------------------------------------------------------------------


async def answers(socket: ServerConnection, misbehave: Misbehave) -> None:
    """Welcome a client, and answer echoes and turns as a broker does, but for what `misbehave` makes of it."""
    await socket.send(json.dumps({"type": "notification", "event": "welcome", "data": {}}))
    seq = 0
    async for text in socket:
        asked = json.loads(text)
        said = [{"id": asked["id"], "type": "response", "data": asked["payload"]}]
        if asked["action"] == "session.create":
            said[0]["data"] = {**asked["payload"], "epoch": "e", "head": 0}
        elif asked["action"] == "turn.start":
            said += list(turn(asked["payload"], seq))
            seq += 4
        for one in misbehave([json.dumps(one) for one in said]):
            await socket.send(one)


def turn(asked: dict[str, Any], seq: int) -> Any:
    """Yield the records of a turn."""
    message = asked["client_msg_id"]
    for event, data in (
        ("user.message", {"client_msg_id": message}),
        ("turn.started", {}),
        ("message.delta", {"text": "hi"}),
        ("turn.ended", {"outcome": "completed"}),
    ):
        seq += 1
        record = {
            "type": "notification",
            "event": event,
            "session_id": asked["session_id"],
            "seq": seq,
            "turn_id": message,
        }
        yield {**record, "data": data}


class Clumsy:
    """Loses, doubles and swaps the answers to echoes; of turns, records and an end."""

    def __init__(self) -> None:
        self.count = 0
        self.kept: list[str] = []

    def echoes(self, said: list[str]) -> list[str]:
        """Lose the second, double the third, and say the fourth after the fifth."""
        self.count += 1
        if self.count == 4:
            self.kept = said
        return {2: [], 3: said * 2, 4: [], 5: [*said, *self.kept]}.get(self.count, said)

    def turns(self, said: list[str]) -> list[str]:
        """Lose a record of the first turn, swap two of the second, and end the third never."""
        self.count += 1
        if self.count == 2:
            del said[2]
        elif self.count == 3:
            said[2], said[3] = said[3], said[2]
        elif self.count == 4:
            del said[-1]
        return said


@pytest.mark.parametrize(
    ("mode", "fault", "lost", "reordered", "doubled"), [("echo", "echoes", 1, 1, 1), ("turns", "turns", 2, 1, 0)]
)
async def test_what_a_server_does_wrong_is_counted(
    mode: Mode, fault: str, lost: int, reordered: int, doubled: int
) -> None:
    report = await measured(getattr(Clumsy(), fault), mode)
    assert (report["lost"], report["reordered"], report["doubled"]) == (lost, reordered, doubled)


async def measured(misbehave: Misbehave, mode: Mode) -> dict[str, Any]:
    """Run against a server that misbehaves, and return the report."""
    async with serve(lambda socket: answers(socket, misbehave), "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
        plan = Plan(Nearby(url), mode=mode, connections=1, rate=20, seconds=0.3, patience=0.2)
        return await Run(plan, lambda what, done, total: None).run()


def test_what_was_lost_is_a_failure(command: Any, served: Any) -> None:
    flags = ("--connections", "1", "--for", "100ms", "--patience", "100ms", "--size", "2MiB", "--json")
    ended = command("bench", *flags, BROKER_URL=served.url)
    report = json.loads(ended.stdout)
    assert (ended.returncode, report["lost"], report["errors"]) == (1, 1, {"closed_1009": 1})

"""The heartbeat: only a pong counts, so that a peer which sends but reads nothing is caught too."""

from typing import Any

import pytest

from broker.actors.heartbeat import SLOTS, Heartbeats
from broker.errors import CloseCode
from broker.testing import settled

INTERVAL, TIMEOUT = 30.0, 10.0


@pytest.fixture
def heartbeats(house: Any) -> Any:
    heartbeats = Heartbeats(INTERVAL, TIMEOUT, house.clock)
    heartbeats.start()
    yield heartbeats
    heartbeats.stop()


def pings(client: Any) -> int:
    return sum(frame.opcode == 9 for frame in client.socket.frames)


async def test_a_peer_is_pinged_once_each_interval_and_stays_if_it_answers(house: Any, heartbeats: Any) -> None:
    client = house.connect()
    heartbeats.add(client.ref)
    house.clock.advance(INTERVAL - 0.01)
    assert pings(client) == 0
    for number in range(1, 5):
        house.clock.advance(1)
        assert pings(client) == number
        client.ref.actor.ponged(bytes(client.socket.frames[-1].payload))
        house.clock.advance(INTERVAL - 1)
    assert client.ref.actor.close_code is None


async def test_a_peer_that_sends_but_does_not_pong_is_closed_with_4000_and_cut(house: Any, heartbeats: Any) -> None:
    client = house.connect()
    heartbeats.add(client.ref)
    house.clock.advance(INTERVAL + 0.01)
    for _ in range(5):
        await house.registry.ask("anything")  # the peer goes on sending; nobody takes that for a pong
        house.clock.advance(TIMEOUT / 5 - 0.1)
    await settled(client.ref)
    assert client.ref.actor.close_code is None
    house.clock.advance(1)
    await settled(client.ref)
    assert client.socket.close_code == CloseCode.HEARTBEAT_MISSED
    assert house.stats.dropped == {"heartbeat": 1}
    house.clock.advance(house.connection.patience)
    assert client.socket.aborted


async def test_only_the_pong_that_carries_the_last_ping_counts(house: Any, heartbeats: Any) -> None:
    client = house.connect()
    heartbeats.add(client.ref)
    house.clock.advance(INTERVAL + 0.01)
    first = client.socket.frames[-1].payload
    client.ref.actor.ponged(first)
    house.clock.advance(INTERVAL)
    assert pings(client) == 2
    for guess in (b"", b"broker", first):
        client.ref.actor.ponged(guess)
    house.clock.advance(TIMEOUT + 0.5)
    await settled(client.ref)
    assert client.socket.close_code == CloseCode.HEARTBEAT_MISSED


async def test_a_stalled_peer_is_cut_even_though_it_never_reads_the_good_bye(house: Any, heartbeats: Any) -> None:
    client = house.connect()
    client.socket.stall()
    heartbeats.add(client.ref)
    house.clock.advance(INTERVAL + TIMEOUT + 0.6)
    await settled(client.ref)
    house.clock.advance(house.connection.patience)
    assert client.socket.aborted
    assert client.socket.close_code is None


async def test_who_is_removed_or_gone_is_left_alone(house: Any, heartbeats: Any) -> None:
    removed, gone = house.connect(), house.connect()
    heartbeats.add(removed.ref)
    heartbeats.add(gone.ref)
    heartbeats.remove(removed.ref)
    heartbeats.remove(removed.ref)
    await gone.hang_up()
    house.clock.advance(2 * INTERVAL)
    assert pings(removed) == pings(gone) == 0


async def test_pings_are_spread_over_the_interval_and_cost_one_timer_for_all(house: Any, heartbeats: Any) -> None:
    clients = []
    timers = house.clock.waiting
    for _ in range(SLOTS):
        clients.append(house.connect())
        heartbeats.add(clients[-1].ref)
        house.clock.advance(INTERVAL / SLOTS)
    assert house.clock.waiting == timers
    house.clock.advance(INTERVAL / 2)
    pinged = sum(map(pings, clients))
    assert SLOTS / 2 - 1 <= pinged <= SLOTS / 2 + 2


async def test_a_wheel_that_was_stopped_turns_no_more(house: Any, heartbeats: Any) -> None:
    client = house.connect()
    heartbeats.add(client.ref)
    heartbeats.stop()
    house.clock.advance(3 * INTERVAL)
    assert pings(client) == 0


async def test_who_says_nothing_for_too_long_is_closed_with_4504_at_the_next_look(house: Any) -> None:
    heartbeats = Heartbeats(INTERVAL, TIMEOUT, house.clock, idle=100.0)
    heartbeats.start()
    silent, talker = house.connect(), house.connect()
    for client in (silent, talker):
        heartbeats.add(client.ref)
    timers = house.clock.waiting

    async def pass_time(seconds: float) -> None:
        """Let both answer their pings, but only one of them speak."""
        for _ in range(round(seconds / INTERVAL)):
            house.clock.advance(INTERVAL)
            for client in (silent, talker):
                if pings(client):
                    client.ref.actor.ponged(bytes([f for f in client.socket.frames if f.opcode == 9][-1].payload))
            talker.ref.actor.spoke = True
        await settled(silent.ref)

    await pass_time(4 * INTERVAL)
    assert silent.socket.close_code is None
    assert house.clock.waiting == timers
    await pass_time(2 * INTERVAL)
    assert (silent.socket.close_code, talker.socket.close_code) == (CloseCode.LIMIT_REACHED, None)
    heartbeats.stop()


async def test_nobody_is_idle_where_no_time_is_set(house: Any, heartbeats: Any) -> None:
    client = house.connect()
    heartbeats.add(client.ref)
    for _ in range(100):
        house.clock.advance(INTERVAL)
        for ping in [frame for frame in client.socket.frames if frame.opcode == 9][-1:]:
            client.ref.actor.ponged(bytes(ping.payload))
    assert client.ref.actor.close_code is None

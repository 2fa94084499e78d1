"""The turns of a worker without a link: when one may be forgotten, and what is sent in which order."""

import asyncio
from contextlib import suppress

from broker.client.worker.turn import Turn
from broker.client.worker.turns import Turns
from broker.client.worker.wire import TurnCancel, TurnStart


async def forever(turn: Turn) -> str:
    await asyncio.Event().wait()
    return ""


async def ended(turns: Turns, turn_id: str) -> int:
    """End a turn, have all of it sent, and return the ping that is to follow."""
    turns.hear(TurnCancel(turn_id))
    async with asyncio.timeout(20):
        while not any(b'"turn_end"' in text for text in list(turns.unsent())):
            await turns.wake.wait()
            turns.wake.clear()
    return turns.mark()


async def test_a_turn_is_forgotten_by_a_pong_that_came_after_its_end_and_not_by_an_earlier_one() -> None:
    turns = Turns(forever, 3)
    for turn_id in ("t1", "t2", "t3"):
        turns.hear(TurnStart(turn_id, "s1"))
    assert turns.mark() == 0
    first, second = await ended(turns, "t1"), await ended(turns, "t2")
    assert (first, second, turns.mark()) == (1, 2, 0)
    turns.arrived(first)
    assert [name["turn_id"] for name in turns.names()] == ["t2", "t3"]
    turns.arrived(second)
    turns.arrived(second + 1)
    assert [name["turn_id"] for name in turns.names()] == ["t3"]
    assert not turns.idle.is_set()
    turns.close()
    assert turns.idle.is_set()


async def test_no_turn_keeps_the_link_for_itself() -> None:
    async def chatter(turn: Turn) -> str:
        for _ in range(40):
            await turn.say(turn.turn_id)
        return "end_turn"

    turns = Turns(chatter, 2)
    for turn_id in ("t1", "t2"):
        turns.hear(TurnStart(turn_id, "s1"))
    await asyncio.sleep(0)  # both have their say
    said = [b'"turn_id":"t1"' in text for text in turns.unsent()]
    assert said == [True] * 16 + [False] * 16
    assert turns.wake.is_set()
    turns.close()


async def test_a_pong_of_a_link_that_broke_counts_for_nothing_on_the_next() -> None:
    turns = Turns(forever, 1)
    turns.hear(TurnStart("t1", "s1"))
    mark = await ended(turns, "t1")
    turns.lost()
    turns.arrived(mark)
    assert [name["turn_id"] for name in turns.names()] == ["t1"]
    turns.close()


async def test_the_end_of_a_turn_that_swallows_its_cancel_is_told_without_it() -> None:
    gate = asyncio.Event()

    async def stubborn(turn: Turn) -> str:
        while not gate.is_set():
            with suppress(asyncio.CancelledError):
                await gate.wait()
        return "end_turn"

    turns = Turns(stubborn, 2)
    for turn_id in ("t1", "t2"):
        turns.hear(TurnStart(turn_id, "s1"))
    await asyncio.sleep(0)  # both are at work
    turns.hear(TurnCancel("t1"))
    turns.stop()
    await asyncio.sleep(0)
    try:
        assert turns.cut()
        assert not turns.cut()
    finally:
        gate.set()
    ends = [text for text in turns.unsent() if b'"turn_accepted"' not in text]
    assert [b'"cancelled"' in text for text in ends] == [True, False]
    assert b"The worker was stopped." in ends[1]
    turns.arrived(turns.mark())
    assert turns.idle.is_set()

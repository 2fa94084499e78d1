"""A reply of the Messages API, from the first word of the prompt to its end, through the real SDK."""

import asyncio
from typing import Any

import msgspec
import pytest

from broker.agents.claude import api as claude
from broker.agents.port import Opening
from broker.messages import AgentEvent, Prompt, TextDelta, TurnFailed, TurnSettled, TurnTaken
from broker.testing import until

TAKEN = TurnTaken("t1")


def text(events: list[AgentEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta) and not event.thought)


def failure(events: list[AgentEvent]) -> tuple[str, bool]:
    (failed,) = [event for event in events if isinstance(event, TurnFailed)]
    return failed.code, failed.retryable


# -- a reply -----------------------------------------------------------------------------------------


async def test_a_turn_is_taken_streamed_and_settled_with_its_usage(line: Any, stub: Any):
    events = await line().told("hello dear world")
    assert events[:-1] == [TAKEN, *(TextDelta("t1", f"{word} ", False, "msg_1") for word in ("hello", "dear", "world"))]
    settled = events[-1]
    assert (settled.turn_id, settled.stop_reason, settled.last) == ("t1", "end_turn", True)
    assert msgspec.json.decode(settled.usage) == {"input_tokens": 7, "output_tokens": 5}
    (body,) = stub.bodies
    assert body == {
        "model": "claude-test",
        "max_tokens": 8192,
        "stream": True,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hello dear world"}]}],
    }


async def test_the_profiles_system_prompt_and_bound_and_what_was_said_before_are_sent(line: Any, stub: Any):
    before = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
    await line(system="Be short.", max_tokens=9).told("three", messages=before)
    (body,) = stub.bodies
    assert (body["system"], body["max_tokens"]) == ("Be short.", 9)
    assert [(message["role"], message["content"][0]["text"]) for message in body["messages"]] == [
        ("user", "one"),
        ("assistant", "two"),
        ("user", "three"),
    ]


async def test_thinking_is_thought_and_the_stop_reason_comes_as_it_is(line: Any):
    events = await line().told("think")
    assert [(event.text, event.thought) for event in events if isinstance(event, TextDelta)] == [
        ("Hm. ", True),
        ("Well.", True),
        ("Yes.", False),
    ]
    assert events[-1].stop_reason == "max_tokens"


async def test_pings_and_unknown_events_are_passed_over(line: Any):
    events = await line().told("odd")
    assert (text(events), events[-1].stop_reason) == ("fine", "end_turn")


async def test_a_reply_without_a_word_settles_with_its_reason(line: Any):
    events = await line().told("mute")
    assert [type(event) for event in events] == [TurnTaken, TurnSettled]
    assert events[-1].stop_reason == "refusal"


async def test_a_reply_is_over_with_its_last_event_even_if_the_stream_stays_open(
    line: Any, stub: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(claude, "DRAIN_SECONDS", 0.01)
    talk = line()
    assert text(await talk.told("linger")) == "done"
    assert text(await talk.told("next one", turn_id="t2")) == "next one "
    await until(lambda: not talk.agent._replies)
    async with asyncio.timeout(20):
        await stub.left.wait()


async def test_what_happens_to_the_connection_after_the_last_event_changes_nothing(line: Any):
    talk = line()
    assert text(await talk.told("cut-after-the-end")) == "done"
    await until(lambda: not talk.agent._replies)
    assert talk.ear.rest() == []


async def test_an_api_that_counts_nothing_costs_nothing(line: Any):
    events = await line().told("uncounted")
    assert (text(events), events[-1]) == ("free", TurnSettled("t1", "end_turn", b"{}"))


async def test_turns_share_a_connection(line: Any, stub: Any):
    talk = line()
    for number in range(3):
        await talk.told("hello", turn_id=f"t{number}")
        await until(lambda: not talk.agent._replies)
    assert len(stub.connections) == 1


async def test_many_pieces_at_once_come_in_order_and_let_the_loop_breathe(line: Any):
    talk = line()
    talk.ask("shower")
    heard = [await talk.ear.next(), await talk.ear.next()]
    assert len(talk.ear.rest()) < 190
    events = heard + await talk.ear.until()
    assert isinstance(events[-1], TurnSettled)


async def test_a_prompt_that_says_nothing_is_refused_without_asking(line: Any, stub: Any):
    talk = line()
    talk.ask("  ")
    assert talk.ear.rest() == [TurnFailed("t1", "invalid_message", "The prompt says nothing.")]
    assert stub.tries == 0


async def test_a_second_turn_at_the_same_time_is_refused_and_the_first_goes_on(line: Any):
    talk = line()
    talk.ask("stall")
    assert [await talk.ear.next(), (await talk.ear.next()).text] == [TAKEN, "one "]
    assert failure(await talk.told("hello", turn_id="t2")) == ("busy", True)
    talk.link.cancel_turn("t1")
    assert (await talk.ear.next()).stop_reason == "cancelled"


# -- ending it ---------------------------------------------------------------------------------------


async def test_cancel_closes_the_stream_and_settles_with_what_it_has_cost(line: Any, stub: Any):
    talk = line()
    talk.ask("stall")
    await talk.ear.next()
    await talk.ear.next()
    talk.link.cancel_turn("another")
    talk.link.cancel_turn("t1")
    talk.link.cancel_turn("t1")
    (settled,) = talk.ear.rest()
    assert (settled.stop_reason, msgspec.json.decode(settled.usage)["input_tokens"]) == ("cancelled", 7)
    async with asyncio.timeout(20):
        await stub.left.wait()
    assert text(await talk.told("hello", turn_id="t2")) == "hello "


async def test_a_cancel_before_the_answer_begins_closes_the_request(line: Any, stub: Any):
    talk = line()
    talk.ask("hush")
    async with asyncio.timeout(20):
        await stub.said.wait()
        talk.link.cancel_turn("t1")
        await stub.left.wait()
    assert talk.ear.rest() == [TurnSettled("t1", "cancelled")]


async def test_a_cancel_at_once_asks_nobody(line: Any, stub: Any):
    talk = line()
    talk.ask("hello")
    talk.link.cancel_turn("t1")
    assert talk.ear.rest() == [TurnSettled("t1", "cancelled")]
    await until(lambda: not talk.agent._replies)
    assert (stub.tries, talk.ear.rest()) == (0, [])


async def test_a_turn_that_is_cancelled_while_the_client_is_made_leaves_it_to_the_next(line: Any):
    talk = line()
    talk.ask("hello")
    await until(lambda: talk.agent._api is not None)
    talk.link.cancel_turn("t1")
    assert talk.ear.rest() == [TurnSettled("t1", "cancelled")]
    assert text(await talk.told("hello", turn_id="t2")) == "hello "


async def test_a_cut_line_closes_the_stream_and_says_nothing(line: Any, stub: Any):
    talk = line()
    talk.ask("stall")
    await talk.ear.next()
    await talk.ear.next()
    (task,) = talk.agent._replies
    await talk.link.close()
    assert task.done()
    await talk.link.close()
    async with asyncio.timeout(20):
        await stub.left.wait()
    assert talk.ear.rest() == []


async def test_closing_the_profile_ends_all_replies_without_a_word(line: Any, stub: Any):
    talk = line()
    talk.ask("stall")
    await talk.ear.next()
    await talk.ear.next()
    await talk.agent.close()
    async with asyncio.timeout(20):
        await stub.left.wait()
    assert talk.ear.rest() == []
    assert not talk.agent._replies


async def test_a_paused_line_takes_nothing_from_the_stream(line: Any, stub: Any, ear: Any):
    talk = line()
    talk.ask("flood")
    assert [await ear.next(), (await ear.next()).text] == [TAKEN, "first"]
    talk.link.pause()
    stub.go_on.set()
    async with asyncio.timeout(20):
        await stub.said.wait()
    other = talk.agent.open(Opening("s2"), (others := type(ear)()).emit)
    for number in range(20):  # while another session's turns come and go
        other.start_turn(Prompt("s2", f"o{number}", b'"hello"'))
        await others.until()
    assert len(ear.rest()) <= 1
    assert stub.waiting() > 0
    talk.link.resume()
    events = await ear.until()
    numbers = [int(event.text[:6]) for event in events if isinstance(event, TextDelta)]
    assert numbers == list(range(stub.deltas - len(numbers), stub.deltas))
    assert len(numbers) >= stub.deltas - 1
    assert events[-1].stop_reason == "end_turn"

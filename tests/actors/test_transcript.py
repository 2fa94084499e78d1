"""What agents are told was said before: dispatched prompts as they then were, completed answers, and no more."""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from broker.actors.recovery import read_session
from broker.actors.transcript import KINDS, MESSAGES, SIZE, Transcript
from broker.messages import Principal, Record
from broker.operations import Cancel, Edit

ANN = Principal("ann", frozenset())
LAST = "a turn that comes after all of them"


def record(kind: str, turn_id: str, content: Any = None) -> Record:
    return Record(0, 0, kind, msgspec.json.encode({"content": content, "and": "more"}), turn_id)


def conversation(number: int, question: str = "q", answer: str = "a") -> Iterator[Record]:
    """Yield the records of one whole turn."""
    turn_id = f"t{number}"
    yield record("user.message", turn_id, f"{question}{number}")
    yield record("turn.started", turn_id)
    yield record("message.completed", turn_id, f"{answer}{number}")
    yield record("turn.ended", turn_id)


def told(*records: Record, turn_id: str = LAST) -> list[dict[str, Any]]:
    transcript = Transcript()
    transcript.extend(records)
    said: list[dict[str, Any]] = msgspec.json.decode(transcript.before(turn_id))
    return said


def said(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def test_nothing_was_said_before_the_first_turn() -> None:
    assert told(record("user.message", "t", "hi"), record("turn.started", "t"), turn_id="t") == []


def test_a_turn_is_told_the_turns_before_it_and_neither_itself_nor_those_behind_it() -> None:
    records = [*conversation(1), *conversation(2)][:-2]
    waiting = record("user.message", "t3", "waits")
    assert told(*records, waiting, turn_id="t2") == [said("user", "q1"), said("assistant", "a1")]


def test_a_prompt_counts_from_its_start_on_in_the_order_of_starting() -> None:
    asked = [record("user.message", f"t{number}", number) for number in (1, 2, 3)]
    started = [record("turn.started", f"t{number}") for number in (3, 1)]
    assert told(*asked, *started) == [said("user", 3), said("user", 1)]


def test_a_prompt_that_was_edited_counts_as_it_then_was() -> None:
    edits = [record("turn.edited", "t", "second"), record("turn.edited", "t", [{"type": "text", "text": "third"}])]
    records = [record("user.message", "t", "first"), *edits, record("turn.started", "t")]
    assert told(*records) == [said("user", [{"type": "text", "text": "third"}])]


def test_a_turn_that_was_never_started_leaves_nothing() -> None:
    transcript = Transcript()
    for number in range(1000):
        transcript.add("user.message", record("user.message", "", "x").data, f"t{number}")
        transcript.add("turn.ended", b"{}", f"t{number}")
    assert transcript.before(LAST) == b"[]"
    assert transcript._prompts == {}


def test_a_broken_answer_does_not_hide_the_question() -> None:
    records = [record("user.message", "t", "q"), record("turn.started", "t"), record("turn.ended", "t")]
    assert told(*records) == [said("user", "q")]


def test_only_the_newest_messages_are_told_and_they_begin_with_a_person_s() -> None:
    messages = told(*(each for number in range(MESSAGES) for each in conversation(number)))
    assert len(messages) == MESSAGES
    assert messages[0] == said("user", f"q{MESSAGES // 2}")
    assert messages[-1] == said("assistant", f"a{MESSAGES - 1}")
    odd = told(
        *(each for number in range(MESSAGES) for each in conversation(number)), record("message.completed", "t", "x")
    )
    assert odd[0]["role"] == "user"
    assert len(odd) == MESSAGES - 1


def test_what_is_told_has_a_bound_in_bytes() -> None:
    long = "x" * (SIZE // 10)
    messages = told(*(each for number in range(20) for each in conversation(number, answer=long)))
    assert 5 < len(messages) < 20
    assert len(msgspec.json.encode(messages)) <= SIZE + 2 * len(messages)
    assert told(*conversation(1), record("message.completed", "t", "x" * SIZE)) == []


@given(st.lists(st.integers(0, 6), max_size=130), st.integers(1, 12))
def test_the_newest_records_tell_the_same_as_all_if_they_reach_back_far_enough(sizes: list[int], more: int) -> None:
    """So that a session taken up from the store tells what the one before would have told."""
    turns = [[*conversation(number, "x" * (size * SIZE // 20))] for number, size in enumerate(sizes)]
    whole = told(*(record for turn in turns for record in turn))
    newest = turns[-(len(whole) // 2 + more) :]
    assert told(*(record for turn in newest for record in turn)) == whole


# -- as a session tells it --------------------------------------------------------------------------------


async def play(house: Any, session_id: str, *exchanges: tuple[str, str | None]) -> None:
    """Let turns be asked and answered; None for no answer."""
    for question, answer in exchanges:
        await house.start(session_id, question, by=ANN)
        turn = await house.agent.turn()
        if answer is not None:
            turn.say(answer)
        turn.settle()
        await house.settle()


async def messages(house: Any, session_id: str) -> list[dict[str, Any]]:
    await house.start(session_id, "and now?", by=ANN)
    turn = await house.agent.turn()
    turn.settle()
    await house.settle()
    said: list[dict[str, Any]] = msgspec.json.decode(turn.prompt.messages)
    return said


async def test_an_agent_is_told_with_each_turn_what_was_said_before(make_house: Callable[..., Any]) -> None:
    house = make_house(history=True)
    session_id = await house.create(owner="ann")
    assert await messages(house, session_id) == []
    await play(house, session_id, ("who?", "me"), ("what?", None))
    assert await messages(house, session_id) == [
        said("user", "and now?"),
        said("user", "who?"),
        said("assistant", "me"),
        said("user", "what?"),
    ]


async def test_an_agent_that_keeps_its_own_history_is_told_none(house: Any) -> None:
    session_id = await house.create(owner="ann")
    await play(house, session_id, ("who?", "me"))
    assert await messages(house, session_id) == []


async def test_a_session_that_was_asleep_tells_the_same(make_house: Callable[..., Any]) -> None:
    house = make_house(history=True)
    session_id = await house.create(owner="ann")
    await play(house, session_id, *((f"q{number}", f"a{number}") for number in range(30)))
    await house.start(session_id, "cut", by=ANN)
    waits = await house.start(session_id, "waits", by=ANN)
    dropped = await house.start(session_id, "dropped", by=ANN)
    await house.ask(session_id, Edit(ANN, waits["turn_id"], b'"waited"'))
    await house.ask(session_id, Cancel(ANN, dropped["turn_id"]))
    (await house.agent.turn()).say("half")
    await house.settle()
    await house.kill()
    house = make_house(history=True)
    await house.wake()
    waited = await house.agent.turn()
    assert waited.prompt.content == b'"waited"'
    told = msgspec.json.decode(waited.prompt.messages)
    assert told[:2] == [said("user", "q0"), said("assistant", "a0")]
    assert told[-2:] == [said("assistant", "a29"), said("user", "cut")]
    waited.settle()
    await house.settle()
    assert (await messages(house, session_id))[-2:] == [said("user", "cut"), said("user", "waited")]


async def test_taking_up_reads_no_more_than_a_transcript_holds(make_house: Callable[..., Any]) -> None:
    house = make_house(history=True)
    session_id = await house.create(owner="ann")
    await play(house, session_id, *((f"q{number}", "x" * (SIZE // 8)) for number in range(20)))
    stored = await read_session(house.handle, session_id, house.sessions.agents)
    assert stored is not None
    assert SIZE < sum(len(record.data) for record in stored.said) < 12 * SIZE
    assert {record.kind for record in stored.said} <= set(KINDS)

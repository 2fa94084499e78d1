"""What passes between a session and its agent beside the words: memory, configuration, variables, the queue, traces."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from broker import operations as ops
from broker.errors import BrokerError
from broker.messages import AgentReady, LinkStalled, Principal, VariablesSet

ANN = Principal("ann", frozenset())
BOB = Principal("bob", frozenset())


@pytest.fixture
async def session_id(house: Any) -> str:
    created: str = await house.create(owner="ann", workspace_dir="/srv")
    return created


def records(house: Any, session_id: str, *kinds: str) -> list[tuple[str, dict[str, Any]]]:
    held = house.disk.records(f"session:{session_id}")
    return [(r.kind, msgspec.json.decode(r.data)) for r in held if r.kind in kinds or not kinds]


async def remember(house: Any, session_id: str, memory: str) -> None:
    """Let a turn be run by an agent that calls the session so."""
    await house.start(session_id, by=ANN)
    turn = await house.agent.turn()
    data = msgspec.json.encode({"state": "ready", "agent_session_id": memory})
    turn.emit(AgentReady(turn.prompt.turn_id, data, memory))
    turn.settle()
    await house.settle()


# -- memory ---------------------------------------------------------------------------------------------


async def test_what_an_agent_calls_a_session_is_given_back_with_the_next_turn(house: Any, session_id: str) -> None:
    await remember(house, session_id, "theirs-1")
    assert records(house, session_id, "agent.state") == [
        ("agent.state", {"state": "ready", "agent_session_id": "theirs-1"})
    ]
    await house.start(session_id, by=ANN)
    assert (await house.agent.turn()).prompt.memory == "theirs-1"


async def test_an_agent_that_does_not_say_leaves_what_it_said_before(house: Any, session_id: str) -> None:
    await remember(house, session_id, "theirs")
    await house.start(session_id, by=ANN)
    turn = await house.agent.turn()
    turn.ready(None)
    turn.settle()
    await house.settle()
    await house.start(session_id, by=ANN)
    assert (await house.agent.turn()).prompt.memory == "theirs"


async def test_after_a_restart_the_newest_name_is_found_among_all_the_agent_s_states(
    make_house: Callable[..., Any],
) -> None:
    house = make_house(memory=True)
    session_id = await house.create(owner="ann")
    for memory in ("old", "new"):
        await remember(house, session_id, memory)
    await house.start(session_id, by=ANN)
    turn = await house.agent.turn()
    for data in (b'{"state":"starting"}', b'{"agent_session_id":7}', b"[]", b'{"agent_session_id":null}'):
        turn.report("agent.state", data)
    await house.settle()
    await house.kill()
    house = make_house(memory=True)
    await house.start(session_id, by=ANN)
    turn = await house.agent.turn()
    assert (turn.prompt.memory, turn.line.memory) == ("new", "new")


async def test_a_session_of_an_agent_without_memory_looks_for_none(
    house: Any, session_id: str, make_house: Callable[..., Any]
) -> None:
    await remember(house, session_id, "theirs")
    await house.kill()
    house = make_house()
    await house.start(session_id, by=ANN)
    assert (await house.agent.turn()).prompt.memory is None


# -- configuration -----------------------------------------------------------------------------------------


async def test_a_configuration_reaches_the_agent_and_its_answer_the_person(house: Any, session_id: str) -> None:
    assert await house.ask(session_id, ops.Configure(ANN, "plan", {"model": "large"})) == {}
    (line,) = house.agent.lines
    assert (line.workspace_dir, line.memory) == ("/srv", None)
    assert [(each.mode, each.options) for each in line.configured] == [("plan", {"model": "large"})]
    with pytest.raises(BrokerError) as refusal:
        await house.ask(session_id, ops.Configure(ANN, "impossible", {}))
    assert refusal.value.code == "not_found"
    await house.start(session_id, by=ANN)
    assert (await house.agent.turn()).line is line


async def test_a_session_whose_agent_is_no_more_says_so(house: Any) -> None:
    session_id = await house.create(owner="ann", agent="gone")
    with pytest.raises(BrokerError) as refusal:
        await house.ask(session_id, ops.Configure(ANN, "plan", {}))
    assert refusal.value.code == "agent_unavailable"
    await house.start(session_id, by=ANN)
    await house.settle()
    ((_, end),) = records(house, session_id, "turn.ended")
    assert (end["outcome"], end["error"]["code"]) == ("failed", "agent_unavailable")


async def test_a_closed_session_is_not_configured(house: Any, session_id: str) -> None:
    await house.ask(session_id, ops.Close(ANN))
    with pytest.raises(BrokerError) as refusal:
        await house.ask(session_id, ops.Configure(ANN, "plan", {}))
    assert refusal.value.code == "already_ended"


# -- variables ---------------------------------------------------------------------------------------------


async def test_an_agent_sets_variables_as_a_person_does_and_what_it_said_before_comes_first(
    house: Any, session_id: str
) -> None:
    await house.ask(session_id, ops.Update(ANN, None, {"a": 1, "b": 2}))
    await house.start(session_id, by=ANN)
    turn = await house.agent.turn()
    for word in ("one", "two"):
        turn.say(word)
    turn.emit(VariablesSet(turn.prompt.turn_id, b'{"a":null,"c":[3]}'))
    turn.settle()
    await house.settle()
    assert [kind for kind, _ in records(house, session_id)][-5:-2] == [
        "message.delta",
        "message.delta",
        "variables.changed",
    ]
    assert records(house, session_id, "variables.changed")[-1][1] == {
        "set": {"a": None, "c": [3]},
        "variables": {"b": 2, "c": [3]},
        "by": None,
        "agent": "fake",
    }
    await house.start(session_id, by=ANN)
    assert msgspec.json.decode((await house.agent.turn()).prompt.variables) == {"b": 2, "c": [3]}


async def test_variables_that_come_after_the_turn_are_the_session_s_and_not_the_turn_s(
    house: Any, session_id: str
) -> None:
    await house.start(session_id, by=ANN)
    turn = await house.agent.turn()
    turn.settle()
    turn.emit(VariablesSet(turn.prompt.turn_id, b'{"late":true}'))
    await house.settle()
    last = house.disk.records(f"session:{session_id}")[-1]
    assert (last.kind, last.turn_id) == ("variables.changed", None)


@pytest.mark.parametrize("variables", [b"[]", b"{", b'{"a":"\xff"}', b'{"a":"' + b"x" * (1 << 20) + b'"}'])
async def test_variables_that_cannot_be_taken_are_noted_and_break_nothing(
    house: Any, session_id: str, variables: bytes
) -> None:
    await house.start(session_id, by=ANN)
    turn = await house.agent.turn()
    turn.emit(VariablesSet(turn.prompt.turn_id, variables))
    turn.settle()
    await house.settle()
    assert [kind for kind, _ in records(house, session_id)][-2:] == ["debug", "turn.ended"]
    assert records(house, session_id, "variables.changed") == []
    assert records(house, session_id, "turn.ended")[0][1]["outcome"] == "completed"


async def test_a_person_s_variables_have_a_bound_too(house: Any, session_id: str) -> None:
    half = "x" * (1 << 19)
    await house.ask(session_id, ops.Update(ANN, None, {"a": half}))
    with pytest.raises(BrokerError) as refusal:
        await house.ask(session_id, ops.Update(ANN, "title", {"b": half}))
    assert refusal.value.code == "too_large"
    assert [kind for kind, _ in records(house, session_id)] == ["session.opened", "variables.changed"]


async def test_a_closed_session_s_agent_sets_nothing_any_more(house: Any, session_id: str) -> None:
    await house.start(session_id, by=ANN)
    turn = await house.agent.turn()
    await house.ask(session_id, ops.Close(ANN))
    turn.emit(VariablesSet(turn.prompt.turn_id, b'{"a":1}'))
    await house.settle()
    assert records(house, session_id, "variables.changed") == []


# -- the queue ---------------------------------------------------------------------------------------------


async def test_a_turn_that_waits_is_edited_and_runs_as_it_then_is_also_after_a_restart(
    house: Any, session_id: str, make_house: Callable[..., Any]
) -> None:
    await house.start(session_id, by=ANN)
    waits = await house.start(session_id, "first", by=ANN, client_msg_id="m")
    answer = await house.ask(session_id, ops.Edit(ANN, waits["turn_id"], b'"second"'))
    assert answer == {"seq": 6, "durable": False}
    ((_, edited),) = records(house, session_id, "turn.edited")
    assert (edited["message_id"], edited["content"]) == (waits["turn_id"], "second")
    again = await house.start(session_id, "first", by=ANN, client_msg_id="m")
    assert (again["turn_id"], again["duplicate"]) == (waits["turn_id"], True)
    await house.kill()
    house = make_house()
    await house.wake()
    assert (await house.agent.turn()).prompt.content == b'"second"'


async def test_only_its_author_edits_or_drops_a_turn(house: Any, session_id: str) -> None:
    await house.ask(session_id, ops.Share(ANN, "bob", "member"))
    running = await house.start(session_id, by=ANN)
    waits = await house.start(session_id, by=ANN)
    for operation in (ops.Edit(BOB, waits["turn_id"], b'"x"'), ops.Drop(BOB, waits["turn_id"])):
        with pytest.raises(BrokerError) as refusal:
            await house.ask(session_id, operation)
        assert refusal.value.code == "forbidden"
    with pytest.raises(BrokerError) as refusal:
        await house.ask(session_id, ops.Edit(ANN, running["turn_id"], b'"x"'))
    assert refusal.value.code == "conflict"
    assert await house.ask(session_id, ops.Drop(ANN, waits["turn_id"])) == {"status": "ended", "outcome": "cancelled"}
    with pytest.raises(BrokerError) as refusal:
        await house.ask(session_id, ops.Drop(ANN, waits["turn_id"]))
    assert refusal.value.code == "already_ended"


async def test_a_turn_says_which_one_it_tries_again(house: Any, session_id: str) -> None:
    first = await house.start(session_id, by=ANN)
    with pytest.raises(BrokerError) as refusal:
        await house.start(session_id, by=ANN, retry_of=first["turn_id"])
    assert (refusal.value.code, refusal.value.field) == ("conflict", "$.payload.retry_of")
    (await house.agent.turn()).die()
    await house.settle()
    await house.start(session_id, by=ANN, retry_of=first["turn_id"])
    await house.settle()
    assert records(house, session_id, "turn.started")[-1][1]["retry_of"] == first["turn_id"]
    assert (await house.ask(session_id, ops.Describe(ANN)))["turn"]["retry_of"] == first["turn_id"]


# -- the way of a turn ---------------------------------------------------------------------------------------


def steps(house: Any, some_id: str) -> list[str]:
    return [f"{step.where}: {step.what}" for step in house.traces.find(some_id).steps]


async def test_the_way_of_a_turn_can_be_followed_from_its_acceptance_to_those_who_saw_its_end(
    house: Any, session_id: str
) -> None:
    client = house.connect("ann")
    await client.attach(session_id)
    await house.start(session_id, by=ANN, client_msg_id="m")
    turn = await house.agent.turn()
    turn.ready()
    turn.take()
    turn.say("x")
    turn.say("y")
    turn.ask("key", "yes")
    turn.settle()
    await house.settle()
    assert house.traces.find("m") is house.traces.find(turn.prompt.turn_id)
    assert steps(house, "m") == [
        "session: accepted",
        "session: dispatching",
        "bridge: handed to the agent",
        "agent: ready",
        "agent: taken",
        "agent: first output",
        "session: waits for an answer",
        "session: goes on",
        "session: ended",
        "followers: shown to 1 viewer",
    ]
    assert all(step.reason is None for step in house.traces.find("m").steps)


async def test_where_a_turn_stopped_is_noted_with_the_reason(house: Any, session_id: str) -> None:
    await house.start(session_id, by=ANN, client_msg_id="m1")
    await house.start(session_id, by=ANN, client_msg_id="m2")
    turn = await house.agent.turn()
    turn.emit(LinkStalled(turn.prompt.turn_id, "the line is dead"))
    await house.settle()
    turn.die("it was killed by signal 9")
    await house.settle()
    told = [(f"{step.where}: {step.what}", step.reason) for step in house.traces.find("m1").steps]
    assert told[-4:-1] == [
        ("session: stalled", "the line is dead"),
        ("agent: lost", "it was killed by signal 9"),
        ("session: ended", "lost, it was killed by signal 9"),
    ]
    assert steps(house, "m2")[:2] == ["session: accepted", "session: queued"]


async def test_a_turn_that_was_cut_off_shows_every_rung_of_the_ladder(house: Any, session_id: str) -> None:
    accepted = await house.start(session_id, by=ANN, client_msg_id="m")
    await house.agent.turn()
    await house.ask(session_id, ops.Cancel(ANN, accepted["turn_id"]))
    await house.pass_time(10, step=5)
    ladder = [(step.what, step.reason) for step in house.traces.find("m").steps][-4:]
    assert ladder == [
        ("cancelling", "cancelled by ann"),
        ("ended", "cancelled by ann; the agent did not stop within 10 s and was cut off"),
        ("cut", None),
        ("shown to 0 viewers", None),
    ]


async def test_a_turn_of_an_earlier_run_has_a_trace_from_its_taking_up_on(
    house: Any, session_id: str, make_house: Callable[..., Any]
) -> None:
    await house.start(session_id, by=ANN, client_msg_id="m1")
    await house.start(session_id, by=ANN, client_msg_id="m2")
    await house.kill()
    house = make_house()
    await house.wake()
    await house.agent.turn()
    await house.settle()
    assert steps(house, "m1") == ["session: taken up", "session: ended", "followers: shown to 0 viewers"]
    assert steps(house, "m2") == ["session: taken up", "session: dispatching", "bridge: handed to the agent"]


@pytest.mark.parametrize("page", [1 << 20, 1])
async def test_what_a_turn_left_is_found_however_much_was_asked_since(
    house: Any, session_id: str, make_house: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr("broker.actors.recovery.LEFTOVERS", 3)
    monkeypatch.setattr("broker.actors.recovery.PAGE_BYTES", page)
    tried = await house.start(session_id, by=ANN)
    (await house.agent.turn()).fail()
    await house.settle()
    await house.start(session_id, by=ANN)
    turn = await house.agent.turn()
    turn.ask("k0", "yes")
    await house.start(session_id, by=ANN, retry_of=tried["turn_id"])
    for number in range(1, 6):
        turn.ask(f"k{number}", "yes")
        await house.settle()
        approval_id = records(house, session_id, "approval.requested")[-1][1]["approval_id"]
        await house.ask(session_id, ops.Answer(ANN, approval_id, "yes"))
    await house.kill()
    again = make_house()
    await again.wake()
    asked = [data["approval_id"] for _, data in records(again, session_id, "approval.requested")]
    answered = [data["approval_id"] for _, data in records(again, session_id, "approval.resolved")]
    assert answered == [*asked[1:], asked[0]]
    assert records(again, session_id, "turn.started")[-1][1]["retry_of"] == tried["turn_id"]

"""Who may do what with a session: its owner everything, members talk to its agent, viewers look on."""

from typing import Any

import msgspec
import pytest

from broker import operations as ops
from broker.errors import BrokerError
from broker.messages import Principal
from broker.testing import until

OWNER = Principal("ann", frozenset())
MEMBER = Principal("bob", frozenset())
VIEWER = Principal("eve", frozenset())
STRANGER = Principal("mallory", frozenset())
ADMIN = Principal("root", frozenset({"admin"}))


@pytest.fixture
async def session_id(house: Any) -> str:
    """Make a session that is shared with a member and a viewer."""
    session_id: str = await house.create(owner="ann")
    await house.ask(session_id, ops.Share(OWNER, "bob", "member"))
    await house.ask(session_id, ops.Share(OWNER, "eve", "viewer"))
    return session_id


def changes(house: Any, session_id: str) -> list[dict[str, Any]]:
    held = house.disk.records(f"session:{session_id}")
    return [msgspec.json.decode(record.data) for record in held if record.kind == "session.changed"]


async def refused(house: Any, session_id: str, operation: ops.Operation) -> bool:
    """Tell whether an operation is refused for want of a right; another refusal is none of that."""
    try:
        await house.ask(session_id, operation)
    except BrokerError as error:
        return error.code == "forbidden"
    return False


OPERATIONS = {
    "viewer": [
        ops.Describe,
        lambda by: ops.History(by, None, 10, "records"),
    ],
    "member": [
        lambda by: ops.Start(by, f"of {by.user}", b'"hi"', "queue"),
        lambda by: ops.Cancel(by, "unknown"),
        lambda by: ops.Edit(by, "unknown", b'"hi"'),
        lambda by: ops.Drop(by, "unknown"),
        lambda by: ops.Answer(by, "unknown", "yes"),
        lambda by: ops.Configure(by, "plan", {}),
        lambda by: ops.Update(by, "title", None),
    ],
    "owner": [
        lambda by: ops.Share(by, "somebody", "viewer"),
        ops.Close,
        ops.Delete,
    ],
}


@pytest.mark.parametrize(
    ("by", "may"),
    [
        (OWNER, ["viewer", "member", "owner"]),
        (ADMIN, ["viewer", "member", "owner"]),
        (MEMBER, ["viewer", "member"]),
        (VIEWER, ["viewer"]),
        (STRANGER, []),
    ],
    ids=lambda value: value.user if isinstance(value, Principal) else "",
)
async def test_each_role_may_do_what_it_may_and_nothing_else(
    house: Any, session_id: str, by: Principal, may: list[str]
) -> None:
    for role, operations in OPERATIONS.items():
        for make in operations:
            assert await refused(house, session_id, make(by)) is (role not in may), make(by)


async def test_a_viewer_sees_everything_live_and_a_stranger_nothing(house: Any, session_id: str) -> None:
    eve, mallory = house.connect("eve"), house.connect("mallory")
    await eve.attach(session_id)
    with pytest.raises(BrokerError):
        await mallory.attach(session_id)
    await house.update(session_id, "shown", by=OWNER)
    assert (await eve.socket.message(seq=4))["data"]["title"] == "shown"
    assert eve.seqs() == [1, 2, 3, 4]
    assert mallory.seqs() == []
    assert await eve.session(session_id, ops.Detach(VIEWER, eve.ref)) == {}


async def test_a_viewer_cannot_answer_what_the_agent_asks_and_it_stays_open(house: Any, session_id: str) -> None:
    await house.start(session_id, by=OWNER)
    turn = await house.agent.turn()
    turn.ask("key", "yes")
    await house.settle()
    ((approval,),) = [(await house.ask(session_id, ops.Describe(VIEWER)))["approvals"]]
    for by in (VIEWER, STRANGER):
        with pytest.raises(BrokerError) as refusal:
            await house.ask(session_id, ops.Answer(by, approval["approval_id"], "yes"))
        assert refusal.value.code == "forbidden"
    assert turn.answers.empty()
    assert (await house.ask(session_id, ops.Answer(MEMBER, approval["approval_id"], "yes")))["resolved_by"] == "bob"


async def test_sharing_is_told_to_all_and_kept(house: Any, session_id: str, make_house: Any) -> None:
    answer = await house.ask(session_id, ops.Share(OWNER, "eve", "member"))
    assert answer == {"head": 4, "durable": False}
    assert changes(house, session_id) == [
        {"members": {"bob": "member"}, "by": "ann"},
        {"members": {"bob": "member", "eve": "viewer"}, "by": "ann"},
        {"members": {"bob": "member", "eve": "member"}, "by": "ann"},
    ]
    await house.kill()
    house = make_house()
    assert not await refused(house, session_id, ops.Update(VIEWER, "now a member", None))
    with pytest.raises(BrokerError) as refusal:
        await house.ask(session_id, ops.Share(OWNER, "ann", "viewer"))
    assert refusal.value.code == "invalid_message"


async def test_a_user_with_whom_it_is_not_shared_any_more_sees_so_and_nothing_after_it(
    house: Any, session_id: str
) -> None:
    eve, again, bob = house.connect("eve"), house.connect("eve"), house.connect("bob")
    for client in (eve, again, bob):
        await client.attach(session_id, after_seq=-1)
    await house.ask(session_id, ops.Share(OWNER, "eve", None))
    await house.update(session_id, "secret", by=OWNER)
    await bob.socket.message(seq=5)
    await house.settle()
    for client in (eve, again):
        assert client.seqs() == [4]
        assert client.socket.messages[-2]["data"]["members"] == {"bob": "member"}
        last = client.socket.messages[-1]
        assert (last["event"], last["session_id"], last["data"]["code"]) == (
            "session.detached",
            session_id,
            "forbidden",
        )
        assert client.ref.actor.followed() == []
        with pytest.raises(BrokerError) as refusal:
            await client.attach(session_id)
        assert refusal.value.code == "forbidden"


async def test_who_saw_it_by_a_scope_that_is_gone_is_shown_it_no_longer(house: Any, session_id: str) -> None:
    root, bob = house.connect("root"), house.connect("bob")
    await root.session(session_id, ops.Attach(ADMIN, root.ref, -1, None))
    await bob.attach(session_id, after_seq=-1)
    for client, by in ((root, Principal("root", frozenset({"api"}))), (bob, MEMBER)):
        house.place(f"session:{session_id}").tell(ops.Recheck(by, client.ref))
    await house.settle()
    assert (root.ref.actor.followed(), root.socket.messages[-1]["event"]) == ([], "session.detached")
    assert bob.ref.actor.followed() == [f"session:{session_id}"]
    assert house.place(f"session:{session_id}").actor.watched == 1


async def test_a_user_is_sent_away_also_after_the_session_was_started_again(house: Any, session_id: str) -> None:
    eve = house.connect("eve")
    await eve.attach(session_id, after_seq=-1)
    session = house.place(f"session:{session_id}")
    before = session.actor
    session.tell(ops.Cancel(OWNER, "unknown"))  # nobody asks, so nobody can be refused, and the actor fails
    await until(lambda: session.actor is not before)
    await house.settle()
    await house.ask(session_id, ops.Share(OWNER, "eve", None))
    await house.update(session_id, "secret", by=OWNER)
    await house.settle()
    assert eve.seqs() == [4]


async def test_a_user_sent_away_while_the_session_started_again_does_not_come_back(house: Any, session_id: str) -> None:
    eve = house.connect("eve")
    await eve.attach(session_id, after_seq=-1)
    await house.settle()
    session = house.place(f"session:{session_id}")
    before = session.actor
    eve.ref.hold()  # it does not hear yet that the session failed
    session.tell(ops.Cancel(OWNER, "unknown"))  # nobody asks, so nobody can be refused, and the actor fails
    await until(lambda: session.actor is not before)
    await house.ask(session_id, ops.Share(OWNER, "eve", None))
    eve.ref.release()
    await house.settle()
    await house.update(session_id, "secret", by=OWNER)
    await house.settle()
    assert eve.seqs() == []
    assert eve.ref.actor.followed() == []
    assert session.actor.watched == 0

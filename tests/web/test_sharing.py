"""Sessions that several people share, each with the rights the owner gave (PROTOCOL 2a)."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from broker.app import App

Dial = Callable[..., Awaitable[Any]]
Start = Callable[..., Awaitable[App]]
Get = Callable[..., Awaitable[Any]]
Settings = dict[str, Any]

FAULTS = {"agents": {"faulty": {"kind": "echo", "faults": True}}}
OF_MEMBERS = {
    "session.update": {"title": "Mine now"},
    "session.configure": {"mode": "plan"},
    "turn.start": {"client_msg_id": "x", "content": "hi"},
    "turn.edit": {"turn_id": "x", "content": "hi"},
    "turn.drop": {"turn_id": "x"},
    "turn.cancel": {"turn_id": "x"},
    "approval.answer": {"approval_id": "x", "option_id": "allow"},
}
OF_OWNERS = {"session.share": {"user": "zoe", "role": "viewer"}, "session.close": {}, "session.delete": {}}


async def share(owner: Any, session_id: str, **roles: str | None) -> None:
    for user, role in roles.items():
        await owner.do("session.share", session_id=session_id, user=user, role=role)


@pytest.fixture
async def app(start: Start, people: Settings) -> App:
    return await start(**people, **FAULTS)


@pytest.fixture
async def ann(app: App, dial: Dial) -> Any:
    return await dial(app.port, "?name=ann")


@pytest.fixture
async def session_id(ann: Any) -> str:
    """A session of Ann's, where Bob is a member and Eve a viewer."""
    session_id = str((await ann.do("session.create", agent="faulty"))["session_id"])
    await share(ann, session_id, bob="member", eve="viewer")
    return session_id


# -- who may do what ---------------------------------------------------------------------------------


async def test_a_viewer_attaches_and_sees_everything(app: App, dial: Dial, ann: Any, session_id: str) -> None:
    eve = await dial(app.port, "?name=eve")
    await eve.do("session.attach", session_id=session_id)
    await ann.do("turn.start", session_id=session_id, client_msg_id="1", content="hello")
    assert (await eve.event("user.message"))["data"]["author"] == "ann"
    assert (await eve.event("message.completed"))["data"]["content"] == "hello"
    history = await eve.do("session.history", session_id=session_id, kind="messages")
    assert [message["content"] for message in history["messages"]] == ["hello", "hello"]
    await eve.do("session.detach", session_id=session_id)


@pytest.mark.parametrize("action", [*OF_MEMBERS, *OF_OWNERS])
async def test_a_viewer_changes_nothing(app: App, dial: Dial, ann: Any, session_id: str, action: str) -> None:
    eve = await dial(app.port, "?name=eve")
    payload = {**OF_MEMBERS, **OF_OWNERS}[action]
    before = (await ann.do("session.attach", session_id=session_id))["head"]
    error = await eve.refused(action, session_id=session_id, **payload)
    assert (error["code"], error["retryable"]) == ("forbidden", False)
    assert (await ann.do("session.attach", session_id=session_id))["head"] == before


async def test_a_viewer_cannot_answer_what_the_agent_asks_and_a_member_can(
    app: App, dial: Dial, ann: Any, session_id: str
) -> None:
    bob, eve = await dial(app.port, "?name=bob"), await dial(app.port, "?name=eve")
    await eve.do("session.attach", session_id=session_id)
    await ann.do("turn.start", session_id=session_id, client_msg_id="1", content="/ask please")
    answer = {
        "session_id": session_id,
        "approval_id": (await eve.event("approval.requested"))["data"]["approval_id"],
        "option_id": "allow",
    }
    assert (await eve.refused("approval.answer", **answer))["code"] == "forbidden"
    assert (await bob.do("approval.answer", **answer))["resolved_by"] == "bob"
    assert (await eve.event("approval.resolved"))["data"]["resolved_by"] == "bob"
    assert (await eve.event("turn.ended"))["data"]["outcome"] == "completed"


async def test_a_viewer_cannot_stop_what_runs_and_a_member_can(app: App, dial: Dial, ann: Any, session_id: str) -> None:
    bob, eve = await dial(app.port, "?name=bob"), await dial(app.port, "?name=eve")
    turn = await ann.do("turn.start", session_id=session_id, client_msg_id="1", content="/silence")
    cancel = {"session_id": session_id, "turn_id": turn["turn_id"]}
    assert (await eve.refused("turn.cancel", **cancel))["code"] == "forbidden"
    assert (await bob.do("turn.cancel", **cancel))["status"] == "cancelling"
    ended = (await ann.event("turn.ended"))["data"]
    assert (ended["outcome"], ended["by"]) == ("cancelled", "bob")


async def test_a_member_talks_to_the_agent(app: App, dial: Dial, ann: Any, session_id: str) -> None:
    bob = await dial(app.port, "?name=bob")
    await bob.do("session.attach", session_id=session_id)
    await bob.do("turn.start", session_id=session_id, client_msg_id="1", content="hi")
    assert (await ann.event("user.message"))["data"]["author"] == "bob"
    assert (await bob.event("turn.ended"))["data"]["outcome"] == "completed"
    await bob.do("session.update", session_id=session_id, title="Ours")
    assert (await ann.event("session.changed"))["data"]["by"] in {"ann", "bob"}


@pytest.mark.parametrize("action", OF_OWNERS)
async def test_a_member_does_not_do_what_is_the_owners(app: App, dial: Dial, session_id: str, action: str) -> None:
    bob = await dial(app.port, "?name=bob")
    error = await bob.refused(action, session_id=session_id, **OF_OWNERS[action])
    assert (error["code"], "owner" in error["message"]) == ("forbidden", True)


async def test_a_stranger_and_nobody_see_nothing_and_an_admin_everything(app: App, dial: Dial, session_id: str) -> None:
    for name in ("?name=mallory", ""):
        stranger = await dial(app.port, name)
        for action in ("session.attach", "session.history"):
            assert (await stranger.refused(action, session_id=session_id))["code"] == "forbidden"
    admin = await dial(app.port, "?name=root&scopes=admin")
    await admin.do("session.attach", session_id=session_id)
    await admin.do("session.close", session_id=session_id)


# -- sharing and no longer sharing ----------------------------------------------------------------------


async def test_sharing_is_seen_by_all_viewers_and_shown_to_who_comes(
    app: App, dial: Dial, get: Get, ann: Any, session_id: str
) -> None:
    while (changed := await ann.event("session.changed"))["data"]["members"] != {"bob": "member", "eve": "viewer"}:
        assert changed["data"]["by"] == "ann"
    head = (await ann.do("session.share", session_id=session_id, user="eve", role="member"))["head"]
    changed = await ann.event("session.changed")
    assert (changed["seq"], changed["data"]["members"]) == (head, {"bob": "member", "eve": "member"})
    _, _, body = await get(app, f"/api/v1/sessions/{session_id}?scopes=api&name=eve")
    assert body["members"] == {"bob": "member", "eve": "member"}
    assert (await ann.do("session.list"))["sessions"][0]["members"] == body["members"]


async def test_who_is_no_longer_shared_with_comes_in_no_more(app: App, dial: Dial, ann: Any, session_id: str) -> None:
    bob = await dial(app.port, "?name=bob")
    await bob.do("session.attach", session_id=session_id)
    await share(ann, session_id, bob=None)
    assert (await bob.refused("session.attach", session_id=session_id))["code"] == "forbidden"
    error = await bob.refused("turn.start", session_id=session_id, client_msg_id="1", content="hi")
    assert error["code"] == "forbidden"


async def test_who_is_no_longer_shared_with_sees_that_and_nothing_after_it(
    app: App, dial: Dial, ann: Any, session_id: str
) -> None:
    bob, eve = await dial(app.port, "?name=bob"), await dial(app.port, "?name=eve")
    for viewer in (bob, eve):
        await viewer.do("session.attach", session_id=session_id, after_seq=-1)
        await viewer.event("session.caught_up")
    await share(ann, session_id, bob=None)
    for viewer in (bob, eve):
        assert (await viewer.event("session.changed"))["data"]["members"] == {"eve": "viewer"}
    assert (await bob.event("session.detached"))["session_id"] == session_id
    await ann.do("turn.start", session_id=session_id, client_msg_id="1", content="now that he is gone")
    await eve.event("turn.ended")
    await bob.silent()


async def test_a_session_keeps_its_members_while_nobody_is_there(start: Start, people: Settings, dial: Dial) -> None:
    app = await start(**people, sessions={"idle_after": "1ms"})
    ann = await dial(app.port, "?name=ann")
    session_id = (await ann.do("session.create"))["session_id"]
    await share(ann, session_id, bob="viewer")
    await ann.do("session.detach", session_id=session_id)
    registry: Any = app.registry.actor
    while app.stats.sessions:
        registry._remind()  # what its timer does every half minute
        await ann.do("ping")
    bob = await dial(app.port, "?name=bob")
    await bob.do("session.attach", session_id=session_id)


@pytest.mark.parametrize(
    ("payload", "code", "field"),
    [
        ({"user": "ann", "role": "viewer"}, "invalid_message", "$.payload.user"),
        ({"user": "a\nb", "role": "viewer"}, "invalid_message", "$.payload.user"),
        ({"user": "zoe", "role": "owner"}, "invalid_message", "$.payload.role"),
        ({"user": "zoe"}, "invalid_message", "$.payload"),
    ],
)
async def test_what_cannot_be_shared_is_refused(
    ann: Any, session_id: str, payload: dict[str, str], code: str, field: str
) -> None:
    error = await ann.refused("session.share", session_id=session_id, **payload)
    assert (error["code"], error["field"]) == (code, field)


async def test_over_http_members_and_viewers_read_and_strangers_do_not(app: App, get: Get, session_id: str) -> None:
    for path in ("", "/messages", "/records"):
        found = [
            (await get(app, f"/api/v1/sessions/{session_id}{path}?scopes=api&name={name}"))[0]
            for name in ("ann", "bob", "eve", "mallory")
        ]
        assert found == [200, 200, 200, 403]

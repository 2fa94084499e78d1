"""The actions about sessions, by a real client (PROTOCOL 2a)."""

import asyncio
import base64
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from broker.app import App

Dial = Callable[..., Awaitable[Any]]
Start = Callable[..., Awaitable[App]]


async def whole_turn(client: Any, session_id: str, text: str, msg: str = "m1") -> list[Any]:
    """Have a turn, and return the records of it."""
    await client.do("turn.start", session_id=session_id, client_msg_id=msg, content=text)
    return list(await client.records("turn.ended"))


# -- create ------------------------------------------------------------------------------------------


async def test_create_answers_as_the_table_says_and_attaches_the_creator(app: App, dial: Dial) -> None:
    client = await dial(app.port)
    data = await client.do("session.create", title="Tea", variables={"x": [1]})
    opened = await client.event("session.opened")
    assert data == {
        "session_id": opened["session_id"],
        "agent": "echo",
        "created_at": data["created_at"],
        "epoch": data["epoch"],
        "head": 1,
        "workspace_dir": None,
        "durable": False,
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", data["created_at"])
    assert opened["seq"] == 1
    assert opened["data"] == {"title": "Tea", "agent": "echo", "owner": None, "variables": {"x": [1]}}
    assert (await whole_turn(client, data["session_id"], "hi"))[-1]["data"]["outcome"] == "completed"


async def test_a_chosen_id_is_taken_once(app: App, dial: Dial) -> None:
    client, other = await dial(app.port), await dial(app.port)
    assert (await client.do("session.create", session_id="my.own~1"))["session_id"] == "my.own~1"
    error = await other.refused("session.create", session_id="my.own~1")
    assert (error["code"], error["field"]) == ("session_exists", "$.payload.session_id")
    assert (await other.do("session.attach", session_id="my.own~1"))["head"] == 1


async def test_who_makes_a_session_and_speaks_at_once_is_shown_all_of_it(app: App, dial: Dial) -> None:
    client = await dial(app.port)
    for action, payload in (
        ("session.create", {"session_id": "s"}),
        ("turn.start", {"session_id": "s", "client_msg_id": "m", "content": "hi"}),
    ):
        await client.send(json.dumps({"id": action, "type": "request", "action": action, "payload": payload}))
    records = await client.records("turn.ended")
    assert [record["seq"] for record in records] == list(range(1, len(records) + 1))
    assert (records[0]["event"], records[-1]["data"]["outcome"]) == ("session.opened", "completed")


async def test_open_makes_a_session_once_and_attaches(app: App, dial: Dial) -> None:
    one, other = await dial(app.port), await dial(app.port)
    made = await one.do("session.open", session_id="mine", title="Tea", variables={"x": 1})
    assert (made["head"], made["state"], made["variables"], made["recovered"]) == (1, "open", {"x": 1}, True)
    assert (await one.event("session.opened"))["data"]["title"] == "Tea"
    await one.event("session.caught_up")
    again = await other.do("session.open", session_id="mine", title="Coffee", after_seq=-1)
    assert (again["epoch"], again["head"], again["variables"]) == (made["epoch"], 1, {"x": 1})
    await other.event("session.caught_up")
    assert (await whole_turn(other, "mine", "hi"))[-1]["data"]["outcome"] == "completed"
    assert (await one.records("turn.ended"))[-1]["data"]["outcome"] == "completed"


async def test_sessions_that_are_opened_at_the_same_time_are_one(app: App, dial: Dial) -> None:
    clients = [await dial(app.port) for _ in range(8)]
    opened = await asyncio.gather(*(client.do("session.open", session_id="mine") for client in clients))
    assert len({data["epoch"] for data in opened}) == 1


async def test_what_goes_with_a_message_is_kept_with_it(app: App, dial: Dial) -> None:
    client = await dial(app.port)
    await client.do("session.open", session_id="mine")
    metadata = {"actionId": "a1", "nested": {"x": [1]}}
    await client.do("turn.start", session_id="mine", client_msg_id="m1", content="hi", metadata=metadata)
    assert (await client.event("user.message"))["data"]["metadata"] == metadata
    await client.records("turn.ended")
    page = await client.do("session.history", session_id="mine", kind="messages")
    assert page["messages"][0]["metadata"]["actionId"] == "a1"
    again = await client.do("turn.start", session_id="mine", client_msg_id="m1", content="hi", metadata=metadata)
    assert again["duplicate"]


@pytest.mark.parametrize(("first", "other"), [({"a": 1}, {"a": 2}), ({"a": 1}, {}), ({}, {"a": 1})])
async def test_the_same_message_with_other_metadata_is_a_conflict(app: App, dial: Dial, first: Any, other: Any) -> None:
    client = await dial(app.port)
    await client.do("session.open", session_id="mine")
    message = {"session_id": "mine", "client_msg_id": "m1", "content": "hi"}
    await client.do("turn.start", **message, metadata=first)
    error = await client.refused("turn.start", **message, metadata=other)
    assert (error["code"], error["field"]) == ("conflict", "$.payload.client_msg_id")


@pytest.mark.parametrize(("metadata", "code"), [([], "invalid_message"), ({"x": "y" * 17_000}, "too_large")])
async def test_metadata_is_a_small_object(app: App, dial: Dial, metadata: Any, code: str) -> None:
    client = await dial(app.port)
    await client.do("session.open", session_id="mine")
    error = await client.refused("turn.start", session_id="mine", client_msg_id="m", content="hi", metadata=metadata)
    assert (error["code"], error["field"]) == (code, "$.payload.metadata")


@pytest.mark.parametrize("session_id", ["", "a b", "ä", "x" * 129, "a/b", "a\n"])
async def test_an_id_that_would_not_go_into_a_url_is_refused(app: App, dial: Dial, session_id: str) -> None:
    error = await (await dial(app.port)).refused("session.create", session_id=session_id)
    assert (error["code"], error["field"]) == ("invalid_message", "$.payload.session_id")


async def test_an_agent_that_nobody_configured_is_not_found(app: App, dial: Dial) -> None:
    error = await (await dial(app.port)).refused("session.create", agent="claude")
    assert (error["code"], error["hint"]) == ("not_found", "one of: echo, endless")


async def test_a_workspace_is_taken_with_its_links_resolved(app: App, dial: Dial, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    data = await (await dial(app.port)).do("session.create", workspace_dir=str(tmp_path / "link"))
    assert data["workspace_dir"] == str((tmp_path / "real").resolve())


@pytest.mark.parametrize("plugins", [{"rate_limit": {}}, {"auth": {"mode": "none"}, "rate_limit": {}}])
async def test_a_gate_that_only_refuses_leaves_workspaces_open(
    start: Start, dial: Dial, tmp_path: Path, plugins: dict[str, Any]
) -> None:
    app = await start(plugins=plugins)
    data = await (await dial(app.port)).do("session.create", workspace_dir=str(tmp_path))
    assert Path(data["workspace_dir"]).samefile(tmp_path)  # noqa: ASYNC240 - a test may wait


async def test_a_gate_that_may_identify_closes_workspaces(
    start: Start, people: dict[str, Any], dial: Dial, tmp_path: Path
) -> None:
    client = await dial((await start(**people)).port, "?name=ann")
    assert (await client.refused("session.create", workspace_dir=str(tmp_path)))["code"] == "forbidden"


@pytest.mark.parametrize("path", ["nowhere", "file", "re\x00al"])
async def test_a_workspace_that_is_no_directory_is_not_found(app: App, dial: Dial, tmp_path: Path, path: str) -> None:
    (tmp_path / "file").touch()
    error = await (await dial(app.port)).refused("session.create", workspace_dir=f"{tmp_path}/{path}")
    assert (error["code"], error["field"]) == ("workspace_not_found", "$.payload.workspace_dir")


async def test_a_link_out_of_the_roots_is_forbidden(start: Start, dial: Dial, tmp_path: Path) -> None:
    for name in ("in/side", "out"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "in" / "escape").symlink_to("../out")
    client = await dial((await start(sessions={"workspace_roots": [str(tmp_path / "in")]})).port)
    assert await client.do("session.create", workspace_dir=str(tmp_path / "in" / "side"))
    for path in ("in/escape", "out", "in/../out"):
        error = await client.refused("session.create", workspace_dir=str(tmp_path / path))
        assert error["code"] == "forbidden"


# -- attach ------------------------------------------------------------------------------------------


async def test_attach_answers_then_replays_then_says_caught_up_then_is_live(app: App, dial: Dial) -> None:
    writer, reader = await dial(app.port), await dial(app.port)
    created = await writer.do("session.create", variables={"a": 1})
    session_id = created["session_id"]
    log = await whole_turn(writer, session_id, "one two")
    data = await reader.do("session.attach", session_id=session_id)
    head = log[-1]["seq"]
    assert data == {
        "session_id": session_id,
        "epoch": created["epoch"],
        "head": head,
        "floor": 1,
        "state": "open",
        "turn": None,
        "queue": [],
        "approvals": [],
        "variables": {"a": 1},
        "recovered": True,
    }
    assert reader.heard == []
    replayed = await reader.records("session.caught_up")
    assert [message["seq"] for message in replayed[:-1]] == list(range(1, head + 1))
    assert [message.text for message in replayed[-1 - len(log) : -1]] == [message.text for message in log]
    assert replayed[-1] == {
        "type": "notification",
        "event": "session.caught_up",
        "session_id": session_id,
        "data": {"head": head},
    }
    live = await whole_turn(writer, session_id, "three", "m2")
    assert [message.text for message in await reader.records("turn.ended")] == [message.text for message in live]


async def test_after_seq_continues_and_minus_one_starts_now(app: App, dial: Dial) -> None:
    writer, reader = await dial(app.port), await dial(app.port)
    session_id = (await writer.do("session.create"))["session_id"]
    head = (await whole_turn(writer, session_id, "a b c"))[-1]["seq"]
    assert (await reader.do("session.attach", session_id=session_id, after_seq=3))["recovered"] is True
    replayed = await reader.records("session.caught_up")
    assert [message["seq"] for message in replayed[:-1]] == list(range(4, head + 1))
    await reader.do("session.detach", session_id=session_id)
    assert (await reader.do("session.attach", session_id=session_id, after_seq=-1))["recovered"] is True
    assert (await reader.records("session.caught_up"))[0]["data"] == {"head": head}


@pytest.mark.parametrize("where", [{"after_seq": 999}, {"after_seq": 1, "epoch": "another"}])
async def test_what_does_not_continue_is_a_reset_and_then_all_there_is(
    app: App, dial: Dial, where: dict[str, Any]
) -> None:
    client = await dial(app.port)
    created = await client.do("session.create")
    await client.event("session.opened")
    await client.do("session.detach", session_id=created["session_id"])
    data = await client.do("session.attach", session_id=created["session_id"], **where)
    assert data["recovered"] is False
    reset, opened, caught_up = await client.records("session.caught_up")
    assert (reset["event"], reset["data"]) == (
        "session.reset",
        {"epoch": created["epoch"], "head": 1, "floor": 1},
    )
    assert "seq" not in reset
    assert (opened["event"], caught_up["data"]) == ("session.opened", {"head": 1})


async def test_attach_shows_the_turn_that_runs_and_those_that_wait(app: App, dial: Dial) -> None:
    client, late = await dial(app.port), await dial(app.port)
    session_id = (await client.do("session.create", agent="endless"))["session_id"]
    running = await client.do("turn.start", session_id=session_id, client_msg_id="1", content="a b")
    waiting = await client.do("turn.start", session_id=session_id, client_msg_id="2", content="c")
    await client.event("message.delta")
    data = await late.do("session.attach", session_id=session_id)
    assert data["turn"]["turn_id"] == running["turn_id"]
    assert data["turn"]["state"] == "running"
    assert [turn["turn_id"] for turn in data["queue"]] == [waiting["turn_id"]]


async def test_a_session_that_is_not_there_is_not_found(app: App, dial: Dial) -> None:
    client = await dial(app.port)
    for action, more in [
        ("session.attach", {}),
        ("session.history", {}),
        ("session.update", {"title": "x"}),
        ("session.close", {}),
        ("session.delete", {}),
        ("turn.start", {"client_msg_id": "1", "content": "x"}),
        ("turn.cancel", {"turn_id": "x"}),
        ("approval.answer", {"approval_id": "x", "option_id": "y"}),
    ]:
        assert (await client.refused(action, session_id="none", **more))["code"] == "not_found", action


# -- detach, close, delete ---------------------------------------------------------------------------


async def test_who_detached_hears_nothing_more(app: App, dial: Dial) -> None:
    client, other = await dial(app.port), await dial(app.port)
    session_id = (await client.do("session.create"))["session_id"]
    await other.do("session.attach", session_id=session_id)
    await other.event("session.caught_up")
    assert await other.do("session.detach", session_id=session_id) == {}
    assert await other.do("session.detach", session_id=session_id) == {}
    other.heard.clear()
    await whole_turn(client, session_id, "hi")
    await other.silent()


async def test_attach_and_detach_in_one_breath_end_detached(app: App, dial: Dial) -> None:
    owner, viewer = await dial(app.port), await dial(app.port)
    session_id = (await owner.do("session.create"))["session_id"]
    for action in ("session.attach", "session.detach"):
        request = {"id": action, "type": "request", "action": action, "payload": {"session_id": session_id}}
        await viewer.send(json.dumps(request))
    await viewer.take(lambda message: message.get("id") == "session.detach")
    viewer.heard.clear()
    await whole_turn(owner, session_id, "hi")
    await viewer.silent()
    rows = {row["connection_id"]: row for row in (await owner.do("get_connections"))["connections"]}
    assert rows[viewer.welcome["connection_id"]]["sessions"] == []


async def test_a_closed_session_is_read_but_not_written(app: App, dial: Dial) -> None:
    client = await dial(app.port)
    session_id = (await client.do("session.create", agent="endless"))["session_id"]
    await client.do("turn.start", session_id=session_id, client_msg_id="1", content="a b")
    assert await client.do("session.close", session_id=session_id) == {}
    assert await client.do("session.close", session_id=session_id) == {}
    log = await client.records("turn.ended")
    assert (log[-1]["data"]["outcome"], "forced" in log[-1]["data"]) == ("cancelled", False)
    kinds = [message["event"] for message in log]
    assert kinds.count("session.closed") == 1
    assert kinds.index("turn.cancelling") < kinds.index("session.closed")
    error = await client.refused("turn.start", session_id=session_id, client_msg_id="2", content="x")
    assert error["code"] == "already_ended"
    again = await client.do("turn.start", session_id=session_id, client_msg_id="1", content="a b")
    assert (again["duplicate"], again["status"]) == (True, "ended")
    assert (await client.refused("session.update", session_id=session_id, title="x"))["code"] == "already_ended"
    assert (await client.do("session.attach", session_id=session_id))["state"] == "closed"
    assert (await client.do("session.history", session_id=session_id))["records"]


async def test_deleting_a_session_ends_its_turns_in_front_of_its_viewers(app: App, dial: Dial) -> None:
    client, viewer = await dial(app.port), await dial(app.port)
    session_id = (await client.do("session.create", agent="endless"))["session_id"]
    await viewer.do("session.attach", session_id=session_id)
    for number in ("1", "2"):
        await client.do("turn.start", session_id=session_id, client_msg_id=number, content="a b")
    assert await client.do("session.delete", session_id=session_id) == {}
    ends = [await viewer.event("turn.ended") for _ in range(2)]
    assert [end["data"]["outcome"] for end in ends] == ["cancelled", "cancelled"]
    assert app.stats.turns_ended == {"cancelled": 2}


async def test_a_deleted_session_is_gone_and_its_id_begins_anew(app: App, dial: Dial) -> None:
    client = await dial(app.port)
    first = await client.do("session.create", session_id="phoenix")
    await whole_turn(client, "phoenix", "hi")
    assert await client.do("session.delete", session_id="phoenix") == {}
    assert (await client.refused("session.attach", session_id="phoenix"))["code"] == "not_found"
    assert (await client.do("session.list"))["sessions"] == []
    second = await client.do("session.create", session_id="phoenix")
    assert (second["head"], second["epoch"] != first["epoch"]) == (1, True)


async def test_who_sees_a_session_that_is_deleted_is_told_that_it_is_shown_no_longer(app: App, dial: Dial) -> None:
    owner, other = await dial(app.port), await dial(app.port)
    await owner.do("session.create", session_id="s1")
    await other.do("session.attach", session_id="s1")
    await other.records("session.caught_up")
    await owner.do("session.delete", session_id="s1")
    for client in (owner, other):
        assert (await client.event("session.detached"))["session_id"] == "s1"
    again = await owner.do("session.create", session_id="s1")
    await owner.do("session.update", session_id="s1", title="of the second one")
    assert again["head"] == 1
    await owner.event("session.changed")
    await other.silent()


async def test_a_session_can_be_made_again_as_soon_as_its_deletion_is_answered(app: App, dial: Dial) -> None:
    client = await dial(app.port)
    epochs = set()
    for _ in range(20):
        epochs.add((await client.do("session.create", session_id="phoenix"))["epoch"])
        assert await client.do("session.delete", session_id="phoenix") == {}
    assert len(epochs) == 20


# -- list, history, update ---------------------------------------------------------------------------


async def test_sessions_are_listed_newest_first_in_pages(app: App, dial: Dial) -> None:
    client = await dial(app.port)
    ids = [(await client.do("session.create", title=str(n)))["session_id"] for n in range(5)]
    first = await client.do("session.list", limit=3)
    second = await client.do("session.list", limit=3, cursor=first["cursor"])
    rows = first["sessions"] + second["sessions"]
    assert sorted(row["session_id"] for row in rows) == sorted(ids)
    assert [row["created_at"] for row in rows] == sorted((row["created_at"] for row in rows), reverse=True)
    assert "cursor" not in second
    assert rows[0].keys() == {
        *(
            "session_id",
            "agent",
            "title",
            "workspace_dir",
            "owner",
            "members",
            "ephemeral",
            "state",
            "created_at",
            "updated_at",
        )
    }


@pytest.mark.parametrize(
    "place",
    ["nonsense", "5", " x", "-1 x", f"-{'9' * 30} x", f"{'9' * 30} x", f"{1 << 63} x", "1_0 x", "٣ x", "+1 x", "01 x"],
)
async def test_a_cursor_that_was_not_made_here_is_refused(app: App, dial: Dial, place: str) -> None:
    cursor = base64.urlsafe_b64encode(place.encode()).decode()
    error = await (await dial(app.port)).refused("session.list", cursor=cursor)
    assert (error["code"], error["field"]) == ("invalid_message", "$.payload.cursor")


async def test_history_comes_in_pages_oldest_first_within_each(app: App, dial: Dial) -> None:
    client = await dial(app.port)
    session_id = (await client.do("session.create"))["session_id"]
    head = (await whole_turn(client, session_id, "a b c"))[-1]["seq"]
    seqs: list[int] = []
    before = None
    while True:
        page = await client.do("session.history", session_id=session_id, limit=3, before_seq=before)
        seqs = [record["seq"] for record in page["records"]] + seqs
        before = page.get("before_seq")
        if before is None:
            break
        assert before == seqs[0]
    assert seqs == list(range(1, head + 1))


async def test_a_page_of_history_has_no_more_data_than_a_mebibyte_and_says_how_to_go_on(
    start: Callable[..., Awaitable[App]], dial: Dial, tmp_path: Path
) -> None:
    app = await start(store={"url": f"sqlite:///{tmp_path}/broker.db"})
    client = await dial(app.port)
    session_id = (await client.do("session.create"))["session_id"]
    for number in range(5):
        await client.do("session.update", session_id=session_id, variables={"x": f"{number}" * 200_000})
    pages = [await client.do("session.history", session_id=session_id, limit=1000)]
    while "before_seq" in pages[0]:
        page = await client.do("session.history", session_id=session_id, before_seq=pages[0]["before_seq"])
        pages.insert(0, page)
    assert [[record["seq"] for record in page["records"]] for page in pages] == [[1, 2], [3, 4], [5, 6]]


async def test_history_as_messages_is_the_conversation(app: App, dial: Dial) -> None:
    client = await dial(app.port)
    session_id = (await client.do("session.create"))["session_id"]
    turn = await whole_turn(client, session_id, "good day")
    page = await client.do("session.history", session_id=session_id, kind="messages")
    asked, answered = page["messages"]
    assert asked.keys() == {"message_id", "role", "content", "at", "turn_id", "metadata"}
    assert (asked["role"], asked["content"]) == ("user", "good day")
    assert (answered["role"], answered["content"]) == ("assistant", "good day")
    assert asked["turn_id"] == answered["turn_id"] == turn[-1]["turn_id"]


async def test_updates_are_seen_by_every_viewer_and_kept_as_snapshots(app: App, dial: Dial) -> None:
    client, viewer = await dial(app.port), await dial(app.port)
    session_id = (await client.do("session.create", variables={"keep": 1, "drop": 2}))["session_id"]
    await viewer.do("session.attach", session_id=session_id)
    variables = {"drop": None, "deep": {"er": [1, {}]}}
    assert await client.do("session.update", session_id=session_id, title="New", variables=variables) == {
        "head": 3,
        "durable": False,
    }
    for seen in (client, viewer):
        assert (await seen.event("session.changed"))["data"]["title"] == "New"
        assert (await seen.event("variables.changed"))["data"]["variables"] == {"keep": 1, "deep": {"er": [1, {}]}}
    attached = await (await dial(app.port)).do("session.attach", session_id=session_id)
    assert attached["variables"] == {"keep": 1, "deep": {"er": [1, {}]}}
    assert (await client.do("session.list"))["sessions"][0]["title"] == "New"


@pytest.mark.parametrize(
    ("action", "payload", "field"),
    [
        ("session.attach", {}, "$.payload"),
        ("session.attach", {"session_id": 5}, "$.payload.session_id"),
        ("session.attach", {"session_id": "x", "after_seq": -2}, "$.payload.after_seq"),
        ("session.attach", {"session_id": "x", "after_seq": 1.5}, "$.payload.after_seq"),
        ("session.list", {"limit": 0}, "$.payload.limit"),
        ("session.list", {"limit": 1001}, "$.payload.limit"),
        ("session.history", {"session_id": "x", "before_seq": 0}, "$.payload.before_seq"),
        ("session.history", {"session_id": "x", "kind": "all"}, "$.payload.kind"),
        ("session.update", {"session_id": "x", "variables": []}, "$.payload.variables"),
        ("session.create", {"title": "x" * 501}, "$.payload.title"),
        ("session.create", "text", "$.payload"),
    ],
)
async def test_a_payload_of_another_shape_names_the_field(
    app: App, dial: Dial, action: str, payload: object, field: str
) -> None:
    client = await dial(app.port)
    answer = await client.ask(action, payload)
    assert (answer["data"]["code"], answer["data"]["field"]) == ("invalid_message", field)
    await client.silent()


# -- leaving is not cancelling (P6) -------------------------------------------------------------------


async def test_a_turn_goes_on_when_everybody_has_left(start: Start, dial: Dial) -> None:
    app = await start(agents={"slow": {"kind": "echo", "delay": "20ms"}})
    client = await dial(app.port)
    session_id = (await client.do("session.create", agent="slow"))["session_id"]
    await client.do("turn.start", session_id=session_id, client_msg_id="1", content="a b c d e")
    await client.event("message.delta")
    client.drop()
    back = await dial(app.port)
    await back.do("session.attach", session_id=session_id)
    log = await back.records("turn.ended")
    assert log[-1]["data"]["outcome"] == "completed"
    seqs = [message["seq"] for message in log if "seq" in message]
    assert seqs == list(range(1, len(seqs) + 1))


async def test_an_ephemeral_session_outlasts_a_detach_and_ends_with_its_connection(app: App, dial: Dial) -> None:
    maker, viewer = await dial(app.port), await dial(app.port)
    session_id = (await maker.do("session.create", ephemeral=True))["session_id"]
    await maker.do("session.detach", session_id=session_id)
    assert (await viewer.do("session.attach", session_id=session_id))["state"] == "open"
    maker.drop()
    await viewer.event("session.closed")


async def test_ephemeral_sessions_count_as_followed_though_nobody_looks_at_them(
    app: App, dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.web.caller.FOLLOWED", 2)
    client = await dial(app.port)
    for session_id in ("one", "two"):
        await client.do("session.create", session_id=session_id, ephemeral=True)
        await client.do("session.detach", session_id=session_id)
    assert (await client.refused("session.create"))["code"] == "overloaded"
    await client.do("session.close", session_id="one")
    await client.do("session.create")


async def test_a_session_without_viewers_leaves_memory_and_comes_back(start: Start, dial: Dial) -> None:
    app = await start(sessions={"idle_after": "1ms"})
    client = await dial(app.port)
    session_id = (await client.do("session.create"))["session_id"]
    log = [await client.event("session.opened"), *await whole_turn(client, session_id, "hi")]
    await client.do("session.detach", session_id=session_id)
    registry: Any = app.registry.actor
    async with asyncio.timeout(10):
        while app.stats.sessions:
            registry._remind()  # what its timer does every half minute
            await client.do("ping")
    data = await client.do("session.attach", session_id=session_id)
    assert data["head"] == log[-1]["seq"]
    replayed = (await client.records("session.caught_up"))[:-1]
    assert [json.loads(message.text) for message in replayed] == log

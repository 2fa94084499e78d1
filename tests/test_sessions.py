"""How sessions look from outside, and where they may work."""

from pathlib import Path
from typing import Any

import attrs
import msgspec
import pytest

from broker.errors import BrokerError
from broker.messages import ANONYMOUS, Principal, Record, SessionRow
from broker.sessions import Role, check_workspace, messages_of, require, role_of, session_data, shared_with

AT = 1_700_000_000_000
MEMBERS = b'{"bob":"member","eve":"viewer"}'
ROW = SessionRow("s1", "ann", "echo", "/srv", "Plans", b'{"secret":1}', False, AT, AT + 1, MEMBERS)
OPEN = attrs.evolve(ROW, owner=None)
ADMIN = Principal("root", frozenset({"admin"}))


def test_a_session_is_shown_without_its_variables() -> None:
    assert session_data(ROW) == {
        "session_id": "s1",
        "agent": "echo",
        "title": "Plans",
        "workspace_dir": "/srv",
        "owner": "ann",
        "members": {"bob": "member", "eve": "viewer"},
        "ephemeral": False,
        "state": "open",
        "created_at": "2023-11-14T22:13:20.000Z",
        "updated_at": "2023-11-14T22:13:20.001Z",
    }


# -- roles -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "by", "role"),
    [
        (ROW, Principal("ann"), "owner"),
        (ROW, Principal("bob"), "member"),
        (ROW, Principal("eve"), "viewer"),
        (ROW, Principal("mallory"), None),
        (ROW, Principal(None), None),
        (ROW, Principal("eve", frozenset({"api", "agent", "debug"})), "viewer"),
        (ROW, ADMIN, "owner"),
        (ROW, ANONYMOUS, "owner"),
        (OPEN, Principal(None), "owner"),
        (OPEN, Principal("ann"), None),
        (OPEN, Principal("bob"), "member"),
        (attrs.evolve(ROW, members=b"{}"), Principal("bob"), None),
    ],
)
def test_what_somebody_is_to_a_session(row: SessionRow, by: Principal, role: Role | None) -> None:
    assert role_of(row, by) == role


def may(user: str, role: Role) -> bool:
    try:
        require(ROW, Principal(user), role)
    except BrokerError:
        return False
    return True


def test_each_role_may_do_what_those_before_it_may() -> None:
    roles: tuple[Role, ...] = ("viewer", "member", "owner")
    allowed = {user: [may(user, role) for role in roles] for user in ("mallory", "eve", "bob", "ann")}
    assert allowed == {
        "mallory": [False, False, False],
        "eve": [True, False, False],
        "bob": [True, True, False],
        "ann": [True, True, True],
    }


def test_a_refusal_says_what_one_is_and_a_stranger_is_told_nothing() -> None:
    for user, role, words in [("eve", "member", "a viewer"), ("bob", "owner", "its owner"), ("mallory", "viewer", "")]:
        with pytest.raises(BrokerError) as refusal:
            require(ROW, Principal(user), role)  # type: ignore[arg-type]
        assert words in refusal.value.message
        assert not {"ann", "bob", "eve"} & set(refusal.value.message.split())


def members(row: SessionRow) -> dict[str, str]:
    return msgspec.json.decode(row.members, type=dict[str, str])


def test_sharing_adds_changes_and_removes_a_user() -> None:
    row = shared_with(shared_with(attrs.evolve(ROW, members=b"{}"), "é", "viewer"), "bob", "viewer")
    assert members(row) == {"é": "viewer", "bob": "viewer"}
    assert members(shared_with(row, "bob", "member")) == {"é": "viewer", "bob": "member"}
    assert members(shared_with(row, "é", None)) == {"bob": "viewer"}
    assert shared_with(shared_with(row, "é", None), "bob", None).members == b"{}"
    assert members(shared_with(row, "nobody", None)) == members(row)


def test_a_session_is_not_shared_with_its_owner_or_with_a_crowd() -> None:
    with pytest.raises(BrokerError) as refusal:
        shared_with(ROW, "ann", "viewer")
    assert (refusal.value.code, refusal.value.field) == ("invalid_message", "$.payload.user")
    row = attrs.evolve(ROW, members=b"{}")
    for n in range(100):
        row = shared_with(row, f"u{n}", "member")
    with pytest.raises(BrokerError) as refusal:
        shared_with(row, "one more", "viewer")
    assert refusal.value.code == "too_large"
    assert members(shared_with(row, "u7", "viewer"))["u7"] == "viewer"
    assert len(members(shared_with(shared_with(row, "u7", None), "one more", "viewer"))) == 100


# -- messages ----------------------------------------------------------------------------------------


def said(seq: int, kind: str, message_id: str, content: str, turn_id: str = "t1", **more: Any) -> Record:
    data = {"message_id": message_id, "role": "user", "content": content, **more}
    return Record(seq, AT + seq, kind, msgspec.json.encode(data), turn_id)


def shown(records: list[Record]) -> list[dict[str, Any]]:
    """Return messages as they are told: as JSON."""
    messages: list[dict[str, Any]] = msgspec.json.decode(msgspec.json.encode(messages_of(records)))
    return messages


def test_a_message_stands_once_at_its_first_place_with_its_newest_content() -> None:
    page = [
        said(2, "user.message", "t1", "frist", client_msg_id="c1", author="ann"),
        said(3, "user.message", "t2", "second", "t2"),
        said(4, "turn.edited", "t1", "first", client_msg_id="c1", author="ann"),
        said(5, "turn.edited", "t1", "First.", client_msg_id="c1", author="ann"),
        said(9, "message.completed", "a", "draft"),
        said(12, "message.replaced", "a", "answer"),
        said(13, "message.replaced", "b", "a thought", thought=True),
    ]
    first, second, answer = shown(page)
    assert (first["content"], first["at"]) == ("First.", "2023-11-14T22:13:20.002Z")
    assert first["metadata"] == {"seq": 2, "changed_seq": 5, "client_msg_id": "c1", "author": "ann"}
    assert (second["content"], second["metadata"]) == ("second", {"seq": 3})
    assert (answer["content"], answer["metadata"]) == ("answer", {"seq": 9, "changed_seq": 12})


def test_a_change_of_a_message_on_an_older_page_stands_for_itself() -> None:
    (message,) = shown([said(40, "turn.edited", "t1", "better")])
    assert (message["message_id"], message["content"], message["metadata"]) == ("t1", "better", {"seq": 40})


def test_messages_of_two_turns_are_not_mixed_up_by_their_ids() -> None:
    page = [said(2, "message.completed", "m", "one", "t1"), said(3, "message.completed", "m", "two", "t2")]
    assert [message["content"] for message in shown(page)] == ["one", "two"]


def test_messages_are_made_of_records_and_keep_the_rest_as_metadata() -> None:
    data = b'{"message_id":"m1","role":"user","content":[{"type":"text"}],"client_msg_id":"c1","author":"ann"}'
    assert shown([Record(7, 1_700_000_000_000, "user.message", data, "t1")]) == [
        {
            "message_id": "m1",
            "role": "user",
            "content": [{"type": "text"}],
            "at": "2023-11-14T22:13:20.000Z",
            "turn_id": "t1",
            "metadata": {"seq": 7, "client_msg_id": "c1", "author": "ann"},
        }
    ]


def test_a_record_with_a_number_that_nobody_can_read_hides_no_message() -> None:
    data = b'{"message_id":"m","role":"user","content":[{"type":"t","n":1e999}],"metadata":{"a":1e999},"x":-1e999}'
    page = [Record(2, AT, "user.message", data, "t1"), said(3, "message.completed", "a", "answer")]
    first, second = messages_of(page)
    assert (bytes(first["content"]), bytes(second["content"])) == (b'[{"type":"t","n":1e999}]', b'"answer"')
    assert b'"metadata":{"a":1e999,"seq":2,"x":-1e999}' in msgspec.json.encode(first)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two roots, a directory in one of them, and links that lead out of it and back in."""
    for directory in ("root/inside", "root-but-not-really", "outside"):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "root" / "out").symlink_to(tmp_path / "outside")
    (tmp_path / "outside" / "in").symlink_to(tmp_path / "root" / "inside")
    (tmp_path / "root" / "file").touch()
    return tmp_path


def check(tree: Path, path: str, *roots: str, open_to_all: bool = False) -> Any:
    found = check_workspace(str(tree / path), tuple(str(tree / root) for root in roots), open_to_all=open_to_all)
    return found and Path(found).relative_to(tree.resolve()).as_posix()


@pytest.mark.parametrize(
    ("path", "real"),
    [("root", "root"), ("root/inside", "root/inside"), ("root/inside/..", "root"), ("outside/in", "root/inside")],
)
def test_what_lies_inside_a_root_is_allowed_links_resolved(tree: Path, path: str, real: str) -> None:
    assert check(tree, path, "elsewhere", "root") == real


@pytest.mark.parametrize("path", ["outside", "root/out", "root/../outside", "root-but-not-really", ".", "root/out/.."])
@pytest.mark.parametrize("open_to_all", [True, False])
def test_what_leads_out_of_the_roots_is_forbidden(tree: Path, path: str, open_to_all: bool) -> None:
    with pytest.raises(BrokerError) as refusal:
        check(tree, path, "root", open_to_all=open_to_all)
    assert (refusal.value.code, refusal.value.field) == ("forbidden", "$.payload.workspace_dir")


def test_without_roots_any_directory_is_allowed_to_all_or_none_to_anybody(tree: Path) -> None:
    assert check(tree, "outside", open_to_all=True) == "outside"
    with pytest.raises(BrokerError) as refusal:
        check(tree, "outside")
    assert refusal.value.code == "forbidden"


@pytest.mark.parametrize("path", ["root/missing", "root/file"])
def test_what_is_no_directory_is_not_found(tree: Path, path: str) -> None:
    with pytest.raises(BrokerError) as refusal:
        check(tree, path, "root")
    assert refusal.value.code == "workspace_not_found"


@pytest.mark.parametrize("path", ["", "relative", "./root", "~", "/srv\x00/x"])
def test_a_path_that_is_not_absolute_is_not_found(path: str) -> None:
    with pytest.raises(BrokerError) as refusal:
        check_workspace(path, (), open_to_all=True)
    assert (refusal.value.code, refusal.value.field) == ("workspace_not_found", "$.payload.workspace_dir")


def test_what_lies_outside_is_forbidden_whether_it_exists_or_not(tree: Path) -> None:
    """So that nobody can find out what is there."""
    for path in ("outside", "missing"):
        with pytest.raises(BrokerError) as refusal:
            check(tree, path, "root")
        assert refusal.value.code == "forbidden"


def test_no_directory_is_no_directory() -> None:
    assert check_workspace(None, (), open_to_all=False) is None


def test_a_loop_of_links_or_a_name_too_long_is_refused_and_nothing_breaks(tree: Path) -> None:
    (tree / "root" / "loop").symlink_to(tree / "root" / "loop")
    for path in ("root/loop", "root/" + "x" * 5000):
        with pytest.raises(BrokerError) as refusal:
            check(tree, path, "root")
        assert refusal.value.code in {"workspace_not_found", "forbidden"}

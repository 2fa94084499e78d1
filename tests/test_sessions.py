"""How sessions look from outside, and where they may work."""

from pathlib import Path
from typing import Any

import pytest

from broker.errors import BrokerError
from broker.messages import Record, SessionRow
from broker.sessions import check_workspace, messages_of, session_data

ROW = SessionRow("s1", "ann", "echo", "/srv", "Plans", b'{"secret":1}', False, 1_700_000_000_000, 1_700_000_000_001)


def test_a_session_is_shown_without_its_variables() -> None:
    assert session_data(ROW) == {
        "session_id": "s1",
        "agent": "echo",
        "title": "Plans",
        "workspace_dir": "/srv",
        "owner": "ann",
        "state": "open",
        "created_at": "2023-11-14T22:13:20.000Z",
        "updated_at": "2023-11-14T22:13:20.001Z",
    }


def test_messages_are_made_of_records_and_keep_the_rest_as_metadata() -> None:
    data = b'{"message_id":"m1","role":"user","content":[{"type":"text"}],"client_msg_id":"c1","author":"ann"}'
    assert messages_of([Record(7, 1_700_000_000_000, "user.message", data, "t1")]) == [
        {
            "message_id": "m1",
            "role": "user",
            "content": [{"type": "text"}],
            "at": "2023-11-14T22:13:20.000Z",
            "turn_id": "t1",
            "metadata": {"seq": 7, "client_msg_id": "c1", "author": "ann"},
        }
    ]


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

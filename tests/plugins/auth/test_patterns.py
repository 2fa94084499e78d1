"""Patterns of rooms and sessions, and what claims let one do."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import BrokerError
from broker.hooks import Permission, Principal
from broker.plugins.auth.patterns import allows, allows_somewhere, check_claim, matches
from broker.plugins.auth.permissions import Permissions
from broker.plugins.auth.settings import Settings

SMALL = st.text("ab*?", max_size=8)
NAMES = st.text("ab*?", max_size=12)


@given(SMALL, NAMES)
def test_a_pattern_fits_what_the_same_regular_expression_fits(pattern: str, name: str) -> None:
    oracle = "".join({"*": ".*", "?": "."}.get(char, re.escape(char)) for char in pattern)
    assert matches(pattern, name) == (re.fullmatch(oracle, name, re.DOTALL) is not None)


@given(st.text("ab*?{}user", max_size=8), NAMES)
def test_a_users_name_in_a_pattern_stands_for_itself_alone(user: str, name: str) -> None:
    assert matches("{user}", name, user) == (name == user)
    assert matches("p-{user}-*", f"p-{user}-{name}", user)


def test_a_pattern_made_to_be_slow_is_not() -> None:
    """A regular expression of this would take longer than anybody lives."""
    assert not matches("*a" * 100 + "b", "a" * 256)
    assert not matches("{user}" * 42, "a" * 255, "a" * 256), "longer than any name"


@pytest.mark.parametrize("claim", [None, 5, "*", {"*": "join"}, [1], {"*": None}, [None], object()])
def test_what_is_no_claim_lets_nobody_do_anything(claim: object) -> None:
    assert not allows(claim, "join", "lobby", "ann")
    assert not allows_somewhere(claim, "join")


@pytest.mark.parametrize("claim", [None, 5, "*", {"*": "join"}, [1], {"*": [1]}, ["*"] * 257, ["x" * 257]])
def test_what_is_no_claim_is_refused_where_a_token_is_read(claim: object) -> None:
    with pytest.raises(ValueError, match=r"patterns|operations"):
        check_claim(claim)


RULES = [
    # scopes, rooms, sessions, operation, resource, let in
    ("", ["*"], ["*"], "room.join", "lobby", True),
    ("", [], ["*"], "room.join", "lobby", False),
    ("", [], ["*"], "room.leave", "lobby", True),
    ("", [], [], "session.detach", "s1", True),
    ("", ["team-*"], ["*"], "room.publish", "team-red", True),
    ("", ["team-*"], ["*"], "room.publish", "Team-red", False),
    ("", ["team-?"], ["*"], "room.publish", "team-red", False),
    ("", {"team-*": ["join", "history"]}, [], "room.history", "team-red", True),
    ("", {"team-*": ["join", "history"]}, [], "room.publish", "team-red", False),
    ("", ["{user}-*"], [], "room.join", "ann-1", True),
    ("", ["{user}-*"], [], "room.join", "bob-1", False),
    ("", [], ["*"], "session.create", None, True),
    ("", [], ["ann-*"], "session.create", None, False),
    ("", [], ["ann-*"], "session.create", "ann-1", True),
    ("", [], ["ann-*"], "session.list", None, True),
    ("", [], [], "session.list", None, False),
    ("", [], {"*": ["attach"]}, "session.list", None, False),
    ("", [], {"a": ["list"]}, "session.list", None, True),
    ("", [], {"*": ["attach", "start"]}, "turn.start", "s1", True),
    ("", [], {"*": ["attach"]}, "turn.start", "s1", False),
    ("", [], {"*": ["attach"]}, "approval.answer", "s1", False),
    ("", [], [], "broadcast", None, False),
    ("debug", [], [], "broadcast", None, True),
    ("", [], [], "echo", None, True),
    ("admin", [], [], "turn.cancel", "s1", True),
    ("admin", [], [], "broadcast", None, True),
]


@pytest.mark.parametrize(("scopes", "rooms", "sessions", "operation", "resource", "good"), RULES)
def test_what_is_permitted(
    configured: Callable[..., Settings],
    scopes: Any,
    rooms: Any,
    sessions: Any,
    operation: Any,
    resource: Any,
    good: Any,
) -> None:
    who = Principal("ann", frozenset(scopes.split()), claims={"rooms": rooms, "sessions": sessions})
    settings = configured(require={"broad*": "debug"})
    if good:
        Permissions(settings).check(Permission(who, operation, resource))
    else:
        with pytest.raises(BrokerError) as refused:
            Permissions(settings).check(Permission(who, operation, resource))
        assert refused.value.code == "forbidden"


PROJECTS = [
    # rooms, projects, operation, resource, let in
    (["*"], ["g1"], "room.join", "project:g1", True),
    (["*"], ["g1"], "room.join", "project:g2", False),
    (["*"], ["g1"], "room.publish", "project:g2", False),
    (["*"], ["g1"], "project.feedback", "project:g1", True),
    (["*"], ["g1"], "project.feedback", "project:g2", False),
    (["*"], [], "room.join", "project:g1", False),
    (["*"], [], "room.leave", "project:g1", True),
    (["*"], [], "room.join", "lobby", True),
    (["*"], ["{user}-?"], "room.join", "project:ann-1", True),
    (["*"], {"*": ["join", "history"]}, "room.publish", "project:g1", False),
    (["*"], {"*": ["join", "history"]}, "project.feedback", "project:g1", False),
    (["team-*"], ["*"], "room.join", "project:g1", False),
    (["team-*"], ["*"], "project.feedback", "project:g1", False),
    ({"project:*": ["join"]}, ["*"], "room.publish", "project:g1", False),
    (["*"], "g1", "room.join", "project:g1", False),
    (["*"], [], "room.list", None, True),
]


@pytest.mark.parametrize(("rooms", "projects", "operation", "resource", "good"), PROJECTS)
def test_the_claim_projects_narrows_rooms_that_are_projects_and_no_others(
    configured: Callable[..., Settings], rooms: Any, projects: Any, operation: str, resource: str | None, good: bool
) -> None:
    who = Principal("ann", claims={"rooms": rooms, "sessions": [], "projects": projects})
    check = Permission(who, operation, resource)
    if good:
        Permissions(configured()).check(check)
    else:
        with pytest.raises(BrokerError) as refused:
            Permissions(configured()).check(check)
        assert refused.value.code == "forbidden"
        assert refused.value.hint in {"the claim rooms", "the claim projects"}


def test_nobody_may_do_nothing(configured: Callable[..., Settings]) -> None:
    with pytest.raises(BrokerError) as refused:
        Permissions(configured()).check(Permission(Principal(), "echo"))
    assert refused.value.code == "unauthenticated"

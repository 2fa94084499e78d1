"""What a ticket is worth: once, for a while, and no more than its maker has."""

from typing import Any

import pytest

from broker.errors import BrokerError
from broker.messages import Principal
from broker.testing import ManualClock
from broker.tickets import GRANT_SECONDS, MAX_CLAIMS, TICKET_SECONDS, Tickets, grant

BACKEND = Principal(user="backend", scopes=frozenset({"api", "debug"}))
ANN = Principal(user="ann")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def tickets(clock: ManualClock) -> Tickets:
    return Tickets(clock)


def test_a_ticket_is_taken_once(tickets: Tickets) -> None:
    ticket = tickets.issue(ANN)
    assert tickets.redeem(ticket.text) is ANN
    assert tickets.redeem(ticket.text) is None


def test_a_ticket_lives_for_half_a_minute(tickets: Tickets, clock: ManualClock) -> None:
    first, second = tickets.issue(ANN), tickets.issue(ANN)
    clock.advance(TICKET_SECONDS - 0.01)
    assert tickets.redeem(first.text) is ANN
    clock.advance(0.01)
    assert tickets.redeem(second.text) is None
    assert len(tickets) == 0


def test_a_clock_that_is_set_back_prolongs_no_ticket(tickets: Tickets, clock: ManualClock) -> None:
    ticket = tickets.issue(ANN)
    clock.jump(-3600)
    clock.advance(TICKET_SECONDS)
    assert tickets.redeem(ticket.text) is None


def test_a_ticket_lets_in_nobody_whose_time_is_over(tickets: Tickets, clock: ManualClock) -> None:
    ticket = tickets.issue(Principal(user="ann", expires_at=clock.now() + 5000))
    clock.advance(5)
    assert tickets.redeem(ticket.text) is None


@pytest.mark.parametrize("text", ["", "x", "é" * 5000, "\ud800", "\x00"])
def test_what_is_no_ticket_is_none(tickets: Tickets, text: str) -> None:
    tickets.issue(ANN)
    assert tickets.redeem(text) is None


def test_tickets_cannot_be_guessed_read_or_told_apart(tickets: Tickets) -> None:
    made = [tickets.issue(ANN).text for _ in range(100)]
    assert len(set(made)) == 100
    assert {len(text) for text in made} == {32}
    held = repr(vars(tickets)) + repr(tickets.issue(ANN))
    assert not any(text in held for text in made)


def test_there_are_only_so_many_and_old_ones_make_room(clock: ManualClock) -> None:
    tickets = Tickets(clock, limit=3)
    for _ in range(3):
        tickets.issue(ANN)
    with pytest.raises(BrokerError) as refused:
        tickets.issue(ANN)
    assert (refused.value.code, refused.value.retry_after) == ("overloaded", 1.0)
    clock.advance(TICKET_SECONDS)
    tickets.issue(ANN)


@pytest.mark.parametrize(
    "claims",
    [
        {"rooms": ["x" * 200] * 21},
        {"rooms": ["\U0001f600" * 255] * 5},
        {"tenant": {"name": "x" * MAX_CLAIMS}},
        {"roles": frozenset({"x" * MAX_CLAIMS})},
    ],
)
def test_a_ticket_says_only_so_much_since_it_is_kept(tickets: Tickets, claims: dict[str, Any]) -> None:
    tickets.issue(Principal(user="ann", claims={"rooms": ["x" * 190] * 20}))
    with pytest.raises(BrokerError) as refused:
        tickets.issue(Principal(user="ann", claims=claims))
    assert (refused.value.code, refused.value.field) == ("too_large", "$.claims")
    assert len(tickets) == 1


def test_a_user_s_tickets_are_taken_back(tickets: Tickets) -> None:
    his, hers = tickets.issue(Principal(user="bob")), tickets.issue(ANN)
    assert tickets.void("bob") == 1
    assert tickets.redeem(his.text) is None
    assert tickets.redeem(hers.text) is ANN


# -- what may be granted -----------------------------------------------------------------------------


def test_a_grant_is_the_maker_without_scopes_for_an_hour() -> None:
    granted = grant(BACKEND, 1000)
    assert (granted.user, granted.scopes) == ("backend", frozenset())
    assert granted.expires_at == 1000 + GRANT_SECONDS * 1000
    assert str(granted.credential).startswith("ticket:")


def test_a_grant_ends_no_later_than_its_maker() -> None:
    maker = Principal(user="backend", scopes=frozenset({"api"}), expires_at=61_000)
    assert grant(maker, 1000, user="ann", expires_in=3600).expires_at == 61_000
    assert grant(maker, 1000, user="ann", expires_in=10).expires_at == 11_000


def test_a_scope_that_the_maker_lacks_is_refused() -> None:
    assert grant(BACKEND, 0, scopes=frozenset({"debug"})).scopes == {"debug"}
    with pytest.raises(BrokerError, match="not admin"):
        grant(BACKEND, 0, scopes=frozenset({"debug", "admin"}))


@pytest.mark.parametrize(
    ("own", "wanted", "granted"),
    [
        (None, ["*"], True),
        (["*"], ["team-*"], True),
        (["team-*"], ["team-*"], True),
        (["team-*"], ["team-a"], True),
        (["team-*"], ["team-a*"], True),
        (["team-?"], ["team-a"], True),
        (["a", "b"], ["b"], True),
        ([], [], True),
        (["team-*"], ["*"], False),
        (["team-*"], ["other"], False),
        (["team-*"], ["team-a", "other"], False),
        (["team-?"], ["team-*"], False),
        (["*-team"], ["a*-team"], False),  # it would be within, but that is hard to tell
        (["a"], ["A"], False),
        (["[ab]"], ["a"], False),
        ([], ["a"], False),
        ({"team-*": ["join"]}, ["team-a"], False),
        ({"team-*": ["join"]}, {"team-a": ["join"]}, True),
        ({"team-*": ["join"]}, {"team-a": ["join", "publish"]}, False),
        (["team-*"], {"team-a": ["join"]}, True),
        (7, ["a"], False),
    ],
)
def test_a_pattern_has_to_be_within_the_makers(own: Any, wanted: Any, granted: bool) -> None:
    maker = Principal(user="backend", claims={} if own is None else {"rooms": own})
    if granted:
        assert grant(maker, 0, claims={"rooms": wanted}).claims["rooms"] == wanted
    else:
        with pytest.raises(BrokerError) as refused:
            grant(maker, 0, claims={"rooms": wanted})
        assert refused.value.code == "forbidden"


def test_patterns_that_are_left_out_are_the_makers() -> None:
    maker = Principal(user="backend", claims={"rooms": ["team-*"], "more": 1})
    granted = grant(maker, 7, claims={"sessions": ["s1"]})
    made_by = {"by": "backend", "at": 7}
    assert granted.claims == {"rooms": ["team-*"], "more": 1, "sessions": ["s1"], "ticket": made_by}


def test_who_came_by_a_ticket_makes_none() -> None:
    with pytest.raises(BrokerError, match="makes none"):
        grant(grant(BACKEND, 0, scopes=frozenset({"api"})), 0)


USERS: list[tuple[Any, str, Any, Any]] = [
    (["inbox:{user}", "lobby"], "bob", None, ["inbox:eve", "lobby"]),
    (["inbox:{user}"], "eve", None, ["inbox:{user}"]),
    ({"inbox:{user}": ["join"]}, "bob", None, {"inbox:eve": ["join"]}),
    (["inbox:{user}"], "bob", ["inbox:{user}"], None),
    (["inbox:{user}"], "bob", ["inbox:bob"], None),
    (["inbox:{user}"], "bob", ["inbox:eve"], ["inbox:eve"]),
    (["inbox:*"], "bob", ["inbox:{user}"], ["inbox:{user}"]),
    (["inbox:??????"], "bobby-the-3rd", ["inbox:{user}"], None),
    (["inbox:???"], "bob", ["inbox:{user}"], ["inbox:{user}"]),
    (["inbox:{user}"], "eve", ["inbox:{user}"], ["inbox:{user}"]),
    ({"inbox:{user}": ["join"]}, "bob", {"inbox:eve": ["join", "publish"]}, None),
]


@pytest.mark.parametrize(("own", "user", "wanted", "granted"), USERS)
def test_what_a_maker_calls_its_own_is_not_whomever_it_names(own: Any, user: str, wanted: Any, granted: Any) -> None:
    eve = Principal(user="eve", claims={"rooms": own})
    claims = None if wanted is None else {"rooms": wanted}
    if granted is None:
        with pytest.raises(BrokerError, match="do not cover"):
            grant(eve, 0, user=user, claims=claims)
    else:
        assert grant(eve, 0, user=user, claims=claims).claims["rooms"] == granted


@pytest.mark.parametrize("name", ["*", "a?", "{user}", "[ab]", None])
def test_a_makers_name_that_looks_like_a_pattern_is_none(name: str | None) -> None:
    odd = Principal(user=name, claims={"rooms": ["inbox:{user}", "lobby"], "sessions": {"{user}": ["start"]}})
    granted = grant(odd, 0, user="bob")
    assert (granted.claims["rooms"], granted.claims["sessions"]) == (["lobby"], {})

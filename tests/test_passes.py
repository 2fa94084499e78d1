"""What links that work once are worth: one pass each, for no more and no longer than they were made for."""

import pickle

import attrs
import pytest

from broker.errors import BrokerError
from broker.messages import Principal
from broker.passes import INVITATION_SECONDS, PASS_SECONDS, Passes
from broker.testing import ManualClock

ANN = Principal(user="ann", scopes=frozenset({"api", "admin"}), claims={"rooms": ["team-*"]})


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def passes(clock: ManualClock) -> Passes:
    return Passes(clock, limit=3)


def test_an_invitation_is_exchanged_once_for_who_was_invited(passes: Passes) -> None:
    invitation = passes.invite(ANN).text
    assert passes.invited(invitation) == ANN
    got = passes.exchange(invitation)
    assert attrs.evolve(got.principal, expires_at=None, credential=ANN.credential) == ANN
    assert passes.look(got.text) == got.principal
    for used in (invitation, got.text, "", "\ud800"):
        with pytest.raises(BrokerError) as refused:
            passes.exchange(used)
        assert refused.value.code == "unauthenticated"
    assert passes.look(invitation) is None
    assert len(passes) == 1


def test_an_invitation_ends_after_a_quarter_of_an_hour(passes: Passes, clock: ManualClock) -> None:
    invitations = [passes.invite(ANN).text for _ in range(2)]
    clock.advance(INVITATION_SECONDS - 1)
    assert passes.exchange(invitations[0])
    clock.advance(1)
    assert passes.invited(invitations[1]) is None
    with pytest.raises(BrokerError, match="too old"):
        passes.exchange(invitations[1])


def test_a_pass_ends_after_its_day_and_no_later_than_who_was_invited(passes: Passes, clock: ManualClock) -> None:
    brief = attrs.evolve(ANN, expires_at=clock.now() + 60_000)
    long, short = (passes.exchange(passes.invite(who).text) for who in (ANN, brief))
    assert long.principal.expires_at == clock.now() + PASS_SECONDS * 1000
    assert short.principal.expires_at == brief.expires_at
    clock.advance(60)
    assert passes.look(short.text) is None
    assert passes.look(long.text) is not None
    assert len(passes) == 1
    clock.advance(PASS_SECONDS - 60)
    assert passes.look(long.text) is None
    assert len(passes) == 0


def test_there_are_so_many_and_one_too_many_leaves_the_link_good(passes: Passes, clock: ManualClock) -> None:
    got = [passes.exchange(passes.invite(ANN).text) for _ in range(3)]
    waiting = passes.invite(ANN).text
    with pytest.raises(BrokerError) as refused:
        passes.exchange(waiting)
    assert refused.value.code == "overloaded"
    passes.invite(ANN)
    passes.invite(ANN)
    with pytest.raises(BrokerError) as refused:
        passes.invite(ANN)
    assert refused.value.code == "overloaded"
    assert all(passes.look(one.text) for one in got)
    clock.advance(PASS_SECONDS)
    assert passes.exchange(passes.invite(ANN).text)


def test_what_a_user_has_is_taken_back_and_nobody_elses(passes: Passes) -> None:
    bob = passes.exchange(passes.invite(attrs.evolve(ANN, user="bob")).text)
    anns = passes.exchange(passes.invite(ANN).text)
    waiting = passes.invite(ANN).text
    assert passes.void("ann") == 2
    assert passes.look(anns.text) is None
    assert passes.invited(waiting) is None
    assert passes.look(bob.text) == bob.principal


def test_no_text_is_kept_or_shown(passes: Passes) -> None:
    invitation = passes.invite(ANN)
    used = passes.invite(ANN)
    got = passes.exchange(used.text)
    kept = pickle.dumps([passes._known, passes._invitations._waiting])
    for text in (invitation.text, used.text, got.text):
        assert text not in f"{invitation!r}{used!r}{got!r}"
        assert text.encode() not in kept
    assert len(got.text) >= 43

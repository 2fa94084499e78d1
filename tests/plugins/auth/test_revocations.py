"""Revocation: who is not let in any more, for how long, and what survives a crash."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from broker.errors import BrokerError
from broker.hooks import Principal
from broker.plugins.auth import revocations
from broker.plugins.auth.revocations import Revocations, Unreadable, of_issuer
from broker.plugins.auth.settings import Revoked
from broker.plugins.auth.standing import Standing, is_named
from broker.testing import ManualClock
from broker.tickets import grant

DAY = 86_400.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def standing(clock: ManualClock) -> Callable[..., Any]:
    """Tell whether somebody has lost their standing, given some revocations."""

    def make(known: Revocations, who: Principal, revoked: Revoked | None = None, leeway: float = 0) -> bool:
        return Standing({"mark"}, revoked or Revoked(), known, leeway).is_lost(who)

    return make


def person(clock: ManualClock, *, issued: float | None = 0, user: str = "ann", **more: Any) -> Principal:
    """Return somebody with a token that was issued so many seconds from now."""
    iat = None if issued is None else clock.now() + round(issued * 1000)
    claims = {"by": "mark", "iss": "id", "iat": iat, "jti": more.pop("jti", None)}
    return Principal(user, frozenset(), clock.now() + 10**9, more.pop("credential", "t"), claims)


def test_a_revoked_user_needs_a_token_that_was_issued_later(clock: ManualClock, standing: Any) -> None:
    known = Revocations(clock.now, DAY, None)
    before, unknown = person(clock, issued=-5), person(clock, issued=None)
    assert not standing(known, before)
    known.add("user", "ann")
    assert standing(known, before)
    assert standing(known, unknown)
    assert standing(known, person(clock, issued=0)), "at the same moment is not later"
    assert not standing(known, person(clock, issued=-5, user="bob"))
    clock.advance(1)
    assert not standing(known, person(clock, issued=0))
    clock.advance(DAY)
    assert not standing(known, unknown), "no token of then can live any more"


def test_a_revoked_token_alone_is_lost(clock: ManualClock, standing: Any) -> None:
    known = Revocations(clock.now, DAY, None)
    known.add("jti", "t1")
    assert standing(known, person(clock, jti="t1"))
    assert not standing(known, person(clock, jti="t2"))


def test_an_api_key_of_a_revoked_user_is_left_to_the_settings(clock: ManualClock, standing: Any) -> None:
    known = Revocations(clock.now, DAY, None)
    known.add("user", "ann")
    backend = Principal("ann", frozenset({"api"}), None, "key:ops", {"by": "mark", "api_key": "ops"})
    assert not standing(known, backend)
    assert not is_named(backend, "user", "ann")
    guest = grant(backend, clock.now() + 1, user="bob")
    assert not standing(known, guest), "nor are the tickets that it makes for others"
    assert not is_named(guest, "user", "ann")
    assert standing(known, backend, Revoked(users=("ann",)))
    assert standing(known, guest, Revoked(users=("ann",)))


def test_a_token_whose_issuers_clock_is_ahead_is_revoked_too(clock: ManualClock, standing: Any) -> None:
    """It was shown before the revocation, and says that it was issued later."""
    known = Revocations(clock.now, DAY, None)
    ahead = person(clock, issued=9)
    known.add("user", "ann")
    assert standing(known, ahead, leeway=10)
    assert standing(known, person(clock, issued=10), leeway=10)
    assert not standing(known, person(clock, issued=10.001), leeway=10)


def test_a_ticket_that_is_older_than_the_revocation_is_lost(clock: ManualClock, standing: Any) -> None:
    known = Revocations(clock.now, DAY, None)
    maker = person(clock, issued=-5000, user="backend")
    before = grant(maker, clock.now(), user="ann")
    known.add("user", "ann")
    assert is_named(before, "user", "ann")
    assert standing(known, before)
    clock.advance(0.001)
    assert standing(known, before)
    assert not standing(known, grant(maker, clock.now(), user="ann"), leeway=10), "no clock but ours was asked"


def test_a_ticket_is_lost_with_its_maker(clock: ManualClock, standing: Any) -> None:
    known = Revocations(clock.now, DAY, None)
    maker = person(clock, issued=-5, user="backend", jti="t1")
    guest = grant(maker, clock.now(), user="ann")
    assert not standing(known, guest)
    assert standing(known, guest, Revoked(users=("backend",)))
    assert standing(known, guest, Revoked(tokens=("t1",)))
    known.add("user", "backend")
    assert standing(known, guest)
    assert is_named(guest, "user", "backend")
    assert not is_named(guest, "user", "bob")


def test_a_token_is_no_ticket_whatever_it_is_called(clock: ManualClock, standing: Any) -> None:
    known = Revocations(clock.now, DAY, None)
    who = person(clock, issued=-5, jti="ticket:1", credential="ticket:1")
    known.add("user", "ann")
    clock.advance(31)
    assert standing(known, who)


def test_a_token_is_revoked_of_one_issuer_or_of_any(clock: ManualClock, standing: Any) -> None:
    known = Revocations(clock.now, DAY, None)
    known.add("jti", of_issuer("t1", "other"))
    assert not standing(known, person(clock, jti="t1"))
    known.add("jti", of_issuer("t1", "id"))
    assert standing(known, person(clock, jti="t1"))
    assert is_named(person(clock, jti="t1"), "jti", of_issuer("t1", "id"))
    assert not is_named(person(clock, jti="t1"), "jti", of_issuer("t1", "other"))
    assert standing(known, person(clock, jti="t2"), Revoked(tokens=("id t2",)))
    assert not standing(known, person(clock, jti="t2"), Revoked(tokens=("other t2",)))


def test_who_was_let_in_with_a_key_that_is_gone_is_lost(clock: ManualClock, standing: Any) -> None:
    known = Revocations(clock.now, DAY, None)
    assert standing(known, Principal("ann", claims={"by": "other"}))
    assert not standing(known, Principal("ann")), "somebody whom another plugin let in"


def test_the_settings_revoke_by_name(clock: ManualClock, standing: Any) -> None:
    known = Revocations(clock.now, DAY, None)
    assert standing(known, person(clock), Revoked(users=("ann",)))
    assert standing(known, person(clock, jti="t1"), Revoked(tokens=("t1",)))
    assert not standing(known, person(clock, jti="t2"), Revoked(users=("bob",), tokens=("t1",)))


def test_a_file_keeps_them_and_forgets_what_is_past(clock: ManualClock, tmp_path: Path) -> None:
    file = tmp_path / "revoked"
    known = Revocations(clock.now, DAY, file)
    for kind, name in (("user", "ann\n\u2028"), ("jti", "t1")):
        known.add(kind, name)
        known.write(kind, name)
    assert file.stat().st_mode & 0o777 == 0o600
    again = Revocations(clock.now, DAY, file)
    assert again.of_user("ann\n\u2028") == clock.now()
    assert again.of_token("t1") == clock.now()
    assert again.of_user("t1") is None
    clock.advance(DAY + 1)
    assert len(Revocations(clock.now, DAY, file)) == 0
    assert file.read_bytes() == b""


def test_a_line_that_a_crash_cut_short_was_never_acknowledged(clock: ManualClock, tmp_path: Path) -> None:
    file = tmp_path / "revoked"
    known = Revocations(clock.now, DAY, file)
    known.add("user", "ann")
    known.write("user", "ann")
    whole = file.read_bytes()
    for size in range(len(whole)):
        file.write_bytes(whole + whole[:size])
        assert Revocations(clock.now, DAY, file).of_user("ann") == clock.now()
        assert file.read_bytes() == whole


def test_a_line_that_is_none_keeps_the_broker_from_starting(clock: ManualClock, tmp_path: Path) -> None:
    file = tmp_path / "revoked"
    file.write_text('{"kind":"user","name":"ann","at":1}\nrubbish\n')
    with pytest.raises(Unreadable, match="line 2"):
        Revocations(clock.now, DAY, file)
    assert "rubbish" in file.read_text()


def test_a_write_that_fails_half_way_spoils_no_line_that_follows(
    clock: ManualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "revoked"
    known = Revocations(clock.now, DAY, file)
    known.add("user", "ann")
    whole = revocations._put

    def full(descriptor: int, data: bytes) -> None:
        whole(descriptor, data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(revocations, "_put", full)
    with pytest.raises(OSError, match="No space"):
        known.write("user", "ann")
    monkeypatch.setattr(revocations, "_put", whole)
    known.write("user", "ann")
    assert Revocations(clock.now, DAY, file).of_user("ann") is not None


def test_there_are_only_so_many(clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocations, "MOST", 3)
    known = Revocations(clock.now, DAY, None)
    for n in range(3):
        known.add("jti", f"t{n}")
    known.add("jti", "t1")
    with pytest.raises(BrokerError) as refused:
        known.add("jti", "t3")
    assert refused.value.code == "overloaded"
    clock.advance(DAY + 1)
    known.add("jti", "t3")
    assert len(known) == 1

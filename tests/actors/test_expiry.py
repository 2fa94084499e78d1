"""Stays that end: by either clock, with one timer for all."""

import attrs
import pytest

from broker.actors.expiry import TICK_SECONDS, Expiry
from broker.testing import ManualClock


@attrs.define(eq=False)
class Visitor:
    left_at: float | None = None
    clock: ManualClock | None = None

    def expire(self) -> None:
        assert self.left_at is None
        assert self.clock is not None
        self.left_at = self.clock.monotonic()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def visit(expiry: Expiry, clock: ManualClock, seconds: float | None) -> Visitor:
    visitor = Visitor(clock=clock)
    expiry.watch(visitor, None if seconds is None else clock.now() + round(seconds * 1000))
    return visitor


def test_each_leaves_at_its_own_time_within_a_tick_and_one_timer_serves_all(clock: ManualClock) -> None:
    expiry = Expiry(clock)
    visitors = {seconds: visit(expiry, clock, seconds) for seconds in (30.0, 0.2, 5.0, 5.1, 86_400.0)}
    assert clock.waiting == 1
    clock.advance(100_000)
    for seconds, visitor in visitors.items():
        assert visitor.left_at is not None
        assert seconds <= visitor.left_at <= seconds + TICK_SECONDS
    assert (len(expiry), clock.waiting) == (0, 0)


def test_who_may_stay_costs_nothing(clock: ManualClock) -> None:
    expiry = Expiry(clock)
    visitor = visit(expiry, clock, None)
    assert (len(expiry), clock.waiting) == (0, 0)
    expiry.forget(visitor)


@pytest.mark.parametrize(("jump", "left_at"), [(-3600, 10.0), (-86_400, 10.0), (5, 5.0), (3600, 0.5)])
def test_a_clock_that_jumps_back_prolongs_nothing_and_one_that_jumps_forward_ends(
    clock: ManualClock, jump: float, left_at: float
) -> None:
    expiry = Expiry(clock)
    visitor = visit(expiry, clock, 10)
    clock.jump(jump)
    clock.advance(20)
    assert visitor.left_at == pytest.approx(left_at, abs=TICK_SECONDS)


def test_one_who_comes_after_a_jump_stays_as_long_as_is_left_by_then(clock: ManualClock) -> None:
    expiry = Expiry(clock)
    early = visit(expiry, clock, 100)
    clock.jump(-3600)
    late = visit(expiry, clock, 50)
    clock.advance(200)
    assert (early.left_at, late.left_at) == (100, 50)


def test_a_new_time_takes_the_place_of_the_old_one_sooner_or_later(clock: ManualClock) -> None:
    expiry = Expiry(clock)
    longer, shorter, for_good, gone = (visit(expiry, clock, seconds) for seconds in (10, 100, 10, 10))
    expiry.watch(longer, clock.now() + 30_000)
    expiry.watch(shorter, clock.now() + 5_000)
    expiry.watch(for_good, None)
    expiry.forget(gone)
    assert len(expiry) == 2
    clock.advance(1000)
    assert (longer.left_at, shorter.left_at, for_good.left_at, gone.left_at) == (30, 5, None, None)

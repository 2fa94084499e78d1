"""How long to wait for what keeps dying."""

import pytest

from broker.agents.acp.backoff import LONGEST_WAIT, QUICK, Backoff


def test_the_first_death_costs_no_wait_and_each_further_one_about_twice_as_much():
    backoff = Backoff()
    assert backoff.wait() == 0
    for expected in (0, 0.5, 1, 2, 4, 8, 16, 30, 30):
        backoff.died(1.0)
        assert [backoff.wait() for _ in range(50)] == [pytest.approx(expected, rel=0.25)] * 50
    assert expected == LONGEST_WAIT


def test_waits_are_not_all_the_same():
    backoff = Backoff()
    for _ in range(5):
        backoff.died(1.0)
    assert len({backoff.wait() for _ in range(20)}) > 10


def test_a_life_that_was_long_enough_ends_the_row():
    backoff = Backoff()
    for _ in range(5):
        backoff.died(QUICK - 1)
    backoff.died(QUICK)
    assert backoff.wait() == 0
    backoff.died(1.0)
    assert backoff.wait() == 0


def test_very_many_deaths_are_no_overflow():
    backoff = Backoff()
    for _ in range(5000):
        backoff.died(0.0)
    assert backoff.wait() <= LONGEST_WAIT * 1.25

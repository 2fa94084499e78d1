"""How often something happened of late: `broker.agents.remote.tally`."""

from broker.agents.remote.tally import Tally
from broker.testing import ManualClock


def test_a_minute_begins_anew_with_what_comes_first_after_the_last() -> None:
    clock = ManualClock()
    tally = Tally(clock)
    assert [tally.add() for _ in range(3)] == [1, 2, 3]
    clock.advance(60)
    assert tally.add() == 4
    clock.advance(0.1)
    assert [tally.add() for _ in range(2)] == [1, 2]
    clock.advance(59)
    assert tally.add() == 3

"""The last five minutes in figures: rates, shares and what is there, looked at by a clock that a test moves."""

from collections.abc import Iterator

import pytest

from broker.stats import Histogram, Stats
from broker.testing import ManualClock
from broker.vitals.lag import LoopLag
from broker.vitals.series import NAMES, POINTS, STEP, Series


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def stats() -> Stats:
    return Stats()


@pytest.fixture
def lags() -> list[float]:
    return [0.0]


@pytest.fixture
def series(stats: Stats, clock: ManualClock, lags: list[float]) -> Iterator[Series]:
    series = Series(stats, clock, lambda: lags[0])
    series.start()
    yield series
    series.stop()


def test_rates_are_per_second_and_shares_are_of_what_was_asked(
    series: Series, stats: Stats, clock: ManualClock
) -> None:
    stats.messages_in, stats.messages_out = 100, 300
    stats.requests["2xx"] += 100
    stats.errors["forbidden"] += 50
    clock.advance(STEP)
    clock.advance(STEP)
    lines = series.lines()
    assert (lines["messages_in"], lines["messages_out"], lines["errors"]) == ([20, 0], [60, 0], [10, 0])
    assert lines["error_rate"] == [0.25, None]
    assert lines["at"] == ["2023-11-14T22:13:25.000Z", "2023-11-14T22:13:30.000Z"]


def test_what_is_there_is_told_as_it_was_and_as_it_is(series: Series, stats: Stats, clock: ManualClock) -> None:
    stats.connect()
    stats.connect()
    stats.turns_open["running"] = 3
    stats.memory = lambda: 1000
    clock.advance(STEP)
    stats.connections -= 2
    now, lines = series.now(), series.lines()
    assert (lines["connections"], lines["turns_open"], lines["memory"]) == ([2], [3], [1000])
    assert (now["connections"], stats.connections_peak) == (0, 2)


def test_percentiles_are_of_one_look_in_a_line_and_of_a_minute_now(
    series: Series, stats: Stats, clock: ManualClock
) -> None:
    for _ in range(100):
        stats.delivery_seconds.observe(0.2)
    clock.advance(STEP)
    clock.advance(STEP)
    lines = series.lines()
    assert lines["delivery_p50"][1] is None
    assert 0.1 < lines["delivery_p50"][0] <= 0.25
    assert (series.now()["delivery_p99"] or 0) > 0.1
    clock.advance(60)
    assert series.now()["delivery_p99"] is None
    stats.delivery_seconds.observe(0.2)
    assert series.now()["delivery_p99"] is not None


def test_five_minutes_are_kept_and_every_line_is_as_long(series: Series, stats: Stats, clock: ManualClock) -> None:
    for number in range(POINTS + 10):
        stats.messages_in += number * int(STEP)
        clock.advance(STEP)
    lines = series.lines()
    assert lines.keys() == {"at", *NAMES}
    assert {len(line) for line in lines.values()} == {POINTS}
    assert lines["messages_in"][0] == 10
    assert POINTS * STEP == 300


def test_the_lag_is_the_worst_of_each_look(series: Series, stats: Stats, clock: ManualClock, lags: list[float]) -> None:
    lags[0] = 0.75
    clock.advance(STEP)
    lags[0] = 0.001
    clock.advance(STEP)
    assert series.lines()["loop_lag"] == [0.75, 0.001]
    assert series.now()["loop_lag"] == 0.001


def test_a_loop_that_was_late_once_is_told_once() -> None:
    clock = ManualClock()
    lag = LoopLag(clock, Histogram((1.0,)))
    lag.start()
    clock.jump(0)
    clock.advance(1)
    assert lag.worst() == 0
    late = ManualClock()
    slow = LoopLag(late, Histogram((1.0,)))
    slow.start()
    late._seconds += 2
    assert slow.worst() == 1.75
    late.advance(0)
    assert slow.worst() == 1.75
    late.advance(1)
    assert slow.worst() == 0
    lag.stop()
    slow.stop()


def test_before_the_first_look_nothing_is_made_up(series: Series) -> None:
    now = series.now()
    assert now.keys() == set(NAMES)
    assert {name for name, value in now.items() if value is not None} == {
        *("connections", "memory", "store_backlog", "turns_open")
    }


def test_it_looks_no_more_once_it_is_stopped(series: Series, clock: ManualClock) -> None:
    clock.advance(STEP)
    series.stop()
    clock.advance(10 * STEP)
    assert len(series.lines()["at"]) == 1
    assert clock.waiting == 0

"""The broker's counters."""

from broker.stats import Histogram, Stats


def test_a_histogram_counts_each_observation_in_the_first_bucket_that_holds_it() -> None:
    histogram = Histogram((0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 1.0, 7.0):
        histogram.observe(seconds)
    assert histogram.counts == [2, 2, 1]
    assert histogram.cumulative() == [2, 4, 5]
    assert histogram.total == 8.65


def test_two_brokers_do_not_share_their_counts() -> None:
    one, other = Stats(), Stats()
    one.errors["busy"] += 1
    one.turn_seconds.observe(1.0)
    assert not other.errors
    assert sum(other.turn_seconds.counts) == 0


def test_gauges_are_nothing_until_the_core_says_how_to_read_them() -> None:
    stats = Stats()
    assert (stats.store_backlog(), stats.loop_lag_seconds(), stats.connections_limit()) == (0, 0, 0)
    assert (stats.ready(), stats.store_up()) == (False, False)
    assert (list(stats.outboxes()), list(stats.mailboxes()), stats.agents(), stats.plugins()) == ([], [], {}, {})
    stats.store_backlog = lambda: 7
    assert stats.store_backlog() == 7


def test_a_share_of_what_a_histogram_has_seen_is_read_off_its_buckets() -> None:
    histogram = Histogram((0.1, 1.0, 10.0))
    assert histogram.quantile(0.5) is None
    for seconds in (0.05, 0.05, 0.5, 0.5):
        histogram.observe(seconds)
    assert (histogram.quantile(0.25), histogram.quantile(0.5), histogram.quantile(1.0)) == (0.05, 0.1, 1.0)
    assert histogram.quantile(0.75) == 0.55
    histogram.observe(99.0)
    assert histogram.quantile(0.95) == 10.0


def test_a_share_of_what_came_since_counts_nothing_from_before() -> None:
    histogram = Histogram((0.1, 1.0))
    for _ in range(1000):
        histogram.observe(0.01)
    before = list(histogram.counts)
    assert histogram.quantile(0.95, before) is None
    histogram.observe(0.5)
    assert histogram.quantile(1.0, before) == 1.0

"""Time: the wire's spelling of it, the loop's clock, and the one that a test moves by hand."""

import asyncio
import math
import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.clock import Deadline, SystemClock, rfc3339
from broker.testing import ManualClock

FAR = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1, "1970-01-01T00:00:00.001Z"),
        (1_700_000_000_999, "2023-11-14T22:13:20.999Z"),
        (951_827_696_000, "2000-02-29T12:34:56.000Z"),
    ],
)
def test_times_are_written_in_utc_with_milliseconds(at: int, text: str) -> None:
    assert rfc3339(at) == text


@given(st.integers(0, FAR))
def test_no_millisecond_is_lost_in_writing(at: int) -> None:
    text = rfc3339(at)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", text)
    assert round(datetime.fromisoformat(text).timestamp() * 1000) == at


async def test_the_system_s_clock_calls_later_on_the_loop_and_can_be_stopped() -> None:
    clock = SystemClock()
    began, called = clock.monotonic(), asyncio.Event()
    stopped = clock.call_later(0, lambda: pytest.fail("it was cancelled"))
    stopped.cancel()
    clock.call_later(0.001, called.set)
    async with asyncio.timeout(5):
        await called.wait()
    assert clock.monotonic() >= began
    assert abs(clock.now() - datetime.now(UTC).timestamp() * 1000) < 5000


def test_a_manual_clock_stands_still_until_it_is_moved() -> None:
    clock = ManualClock(now=1000)
    assert (clock.monotonic(), clock.now()) == (0.0, 1000)
    clock.advance(2.5)
    assert (clock.monotonic(), clock.now()) == (2.5, 3500)


def test_what_falls_due_is_called_in_order_each_at_its_own_time() -> None:
    clock, called = ManualClock(), list[tuple[str, float]]()

    def note(name: str) -> None:
        called.append((name, clock.monotonic()))

    clock.call_later(3.0, lambda: note("third"))
    clock.call_later(1.0, lambda: note("first"))
    clock.call_later(1.0, lambda: (note("second"), clock.call_later(0.5, lambda: note("set on the way"))))
    cancelled = clock.call_later(2.0, lambda: note("cancelled"))
    clock.call_later(9.0, lambda: note("not yet"))
    cancelled.cancel()
    assert clock.waiting == 4
    clock.advance(5.0)
    assert called == [("first", 1.0), ("second", 1.0), ("set on the way", 1.5), ("third", 3.0)]
    assert (clock.monotonic(), clock.waiting) == (5.0, 1)


def test_steps_that_share_a_deadline_end_by_it_however_many_they_are() -> None:
    clock = ManualClock()
    deadline = Deadline(clock, 8.0)
    assert [deadline.share(1.0), deadline.share(10.0), deadline.part().left()] == [1.0, 4.0, 4.0]
    for _ in range(20):
        clock.advance(deadline.share(5.0))  # each takes all it may
    assert 0 < deadline.left() < 0.001
    clock.advance(1.0)
    assert (deadline.left(), deadline.share(5.0)) == (0.0, 0.0)


def test_without_an_end_each_step_has_its_own_time() -> None:
    assert Deadline(ManualClock(), math.inf).part().share(5.0) == 5.0

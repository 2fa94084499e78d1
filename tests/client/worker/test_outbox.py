"""The numbered frames of one turn: in order, within bounds, and never a gap that nobody hears of."""

from hypothesis import given
from hypothesis import strategies as st

from broker.client.worker.outbox import BYTES, FRAMES, Outbox


def filled(count: int, **bounds: int) -> Outbox:
    outbox = Outbox(**bounds)
    for number in range(1, count + 1):
        outbox.add(b"%d" % number)
    return outbox


def test_frames_go_out_once_and_in_order() -> None:
    outbox = filled(3)
    assert list(outbox.take()) == [b"1", b"2", b"3"]
    assert list(outbox.take()) == []
    outbox.add(b"4")
    assert list(outbox.take()) == [b"4"]


def test_what_the_broker_lacks_goes_out_again() -> None:
    outbox = filled(3)
    list(outbox.take())
    outbox.rewind(1)
    assert list(outbox.take()) == [b"2", b"3"]


def test_the_oldest_that_was_sent_makes_room() -> None:
    outbox = filled(3, frames=3)
    next(outbox.take())
    outbox.add(b"4")
    assert (outbox.floor, outbox.head, outbox.full) == (2, 4, True)
    outbox.rewind()
    assert list(outbox.take()) == [b"2", b"3", b"4"]


def test_what_was_not_sent_is_never_let_go() -> None:
    outbox = filled(3, frames=3)
    assert outbox.full
    outbox.add(b"end")
    assert list(outbox.take()) == [b"1", b"2", b"3", b"end"]


def test_it_is_full_by_bytes_as_well() -> None:
    outbox = Outbox(size=10)
    outbox.add(b"x" * 4)
    outbox.add(b"x" * 5)
    assert not outbox.full
    outbox.add(b"x" * 9)
    assert outbox.full
    next(outbox.take())
    assert outbox.full, "what one frame leaves is not enough"
    list(outbox.take())
    assert not outbox.full
    outbox.rewind()
    assert outbox.full, "all of it is to be sent again"


def test_nobody_can_rewind_to_where_nothing_is() -> None:
    outbox = filled(2)
    list(outbox.take())
    outbox.rewind(99)
    assert list(outbox.take()) == []


@given(st.lists(st.one_of(st.integers(1, 400), st.sampled_from(["take", "lose", "resume"])), max_size=80), st.data())
def test_a_broker_gets_every_frame_however_often_the_link_breaks(steps: list[int | str], data: st.DataObject) -> None:
    """As long as it is behind by no more than is kept; it drops repeats, and sees holes by the numbers."""
    outbox, got = Outbox(frames=8, size=1000), 0
    for step in steps:
        if isinstance(step, int):
            if not outbox.full:
                outbox.add(b"%d " % (outbox.head + 1) + b"x" * step)
        elif step == "take":
            for frame in outbox.take():
                number = int(frame.split()[0])
                assert number <= got + 1, "a hole"
                got = max(got, number)
        elif step == "lose":  # some of what was sent had not arrived, but all of that is kept
            got = data.draw(st.integers(max(0, min(got, outbox.floor - 1)), got))
            outbox.rewind()
        else:
            outbox.rewind(got)
        assert len(outbox._kept) <= 8
        assert sum(map(len, outbox._kept)) < 1000 + len(b"80 ") + 400
        assert outbox.floor <= outbox.sent + 1, "a frame that was not sent is gone"
    outbox.rewind(got)
    assert [int(frame.split()[0]) for frame in outbox.take()] == list(range(got + 1, outbox.head + 1))


def test_the_bounds_are_those_that_are_promised() -> None:
    assert (FRAMES, BYTES) == (1000, 4 << 20)

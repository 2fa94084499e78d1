"""What many are told is encoded once for each format; what somebody may not see leaves its number and nothing else."""

from typing import Any

import msgspec
import pytest

from broker.messages import Record
from broker.protocol.native import NATIVE
from broker.protocol.outgoing import Outgoing, RoomEvent, SessionRecord
from broker.protocol.parcel import Parcel, View, withheld

SECRET = Record(7, 0, "debug", b'{"prompt":"do not tell"}', "t1")
SAID = Record(8, 0, "message.delta", b'{"text":"hi"}', "t1")
TOLD = SessionRecord("s1", SAID)


def event(name: str) -> RoomEvent:
    return RoomEvent("harbour", 1, name, b"null", b"1", 0)


class Quiet:
    """A format whose clients are not told of some things; it counts what it is asked."""

    name = "quiet.v1.json"

    def __init__(self) -> None:
        self.asked = 0

    def encode(self, value: Outgoing) -> bytes:
        self.asked += 1
        return b"" if isinstance(value, RoomEvent) else b'"said"'


def test_what_a_format_does_not_tell_leaves_no_frame() -> None:
    quiet: Any = Quiet()
    parcel = Parcel((TOLD, event("tide"), TOLD))
    assert parcel.frames(quiet, 0) == b'\x81\x06"said"' * 2
    assert parcel.frames(quiet, 0)
    assert quiet.asked == 3


def test_formats_take_turns_and_each_keeps_its_own_frames() -> None:
    quiet: Any = Quiet()
    parcel = Parcel((TOLD,))
    native = parcel.frames(NATIVE, 0)
    assert parcel.frames(quiet, 0) != native
    assert parcel.frames(NATIVE, 0) == native
    assert quiet.asked == 1


def test_a_debug_record_leaves_its_number_and_nothing_else() -> None:
    seen = Parcel((SessionRecord("s1", SECRET), TOLD)).seen(View())
    first, second = seen.items
    assert second is TOLD
    text = msgspec.json.decode(NATIVE.encode(first))
    assert (text["event"], text["seq"], text["data"]) == ("withheld", 7, {})
    assert b"do not tell" not in seen.frames(NATIVE, 0)


def test_who_may_see_debug_records_sees_them() -> None:
    parcel = Parcel((SessionRecord("s1", SECRET),))
    assert parcel.seen(View(debug=True)) is parcel
    assert withheld(SAID) is SAID


@pytest.mark.parametrize(
    ("events", "names"),
    [(None, ["tide", "fog", "tide"]), (frozenset({"tide"}), ["tide", "tide"]), (frozenset({"gale"}), [])],
)
def test_a_filter_leaves_the_events_that_it_names(events: frozenset[str] | None, names: list[str]) -> None:
    parcel = Parcel((event("tide"), event("fog"), event("tide")))
    seen = parcel.seen(View(events))
    assert [item.event for item in seen.items if isinstance(item, RoomEvent)] == names
    assert parcel.seen(View(events)) is seen

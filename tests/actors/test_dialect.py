"""A format with a memory: it is told all that its client would be told, and what it wants done is done, in order."""

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from loguru import logger

from broker.actors.connection import Connection
from broker.actors.reply import SocketReply
from broker.actors.requests import ToRoom, ToSession
from broker.errors import BrokerError, CloseCode
from broker.operations import Attach, Join, Publish
from broker.protocol.dialect import Later, Part, Reaction
from broker.protocol.native import NATIVE
from broker.protocol.outgoing import CaughtUp, Due, Entered, Failure, Request, Response, RoomEvent, SessionRecord
from broker.protocol.parcel import Parcel
from broker.testing import FakeTransport, settled


class Scribe:
    """A dialect that does what the test tells it to for each class of value, and notes what it was told."""

    def __init__(self, **reactions: Iterable[Reaction]) -> None:
        self.told: list[Any] = []
        self.reactions = reactions

    def decode(self, text: bytes) -> Request:
        return NATIVE.decode(text)

    def salvage_id(self, text: bytes) -> None:
        return None

    def tell(self, value: Any) -> Iterator[Reaction]:
        self.told.append(value)
        yield from self.reactions.get(type(value).__name__, ())

    @property
    def kinds(self) -> list[str]:
        return [type(value).__name__ for value in self.told]


class Line:
    """A connection that speaks by a scribe."""

    def __init__(self, house: Any, scribe: Scribe) -> None:
        self.scribe = scribe
        self.socket = FakeTransport()
        self.peer = house.connect().peer
        self.ref = Connection.start(self.peer, NATIVE, self.socket, 0, house.connection, scribe)
        self.asked: list[Request] = []
        self.ref.actor.ask = self.asked.append
        house.clients.append(self)

    @property
    def said(self) -> list[bytes]:
        return [frame.payload for frame in self.socket.frames]


@pytest.fixture
def line(house: Any) -> Any:
    return lambda **reactions: Line(house, Scribe(**reactions))


async def test_it_says_and_asks_in_its_own_order(line: Any) -> None:
    request = Request("ping", b"{}")
    it = line(Response=(b'"one"', request, b'"two"'))
    it.ref.tell(Response("r1", b"{}"))
    await settled(it.ref)
    assert it.said == [b'"one"', b'"two"']
    assert it.asked == [request]
    assert it.socket.writes == 1


async def test_what_it_has_nothing_to_say_to_is_not_said(line: Any) -> None:
    it = line()
    for value in (Response("r1", b"{}"), Parcel((CaughtUp("s1", 1), CaughtUp("s2", 1)))):
        it.ref.tell(value)
    await settled(it.ref)
    assert it.said == []
    assert it.scribe.kinds == ["Response", "CaughtUp", "CaughtUp"]


async def test_it_is_told_when_its_time_is_over(line: Any, house: Any) -> None:
    it = line(Entered=(Later(5.0, "late"),), Due=(b'"late"',))
    it.ref.tell(Entered())
    await settled(it.ref)
    house.clock.advance(4.9)
    await settled(it.ref)
    assert it.said == []
    house.clock.advance(0.2)
    await settled(it.ref)
    assert it.scribe.told[-1] == Due("late")
    assert it.said == [b'"late"']


async def test_nobody_is_reminded_who_has_left(line: Any, house: Any) -> None:
    it = line(Entered=(Later(5.0, "late"),))
    it.ref.tell(Entered())
    await settled(it.ref)
    it.ref.actor.stop()
    house.clock.advance(6.0)
    await settled(house.registry)
    assert it.scribe.kinds == ["Entered"]


async def test_it_may_end_the_connection_after_what_it_said(line: Any) -> None:
    it = line(Failure=(b'"sorry"', Part(CloseCode.POLICY_VIOLATION, "enough")))
    it.ref.tell(Failure(None, BrokerError("invalid_message")))
    await settled(it.ref)
    assert it.said[0] == b'"sorry"'
    assert it.ref.actor.close_code == CloseCode.POLICY_VIOLATION
    it.ref.tell(Entered())
    await settled(it.ref)
    assert it.scribe.kinds == ["Failure"]


async def test_a_log_is_told_record_by_record_and_goes_on_where_it_ended(line: Any, house: Any) -> None:
    it = line(SessionRecord=(b'"record"',), CaughtUp=(b'"live"',))
    session_id = await house.create()
    ask(house, it, ToSession(session_id, Attach(house.connect().by, it.ref, 0, None)))
    await house.settle()
    assert it.said == [b'"record"', b'"live"']
    await house.update(session_id, "tea")
    await house.settle()
    assert it.said == [b'"record"', b'"live"', b'"record"']


async def test_what_passes_in_a_room_without_history_is_filtered_too(line: Any, make_house: Any) -> None:
    house = make_house(room_history=0)
    it = Line(house, Scribe(RoomEvent=(b'"event"',)))
    by = it.peer.principal
    join = Join(by, it.ref, it.peer.connection_id, None, None, frozenset({"tide"}))
    for operation in (join, Publish(by, b"null", "fog", b"1"), Publish(by, b"null", "tide", b"1")):
        ask(house, it, ToRoom("harbour", operation))
    await house.settle()
    assert [value.event for value in it.scribe.told if isinstance(value, RoomEvent)] == ["tide"]


def ask(house: Any, it: Line, message: Any) -> None:
    def never(request_id: Any, error: BaseException, _: str | None) -> Failure:
        raise AssertionError((request_id, error))

    house.registry.request(message, SocketReply(it.ref, "r", lambda _: b"{}", never))


class Stammerer(Scribe):
    """A dialect that cannot word what tells of the head 2, nor answers that are no object."""

    def tell(self, value: Any) -> Iterator[Reaction]:
        yield from super().tell(value)
        match value:
            case CaughtUp(_, head):
                yield b'"before %d"' % head
                if head == 2:
                    raise ValueError("a secret of the record's")
                yield b'"after %d"' % head
            case Response(_, data) if data != b"{}":
                raise ValueError("no object")
            case Failure(request_id, error):
                yield b'"%s of %s"' % (error.code.encode(), str(request_id).encode())


async def test_what_cannot_be_worded_is_left_out_and_the_rest_is_told(house: Any) -> None:
    logged: list[str] = []
    sink = logger.add(logged.append, format="{message}", diagnose=False)
    it = Line(house, Stammerer())
    for _ in range(2):
        it.ref.tell(Parcel(tuple(CaughtUp("s1", head) for head in (1, 2, 3))))
    await settled(it.ref)
    logger.remove(sink)
    told = [b'"before 1"', b'"after 1"', b'"before 2"', b'"before 3"', b'"after 3"']
    assert it.said == [*told[:3], b'"internal of None"', *told[3:], *told]
    assert it.ref.is_alive()
    assert house.connection.stats.dropped == {"unworded": 2}
    assert len([line for line in logged if line.startswith("CaughtUp cannot be worded in ")]) == 1


async def test_a_request_whose_answer_cannot_be_worded_is_answered_that_something_broke(house: Any) -> None:
    it = Line(house, Stammerer())
    for request_id in ("r1", "r2"):
        it.ref.tell(Response(request_id, b"1"))
    it.ref.tell(Response("r3", b"{}"))
    await settled(it.ref)
    assert it.said == [b'"internal of r1"', b'"internal of r2"']


async def test_a_dialect_that_can_word_nothing_at_all_still_has_its_connection(house: Any) -> None:
    class Mute(Scribe):
        def tell(self, value: Any) -> Iterator[Reaction]:
            raise ValueError(value)

    it = Line(house, Mute())
    for value in (Response("r1", b"{}"), Failure("r2", BrokerError("busy")), Parcel((CaughtUp("s1", 1),)), Due(1)):
        it.ref.tell(value)
    await settled(it.ref)
    assert (it.said, it.ref.is_alive()) == ([], True)


async def test_a_page_goes_on_after_a_record_that_cannot_be_worded(house: Any) -> None:
    class Forgetful(Scribe):
        def tell(self, value: Any) -> Iterator[Reaction]:
            if isinstance(value, SessionRecord):
                if value.record.seq == 2:
                    raise ValueError(value.record)
                yield b"%d" % value.record.seq

    session_id = await house.create()
    for title in ("two", "three"):
        await house.update(session_id, title)
    it = Line(house, Forgetful())
    ask(house, it, ToSession(session_id, Attach(house.connect().by, it.ref, 0, None)))
    await house.settle()
    assert it.said == [b"1", b"3"]
    await house.update(session_id, "four")
    await house.settle()
    assert it.said == [b"1", b"3", b"4"]
